package chaos_test

import (
	"context"
	"strings"
	"time"

	"github.com/parley-im/parley/e2e/chaos"
)

// weather makes things fail.
func (s *storm) weather(ctx context.Context, proxies []*chaos.Proxy) {
	r := s.random("weather", 0)
	for pause(ctx, millis(r, 1000, 4000)) {
		switch r.IntN(6) {
		case 0, 1:
			s.restart(ctx, "kill -9 of the gateway", s.proc.Kill9)
		case 2:
			s.restart(ctx, "restart of the gateway", s.proc.Stop)
		case 3, 4:
			if s.pg == nil {
				continue
			}
			s.fault("kill -9 of Postgres")
			begin := time.Now()
			if err := s.pg.Kill9(); err != nil {
				s.t.Error(err)
			}
			pause(ctx, millis(r, 0, 1500))
			if r.IntN(4) == 0 {
				s.outage = chaos.Period{From: begin, To: time.Now()}
				s.restart(ctx, "kill -9 of the gateway without Postgres", s.proc.Kill9)
			}
			if err := s.pg.Restart(context.WithoutCancel(ctx)); err != nil {
				s.t.Error(err)
			}
			s.outage = chaos.Period{From: begin, To: time.Now()}
			s.note("Postgres is back")
		case 5:
			s.fault("all phones lose their network")
			s.breaks.Add(1)
			for _, p := range proxies {
				p.Cut()
			}
		}
	}
}

func (s *storm) unsure(from, to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shaky = append(s.shaky, chaos.Period{From: from, To: to})
}

// restart ends the gateway and starts it again; without a store that takes several attempts.
func (s *storm) restart(ctx context.Context, what string, end func() error) {
	s.fault(what)
	s.breaks.Add(1)
	begin := time.Now()
	if err := end(); err != nil {
		s.t.Error(err)
	}
	if strings.HasPrefix(what, "kill") {
		begin = begin.Add(-flushed)
		if s.outage.To.After(begin) { // nothing was flushed meanwhile either
			begin = s.outage.From.Add(-flushed)
		}
	}
	ctx = context.WithoutCancel(ctx)
	for deadline := time.Now().Add(2 * patience); ; {
		err := s.proc.Start(ctx)
		if err == nil {
			break
		}
		if s.pg != nil && !s.pg.Running() {
			if err := s.pg.Restart(ctx); err != nil {
				s.t.Error(err)
			}
			continue
		}
		if time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
	s.unsure(begin, time.Now())
	s.note("the gateway serves again")
}
