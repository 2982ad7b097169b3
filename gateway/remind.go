package gateway

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/parley-im/parley/domain"
)

// maxGreeted is in how many conversations a device is told at its login what is unread, and of how many announcements.
const maxGreeted = 50

// maxGreetedBytes is how many bytes these announcements have at most: a session that has just come must not be too slow for
// them.
const maxGreetedBytes = 256 << 10

// remindersAtOnce is for how many users at a time it is counted what they have not read. What a user is told comes in the
// order in which it was counted.
const remindersAtOnce = 4

// reminders are the counts of unread messages that devices are to be told.
type reminders [remindersAtOnce]struct {
	mu      sync.Mutex
	waiting []*reminder
	// at finds those of waiting that are about a conversation: it is counted once for all that come before that.
	at      map[reading]*reminder
	working bool
}

// reading is a conversation of a user.
type reading struct {
	user         domain.UserID
	conversation domain.ConversationID
}

// reminder is what one user, or one device of it, is to be told.
type reminder struct {
	reading
	// device has read and knows; nil: none has, or several.
	device *string
	// session is the one that has begun, and is told of all conversations; nil: the others are told of one.
	session *Session
}

// greetUnread tells a session what is unread, announcements first, once: when it has subscribed to its inbox, or goes on having done so.
func (g *Gateway) greetUnread(s *Session) {
	s.mu.Lock()
	_, listens := s.subscriptions[domain.Filter{Kind: domain.InboxTopic, User: s.principal.Username}]
	first := listens && !s.greeted && s.principal.IsUser()
	s.greeted = s.greeted || first
	s.mu.Unlock()
	if first {
		g.remind(&reminder{reading: reading{user: s.principal.User}, session: s})
	}
}

// remindOthers tells the other devices of who has marked a conversation as read what is unread in it now.
func (g *Gateway) remindOthers(p domain.Principal, c domain.ConversationID) {
	others := func(s *Session) bool { return s.principal.Device != p.Device }
	if slices.ContainsFunc(g.hub.of(p.User), others) {
		g.remind(&reminder{reading: reading{p.User, c}, device: &p.Device})
	}
}

func (g *Gateway) remind(r *reminder) {
	q := &g.reminders[uint64(r.user)%remindersAtOnce]
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.session == nil {
		if before := q.at[r.reading]; before != nil {
			if before.device != nil && *before.device != *r.device {
				before.device = nil
			}
			return
		}
		if q.at == nil {
			q.at = make(map[reading]*reminder)
		}
		q.at[r.reading] = r
	}
	q.waiting = append(q.waiting, r)
	if !q.working && g.running.Err() == nil {
		q.working = true
		g.background.Go(func() { g.work(uint64(r.user) % remindersAtOnce) })
	}
}

// work tells what waits, until nothing does.
func (g *Gateway) work(n uint64) {
	q := &g.reminders[n]
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 || g.running.Err() != nil {
			q.waiting, q.at, q.working = nil, nil, false
			q.mu.Unlock()
			return
		}
		r := q.waiting[0]
		q.waiting = q.waiting[1:]
		if r.session == nil {
			delete(q.at, r.reading)
		}
		q.mu.Unlock()
		g.insist(func(ctx context.Context) (err error) {
			defer g.contain("counting unread messages", &err)
			if err = g.count(ctx, r); err != nil && domain.CodeOf(err) != domain.Unavailable {
				g.logger.Error("unread messages cannot be counted", slog.Any("error", err))
			}
			return err
		})
	}
}

// count counts what is unread and tells it.
func (g *Gateway) count(ctx context.Context, r *reminder) error {
	if r.session != nil && r.session.isGone() {
		return nil
	}
	needs := domain.Needs{Unread: &domain.UnreadQuery{Of: r.conversation, Waiting: r.session != nil, Limit: maxGreeted}}
	if r.session != nil {
		needs.Announcements = &domain.AnnouncementQuery{Unread: true, Limit: maxGreeted}
	}
	heads, err := g.history.Heads(ctx, domain.Principal{User: r.user}, needs)
	if err != nil {
		return err
	}
	sessions := g.hub.of(r.user)
	if r.session != nil {
		sessions = []*Session{r.session}
	}
	now := domain.Millis(g.now())
	waiting := domain.FirstAnnouncements(domain.Unexpired(heads.Announcements, now), maxGreetedBytes)
	for i := range slices.Backward(waiting) {
		payload := encode(domain.Notice{Type: domain.NoticeAnnouncement, Time: now, Announcement: &waiting[i]})
		toInboxes(sessions, payload, func(*Session) bool { return false })
	}
	for i := range heads.Unread {
		u := &heads.Unread[i]
		u.LastMessage = u.LastMessage.Linked(g.links)
		payload := encode(domain.Notice{Type: domain.NoticeUnread, Time: now, Conversation: &u.Conversation, Unread: u})
		toInboxes(sessions, payload, func(s *Session) bool { return r.device != nil && s.principal.Device == *r.device })
	}
	return nil
}
