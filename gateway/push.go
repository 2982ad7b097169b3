package gateway

import (
	"context"
	"slices"

	"github.com/parley-im/parley/domain"
)

// pushMessages is how many missed messages of a conversation a session in push mode is sent at most.
const pushMessages = 20

// Missed knows what sessions in push mode have missed. Any goroutine may call it. An error is unavailable, and the call may be
// repeated.
type Missed interface {
	// Undelivered gives what has reached no device of a user, by its delivered marks and its times of membership, of the
	// conversations in only, or of all but those in except where that is nil: at most limit stretches, in the order of
	// Sessions.Behind. Where the user may not read now there is none.
	Undelivered(
		ctx context.Context, user domain.UserID, only, except []domain.ConversationID, after domain.ConversationID, limit int,
	) ([]domain.Stretch, error)
	// Newest shortens what was missed to begin with the n-th newest message of each conversation, where there are more.
	Newest(ctx context.Context, missed []domain.Stretch, n int) ([]domain.Stretch, error)
}

// newest leaves of a page of what a session missed as much as its mode says.
func (g *Gateway) newest(s *Session, page []domain.Stretch) ([]domain.Stretch, error) {
	if !s.hello.Push || g.missed == nil || len(page) == 0 {
		return page, nil
	}
	var short []domain.Stretch
	var err error
	g.insist(func(ctx context.Context) error {
		if err = nil; s.isGone() {
			return nil
		}
		short, err = g.inTurn(ctx, func() ([]domain.Stretch, error) { return g.missed.Newest(ctx, page, pushMessages) })
		return err
	})
	return short, err
}

// covered is what a session has begun to subscribe to: one conversation, or all but some.
type covered struct {
	by           domain.Filter
	only, except []domain.ConversationID
}

// beginPush notes that a session has just subscribed to a filter, where it is to be sent what it missed. Its events wait until
// that is known. Durable sessions go on from their own positions instead. The caller holds mu.
func (s *Session) beginPush(f domain.Filter) {
	if !s.hello.Push || s.g.missed == nil || s.stored.ID != 0 || f.Kind != domain.EventsTopic || !s.principal.IsUser() {
		return
	}
	all := domain.Filter{Kind: domain.EventsTopic}
	c := covered{by: f}
	if _, has := s.subscriptions[all]; has && f != all {
		return // it goes on there
	}
	if f != all {
		c.only = []domain.ConversationID{f.Conversation}
	}
	for had := range s.subscriptions {
		if f == all && had.Kind == domain.EventsTopic && !had.Conversation.IsZero() {
			c.except = append(c.except, had.Conversation)
		}
	}
	s.toPush = append(s.toPush, c)
	s.returning = true
	if !s.resuming {
		s.resuming = true
		s.g.background.Go(func() { s.g.push(s) })
	}
}

// endPush forgets a filter that was unsubscribed before it was known what was missed. The caller holds mu.
func (s *Session) endPush(f domain.Filter) {
	s.toPush = slices.DeleteFunc(s.toPush, func(c covered) bool { return c.by == f })
}

// push finds out what a session missed of what it subscribed to, and then lets its events flow.
func (g *Gateway) push(s *Session) {
	for {
		s.mu.Lock()
		if len(s.toPush) == 0 {
			s.toPush, s.resuming = nil, false
			s.mu.Unlock()
			s.sink.Wake()
			return
		}
		c := s.toPush[0]
		s.toPush = s.toPush[1:]
		s.mu.Unlock()
		if !g.learn(s, func(ctx context.Context, after domain.ConversationID) ([]domain.Stretch, error) {
			return g.missed.Undelivered(ctx, s.principal.User, c.only, c.except, after, backlogPage)
		}) {
			return
		}
	}
}

// unsent leaves out what the session was sent already, before it unsubscribed and subscribed again. The caller holds mu.
func (s *Session) unsent(part domain.Stretch) domain.Stretch {
	if p := s.progress[part.Conversation]; p != nil && s.stored.ID == 0 {
		part.From = max(part.From, p.position+1)
		if n := len(p.flight); n > 0 {
			part.From = max(part.From, p.flight[n-1].seq+1)
		}
	}
	return part
}
