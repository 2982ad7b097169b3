package gateway_test

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/parley-im/parley/domain"
)

// probate keeps wills in memory, as a store does.
type probate struct {
	store *memory

	mu   sync.Mutex
	rows []*testament
	// away makes every call fail; calls counts those that change something, and asked those for what is due.
	away         bool
	calls, asked int
	// lost makes as many calls fail after they have changed something.
	lost int
	// held, if not nil, is where KeepWill waits.
	held *gate
}

// testament is a will with what is known of its end.
type testament struct {
	domain.StoredWill
	end domain.WillEnd
}

func (p *probate) call(f func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return errGone()
	}
	p.calls++
	f()
	if p.lost > 0 {
		p.lost--
		return errGone()
	}
	return nil
}

func (p *probate) row(id domain.WillID) *testament {
	i := slices.IndexFunc(p.rows, func(w *testament) bool { return w.ID == id })
	if i < 0 {
		return nil
	}
	return p.rows[i]
}

func (p *probate) remove(gone func(*testament) bool) (n int) {
	was := len(p.rows)
	p.rows = slices.DeleteFunc(p.rows, gone)
	return was - len(p.rows)
}

func (p *probate) KeepWill(ctx context.Context, w domain.StoredWill, _ int64) error {
	p.mu.Lock()
	held := p.held
	p.mu.Unlock()
	if held != nil {
		if err := held.wait(ctx); err != nil {
			return err
		}
	}
	return p.call(func() {
		if r := p.row(w.ID); r == nil {
			p.rows = append(p.rows, &testament{StoredWill: w})
		} else if r.end.Due == 0 {
			r.StoredWill = w
		}
	})
}

func (p *probate) EndWill(_ context.Context, id domain.WillID, end domain.WillEnd) error {
	return p.call(func() {
		if end.Due == 0 {
			p.remove(func(w *testament) bool { return w.ID == id })
		} else if r := p.row(id); r != nil && r.end.Due == 0 {
			r.end = end
		}
	})
}

func (p *probate) DueWills(_ context.Context, q domain.WillQuery) (due []domain.DueWill, next int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked++; p.away {
		return nil, 0, errGone()
	}
	slices.SortStableFunc(p.rows, func(a, b *testament) int { return cmp.Compare(a.end.Due, b.end.Due) })
	p.remove(func(w *testament) bool {
		if w.end.Due == 0 || q.Node != "" && w.Node != q.Node {
			return false
		}
		if w.end.Due > q.Now || len(due) == q.Limit {
			if next == 0 {
				next = w.end.Due
			}
			return false
		}
		due = append(due, domain.DueWill{Principal: p.principal(w), Will: w.Will, Forgiving: w.end.Forgiving})
		return true
	})
	return due, next, nil
}

func (p *probate) principal(w *testament) domain.Principal {
	if w.Principal.IsBackend() {
		s := service(1)
		s.Device = w.Principal.Device
		return s
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	u, ok := p.store.users[w.Principal.User]
	if !ok || u.Deleted {
		return domain.Principal{}
	}
	now := u.Principal(w.Principal.Device)
	now.Login = w.Principal.Login
	return now
}

// settle deals with the wills of a device that has come back.
func (p *probate) settle(o domain.SessionOpening, stored *domain.StoredSession) {
	p.mu.Lock()
	defer p.mu.Unlock()
	earlier := func(w *testament) bool {
		return w.Principal.User == o.User && w.Principal.Device == o.Device && w.Opened < o.Now
	}
	stored.WillsCancelled = p.remove(func(w *testament) bool {
		return earlier(w) && (w.end.Forgiving || w.Will.Delay > 0 && stored.Present)
	})
	for _, w := range p.rows {
		if earlier(w) {
			stored.WillsDue = true
			if w.end.Due == 0 || w.end.Due > o.Now {
				w.end.Due = o.Now
			}
		}
	}
}

// lose makes the wills of a node's sessions due, as when the node is dead.
func (p *probate) lose(now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.rows {
		if w.end.Due == 0 {
			w.end.Due = now + int64(w.Will.Delay)*1000
		}
	}
}

// kept gives how many wills there are.
func (p *probate) kept() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.rows)
}

// set changes how the store behaves.
func (p *probate) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}
