package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

// Wills keeps what sessions want done when their connection is lost, so that it is done also when the gateway is lost with
// it. Any goroutine may call it. An error is unavailable, and the call may be repeated, or internal.
type Wills interface {
	// KeepWill stores a will, in place of the one of the same ID, if there is one; now is in milliseconds since 1970.
	KeepWill(ctx context.Context, w domain.StoredWill, now int64) error
	// EndWill says what becomes of a will whose connection has gone. It does nothing if something else was said before.
	EndWill(ctx context.Context, id domain.WillID, end domain.WillEnd) error
	// DueWills takes wills that are due out of the store, the earliest first: whoever gets one carries it out, and nobody
	// gets it twice. With fewer than q.Limit, next is when the next one is due, in milliseconds since 1970; 0: there is none.
	DueWills(ctx context.Context, q domain.WillQuery) (due []domain.DueWill, next int64, err error)
}

const (
	// willPeriod is how often a gateway looks for wills that others have left behind.
	willPeriod = 5 * time.Second
	// willsAtOnce is how many wills are carried out at a time.
	willsAtOnce = 64
	// returnTime is how long after the start of a gateway the wills of other gateways' sessions wait: whom they are for has
	// to come back as well.
	returnTime = 5 * time.Second
	// shutdownTime is how long the wills of sessions that a gateway ended by shutting down wait for their devices to connect
	// again, wherever.
	shutdownTime = 30 * time.Second
	// goodbyeTime is how long a session with a will, which its device is taking over, has to say goodbye first: a client that
	// disconnects and connects again at once may well be heard in the other order.
	goodbyeTime = 250 * time.Millisecond
)

// testament is what a session keeps of its will. The session's mu guards it.
type testament struct {
	// id is that of the stored will, also of one of which it is not known whether it was stored; empty: there is none.
	id    domain.WillID
	delay uint32
	// void: the session's end is no loss, whatever the client says or does not say.
	void bool
	// tasks are commands about the will, of which the first one runs: each is done before the next begins. idle is closed
	// when there are none; nil: nobody waits for that.
	tasks []func()
	idle  chan struct{}
	// over is set when the session has left, and left closed; nil: nobody waits for that.
	over bool
	left chan struct{}
}

// errNoWills refuses wills where none are kept.
func errNoWills() error { return domain.Errorf(domain.Unavailable, "no wills are kept here") }

// admitWill refuses the Will of a CONNECT that p may not give. It counts as what it is.
func (g *Gateway) admitWill(ctx context.Context, p domain.Principal, w *domain.Will) error {
	if g.wills == nil {
		return errNoWills()
	}
	req := domain.DecodeWill(p, w, g.limits)
	if req.Err != nil {
		return req.Err
	}
	if p.IsUser() && !g.hub.allowanceOf(g, p.User).allowWill(req.Command) {
		return errTooMany()
	}
	ctx, cancel := context.WithTimeout(ctx, g.commitTimeout)
	defer cancel()
	_, err := g.consider(ctx, p, req.Command)
	return err
}

// arrange carries out a command about the session's will, after those that came before it.
func (s *Session) arrange(c domain.Command, done func(domain.Receipt, error)) {
	g := s.g
	finish, ok := g.admit(c, done)
	if !ok {
		return
	}
	if g.reads.Add(1) > maxReads {
		g.reads.Add(-1)
		finish(domain.Receipt{}, errTooBusy())
		return
	}
	task := func() {
		defer g.reads.Add(-1)
		finish(s.change(c))
	}
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		g.reads.Add(-1)
		finish(domain.Receipt{}, domain.Errorf(domain.Unavailable, "the session has ended"))
		return
	}
	s.will.tasks = append(s.will.tasks, task)
	first := len(s.will.tasks) == 1
	s.mu.Unlock()
	if first {
		g.background.Go(s.runTasks)
	}
}

func (s *Session) runTasks() {
	for {
		s.mu.Lock()
		task := s.will.tasks[0]
		s.mu.Unlock()
		task()
		s.mu.Lock()
		if s.will.tasks = s.will.tasks[1:]; len(s.will.tasks) == 0 {
			s.will.tasks = nil
			if s.will.idle != nil {
				close(s.will.idle)
				s.will.idle = nil
			}
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// change decides a command about the session's will, and stores what comes of it.
func (s *Session) change(c domain.Command) (domain.Receipt, error) {
	ctx, cancel := context.WithTimeout(s.g.running, s.g.commitTimeout)
	defer cancel()
	d, err := s.g.consider(ctx, s.principal, c)
	switch {
	case err != nil:
		return domain.Receipt{}, err
	case s.g.wills == nil:
		return domain.Receipt{}, errNoWills()
	case d.Will.Topic == "":
		err = s.clearWill(ctx)
	default:
		err = s.keepWill(ctx, d.Will)
	}
	if err != nil {
		return domain.Receipt{}, err
	}
	return domain.Receipt{Conversation: c.Needs(s.principal).Conversation, Result: &d.Result}, nil
}

// keepWill makes w the session's will.
func (s *Session) keepWill(ctx context.Context, w *domain.Will) error {
	s.mu.Lock()
	if s.will.id == "" {
		s.will.id = domain.WillID(newKey())
	}
	if s.opened == 0 {
		s.opened = s.g.opening() // nothing of the session was stored so far
	}
	s.will.delay = w.Delay
	stored := domain.StoredWill{
		ID: s.will.id, Principal: s.principal, Node: s.g.node, Opened: s.opened, Will: *w,
	}
	s.mu.Unlock()
	return s.g.wills.KeepWill(ctx, stored, domain.Millis(s.g.now()))
}

func (s *Session) clearWill(ctx context.Context) error {
	s.mu.Lock()
	id := s.will.id
	s.mu.Unlock()
	if id == "" {
		return nil
	}
	err := s.g.wills.EndWill(ctx, id, domain.WillEnd{})
	if err == nil {
		s.mu.Lock()
		s.will.id = ""
		s.mu.Unlock()
	}
	return err
}

// disinherit makes the session's end one that is no loss.
func (s *Session) disinherit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.will.void = true
}

// awaitGoodbye gives a session that its device takes over the time to leave by itself, if that matters.
func (s *Session) awaitGoodbye() {
	s.mu.Lock()
	if s.will.over || s.will.id == "" && len(s.will.tasks) == 0 {
		s.mu.Unlock()
		return
	}
	if s.will.left == nil {
		s.will.left = make(chan struct{})
	}
	left := s.will.left
	s.mu.Unlock()
	timer := time.NewTimer(goodbyeTime)
	defer timer.Stop()
	select {
	case <-left:
	case <-timer.C:
	case <-s.g.running.Done():
	}
}

// hasLeft tells whoever waits for it that the session has left, or that a login of its device can wait for the rest.
func (s *Session) hasLeft() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.will.over = true
	if s.will.left != nil {
		close(s.will.left)
		s.will.left = nil
	}
}

// hasWill reports whether the session has a will, or may just be getting one.
func (s *Session) hasWill() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.will.id != "" || len(s.will.tasks) > 0
}

// endWill has the will of a session that has ended carried out, now or later, or forgotten. The session lasted until now,
// in milliseconds since 1970.
func (g *Gateway) endWill(ctx context.Context, s *Session, now int64) error {
	if err := s.awaitTasks(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	id, delay, keep, durable, end := s.will.id, s.will.delay, s.keep, s.stored.ID != 0, domain.WillEnd{}
	void := s.will.void
	s.mu.Unlock()
	if id == "" {
		return nil
	}
	if !void {
		// A session that ends before the delay is over takes its will with it (MQTT 5, section 3.1.3.2.2).
		if !durable {
			delay = 0
		} else if keep != domain.NeverExpires {
			delay = min(delay, keep)
		}
		wait := time.Duration(delay) * time.Second
		if end.Forgiving = g.draining.Load(); end.Forgiving {
			wait = max(wait, shutdownTime)
		}
		end.Due = now + wait.Milliseconds()
	}
	if err := g.wills.EndWill(ctx, id, end); err != nil {
		return err
	}
	if !void {
		g.stirWills()
	}
	return nil
}

// awaitTasks waits until no command about the will of a session that has ended is under way.
func (s *Session) awaitTasks(ctx context.Context) error {
	s.mu.Lock()
	if len(s.will.tasks) == 0 {
		s.mu.Unlock()
		return nil
	}
	if s.will.idle == nil {
		s.will.idle = make(chan struct{})
	}
	idle := s.will.idle
	s.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return domain.Because(domain.Unavailable, ctx.Err(), "the session's will is still being written")
	}
}

// returned notes what the return of a device has made of the wills of its earlier connections.
func (g *Gateway) returned(stored domain.StoredSession) {
	g.metrics.wills.WithLabelValues(willCancelled).Add(float64(stored.WillsCancelled))
	if stored.WillsDue {
		g.stirWills()
	}
}

// stirWills has the store asked for wills that are due, now.
func (g *Gateway) stirWills() {
	select {
	case g.willsDue <- struct{}{}:
	default:
	}
}

// executeWills carries out the wills that are due, those of this gateway's sessions and those that nobody is there for any
// more, until the gateway is closed.
func (g *Gateway) executeWills() {
	began := g.now()
	for {
		wait := willPeriod
		q := domain.WillQuery{Limit: willsAtOnce}
		// Until those have come back whom they are for, only what was lost here since.
		if left := returnTime - g.now().Sub(began); left > 0 {
			q.Node, wait = g.node, left
		}
		next, err := g.executeDue(q)
		switch now := domain.Millis(g.now()); {
		case err != nil && g.running.Err() == nil:
			g.logger.Warn("wills are not carried out; trying again", slog.Any("error", err))
			wait = time.Second
		case next != 0:
			wait = min(wait, max(time.Duration(next-now)*time.Millisecond, 10*time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-g.running.Done():
			timer.Stop()
			return
		case <-g.willsDue:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// executeDue carries out all wills that are due, and gives when the next one is; 0: none is known.
func (g *Gateway) executeDue(q domain.WillQuery) (next int64, err error) {
	for {
		// What is taken is carried out: a gateway that drains takes nothing more, and ends after that.
		if !g.enter() {
			return 0, nil
		}
		ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
		q.Now = domain.Millis(g.now())
		var due []domain.DueWill
		due, next, err = g.wills.DueWills(ctx, q)
		cancel()
		refused := g.lockedOut(due)
		var all sync.WaitGroup
		for i, w := range due {
			all.Add(1)
			if w.Forgiving && g.hub.here(w.Principal) { // a service: nobody has noticed that it has come back
				g.metrics.wills.WithLabelValues(willCancelled).Inc()
				all.Done()
				continue
			}
			done := func(err error) {
				g.metrics.wills.WithLabelValues(willOutcome(err)).Inc()
				if err != nil {
					g.logger.Info("a will is not sent", slog.Any("error", err))
				}
				all.Done()
			}
			if refused[i] != nil {
				done(refused[i])
				continue
			}
			g.execute(w, done)
		}
		all.Wait()
		g.underway.Done()
		if err != nil || len(due) < q.Limit {
			return next, err
		}
	}
}

// lockedOut gives for each will why it must not be sent if the login that set it was ended since.
func (g *Gateway) lockedOut(due []domain.DueWill) []error {
	refused := make([]error, len(due))
	var all sync.WaitGroup
	for i, w := range due {
		all.Go(func() { refused[i] = g.holds(w.Principal) })
	}
	all.Wait()
	return refused
}

// holds refuses whom what proved it would prove no more. That a token has expired since does not matter.
func (g *Gateway) holds(p domain.Principal) (err error) {
	if g.proofs == nil || !p.Proven() {
		return nil
	}
	defer g.contain("looking for the login of a will", &err)
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	defer cancel()
	holds, err := g.proofs.Holds(ctx, p)
	if err == nil && !holds {
		err = domain.Errorf(domain.NotAuthenticated, "the login that set it was ended")
	}
	return err
}

// execute carries out a will. Nobody is told of a refusal but who may have asked for a reply.
func (g *Gateway) execute(w domain.DueWill, done func(error)) {
	p := w.Principal
	if !p.IsUser() && !p.IsBackend() {
		done(domain.Errorf(domain.UserNotFound, "whose will it was is gone"))
		return
	}
	req := domain.DecodeWill(p, &w.Will, g.limits)
	if req.Err != nil {
		done(req.Err)
		return
	}
	g.underway.Add(1) // which began before a drain did
	g.start(p, req.Command, g.now(), g.finishing(req.Command, func(r domain.Receipt, err error) {
		if err == nil || !req.Unheard {
			g.reply(p, &req, r, err)
		}
		done(err)
	}))
}

func willOutcome(err error) string {
	var refusal *domain.Error
	switch code := domain.CodeOf(err); {
	case err == nil:
		return willSent
	case code == domain.Unavailable, code == domain.Internal, !errors.As(err, &refusal):
		return willFailed
	}
	return willRefused
}
