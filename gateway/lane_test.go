package gateway_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

func TestThoseWhoReturnTakeTurnsAndTheOthersDoNotWait(t *testing.T) {
	// After a network outage all phones of a town come back at once. They must not read the store all at once, and those who
	// are there must not stand in their queue.
	synctest.Test(t, func(t *testing.T) {
		const phones, missed = 12, 200
		var kept *ledger
		w := newWorld(t, func(o *gateway.Options) {
			kept = newLedger(o.History.(*memory))
			o.Sessions, o.CacheBytes = kept, 1 // whatever is not sent at once is read
		})
		durable := func(_ *client, h *domain.Hello) { h.Expiry = 3600 }
		var users []domain.UserID
		for u := range domain.UserID(phones) {
			users = append(users, u+1)
		}
		full, other := w.converse(users...), w.converse(1, 50)
		for _, u := range users {
			c := w.subscriber(u, durable)
			c.hangUp()
		}
		w.settle()
		for range missed {
			w.do(1, message(full, "missed", ""))
		}
		gate := newGate()
		var mu sync.Mutex
		reading, most := 0, 0
		w.store.set(func() {
			w.store.onEvents = func(ctx context.Context, c domain.ConversationID) error {
				if c != full {
					return nil
				}
				mu.Lock()
				reading++
				most = max(most, reading)
				mu.Unlock()
				defer func() {
					mu.Lock()
					defer mu.Unlock()
					reading--
				}()
				return gate.wait(ctx)
			}
		})
		var back []*client
		for _, u := range users {
			back = append(back, w.connect(u, durable))
		}
		live := w.subscriber(50, idle)
		w.do(1, message(other, "live", ""))
		for range 300 { // further than anything is kept
			w.do(1, message(other, "live", ""))
		}
		for n := 1; n > 0; {
			n, _ = live.pull(64, 64)
		}
		live.wantSeqs(other, span(2, 302))
		mu.Lock()
		if places := max(1, runtime.GOMAXPROCS(0)/2); reading != places || most != places {
			t.Errorf("%d read at a time, at most %d, want %d", reading, most, places)
		}
		mu.Unlock()
		gate.open()
		w.settle()
		for _, c := range back {
			c.wantSeqs(full, span(2, missed+1))
		}
	})
}
