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
