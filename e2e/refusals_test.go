package e2e_test

import (
	"slices"
	"strings"
	"testing"
)

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
