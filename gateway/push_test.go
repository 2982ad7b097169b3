package gateway_test

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

// attic is a gateway.Missed over the memory and the marks of a ledger.
type attic struct {
	store  *memory
	ledger *ledger

	mu sync.Mutex
	// away is how many calls more the store is away; held, if not nil, is where Undelivered waits with its answer.
	away int
	held *gate
}

func (a *attic) call() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away == 0 {
		return nil
	}
	a.away--
	return errGone()
}

func (a *attic) Undelivered(
	ctx context.Context, user domain.UserID, only, except []domain.ConversationID, after domain.ConversationID, _ int,
) (list []domain.Stretch, err error) {
	if err := a.call(); err != nil {
		return nil, err
	}
	for _, c := range a.store.conversationsOf(user) {
		if only != nil && !slices.Contains(only, c) || slices.Contains(except, c) || bytes.Compare(c[:], after[:]) <= 0 {
			continue
		}
		a.ledger.mu.Lock()
		mark := a.ledger.marks[place{user, c}]
		a.ledger.mu.Unlock()
		if last := a.store.last(c); last > mark {
			list = append(list, domain.Stretch{Conversation: c, From: mark + 1, To: last})
		}
	}
	a.mu.Lock()
	held := a.held
	a.mu.Unlock()
	if held != nil {
		return list, held.wait(ctx)
	}
	return list, nil
}

func (a *attic) Newest(_ context.Context, missed []domain.Stretch, n int) ([]domain.Stretch, error) {
	if err := a.call(); err != nil {
		return nil, err
	}
	short := slices.Clone(missed)
	for i := range short {
		short[i].From = max(short[i].From, short[i].To-domain.Seq(n)+1) // here, all are messages
	}
	return short, nil
}

// pushing makes a world whose clients may come in push mode.
func pushing(t *testing.T) (*world, *attic) {
	t.Helper()
	a := &attic{}
	w := newWorld(t, func(o *gateway.Options) {
		a.store = o.History.(*memory)
		a.ledger = newLedger(a.store)
		o.Sessions, o.Missed = a.ledger, a
	})
	return w, a
}

func push(_ *client, h *domain.Hello) { h.Push = true }

func TestASessionInPushModeWaitsUntilItIsKnownWhatItMissed(t *testing.T) {
	// With the store away nobody knows where the session begins. What happens meanwhile must not go out ahead of it: the
	// acknowledgement would say that all before has arrived.
	synctest.Test(t, func(t *testing.T) {
		for _, calls := range []int{1, 2, 5} {
			w, a := pushing(t)
			c := w.converse(1, 2)
			for range 30 {
				w.do(1, message(c, "missed", ""))
			}
			a.away = calls
			bob := w.connect(2, push)
			bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
			w.do(1, message(c, "meanwhile", ""))
			w.settle()
			w.do(1, message(c, "live", ""))
			w.pass(20 * time.Second)
			got := bob.seqs(c)
			// By the time that the store answers, what has been said since may be among the 20.
			if len(got) < 20 || !slices.Equal(got, span(got[0], 33)) || got[0] < 12 || got[0] > 14 {
				t.Errorf("with the store away for %d calls: %v", calls, got)
			}
		}
	})
}

func TestWhatIsSubscribedToInStepsIsPushedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := pushing(t)
		one, other := w.converse(1, 2), w.converse(1, 2)
		w.do(1, message(one, "missed", ""))
		w.do(1, message(other, "missed", ""))
		held := newGate()
		a.held = held
		bob := w.connect(2, push)
		bob.subscribe("conversations/"+one.String()+"/events", domain.SubscribeOptions{QoS: 1})
		w.settle()
		bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
		w.do(1, message(one, "live", ""))
		w.do(1, message(other, "live", ""))
		w.settle()
		if got := append(bob.seqs(one), bob.seqs(other)...); len(got) > 0 {
			t.Errorf("sent before it is known where to begin: %v", got)
		}
		held.open()
		w.settle()
		bob.wantSeqs(one, span(1, 3))
		bob.wantSeqs(other, span(1, 3))

		// Going and coming again on one connection repeats nothing, whether or not it was written how far it had come.
		a.mu.Lock()
		a.held = nil
		a.mu.Unlock()
		bob.session.Unsubscribe(t.Context(), []string{allEvents, "conversations/" + one.String() + "/events"})
		w.do(1, message(one, "in between", ""))
		bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
		w.settle()
		w.do(1, message(one, "live", ""))
		bob.wantSeqs(one, span(1, 5))
		bob.wantSeqs(other, span(1, 3))
	})
}

func TestEventsOnTheirWayAreNotPushedTwice(t *testing.T) {
	// What is committed and still on its way to the sessions is in the log already: it must come from one of the two.
	synctest.Test(t, func(t *testing.T) {
		w, _ := pushing(t)
		billing := w.attach(service(1))
		billing.subscribe(allEvents, domain.SubscribeOptions{})
		other, c := w.converse(1), w.converse(1, 2)
		w.do(1, message(c, "missed", ""))
		release := lagging(billing)
		w.start(w.user(1), message(other, "delivery stands still", ""))
		w.settle()
		w.start(w.user(1), message(c, "on its way", ""))
		w.settle()
		bob := w.connect(2, push)
		bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
		w.settle()
		release()
		w.settle()
		w.do(1, message(c, "live", ""))
		bob.wantSeqs(c, span(1, 4))
	})
}

func TestWhatIsUnsubscribedAgainIsNotLookedFor(t *testing.T) {
	// Each SUBSCRIBE costs a look into the store: a session must not heap them up.
	synctest.Test(t, func(t *testing.T) {
		w, attic := pushing(t)
		c := w.converse(1, 2)
		attic.held = newGate()
		bob := w.connect(2, push)
		for range 100 {
			bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
			w.settle()
			bob.session.Unsubscribe(t.Context(), []string{allEvents})
		}
		bob.subscribe(allEvents, domain.SubscribeOptions{QoS: 1})
		attic.held.open()
		w.settle()
		bob.wantSeqs(c, span(1, 1))
		if n := len(attic.held.arrived); n > 2 {
			t.Errorf("%d looks into the store for what was unsubscribed", n)
		}
	})
}
