package gateway

import (
	"maps"
	"slices"
	"sync"

	"github.com/parley-im/parley/domain"
)

// readers are the sessions that may hold events read from the store ahead of their turn, by conversation. What such an
// event says can be edited or removed before it is sent.
type readers struct {
	mu sync.Mutex // after Session.mu in the lock order
	of map[domain.ConversationID]map[*Session]struct{}
}

func (r *readers) add(c domain.ConversationID, s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = make(map[domain.ConversationID]map[*Session]struct{})
	}
	if r.of[c] == nil {
		r.of[c] = make(map[*Session]struct{}, 1)
	}
	r.of[c][s] = struct{}{}
}

func (r *readers) remove(c domain.ConversationID, s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of[c], s)
	if len(r.of[c]) == 0 {
		delete(r.of, c)
	}
}

// outdate has what was read of a conversation, and is not sent yet, read again.
func (g *Gateway) outdate(c domain.ConversationID) {
	g.pages.outdate(c) // first: whoever is told reads at once
	g.readers.outdate(c)
}

// outdate has all readers of a conversation read again what they have not sent yet.
func (r *readers) outdate(c domain.ConversationID) {
	r.mu.Lock()
	sessions := slices.Collect(maps.Keys(r.of[c]))
	r.mu.Unlock()
	for _, s := range sessions {
		s.outdate(c)
	}
}

// outdate drops what was read of the conversation, and what is just being read.
func (s *Session) outdate(id domain.ConversationID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.at[id]; c != nil {
		c.page, c.outdated = nil, true
	}
}

// forget drops all cursors. The caller holds mu.
func (s *Session) forget() {
	for id := range s.at {
		s.g.readers.remove(id, s)
	}
	s.behind, s.at = nil, nil
}
