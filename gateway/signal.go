package gateway

import (
	"github.com/parley-im/parley/domain"
)

// maxSignals is how much may wait for a session before signals to it are left out: they are for those who keep up.
const maxSignals = 256

// maxAwakened is of how many quiet conversations deliveries are told per flush: each is a read of the store. Those who come back
// to more than that are seen by what happens next, and by getReceipts.
const maxAwakened = 64

// tellOnline decides a command that stores nothing and tells those who are there. It may be called from any goroutine.
func (g *Gateway) tellOnline(it *item) {
	heads := domain.Heads{Now: domain.Millis(g.now()), Limits: g.limits, Conversation: it.stream.Head()}
	it.decided, it.err = g.decide(&heads, it.principal, it.command)
	if it.err == nil {
		it.receipt = domain.Receipt{Conversation: it.stream.id, Result: &it.decided.Result}
		for _, sig := range it.decided.Signals {
			if it.err = g.passOn(it, sig); it.err != nil {
				break
			}
		}
	}
	g.answer(it)
}

// passOn sends a signal of a command, unless there were too many of its kind lately.
func (g *Gateway) passOn(it *item, sig *domain.Signal) error {
	p := it.principal
	switch sig.Type {
	case domain.SignalTyping:
		who := typist{it.stream.id, p.Sender()}
		if !g.throttle.typing(who, sig, func() { g.typedOn(who) }) {
			return nil
		}
	case domain.SignalTransientMessage:
		if g.transientRate > 0 && p.IsUser() && !g.throttle.allows(p.User, g.transientRate) {
			return domain.Errorf(domain.RateLimited, "too many messages for those online in a second; try again later")
		}
	default:
	}
	it.stream.signal(g, sig)
	return nil
}

// typedOn tells what has become of a typist when nothing was told for a while.
func (g *Gateway) typedOn(who typist) {
	if g.running.Err() != nil {
		return
	}
	sig := g.throttle.over(who)
	if sig == nil {
		return
	}
	st := g.hub.peek(who.conversation)
	if st == nil {
		return
	}
	// Who has left meanwhile types no more.
	head := st.settledHead()
	if head == nil || head.Removed {
		return
	}
	if user := sig.Initiator.UserID; user != 0 {
		if _, ok := head.Participant(user); !ok && who.sender > 0 {
			return
		}
	}
	later := *sig
	later.Time = domain.Millis(g.now())
	st.signal(g, &later)
}

// signal sends what is not sequenced to the sessions of a conversation's participants that subscribed to its signals.
func (st *stream) signal(g *Gateway, sig *domain.Signal) {
	g.hub.greet(st)
	st.mu.Lock()
	online := st.online
	st.mu.Unlock()
	var pub *domain.Publication
	for _, s := range online {
		sub, ok := s.wantsSignals(st.id, sig)
		if !ok {
			continue
		}
		if pub == nil {
			topic := domain.Topic{Kind: domain.SignalsTopic, Conversation: st.id}
			pub = &domain.Publication{Topic: topic.String(), Payload: encode(sig)}
		}
		s.pushSignal(direct{publication: pub, identifiers: sub.identifiers})
		g.metrics.signals.Inc()
	}
}

// wantsSignals tells how the session subscribed to a conversation's signals, as [Session.wants] does for events.
func (s *Session) wantsSignals(c domain.ConversationID, sig *domain.Signal) (sub subscribed, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.subscriptions) == 0 {
		return subscribed{}, false
	}
	by := sig.Initiator
	own := by != nil && by.UserID == s.principal.User && by.Device == s.principal.Device && s.principal.User != 0
	return s.covering(domain.SignalsTopic, c, own)
}

// pushSignal has a signal sent when nothing else is due, unless too much waits for the session, or for all of them: what
// is sequenced, and what was asked for, comes first.
func (s *Session) pushSignal(d direct) {
	s.mu.Lock()
	n := len(d.publication.Payload)
	if s.gone || s.slow || len(s.signals) >= maxSignals || s.directBytes+n > s.g.maxDirectBytes/2 ||
		s.g.waiting.Load()+int64(n) > s.g.maxWaiting/2 {
		s.mu.Unlock()
		return
	}
	s.signals = append(s.signals, d)
	s.hold(n)
	s.mu.Unlock()
	s.sink.Wake()
}

// delivered tells the participants of not too large conversations how far deliveries have come: once per flush, however
// many there were.
func (g *Gateway) delivered(marks []domain.Mark) {
	var quiet []domain.Mark
	for _, m := range marks {
		if st := g.hub.peek(m.Conversation); st != nil && st.settledHead() != nil {
			st.tellDelivered(g, m)
		} else if len(quiet) < maxAwakened {
			quiet = append(quiet, m)
		}
	}
	if len(quiet) > 0 && g.hub.count() > 1 {
		g.background.Go(func() {
			for _, m := range quiet {
				if g.running.Err() != nil {
					return
				}
				st := g.hub.stream(m.Conversation)
				if g.awaken(st); st.settledHead() != nil {
					st.tellDelivered(g, m)
				}
				g.hub.done(st)
			}
		})
	}
}

// awaken reads the head of a conversation in which nothing happened lately, unless somebody does so already.
func (g *Gateway) awaken(st *stream) {
	st.mu.Lock()
	load := st.head == nil && !st.loading && !st.born
	st.loading = st.loading || load
	st.mu.Unlock()
	if load {
		g.load(st)
	}
}

// tellDelivered tells the participants how far deliveries to one of them have come.
func (st *stream) tellDelivered(g *Gateway, m domain.Mark) {
	head := st.settledHead()
	if head == nil || len(head.Participants) > g.maxMarked {
		return
	}
	p, ok := head.Participant(m.User)
	if !ok || m.Seq < p.LastDelivered || !st.raises(m.User, m.Seq) {
		return // a device of the user has got further
	}
	st.signal(g, &domain.Signal{
		Type: domain.SignalDelivered, Conversation: m.Conversation, Time: domain.Millis(g.now()), Seq: m.Seq, UserID: m.User,
		Initiator: &domain.Initiator{UserID: p.UserID, Username: p.Username},
	})
}

// raises notes how far deliveries to a user have come; false: all were told of that already.
func (st *stream) raises(user domain.UserID, seq domain.Seq) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if seq <= st.delivered[user] {
		return false
	}
	if st.delivered == nil {
		st.delivered = make(map[domain.UserID]domain.Seq)
	}
	st.delivered[user] = seq
	return true
}
