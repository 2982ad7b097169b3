package gateway_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

// shelf keeps one durable session, of one user that takes part from the start, and its positions. It implements
// gateway.Sessions as far as the tests here need it.
type shelf struct {
	store *memory

	mu        sync.Mutex
	present   bool
	subs      []domain.Subscription
	positions map[domain.ConversationID]domain.Seq
	beats     int
	// held, if not nil, is where Behind waits with its answer.
	held *gate
	// lost makes the session unknown; deaf makes every call that would write a position fail.
	lost, deaf bool
}

func (s *shelf) OpenSession(context.Context, domain.SessionOpening) (domain.StoredSession, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.present
	s.present = true
	return domain.StoredSession{ID: 1, Present: was, Subscriptions: s.subs}, nil
}

func (s *shelf) SaveSubscriptions(
	_ context.Context, _ domain.SessionID, subs []domain.Subscription, _ []domain.ConversationID, _ bool,
) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return domain.Errorf(domain.NotFound, "no such session")
	}
	s.subs = subs
	return nil
}

func (s *shelf) hold(g *gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = g
}

func (s *shelf) Behind(ctx context.Context, _ domain.SessionID, after domain.ConversationID, _ int) ([]domain.Stretch, error) {
	behind, held := s.stretches(after)
	if held != nil {
		return behind, held.wait(ctx)
	}
	return behind, nil
}

func (s *shelf) stretches(after domain.ConversationID) (behind []domain.Stretch, held *gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, position := range s.positions {
		_, blind := s.store.standing(c, 2)
		if last := s.store.last(c); last > position && after.IsZero() {
			behind = append(behind, domain.Stretch{Conversation: c, From: position + 1, To: last, Withheld: blind})
		}
	}
	return behind, s.held
}

func (s *shelf) SavePositions(_ context.Context, positions []domain.Position, _ []domain.Mark) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf {
		return domain.Errorf(domain.Internal, "positions cannot be written")
	}
	for _, p := range positions {
		s.positions[p.Conversation] = max(s.positions[p.Conversation], p.Seq)
	}
	return nil
}

// set changes the shelf, or looks at it.
func (s *shelf) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *shelf) CloseSession(context.Context, domain.SessionID, string, int64, int64, uint32) error {
	return nil
}

func (s *shelf) Beat(context.Context, string, int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats++
	return nil
}

// shelved makes a world whose store keeps durable sessions.
func shelved(t *testing.T) (*world, *shelf) {
	t.Helper()
	kept := &shelf{present: true, positions: make(map[domain.ConversationID]domain.Seq), subs: []domain.Subscription{
		{Filter: allEvents, Options: domain.SubscribeOptions{QoS: 1}},
	}}
	w := newWorld(t, func(o *gateway.Options) { o.Sessions = kept })
	kept.store = w.store
	return w, kept
}

func TestAGatewayThatCannotWritePositionsStillLives(t *testing.T) {
	// A gateway that is taken for dead has its sessions expire under it.
	synctest.Test(t, func(t *testing.T) {
		w, kept := shelved(t)
		c := w.converse(1, 2)
		w.connect(2)
		kept.set(func() { kept.deaf = true })
		w.do(1, message(c, "hello", ""))
		w.pass(61 * time.Second)
		kept.set(func() {
			if kept.beats < 6 {
				t.Errorf("%d beats in a minute", kept.beats)
			}
			if len(kept.positions) > 0 {
				t.Errorf("positions %v are written", kept.positions)
			}
			kept.deaf = false
		})
		w.pass(2 * time.Second)
		kept.set(func() {
			if kept.positions[c] != 2 {
				t.Errorf("afterwards the position is %d, want 2", kept.positions[c])
			}
		})
	})
}

func TestASessionThatTheStoreLostIsEnded(t *testing.T) {
	// Another node may have begun the device's session anew. A client that goes on here would count on what nobody keeps.
	synctest.Test(t, func(t *testing.T) {
		w, kept := shelved(t)
		bob := w.connect(2)
		kept.lost = true
		err := bob.session.Subscribe(t.Context(), []domain.Subscription{{Filter: bob.inbox()}})[0]
		if domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("the subscription is answered with %v", err)
		}
		w.settle()
		if got := bob.goodbyes(); len(got) != 1 || got[0] != domain.SessionLost() {
			t.Errorf("the session was ended with %v", got)
		}
	})
}

func TestAResumedSessionGetsNothingTwice(t *testing.T) {
	// What is committed and still on its way to the sessions is in the log already: it must come from one of the two.
	synctest.Test(t, func(t *testing.T) {
		w, kept := shelved(t)
		billing := w.attach(service(1))
		billing.subscribe(allEvents, domain.SubscribeOptions{})
		other, c := w.converse(1), w.converse(1, 2)
		w.do(1, message(c, "acknowledged", ""))
		kept.positions[c] = 2
		w.do(1, message(c, "missed", ""))
		release := lagging(billing)
		w.start(w.user(1), message(other, "delivery stands still", ""))
		w.settle()
		w.start(w.user(1), message(c, "on its way", ""))
		w.settle()
		bob := w.connect(2)
		w.settle()
		if w.store.last(c) != 4 {
			t.Fatalf("%d events are committed", w.store.last(c))
		}
		release()
		w.settle()
		w.do(1, message(c, "live", ""))
		bob.wantSeqs(c, span(3, 5))
	})
}
