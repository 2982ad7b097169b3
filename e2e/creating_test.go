package e2e_test

import (
	"encoding/json"
	"slices"
	"testing"
)

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
