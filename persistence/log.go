package persistence

import (
	"context"
	"time"

	"github.com/parley-im/parley/domain"
)

// Log commits events, for one committer. It holds a connection of its own, which it makes when it is first used, and
// anew after it was lost. One goroutine at a time may use it; several Logs, of this process or others, may write to
// the same conversations.
//
// Its methods have committed when they return nil. An error that is unavailable leaves it open whether they have: the
// same arguments may be given again, and do nothing twice. Any other error means that nothing was stored.
type Log struct {
	store   *Store
	session *session
}

// Append stores the drafts of one batch in the given order, in one transaction, and tells for each what became of it.
//
// A draft whose conversation, sender and client id are those of an event that is stored, or of an earlier draft of the
// batch, is Known, also when it was decided on an old version of the head.
func (l *Log) Append(ctx context.Context, batch []domain.Draft) ([]domain.Placement, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	start := time.Now()
	placements, err := l.append(ctx, batch)
	l.store.metrics.observe(opAppend, start, err)
	return placements, refusal(err)
}

func (l *Log) append(ctx context.Context, batch []domain.Draft) ([]domain.Placement, error) {
	b, err := newBatch(batch)
	if err != nil {
		return nil, err
	}
	if l.store.d.sets {
		err = l.session.do(ctx, func(q runner) error { return b.call(ctx, q) })
	} else {
		err = l.session.write(ctx, func(q runner) error { return b.insert(ctx, q) })
	}
	if err != nil {
		return nil, err
	}
	return b.placements(), nil
}

// Change decides the requests in the given order, in one transaction and under the locks of their conversations, and
// stores what was decided. A request that is refused does not disturb the others; a later one sees what an earlier one
// has changed. A request whose key was committed before is not decided again but read back.
func (l *Log) Change(ctx context.Context, batch []domain.ChangeRequest) ([]domain.Changed, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	start := time.Now()
	var changed []domain.Changed
	var err error
	// The same request may have been committing on a connection that was given up. Its key, or the id of what it creates,
	// is found to exist only when it has; the next attempt then finds the request known.
	const attempts = 3
	for n := 1; ; n++ {
		err = l.session.write(ctx, func(q runner) error {
			changed, err = l.store.change(ctx, q, batch)
			return err
		})
		if n == attempts || kindOfError(err) != kindUnique {
			break
		}
	}
	l.store.metrics.observe(opChange, start, err)
	if err != nil {
		return nil, refusal(err)
	}
	return changed, nil
}
