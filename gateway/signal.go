package gateway

import (
	"github.com/parley-im/parley/domain"
)

// maxSignals is how much may wait for a session before signals to it are left out: they are for those who keep up.
const maxSignals = 256

// signal sends what is not sequenced to the sessions of a conversation's participants that subscribed to its signals.
func (st *stream) signal(g *Gateway, sig *domain.Signal) {
	g.hub.greet(st)
	st.mu.Lock()
	online := st.online
	st.mu.Unlock()
	var pub *domain.Publication
	for _, s := range online {
		if !s.wantsSignals(st.id) {
			continue
		}
		if pub == nil {
			topic := domain.Topic{Kind: domain.SignalsTopic, Conversation: st.id}
			pub = &domain.Publication{Topic: topic.String(), Payload: encode(sig)}
		}
		s.pushSignal(pub)
		g.metrics.signals.Inc()
	}
}

func (s *Session) wantsSignals(c domain.ConversationID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.subscriptions) == 0 {
		return false
	}
	_, all := s.subscriptions[domain.Filter{Kind: domain.SignalsTopic}]
	_, one := s.subscriptions[domain.Filter{Kind: domain.SignalsTopic, Conversation: c}]
	return all || one
}

func (s *Session) pushSignal(pub *domain.Publication) {
	s.mu.Lock()
	if s.gone || len(s.direct) >= maxSignals {
		s.mu.Unlock()
		return
	}
	s.direct = append(s.direct, direct{publication: pub})
	s.hold(len(pub.Payload))
	s.mu.Unlock()
	s.sink.Wake()
}

// delivered tells the participants of not too large conversations how far deliveries have come: once per flush, however
// many there were.
func (g *Gateway) delivered(marks []domain.Mark) {
	now := domain.Millis(g.now())
	for _, m := range marks {
		st := g.hub.peek(m.Conversation)
		if st == nil {
			continue // nobody was active there lately
		}
		head := st.settledHead()
		if head == nil || len(head.Participants) > g.maxMarked {
			continue
		}
		p, ok := head.Participant(m.User)
		if !ok || m.Seq < p.LastDelivered || !st.raises(m.User, m.Seq) {
			continue // a device of the user has got further
		}
		st.signal(g, &domain.Signal{
			Type: domain.SignalDelivered, Conversation: m.Conversation, Time: now, Seq: m.Seq, UserID: m.User,
			Initiator: &domain.Initiator{UserID: p.UserID, Username: p.Username},
		})
	}
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
