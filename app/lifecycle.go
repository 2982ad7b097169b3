package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
)

// lifecycle remembers how to undo what was built, and does so in the opposite order.
type lifecycle struct {
	logger *slog.Logger

	mu       sync.Mutex
	cleanups []cleanup
}

type cleanup struct {
	name string
	do   func(context.Context) error
}

// onStop registers the undoing of something that now exists.
func (l *lifecycle) onStop(name string, do func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cleanups = append(l.cleanups, cleanup{name, do})
}

// stop runs the cleanups, newest first, all under ctx; one that fails does not keep the others from running. A second
// call finds nothing left to do.
func (l *lifecycle) stop(ctx context.Context) error {
	l.mu.Lock()
	cleanups := l.cleanups
	l.cleanups = nil
	l.mu.Unlock()
	var errs []error
	for _, c := range slices.Backward(cleanups) {
		l.logger.Debug("stopping", slog.String("part", c.name))
		if err := c.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stopping %s: %w", c.name, err))
		}
	}
	return errors.Join(errs...)
}
