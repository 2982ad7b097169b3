package gateway

import (
	"context"
	"sync/atomic"

	"github.com/parley-im/parley/domain"
)

// slots lets only so many do something at a time. The others wait in order of arrival; beyond a number of them
// newcomers are refused, so that a storm of logins takes neither the memory nor the patience of those that wait
// already.
type slots struct {
	free    chan struct{}
	waiting atomic.Int64
	most    int64
}

func newSlots(parallel, queue int) *slots {
	return &slots{free: make(chan struct{}, parallel), most: int64(queue)}
}

// enter waits for a slot and returns what gives it back. Its errors are rate-limited (too many wait) and unavailable
// (ctx ended first, for instance because the client has gone).
func (s *slots) enter(ctx context.Context) (leave func(), err error) {
	leave = func() { <-s.free }
	select {
	case s.free <- struct{}{}:
		return leave, nil
	default:
	}
	if s.waiting.Add(1) > s.most {
		s.waiting.Add(-1)
		return nil, domain.Errorf(domain.RateLimited, "too many logins at a time")
	}
	defer s.waiting.Add(-1)
	select {
	case s.free <- struct{}{}:
		if ctx.Err() == nil {
			return leave, nil
		}
		leave() // both had come: the slot is for those who still want it
	case <-ctx.Done():
	}
	return nil, domain.Because(domain.Unavailable, ctx.Err(), "the login took too long")
}
