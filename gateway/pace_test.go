package gateway_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/parley-im/parley/domain"
)

func TestASlowSessionDelaysNobody(t *testing.T) {
	// One reader in a tunnel must not be felt by the others, nor fill the memory.
	for _, stuck := range []string{"never pulls", "window full"} {
		t.Run(stuck, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c := w.converse(1, 2, 3)
				alice, bob, slow := w.connect(1), w.subscriber(2), w.subscriber(3, idle)
				const n = 3000
				for range n {
					alice.send(c, "hello")
					if stuck == "window full" {
						if got, err := slow.pull(8, 0); got != 0 || err != nil {
							t.Fatalf("%d deliveries through a closed window, %v", got, err)
						}
					}
				}
				w.settle()
				bob.wantSeqs(c, span(2, n+1))
				if events := w.gauge("parley_delivery_lag_events"); events != n {
					t.Errorf("%v events are due to the slow one", events)
				}
				for range n + 1 {
					if _, err := slow.pull(8, 8); err != nil {
						t.Fatal(err)
					}
				}
				slow.wantSeqs(c, span(2, n+1))
				if sessions := w.gauge("parley_delivery_lagging_sessions"); sessions != 0 {
					t.Errorf("%v sessions lag", sessions)
				}
			})
		})
	}
}

func TestASessionHoldsOnePageOfWhatItIsBehind(t *testing.T) {
	// Behind in many conversations and reading slowly, a session must not collect a page of each of them.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		slow := w.subscriber(2, idle)
		var conversations []domain.ConversationID
		for range 40 {
			conversations = append(conversations, w.converse(1, 2))
		}
		alice := w.connect(1)
		for range 200 { // more than is cached
			for _, c := range conversations {
				alice.send(c, "hello")
			}
			w.settle()
		}
		_, _, _, _, before := w.store.tally()
		const pulls = 200
		for range pulls {
			if n, err := slow.pull(8, 1); n != 1 || err != nil {
				t.Fatalf("pulled %d, %v", n, err)
			}
		}
		if _, _, _, _, after := w.store.tally(); after-before > pulls+64 {
			t.Errorf("%d events were read for %d that were delivered", after-before, pulls)
		}
		for {
			n, err := slow.pull(64, 64)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
		}
		for _, c := range conversations {
			slow.wantSeqs(c, span(1, 201))
		}
	})
}

func TestConversationsTakeTurns(t *testing.T) {
	// A flood in one conversation, or catching up with it, must not hold back a word in another for long.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		flood, calm := w.converse(1, 2), w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2, idle)
		for range 100 {
			alice.send(flood, "noise")
		}
		w.settle()
		alice.send(calm, "a word")
		w.settle()
		pulled := 0
		for len(bob.seqs(calm)) == 0 && pulled < 1000 {
			n, err := bob.pull(4, 4)
			if err != nil || n == 0 {
				t.Fatalf("pulled %d, %v", n, err)
			}
			pulled += n
		}
		if pulled > 16+4 {
			t.Errorf("the word came after %d others from the cache", pulled-1)
		}
		for range 1000 {
			alice.send(flood, "noise")
		}
		w.settle()
		alice.send(calm, "another word")
		w.settle()
		pulled = 0
		for len(bob.seqs(calm)) == 1 && pulled < 1000 {
			n, err := bob.pull(4, 4)
			if err != nil || n == 0 {
				t.Fatalf("pulled %d, %v", n, err)
			}
			pulled += n
		}
		if pulled > 64+4 {
			t.Errorf("the word came after %d others from the store", pulled-1)
		}
	})
}

func TestAClosedWindowHoldsBackOnlyWhatNeedsIt(t *testing.T) {
	// What is subscribed at QoS 0 needs no acknowledgement, so it does not wait for those of others.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, d := w.converse(1, 2), w.converse(1, 2)
		bob := w.connect(2, idle)
		bob.subscribe("conversations/"+c.String()+"/events", domain.SubscribeOptions{QoS: 1})
		bob.subscribe("conversations/"+d.String()+"/events", domain.SubscribeOptions{QoS: 0})
		for range 5 {
			w.do(1, message(c, "waits", ""))
			w.do(1, message(d, "passes", ""))
		}
		if n, err := bob.pull(64, 2); n != 7 || err != nil {
			t.Errorf("%d deliveries with a window of 2, %v", n, err)
		}
		if n, err := bob.pull(64, 0); n != 0 || err != nil {
			t.Errorf("%d more with none, %v", n, err)
		}
		bob.wantSeqs(c, span(2, 3))
		bob.wantSeqs(d, span(2, 6))
		w.do(1, message(d, "passes", ""))
		if n, err := bob.pull(64, 0); n != 1 || err != nil {
			t.Errorf("%d more at QoS 0, %v", n, err)
		}
		if n, err := bob.pull(64, 64); n != 3 || err != nil {
			t.Errorf("%d when the window is open again, %v", n, err)
		}
		bob.wantSeqs(c, span(2, 6))
		bob.wantSeqs(d, span(2, 7))
	})
}

func TestABatchWakesASessionOnce(t *testing.T) {
	// A wake-up per message would be a system call per message.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, d := w.converse(1, 2), w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2, idle)
		hold := w.store.holdCommits()
		busy := w.converseHeld(hold)
		for i := range 400 {
			alice.send([]domain.ConversationID{c, d}[i/10%2], "hello")
		}
		hold.open()
		w.settle()
		<-busy.done
		if bob.woken != 1 {
			t.Errorf("%d wake-ups", bob.woken)
		}
	})
}

func TestNobodyIsWokenInVain(t *testing.T) {
	// Sessions without subscription, and strangers, cost nothing.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		deaf, stranger := w.connect(2, idle), w.subscriber(3, idle)
		inboxOnly := w.connect(2, device("other"), idle)
		inboxOnly.subscribe(inboxOnly.inbox(), domain.SubscribeOptions{})
		w.settle() // nothing is unread
		w.do(1, message(c, "hello", ""))
		if deaf.woken+stranger.woken+inboxOnly.woken > 0 {
			t.Errorf("woken %d, %d, %d times", deaf.woken, stranger.woken, inboxOnly.woken)
		}
	})
}

func TestAStoreErrorWhileCatchingUpLosesNothing(t *testing.T) {
	// What cannot be read now is read later; what needs no read goes on meanwhile.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, d := w.converse(1, 2), w.converse(1, 2)
		bob := w.subscriber(2, idle)
		for range 300 {
			w.do(1, message(c, "hello", ""))
		}
		w.store.set(func() {
			w.store.onEvents = func(context.Context, domain.ConversationID) error { return errGone() }
		})
		if n, err := bob.pull(64, 64); n != 0 || domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("pulled %d, %v", n, err)
		}
		w.do(1, message(d, "live", ""))
		for range 3 {
			_, _ = bob.pull(64, 64)
		}
		bob.wantSeqs(d, span(2, 2))
		w.store.heal()
		for {
			n, err := bob.pull(64, 64)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
		}
		bob.wantSeqs(c, span(2, 301))
	})
}

func TestRetransmissionIsUnlimitedByDelivery(t *testing.T) {
	// Reading the past by command is independent of what is due to the session.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		for range 10 {
			w.do(1, message(c, "hello", ""))
		}
		from, to := int64(3), int64(7)
		r := w.do(2, &domain.RetransmitEvents{Conversation: c, From: &from, To: &to})
		got := []domain.Seq{}
		for _, ev := range r.Result.Events {
			got = append(got, ev.Seq)
		}
		if !slices.Equal(got, span(3, 7)) {
			t.Errorf("got %v", got)
		}
	})
}
