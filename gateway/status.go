package gateway

import (
	"context"

	"github.com/parley-im/parley/domain"
)

// followed is a user whose status topic a session may subscribe to.
type followed struct {
	id domain.UserID
	// seen is when the store last saw the user; 0: never.
	seen int64
}

// followable finds those of the named users whom p may know of.
func (g *Gateway) followable(ctx context.Context, p domain.Principal, names []domain.Username) (map[domain.Username]followed, error) {
	if len(names) == 0 {
		return nil, nil
	}
	needs := domain.Needs{Users: make([]domain.UserRef, len(names))}
	for i, name := range names {
		needs.Users[i].Username = name
	}
	heads, err := g.history.Heads(ctx, p, needs)
	if err != nil {
		return nil, err
	}
	found := make(map[domain.Username]followed, len(names))
	ids := make([]domain.UserID, 0, len(names))
	for _, u := range heads.Users {
		if p.Sees(u.Root) {
			found[u.Username] = followed{id: u.ID}
			ids = append(ids, u.ID)
		}
	}
	if g.presence.store == nil || len(ids) == 0 {
		return found, nil
	}
	seen, err := g.presence.store.LastSeen(ctx, ids)
	if err != nil {
		return nil, err
	}
	for name, f := range found {
		found[name] = followed{f.id, seen[f.id]}
	}
	return found, nil
}

// follow lets a session get a user's status from now on, and the present one at once if that is wanted: as a retained
// message to a new subscription, as any other to one that went on.
func (p *presence) follow(s *Session, name domain.Username, f followed, wanted, retained bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.follows(name) {
		return // it has gone, or unsubscribed meanwhile
	}
	if p.followers[name] == nil {
		p.followers[name] = make(map[*Session]struct{}, 1)
	}
	p.followers[name][s] = struct{}{}
	if !wanted {
		return
	}
	status := domain.Status{UserID: f.id, State: domain.Offline}
	if u := p.users[f.id]; u != nil {
		status = u.public(f.id)
	}
	status.LastSeen = max(status.LastSeen, f.seen, p.unsaved[f.id].At, p.saving[f.id].At)
	if c, pending := p.changes[f.id]; pending {
		if c.told == nil {
			c.told = make(map[*Session]struct{}, 1)
		}
		c.told[s] = struct{}{}
		p.changes[f.id] = c
	}
	topic := domain.Topic{Kind: domain.StatusTopic, User: name}
	s.pushLatest(topic, subject{about: f.id}, &domain.Publication{
		Topic: topic.String(), Payload: encode(statusNotice(domain.Millis(p.g.now()), status)),
	}, retained)
}

func (s *Session) follows(name domain.Username) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.subscriptions[domain.Filter{Kind: domain.StatusTopic, User: name}]
	return ok && !s.gone
}

// unfollow ends what follow began.
func (p *presence) unfollow(s *Session, name domain.Username) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.followers[name], s)
	if len(p.followers[name]) == 0 {
		delete(p.followers, name)
	}
}

// refollow lets a session that went on get the status of the users that it had subscribed to.
func (g *Gateway) refollow(s *Session, names []domain.Username) {
	g.insist(func(ctx context.Context) error {
		if s.isGone() {
			return nil
		}
		found, err := g.followable(ctx, s.principal, names)
		for name, f := range found {
			g.presence.follow(s, name, f, true, false)
		}
		return err
	})
}

// latest are publications of which only the newest about a subject matters: what waits for a slow reader is bounded by the
// number of subjects.
type latest struct {
	order []place
	of    map[place]direct
}

type place struct {
	topic domain.TopicKind
	subject
}

// take gives the first one.
func (l *latest) take() direct {
	at := l.order[0]
	d := l.of[at]
	delete(l.of, at)
	if l.order = l.order[1:]; len(l.order) == 0 {
		l.order, l.of = nil, nil
	}
	return d
}

// pushLatest sends a publication in the place of an older one about the same subject that still waits, if the session
// subscribed to its topic.
func (s *Session) pushLatest(topic domain.Topic, about subject, pub *domain.Publication, retained bool) {
	s.mu.Lock()
	d, found := s.covers(topic, pub)
	if !found || s.gone || s.slow {
		s.mu.Unlock()
		return
	}
	d.retain = d.retain || retained
	at := place{topic.Kind, about}
	if old, waits := s.latest.of[at]; waits {
		s.hold(-len(old.publication.Payload))
		d.retain = d.retain || old.retain
	} else {
		s.latest.order = append(s.latest.order, at)
	}
	if s.latest.of == nil {
		s.latest.of = make(map[place]direct)
	}
	s.latest.of[at] = d
	s.pushed(pub)
}
