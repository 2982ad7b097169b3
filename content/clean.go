package content

import (
	"context"
	"time"

	"github.com/parley-im/parley/domain"
)

const (
	// unsettled is how long a message may take from naming content to being stored.
	unsettled = time.Hour
	// removing is how long one gateway may take to remove the pieces that it took.
	removing = 5 * time.Minute
)

// Keep removes what is no longer needed, now and then, until ctx ends.
func (s *Service) Keep(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.Clean(ctx); err != nil && ctx.Err() == nil {
				s.metrics.failures.Inc()
				s.Logger.Warn("removing content", "error", err)
			}
		}
	}
}

// Clean removes content that no message has had for [Options.Unused], uploads that have not gone on for as long, what
// belonged to removed messages, and pieces that belong to nothing. Any number of gateways may do so at once.
func (s *Service) Clean(ctx context.Context) error {
	now := s.Now()
	for more := true; more; {
		var err error
		if more, err = s.Store.SettleUses(ctx, domain.Millis(now.Add(-unsettled))); err != nil {
			return err
		}
	}
	for more := true; more; {
		removed, again, err := s.Store.RemoveUnused(ctx, domain.Millis(now.Add(-s.Unused)))
		if err != nil {
			return err
		}
		s.metrics.removed.Add(float64(removed))
		more = again
	}
	for {
		keys, err := s.Store.TakeDoomed(ctx, domain.Millis(now), domain.Millis(now.Add(removing)))
		if err != nil || len(keys) == 0 {
			return err
		}
		for _, key := range keys {
			if err := s.Blobs.Remove(ctx, key); err != nil {
				return err
			}
		}
		if err := s.Store.ForgetBlobs(ctx, keys); err != nil {
			return err
		}
	}
}
