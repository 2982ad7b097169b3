package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

// doubts are the conversations of which nobody knows how far they have come, because a commit was given up.
type doubts struct {
	mu      sync.Mutex
	streams []*stream
	in      map[*stream]bool
	looking bool
}

// resync makes sure that what was committed in spite of an unknown outcome reaches the sessions: once the store
// answers again it looks how far the conversation has come.
func (g *Gateway) resync(st *stream) {
	st = g.hub.stream(st.id) // keeps it in use meanwhile
	g.doubts.mu.Lock()
	defer g.doubts.mu.Unlock()
	if g.doubts.in[st] {
		g.hub.done(st)
		return
	}
	if g.doubts.in == nil {
		g.doubts.in = make(map[*stream]bool)
	}
	g.doubts.in[st] = true
	g.doubts.streams = append(g.doubts.streams, st)
	if !g.doubts.looking {
		g.doubts.looking = true
		g.background.Go(g.look)
	}
}

// doubtful gives a conversation to look at, nil when there is none left. It is in doubt no more from then on: what
// happens while it is looked at is a new doubt.
func (g *Gateway) doubtful() *stream {
	g.doubts.mu.Lock()
	defer g.doubts.mu.Unlock()
	if len(g.doubts.streams) == 0 || g.running.Err() != nil {
		g.doubts.streams, g.doubts.in, g.doubts.looking = nil, nil, false
		return nil
	}
	st := g.doubts.streams[0]
	g.doubts.streams = g.doubts.streams[1:]
	delete(g.doubts.in, st)
	return st
}

// look ends the doubts one after the other, as soon as the store answers.
func (g *Gateway) look() {
	for st := g.doubtful(); st != nil; st = g.doubtful() {
		g.insist(func(ctx context.Context) (err error) {
			defer g.contain("catching up with a conversation", &err)
			head, err := g.head(ctx, st.id)
			if err != nil {
				return err
			}
			return g.caughtUp(st, head)
		})
		g.hub.done(st)
	}
}

// insist repeats a read until the store answers or the gateway ends.
func (g *Gateway) insist(read func(context.Context) error) {
	for pause := 50 * time.Millisecond; g.running.Err() == nil; pause = min(2*pause, time.Second) {
		ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
		err := read(ctx)
		cancel()
		if domain.CodeOf(err) != domain.Unavailable {
			return
		}
		g.logger.Debug("waiting for the store", slog.Any("error", err))
		select {
		case <-time.After(pause):
		case <-g.running.Done():
		}
	}
}

// caughtUp announces what is in the log beyond what was announced.
func (g *Gateway) caughtUp(st *stream, head *domain.Conversation) error {
	if _, announces := st.reached(); !announces {
		return nil // it was forgotten meanwhile, and begins anew when something happens
	}
	st.advance(head)
	n := news{head: head, known: head.LastSeq}
	if err := g.fill(st, n); err != nil {
		return err
	}
	st.announcing.Lock()
	defer st.announcing.Unlock()
	for _, session := range g.tell(st, n, g.rounds.Add(1), nil) {
		session.sink.Wake()
	}
	return nil
}
