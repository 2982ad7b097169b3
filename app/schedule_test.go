package app

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestStoppingKeepsItsTime(t *testing.T) {
	// Sending may wait for a store that does not answer; shutdown.timeout holds for it as well.
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		asked, done := false, make(chan struct{})
		stop := stopping(func() { asked = true }, done)
		began := time.Now()
		if err := stop(ctx); !errors.Is(err, context.DeadlineExceeded) || !asked || time.Since(began) != 30*time.Second {
			t.Errorf("stopped after %v with %v; asked to end: %t", time.Since(began), err, asked)
		}
		close(done)
		if err := stop(t.Context()); err != nil {
			t.Errorf("when it is done: %v", err)
		}
	})
}
