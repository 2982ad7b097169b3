package gateway

import (
	"context"
	"log/slog"

	"github.com/parley-im/parley/domain"
)

// notify sends what a command of p leads to in the inboxes of users.
func (g *Gateway) notify(p domain.Principal, told []domain.Told) {
	for i := range told {
		t := &told[i]
		if t.Watchers != 0 {
			g.presence.tell(t.Watchers, t.Notice)
		}
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

// UserChanged tells those concerned that a backend has changed a user's record, or deleted the user, who is offline then.
func (g *Gateway) UserChanged(ctx context.Context, u domain.User) {
	now := domain.Millis(g.now())
	told := []domain.Told{u.ToldWatchers(now)}
	switch {
	case u.Deleted:
		g.presence.forget(u.ID)
	case len(g.hub.of(u.ID)) > 0:
		heads, err := g.history.Heads(ctx, u.Principal(""), domain.Needs{Self: true})
		if err != nil {
			g.logger.Warn("a user's devices are not told of a change", slog.Any("error", err))
		} else if heads.Self != nil {
			told = append(told, heads.Self.ToldOwn(now))
		}
	}
	g.notify(domain.Principal{}, told)
}
