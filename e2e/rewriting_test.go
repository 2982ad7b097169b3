package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// message posts a message and gives its uuid.
func (w *world) message(tb testing.TB, a api, conversation, what string) string {
	tb.Helper()
	var made struct{ Message message }
	a.ok(tb, "POST", "/v1/conversations/"+conversation+"/messages", text(what)).into(tb, &made)
	return made.Message.UUID
}

func TestEditedMessagesReachEverybodyAndStayEdited(t *testing.T) {
	// A client that was there and one that comes later must end up with the same text.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		c := w.conversation(t, alice, bob)
		listeners := []*device{w.online(t, bob, 4), w.online(t, bob, 5), w.online(t, alice, 5)}
		seq := int64(1)
		for _, by := range w.callers(t, alice) {
			var made, edited struct{ Message message }
			by.must(t, &made, "sendMessage", map[string]any{
				"conversation": c, "text": "first", "attributes": map[string]any{"a": 1},
				"parts": []any{map[string]any{"mimeType": "text/plain", "body": "part"}},
			})
			for n, change := range []map[string]any{{"text": "second"}, {"text": "third", "parts": []any{}, "payload": nil}} {
				params := map[string]any{"conversation": c, "message": made.Message.UUID}
				maps.Copy(params, change)
				by.must(t, &edited, "editMessage", params)
				if m := edited.Message; m.UUID != made.Message.UUID || m.Seq != seq+1 || m.EditCount != n+1 || m.EditedTime < m.Time || m.Text != change["text"] {
					t.Errorf("%s: %+v", by.name, m)
				}
			}
			for _, d := range listeners {
				list := d.hearUpTo(t, c, seq+1, seq+3)
				for n, want := range []struct{ kind, text string }{{"sendMessage", "first"}, {"editMessage", "second"}, {"editMessage", "third"}} {
					ev := list[n]
					if ev.Type != want.kind || ev.Action != want.kind || ev.Message.Text != want.text || ev.Message.UUID != made.Message.UUID ||
						ev.Message.Seq != seq+1 || ev.Message.Sender.UserID != alice.ID || ev.Reason != nil || len(ev.Message.Parts) != []int{1, 1, 0}[n] {
						t.Errorf("%s: %s hears %s", by.name, d.user.Name, ev.raw)
					}
				}
			}
			// The past shows the present.
			for _, reader := range w.callers(t, bob) {
				var page struct{ Events []event }
				reader.must(t, &page, "retransmitEvents", map[string]any{"conversation": c, "from": seq + 1, "to": seq + 3})
				for _, ev := range page.Events {
					if ev.Message.Text != "third" || ev.Message.EditCount != 2 || len(ev.Message.Parts) != 0 || ev.RequestID != "" {
						t.Errorf("%s reads %+v", reader.name, *ev.Message)
					}
				}
			}
			seq += 3
		}
	})
}

func TestARepetitionShowsNothingThatOneMayNotRead(t *testing.T) {
	// Sending a message again is how clients find out whether it has arrived. It must not be a way to read what others have made
	// of it since.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users[1], users[0])
		reading := func(may bool) {
			w.service.ok(t, "PATCH", "/v1/conversations/"+c+"/participants", map[string]any{"participants": []any{
				map[string]any{"username": users[0].Name, "permissions": map[string]any{"canRead": may}},
			}})
		}
		key := w.as(t, users[0]).with("Idempotency-Key", "k")
		body := map[string]any{"text": "mine", "id": "m-1"}
		var made struct{ Message message }
		key.ok(t, "POST", "/v1/conversations/"+c+"/messages", body).into(t, &made)
		ways := append(w.callers(t, users[0]), caller{"HTTP with a key", func(tb testing.TB, _ string, _ map[string]any) (json.RawMessage, *refusal) {
			tb.Helper()
			return key.ok(tb, "POST", "/v1/conversations/"+c+"/messages", body).body, nil
		}})
		again := map[string]any{"conversation": c, "text": "mine", "id": "m-1"}
		reading(false)
		w.service.ok(t, "PATCH", "/v1/conversations/"+c+"/messages/"+made.Message.UUID, map[string]any{"text": "a secret"})
		for _, by := range ways {
			var known struct{ Message message }
			result, refused := by.run(t, "sendMessage", again)
			if refused != nil {
				t.Errorf("%s: %+v", by.name, refused)
				continue
			}
			mustDecode(t, result, &known)
			if m := known.Message; bytes.Contains(result, []byte("secret")) || m.UUID != made.Message.UUID || m.Seq != 2 || m.Conversation != c || m.EditCount != 0 {
				t.Errorf("%s: %s", by.name, result)
			}
		}
		reading(true)
		for _, by := range ways {
			if result, refused := by.run(t, "sendMessage", again); refused != nil || !bytes.Contains(result, []byte("a secret")) {
				t.Errorf("%s, when it may read again: %s %+v", by.name, result, refused)
			}
		}
		w.log(t, c)
	})
}

func TestRemovedMessagesAreGoneForAll(t *testing.T) {
	// "Remove" is a promise to who regrets: nobody must find it any more, whichever way they look.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		asAlice := w.as(t, alice)
		for n, by := range w.callers(t, alice) {
			c := w.conversation(t, alice, bob)
			away := w.phone(t, bob, lasting(5, fmt.Sprint("away ", n)))
			away.follow(t, 1, "conversations/"+c+"/events")
			away.goodbye(t)
			here := w.online(t, bob, 5)
			key := asAlice.with("Idempotency-Key", "k-"+by.name)
			body := map[string]any{"text": "a secret", "id": "m-1", "options": map[string]any{"push": map[string]any{"x": "secret"}}}
			var made struct{ Message message }
			key.ok(t, "POST", "/v1/conversations/"+c+"/messages", body).into(t, &made)
			ref := map[string]any{"conversation": c, "message": made.Message.UUID}
			var edited struct{ Message message }
			by.must(t, &edited, "editMessage", map[string]any{"conversation": c, "message": made.Message.UUID, "text": "another secret"})
			var none map[string]any
			if by.must(t, &none, "removeMessage", ref); len(none) != 0 {
				t.Errorf("%s: removeMessage answers %v", by.name, none)
			}

			gone := here.hearUpTo(t, c, 2, 4)[2]
			var shape struct{ Message map[string]any }
			mustDecode(t, gone.raw, &shape)
			if gone.Type != "removeMessage" || len(shape.Message) != 3 || gone.Message.UUID != made.Message.UUID ||
				gone.Message.Conversation != c || gone.Message.Seq != 2 {
				t.Errorf("%s: the event is %s", by.name, gone.raw)
			}
			silent := func(where string, raw []byte) {
				t.Helper()
				if bytes.Contains(raw, []byte("secret")) {
					t.Errorf("%s, %s: %s", by.name, where, raw)
				}
			}
			for _, reader := range w.callers(t, bob) {
				result, refused := reader.run(t, "retransmitEvents", map[string]any{"conversation": c, "from": 1, "to": 4})
				silent("retransmission over "+reader.name, result)
				var page struct{ Events []event }
				if refused != nil || json.Unmarshal(result, &page) != nil || len(page.Events) != 4 || !page.Events[1].Message.Removed ||
					page.Events[1].Message.Sender.UserID != alice.ID || page.Events[1].Message.Text != "" {
					t.Errorf("%s reads %s, %+v", reader.name, result, refused)
				}
			}
			away = w.phone(t, bob, lasting(5, fmt.Sprint("away ", n)))
			for seq := int64(2); seq <= 4; seq++ {
				ev := away.event(t)
				raw := mustJSON(t, ev)
				silent("catch-up", raw)
				if ev.Seq != seq {
					t.Errorf("%s: event %d came where %d was due", by.name, ev.Seq, seq)
				}
			}
			away.ackAll(t)
			// Nor when the message is sent again.
			again := key.ok(t, "POST", "/v1/conversations/"+c+"/messages", body)
			silent("the first answer again", again.body)
			if again.status != 201 || again.header.Get("Idempotency-Replayed") != "true" || !strings.Contains(string(again.body), `"removed":true`) {
				t.Errorf("%s: sent again over HTTP: %d %s", by.name, again.status, again.body)
			}
			result, refused := by.run(t, "sendMessage", map[string]any{"conversation": c, "text": "a secret", "id": "m-1"})
			silent("sent again", result)
			if refused != nil || !strings.Contains(string(result), `"removed":true`) {
				t.Errorf("%s: sent again: %s %+v", by.name, result, refused)
			}
			if n := len(w.log(t, c)); n != 4 {
				t.Errorf("%s: %d events", by.name, n)
			}
		}
	})
}

func TestModeratorsEditAndRemoveWithReason(t *testing.T) {
	// Who reads an altered message must see that it was not its sender who altered it.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := users[0], users[1], users[2]
		c := w.conversationWith(t, map[string]any{"participants": []any{
			bob.ref(), map[string]any{"username": carol.Name, "permissions": map[string]any{"canEditAll": true, "canRemoveAll": true}},
		}}, alice)
		asBob, asCarol := w.as(t, bob), w.as(t, carol)
		m := w.message(t, asBob, c, "rude")
		path := "/v1/conversations/" + c + "/messages/" + m
		here := w.online(t, bob, 4)
		asCarol.ok(t, "PATCH", path, text("***"))
		w.service.ok(t, "PATCH", path, map[string]any{"text": "nice", "reason": map[string]any{"code": 7, "detail": "house rules"}})
		asBob.ok(t, "PATCH", path, text("fine"))
		asCarol.ok(t, "DELETE", path, nil)
		spam := "/v1/conversations/" + c + "/messages/" + w.message(t, asBob, c, "spam")
		w.service.ok(t, "DELETE", spam, map[string]any{"reason": map[string]any{"code": 9, "detail": "spam"}})
		list := slices.Delete(here.hearUpTo(t, c, 3, 8), 4, 5) // without the spam itself
		for n, want := range []struct {
			by   initiator
			code int
		}{
			{initiator{UserID: carol.ID, Username: carol.Name}, -1},
			{initiator{Service: "Billing"}, 7},
			{initiator{UserID: bob.ID, Username: bob.Name}, 0},
			{initiator{UserID: carol.ID, Username: carol.Name}, -1},
			{initiator{Service: "Billing"}, 9},
		} {
			ev := list[n]
			if ev.Initiator != want.by || (ev.Reason == nil) != (want.code == 0) || ev.Reason != nil && (ev.Reason.Code != want.code || ev.Reason.Detail == "") {
				t.Errorf("event %d: %s", ev.Seq, ev.raw)
			}
		}
		if n := asBob.refused(t, "PATCH", path, text("again")).Number; n != 11 {
			t.Errorf("editing what was removed: number %d", n)
		}
	})
}

func TestAcknowledgementsOfRewritingNameMessageAndNumber(t *testing.T) {
	// Without a reply the acknowledgement is all that a client has.
	inWorlds(t, func(t *testing.T, w *world) {
		alice := w.user(t, "alice")
		c := w.conversation(t, alice)
		d := w.connect(t, alice, 5)
		sent := d.say(t, c, text("hello"))
		for n, command := range []string{"editMessage", "removeMessage"} {
			params := map[string]any{"conversation": c, "message": sent.user["message"]}
			if command == "editMessage" {
				params["text"] = "bye"
			}
			a := d.publish(t, publishing{topic: "commands/" + command, qos: 1, payload: mustJSON(t, params)})
			if a.reason != 0 || a.seq() != int64(3+n) || a.user["conversation"] != c || a.user["message"] != sent.user["message"] {
				t.Errorf("%s: %+v", command, a)
			}
		}
		kinds := []string{}
		for _, ev := range w.log(t, c) {
			kinds = append(kinds, ev.Type)
		}
		if want := []string{"createConversation", "sendMessage", "editMessage", "removeMessage"}; !slices.Equal(kinds, want) {
			t.Errorf("the log is %v", kinds)
		}
	})
}
