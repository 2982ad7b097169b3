package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/parley-im/parley/configs"
)

func TestRestartInGoodOrderForgetsNoAcknowledgement(t *testing.T) {
	// An update of the gateway ends all sessions at once. What all phones acknowledged in the last second must be
	// written all the same, and quickly, or they all get it again when they come back together.
	onBothStores(t, func(t *testing.T, s store) {
		const phones = 200
		url := s.empty(t)
		crowd := func(c *configs.Config) { c.Limits.SessionsPerUser = 0 }
		g := start(t, url, crowd)
		w := newWorld(t, g)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		list := make([]*phone, phones)
		var group errgroup.Group
		group.SetLimit(16)
		for i := range list {
			group.Go(func() error {
				list[i] = w.phone(t, users[i%2], lasting(5, fmt.Sprint("phone-", i)))
				list[i].follow(t, 1, allEvents)
				return nil
			})
		}
		_ = group.Wait()
		if t.Failed() {
			t.FailNow()
		}
		last := w.sayVia(t, w.as(t, users[0]), c, 3)
		for _, p := range list {
			p.want(t, c, 2, last)
			p.settled(t)
		}
		begin := time.Now()
		if err := g.stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
		t.Logf("stopped in %v", time.Since(begin).Round(time.Millisecond))
		g = start(t, url, crowd)
		w.gateway = g
		w.service = g.api(w.service.token)
		for i := range list {
			group.Go(func() error {
				list[i] = g.phone(t, users[i%2], lasting(5, fmt.Sprint("phone-", i)))
				if !list[i].Present {
					t.Error("a session is gone")
				}
				return nil
			})
		}
		_ = group.Wait()
		if t.Failed() {
			t.FailNow()
		}
		next := w.sayVia(t, w.as(t, users[0]), c, 1)
		for _, p := range list {
			p.want(t, c, next, next)
		}
	})
}
