package e2e_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"
)

func TestSameIDFromEverywhereAtOnceIsOneMessage(t *testing.T) {
	// A client on a bad line sends its message again and again, over whatever connection it has just got.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		var devices []*device
		for i := range 6 {
			devices = append(devices, w.online(t, users[0], 4+byte(i%2)))
		}
		alice := w.as(t, users[0])
		for round := range 5 {
			id := fmt.Sprint("round-", round)
			var all errgroup.Group
			type place struct {
				seq  int64
				uuid string
			}
			places := make(chan place, 2*len(devices)+4)
			news := make(chan bool, cap(places))
			for i, d := range devices {
				for n := range 2 {
					all.Go(func() error {
						request := fmt.Sprint(id, "/", i, "/", n)
						if _, err := d.trySay(t.Context(), c, map[string]any{"id": id, "text": "hello", "requestId": request}); err != nil {
							return err
						}
						return nil
					})
				}
			}
			for range 4 {
				all.Go(func() error {
					res, err := alice.try(t.Context(), "POST", "/v1/conversations/"+c+"/messages", map[string]any{"id": id, "text": "hello"})
					if err != nil {
						return err
					}
					var result struct{ Message message }
					if err := json.Unmarshal(res.body, &result); err != nil {
						return err
					}
					places <- place{result.Message.Seq, result.Message.UUID}
					news <- res.status == 201
					return nil
				})
			}
			if err := all.Wait(); err != nil {
				t.Fatal(err)
			}
			for i, d := range devices {
				for n := range 2 {
					r := d.reply(t, fmt.Sprint(id, "/", i, "/", n))
					var result struct{ Message message }
					r.into(t, &result)
					places <- place{result.Message.Seq, result.Message.UUID}
				}
			}
			first := <-places
			if first.seq != int64(round)+2 {
				t.Errorf("round %d: number %d", round, first.seq)
			}
			for range cap(places) - 1 {
				if got := <-places; got != first {
					t.Errorf("round %d: one is told %+v, another %+v", round, first, got)
				}
			}
			created := 0
			for range 4 {
				if <-news {
					created++
				}
			}
			if created > 1 {
				t.Errorf("round %d: HTTP says 201 %d times", round, created)
			}
			for _, d := range devices {
				if ev := d.hear(t, c); ev.Seq != first.seq || ev.Message.UUID != first.uuid {
					t.Errorf("round %d: %s hears %s", round, d.id, ev.raw)
				}
			}
		}
		if n := len(w.log(t, c)); n != 6 {
			t.Errorf("the log has %d events, want 6", n)
		}
	})
}

func TestIDBelongsToItsSenderAndConversation(t *testing.T) {
	// Clients count their messages from 1: the same id of another user, or elsewhere, is another message.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		one, two := w.conversation(t, users...), w.conversation(t, users...)
		alice, bob := w.connect(t, users[0], 5), w.connect(t, users[1], 5)
		same := map[string]any{"id": "1", "text": "hello"}
		service := w.connect(t, users[0], 5, login("service/Billing@"+w.account, w.service.token))
		for i, a := range []ack{alice.say(t, one, same), bob.say(t, one, same), service.say(t, one, same), alice.say(t, two, same)} {
			want := []int64{2, 3, 4, 2}[i]
			if a.seq() != want || a.user["duplicate"] != "" {
				t.Errorf("message %d: %v, want number %d", i, a.user, want)
			}
		}
		// It is the first that counts, whatever the second says: nothing is stored, and the answer is the first one's.
		other := alice.say(t, one, map[string]any{"id": "1", "text": "something else"})
		if other.seq() != 2 || other.user["duplicate"] != "1" {
			t.Errorf("another text with the same id: %v", other.user)
		}
		if log := w.log(t, one); len(log) != 4 || log[1].Message.Text != "hello" {
			t.Errorf("stored: %s", mustJSON(t, log))
		}
		// A service that sends for a user has the user's ids.
		var sent struct{ Message message }
		res := w.service.ok(t, "POST", "/v1/conversations/"+one+"/messages", map[string]any{"as": users[0].Name, "id": "1", "text": "hello"})
		res.into(t, &sent)
		if sent.Message.Seq != 2 || res.status != 200 {
			t.Errorf("as the user: %d %+v", res.status, sent.Message)
		}
	})
}

func TestRepetitionIsKnownAfterReconnectAndRestart(t *testing.T) {
	// The acknowledgement that got lost may have been lost with the gateway.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		g := start(t, url)
		w := newWorld(t, g)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		payload := map[string]any{"id": "precious", "text": "hello", "requestId": "r"}
		first := w.connect(t, users[0], 5)
		a := first.say(t, c, payload)
		first.cut()
		again := w.connect(t, users[0], 5, named(first.id))
		if b := again.say(t, c, payload); b.seq() != a.seq() || b.user["message"] != a.user["message"] || b.user["duplicate"] != "1" {
			t.Errorf("after a reconnect: %v, first was %v", b.user, a.user)
		}
		again.leave()
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}

		w.gateway = start(t, url)
		w.service = w.api(w.service.token)
		modern, old := w.connect(t, users[0], 5), w.online(t, users[0], 4)
		if b := modern.say(t, c, payload); b.seq() != a.seq() || b.user["message"] != a.user["message"] || b.user["duplicate"] != "1" {
			t.Errorf("after a restart: %v, first was %v", b.user, a.user)
		}
		old.replies.rest()
		old.say(t, c, map[string]any{"id": "precious", "text": "hello", "requestId": "old"})
		var result struct{ Message message }
		old.reply(t, "old").into(t, &result)
		if result.Message.Seq != a.seq() || result.Message.UUID != a.user["message"] {
			t.Errorf("3.1.1 after a restart: %+v", result.Message)
		}
		if n := len(w.log(t, c)); n != 2 {
			t.Errorf("the log has %d events, want 2", n)
		}
	})
}

func TestRefusedMessageMayBeRepeatedUnderItsID(t *testing.T) {
	// A refusal must not use up the id: once the reason is gone, the same message is welcome.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users[1])
		alice := w.connect(t, users[0], 5)
		p := publishing{topic: messagesTopic(c), qos: 1, payload: mustJSON(t, map[string]any{"id": "1", "text": "hello"})}
		if a := alice.publish(t, p); a.reason != 0x87 {
			t.Fatalf("PUBACK 0x%02x", a.reason)
		}
		w.as(t, users[1]).ok(t, "POST", "/v1/conversations/"+c+"/participants", map[string]any{"participants": refs(users[0])})
		if a := alice.publish(t, p); a.reason != 0 || a.seq() != 3 || a.user["duplicate"] != "" {
			t.Errorf("once allowed: 0x%02x %v", a.reason, a.user)
		}
	})
}
