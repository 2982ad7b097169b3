package gateway

import (
	"container/list"
	"slices"
	"sync"

	"github.com/parley-im/parley/domain"
)

// hub knows who is connected here, and the conversations in which something happened lately. Its memory depends on
// those, not on how many participants are away or how many conversations are quiet. A user who comes is not looked for in
// the conversations: each finds out who has come when something happens in it, by one look at each of its participants.
//
// Lock order: stream.announcing, then hub.mu or Session.mu, then stream.mu. None is held over I/O.
type hub struct {
	mu sync.Mutex
	// users are those who are connected here; came counts how often one was not before.
	users   map[domain.UserID]*attendance
	came    uint64
	streams map[domain.ConversationID]*stream
	// recentFirst orders the streams by use; its values are *stream.
	recentFirst *list.List
	weight      int
	maxWeight   int
	// backends are the sessions of services, by main account.
	backends map[domain.AccountID][]*Session
	sessions int
	// allowances are what users may still do in this second. They outlast the sessions until they are whole again:
	// left names the users whose last session is gone.
	allowances map[domain.UserID]*userLimits
	left       []domain.UserID
}

// attendance is what the hub keeps of a user who is connected: its sessions here, at least one, and the cached
// conversations that know them.
type attendance struct {
	sessions []*Session
	streams  map[*stream]struct{}
}

func newHub(maxWeight int) *hub {
	return &hub{
		users:       make(map[domain.UserID]*attendance),
		streams:     make(map[domain.ConversationID]*stream),
		recentFirst: list.New(),
		maxWeight:   maxWeight,
		backends:    make(map[domain.AccountID][]*Session),
		allowances:  make(map[domain.UserID]*userLimits),
	}
}

// enter adds a session. Sessions that it displaces (same client id, same tag) are taken out in the same step, so
// that there are never two, and returned. An error says why the session itself must give way.
func (h *hub) enter(s *Session) (displaced []*Session, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Connect has looked already, but others may have entered while a password was verified.
	if most := s.g.maxSessions; most > 0 && h.sessions >= most {
		return nil, s.g.full()
	}
	if s.principal.IsBackend() {
		rest := make([]*Session, 0, len(h.backends[s.principal.Root])+1)
		for _, old := range h.backends[s.principal.Root] {
			if old.principal.Service == s.principal.Service && old.principal.Device == s.principal.Device {
				displaced = append(displaced, old)
				h.sessions--
				continue
			}
			rest = append(rest, old)
		}
		h.backends[s.principal.Root] = append(rest, s)
		h.sessions++
		return displaced, nil
	}
	a := h.users[s.principal.User]
	if a == nil {
		a = &attendance{streams: make(map[*stream]struct{})}
	}
	for _, old := range a.sessions {
		sameDevice := old.principal.Device == s.principal.Device
		sameTag := s.hello.Tag != "" && old.hello.Tag == s.hello.Tag
		if sameTag && !sameDevice && s.hello.Reconnect {
			return nil, domain.Errorf(domain.SessionConflict, "another session has the tag %q", s.hello.Tag)
		}
		if sameDevice || sameTag {
			displaced = append(displaced, old)
		}
	}
	if most := s.g.maxUserSessions; most > 0 && len(a.sessions)-len(displaced) >= most {
		s.g.metrics.limited.WithLabelValues(limitUserSessions).Inc()
		return nil, domain.Errorf(domain.RateLimited, "more than %d sessions of one user", most)
	}
	for _, old := range displaced {
		h.remove(a, old)
	}
	if h.users[s.principal.User] == nil {
		h.users[s.principal.User] = a
		h.came++
	}
	a.sessions = append(a.sessions, s)
	s.limits = h.allowance(s.g, s.principal.User)
	h.sessions++
	for st := range a.streams {
		st.add(s)
	}
	return displaced, nil
}

// leave takes a session out, if it is not out already.
func (h *hub) leave(s *Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.principal.IsBackend() {
		list := slices.Clone(h.backends[s.principal.Root])
		i := slices.Index(list, s)
		if i < 0 {
			return
		}
		h.backends[s.principal.Root] = slices.Delete(list, i, i+1)
		h.sessions--
		return
	}
	a := h.users[s.principal.User]
	if a == nil || !slices.Contains(a.sessions, s) {
		return
	}
	h.remove(a, s)
	if len(a.sessions) == 0 {
		delete(h.users, s.principal.User)
	}
}

// remove takes s out of its user's sessions and of all streams. The caller holds mu.
func (h *hub) remove(a *attendance, s *Session) {
	a.sessions = slices.DeleteFunc(slices.Clone(a.sessions), func(o *Session) bool { return o == s })
	for st := range a.streams {
		st.drop(s)
	}
	h.sessions--
	if len(a.sessions) == 0 && h.allowances[s.principal.User] != nil {
		h.left = append(h.left, s.principal.User)
	}
}

// allowanceOf gives what a user may do who need not have a session.
func (h *hub) allowanceOf(g *Gateway, id domain.UserID) *userLimits {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.allowances[id] != nil
	l := h.allowance(g, id)
	if a := h.users[id]; l != nil && !known && (a == nil || len(a.sessions) == 0) {
		h.left = append(h.left, id)
	}
	return l
}

// allowance gives what a user may do, and drops those that need not be kept. The caller holds mu.
func (h *hub) allowance(g *Gateway, user domain.UserID) *userLimits {
	for len(h.left) > 0 {
		id := h.left[0]
		if a := h.users[id]; a == nil || len(a.sessions) == 0 {
			if !h.allowances[id].whole() {
				break
			}
			delete(h.allowances, id)
		}
		h.left = h.left[1:]
	}
	l := h.allowances[user]
	if l == nil {
		if l = g.newUserLimits(); l != nil {
			h.allowances[user] = l
		}
	}
	return l
}

// of gives a user's sessions. The slice must not be changed.
func (h *hub) of(id domain.UserID) []*Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.users[id]; a != nil {
		return a.sessions
	}
	return nil
}

// servicesOf gives the sessions of services that see conversations of the tree. The slice must not be changed.
func (h *hub) servicesOf(root domain.AccountID) []*Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.backends[root]
}

// here reports whether a device is connected here.
func (h *hub) here(p domain.Principal) bool {
	sessions := h.of(p.User)
	if p.IsBackend() {
		sessions = h.servicesOf(p.Root)
	}
	return slices.ContainsFunc(sessions, func(s *Session) bool {
		return s.principal.Service == p.Service && s.principal.Device == p.Device
	})
}

// count gives the number of sessions.
func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sessions
}

// streamCount gives the number of conversations in memory.
func (h *hub) streamCount() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}

// all gives every session.
func (h *hub) all() []*Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*Session
	for _, a := range h.users {
		out = append(out, a.sessions...)
	}
	for _, b := range h.backends {
		out = append(out, b...)
	}
	return out
}

// stream gives the conversation's stream and counts one user of it, made when missing; [hub.done] takes the user
// away again. A stream in use is never dropped.
func (h *hub) stream(id domain.ConversationID) *stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.streams[id]
	if st == nil {
		st = &stream{id: id, weight: 1}
		h.streams[id] = st
		st.place = h.recentFirst.PushFront(st)
		h.weight += st.weight
	} else {
		h.recentFirst.MoveToFront(st.place)
	}
	st.users++
	h.evict() // not before it is in use: it may be the only one that is not
	return st
}

// done ends a use of the stream that [hub.stream] began.
func (h *hub) done(st *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	st.users--
	if st.users == 0 && st.Head() == nil {
		h.forget(st) // a conversation that does not exist leaves no trace
	}
}

// peek gives the conversation's stream if there is one, without counting a use.
func (h *hub) peek(id domain.ConversationID) *stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams[id]
}

// unused reports whether no command is under way in the conversation.
func (h *hub) unused(st *stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return st.users == 0
}

// evict forgets the streams that were not used for the longest time until the rest fits. The caller holds mu.
func (h *hub) evict() {
	for e := h.recentFirst.Back(); e != nil && h.weight > h.maxWeight; {
		st, before := e.Value.(*stream), e.Prev()
		if st.users == 0 {
			h.forget(st)
		}
		e = before
	}
}

// forget drops a stream. Sessions that still read from it go on with the store. The caller holds mu.
func (h *hub) forget(st *stream) {
	if h.streams[st.id] != st {
		return
	}
	delete(h.streams, st.id)
	h.recentFirst.Remove(st.place)
	h.weight -= st.weight
	if head := st.settledHead(); head != nil {
		for i := range head.Participants {
			h.unlink(st, head.Participants[i].UserID)
		}
	}
	st.clear()
}

func (h *hub) unlink(st *stream, id domain.UserID) {
	if a := h.users[id]; a != nil {
		delete(a.streams, st)
	}
}

// weigh accounts for what a stream holds.
func (h *hub) weigh(st *stream, weight int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams[st.id] != st {
		return
	}
	h.weight += weight - st.weight
	st.weight = weight
	h.evict()
}

// settle makes head the state that says who is told of events: newcomers' sessions join, those of users who may no
// longer read leave. It gives the sessions that took part before. An older state than the present one is ignored.
func (h *hub) settle(st *stream, head *domain.Conversation) (before []*Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	h.greetLocked(st) // in the old state: who came may be losing its place
	old := st.settled
	if old != nil && old.Version >= head.Version || h.streams[st.id] != st {
		return st.online
	}
	st.settled = head
	stays := make(map[domain.UserID]bool, len(head.Participants))
	if !head.Removed {
		for i := range head.Participants {
			p := &head.Participants[i]
			stays[p.UserID] = p.Permissions.Reads()
		}
	}
	if old != nil {
		for i := range old.Participants {
			if _, in := stays[old.Participants[i].UserID]; !in {
				h.unlink(st, old.Participants[i].UserID)
			}
		}
	}
	online := make([]*Session, 0, len(st.online))
	for id, reads := range stays {
		if a := h.users[id]; a != nil {
			a.streams[st] = struct{}{}
			if reads {
				online = append(online, a.sessions...)
			}
		}
	}
	before, st.online = st.online, online
	return before
}

// greet lets the sessions of participants take part who have come since the last time.
func (h *hub) greet(st *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	h.greetLocked(st)
}

// greetLocked is greet for a caller that holds both locks.
func (h *hub) greetLocked(st *stream) {
	if st.came == h.came || h.streams[st.id] != st {
		return
	}
	st.came = h.came
	if st.settled == nil || st.settled.Removed {
		return
	}
	var online []*Session
	for i := range st.settled.Participants {
		p := &st.settled.Participants[i]
		a := h.users[p.UserID]
		if a == nil {
			continue
		}
		if _, known := a.streams[st]; known {
			continue
		}
		a.streams[st] = struct{}{}
		if p.Permissions.CanRead || p.Permissions.IsOwner {
			online = append(online, a.sessions...)
		}
	}
	if len(online) > 0 {
		st.online = slices.Concat(st.online, online)
	}
}
