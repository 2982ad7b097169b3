package e2e_test

import (
	"fmt"
	"slices"
	"testing"
)

func TestTheMessageOfTheProtocolComesBackFieldByField(t *testing.T) {
	// The example of section 4, with every default spelt out: who copies it must find again what they wrote.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "tom")
		c := w.conversation(t, users...)
		tom := w.online(t, users[1], 4)
		for i, by := range w.callers(t, users[0]) {
			sent := map[string]any{
				"id":      fmt.Sprint("client-", i),
				"text":    "up to 5000 characters",
				"payload": []any{map[string]any{"any": "JSON objects, no primitives"}},
				"parts": []any{
					map[string]any{"mimeType": "text/plain", "body": "…"},
					map[string]any{"mimeType": "image/jpeg", "body": "YmFzZTY0", "encoding": "base64"},
					map[string]any{"mimeType": "video/mp4", "url": "https://example.com/v", "size": 31337},
				},
				"messageType": 1, "attributes": map[string]any{"any": "JSON"},
				"mentions":     map[string]any{"all": false, "users": []string{users[1].Name}},
				"notification": map[string]any{"text": "…", "sound": "ping.aiff"},
				"options": map[string]any{
					"transient": false, "receipt": false, "will": false, "priority": "normal", "push": map[string]any{"any": "JSON"},
				},
				"conversation": c,
			}
			var result struct{ Message map[string]any }
			by.must(t, &result, "sendMessage", sent)
			var heard struct{ Message map[string]any }
			mustDecode(t, tom.hear(t, c).raw, &heard)
			delete(sent, "options")
			sent["priority"], sent["push"] = "normal", map[string]any{"any": "JSON"}
			for name, value := range sent {
				for _, shown := range []map[string]any{result.Message, heard.Message} {
					if got, want := string(mustJSON(t, shown[name])), string(mustJSON(t, value)); got != want {
						t.Errorf("%s: %s comes back as %s, sent was %s", by.name, name, got, want)
					}
				}
			}
		}
	})
}

func TestParticipantsMayBeNamedByNumberOrNameAlone(t *testing.T) {
	// A list of names is what everybody writes first.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol", "dave")
		for _, by := range w.callers(t, users[0]) {
			var made struct{ Conversation conversation }
			by.must(t, &made, "createConversation", map[string]any{"participants": []any{users[1].Name, users[2].ID}})
			id := made.Conversation.UUID
			if got := made.Conversation.names(); !slices.Equal(got, []string{users[0].Name, users[1].Name, users[2].Name}) {
				t.Errorf("%s: created with %v", by.name, got)
			}
			by.must(t, &made, "addParticipants", map[string]any{"uuid": id, "participants": []any{users[3].Name}})
			by.must(t, &made, "removeParticipants", map[string]any{"uuid": id, "participants": []any{users[1].ID, users[2].Name}})
			if got := made.Conversation.names(); !slices.Equal(got, []string{users[0].Name, users[3].Name}) {
				t.Errorf("%s: in the end there are %v", by.name, got)
			}
			if _, no := by.run(t, "addParticipants", map[string]any{"uuid": id, "participants": []any{"nobody@chat." + w.account}}); no == nil || no.Code != "user-not-found" {
				t.Errorf("%s: nobody: %+v", by.name, no)
			}
			if _, no := by.run(t, "addParticipants", map[string]any{"uuid": id, "participants": []any{true}}); no == nil || no.Code != "invalid-request" {
				t.Errorf("%s: true: %+v", by.name, no)
			}
		}
	})
}
