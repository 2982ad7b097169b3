package gateway_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

func TestATinyCacheLosesNothing(t *testing.T) {
	// Memory runs out in the busiest hour. What is not cached is read: order and completeness do not depend on it.
	for _, bytes := range []int{1, 600, 5000} {
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *gateway.Options) {
					o.CacheBytes = bytes
					o.Logs = append(o.Logs, o.Logs[0])
				})
				var conversations []domain.ConversationID
				for i := range 12 {
					if i%2 == 0 {
						conversations = append(conversations, w.converse(1, 2, 3))
					} else {
						conversations = append(conversations, w.cold(1, 2, 3))
					}
				}
				alice := w.connect(1, device("writer"))
				bob, lazy := w.subscriber(2, window(2, 2)), w.subscriber(3, idle)
				for i := range 600 {
					alice.send(conversations[i*7%12], "hello")
					if i%50 == 49 {
						w.settle()
					}
				}
				w.settle()
				for n := 1; n > 0; {
					var err error
					if n, err = lazy.pull(10, 10); err != nil {
						t.Fatal(err)
					}
				}
				for _, c := range conversations {
					bob.wantSeqs(c, span(2, 51))
					lazy.wantSeqs(c, span(2, 51))
				}
			})
		})
	}
}

func TestACacheThatIsFullStillServesWhatIsUnderWay(t *testing.T) {
	// A conversation with a command under way is the wrong one to forget, even when there is no other.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.CacheBytes = 1 })
		c, d := w.cold(1, 2), w.cold(1, 2)
		alice, bob := w.connect(1), w.subscriber(2)
		hold := w.store.holdCommits()
		sent := []*answer{alice.send(c, "one"), alice.send(d, "two")}
		w.settle()
		sent = append(sent, alice.send(c, "three"), alice.send(d, "four"))
		w.settle()
		hold.open()
		w.settle()
		for i, a := range sent {
			if a.code() != "" {
				t.Errorf("message %d: %v", i, a.err)
			}
		}
		bob.wantSeqs(c, span(2, 3))
		bob.wantSeqs(d, span(2, 3))
	})
}

func TestAForgottenConversationHoldsNoEvents(t *testing.T) {
	// Sessions that are behind keep a mark, not the events: else slow readers decide how much memory the cache takes.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.CacheBytes = 1 })
		c, d := w.converse(1, 2), w.converse(1, 2)
		bob := w.subscriber(2, idle)
		w.do(1, message(c, "hello", ""))
		w.do(1, message(d, "hello", ""))
		_, _, _, before, _ := w.store.tally()
		for range 2 {
			if _, err := bob.pull(64, 64); err != nil {
				t.Fatal(err)
			}
		}
		bob.wantSeqs(c, span(2, 2))
		if _, _, _, after, _ := w.store.tally(); after == before {
			t.Error("the forgotten conversation was served from memory")
		}
	})
}

func TestRefusedMessagesDoNotFillTheCache(t *testing.T) {
	// Heads count against the cache's bound also when nothing is stored: a stranger must not be able to fill it.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.CacheBytes = 10_000 })
		stranger := w.connect(9)
		for range 200 {
			a := stranger.send(w.cold(1, 2), "let me in")
			w.settle()
			if a.code() != domain.AccessDenied {
				t.Fatalf("ended as %q", a.code())
			}
		}
		if n := w.gauge("parley_active_conversations"); n > 20 {
			t.Errorf("%v conversations in 10 kB", n)
		}
	})
}
