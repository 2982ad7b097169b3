package gateway_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/parley-im/parley/domain"
)

func TestWhatIsWithheldShowsWhatBecameOfIt(t *testing.T) {
	// A page that was read ahead must not wait for the right to come back with what was removed meanwhile.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		bob := w.subscriber(2, idle)
		w.do(1, message(c, "first", ""))
		w.do(1, message(c, "secret", "")) // 3
		for range 200 {
			w.do(1, message(c, "more", ""))
		}
		if _, err := bob.pull(1, 1); err != nil {
			t.Fatal(err)
		}
		w.do(1, reading(c, false, 2)) // 204
		w.do(1, erase(c, 3))
		bob.drain()
		wantSays(t, bob, c, "first")
		w.do(1, reading(c, true, 2)) // 206
		bob.drain()
		bob.wantSeqs(c, append(span(2, 204), 206))
		if got := says(bob, c); got[1] != "removed" {
			t.Errorf("bob is shown %q", got[1])
		}
	})
}

func TestWhatIsJustBeingReadIsWithheld(t *testing.T) {
	// The page was asked for while it might be read, and arrives when it may not.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, other := w.converse(1, 2), w.converse(1, 2)
		bob := w.subscriber(2, idle)
		for range 200 {
			w.do(1, message(c, "hello", "")) // 2 to 201
		}
		g := newGate()
		page := make(chan struct{})
		w.store.set(func() {
			w.store.afterEvents = func(ctx context.Context, _ domain.ConversationID) error { return g.wait(ctx) }
		})
		go func() {
			defer close(page)
			_, _ = bob.pull(4, 4)
		}()
		<-g.arrived
		w.store.set(func() { w.store.afterEvents = nil })
		w.do(1, reading(c, false, 2)) // 202
		w.do(1, message(other, "hello", ""))
		g.open()
		<-page
		bob.drain()
		bob.wantSeqs(c, nil)
		bob.wantSeqs(other, span(2, 2))
		w.do(1, erase(c, 2)) // 203
		w.do(1, reading(c, true, 2))
		bob.drain()
		bob.wantSeqs(c, append(span(2, 202), 204))
		if got := says(bob, c); got[0] != "removed" {
			t.Errorf("bob is shown %q", got[0])
		}
	})
}

func TestUnsubscribingForgetsWhatIsWithheld(t *testing.T) {
	// Who subscribes anew begins anew.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		bob := w.subscriber(2, idle)
		w.do(1, message(c, "hello", ""))
		w.do(1, message(c, "hello", ""))
		w.do(1, reading(c, false, 2)) // 4
		bob.session.Unsubscribe(t.Context(), []string{allEvents})
		bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
		w.do(1, reading(c, true, 2)) // 5
		w.do(1, message(c, "hello", ""))
		bob.drain()
		bob.wantSeqs(c, span(5, 6))
	})
}

func TestWhoMayReadAgainCatchesUp(t *testing.T) {
	// The store was asked what the device missed just before the right came back, or the user was removed. It must not wait for what
	// has happened already.
	for name, end := range map[string]func(domain.ConversationID) domain.Command{
		"given back": func(c domain.ConversationID) domain.Command { return reading(c, true, 2) },
		"removed":    func(c domain.ConversationID) domain.Command { return remove(c, 2) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, kept := shelved(t)
				c := w.converse(1, 2)
				w.do(1, message(c, "missed", ""))
				w.do(1, reading(c, false, 2)) // 3
				kept.positions[c] = 1
				g := newGate()
				kept.hold(g)
				bob := w.connect(2)
				<-g.arrived
				w.do(1, end(c)) // 4
				g.open()
				w.settle()
				bob.drain()
				want := span(2, 4)
				if name == "removed" {
					want = span(2, 3)
				}
				bob.wantSeqs(c, want)
			})
		})
	}
}
