package gateway

import (
	"context"
	"log/slog"
	"sync"

	"github.com/parley-im/parley/domain"
)

// opening gives the present time, in milliseconds since 1970, and no time twice: it tells the connections of a device
// apart.
func (g *Gateway) opening() int64 {
	now := domain.Millis(g.now())
	for {
		last := g.openings.Load()
		next := max(now, last+1)
		if g.openings.CompareAndSwap(last, next) {
			return next
		}
	}
}

// goOn lets a session go on from where its device's earlier connection, if any, has come to. Connections of a device go
// on one after the other, in the order in which they displaced one another, so that the store and the hub agree on which
// one is the last.
func (g *Gateway) goOn(ctx context.Context, s *Session, displaced []*Session) (present bool, err error) {
	defer s.begun()
	if g.sessions == nil || !s.principal.IsUser() {
		return false, nil
	}
	// Also for a client that goes away meanwhile: the next login of the device counts on what is to be done here.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*g.commitTimeout)
	defer cancel()
	for _, old := range displaced {
		if old.principal.Device != s.principal.Device {
			continue
		}
		if err := old.awaitBegun(ctx); err != nil {
			return false, err
		}
		// What it acknowledges from now on may be written too late for the newer one, which then sends it again. Positions
		// only rise, so that it does no harm later.
		var last flush
		old.collect(&last)
		if err := g.save(ctx, &last); err != nil {
			return false, err
		}
	}
	if err := g.partings.wait(ctx, device{s.principal.User, s.principal.Device}); err != nil {
		return false, err
	}
	var last flush
	for _, old := range g.flusher.lateOf(device{s.principal.User, s.principal.Device}) {
		old.collect(&last)
	}
	if err := g.save(ctx, &last); err != nil {
		return false, err
	}
	present, err = g.resume(ctx, s)
	if err == nil {
		g.greetUnread(s)
	}
	return present, err
}

// begun tells connections that have displaced the session that it has gone on, or has failed to.
func (s *Session) begun() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.beginning)
	s.beginning = nil
}

// awaitBegun waits until the session has gone on, or has failed to.
func (s *Session) awaitBegun(ctx context.Context) error {
	s.mu.Lock()
	beginning := s.beginning
	s.mu.Unlock()
	if beginning == nil {
		return nil
	}
	select {
	case <-beginning:
		return nil
	case <-ctx.Done():
		return domain.Because(domain.Unavailable, ctx.Err(), "an earlier login of the device is still under way")
	}
}

// resume gives the session what the store keeps of its device, or begins to keep it. What the device's earlier connection
// had acknowledged is in the store by then.
func (g *Gateway) resume(ctx context.Context, s *Session) (present bool, err error) {
	s.opened = g.opening()
	turn, err := g.arriving.take(ctx)
	if err != nil {
		return false, err
	}
	defer turn.end()
	stored, err := g.sessions.OpenSession(ctx, domain.SessionOpening{
		User: s.principal.User, Device: s.principal.Device, Version: s.hello.Version, Clean: s.hello.Clean,
		Expiry: s.hello.Expiry, Node: g.node, Now: s.opened,
	})
	if err != nil {
		return false, err
	}
	g.returned(stored)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored, s.keep = stored, s.hello.Expiry
	var statuses []domain.Username
	for _, sub := range stored.Subscriptions {
		f, ok := domain.ParseFilter(sub.Filter)
		if !ok || !f.Allowed(s.principal) {
			continue // from a time when it was
		}
		if s.subscriptions == nil {
			s.subscriptions = make(map[domain.Filter]domain.SubscribeOptions, len(stored.Subscriptions))
		}
		s.subscriptions[f] = sub.Options
		if f.Kind == domain.StatusTopic {
			statuses = append(statuses, f.User)
		}
	}
	if stored.Present {
		// Events wait until it is known what is due before them.
		s.resuming, s.returning = true, true
		g.background.Go(func() { g.backlog(s) })
		if len(statuses) > 0 {
			g.background.Go(func() { g.refollow(s, statuses) })
		}
	}
	return stored.Present, nil
}

func (s *Session) isGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// remember writes the session's subscriptions to the store, where it is durable. started are the filters that it did
// not have before. A session that the store does not know any more is ended: its client counts on one that is gone.
func (s *Session) remember(ctx context.Context, started []domain.Filter) error {
	s.mu.Lock()
	id := s.stored.ID
	subs := make([]domain.Subscription, 0, len(s.subscriptions))
	for f, o := range s.subscriptions {
		subs = append(subs, domain.Subscription{Filter: f.String(), Options: o})
	}
	s.mu.Unlock()
	if id == 0 {
		return nil
	}
	var single []domain.ConversationID
	all := false
	for _, f := range started {
		switch {
		case f.Kind != domain.EventsTopic:
		case f.Conversation.IsZero():
			all = true
		default:
			single = append(single, f.Conversation)
		}
	}
	err := s.g.sessions.SaveSubscriptions(ctx, id, subs, single, all)
	if domain.CodeOf(err) == domain.NotFound {
		s.sink.Close(domain.SessionLost())
		return domain.Because(domain.Unavailable, err, "the session is gone")
	}
	return err
}

// Expire changes for how long the session is kept after its connection, in seconds (MQTT 5, section 3.14.2.2.2).
func (s *Session) Expire(after uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = after
}

// part writes what becomes of the session's will, the last of what it acknowledged, and that it is disconnected, and calls end when that is done: a
// login of the same device waits for it. When the store is away it goes on in the background until it is back.
func (g *Gateway) part(s *Session, end func()) {
	now := domain.Millis(g.now())
	// The gateway may be closing: this is still to be done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(g.running), g.commitTimeout)
	defer cancel()
	err := g.writeOff(ctx, s, now)
	if domain.CodeOf(err) == domain.Unavailable && g.running.Err() == nil {
		g.background.Go(func() {
			g.insist(func(ctx context.Context) error { return g.writeOff(ctx, s, now) })
			end()
		})
		return
	}
	if err != nil {
		// The acknowledgements since the last flush will be asked for again; the session ends by the node's last beat.
		g.logger.Warn("a session's end is not written", slog.Any("error", err))
	}
	end()
}

func (g *Gateway) writeOff(ctx context.Context, s *Session, ended int64) error {
	if err := g.endWill(ctx, s, ended); domain.CodeOf(err) == domain.Unavailable {
		return err
	} else if err != nil {
		g.logger.Error("the will of a session is not carried out", slog.Any("error", err))
	}
	var last flush
	s.collect(&last)
	s.mu.Lock()
	id, keep, since := s.stored.ID, s.keep, s.opened
	s.mu.Unlock()
	if id != 0 || !last.empty() {
		turn, err := g.arriving.take(ctx)
		if err != nil {
			return err
		}
		defer turn.end()
	}
	err := g.save(ctx, &last)
	if err == nil && id != 0 {
		err = g.sessions.CloseSession(ctx, id, g.node, since, ended, keep)
	}
	return err
}

// device is what a durable session belongs to.
type device struct {
	user domain.UserID
	id   string
}

// partings are the devices whose last connection is just being written off, with a channel that is closed when it is.
type partings struct {
	mu sync.Mutex
	of map[device]chan struct{}
}

// begin notes that a connection of the device is being written off; the caller calls end when it is.
func (p *partings) begin(d device) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = make(map[device]chan struct{})
	}
	before, done := p.of[d], make(chan struct{})
	p.of[d] = done
	return func() {
		if before != nil {
			<-before
		}
		p.mu.Lock()
		if p.of[d] == done {
			delete(p.of, d)
		}
		p.mu.Unlock()
		close(done)
	}
}

// wait waits until nothing of the device is being written off any more.
func (p *partings) wait(ctx context.Context, d device) error {
	p.mu.Lock()
	done := p.of[d]
	p.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return domain.Because(domain.Unavailable, ctx.Err(), "the earlier session is still being written")
	}
}
