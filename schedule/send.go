package schedule

import (
	"context"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

const (
	// pace is how often it is looked what is due.
	pace = time.Second
	// taken is how long one gateway may take to send what it took; another one that sends it as well does no harm.
	taken = 15 * time.Second
	// again is after how long something is tried again that could not be carried out just now.
	again = 2 * time.Second
	// dueAtOnce is how much is taken at a time, sendersAtOnce for how many conversations at a time it is sent.
	dueAtOnce     = 64
	sendersAtOnce = 16
)

// Run sends what is due until ctx ends, and the one of each conversation that it has begun by then; the others it took are left to
// other gateways, or to the next start.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.round(ctx)
		}
	}
}

// round sends all that is due now.
func (s *Service) round(ctx context.Context) {
	for ctx.Err() == nil {
		now := s.Now()
		due, err := s.Store.TakeDue(ctx, domain.Millis(now), domain.Millis(now.Add(taken)), dueAtOnce)
		if err != nil {
			if ctx.Err() == nil {
				s.Logger.Warn("looking for what is scheduled", "error", err)
			}
			return
		}
		s.sendAll(ctx, due)
		if len(due) < dueAtOnce {
			return
		}
	}
}

// sendAll sends what is due: in each conversation one after the other, in the order given. After one that has to wait, or when
// ctx ends, the rest of its conversation waits as well: nothing overtakes.
func (s *Service) sendAll(ctx context.Context, due []domain.Scheduled) {
	type target struct {
		conversation domain.ConversationID
		account      domain.AccountID
	}
	var order []target
	by := make(map[target][]*domain.Scheduled)
	for i := range due {
		t := target{account: due[i].Account}
		if c := due[i].Conversation; c != nil {
			t = target{conversation: *c}
		}
		if by[t] == nil {
			order = append(order, t)
		}
		by[t] = append(by[t], &due[i])
	}
	slots := make(chan struct{}, sendersAtOnce)
	var all sync.WaitGroup
	for _, t := range order {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			s.sendInOrder(ctx, by[t])
		})
	}
	all.Wait()
}

func (s *Service) sendInOrder(ctx context.Context, list []*domain.Scheduled) {
	// What was begun is finished, whatever ends meanwhile.
	working := context.WithoutCancel(ctx)
	for i, n := range list {
		if ctx.Err() != nil {
			s.wait(working, list[i:], 0)
			return
		}
		if !s.send(working, n) {
			s.wait(working, list[i:], again)
			return
		}
	}
}

// wait lets what was taken be taken again after a time, also by others: nobody shall wait for this gateway, which may be ending.
func (s *Service) wait(ctx context.Context, list []*domain.Scheduled, after time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, taken)
	defer cancel()
	ids := make([]domain.ScheduledID, len(list))
	for i, n := range list {
		ids[i] = n.ID
	}
	if err := s.Store.DeferScheduled(ctx, ids, domain.Millis(s.Now().Add(after))); err != nil {
		s.Logger.Warn("something scheduled is tried again later", "scheduled", ids[0].String(), "and after it", len(ids)-1, "error", err)
	}
}

// send carries out something that is due, and writes what became of it. False: it has to wait, and nobody knows whether it was
// sent.
func (s *Service) send(ctx context.Context, n *domain.Scheduled) bool {
	ctx, cancel := context.WithTimeout(ctx, taken)
	defer cancel()
	o, err := s.carryOut(ctx, n)
	now := s.Now()
	switch domain.CodeOf(err) {
	case domain.Unavailable, domain.RateLimited:
		s.metrics.retries.Inc()
		return false
	case "":
		s.metrics.finished.WithLabelValues(string(domain.ScheduledSent)).Inc()
		s.metrics.late.Observe(now.Sub(time.UnixMilli(n.At)).Seconds())
	case domain.Internal:
		s.Logger.Error("something scheduled cannot be sent", "scheduled", n.ID.String(), "error", err)
		fallthrough
	default:
		o.Error = domain.AsError(err)
		s.metrics.finished.WithLabelValues(string(domain.ScheduledRefused)).Inc()
	}
	o.Time = domain.Millis(now)
	if err := s.Store.FinishScheduled(ctx, n.ID, o); err != nil {
		// It is taken again after a time, and found to be sent.
		s.Logger.Warn("what became of something scheduled is not written", "scheduled", n.ID.String(), "error", err)
	}
	return true
}

// carryOut runs the command of something scheduled, with the rights that its sender has now.
func (s *Service) carryOut(ctx context.Context, n *domain.Scheduled) (o domain.Outcome, err error) {
	if n.Service < 0 {
		return o, domain.Errorf(domain.AccessDenied, "the service was deleted")
	}
	c, err := n.Command()
	if err != nil {
		return o, err
	}
	p := n.Principal()
	if n.User != 0 {
		r, err := s.Do(ctx, p, &domain.GetUser{UserRef: domain.UserRef{UserID: n.User}})
		switch {
		case err != nil:
			return o, err
		case r.Result.User.Deleted:
			return o, domain.Errorf(domain.UserNotFound, "the user on whose behalf it was to be sent was deleted")
		}
		if err := s.takesPart(ctx, p, n); err != nil {
			return o, err
		}
		p = p.OnBehalfOf(*r.Result.User)
	}
	if a, ok := c.(*domain.Announce); ok {
		a.Remaining = true // they all existed when it was scheduled
	}
	r, err := s.Do(ctx, p, c)
	if err != nil {
		return o, err
	}
	o.Message, o.Seq = r.Message, r.Seq
	if r.Result != nil && r.Result.Announcement != nil {
		o.Announcement = r.Result.Announcement.ID
	}
	return o, nil
}
