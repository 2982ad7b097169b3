package gateway

import (
	"context"
	"log/slog"
	"slices"

	"github.com/parley-im/parley/domain"
)

// backlogPage is how many stretches of what a session is behind are read at a time.
const backlogPage = 500

// backlog finds out what a durable session missed, and then lets its events flow.
func (g *Gateway) backlog(s *Session) {
	if g.learn(s, func(ctx context.Context, after domain.ConversationID) ([]domain.Stretch, error) {
		return g.sessions.Behind(ctx, s.stored.ID, after, backlogPage)
	}) {
		s.mu.Lock()
		s.resuming = false
		s.mu.Unlock()
		s.sink.Wake()
	}
}

// learn makes due what a session missed, as read gives it, page by page. false: it could not be read, and the session is
// being ended, or the gateway is.
func (g *Gateway) learn(s *Session, read func(context.Context, domain.ConversationID) ([]domain.Stretch, error)) bool {
	var after domain.ConversationID
	for more := true; more; {
		var page []domain.Stretch
		var err error
		g.insist(func(ctx context.Context) error {
			if page, err = nil, nil; !s.isGone() {
				page, err = g.inTurn(ctx, func() ([]domain.Stretch, error) { return read(ctx, after) })
			}
			return err
		})
		if err == nil {
			if more = len(page) >= backlogPage; len(page) > 0 {
				after = page[len(page)-1].Conversation
			}
			page, err = g.newest(s, page)
		}
		if err != nil {
			// Without knowing what it missed it must not go on with what is new: acknowledging that would skip the rest.
			if g.running.Err() == nil {
				g.logger.Error("what a session missed cannot be read", slog.Any("error", err))
			}
			s.sink.Close(domain.Farewell{Reason: 0x80, Text: string(domain.Internal)})
		}
		if err != nil || g.running.Err() != nil {
			return false
		}
		s.missed(page)
	}
	return true
}

// inTurn reads of what a session missed, when it is its turn.
func (g *Gateway) inTurn(ctx context.Context, read func() ([]domain.Stretch, error)) ([]domain.Stretch, error) {
	turn, err := g.arriving.take(ctx)
	if err != nil {
		return nil, err
	}
	defer turn.end()
	return read()
}

// missed adds what the session is behind to what is due.
func (s *Session) missed(page []domain.Stretch) {
	for _, part := range page {
		st := s.g.hub.peek(part.Conversation)
		if st == nil {
			s.miss(part)
			continue
		}
		// What is committed and not announced yet will be: it is in the log already, and must not come twice.
		st.announcing.Lock()
		if head := st.settledHead(); head != nil {
			part.Withheld = blind(head, s.principal.User) // it may have changed since the store was asked
		}
		last, announces := st.reached()
		late := announces && part.To > last
		if late {
			part.To = last
		}
		s.miss(part)
		st.announcing.Unlock()
		if late && s.g.hub.unused(st) {
			s.g.resync(st) // it was committed elsewhere
		}
	}
}

func (s *Session) miss(part domain.Stretch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	part = s.unsent(part)
	if _, ok := s.wants(part.Conversation, false); !ok || s.gone || part.From > part.To {
		return
	}
	c := s.cursor(part.Conversation)
	if c.include(span{part.From, part.To}); part.Withheld {
		s.withhold(c)
	}
}

// cursor gives the session's cursor in a conversation, made when missing. The caller holds mu, and adds a span to it.
func (s *Session) cursor(id domain.ConversationID) *cursor {
	c := s.at[id]
	if c == nil {
		c = &cursor{id: id}
		if s.at == nil {
			s.at = make(map[domain.ConversationID]*cursor)
		}
		s.at[id] = c
		s.behind = append(s.behind, c)
	}
	return c
}

// include adds a span to those of c, wherever it belongs; spans that touch become one.
func (c *cursor) include(n span) {
	spans := append(slices.Clone(c.spans), n)
	slices.SortFunc(spans, func(a, b span) int { return int(a.next - b.next) })
	merged := spans[:1]
	for _, sp := range spans[1:] {
		if tail := &merged[len(merged)-1]; sp.next <= tail.last+1 {
			tail.last = max(tail.last, sp.last)
		} else {
			merged = append(merged, sp)
		}
	}
	c.spans = merged
}
