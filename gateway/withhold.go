package gateway

import (
	"slices"

	"github.com/parley-im/parley/domain"
)

// blind reports whether the user takes part without the permission to read.
func blind(c *domain.Conversation, user domain.UserID) bool {
	p, ok := c.Participant(user)
	return ok && !p.Permissions.Reads()
}

// sight withholds what sessions have not been sent yet from those whose users take part without the permission to read from
// now on, and lets go of it for those who have ceased to: they may read again, or have left. Those who cease to read are told
// by cut.
func (g *Gateway) sight(id domain.ConversationID, before, after *domain.Conversation) {
	if before == nil {
		return
	}
	for i := range before.Participants {
		p := &before.Participants[i]
		if p.Permissions.Reads() || blind(after, p.UserID) {
			continue
		}
		for _, s := range g.hub.of(p.UserID) {
			if s.see(id) {
				s.sink.Wake()
			}
		}
	}
	for i := range after.Participants {
		p := &after.Participants[i]
		if p.Permissions.Reads() {
			continue
		}
		if _, was := before.Participant(p.UserID); was {
			continue
		}
		for _, s := range g.hub.of(p.UserID) {
			s.blindfold(id)
		}
	}
}

// cut ends delivery to a session whose user may not read any more, by the event last. It is the last one that is sent. Where
// others before it have not been, it is withheld with them: they come in order, when the user may read again. It reports
// whether the session has to be woken, as due does.
func (s *Session) cut(st *stream, from, last domain.Seq, round uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	behind := from < last || s.resuming || s.at[st.id] != nil
	c := s.extend(st, from, last)
	if c == nil {
		return false
	}
	if behind {
		s.withhold(c)
		return false
	}
	return s.rouse(round)
}

// see lets go of what was withheld of a conversation; false: there is nothing.
func (s *Session) see(id domain.ConversationID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.at[id]
	return c != nil && s.release(c)
}

// blindfold withholds what is due of a conversation.
func (s *Session) blindfold(id domain.ConversationID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.at[id]; c != nil {
		s.withhold(c)
	}
}

// withhold takes c from those that have turns. The caller holds mu.
func (s *Session) withhold(c *cursor) {
	if c.withheld {
		return
	}
	c.withheld, c.page = true, nil
	s.behind = slices.DeleteFunc(s.behind, func(o *cursor) bool { return o == c })
	s.g.readers.remove(c.id, s)
}

// release gives c its turns again. The caller holds mu.
func (s *Session) release(c *cursor) (withheld bool) {
	if !c.withheld {
		return false
	}
	c.withheld = false
	s.behind = append(s.behind, c)
	return true
}

// forgetWithheld forgets what is withheld of conversations that the session is not subscribed to any more: nothing else
// looks at it before it may be sent. The caller holds mu.
func (s *Session) forgetWithheld() {
	for id, c := range s.at {
		if _, ok := s.wants(id, false); c.withheld && !ok {
			delete(s.at, id)
		}
	}
}
