package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
)

// received is a publication as it arrived.
type received struct {
	topic       string
	payload     []byte
	qos         byte
	retained    bool
	correlation []byte
	identifiers int
}

// box keeps what has arrived until a test takes it. It has no bound: a client must never be slow by accident.
type box struct {
	mu    sync.Mutex
	items []received
	more  chan struct{}
}

func newBox() *box { return &box{more: make(chan struct{}, 1)} }

func (b *box) put(r received) {
	b.mu.Lock()
	b.items = append(b.items, r)
	b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// take waits for the first item that matches and removes it. One goroutine takes at a time.
func (b *box) take(ctx context.Context, match func(received) bool) (received, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		b.mu.Lock()
		for i, r := range b.items {
			if match == nil || match(r) {
				b.items = append(b.items[:i:i], b.items[i+1:]...)
				b.mu.Unlock()
				return r, nil
			}
		}
		n := len(b.items)
		b.mu.Unlock()
		select {
		case <-b.more:
		case <-ctx.Done():
			return received{}, fmt.Errorf("nothing came; %d others did: %w", n, ctx.Err())
		}
	}
}

// rest gives what nobody took.
func (b *box) rest() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]received(nil), b.items...)
}

// unasked is rest without the reminders of what is unread: a login's are counted at some time after it, and who is slow to
// count finds messages that have come since.
func (b *box) unasked() []received {
	return slices.DeleteFunc(b.rest(), func(r received) bool { return bytes.Contains(r.payload, []byte(`"type":"unread"`)) })
}
