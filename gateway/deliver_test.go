package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

func TestEventsArriveInOrderWithoutGap(t *testing.T) {
	// The promise that everything else rests on: whatever the window, every subscriber sees the log.
	for _, pull := range []struct {
		qos              byte
		window, capacity int
	}{{1, 1, 1}, {1, 1, 64}, {1, 2, 5}, {1, 64, 64}, {1, 1000, 7}, {0, 1, 1}, {0, 1, 64}} {
		t.Run(fmt.Sprintf("QoS%d window %d capacity %d", pull.qos, pull.window, pull.capacity), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *gateway.Options) {
					o.Logs = append(o.Logs, o.Logs[0], o.Logs[0])
				})
				conversations := []domain.ConversationID{
					w.converse(1, 2, 3, 4), w.converse(2, 1, 3, 4), w.cold(3, 1, 2, 4), w.converse(4, 3, 2, 1),
				}
				var readers, writers []*client
				for u := range domain.UserID(4) {
					for d := range 2 {
						c := w.connect(u+1, device(fmt.Sprint("d", d)), window(pull.window, pull.capacity))
						c.subscribe(allEvents, domain.SubscribeOptions{QoS: pull.qos})
						readers = append(readers, c)
					}
					writers = append(writers, readers[len(readers)-1])
				}
				before := make(map[domain.ConversationID]domain.Seq)
				for _, c := range conversations {
					before[c] = w.store.last(c)
				}
				const each = 100
				var sending sync.WaitGroup
				for i, from := range writers {
					sending.Go(func() {
						for n := range each {
							a := from.send(conversations[(i+n)%len(conversations)], "hello")
							if n%7 == 0 {
								<-a.done
							}
						}
					})
				}
				sending.Wait()
				w.settle()
				total := 0
				for _, c := range conversations {
					total += len(w.store.texts(c))
					for _, r := range readers {
						r.wantSeqs(c, span(before[c]+1, w.store.last(c)))
					}
				}
				if total != each*len(writers) {
					t.Errorf("%d of %d messages are stored", total, each*len(writers))
				}
			})
		})
	}
}

func TestDeliveriesCarryTheGrantedQoS(t *testing.T) {
	// The transport takes packet ids and retransmits by this.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		for _, qos := range []byte{0, 1} {
			bob := w.connect(2)
			bob.subscribe(allEvents, domain.SubscribeOptions{QoS: qos, Identifier: 7})
			w.do(1, message(c, "hello", ""))
			if len(bob.deliveries) != 1 {
				t.Fatalf("%d deliveries", len(bob.deliveries))
			}
			d := bob.deliveries[0]
			if d.QoS != qos || d.Retain || !slices.Equal(d.Identifiers, []int{7}) || d.Publication.Accepted.IsZero() {
				t.Errorf("delivered %+v", d)
			}
		}
	})
}

func TestOneEncodingServesAllRecipients(t *testing.T) {
	// Encoding per recipient would cost more than everything else in a large conversation.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		alice, bob, carol := w.subscriber(1), w.subscriber(2), w.subscriber(3)
		m := message(c, "hello", "")
		m.RequestID = "r1"
		w.do(1, m)
		if bob.deliveries[0].Publication != carol.deliveries[0].Publication {
			t.Error("two readers got two publications")
		}
		if alice.deliveries[0].Publication == bob.deliveries[0].Publication {
			t.Error("the sender's carries the request id, the others' must not")
		}
	})
}

func TestRequestIDOnlyOnTheInitiatorsDevices(t *testing.T) {
	// It is the initiator's own word, and nobody else's business.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		phone, laptop := w.subscriber(1, device("phone")), w.subscriber(1, device("laptop"))
		bob := w.subscriber(2)
		billing := w.attach(service(1))
		billing.subscribe(allEvents, domain.SubscribeOptions{})
		m := message(c, "an invoice", "")
		m.RequestID = "r0"
		billing.submit(domain.Request{Command: m, Name: "sendMessage", RequestID: "r0", WantsReply: true})
		w.settle()
		m = message(c, "hello", "")
		m.RequestID = "r1"
		phone.submit(domain.Request{Command: m, Name: "sendMessage", RequestID: "r1", WantsReply: true})
		w.settle()
		a := add(c, w.user(3).User)
		a.RequestID = "r2"
		phone.submit(domain.Request{Command: a, Name: "addParticipants", RequestID: "r2", WantsReply: true})
		w.settle()
		for _, reader := range []struct {
			*client
			want []string
		}{{phone, []string{"", "r1", "r2"}}, {laptop, []string{"", "r1", "r2"}}, {bob, []string{"", "", ""}}, {billing, []string{"r0", "", ""}}} {
			got := []string{}
			for _, ev := range reader.events[c] {
				got = append(got, ev.RequestID)
			}
			if !slices.Equal(got, reader.want) {
				t.Errorf("%s%s sees the request ids %q", reader.principal.Username, reader.principal.ServiceName, got)
			}
			for _, d := range reader.deliveries {
				if reader.client == bob && strings.Contains(string(d.Publication.Payload), "requestId") {
					t.Errorf("a stranger's payload mentions it: %s", d.Publication.Payload)
				}
			}
		}
	})
}

func TestOverlappingSubscriptionsDeliverOnce(t *testing.T) {
	// MQTT 5, section 3.3.4: one copy, the highest QoS, every identifier.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, d := w.converse(1, 2), w.converse(1, 2)
		bob := w.connect(2)
		bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 0, Identifier: 1})
		bob.subscribe("conversations/"+c.String()+"/events", domain.SubscribeOptions{QoS: 1, Identifier: 2})
		w.do(1, message(c, "both", ""))
		w.do(1, message(d, "one", ""))
		if len(bob.deliveries) != 2 {
			t.Fatalf("%d deliveries", len(bob.deliveries))
		}
		both, one := bob.deliveries[0], bob.deliveries[1]
		slices.Sort(both.Identifiers)
		if both.QoS != 1 || !slices.Equal(both.Identifiers, []int{1, 2}) {
			t.Errorf("covered by both: %+v", both)
		}
		if one.QoS != 0 || !slices.Equal(one.Identifiers, []int{1}) {
			t.Errorf("covered by one: %+v", one)
		}
	})
}

func TestNoLocalLeavesOutTheOwnDeviceOnly(t *testing.T) {
	// The sender's other devices must still learn what was sent from this one.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		var clients []*client
		for _, cl := range []*client{
			w.connect(1, device("phone"), window(1, 1)), w.connect(1, device("laptop"), window(1, 1)), w.connect(2),
		} {
			cl.subscribe(allEvents, domain.SubscribeOptions{QoS: 1, NoLocal: true})
			clients = append(clients, cl)
		}
		for i := range 60 {
			clients[i%3].send(c, "hello")
			w.settle()
		}
		for i, cl := range clients {
			want := slices.DeleteFunc(span(2, 61), func(s domain.Seq) bool { return int(s-2)%3 == i })
			cl.wantSeqs(c, want)
		}
	})
}

func TestNoLocalYieldsToAnOverlappingSubscription(t *testing.T) {
	// One of the subscriptions asks for the own messages: they arrive, as that one wants them.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice := w.connect(1)
		alice.subscribe(allEvents, domain.SubscribeOptions{QoS: 1, NoLocal: true, Identifier: 1})
		alice.subscribe("conversations/"+c.String()+"/events", domain.SubscribeOptions{QoS: 0, Identifier: 2})
		alice.send(c, "own")
		w.settle()
		w.do(2, message(c, "foreign", ""))
		if len(alice.deliveries) != 2 {
			t.Fatalf("%d deliveries", len(alice.deliveries))
		}
		own, foreign := alice.deliveries[0], alice.deliveries[1]
		if own.QoS != 0 || !slices.Equal(own.Identifiers, []int{2}) {
			t.Errorf("the own message came as %+v", own)
		}
		if slices.Sort(foreign.Identifiers); foreign.QoS != 1 || !slices.Equal(foreign.Identifiers, []int{1, 2}) {
			t.Errorf("the foreign message came as %+v", foreign)
		}
	})
}

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

func TestUnsubscribedEventsStayAway(t *testing.T) {
	// A subscription starts with the next event, and ends with the UNSUBSCRIBE.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, d := w.converse(1, 2), w.converse(1, 2)
		bob := w.connect(2)
		say := func() {
			w.do(1, message(c, "c", ""))
			w.do(1, message(d, "d", ""))
		}
		say()
		bob.subscribe("conversations/"+c.String()+"/events", domain.SubscribeOptions{QoS: 1})
		say()
		bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
		say()
		if had := bob.session.Unsubscribe(t.Context(), []string{
			"conversations/" + c.String() + "/events", "conversations/" + d.String() + "/events", "nonsense/#",
		}); !slices.Equal(had, []bool{true, false, false}) {
			t.Errorf("there were subscriptions %v", had)
		}
		say()
		if had := bob.session.Unsubscribe(t.Context(), []string{allEvents}); !had[0] {
			t.Error("there was a subscription to all")
		}
		say()
		bob.wantSeqs(c, span(3, 5))
		bob.wantSeqs(d, span(4, 5))
	})
}

func TestUnsubscribingDropsWhatIsDue(t *testing.T) {
	// After the UNSUBACK nothing new may come, also where a slow session had much in store.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		bob := w.subscriber(2, idle)
		for range 300 {
			w.do(1, message(c, "hello", ""))
		}
		if n, err := bob.pull(10, 10); n != 10 || err != nil {
			t.Fatalf("pulled %d, %v", n, err)
		}
		bob.session.Unsubscribe(t.Context(), []string{allEvents})
		if n, err := bob.pull(10, 10); n != 0 || err != nil {
			t.Errorf("pulled %d afterwards, %v", n, err)
		}
		bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
		w.do(1, message(c, "again", ""))
		if n, err := bob.pull(10, 10); n != 1 || err != nil {
			t.Errorf("pulled %d after subscribing again, %v", n, err)
		}
		bob.wantSeqs(c, append(span(2, 11), 302))
	})
}

func TestUnsubscribingWhileReadingTheStore(t *testing.T) {
	// The session's lock is not held while it reads: whatever happens meanwhile must not send it astray.
	for _, meanwhile := range []string{"unsubscribe", "leave", "resubscribe", "event"} {
		t.Run(meanwhile, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c := w.converse(1, 2)
				bob := w.subscriber(2, idle)
				for range 300 {
					w.do(1, message(c, "hello", ""))
				}
				hold := newGate()
				w.store.set(func() {
					w.store.onEvents = func(ctx context.Context, _ domain.ConversationID) error { return hold.wait(ctx) }
				})
				pulled := make(chan error)
				go func() {
					for {
						n, err := bob.pull(64, 64)
						if n == 0 || err != nil {
							pulled <- err
							return
						}
					}
				}()
				<-hold.arrived
				want := span(2, 301)
				switch meanwhile {
				case "unsubscribe":
					bob.session.Unsubscribe(t.Context(), []string{allEvents})
					want = nil
				case "leave":
					bob.session.Leave(true)
					want = nil
				case "resubscribe":
					bob.session.Unsubscribe(t.Context(), []string{allEvents})
					bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
				case "event":
					w.do(1, message(c, "more", ""))
					want = span(2, 302)
				}
				hold.open()
				if err := <-pulled; err != nil {
					t.Error(err)
				}
				bob.wantSeqs(c, want)
			})
		})
	}
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

func TestServicesSeeTheirTreeAndNoOther(t *testing.T) {
	// A backend acts for one customer; the neighbour's conversations do not exist for it.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ours := w.converse(1, 2)
		w.store.addUser(50, 2)
		foreigner := domain.User{ID: 50, Username: "u50@chat.acme2", Root: 2, Account: 2}.Principal("")
		r, err := w.g.Do(t.Context(), foreigner, &domain.CreateConversation{})
		if err != nil {
			t.Fatal(err)
		}
		theirs := r.Conversation
		billing, other := w.attach(service(1)), w.attach(service(2), window(1, 1))
		billing.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
		other.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
		if err := billing.session.Subscribe(t.Context(), []domain.Subscription{
			{Filter: "conversations/" + theirs.String() + "/events"},
		})[0]; domain.CodeOf(err) != domain.ConversationNotFound {
			t.Errorf("a conversation of another tree: %v", err)
		}
		for range 5 {
			w.do(1, message(ours, "ours", ""))
			if _, err := w.g.Do(t.Context(), foreigner, message(theirs, "theirs", "")); err != nil {
				t.Fatal(err)
			}
		}
		born := w.converse(2)
		w.settle()
		billing.wantSeqs(ours, span(2, 6))
		billing.wantSeqs(born, span(1, 1))
		billing.wantSeqs(theirs, nil)
		other.wantSeqs(theirs, span(2, 6))
		other.wantSeqs(ours, nil)
		other.wantSeqs(born, nil)
	})
}

func TestRepliesComeBeforeEvents(t *testing.T) {
	// Somebody waits for a reply; nobody waits for the next event in particular.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice := w.subscriber(1, idle)
		alice.subscribe(alice.replies(), domain.SubscribeOptions{QoS: 1})
		for range 50 {
			w.do(2, message(c, "hello", ""))
		}
		alice.submit(domain.Request{Command: &domain.GetMe{}, Name: "getMe", RequestID: "r", WantsReply: true})
		w.settle()
		if n, err := alice.pull(64, 10); n != 10 || err != nil {
			t.Fatalf("pulled %d, %v", n, err)
		}
		if alice.deliveries[0].Publication.Topic != alice.replies() {
			t.Errorf("the first delivery is of %s", alice.deliveries[0].Publication.Topic)
		}
		if got := alice.notices(alice.replies()); len(got) != 1 || got[0]["requestId"] != "r" {
			t.Errorf("replies %v", got)
		}
	})
}

func TestTooManyRepliesEndTheSession(t *testing.T) {
	// Replies are in no log: who does not take them must learn that it misses some, and must not fill the memory.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.MaxDirectBytes = 100_000 })
		c := w.converse(1, 2)
		alice := w.subscriber(1, idle)
		other := w.connect(1, device("other"))
		for _, cl := range []*client{alice, other} {
			cl.subscribe(cl.replies()+"/#", domain.SubscribeOptions{})
		}
		for range 5000 {
			alice.submit(domain.Request{Command: &domain.GetMe{}, Name: "getMe", RequestID: "r", WantsReply: true})
			w.settle()
		}
		if got := alice.goodbyes(); !slices.Equal(got, []domain.Farewell{domain.TooSlow()}) {
			t.Errorf("the session was ended %d times: %v", len(got), got)
		}
		if n := w.gauge("parley_limits_reached_total"); n != 1 {
			t.Errorf("counted %v times", n)
		}
		if got := other.goodbyes(); len(got) > 0 || len(other.notices(other.replies())) != 5000 {
			t.Errorf("the device that reads got %d replies, %v", len(other.notices(other.replies())), got)
		}
		bytes := 0
		for n := 1; n > 0; {
			before := len(alice.deliveries)
			var err error
			if n, err = alice.pull(64, 64); err != nil {
				t.Fatal(err)
			}
			for _, d := range alice.deliveries[before:] {
				bytes += len(d.Publication.Payload)
			}
		}
		if bytes > 100_000 {
			t.Errorf("%d bytes were kept for it", bytes)
		}
		w.do(2, message(c, "hello", "")) // and the gateway goes on
	})
}

func TestARefusalThatNoAckCarriesIsAnErrorEvent(t *testing.T) {
	// MQTT 3.1.1 acknowledges without a code: the refusal goes to the replies topic and to the inbox.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		stranger, laptop := w.connect(9, device("phone")), w.connect(9, device("laptop"))
		for _, cl := range []*client{stranger, laptop} {
			cl.subscribe(cl.inbox(), domain.SubscribeOptions{QoS: 1})
			cl.subscribe(cl.replies(), domain.SubscribeOptions{QoS: 1})
		}
		topic := "conversations/" + c.String() + "/messages"
		refused := stranger.submit(domain.DecodePublish(stranger.principal, &domain.Publish{
			Topic: topic, Payload: []byte(`{"text":"hello"}`), Version: 4, QoS: 1,
		}, domain.DefaultLimits()))
		w.settle()
		if refused.code() != domain.AccessDenied {
			t.Errorf("ended as %q", refused.code())
		}
		for _, cl := range []*client{stranger, laptop} {
			for _, where := range []string{cl.inbox(), cl.replies()} {
				got := cl.notices(where)
				if len(got) != 1 || got[0]["type"] != "error" || got[0]["topic"] != topic || got[0]["device"] != "phone" {
					t.Fatalf("%s has %v", where, got)
				}
				if e, _ := got[0]["error"].(map[string]any); e["code"] != "access-denied" || e["number"] != 12.0 {
					t.Errorf("%s says %v", where, e)
				}
			}
		}
		undecodable := stranger.submit(domain.DecodePublish(stranger.principal, &domain.Publish{
			Topic: topic, Payload: []byte(`{"text":`), Version: 4, QoS: 1,
		}, domain.DefaultLimits()))
		w.settle()
		if undecodable.code() != domain.InvalidRequest || len(stranger.notices(stranger.inbox())) != 2 {
			t.Errorf("what cannot be read ended as %q, inbox %v", undecodable.code(), stranger.notices(stranger.inbox()))
		}
		five := stranger.submit(domain.DecodePublish(stranger.principal, &domain.Publish{
			Topic: topic, Payload: []byte(`{"text":"hello"}`), Version: 5, QoS: 1,
		}, domain.DefaultLimits()))
		w.settle()
		if five.code() != domain.AccessDenied || len(stranger.notices(stranger.inbox())) != 2 {
			t.Errorf("MQTT 5 has the code in its acknowledgement, and got %v besides", stranger.notices(stranger.inbox()))
		}
	})
}

func TestRepliesGoWhereTheyWereAskedFor(t *testing.T) {
	// A client tells its own answers apart by topic and correlation data.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.converse(1, 2)
		alice := w.connect(1)
		alice.subscribe(alice.replies()+"/#", domain.SubscribeOptions{QoS: 1, Identifier: 3})
		only, bob := w.connect(1, device("only")), w.connect(2)
		only.subscribe(only.replies()+"/b", domain.SubscribeOptions{})
		bob.subscribe(bob.replies()+"/#", domain.SubscribeOptions{})
		for _, rest := range []string{"/a", "/b"} {
			alice.submit(domain.DecodePublish(alice.principal, &domain.Publish{
				Topic: "commands/getMe", Payload: []byte(`{"requestId":"x"}`), Version: 5, QoS: 1,
				ResponseTopic: alice.replies() + rest, Correlation: []byte{1, 2},
			}, domain.DefaultLimits()))
			w.settle()
		}
		failed := alice.submit(domain.DecodePublish(alice.principal, &domain.Publish{
			Topic: "commands/getUser", Payload: []byte(`{"requestId":"y","userId":999}`), Version: 5, QoS: 1,
		}, domain.DefaultLimits()))
		w.settle()
		if failed.code() != domain.UserNotFound {
			t.Errorf("ended as %q", failed.code())
		}
		if len(alice.notices(alice.replies()+"/a")) != 1 || len(alice.notices(alice.replies()+"/b")) != 1 {
			t.Errorf("alice got %v", alice.direct)
		}
		if got := alice.notices(alice.replies()); len(got) != 1 || got[0]["command"] != "getUser" || got[0]["error"] == nil {
			t.Errorf("the failure reads %v", got)
		}
		if d := alice.deliveries[0]; string(d.Publication.Correlation) != "\x01\x02" || !slices.Equal(d.Identifiers, []int{3}) {
			t.Errorf("delivered %+v", d)
		}
		if len(only.direct) != 1 || only.direct[0].topic != only.replies()+"/b" || len(bob.direct) != 0 {
			t.Errorf("others got %v, %v", only.direct, bob.direct)
		}
	})
}

func TestAReplyShowsTheStoredMessage(t *testing.T) {
	// Also to the second of twins, and after a repetition: the caller goes on with what is in the log.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		alice := w.connect(1)
		alice.subscribe(alice.replies(), domain.SubscribeOptions{})
		for range 3 {
			alice.submit(domain.DecodePublish(alice.principal, &domain.Publish{
				Topic: "conversations/" + c.String() + "/messages", Version: 5, QoS: 1,
				Payload: []byte(`{"id":"a","text":"hello","requestId":"x"}`),
			}, domain.DefaultLimits()))
			w.settle()
		}
		replies := alice.notices(alice.replies())
		if len(replies) != 3 {
			t.Fatalf("%d replies", len(replies))
		}
		for _, r := range replies[1:] {
			first, again := replies[0]["result"].(map[string]any), r["result"].(map[string]any)
			a, _ := json.Marshal(first["message"])
			b, _ := json.Marshal(again["message"])
			if first["duplicate"] != nil || again["duplicate"] != true {
				t.Errorf("duplicate is %v and then %v", first["duplicate"], again["duplicate"])
			}
			if string(a) != string(b) || !strings.Contains(string(a), domain.NewMessageID(c, 2).String()) {
				t.Errorf("the first reply shows %s, another %s", a, b)
			}
		}
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

func TestTimeOfAcceptanceTravelsAlong(t *testing.T) {
	// The transport measures by it how long a message takes from socket to socket.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		bob := w.subscriber(2)
		hold := w.store.holdCommits()
		begin := time.Now()
		w.start(w.user(1), message(c, "hello", ""))
		w.pass(3 * time.Second)
		hold.open()
		w.settle()
		if got := bob.deliveries[0].Publication.Accepted; !got.Equal(begin) {
			t.Errorf("accepted %v after the publish", got.Sub(begin))
		}
	})
}
