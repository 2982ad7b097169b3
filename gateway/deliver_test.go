package gateway_test

import (
	"context"
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
