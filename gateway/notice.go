package gateway

import "github.com/parley-im/parley/domain"

// notify sends what a command of p leads to in the inboxes of users.
func (g *Gateway) notify(p domain.Principal, told []domain.Told) {
	for i := range told {
		t := &told[i]
		var payload []byte
		for _, user := range t.To {
			sessions := g.hub.of(user)
			if len(sessions) == 0 {
				continue
			}
			if payload == nil {
				payload = encode(t.Notice)
			}
			toInboxes(sessions, payload, func(s *Session) bool {
				return t.OthersOnly && user == p.User && s.principal.Device == p.Device
			})
		}
	}
}

// toInbox sends a notice to the user's sessions that subscribed to the inbox.
func (g *Gateway) toInbox(user domain.UserID, payload []byte) {
	toInboxes(g.hub.of(user), payload, func(*Session) bool { return false })
}

// toInboxes sends a notice to those of a user's sessions that subscribed to the inbox and are not left out.
func toInboxes(sessions []*Session, payload []byte, leaveOut func(*Session) bool) {
	if len(sessions) == 0 {
		return
	}
	topic := domain.Topic{Kind: domain.InboxTopic, User: sessions[0].principal.Username}
	pub := &domain.Publication{Topic: topic.String(), Payload: payload}
	for _, s := range sessions {
		if !leaveOut(s) {
			s.push(topic, pub)
		}
	}
}
