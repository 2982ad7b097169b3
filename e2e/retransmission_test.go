package e2e_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

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
