package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"
)

// accepted is where a message is, as its sender was told.
type accepted struct {
	seq  int64
	uuid string
}

// door is one of the ways in which a client sends a message, with an id.
type door struct {
	name string
	// send gives where the message is, and whether that is the answer to a repetition.
	send func(ctx context.Context, id string) (at accepted, again bool, err error)
}

// doors gives every way to send a message of the user to the conversation.
func (w *world) doors(tb testing.TB, u user, conversation string) []door {
	tb.Helper()
	as := w.as(tb, u)
	modern, old := w.connect(tb, u, 5), w.connect(tb, u, 4)
	modern.subscribe(tb, 1, u.replies())
	old.subscribe(tb, 1, u.replies())
	acked := func(a ack, err error) (accepted, bool, error) {
		if err == nil && a.reason != 0 {
			err = fmt.Errorf("0x%02x %s", a.reason, a.text)
		}
		return accepted{a.seq(), a.user["message"]}, a.user["duplicate"] == "1", err
	}
	replied := func(r reply, err error) (at accepted, again bool, _ error) {
		var result struct {
			Message   message
			Duplicate bool
		}
		if err == nil && r.Error != nil {
			err = fmt.Errorf("%+v", *r.Error)
		}
		if err == nil {
			err = json.Unmarshal(r.Result, &result)
		}
		return accepted{result.Message.Seq, result.Message.UUID}, result.Duplicate, err
	}
	posted := func(ctx context.Context, a api, body map[string]any) (at accepted, again bool, _ error) {
		res, err := a.try(ctx, "POST", "/v1/conversations/"+conversation+"/messages", body)
		var result struct{ Message message }
		if err == nil {
			err = json.Unmarshal(res.body, &result)
		}
		replayed := res.header.Get("Idempotency-Replayed") == "true"
		return accepted{result.Message.Seq, result.Message.UUID}, res.status == 200 || replayed, err
	}
	path := "conversations/" + conversation
	return []door{
		{"MQTT 5, QoS 1", func(ctx context.Context, id string) (accepted, bool, error) {
			return acked(modern.tryPublish(ctx, publishing{topic: path + "/messages", qos: 1, payload: mustJSON(tb, map[string]any{"id": id, "text": "once"})}))
		}},
		{"MQTT 5, QoS 2", func(ctx context.Context, id string) (accepted, bool, error) {
			_, err := modern.tryPublish(ctx, publishing{topic: path + "/messages", qos: 2, payload: mustJSON(tb, map[string]any{
				"id": id, "text": "once", "requestId": "QoS 2 " + id,
			})})
			if err != nil {
				return accepted{}, false, err
			}
			return replied(modern.awaitReply(ctx, "QoS 2 "+id))
		}},
		{"MQTT 5, raw", func(ctx context.Context, id string) (accepted, bool, error) {
			return acked(modern.tryPublish(ctx, publishing{topic: path + "/raw", qos: 1, payload: []byte("once"), correlation: []byte(id)}))
		}},
		{"MQTT 5, command", func(ctx context.Context, id string) (accepted, bool, error) {
			return replied(modern.tryCommand(ctx, "sendMessage", map[string]any{"conversation": conversation, "id": id, "text": "once"}))
		}},
		{"MQTT 3.1.1", func(ctx context.Context, id string) (accepted, bool, error) {
			_, err := old.tryPublish(ctx, publishing{topic: path + "/messages", qos: 1, payload: mustJSON(tb, map[string]any{
				"id": id, "text": "once", "requestId": "old " + id,
			})})
			if err != nil {
				return accepted{}, false, err
			}
			return replied(old.awaitReply(ctx, "old "+id))
		}},
		{"HTTP, id", func(ctx context.Context, id string) (accepted, bool, error) {
			return posted(ctx, as, map[string]any{"id": id, "text": "once"})
		}},
		{"HTTP, Idempotency-Key", func(ctx context.Context, id string) (accepted, bool, error) {
			return posted(ctx, as.with("Idempotency-Key", id), map[string]any{"text": "once"})
		}},
		{"HTTP, a service for the user", func(ctx context.Context, id string) (accepted, bool, error) {
			return posted(ctx, w.service, map[string]any{"as": u.Name, "id": id, "text": "once"})
		}},
	}
}

// repeat sends messages again, each through every door at the same time.
func repeat(tb testing.TB, when string, doors []door, first map[string]accepted) {
	tb.Helper()
	var all errgroup.Group
	for _, d := range doors {
		all.Go(func() error { // one after the other: replies are told apart by their message
			for id, want := range first {
				at, again, err := d.send(tb.Context(), id)
				switch {
				case err != nil:
					return fmt.Errorf("%s: %s, %s: %w", when, d.name, id, err)
				case at != want || !again:
					tb.Errorf("%s: %s, %s: %+v (a repetition: %v), and first it was %+v", when, d.name, id, at, again, want)
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		tb.Fatal(err)
	}
}

// afterKill9 kills the gateway and starts it again.
func (w *world) afterKill9(tb testing.TB, killed *child, storeURL string) *child {
	tb.Helper()
	killed.signal(tb, syscall.SIGKILL)
	killed.exit(tb)
	again := spawn(tb, storeURL)
	w.gateway, w.service = again.gateway, again.api(w.service.token)
	return again
}

func TestRepetitionsGetTheFirstAnswerThroughEveryDoorAndAfterKill9(t *testing.T) {
	// A client repeats over whatever it has: the other version of MQTT on the tablet, HTTP where MQTT is blocked. Wherever the
	// first attempt came in, and whatever has happened to the gateway since, there is one message, and one answer.
	onBothStores(t, func(t *testing.T, s store) {
		storeURL := s.empty(t)
		gw := spawn(t, storeURL)
		w := newWorld(t, gw.gateway)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		first := make(map[string]accepted)
		doors := w.doors(t, users[0], c)
		for i, d := range doors {
			at, again, err := d.send(t.Context(), fmt.Sprint("message ", i))
			if err != nil || again || at.seq != int64(i)+2 || at.uuid == "" {
				t.Fatalf("%s: %+v, a repetition: %v, %v", d.name, at, again, err)
			}
			first[fmt.Sprint("message ", i)] = at
		}
		repeat(t, "at once", doors, first)
		gw = w.afterKill9(t, gw, storeURL)
		doors = w.doors(t, users[0], c)
		repeat(t, "after kill -9", doors, first)
		if n := len(w.log(t, c)); n != len(first)+1 {
			t.Errorf("the log has %d events, want %d", n, len(first)+1)
		}

		// What became of the message since does not make a repetition a new one.
		alice := w.as(t, users[0])
		gone := first["message 0"]
		alice.ok(t, "DELETE", "/v1/conversations/"+c+"/messages/"+gone.uuid, nil)
		edited := first["message 1"]
		alice.ok(t, "PATCH", "/v1/conversations/"+c+"/messages/"+edited.uuid, text("edited"))
		repeat(t, "edited and removed", doors, first)
		w.afterKill9(t, gw, storeURL)
		repeat(t, "edited and removed, after another", w.doors(t, users[0], c), first)
		if n := len(w.log(t, c)); n != len(first)+3 {
			t.Errorf("the log has %d events, want %d", n, len(first)+3)
		}
	})
}

func TestAttemptsCutByKill9AreOneMessageWhenRepeated(t *testing.T) {
	// Nobody knows what became of a message that was under way when the gateway died. Repeating it must be right in both cases.
	onBothStores(t, func(t *testing.T, s store) {
		const rounds, each = 4, 5
		storeURL := s.empty(t)
		gw := spawn(t, storeURL)
		w := newWorld(t, gw.gateway)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		total, unanswered := 0, 0
		for round := range rounds {
			var mu sync.Mutex
			told := make(map[string]accepted)
			var ids []string
			answers := make(chan struct{}, 1000)
			var all sync.WaitGroup
			ctx, cancel := context.WithCancel(t.Context())
			for i, d := range w.doors(t, users[0], c) {
				for n := range each {
					id := fmt.Sprint("message ", round, " ", i, " ", n)
					ids = append(ids, id)
					all.Go(func() {
						at, _, err := d.send(ctx, id)
						if err == nil {
							mu.Lock()
							told[id] = at
							mu.Unlock()
							answers <- struct{}{}
						}
					})
				}
			}
			for range rand.IntN(len(ids) / 2) {
				<-answers
			}
			gw.signal(t, syscall.SIGKILL)
			gw.exit(t)
			cancel()
			all.Wait()
			gw = spawn(t, storeURL)
			w.gateway, w.service = gw.gateway, gw.api(w.service.token)

			doors := w.doors(t, users[0], c)
			first := make(map[string]accepted, len(ids))
			for i, id := range ids {
				at, _, err := doors[(i+round)%len(doors)].send(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				if was, ok := told[id]; ok && was != at {
					t.Errorf("%s was accepted as %+v, and repeated it is %+v", id, was, at)
				}
				first[id] = at
			}
			repeat(t, "again", doors[:5], first)
			total, unanswered = total+len(ids), unanswered+len(ids)-len(told)
		}
		if n := len(w.log(t, c)); n != total+1 {
			t.Errorf("the log has %d events, want %d", n, total+1)
		}
		t.Logf("%d of %d attempts had no answer", unanswered, total)
		if unanswered == 0 {
			t.Error("nothing was under way when the gateway was killed; the test proves nothing")
		}
	})
}

func TestRepetitionWithoutAnIDIsAnotherMessage(t *testing.T) {
	// DUP and packet ids are of one connection: without an id nobody can tell a repetition from somebody who says it twice.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		for _, qos := range []byte{1, 2} {
			for attempt := range 2 {
				r := w.rawConnect(t, users[0], version)
				packet := r.publishPacket(messagesTopic(c), mustJSON(t, text("yes")), qos, 7)
				if attempt > 0 {
					packet[0] |= 8 // DUP
				}
				r.write(t, packet)
				r.expect(t, map[byte]byte{1: typePuback, 2: typePubrec}[qos])
			}
		}
		if n := len(w.log(t, c)); n != 5 {
			t.Errorf("the log has %d events, want 5", n)
		}
	})
}

func TestRepeatedCommandsTellWhatIsDoneAlready(t *testing.T) {
	// Commands have no id. A client that repeats one must see from the answer that it had been carried out, or do no harm.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol")
		for _, by := range w.callers(t, users[0]) {
			open := w.conversationWith(t, map[string]any{"publicJoin": true}, users[1])
			own := w.conversation(t, users[:2]...)
			say := func(content string) string {
				var sent struct{ Message message }
				by.must(t, &sent, "sendMessage", map[string]any{"conversation": own, "text": content})
				return sent.Message.UUID
			}
			said, gone := say("edited"), say("removed")
			with := func(key, conversation string, more map[string]any) map[string]any {
				params := map[string]any{key: conversation}
				maps.Copy(params, more)
				return params
			}
			carol := map[string]any{"participants": refs(users[2])}
			for _, c := range []struct {
				command string
				params  map[string]any
				again   string // the code of the repetition; empty: it succeeds as well
			}{
				{"joinConversation", with("uuid", open, nil), "already-participant"},
				{"leaveConversation", with("uuid", open, nil), "not-participant"},
				{"addParticipants", with("uuid", own, carol), "already-participant"},
				{"editParticipants", with("uuid", own, map[string]any{"participants": []map[string]any{{
					"username": users[2].Name, "permissions": map[string]any{"canWrite": false},
				}}}), ""},
				{"removeParticipants", with("uuid", own, carol), "not-participant"},
				{"editConversation", with("uuid", own, map[string]any{"title": "t"}), ""},
				{"muteConversation", with("uuid", own, map[string]any{"muted": true}), ""},
				{"markAsRead", with("conversation", own, map[string]any{"seq": 2}), ""},
				{"editMessage", with("conversation", own, map[string]any{"message": said, "text": "now"}), ""},
				{"removeMessage", with("conversation", own, map[string]any{"message": gone}), "message-removed"},
				{"createConversation", map[string]any{"direct": true, "participants": refs(users[2])}, ""},
				{"createConversation", map[string]any{"distinct": true, "participants": refs(users[1:]...)}, ""},
				{"removeConversation", with("uuid", own, nil), "conversation-removed"},
			} {
				var first struct{ Conversation conversation }
				by.must(t, &first, c.command, c.params)
				result, refused := by.run(t, c.command, c.params)
				switch {
				case c.again == "" && refused != nil, c.again != "" && (refused == nil || refused.Code != c.again):
					t.Errorf("%s: %s again: %s %+v, want %q", by.name, c.command, result, refused, c.again)
				case c.command == "createConversation":
					var second struct {
						Conversation conversation
						Existing     bool
					}
					mustDecode(t, result, &second)
					if second.Conversation.UUID != first.Conversation.UUID || !second.Existing {
						t.Errorf("%s: created again: %s", by.name, result)
					}
				}
			}
		}
	})
}
