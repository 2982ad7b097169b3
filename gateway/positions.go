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
)

// progress is how far a session has come with what it was sent of one conversation.
type progress struct {
	// flight holds what was sent and may be unacknowledged, in order; the first one is.
	flight []flown
	// position is the last event before which, and with which, all have arrived; saved is the one that the store knows.
	position, saved domain.Seq
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
			if len(p.flight) == 0 {
				delete(s.progress, id)
			}
			continue
		}
		if s.stored.ID != 0 {
			b.positions = append(b.positions, domain.Position{Session: s.stored.ID, Conversation: id, Seq: p.position})
		}
		b.marks = append(b.marks, domain.Mark{Conversation: id, User: s.principal.User, Seq: p.position, Time: now})
		b.collected = append(b.collected, collected{s, id, p.position})
	}
}

// written notes how far the store knows the session to be in a conversation, which is forgotten if nothing is on its way
// there.
func (s *Session) written(c domain.ConversationID, seq domain.Seq) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.progress[c]
	if p == nil {
		return
	}
	if p.saved = max(p.saved, seq); len(p.flight) > 0 || p.saved < p.position {
		return
	}
	if delete(s.progress, c); len(s.progress) == 0 {
		s.progress = nil
	}
}

// flush is what is written at once, of some sessions.
type flush struct {
	positions []domain.Position
	marks     []domain.Mark
	sessions  []*Session
	// collected is what is known to the store when the flush is written: another one may have collected more since, and fail.
	collected []collected
}

type collected struct {
	session      *Session
	conversation domain.ConversationID
	seq          domain.Seq
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
	for _, c := range b.collected {
		c.session.written(c.conversation, c.seq)
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
