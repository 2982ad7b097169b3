package gateway

import (
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

// pageEvents is how many events a session reads from the store at a time, and turnEvents how many of one
// conversation it sends before the next conversation has its turn.
const (
	pageEvents = 64
	turnEvents = 16
)

// Session is one connected device: its subscriptions, and per conversation how far it has come. It is made by
// [Gateway.Connect] and ends with [Session.Leave]. Its methods may be called from any goroutine, but Next from one
// at a time.
type Session struct {
	g         *Gateway
	principal domain.Principal
	hello     domain.Hello
	sink      Sink
	limits    *userLimits
	expiry    *time.Timer
	// held is the latest ending of the user's logins that the session's own has outlived; watchEndings alone uses it.
	held int64

	mu sync.Mutex
	// subscriptions by filter; events, signals, inbox and replies are looked up per delivery.
	subscriptions map[domain.Filter]domain.SubscribeOptions
	// direct are publications outside any log, in order: replies and notices.
	direct []direct
	// latest are those of which only the newest counts: presence.
	latest latest
	// signals are those that may be left out, sent when nothing else is due. directBytes is the size of all.
	signals     []direct
	directBytes int
	// slow is set when too much waited in direct: the session is being ended.
	slow bool
	// behind are the conversations in which something is due, in the order of their turns; at finds them, and those in which
	// it is withheld.
	behind []*cursor
	at     map[domain.ConversationID]*cursor
	// round is the last round of announcements in which this session was to be woken.
	round uint64
	gone  bool
	// greeted is set when the session was told what is unread.
	greeted bool
	// progress is how far it has come where something is on its way or not yet written; unsaved: it is with the flusher.
	progress map[domain.ConversationID]*progress
	unsaved  bool
	// stored is what the store keeps of the session, opened when the connection began, keep for how long the session
	// outlives it. resuming: what is due is not known yet. returning: it has not caught up yet with what it missed.
	stored    domain.StoredSession
	opened    int64
	keep      uint32
	resuming  bool
	returning bool
	// toPush is what it has subscribed to and of which it is not known yet what it missed, in push mode.
	toPush []covered
	// turn is kept while what was read is being sent.
	turn *turn
	// beginning is closed when the session has gone on from where its device's earlier connection had come to; nil then.
	beginning chan struct{}
	will      testament
	// farewell ends the session once last has been sent.
	last     *domain.Publication
	farewell domain.Farewell
}

type direct struct {
	publication *domain.Publication
	qos         byte
	retain      bool
	identifiers []int
}

// cursor is a session's position in a conversation where something is due: one or more stretches of its log, in
// ascending order. A stretch ends where the user's right to read ended, and begins where it began.
type cursor struct {
	id domain.ConversationID
	// stream has the newest events; nil while nothing happens in the conversation.
	stream *stream
	spans  []span
	// page holds events read from the store ahead of their turn. outdated: what is just being read may be old already.
	page     []*entry
	outdated bool
	// withheld: the user takes part without the permission to read. It is not among those that have turns.
	withheld bool
}

type span struct{ next, last domain.Seq }

// Principal tells who the session belongs to.
func (s *Session) Principal() domain.Principal { return s.principal }

// due notes that the events from..last of the conversation are to be sent to the session, if it subscribed to them.
// It reports whether the session has to be woken: once per round.
func (s *Session) due(st *stream, from, last domain.Seq, round uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.extend(st, from, last)
	if c == nil {
		return false
	}
	s.release(c) // its user may read: perhaps that was said when nobody here had the conversation
	return s.rouse(round)
}

// extend adds the events from..last to what is due of a conversation; nil: the session does not want them. The caller
// holds mu.
func (s *Session) extend(st *stream, from, last domain.Seq) *cursor {
	if s.gone || from > last {
		return nil
	}
	if _, ok := s.wants(st.id, false); !ok {
		return nil
	}
	c := s.cursor(st.id)
	c.stream = st
	if n := len(c.spans); n > 0 && c.spans[n-1].last+1 >= from {
		c.spans[n-1].last = last
	} else {
		c.spans = append(c.spans, span{from, last})
	}
	return c
}

// rouse reports whether the session has to be woken: once per round. The caller holds mu.
func (s *Session) rouse(round uint64) bool {
	if s.round == round {
		return false
	}
	s.round = round
	return true
}

// subscribed is what a session's subscriptions amount to for one conversation.
type subscribed struct {
	qos         byte
	identifiers []int
}

// wants tells how the session subscribed to a conversation's events; own: to those that it caused itself. Overlapping
// subscriptions make one delivery with the highest QoS (MQTT 5, section 3.3.4). The caller holds mu.
func (s *Session) wants(id domain.ConversationID, own bool) (sub subscribed, ok bool) {
	if len(s.subscriptions) == 0 {
		return subscribed{}, false
	}
	return s.covering(domain.EventsTopic, id, own)
}

// covering is wants for one of the two topics of a conversation. The caller holds mu.
func (s *Session) covering(kind domain.TopicKind, id domain.ConversationID, own bool) (sub subscribed, ok bool) {
	for _, f := range [...]domain.Filter{{Kind: kind}, {Kind: kind, Conversation: id}} {
		o, has := s.subscriptions[f]
		if !has || own && o.NoLocal {
			continue
		}
		ok = true
		sub.qos = max(sub.qos, o.QoS)
		if o.Identifier != 0 {
			sub.identifiers = append(sub.identifiers, o.Identifier)
		}
	}
	return sub, ok
}

// push sends a publication outside any log, if the session subscribed to its topic.
func (s *Session) push(topic domain.Topic, pub *domain.Publication) {
	s.mu.Lock()
	d, found := s.covers(topic, pub)
	if !found || s.gone || s.slow {
		s.mu.Unlock()
		return
	}
	d.retain = false // what is pushed is not of a topic that has a present value
	s.direct = append(s.direct, d)
	s.pushed(pub)
}

// covers tells how the session subscribed to a topic outside of conversations. The caller holds mu.
func (s *Session) covers(topic domain.Topic, pub *domain.Publication) (d direct, found bool) {
	d.publication = pub
	for f, o := range s.subscriptions {
		covers := f.Kind == topic.Kind && f.User == topic.User
		if topic.Kind == domain.RepliesTopic {
			covers = f.MatchesReply(topic)
		}
		if !covers {
			continue
		}
		found = true
		d.qos = max(d.qos, o.QoS)
		d.retain = d.retain || o.RetainAsPublished
		if o.Identifier != 0 {
			d.identifiers = append(d.identifiers, o.Identifier)
		}
	}
	return d, found
}

// pushed accounts for what was added to direct or latest. The caller holds mu, which is released.
func (s *Session) pushed(pub *domain.Publication) {
	all := s.hold(len(pub.Payload))
	// What is outside the log cannot be read again later: a session that lets too much of it pile up is ended, so
	// that it knows that it has missed something.
	limit := ""
	switch {
	case len(s.direct) > s.g.maxDirect || s.directBytes > s.g.maxDirectBytes:
		limit = limitWaiting
	case all > s.g.maxWaiting:
		limit = limitWaitingTotal
	}
	if limit != "" {
		s.hold(-s.directBytes)
		s.slow, s.direct, s.signals, s.latest = true, nil, nil, latest{}
	}
	s.mu.Unlock()
	if limit != "" {
		s.g.metrics.limited.WithLabelValues(limit).Inc()
		s.sink.Close(domain.TooSlow())
		return
	}
	s.sink.Wake()
}

// hold accounts for n more bytes that wait for the session outside of any log, and gives how many wait for all
// sessions. The caller holds mu.
func (s *Session) hold(n int) (all int64) {
	s.directBytes += n
	return s.g.waiting.Add(int64(n))
}

// Leave ends the session: its connection is gone. graceful tells whether the client had said so.
func (s *Session) Leave(graceful bool) {
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return
	}
	s.gone = true
	s.will.void = s.will.void || graceful
	s.turn.end()
	s.hold(-s.directBytes)
	s.forget()
	subscriptions := s.subscriptions
	s.direct, s.signals, s.latest, s.subscriptions = nil, nil, latest{}, nil
	s.mu.Unlock()
	s.g.metrics.sessions.Dec()
	for f := range subscriptions {
		if f.Kind == domain.StatusTopic {
			s.g.presence.unfollow(s, f.User)
		}
	}
	if s.principal.IsUser() {
		defer s.g.presence.left(s.principal.User)
	}
	if s.g.sessions == nil || !s.principal.IsUser() {
		s.g.hub.leave(s)
		if s.hasWill() {
			s.g.part(s, s.hasLeft)
		}
		return
	}
	end := s.g.partings.begin(device{s.principal.User, s.principal.Device})
	s.hasLeft()
	s.g.hub.leave(s)
	s.g.part(s, end)
}

// end takes a session that must go out at once, tells it why in its inbox, and closes it when it has heard, or soon.
func (s *Session) end(why domain.Farewell, notice *domain.Notice) {
	if notice == nil || s.principal.User == 0 {
		s.sink.Close(why)
		return
	}
	topic := domain.Topic{Kind: domain.InboxTopic, User: s.principal.Username}
	pub := &domain.Publication{Topic: topic.String(), Payload: encode(notice)}
	s.mu.Lock()
	_, listens := s.subscriptions[domain.Filter{Kind: domain.InboxTopic, User: s.principal.Username}]
	s.forget() // the newer session goes on from here
	s.last, s.farewell = pub, why
	s.mu.Unlock()
	if !listens {
		s.sink.Close(why)
		return
	}
	time.AfterFunc(time.Second, func() { s.sink.Close(why) })
	s.push(topic, pub)
}

// endAfterReplies ends the session once the replies and notices that wait for it are sent, or after a second.
func (s *Session) endAfterReplies(why domain.Farewell) {
	s.mu.Lock()
	waiting := len(s.direct) > 0 && s.last == nil
	if waiting {
		s.last, s.farewell = s.direct[len(s.direct)-1].publication, why
	}
	s.mu.Unlock()
	if !waiting {
		s.sink.Close(why)
		return
	}
	time.AfterFunc(time.Second, func() { s.sink.Close(why) })
}
