package gateway_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

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
	s.subs = subs
	return nil
}

func (s *shelf) Behind(_ context.Context, _ domain.SessionID, after domain.ConversationID, _ int) ([]domain.Stretch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var behind []domain.Stretch
	for c, position := range s.positions {
		if last := s.store.last(c); last > position && after.IsZero() {
			behind = append(behind, domain.Stretch{Conversation: c, From: position + 1, To: last})
		}
	}
	return behind, nil
}

func (s *shelf) SavePositions(_ context.Context, positions []domain.Position, _ []domain.Mark) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range positions {
		s.positions[p.Conversation] = max(s.positions[p.Conversation], p.Seq)
	}
	return nil
}

func (s *shelf) CloseSession(context.Context, domain.SessionID, string, int64, int64, uint32) error {
	return nil
}

func (s *shelf) Beat(context.Context, string, int64) error { return nil }

func TestAResumedSessionGetsNothingTwice(t *testing.T) {
	// What is committed and still on its way to the sessions is in the log already: it must come from one of the two.
	synctest.Test(t, func(t *testing.T) {
		var kept *shelf
		w := newWorld(t, func(o *gateway.Options) {
			kept = &shelf{
				store: o.History.(*memory), present: true, positions: make(map[domain.ConversationID]domain.Seq),
				subs: []domain.Subscription{{Filter: allEvents, Options: domain.SubscribeOptions{QoS: 1}}},
			}
			o.Sessions = kept
		})
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
