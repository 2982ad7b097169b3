package gateway_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
		var users []domain.UserID
		for u := range domain.UserID(phones) {
			users = append(users, u+1)
		}
		full, other := w.converse(users...), w.converse(1, 50)
		for _, u := range users {
			c := w.subscriber(u, durable(3600))
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
			back = append(back, w.connect(u, durable(3600)))
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

// phones gives durable devices of users that have gone, and what their common conversation has had since.
func phones(t *testing.T, w *world, n domain.UserID, missed int) (domain.ConversationID, []domain.UserID) {
	t.Helper()
	var users []domain.UserID
	for u := range n {
		users = append(users, u+1)
	}
	id := w.converse(users...)
	for _, u := range users {
		w.subscriber(u, durable(3600)).hangUp()
	}
	w.settle()
	for range missed {
		w.do(1, message(id, "missed", ""))
	}
	return id, users
}

// forgetful has a gateway with durable sessions read whatever is not sent at once.
func forgetful(o *gateway.Options) {
	o.Sessions, o.CacheBytes = newLedger(o.History.(*memory)), 1
}

func TestWhatManyMissedIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const missed = 320
		w := newWorld(t, forgetful)
		id, users := phones(t, w, 20, missed)
		w.subscriber(99) // what is kept of the conversation is forgotten
		before := w.gauge("parley_delivery_store_reads_total")
		var back []*client
		for _, u := range users {
			back = append(back, w.connect(u, durable(3600)))
		}
		w.settle()
		for _, c := range back {
			c.wantSeqs(id, span(2, missed+1))
		}
		// Numbers 2 to 321, in pages that end at multiples of 64.
		if reads := w.gauge("parley_delivery_store_reads_total") - before; reads < 6 || reads > 12 {
			t.Errorf("%v reads for 20 devices, want 6 or little more", reads)
		}
	})
}

func TestWhatManyReadIsForgottenWhenItIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const missed = 100 // more than a page
		w := newWorld(t, forgetful)
		id, users := phones(t, w, 3, missed)
		first := w.connect(users[1], durable(3600))
		w.settle()
		first.wantSeqs(id, span(2, missed+1))
		w.do(1, erase(id, 5))
		second := w.connect(users[2], durable(3600))
		w.settle()
		second.wantSeqs(id, span(2, missed+2))
		if got := says(second, id); got[3] != "removed" || got[2] != "missed" {
			t.Errorf("who came later is shown %q of the messages 4 and 5", got[2:4])
		}
	})
}

func TestWhatManyReadIsForgottenSoon(t *testing.T) {
	// Another gateway may remove what it shows.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, forgetful)
		id, users := phones(t, w, 3, 20)
		reads := func() float64 { return w.gauge("parley_delivery_store_reads_total") }
		before := reads()
		w.connect(users[1], durable(3600))
		w.settle()
		once := reads() - before
		w.pass(3 * time.Second)
		c := w.connect(users[2], durable(3600))
		w.settle()
		c.wantSeqs(id, span(2, 21))
		if again := reads() - before - once; once == 0 || again != once {
			t.Errorf("%v reads, and %v three seconds later", once, again)
		}
	})
}

func TestSlowSocketsDoNotHoldUpThoseWhoReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const missed = 200
		w := newWorld(t, forgetful)
		id, users := phones(t, w, domain.UserID(2*runtime.GOMAXPROCS(0)+2), missed)
		for _, u := range users[1:] {
			stuck := w.connect(u, durable(3600), idle)
			w.settle()
			if n, err := stuck.pull(1, 1); n != 1 || err != nil { // and its socket takes no more
				t.Fatalf("%d deliveries, %v", n, err)
			}
		}
		c := w.connect(users[0], durable(3600))
		w.settle()
		w.pass(time.Second)
		c.wantSeqs(id, span(2, missed+1))
	})
}

func TestAStoreThatHungHoldsUpNobodyFurther(t *testing.T) {
	// The pause after a turn is as long as the turn was busy. A read that waited for the store was not.
	synctest.Test(t, func(t *testing.T) {
		const missed = 200
		w := newWorld(t, forgetful)
		id, users := phones(t, w, domain.UserID(2*runtime.GOMAXPROCS(0)+2), missed)
		w.store.set(func() {
			w.store.onEvents = func(context.Context, domain.ConversationID) error {
				<-time.After(4 * time.Second)
				return nil
			}
		})
		var back []*client
		for _, u := range users {
			back = append(back, w.connect(u, durable(3600)))
		}
		w.pass(3 * time.Second)
		w.store.set(func() { w.store.onEvents = nil })
		w.pass(4 * time.Second)
		for _, c := range back {
			c.wantSeqs(id, span(2, missed+1))
		}
	})
}
