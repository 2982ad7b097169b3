package gateway

import (
	"context"
	"log/slog"
	"time"

	"github.com/parley-im/parley/domain"
)

func (s *shard) store(items []*item) (placements []domain.Placement, err error) {
	batch := make([]domain.Draft, len(items))
	for i, it := range items {
		batch[i] = it.draft
	}
	err = s.retry(items, func(ctx context.Context) (err error) {
		placements, err = s.log.Append(ctx, batch)
		return err
	})
	if err == nil {
		s.g.metrics.observeBatch(len(items))
	}
	return placements, err
}

// retry repeats a commit whose outcome is unknown, with the same arguments, until the newest of the items is older
// than the deadline: what was committed the first time is found by its key.
func (s *shard) retry(items []*item, commit func(context.Context) error) error {
	newest := items[len(items)-1].accepted
	pause := 20 * time.Millisecond
	for {
		begin := s.g.now()
		ctx, cancel := context.WithTimeout(s.g.running, s.g.commitTimeout)
		err := commit(ctx)
		cancel()
		s.g.metrics.commitSeconds.Observe(s.g.now().Sub(begin).Seconds())
		if err == nil || domain.CodeOf(err) != domain.Unavailable {
			return err
		}
		s.g.metrics.commitRetries.Inc()
		if s.g.now().Sub(newest) > s.g.commitDeadline || s.g.running.Err() != nil {
			s.g.logger.Warn("giving up a batch", slog.Int("commands", len(items)), slog.Any("error", err))
			return err
		}
		jitter := time.Duration(s.g.now().UnixNano()%4+6) * pause / 10
		select {
		case <-time.After(jitter):
		case <-s.g.running.Done():
		}
		pause = min(2*pause, time.Second)
	}
}

// fail answers a batch that could not be committed. If one of the batch is to blame, halving finds it, so that only
// it fails.
func (s *shard) fail(items []*item, err error, again func([]*item)) {
	if domain.CodeOf(err) == domain.Unavailable {
		for _, it := range items {
			it.err = err
			if it.stream != nil {
				s.g.resync(it.stream)
			}
		}
		return
	}
	if len(items) == 1 {
		s.g.logger.Error("a command cannot be committed",
			slog.String("command", items[0].command.Name()), slog.Any("error", err))
		items[0].err = err
		return
	}
	again(items[:len(items)/2])
	again(items[len(items)/2:])
}

// reload fetches the heads that stale items need, each once.
func (s *shard) reload(items []*item) {
	outcomes := make(map[*stream]error)
	for _, it := range items {
		err, read := outcomes[it.stream]
		if !read {
			err = s.refresh(it.stream)
			outcomes[it.stream] = err
		}
		it.err = err
	}
}

func (s *shard) refresh(st *stream) error {
	ctx, cancel := context.WithTimeout(s.g.running, s.g.commitTimeout)
	defer cancel()
	head, err := s.g.head(ctx, st.id)
	if err == nil {
		st.advance(head)
	}
	return err
}
