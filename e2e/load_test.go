package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is a number of clients that send all the time, to whichever gateway is there, and remember what was acknowledged.
type load struct {
	conversation string
	// current is the gateway to connect to.
	current atomic.Pointer[gateway]
	acked   atomic.Int64
	refused atomic.Int64
	broken  atomic.Int64

	cancel context.CancelFunc
	wait   sync.WaitGroup
	mu     sync.Mutex // guards the rest
	// seqs are the numbers of acknowledged messages by their ids; 0 where the acknowledgement cannot say.
	seqs    map[string]int64
	strange []string
}

// drive starts the load: of each version a few devices of each user, each of which sends one message after the other
// and repeats it under the same id until it is acknowledged.
func drive(tb testing.TB, g *gateway, conversation string, users []user, devicesEach int) *load {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	l := &load{conversation: conversation, cancel: cancel, seqs: make(map[string]int64)}
	l.current.Store(g)
	for i, u := range users {
		for n := range devicesEach {
			l.wait.Go(func() { l.send(ctx, u, 4+byte((i+n)%2), fmt.Sprintf("%d.%d", i, n)) })
		}
	}
	tb.Cleanup(func() { l.stop(tb) })
	return l
}

// send is one device's work.
func (l *load) send(ctx context.Context, u user, version byte, name string) {
	var d *device
	defer func() {
		if d != nil {
			d.leave()
		}
	}()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for n := 1; ctx.Err() == nil; {
		if d == nil {
			var err error
			if d, err = l.current.Load().attach(context.WithoutCancel(ctx), u, version, named(name)); err != nil {
				d = nil
				select {
				case <-retry.C:
				case <-ctx.Done():
				}
				continue
			}
		}
		id := fmt.Sprintf("%s-%d", name, n)
		a, err := d.tryPublish(context.WithoutCancel(ctx), publishing{
			topic: messagesTopic(l.conversation), qos: 1, payload: fmt.Appendf(nil, `{"id":%q,"text":%q}`, id, id),
		})
		switch {
		case err != nil:
			l.broken.Add(1)
			d.cut()
			d = nil
		case a.reason == 0x88:
			l.refused.Add(1)
		case a.reason != 0:
			l.odd(fmt.Sprintf("%s: PUBACK 0x%02x %s", id, a.reason, a.text))
			return
		default:
			l.mu.Lock()
			l.seqs[id] = a.seq()
			l.mu.Unlock()
			l.acked.Add(1)
			n++
		}
	}
}

func (l *load) odd(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strange = append(l.strange, what)
}

// more waits until n more messages are acknowledged.
func (l *load) more(tb testing.TB, n int64) {
	tb.Helper()
	goal := l.acked.Load() + n
	eventually(tb, fmt.Sprintf("%d more messages are acknowledged", n), func() error {
		if got := l.acked.Load(); got < goal {
			return fmt.Errorf("%d are missing", goal-got)
		}
		return nil
	})
}

// stop ends the load; every device finishes its message first.
func (l *load) stop(tb testing.TB) {
	tb.Helper()
	l.cancel()
	done := make(chan struct{})
	go func() {
		l.wait.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(2 * patience):
		tb.Error("the senders do not end")
	}
	for _, what := range l.strange {
		tb.Error(what)
	}
	l.strange = nil
}

// check compares what was acknowledged with a log without gaps. sent is how many events there were before the load.
func (l *load) check(tb testing.TB, log []event) {
	tb.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	found := make(map[string]int64)
	for _, ev := range log {
		if ev.Type != "sendMessage" || ev.Message.ID == "" {
			continue
		}
		if before, twice := found[ev.Message.ID]; twice {
			tb.Errorf("message %s is stored as %d and as %d", ev.Message.ID, before, ev.Seq)
		}
		found[ev.Message.ID] = ev.Seq
		if ev.Message.Text != ev.Message.ID {
			tb.Errorf("message %s has the text %q", ev.Message.ID, ev.Message.Text)
		}
	}
	lost := 0
	for id, seq := range l.seqs {
		stored, there := found[id]
		switch {
		case !there:
			lost++
			if lost < 5 {
				tb.Errorf("message %s was acknowledged and is lost", id)
			}
		case seq != 0 && seq != stored:
			tb.Errorf("message %s was acknowledged as %d and is stored as %d", id, seq, stored)
		}
	}
	if lost > 0 {
		tb.Errorf("%d of %d acknowledged messages are lost", lost, len(l.seqs))
	}
	tb.Logf("%d acknowledged, %d stored, %d refused as unavailable, %d without an answer", len(l.seqs), len(found), l.refused.Load(), l.broken.Load())
}

var errNotYet = errors.New("not yet")
