package gateway

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/parley-im/parley/domain"
)

// lane is where sessions that are behind take turns in reading the store. Hundreds at once would leave neither the store nor
// the processors to those who are up to date.
type lane struct {
	places chan struct{}
	// rests: while others queue, a place stays empty for as long as it was used. The more there is to do besides, and the
	// slower the reads thereby, the longer that is.
	rests  bool
	queued atomic.Int64
}

// newLane makes a lane for reads that keep a processor busy.
func newLane() *lane {
	return &lane{places: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), rests: true}
}

// newShortLane makes a lane for short questions.
func newShortLane() *lane { return &lane{places: make(chan struct{}, 2*runtime.GOMAXPROCS(0))} }

// enter waits for a place; leave gives it back.
func (l *lane) enter(ctx context.Context) (leave func(), err error) {
	l.queued.Add(1)
	defer l.queued.Add(-1)
	select {
	case l.places <- struct{}{}:
	case <-ctx.Done():
		return nil, domain.Because(domain.Unavailable, ctx.Err(), "the turn to read the store did not come")
	}
	begin := time.Now()
	return func() {
		free := func() { <-l.places }
		if !l.rests || l.queued.Load() == 0 {
			free()
			return
		}
		time.AfterFunc(time.Since(begin), free)
	}, nil
}
