package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

// Presences keeps when users were last seen and who subscribed to whom. Any goroutine may call it. An error is
// unavailable, and the call may be repeated.
type Presences interface {
	// SaveSeen notes when users were last seen by a node, and who of them is still there: these are seen as long as the
	// node beats.
	SaveSeen(ctx context.Context, node string, seen []domain.Seen) error
	// LastSeen gives when users were last seen, in milliseconds since 1970; who never was is left out.
	LastSeen(ctx context.Context, users []domain.UserID) (map[domain.UserID]int64, error)
	// Watchers calls pair for every pair of one of the users and another who subscribed to it, while it reads.
	Watchers(ctx context.Context, of []domain.UserID, pair func(watched, watcher domain.UserID)) error
}

// The bounds of telling. However many users change at once, a round takes the newest state of each, and the next round
// begins a while later.
const (
	presencePause = time.Second
	watchedAtOnce = 500 // users whose watchers are read at a time
)

// presence knows which of the users who are connected here have said that they are there. What users say stays in
// memory, since it ends with their connections; only when they were last seen is written, once a round.
//
// Lock order: presence.mu, then hub.mu or Session.mu.
type presence struct {
	g     *Gateway
	store Presences // nil: nothing is kept, and nobody watches
	grace time.Duration
	wake  chan struct{}

	mu sync.Mutex
	// users are those who have set a status and are not offline.
	users map[domain.UserID]*present
	// leaving are users whose last device has gone, in the order of time; some may be back.
	leaving []departure
	// followers are the sessions that subscribed to the status topic of a user.
	followers map[domain.Username]map[*Session]struct{}
	// changes are the users whose state changed since the last round.
	changes map[domain.UserID]change
	// news is what watchers are to be told, the newest of each type about a user.
	news map[subject]domain.Notice
	// unsaved is what the store has to be told; saving is what it is being told, or was told last: who asked it before
	// that has an older answer.
	unsaved, saving map[domain.UserID]domain.Seen
}

// present is a user who has set a status. It is never offline.
type present struct {
	name  domain.Username
	state domain.State
	// seen is when others last saw the user online, in milliseconds since 1970; 0: not since it has set a status.
	seen int64
	// gone is when the last device went; zero: there is one.
	gone time.Time
}

type departure struct {
	user domain.UserID
	gone time.Time
}

// change is what became of a user's presence.
type change struct {
	name domain.Username
	// own is what the user's own devices see, but the one that said so; others what everybody else does.
	own    domain.Status
	device string
	others domain.Status
	// hidden: others see no difference.
	hidden bool
	// told are the sessions that began to follow the user after the change: they were given what it led to.
	told map[*Session]struct{}
}

// subject is what a notice tells of: only the newest one counts.
type subject struct {
	kind  domain.EventType
	about domain.UserID
}

func newPresence(g *Gateway, store Presences, grace time.Duration) *presence {
	return &presence{
		g: g, store: store, grace: grace, wake: make(chan struct{}, 1),
		users:     make(map[domain.UserID]*present),
		followers: make(map[domain.Username]map[*Session]struct{}),
		changes:   make(map[domain.UserID]change),
		news:      make(map[subject]domain.Notice),
		unsaved:   make(map[domain.UserID]domain.Seen),
	}
}

// count gives how many users have set a status and are not offline.
func (p *presence) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.users)
}

// set makes s the presence of a user, as said by one of its devices.
func (p *presence) set(who domain.Principal, s domain.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.users[who.User]
	if u == nil {
		u = &present{name: who.Username}
		p.users[who.User] = u
	}
	was := u.state
	u.state = s.State
	if s.Online || was.Online() {
		u.seen = s.LastSeen
	}
	u.gone = time.Time{}
	if len(p.g.hub.of(who.User)) == 0 {
		p.depart(who.User, u) // it came over HTTP, or the device has gone meanwhile
	}
	p.changed(who.User, change{
		name: who.Username, own: s, device: who.Device, others: u.public(who.User), hidden: !s.Online && !was.Online(),
	})
}

// public gives what others see.
func (u *present) public(id domain.UserID) domain.Status {
	s := domain.Status{UserID: id, State: u.state, Online: u.state.Online(), LastSeen: u.seen}
	if !s.Online {
		s.State = domain.Offline
	}
	return s
}

// depart begins the grace time. The caller holds mu.
func (p *presence) depart(id domain.UserID, u *present) {
	u.gone = p.g.now()
	p.leaving = append(p.leaving, departure{id, u.gone})
	if len(p.leaving) == 1 {
		p.stir()
	}
}

// changed notes a change for the next round. The caller holds mu.
func (p *presence) changed(id domain.UserID, c change) {
	if before, ok := p.changes[id]; ok && !before.hidden {
		c.hidden = false // what they were not told yet is different from what they were told before
	}
	p.changes[id] = c
	if !c.hidden {
		p.unsaved[id] = domain.Seen{User: id, At: c.others.LastSeen, Here: c.others.Online}
		p.news[subject{domain.NoticeSetStatus, id}] = statusNotice(domain.Millis(p.g.now()), c.others)
	}
	p.stir()
}

func statusNotice(now int64, s domain.Status) domain.Notice {
	return domain.Notice{Type: domain.NoticeSetStatus, Time: now, Status: &s}
}

// tell has the watchers of a user told of a change of its record.
func (p *presence) tell(about domain.UserID, n domain.Notice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.news[subject{n.Type, about}] = n
	p.stir()
}

func (p *presence) stir() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// came notes that a device of the user is connected, left that one has gone.
func (p *presence) came(id domain.UserID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u := p.users[id]; u != nil {
		u.gone = time.Time{}
	}
}

func (p *presence) left(id domain.UserID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u := p.users[id]; u != nil && u.gone.IsZero() && len(p.g.hub.of(id)) == 0 {
		p.depart(id, u)
	}
}

// forget makes a user offline at once, for instance because it was deleted.
func (p *presence) forget(id domain.UserID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u := p.users[id]; u != nil {
		p.offline(id, u, p.g.now())
	}
}

// offline ends a user's presence. The caller holds mu.
func (p *presence) offline(id domain.UserID, u *present, at time.Time) {
	delete(p.users, id)
	hidden := !u.state.Online()
	if !hidden {
		u.seen = max(u.seen, domain.Millis(at))
	}
	u.state = domain.Offline
	p.changed(id, change{name: u.name, own: u.public(id), others: u.public(id), hidden: hidden})
}

// expire makes users offline whose last device has been gone for the grace time, and gives how long it takes until there
// are more; 0: there are none to come.
func (p *presence) expire() time.Duration {
	now := p.g.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.leaving) > 0 {
		d := p.leaving[0]
		u := p.users[d.user]
		if u != nil && u.gone.Equal(d.gone) {
			if left := d.gone.Add(p.grace).Sub(now); left > 0 {
				return left
			}
			p.offline(d.user, u, d.gone)
		}
		p.leaving = p.leaving[1:]
	}
	p.leaving = nil
	return 0
}

// keep runs the rounds until the gateway is closed, and then writes who was there until the end.
func (p *presence) keep() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for p.g.running.Err() == nil {
		next := p.expire()
		failed := p.round(p.g.running)
		if failed != nil && p.g.running.Err() == nil {
			p.g.logger.Warn("presence is not told or not written; trying again", slog.Any("error", failed))
			p.stir()
		}
		select {
		case <-time.After(presencePause):
		case <-p.g.running.Done():
		}
		if next == 0 {
			timer.Stop()
		} else {
			timer.Reset(max(next-presencePause, 0))
		}
		select {
		case <-p.wake:
		case <-timer.C:
		case <-p.g.running.Done():
		}
	}
	p.close()
}

// close writes that those who are there are so no more: with the gateway ends what it says about them.
func (p *presence) close() {
	p.mu.Lock()
	now := domain.Millis(p.g.now())
	for id, u := range p.users {
		if u.state.Online() {
			p.unsaved[id] = domain.Seen{User: id, At: now}
		}
	}
	clear(p.users)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.g.running), p.g.commitTimeout)
	defer cancel()
	if err := p.save(ctx); err != nil {
		p.g.logger.Warn("when users were last seen is not written", slog.Any("error", err))
	}
}

// round tells everybody concerned of what changed since the last one.
func (p *presence) round(ctx context.Context) error {
	p.mu.Lock()
	changes := p.changes
	if len(changes) > 0 {
		p.changes = make(map[domain.UserID]change)
	}
	for id, c := range changes {
		p.show(id, c)
	}
	p.g.metrics.presenceChanges.Add(float64(len(changes)))
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, p.g.commitTimeout)
	defer cancel()
	if err := p.save(ctx); err != nil {
		return err
	}
	return p.tellWatchers(ctx)
}

// show tells the user's own devices and those who follow its status topic. The caller holds mu, so that nobody who
// begins to follow gets an older state afterwards.
func (p *presence) show(id domain.UserID, c change) {
	now := domain.Millis(p.g.now())
	if own := p.g.hub.of(id); len(own) > 0 {
		topic := domain.Topic{Kind: domain.InboxTopic, User: c.name}
		pub := &domain.Publication{Topic: topic.String(), Payload: encode(statusNotice(now, c.own))}
		for _, s := range own {
			if s.principal.Device != c.device {
				s.pushLatest(topic, subject{domain.NoticeSetStatus, id}, pub, false)
			}
		}
	}
	followers := p.followers[c.name]
	if c.hidden || len(followers) == 0 {
		return
	}
	topic := domain.Topic{Kind: domain.StatusTopic, User: c.name}
	pub := &domain.Publication{Topic: topic.String(), Payload: encode(statusNotice(now, c.others))}
	for s := range followers {
		if _, knows := c.told[s]; knows {
			continue
		}
		s.pushLatest(topic, subject{about: id}, pub, false)
	}
}

// save writes when users were last seen. What could not be written stays to be written.
func (p *presence) save(ctx context.Context) error {
	p.mu.Lock()
	if len(p.unsaved) == 0 || p.store == nil {
		p.mu.Unlock()
		return nil
	}
	seen := make([]domain.Seen, 0, len(p.unsaved))
	for _, s := range p.unsaved {
		seen = append(seen, s)
	}
	p.saving, p.unsaved = p.unsaved, make(map[domain.UserID]domain.Seen)
	p.mu.Unlock()
	err := p.store.SaveSeen(ctx, p.g.node, seen)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, s := range seen {
			if _, newer := p.unsaved[s.User]; !newer {
				p.unsaved[s.User] = s
			}
		}
	}
	return err
}

// tellWatchers puts news into the inboxes of those who watch the users concerned and are connected here.
func (p *presence) tellWatchers(ctx context.Context) error {
	p.mu.Lock()
	news := p.news
	p.news = make(map[subject]domain.Notice)
	p.mu.Unlock()
	if p.store == nil || len(news) == 0 || p.g.hub.count() == 0 {
		return nil
	}
	about := make(map[domain.UserID][]subject, len(news))
	for s := range news {
		about[s.about] = append(about[s.about], s)
	}
	for len(about) > 0 {
		var users []domain.UserID
		for id := range about {
			if users = append(users, id); len(users) == watchedAtOnce {
				break
			}
		}
		if err := p.tellWatchersOf(ctx, users, about, news); err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, subjects := range about {
				for _, s := range subjects {
					if _, newer := p.news[s]; !newer {
						p.news[s] = news[s]
					}
				}
			}
			return err
		}
		for _, id := range users {
			delete(about, id)
		}
	}
	return nil
}

func (p *presence) tellWatchersOf(
	ctx context.Context, users []domain.UserID, about map[domain.UserID][]subject, news map[subject]domain.Notice,
) error {
	payloads := make(map[subject][]byte)
	return p.store.Watchers(ctx, users, func(watched, watcher domain.UserID) {
		sessions := p.g.hub.of(watcher)
		if len(sessions) == 0 {
			return
		}
		topic := domain.Topic{Kind: domain.InboxTopic, User: sessions[0].principal.Username}
		for _, subject := range about[watched] {
			if payloads[subject] == nil {
				payloads[subject] = encode(news[subject])
			}
			pub := &domain.Publication{Topic: topic.String(), Payload: payloads[subject]}
			for _, s := range sessions {
				s.pushLatest(topic, subject, pub, false)
			}
		}
		p.g.metrics.presenceNotices.Inc()
	})
}
