package gateway

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-im/parley/domain"
)

// lane is where sessions that come back, or are behind, take turns in what they need of the store. Hundreds at once would
// leave neither the store nor the processors to those who are up to date.
type lane struct {
	places chan struct{}
	// rest: while others queue, a place stays empty for so many times as long as it was used. The more there is to do besides,
	// and the slower the turns thereby, the longer that is.
	rest   int
	queued atomic.Int64
}

// newLane makes a lane for what keeps processors busy: it leaves the other half of them alone.
func newLane(rest int) *lane {
	return &lane{places: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), rest: rest}
}

// maxRest bounds how long a place stays empty: a store that hung for a while keeps nobody busy.
const maxRest = 100 * time.Millisecond

// maxTurn bounds for how long a place is kept by somebody who waits for others meanwhile: for a socket, a login service, a
// store that is far away.
const maxTurn = 2 * time.Millisecond

// turn is a place in a lane that is kept until end, or for maxTurn.
type turn struct {
	leave func()
	once  sync.Once
}

// take is enter for those who do not keep a processor busy all the time.
func (l *lane) take(ctx context.Context) (*turn, error) {
	leave, err := l.enter(ctx)
	if err != nil {
		return nil, err
	}
	return newTurn(leave), nil
}

func newTurn(leave func()) *turn {
	t := &turn{leave: leave}
	time.AfterFunc(maxTurn, t.end)
	return t
}

// end gives the place back. Whoever has none has nothing to give back.
func (t *turn) end() {
	if t != nil {
		t.once.Do(t.leave)
	}
}

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
		if l.rest == 0 || l.queued.Load() == 0 {
			free()
			return
		}
		time.AfterFunc(min(time.Duration(l.rest)*time.Since(begin), maxRest), free)
	}, nil
}
