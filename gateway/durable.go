package gateway

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

const (
	// flushPeriod is how often positions and delivered marks are written: a crash redelivers what was acknowledged
	// since.
	flushPeriod = time.Second
	// beatPeriod is how often a gateway says that it lives.
	beatPeriod = 10 * time.Second
	// backlogPage is how many stretches of what a session is behind are read at a time.
	backlogPage = 500
)

// progress is how far a session has come with what it was sent of one conversation.
type progress struct {
	// flight holds what was sent and may be unacknowledged, in order; the first one is.
	flight []flown
	// position is the last event before which, and with which, all have arrived; saved is the one that the store knows,
	// offered the one that a flush tries to tell it.
	position, offered, saved domain.Seq
}

type flown struct {
	seq     domain.Seq
	arrived bool
}

// sent notes that an event was given to the connection. The caller holds mu.
func (s *Session) sent(c domain.ConversationID, seq domain.Seq) {
	if s.principal.User == 0 {
		return
	}
	p := s.progress[c]
	if p == nil {
		p = &progress{}
		if s.progress == nil {
			s.progress = make(map[domain.ConversationID]*progress)
		}
		s.progress[c] = p
	}
	p.flight = append(p.flight, flown{seq: seq})
}

// arrived notes that an event has reached the device. The caller holds mu.
func (s *Session) arrived(c domain.ConversationID, seq domain.Seq) {
	p := s.progress[c]
	if p == nil {
		return
	}
	i, ok := slices.BinarySearchFunc(p.flight, seq, func(f flown, seq domain.Seq) int { return int(f.seq - seq) })
	if !ok {
		return
	}
	p.flight[i].arrived = true
	n := 0
	for n < len(p.flight) && p.flight[n].arrived {
		p.position = p.flight[n].seq
		n++
	}
	if n == 0 {
		return
	}
	if p.flight = p.flight[n:]; len(p.flight) == 0 {
		p.flight = nil
	}
	s.toSave()
}

// toSave has the session's progress written by the next flush. The caller holds mu.
func (s *Session) toSave() {
	if !s.unsaved {
		s.unsaved = true
		s.g.flusher.add(s, s.gone)
	}
}

// collect gives what the store does not know yet of how far the session has come. It counts as known only when it is
// written: another flush that comes meanwhile, at the end of the session, must not take it for granted.
func (s *Session) collect(b *flush) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsaved = false
	b.sessions = append(b.sessions, s)
	now := domain.Millis(s.g.now())
	for id, p := range s.progress {
		if p.position <= p.saved {
			continue
		}
		if s.stored.ID != 0 {
			b.positions = append(b.positions, domain.Position{Session: s.stored.ID, Conversation: id, Seq: p.position})
		}
		b.marks = append(b.marks, domain.Mark{Conversation: id, User: s.principal.User, Seq: p.position, Time: now})
		p.offered = p.position
	}
}

// written notes that what was collected is in the store, and forgets conversations in which nothing is on its way.
func (s *Session) written() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.progress {
		p.saved = max(p.saved, p.offered)
		if len(p.flight) == 0 && p.saved == p.position {
			delete(s.progress, id)
		}
	}
	if len(s.progress) == 0 {
		s.progress = nil
	}
}

// flush is what is written at once, of some sessions.
type flush struct {
	positions []domain.Position
	marks     []domain.Mark
	sessions  []*Session
}

func (b *flush) empty() bool { return len(b.positions) == 0 && len(b.marks) == 0 }

// tidy leaves the highest position of each session and conversation, and the highest mark of each user and
// conversation.
func (b *flush) tidy() {
	type place struct {
		session      domain.SessionID
		user         domain.UserID
		conversation domain.ConversationID
	}
	highest := make(map[place]int, len(b.positions)+len(b.marks))
	positions := b.positions[:0]
	for _, p := range b.positions {
		at := place{session: p.Session, conversation: p.Conversation}
		if i, ok := highest[at]; ok {
			positions[i].Seq = max(positions[i].Seq, p.Seq)
			continue
		}
		highest[at] = len(positions)
		positions = append(positions, p)
	}
	marks := b.marks[:0]
	for _, m := range b.marks {
		at := place{user: m.User, conversation: m.Conversation}
		if i, ok := highest[at]; ok {
			if marks[i].Seq < m.Seq {
				marks[i] = m
			}
			continue
		}
		highest[at] = len(marks)
		marks = append(marks, m)
	}
	b.positions, b.marks = positions, marks
}

// save writes a flush, again and again until the store takes it or ctx ends.
func (g *Gateway) save(ctx context.Context, b *flush) error {
	if g.sessions == nil {
		return nil
	}
	if !b.empty() {
		b.tidy()
		begin := g.now()
		err := g.sessions.SavePositions(ctx, b.positions, b.marks)
		g.metrics.flushSeconds.Observe(g.now().Sub(begin).Seconds())
		if err != nil {
			return err
		}
		g.metrics.flushedPositions.Add(float64(len(b.positions)))
		g.delivered(b.marks)
	}
	for _, s := range b.sessions {
		s.written()
	}
	return nil
}

// keepSessions writes positions and marks about once a second, and tells the store that this gateway lives, until the
// gateway is closed. What could not be written is written the next time. A gateway that lives says so whether or not
// there is something to write, and whether or not that succeeds: else its sessions would count as disconnected.
func (g *Gateway) keepSessions() {
	tick := time.NewTicker(flushPeriod)
	defer tick.Stop()
	var beaten time.Time
	for {
		select {
		case <-g.running.Done():
			return
		case <-tick.C:
		}
		if err := g.flush(); err != nil && g.running.Err() == nil {
			g.logger.Warn("positions are not written; trying again", slog.Any("error", err))
		}
		now := g.now()
		if now.Sub(beaten) < beatPeriod {
			continue
		}
		if err := g.beat(now); err == nil {
			beaten = now
		} else if g.running.Err() == nil {
			g.logger.Warn("the store does not know that this gateway lives; trying again", slog.Any("error", err))
		}
	}
}

// flush writes how far all sessions have come.
func (g *Gateway) flush() error {
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	defer cancel()
	var b flush
	for _, s := range g.flusher.take() {
		s.collect(&b)
	}
	err := g.save(ctx, &b)
	if err != nil {
		for _, s := range b.sessions {
			s.mu.Lock()
			s.toSave()
			s.mu.Unlock()
		}
	}
	return err
}

func (g *Gateway) beat(now time.Time) error {
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	defer cancel()
	return g.sessions.Beat(ctx, g.node, domain.Millis(now))
}

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
	stored, err := g.sessions.OpenSession(ctx, domain.SessionOpening{
		User: s.principal.User, Device: s.principal.Device, Version: s.hello.Version, Clean: s.hello.Clean,
		Expiry: s.hello.Expiry, Node: g.node, Now: s.opened,
	})
	if err != nil {
		return false, err
	}
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

// backlog finds out what a session missed, and then lets its events flow.
func (g *Gateway) backlog(s *Session) {
	var after domain.ConversationID
	for more := true; more; {
		var page []domain.Stretch
		var err error
		g.insist(func(ctx context.Context) error {
			if page, err = nil, nil; !s.isGone() {
				page, err = g.behind(ctx, s, after)
			}
			return err
		})
		if err != nil {
			// Without knowing what it missed it must not go on with what is new: acknowledging that would skip the rest.
			if g.running.Err() == nil {
				g.logger.Error("what a session missed cannot be read", slog.Any("error", err))
			}
			s.sink.Close(domain.Farewell{Reason: 0x80, Text: string(domain.Internal)})
		}
		if err != nil || g.running.Err() != nil {
			return
		}
		if more = len(page) >= backlogPage; len(page) > 0 {
			after = page[len(page)-1].Conversation
		}
		s.missed(page)
	}
	s.mu.Lock()
	s.resuming = false
	s.mu.Unlock()
	s.sink.Wake()
}

// behind reads a page of what a session missed, when it is its turn.
func (g *Gateway) behind(ctx context.Context, s *Session, after domain.ConversationID) ([]domain.Stretch, error) {
	leave, err := g.arriving.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return g.sessions.Behind(ctx, s.stored.ID, after, backlogPage)
}

func (s *Session) isGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// missed adds what the session is behind to what is due.
func (s *Session) missed(page []domain.Stretch) {
	for _, part := range page {
		st := s.g.hub.peek(part.Conversation)
		if st == nil {
			s.miss(part)
			continue
		}
		// What is committed and not announced yet will be: it is in the log already, and must not come twice.
		st.announcing.Lock()
		if st.withholds(s.principal.User) {
			st.announcing.Unlock()
			continue // since the store was asked
		}
		last, announces := st.reached()
		late := announces && part.To > last
		if late {
			part.To = last
		}
		s.miss(part)
		st.announcing.Unlock()
		if late && s.g.hub.unused(st) {
			s.g.resync(st) // it was committed elsewhere
		}
	}
}

func (s *Session) miss(part domain.Stretch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.wants(part.Conversation, false); !ok || s.gone || part.From > part.To {
		return
	}
	s.cursor(part.Conversation).include(span{part.From, part.To})
}

// cursor gives the session's cursor in a conversation, made when missing. The caller holds mu, and adds a span to it.
func (s *Session) cursor(id domain.ConversationID) *cursor {
	c := s.at[id]
	if c == nil {
		c = &cursor{id: id}
		if s.at == nil {
			s.at = make(map[domain.ConversationID]*cursor)
		}
		s.at[id] = c
		s.behind = append(s.behind, c)
	}
	return c
}

// include adds a span to those of c, wherever it belongs; spans that touch become one.
func (c *cursor) include(n span) {
	spans := append(slices.Clone(c.spans), n)
	slices.SortFunc(spans, func(a, b span) int { return int(a.next - b.next) })
	merged := spans[:1]
	for _, sp := range spans[1:] {
		if tail := &merged[len(merged)-1]; sp.next <= tail.last+1 {
			tail.last = max(tail.last, sp.last)
		} else {
			merged = append(merged, sp)
		}
	}
	c.spans = merged
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

// part writes the last of what the session acknowledged, and that it is disconnected, and calls end when that is done: a
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
	var last flush
	s.collect(&last)
	s.mu.Lock()
	id, keep, since := s.stored.ID, s.keep, s.opened
	s.mu.Unlock()
	err := g.save(ctx, &last)
	if err == nil && id != 0 {
		err = g.sessions.CloseSession(ctx, id, g.node, since, ended, keep)
	}
	return err
}

// flusher gathers the sessions that have something to write.
type flusher struct {
	mu       sync.Mutex
	sessions []*Session
	// late are those of them that had ended: the last write to a socket is known to have succeeded only after the peer
	// has gone.
	late map[device][]*Session
}

func (f *flusher) add(s *Session, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions = append(f.sessions, s)
	if gone {
		if f.late == nil {
			f.late = make(map[device][]*Session)
		}
		d := device{s.principal.User, s.principal.Device}
		f.late[d] = append(f.late[d], s)
	}
}

func (f *flusher) take() []*Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	sessions := f.sessions
	f.sessions, f.late = nil, nil
	return sessions
}

// lateOf gives the ended sessions of a device that still have something to write.
func (f *flusher) lateOf(d device) []*Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.late[d]
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
