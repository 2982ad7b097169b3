package app

import (
	"context"
	"log/slog"

	"github.com/parley-im/parley/configs"
	"github.com/parley-im/parley/gateway"
	"github.com/parley-im/parley/metrics"
	"github.com/parley-im/parley/persistence"
	"github.com/parley-im/parley/schedule"
)

// buildSchedule makes what sends messages of services later, and starts it.
func buildSchedule(
	ctx context.Context, cfg configs.Config, store *persistence.Store, g *gateway.Gateway, registry *metrics.Registry,
	l *lifecycle, logger *slog.Logger,
) (*schedule.Service, error) {
	s, err := schedule.New(schedule.Options{
		Store: store, Do: g.Do, Consider: g.Consider, Most: cfg.Limits.Scheduled, Logger: logger, Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(running)
	}()
	l.onStop("schedule", stopping(cancel, done))
	return s, nil
}

// stopping ends something by cancel, and waits until it is done or its time is over: the store may not answer.
func stopping(cancel func(), done <-chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
