package storetest

import (
	"context"
	"fmt"
	mrand "math/rand/v2"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

func sessionsSurviveARestart(t *testing.T, b Backend) {
	// "After any absence" includes absences of the gateway.
	place := b.New(t)
	s := place.Open(t)
	w := NewWorld(t, s, 2)
	log := s.Committers()[0]
	c, d := w.Group(log, 1), w.Group(log, 1)
	id := subscribed(t, s, phone(w, 1, 1000))
	w.texts(log, c, 5)
	w.texts(log, d, 5)
	acknowledged(t, s, id, c, 3)
	must(t, s.Close())
	for i := range 3 {
		s = place.Open(t)
		o := phone(w, 1, int64(2000+i))
		o.Node = fmt.Sprint("run", i)
		must(t, s.Beat(t.Context(), o.Node, o.Now))
		present(t, s, o, id, toAll())
		isBehind(t, s, id, "after a restart", stretch(c, 4, 6), stretch(d, domain.Seq(2+i), 6))
		acknowledged(t, s, id, d, domain.Seq(2+i))
		must(t, s.Close())
	}
}

func sessionsUnderLoad(t *testing.T, b Backend) {
	// All that happens to sessions happens at once, and none of it may fail, or wait in a circle.
	const rounds = 30
	all := worlds(t, b, 3)
	w := all[0]
	var heads []*domain.Conversation
	for range 10 {
		heads = append(heads, w.Group(w.Store.Committers()[0], 1, 2))
	}
	var mu sync.Mutex // guards ids and now
	var ids []domain.SessionID
	now := int64(1000)
	open := func(ctx context.Context, s Store, user, node int) error {
		mu.Lock()
		now++
		o := phone(w, user, now)
		mu.Unlock()
		o.Node, o.Clean = fmt.Sprint(node), mrand.IntN(3) == 0
		stored, err := s.OpenSession(ctx, o)
		if err != nil {
			return err
		}
		mu.Lock()
		ids = append(ids, stored.ID)
		mu.Unlock()
		// The device may have begun another session already.
		if err := s.SaveSubscriptions(ctx, stored.ID, []domain.Subscription{toAll()}, nil, true); err != nil && domain.CodeOf(err) != domain.NotFound {
			return err
		}
		if mrand.IntN(2) == 0 {
			return s.CloseSession(ctx, stored.ID, o.Node, o.Now, o.Now, uint32(mrand.IntN(2)))
		}
		return nil
	}
	save := func(ctx context.Context, s Store, round int) error {
		var positions []domain.Position
		mu.Lock()
		for _, id := range ids[max(0, len(ids)-5):] {
			for _, n := range mrand.Perm(len(heads)) {
				positions = append(positions, domain.Position{Session: id, Conversation: heads[n].ID, Seq: domain.Seq(round)})
			}
		}
		mu.Unlock()
		return s.SavePositions(ctx, positions, nil)
	}
	var wg sync.WaitGroup
	for i, v := range all {
		s := v.Store
		for name, do := range map[string]func(ctx context.Context, round int) error{
			"open":    func(ctx context.Context, _ int) error { return open(ctx, s, 1, i) },
			"other":   func(ctx context.Context, _ int) error { return open(ctx, s, 2, i) },
			"save":    func(ctx context.Context, round int) error { return save(ctx, s, round) },
			"again":   func(ctx context.Context, round int) error { return save(ctx, s, round) },
			"cleanup": func(ctx context.Context, _ int) error { return s.Cleanup(ctx, 1500) },
			"beat": func(ctx context.Context, round int) error {
				return s.Beat(ctx, fmt.Sprint(i), int64(1000+100_000*round))
			},
		} {
			wg.Go(func() {
				for round := range rounds {
					if err := do(t.Context(), round); err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
}
