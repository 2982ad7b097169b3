package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/parley-im/parley/configs"
)

// caller runs commands of a user by one of the three ways that there are.
type caller struct {
	name string
	run  func(tb testing.TB, command string, params map[string]any) (json.RawMessage, *refusal)
}

// callers gives the user's three ways to run commands.
func (w *world) callers(tb testing.TB, u user) []caller {
	tb.Helper()
	list := []caller{{"HTTP", w.overHTTP(w.as(tb, u))}}
	for _, version := range []byte{4, 5} {
		d := w.connect(tb, u, version)
		d.subscribe(tb, 1, u.replies())
		list = append(list, caller{fmt.Sprint("MQTT ", version), func(tb testing.TB, command string, params map[string]any) (json.RawMessage, *refusal) {
			tb.Helper()
			r := d.command(tb, command, params)
			if r.Command != command {
				tb.Errorf("the reply to %s names %q", command, r.Command)
			}
			return r.Result, r.Error
		}})
	}
	return list
}

// overHTTP maps commands to routes, as section 8 of the protocol does.
func (w *world) overHTTP(a api) func(testing.TB, string, map[string]any) (json.RawMessage, *refusal) {
	return func(tb testing.TB, command string, params map[string]any) (json.RawMessage, *refusal) {
		tb.Helper()
		body := make(map[string]any)
		maps.Copy(body, params)
		path := func(name string) string {
			id, _ := body[name].(string)
			delete(body, name)
			return "/v1/conversations/" + url.PathEscape(id)
		}
		query := func(names ...string) string {
			q := url.Values{}
			for _, name := range names {
				switch v := body[name].(type) {
				case nil:
				case []string:
					q[strings.TrimSuffix(name, "s")] = v
				default:
					q.Set(name, fmt.Sprint(v))
				}
			}
			return "?" + q.Encode()
		}
		var res response
		switch command {
		case "getUser":
			res = a.any(tb, "GET", "/v1/users/"+url.PathEscape(fmt.Sprint(body["username"])), nil)
		case "getUsers":
			res = a.any(tb, "GET", "/v1/users"+query("usernames"), nil)
		case "createConversation":
			res = a.any(tb, "POST", "/v1/conversations", body)
		case "getConversation":
			res = a.any(tb, "GET", path("uuid"), nil)
		case "getConversations":
			res = a.any(tb, "GET", "/v1/conversations"+query("uuids"), nil)
		case "addParticipants":
			res = a.any(tb, "POST", path("uuid")+"/participants", body)
		case "removeParticipants":
			res = a.any(tb, "DELETE", path("uuid")+"/participants", body)
		case "editConversation":
			res = a.any(tb, "PATCH", path("uuid"), body)
		case "removeConversation":
			res = a.any(tb, "DELETE", path("uuid"), nil)
		case "editParticipants":
			res = a.any(tb, "PATCH", path("uuid")+"/participants", body)
		case "joinConversation", "leaveConversation":
			res = a.any(tb, "POST", path("uuid")+"/"+strings.TrimSuffix(command, "Conversation"), nil)
		case "muteConversation":
			res = a.any(tb, "POST", path("uuid")+"/mute", body)
		case "getPublicConversations":
			res = a.any(tb, "GET", "/v1/conversations"+query("limit", "cursor")+"&public=true", nil)
		case "editMessage", "removeMessage":
			p := path("conversation") + "/messages/" + url.PathEscape(fmt.Sprint(body["message"]))
			delete(body, "message")
			if command == "removeMessage" {
				res = a.any(tb, "DELETE", p, nil)
			} else {
				res = a.any(tb, "PATCH", p, body)
			}
		case "sendMessage":
			res = a.any(tb, "POST", path("conversation")+"/messages", body)
		case "markAsRead":
			res = a.any(tb, "POST", path("conversation")+"/read", body)
		case "getUnread":
			res = a.any(tb, "GET", "/v1/unread", nil)
		case "getReceipts":
			res = a.any(tb, "GET", path("conversation")+"/messages/"+url.PathEscape(fmt.Sprint(body["message"]))+"/receipts", nil)
		case "retransmitEvents":
			p := path("conversation")
			res = a.any(tb, "GET", p+"/events"+query("from", "to", "count"), nil)
		default:
			res = a.any(tb, "POST", "/v1/"+command, body)
		}
		if res.status < 300 {
			return res.body, nil
		}
		var problem refusal
		res.into(tb, &problem)
		if problem.Status != res.status {
			tb.Errorf("%s: status %d, problem %s", command, res.status, res.body)
		}
		return nil, &problem
	}
}

// must runs a command that must succeed.
func (c caller) must(tb testing.TB, v any, command string, params map[string]any) {
	tb.Helper()
	result, refused := c.run(tb, command, params)
	if refused != nil {
		tb.Fatalf("%s: %s refused: %+v", c.name, command, *refused)
	}
	if err := json.Unmarshal(result, v); err != nil {
		tb.Fatalf("%s: %s: %v in %s", c.name, command, err, result)
	}
}

func TestEveryRefusalIsTheSameOverEveryTransport(t *testing.T) {
	// Whoever ports a client from MQTT to HTTP, or from 3.1.1 to 5, keeps its error handling.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol", "dave", "former")
		alice, bob, carol, dave, former := users[0], users[1], users[2], users[3], users[4]
		gone := w.user(t, "gone")
		w.service.ok(t, "DELETE", "/v1/users/"+gone.Name, nil)
		c := w.conversation(t, alice, bob, former)
		w.as(t, alice).ok(t, "DELETE", "/v1/conversations/"+c+"/participants", map[string]any{"participants": refs(former)})
		direct := w.conversationWith(t, map[string]any{"direct": true}, alice, bob)
		theirs := w.conversation(t, carol, dave)
		guest := w.conversationWith(t, map[string]any{"participants": []any{
			map[string]any{"username": alice.Name, "permissions": map[string]any{"canWrite": false, "canRead": false}},
		}}, bob)
		silent := w.conversation(t, bob, alice, former) // alice may write but not manage
		distinct := w.conversationWith(t, map[string]any{"distinct": true, "customData": map[string]any{"color": "red"}}, alice, carol)
		nothing := "01890000-0000-7000-8000-000000000000"
		asAlice, asBob := w.as(t, alice), w.as(t, bob)
		kicked, said, removed := w.message(t, asAlice, c, "kicked"), w.message(t, asBob, silent, "bob's"), w.conversation(t, alice, bob)
		asAlice.ok(t, "DELETE", "/v1/conversations/"+c+"/messages/"+kicked, nil)
		lost := w.message(t, asAlice, removed, "lost")
		asAlice.ok(t, "DELETE", "/v1/conversations/"+removed, nil)
		public := w.conversationWith(t, map[string]any{"publicJoin": true}, alice, bob)
		last := int64(len(w.log(t, c)))

		type params = map[string]any
		provoked := make(map[int]bool)
		for _, tt := range []struct {
			why     string
			command string
			params  params
			code    string
			number  int
			status  int
			reason  byte
		}{
			{"no such command", "frobnicate", params{}, "unknown-command", 2, 404, 0x90},
			{"no such user", "getUser", params{"username": "nobody@chat." + w.account}, "user-not-found", 25, 404, 0x83},
			{"a name that cannot be", "getUser", params{"username": "NOBODY"}, "user-not-found", 25, 404, 0x83},
			{"one of them missing", "getUsers", params{"usernames": []string{alice.Name, "nobody@chat." + w.account}}, "user-not-found", 25, 404, 0x83},
			{"51 users", "getUsers", params{"usernames": slices.Repeat([]string{alice.Name}, 51)}, "invalid-request", 1, 400, 0x99},
			{"unknown field", "createConversation", params{"titel": "x"}, "invalid-request", 1, 400, 0x99},
			{"wrong type", "createConversation", params{"direct": "yes"}, "invalid-request", 1, 400, 0x99},
			{"unknown policy", "createConversation", params{"policy": "anarchy"}, "invalid-request", 1, 400, 0x99},
			{"user by both names", "createConversation", params{"participants": []any{params{"username": bob.Name, "userId": bob.ID}}}, "invalid-request", 1, 400, 0x99},
			{"customData no object", "createConversation", params{"customData": []int{1}}, "invalid-request", 1, 400, 0x99},
			{"with nobody", "createConversation", params{"participants": []any{params{"username": "nobody@chat." + w.account}}}, "user-not-found", 25, 404, 0x83},
			{"with one who is gone", "createConversation", params{"participants": refs(gone)}, "user-not-found", 25, 404, 0x83},
			{"direct and public", "createConversation", params{"direct": true, "publicJoin": true, "participants": refs(bob)}, "direct-not-public-or-uber", 34, 422, 0x99},
			{"direct and uber", "createConversation", params{"direct": true, "uber": true, "participants": refs(bob)}, "direct-not-public-or-uber", 34, 422, 0x99},
			{"direct with three", "createConversation", params{"direct": true, "participants": refs(bob, carol)}, "direct-needs-two", 35, 422, 0x99},
			{"direct alone", "createConversation", params{"direct": true}, "direct-needs-two", 35, 422, 0x99},
			{"direct with oneself", "createConversation", params{"direct": true, "participants": refs(alice)}, "direct-needs-two", 35, 422, 0x99},
			{"distinct, other customData", "createConversation", params{
				"distinct": true, "participants": refs(carol), "customData": params{"color": "blue"},
			}, "distinct-conflict", 108, 409, 0x83},
			{"no such conversation", "getConversation", params{"uuid": nothing}, "conversation-not-found", 8, 404, 0x83},
			{"others' conversation", "getConversation", params{"uuid": theirs}, "access-denied", 12, 403, 0x87},
			{"one of them others'", "getConversations", params{"uuids": []string{c, theirs}}, "access-denied", 12, 403, 0x87},
			{"31 conversations", "getConversations", params{"uuids": slices.Repeat([]string{c}, 31)}, "invalid-request", 1, 400, 0x99},
			{"add to none", "addParticipants", params{"uuid": nothing, "participants": refs(dave)}, "conversation-not-found", 8, 404, 0x83},
			{"add to others'", "addParticipants", params{"uuid": theirs, "participants": refs(bob)}, "access-denied", 12, 403, 0x87},
			{"add without the right", "addParticipants", params{"uuid": silent, "participants": refs(dave)}, "access-denied", 12, 403, 0x87},
			{"add nobody", "addParticipants", params{"uuid": c, "participants": []any{}}, "invalid-request", 1, 400, 0x99},
			{"add a participant", "addParticipants", params{"uuid": c, "participants": refs(dave, bob)}, "already-participant", 13, 409, 0x83},
			{"add an unknown user", "addParticipants", params{"uuid": c, "participants": []any{dave.ref(), params{"userId": int64(1) << 60}}}, "user-not-found", 25, 404, 0x83},
			{"add to direct", "addParticipants", params{"uuid": direct, "participants": refs(carol)}, "direct-no-add", 37, 422, 0x83},
			{"remove from direct", "removeParticipants", params{"uuid": direct, "participants": refs(bob)}, "direct-no-remove", 38, 422, 0x83},
			{"remove who is not in", "removeParticipants", params{"uuid": c, "participants": refs(bob, dave)}, "not-participant", 19, 409, 0x83},
			{"remove the last owner", "removeParticipants", params{"uuid": c, "participants": refs(alice)}, "access-denied", 12, 403, 0x87},
			{"remove without the right", "removeParticipants", params{"uuid": silent, "participants": refs(former)}, "access-denied", 12, 403, 0x87},
			{"join as a participant", "joinConversation", params{"uuid": public}, "already-participant", 13, 409, 0x83},
			{"join what is not public", "joinConversation", params{"uuid": theirs}, "join-not-available", 15, 403, 0x87},
			{"join direct", "joinConversation", params{"uuid": direct}, "direct-no-join", 39, 422, 0x83},
			{"join none", "joinConversation", params{"uuid": nothing}, "conversation-not-found", 8, 404, 0x83},
			{"leave direct", "leaveConversation", params{"uuid": direct}, "direct-no-leave", 40, 422, 0x83},
			{"leave others'", "leaveConversation", params{"uuid": theirs}, "not-participant", 19, 409, 0x83},
			{"edit others'", "editConversation", params{"uuid": theirs, "title": "x"}, "access-denied", 12, 403, 0x87},
			{"edit as no owner", "editConversation", params{"uuid": silent, "title": "x"}, "access-denied", 12, 403, 0x87},
			{"edit nothing", "editConversation", params{"uuid": c}, "invalid-request", 1, 400, 0x99},
			{"edit what cannot be edited", "editConversation", params{"uuid": c, "direct": true}, "invalid-request", 1, 400, 0x99},
			{"make direct public", "editConversation", params{"uuid": direct, "publicJoin": true}, "direct-not-public-or-uber", 34, 422, 0x99},
			{"permit without the right", "editParticipants", params{"uuid": silent, "participants": []any{
				params{"username": former.Name, "permissions": params{"canRead": false}},
			}}, "access-denied", 12, 403, 0x87},
			{"permit who is not in", "editParticipants", params{"uuid": c, "participants": []any{
				params{"username": bob.Name, "permissions": params{"canRead": false}},
				params{"username": dave.Name, "permissions": params{"canRead": false}},
			}}, "not-participant", 19, 409, 0x83},
			{"permit an unknown user", "editParticipants", params{"uuid": c, "participants": []any{
				params{"userId": int64(1) << 60, "permissions": params{"canRead": false}},
			}}, "user-not-found", 25, 404, 0x83},
			{"demote the last owner", "editParticipants", params{"uuid": c, "participants": []any{
				params{"username": alice.Name, "permissions": params{"isOwner": false}},
			}}, "access-denied", 12, 403, 0x87},
			{"permit nothing", "editParticipants", params{"uuid": c, "participants": refs(bob)}, "invalid-request", 1, 400, 0x99},
			{"remove as no owner", "removeConversation", params{"uuid": silent}, "access-denied", 12, 403, 0x87},
			{"remove a removed one", "removeConversation", params{"uuid": removed}, "conversation-removed", 16, 410, 0x83},
			{"get a removed one", "getConversation", params{"uuid": removed}, "conversation-removed", 16, 410, 0x83},
			{"send to a removed one", "sendMessage", params{"conversation": removed, "text": "x"}, "conversation-removed", 16, 410, 0x83},
			{"edit in a removed one", "editMessage", params{"conversation": removed, "message": lost, "text": "x"}, "conversation-removed", 16, 410, 0x83},
			{"events of a removed one", "retransmitEvents", params{"conversation": removed, "from": 1, "count": 1}, "conversation-removed", 16, 410, 0x83},
			{"mute others'", "muteConversation", params{"uuid": theirs, "muted": true}, "access-denied", 12, 403, 0x87},
			{"mute or not", "muteConversation", params{"uuid": c}, "invalid-request", 1, 400, 0x99},
			{"a cursor of somebody else", "getPublicConversations", params{"cursor": "x"}, "invalid-request", 1, 400, 0x99},
			{"edit no message", "editMessage", params{"conversation": c, "message": nothing, "text": "x"}, "message-not-found", 10, 404, 0x83},
			{"edit a message of another", "editMessage", params{"conversation": c, "message": said, "text": "x"}, "message-not-found", 10, 404, 0x83},
			{"edit a removed message", "editMessage", params{"conversation": c, "message": kicked, "text": "x"}, "message-removed", 11, 410, 0x83},
			{"edit another's message", "editMessage", params{"conversation": silent, "message": said, "text": "x"}, "access-denied", 12, 403, 0x87},
			{"edit to nothing", "editMessage", params{"conversation": c, "message": kicked}, "invalid-request", 1, 400, 0x99},
			{"edit to too much", "editMessage", params{"conversation": c, "message": kicked, "text": strings.Repeat("ü", 5001)}, "message-too-large", 23, 413, 0x95},
			{"remove a removed message", "removeMessage", params{"conversation": c, "message": kicked}, "message-removed", 11, 410, 0x83},
			{"remove another's message", "removeMessage", params{"conversation": silent, "message": said}, "access-denied", 12, 403, 0x87},
			{"remove no message", "removeMessage", params{"conversation": c, "message": nothing}, "message-not-found", 10, 404, 0x83},
			{"send to others'", "sendMessage", params{"conversation": theirs, "text": "hi"}, "access-denied", 12, 403, 0x87},
			{"send without the right", "sendMessage", params{"conversation": guest, "text": "hi"}, "access-denied", 12, 403, 0x87},
			{"send to none", "sendMessage", params{"conversation": nothing, "text": "hi"}, "conversation-not-found", 8, 404, 0x83},
			{"send nothing", "sendMessage", params{"conversation": c}, "invalid-request", 1, 400, 0x99},
			{"payload of primitives", "sendMessage", params{"conversation": c, "payload": []any{1, "x"}}, "invalid-request", 1, 400, 0x99},
			{"MIME type without subtype", "sendMessage", params{"conversation": c, "parts": []any{params{"mimeType": "text", "body": "x"}}}, "invalid-request", 1, 400, 0x99},
			{"id of 65 characters", "sendMessage", params{"conversation": c, "text": "x", "id": strings.Repeat("i", 65)}, "invalid-request", 1, 400, 0x99},
			{"text of 5001 characters", "sendMessage", params{"conversation": c, "text": strings.Repeat("ü", 5001)}, "message-too-large", 23, 413, 0x95},
			{"part of more than 32 KiB", "sendMessage", params{"conversation": c, "parts": []any{params{"mimeType": "text/plain", "body": strings.Repeat("x", 32<<10+1)}}}, "message-too-large", 23, 413, 0x95},
			{"17 parts", "sendMessage", params{"conversation": c, "parts": slices.Repeat([]any{params{"mimeType": "text/plain", "body": "x"}}, 17)}, "message-too-large", 23, 413, 0x95},
			{"count 0", "retransmitEvents", params{"conversation": c, "from": 1, "count": 0}, "count-out-of-range", 21, 422, 0x99},
			{"count 101", "retransmitEvents", params{"conversation": c, "from": 1, "count": 101}, "count-out-of-range", 22, 422, 0x99},
			{"far beyond the last", "retransmitEvents", params{"conversation": c, "from": 1, "to": 999}, "sequence-out-of-range", 24, 422, 0x99},
			{"beyond the last", "retransmitEvents", params{"conversation": c, "from": 1, "to": last + 1}, "sequence-out-of-range", 24, 422, 0x99},
			{"before the first", "retransmitEvents", params{"conversation": c, "from": 0, "to": 1}, "sequence-out-of-range", 24, 422, 0x99},
			{"from after to", "retransmitEvents", params{"conversation": c, "from": 2, "to": 1}, "from-after-to", 28, 422, 0x99},
			{"three of three", "retransmitEvents", params{"conversation": c, "from": 1, "to": 2, "count": 2}, "too-many-range-arguments", 36, 422, 0x99},
			{"one of three", "retransmitEvents", params{"conversation": c, "from": 1}, "too-few-range-arguments", 41, 422, 0x99},
			{"none of three", "retransmitEvents", params{"conversation": c}, "too-few-range-arguments", 41, 422, 0x99},
			{"others' events", "retransmitEvents", params{"conversation": theirs, "from": 1, "count": 1}, "access-denied", 12, 403, 0x87},
			{"events without the right to read", "retransmitEvents", params{"conversation": guest, "from": 1, "count": 1}, "access-denied", 12, 403, 0x87},
			{"reading beyond the last", "markAsRead", params{"conversation": c, "seq": last + 1}, "sequence-out-of-range", 24, 422, 0x99},
			{"reading before the first", "markAsRead", params{"conversation": c, "seq": -1}, "sequence-out-of-range", 24, 422, 0x99},
			{"reading others'", "markAsRead", params{"conversation": theirs, "seq": 1}, "access-denied", 12, 403, 0x87},
			{"reading without the right to", "markAsRead", params{"conversation": guest}, "access-denied", 12, 403, 0x87},
			{"reading nothing", "markAsRead", params{"conversation": nothing}, "conversation-not-found", 8, 404, 0x83},
			{"receipts of what is no message", "getReceipts", params{"conversation": c, "message": nothing}, "message-not-found", 10, 404, 0x83},
			{"receipts of others' messages", "getReceipts", params{"conversation": theirs, "message": nothing}, "access-denied", 12, 403, 0x87},
			{"receipts in nothing", "getReceipts", params{"conversation": nothing, "message": nothing}, "conversation-not-found", 8, 404, 0x83},
			{"an unknown push event", "managePushNotifications", params{"events": []string{"sendMessage", "breathe"}}, "unknown-push-event", 26, 422, 0x99},
			{"mentioning a stranger", "sendMessage", params{"conversation": c, "text": "x", "mentions": params{"users": []string{dave.Name}}}, "not-participant", 19, 409, 0x83},
			{"events of nothing", "retransmitEvents", params{"conversation": nothing, "from": 1, "count": 1}, "conversation-not-found", 8, 404, 0x83},
		} {
			provoked[tt.number] = true
			var details []string
			for _, by := range w.sameCallers(t, alice) {
				if tt.number == 26 && by.name == "HTTP" {
					continue // there is no route for it
				}
				_, refused := by.run(t, tt.command, tt.params)
				if refused == nil {
					t.Errorf("%s over %s is not refused", tt.why, by.name)
					continue
				}
				if refused.Code != tt.code || refused.Number != tt.number || refused.Status != tt.status {
					t.Errorf("%s over %s: %+v, want %s %d %d", tt.why, by.name, *refused, tt.code, tt.number, tt.status)
				}
				if (refused.Conversation != nil) != (tt.number == 108) || refused.Conversation != nil && refused.Conversation.UUID != distinct {
					t.Errorf("%s over %s comes with conversation %+v", tt.why, by.name, refused.Conversation)
				}
				details = append(details, refused.Detail)
			}
			if tt.number != 2 && len(slices.Compact(slices.Clone(details))) > 1 {
				t.Errorf("%s: the details differ: %q", tt.why, details)
			}
			// What the acknowledgement says in MQTT 5.
			d := w.ackDevice(t, alice)
			a := d.publish(t, publishing{topic: "commands/" + tt.command, qos: 1, payload: mustJSON(t, tt.params)})
			if a.reason != tt.reason || a.text != tt.code {
				t.Errorf("%s: PUBACK 0x%02x %s, want 0x%02x %s", tt.why, a.reason, a.text, tt.reason, tt.code)
			}
			if tt.number != 2 && len(details) > 0 && a.user["detail"] != details[0] {
				t.Errorf("%s: the PUBACK's detail is %q, the reply's %q", tt.why, a.user["detail"], details[0])
			}
		}
		// Section 7 of the protocol, but for what no command is refused with at any time: 3, 30, 32 and 500.
		for _, number := range []int{1, 2, 8, 10, 11, 12, 13, 15, 16, 19, 21, 22, 23, 24, 25, 26, 28, 34, 35, 36, 37, 38, 39, 40, 41, 108} {
			if !provoked[number] {
				t.Errorf("nothing is refused with number %d", number)
			}
		}
		if n := int64(len(w.log(t, c))); n != last {
			t.Errorf("refused commands left %d events", n-last)
		}

		// Who left may read up to leaving, and no further.
		for _, by := range w.callers(t, former) {
			var page struct{ Events []event }
			by.must(t, &page, "retransmitEvents", params{"conversation": c, "from": 1, "count": 100})
			if int64(len(page.Events)) != 2 {
				t.Errorf("%s: who was removed by event 2 reads %d events", by.name, len(page.Events))
			}
			if _, refused := by.run(t, "sendMessage", params{"conversation": c, "text": "hi"}); refused == nil || refused.Number != 12 {
				t.Errorf("%s: who left writes: %+v", by.name, refused)
			}
		}
	})
}

// sameCallers and ackDevice keep one set of connections per world, for tables.
func (w *world) sameCallers(tb testing.TB, u user) []caller {
	tb.Helper()
	if w.kept == nil {
		w.kept = w.callers(tb, u)
	}
	return w.kept
}

func (w *world) ackDevice(tb testing.TB, u user) *device {
	tb.Helper()
	if w.acks == nil {
		w.acks = w.connect(tb, u, 5)
	}
	return w.acks
}

func TestUsersAreFoundByNameAndNumber(t *testing.T) {
	// Clients show names for the numbers they see, and numbers survive what names may not.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		gone := w.user(t, "gone")
		w.service.ok(t, "PATCH", "/v1/users/"+users[1].Name, map[string]any{"displayName": "Bob B.", "customData": map[string]any{"a": 1}})
		w.service.ok(t, "DELETE", "/v1/users/"+gone.Name, nil)
		for _, version := range []byte{4, 5} {
			d := w.online(t, users[0], version)
			type record struct {
				UserID      int64
				Username    string
				DisplayName string
				CustomData  json.RawMessage
				Deleted     bool
			}
			for _, ref := range []map[string]any{users[1].ref(), users[1].refID()} {
				var one struct{ User record }
				d.command(t, "getUser", ref).into(t, &one)
				if u := one.User; u.UserID != users[1].ID || u.Username != users[1].Name || u.DisplayName != "Bob B." || string(u.CustomData) != `{"a":1}` || u.Deleted {
					t.Errorf("getUser %v: %+v", ref, u)
				}
			}
			var dead struct{ User record }
			d.command(t, "getUser", gone.ref()).into(t, &dead)
			if !dead.User.Deleted || dead.User.UserID != gone.ID {
				t.Errorf("a deleted user: %+v", dead.User)
			}
			var list struct{ Users []record }
			d.command(t, "getUsers", map[string]any{"username": []string{users[1].Name, users[0].Name}, "userId": []int64{gone.ID}}).into(t, &list)
			var names []string
			for _, u := range list.Users {
				names = append(names, u.Username)
			}
			if want := []string{users[1].Name, users[0].Name, gone.Name}; !slices.Equal(names, want) {
				t.Errorf("getUsers gives %v, want %v", names, want)
			}
			if r := d.command(t, "getUser", map[string]any{}); r.Error == nil || r.Error.Number != 1 {
				t.Errorf("getUser of nobody: %+v", r.Error)
			}
		}
	})
}

func TestConversationIsAsItWasCreated(t *testing.T) {
	// What one asked for is what all see: in the result, in the events, in later reads.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol")
		bob := w.online(t, users[1], 5)
		for _, by := range w.callers(t, users[0]) {
			var made struct {
				Conversation conversation
				Existing     bool
			}
			by.must(t, &made, "createConversation", map[string]any{
				"title": "Über uns", "uber": true, "publicJoin": true, "policy": "open", "customData": map[string]any{"n": 1},
				"permissions":  map[string]any{"canWrite": false},
				"participants": []any{users[1].ref(), map[string]any{"userId": users[2].ID, "permissions": map[string]any{"canWrite": true, "canEditAll": true}}},
			})
			c := made.Conversation
			if made.Existing || c.Title != "Über uns" || !c.Uber || !c.PublicJoin || c.Policy != "open" || c.Direct || c.Distinct ||
				c.LastSeq != 1 || string(c.CustomData) != `{"n":1}` {
				t.Errorf("%s: %+v", by.name, made)
			}
			want := []permissions{
				{true, true, true, true, true, true, true, true},
				{CanRead: true, CanEdit: true, CanRemove: true},
				{CanRead: true, CanWrite: true, CanEdit: true, CanRemove: true, CanEditAll: true},
			}
			for i, p := range c.Participants {
				if p.UserID != users[i].ID || p.Username != users[i].Name || p.Permissions != want[i] || p.JoinedSeq != 1 {
					t.Errorf("%s: participant %+v, want %s with %+v", by.name, p, users[i].Name, want[i])
				}
			}
			ev := bob.hear(t, c.UUID)
			if string(mustJSON(t, ev.ConversationData)) != string(mustJSON(t, c)) || ev.Action != "createConversation" {
				t.Errorf("%s: the event says %s, the result %s", by.name, ev.raw, mustJSON(t, c))
			}
			for _, reader := range w.callers(t, users[2]) {
				var one struct{ Conversation conversation }
				reader.must(t, &one, "getConversation", map[string]any{"uuid": c.UUID})
				var list struct{ Conversations []conversation }
				reader.must(t, &list, "getConversations", map[string]any{"uuids": []string{c.UUID}})
				if len(list.Conversations) != 1 {
					t.Fatalf("%s: %d conversations", reader.name, len(list.Conversations))
				}
				for _, read := range []conversation{one.Conversation, list.Conversations[0]} {
					if string(mustJSON(t, read)) != string(mustJSON(t, c)) {
						t.Errorf("%s reads %s, created was %s", reader.name, mustJSON(t, read), mustJSON(t, c))
					}
				}
			}
			// Without the right nobody writes.
			if a := bob.publish(t, publishing{topic: messagesTopic(c.UUID), qos: 1, payload: mustJSON(t, text("hi"))}); a.reason != 0x87 {
				t.Errorf("%s: bob, who may not write, gets PUBACK 0x%02x", by.name, a.reason)
			}
		}
	})
}

func TestDirectConversationIsOnePerPair(t *testing.T) {
	// Two people who write to one another at the same moment must end up in the same conversation.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		var first string
		for i, u := range []user{users[0], users[1]} {
			for j, by := range w.callers(t, u) {
				var made struct {
					Conversation conversation
					Existing     bool
				}
				by.must(t, &made, "createConversation", map[string]any{"direct": true, "participants": refs(users[1-i])})
				if i+j == 0 {
					first = made.Conversation.UUID
				}
				if made.Conversation.UUID != first || made.Existing != (i+j > 0) || !made.Conversation.Direct {
					t.Errorf("%s by %s: %+v", by.name, u.Name, made)
				}
			}
		}
		// At the same time, from both sides and by all ways.
		pair := w.users(t, "carol", "dave")
		type outcome struct {
			id       string
			existing bool
		}
		outcomes := make(chan outcome, 12)
		for i, u := range pair {
			for range 2 {
				for _, by := range w.callers(t, u) {
					go func() {
						result, refused := by.run(t, "createConversation", map[string]any{"direct": true, "participants": refs(pair[1-i])})
						var made struct {
							Conversation conversation
							Existing     bool
						}
						if refused != nil || json.Unmarshal(result, &made) != nil {
							t.Errorf("%s: %+v %s", by.name, refused, result)
						}
						outcomes <- outcome{made.Conversation.UUID, made.Existing}
					}()
				}
			}
		}
		created, ids := 0, make(map[string]bool)
		for range cap(outcomes) {
			o := <-outcomes
			ids[o.id] = true
			if !o.existing {
				created++
			}
		}
		if len(ids) != 1 || created != 1 {
			t.Errorf("%d conversations for a pair, %d of them created", len(ids), created)
		}
	})
}

func TestDistinctConversationIsOnePerSetOfUsers(t *testing.T) {
	// A client asks for "the conversation with these people" without having to remember it.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol")
		by := w.callers(t, users[0])
		var first, again, other struct {
			Conversation conversation
			Existing     bool
		}
		red := map[string]any{"color": "red"}
		ask := func(c caller, v, custom any, with ...user) {
			params := map[string]any{"distinct": true, "participants": refs(with...)}
			if custom != nil {
				params["customData"] = custom
			}
			c.must(t, v, "createConversation", params)
		}
		ask(by[0], &first, red, users[1], users[2])
		if first.Existing || !first.Conversation.Distinct {
			t.Errorf("created: %+v", first)
		}
		ask(by[1], &again, red, users[2], users[1])
		ask(by[2], &other, nil, users[1], users[2], users[0])
		for _, got := range []conversation{again.Conversation, other.Conversation} {
			if got.UUID != first.Conversation.UUID {
				t.Errorf("the same users get %s and %s", first.Conversation.UUID, got.UUID)
			}
		}
		if !again.Existing || !other.Existing {
			t.Error("existing is not set")
		}
		ask(w.callers(t, users[2])[2], &again, red, users[0], users[1]) // whoever asks
		if again.Conversation.UUID != first.Conversation.UUID {
			t.Error("carol gets another one")
		}
		ask(by[0], &other, nil, users[1])
		if other.Conversation.UUID == first.Conversation.UUID || other.Existing {
			t.Errorf("fewer users get the same: %+v", other)
		}

		// A change of participants ends it for good.
		var changed struct{ Conversation conversation }
		by[1].must(t, &changed, "removeParticipants", map[string]any{"uuid": first.Conversation.UUID, "participants": refs(users[2])})
		if changed.Conversation.Distinct {
			t.Error("still distinct after a change")
		}
		by[1].must(t, &changed, "addParticipants", map[string]any{"uuid": first.Conversation.UUID, "participants": refs(users[2])})
		ask(by[2], &again, nil, users[1], users[2])
		if again.Conversation.UUID == first.Conversation.UUID || again.Existing {
			t.Errorf("a conversation that ceased to be distinct is found again: %+v", again)
		}
	})
}

func TestParticipantsAreChangedAllOrNone(t *testing.T) {
	// Half a change is a state that nobody asked for.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol", "dave")
		for _, by := range w.callers(t, users[0]) {
			c := w.conversation(t, users[0], users[1])
			var answer struct{ Conversation conversation }
			by.must(t, &answer, "addParticipants", map[string]any{"uuid": c, "participants": []any{users[2].ref(), users[3].refID()}})
			if got := answer.Conversation.names(); len(got) != 4 || answer.Conversation.LastSeq != 2 {
				t.Errorf("%s: %v, last event %d", by.name, got, answer.Conversation.LastSeq)
			}
			by.must(t, &answer, "removeParticipants", map[string]any{"uuid": c, "participants": []any{users[3].ref(), users[1].refID()}})
			if got := answer.Conversation.names(); !slices.Equal(got, []string{users[0].Name, users[2].Name}) {
				t.Errorf("%s: %v", by.name, got)
			}
			_, refused := by.run(t, "addParticipants", map[string]any{"uuid": c, "participants": refs(users[1], users[2])})
			if refused == nil || refused.Number != 13 {
				t.Errorf("%s: %+v", by.name, refused)
			}
			_, refused = by.run(t, "removeParticipants", map[string]any{"uuid": c, "participants": refs(users[2], users[3])})
			if refused == nil || refused.Number != 19 {
				t.Errorf("%s: %+v", by.name, refused)
			}
			by.must(t, &answer, "getConversation", map[string]any{"uuid": c})
			if got := answer.Conversation.names(); !slices.Equal(got, []string{users[0].Name, users[2].Name}) || answer.Conversation.LastSeq != 3 {
				t.Errorf("%s: refused changes left %v, last event %d", by.name, got, answer.Conversation.LastSeq)
			}
			// Only who manages may; and an open conversation is everybody's.
			if _, refused := w.callers(t, users[2])[1].run(t, "addParticipants", map[string]any{"uuid": c, "participants": refs(users[1])}); refused == nil || refused.Number != 12 {
				t.Errorf("%s: a plain participant adds: %+v", by.name, refused)
			}
			open := w.conversationWith(t, map[string]any{"policy": "open"}, users[0], users[2])
			w.callers(t, users[2])[1].must(t, &answer, "addParticipants", map[string]any{"uuid": open, "participants": refs(users[1])})
		}
	})
}

func TestRetransmissionGivesExactlyWhatIsAskedFor(t *testing.T) {
	// Clients fill gaps with it: an event too few is a hole, one too many a duplicate.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		sender := w.rawConnect(t, users[0], 5)
		const last = 130
		for id := uint16(2); id <= last; id++ {
			sender.write(t, sender.publishPacket(messagesTopic(c), mustJSON(t, text(fmt.Sprint(id))), 1, id))
			if id%32 == 0 || id == last {
				for sender.expect(t, typePuback).id != id {
				}
			}
		}
		live := w.log(t, c)
		for _, by := range w.callers(t, users[1]) {
			for _, tt := range []struct {
				params   map[string]any
				from, to int64
			}{
				{map[string]any{"from": 1, "to": 1}, 1, 1},
				{map[string]any{"from": 5, "to": 9}, 5, 9},
				{map[string]any{"from": 5, "count": 3}, 5, 7},
				{map[string]any{"to": 9, "count": 3}, 7, 9},
				{map[string]any{"to": 2, "count": 100}, 1, 2},
				{map[string]any{"from": last, "count": 100}, last, last},
				{map[string]any{"from": 100, "count": 100}, 100, last},
				{map[string]any{"to": last, "count": 1}, last, last},
				{map[string]any{"from": last - 100, "to": last}, last - 100, last},
				{map[string]any{"to": last, "count": 100}, last - 99, last},
			} {
				params := map[string]any{"conversation": c}
				maps.Copy(params, tt.params)
				var page struct {
					Events   []event
					From, To int64
				}
				by.must(t, &page, "retransmitEvents", params)
				if page.From != tt.from || page.To != tt.to || int64(len(page.Events)) != tt.to-tt.from+1 {
					t.Errorf("%s: %v gives %d events from %d to %d, want %d to %d", by.name, tt.params, len(page.Events), page.From, page.To, tt.from, tt.to)
					continue
				}
				for i, ev := range page.Events {
					if want := live[tt.from-1+int64(i)]; string(mustJSON(t, ev)) != string(mustJSON(t, want)) {
						t.Errorf("%s: %v: event %s, want %s", by.name, tt.params, mustJSON(t, ev), mustJSON(t, want))
					}
				}
			}
		}
	})
}

func TestUberConversationHidesWhatHappenedInOnesAbsence(t *testing.T) {
	// What is said while somebody is out of the room is not for them.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversationWith(t, map[string]any{"uber": true}, users[0])
		alice := w.as(t, users[0])
		say := func(s string) { alice.ok(t, "POST", "/v1/conversations/"+c+"/messages", text(s)) }
		member := func(method string) {
			alice.ok(t, method, "/v1/conversations/"+c+"/participants", map[string]any{"participants": refs(users[1])})
		}
		say("before")    // 2
		member("POST")   // 3
		say("present")   // 4
		member("DELETE") // 5
		say("absent")    // 6
		member("POST")   // 7
		say("back")      // 8
		for _, by := range w.callers(t, users[1]) {
			var page struct {
				Events   []event
				From, To int64
			}
			by.must(t, &page, "retransmitEvents", map[string]any{"conversation": c, "from": 1, "to": 8})
			var seqs []int64
			for _, ev := range page.Events {
				seqs = append(seqs, ev.Seq)
			}
			if want := []int64{3, 4, 5, 7, 8}; !slices.Equal(seqs, want) {
				t.Errorf("%s: sees %v, want %v", by.name, seqs, want)
			}
		}
		for _, by := range w.callers(t, users[0]) {
			var page struct{ Events []event }
			by.must(t, &page, "retransmitEvents", map[string]any{"conversation": c, "from": 1, "to": 8})
			if len(page.Events) != 8 {
				t.Errorf("%s: who was always there sees %d events of 8", by.name, len(page.Events))
			}
		}
	})
}

func TestMessageComesBackAsItWasSent(t *testing.T) {
	// Applications put into messages what Parley does not understand, and rely on getting it back.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		bob := w.online(t, users[1], 4)
		sent := map[string]any{
			"id": "client-1", "text": "Grüße 👋\n\"quoted\" \\ \u2028", "messageType": 7,
			"payload":      []any{map[string]any{"deep": map[string]any{"list": []any{1.5, "x", nil, true}}}},
			"parts":        []any{map[string]any{"mimeType": "text/plain", "body": "part"}, map[string]any{"mimeType": "video/mp4", "url": "https://example.com/v", "size": 31337}},
			"attributes":   map[string]any{"k": "v"},
			"mentions":     map[string]any{"users": []string{users[1].Name}},
			"notification": map[string]any{"text": "ping", "sound": "ping.aiff"},
			"options":      map[string]any{"receipt": true, "priority": "high", "push": map[string]any{"badge": 1}},
		}
		var stored map[string]any
		for i, by := range w.callers(t, users[0]) {
			params := map[string]any{"conversation": c}
			maps.Copy(params, sent)
			params["id"] = fmt.Sprint("client-", i)
			var result struct{ Message map[string]any }
			by.must(t, &result, "sendMessage", params)
			ev := bob.hear(t, c)
			var heard struct{ Message map[string]any }
			if err := json.Unmarshal(ev.raw, &heard); err != nil {
				t.Fatal(err)
			}
			if got, want := string(mustJSON(t, heard.Message)), string(mustJSON(t, result.Message)); got != want {
				t.Errorf("%s: bob hears %s, the result is %s", by.name, got, want)
			}
			for name, value := range params {
				if name == "options" || name == "conversation" {
					continue
				}
				if got, want := string(mustJSON(t, result.Message[name])), string(mustJSON(t, value)); got != want {
					t.Errorf("%s: %s comes back as %s, sent was %s", by.name, name, got, want)
				}
			}
			if m := result.Message; m["receipt"] != true || m["priority"] != "high" || string(mustJSON(t, m["push"])) != `{"badge":1}` || m["options"] != nil {
				t.Errorf("%s: options come back as %v", by.name, result.Message)
			}
			stored = result.Message
		}
		var page struct {
			Events []struct{ Message map[string]any }
		}
		w.callers(t, users[1])[0].must(t, &page, "retransmitEvents", map[string]any{"conversation": c, "to": 4, "count": 1})
		if got, want := string(mustJSON(t, page.Events[0].Message)), string(mustJSON(t, stored)); got != want {
			t.Errorf("the history says %s, sent was %s", got, want)
		}
	})
}

func TestRatesAreLimitedPerUser(t *testing.T) {
	// One user's runaway script must not take the others' share; and it must hear why.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t), func(c *configs.Config) { c.Limits.MessagesPerSecond, c.Limits.CommandsPerSecond = 5, 5 })
		w := newWorld(t, g)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		r := w.rawConnect(t, users[0], 5)
		const n = 60
		for id := uint16(1); id <= n; id++ {
			r.write(t, r.publishPacket(messagesTopic(c), mustJSON(t, text("hi")), 1, id))
		}
		limited := 0
		for range n {
			switch p := r.expect(t, typePuback); {
			case p.reason == 0x97 && p.props.reasonString() == "rate-limited":
				limited++
			case p.reason != 0:
				t.Errorf("PUBACK 0x%02x %s", p.reason, p.props.reasonString())
			}
		}
		if limited == 0 || limited == n {
			t.Errorf("%d of %d messages at once were limited to 5 a second", limited, n)
		}
		if got := len(w.log(t, c)) - 1; got != n-limited {
			t.Errorf("%d were stored, %d acknowledged", got, n-limited)
		}
		bob := w.online(t, users[1], 4)
		bob.say(t, c, map[string]any{"text": "I have done nothing", "requestId": "mine"})
		if reply := bob.reply(t, "mine"); reply.Error != nil {
			t.Errorf("another user is limited as well: %+v", reply.Error)
		}
	})
}
