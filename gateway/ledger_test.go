package gateway_test

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

// ledger keeps durable sessions in memory, as a store does; only that none ever expires.
type ledger struct {
	store *memory
	wills *probate // nil: there are none

	mu    sync.Mutex
	rows  []*kept
	marks map[place]domain.Seq

	faults sync.Mutex
	// before and after run around every call, outside of mu. They may block, and fail the call.
	before, after func(ctx context.Context) error
}

// kept is a session in the ledger.
type kept struct {
	id        domain.SessionID
	user      domain.UserID
	device    string
	subs      []domain.Subscription
	positions map[domain.ConversationID]domain.Seq
	node      string
	opened    int64
}

// place is a user's place in a conversation.
type place struct {
	user         domain.UserID
	conversation domain.ConversationID
}

func newLedger(store *memory) *ledger {
	return &ledger{store: store, marks: make(map[place]domain.Seq)}
}

func (k *kept) covers(c domain.ConversationID) bool {
	return slices.ContainsFunc(k.subs, func(s domain.Subscription) bool {
		f, ok := domain.ParseFilter(s.Filter)
		return ok && f.Kind == domain.EventsTopic && (f.Conversation.IsZero() || f.Conversation == c)
	})
}

// call runs f with the faults around it.
func (l *ledger) call(ctx context.Context, f func() error) error {
	l.faults.Lock()
	before, after := l.before, l.after
	l.faults.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return errGone()
	}
	l.mu.Lock()
	err := f()
	l.mu.Unlock()
	if err == nil && after != nil {
		err = after(ctx)
	}
	return err
}

func (l *ledger) set(before, after func(ctx context.Context) error) {
	l.faults.Lock()
	defer l.faults.Unlock()
	l.before, l.after = before, after
}

// position gives how far the ledger knows a device to be; 0: it does not say.
func (l *ledger) position(user domain.UserID, device string, c domain.ConversationID) domain.Seq {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.rows {
		if k.user == user && k.device == device {
			return k.positions[c]
		}
	}
	return 0
}

// row gives a session. The caller holds mu.
func (l *ledger) row(id domain.SessionID) *kept {
	i := slices.IndexFunc(l.rows, func(k *kept) bool { return k.id == id })
	if i < 0 {
		return nil
	}
	return l.rows[i]
}

func (l *ledger) OpenSession(ctx context.Context, o domain.SessionOpening) (stored domain.StoredSession, err error) {
	err = l.call(ctx, func() error {
		i := slices.IndexFunc(l.rows, func(k *kept) bool { return k.user == o.User && k.device == o.Device })
		if i >= 0 && !o.Clean {
			k := l.rows[i]
			k.node, k.opened = o.Node, o.Now
			stored = domain.StoredSession{ID: k.id, Present: true, Subscriptions: slices.Clone(k.subs)}
			return nil
		}
		if i >= 0 {
			l.rows = slices.Delete(l.rows, i, i+1)
		}
		if stored = (domain.StoredSession{}); o.Expiry > 0 {
			stored.ID = domain.SessionID(len(l.rows) + 1)
			l.rows = append(l.rows, &kept{
				id: stored.ID, user: o.User, device: o.Device, node: o.Node, opened: o.Now,
				positions: make(map[domain.ConversationID]domain.Seq),
			})
		}
		return nil
	})
	if l.wills != nil && err == nil {
		l.wills.settle(o, &stored)
	}
	return stored, err
}

func (l *ledger) SaveSubscriptions(
	ctx context.Context, id domain.SessionID, subs []domain.Subscription, start []domain.ConversationID, all bool,
) error {
	return l.call(ctx, func() error {
		k := l.row(id)
		if k == nil {
			return domain.Errorf(domain.NotFound, "no session")
		}
		had := kept{subs: k.subs}
		k.subs = slices.Clone(subs)
		for _, c := range l.store.conversationsOf(k.user) {
			switch {
			case !k.covers(c):
				delete(k.positions, c)
			case !had.covers(c) && (all || slices.Contains(start, c)):
				k.positions[c] = max(k.positions[c], l.store.last(c))
			}
		}
		return nil
	})
}

func (l *ledger) Behind(
	ctx context.Context, id domain.SessionID, after domain.ConversationID, limit int,
) (list []domain.Stretch, err error) {
	err = l.call(ctx, func() error {
		list = nil
		k := l.row(id)
		if k == nil {
			return nil
		}
		for _, c := range l.store.conversationsOf(k.user) {
			if bytes.Compare(c[:], after[:]) <= 0 || !k.covers(c) {
				continue
			}
			if len(list) >= limit {
				return nil
			}
			times, blind := l.store.standing(c, k.user)
			for _, in := range times {
				to := in.To
				if to == 0 {
					to = l.store.last(c)
				}
				if from := max(in.From, k.positions[c]+1); from <= to {
					list = append(list, domain.Stretch{Conversation: c, From: from, To: to, Withheld: blind})
				}
			}
		}
		return nil
	})
	return list, err
}

func (l *ledger) SavePositions(ctx context.Context, positions []domain.Position, marks []domain.Mark) error {
	return l.call(ctx, func() error {
		for _, p := range positions {
			if k := l.row(p.Session); k != nil {
				k.positions[p.Conversation] = max(k.positions[p.Conversation], p.Seq)
			}
		}
		for _, m := range marks {
			at := place{m.User, m.Conversation}
			l.marks[at] = max(l.marks[at], m.Seq)
		}
		return nil
	})
}

func (l *ledger) CloseSession(ctx context.Context, id domain.SessionID, node string, since, _ int64, expiry uint32) error {
	return l.call(ctx, func() error {
		k := l.row(id)
		if k == nil || k.node != node || k.opened != since {
			return nil
		}
		if k.node = ""; expiry == 0 {
			l.rows = slices.DeleteFunc(l.rows, func(o *kept) bool { return o == k })
		}
		return nil
	})
}

func (l *ledger) Beat(ctx context.Context, _ string, _ int64) error {
	return l.call(ctx, func() error { return nil })
}

// conversationsOf gives what a user takes or took part in, in order.
func (m *memory) conversationsOf(u domain.UserID) []domain.ConversationID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []domain.ConversationID
	for id, r := range m.records {
		if len(r.intervals[u]) > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b domain.ConversationID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// wire is what a gateway has of the store. When it is cut, as by a crash of the gateway, nothing of what the gateway does
// reaches the store any more.
type wire struct {
	store  *memory
	ledger *ledger
	cut    atomic.Bool
}

var _ interface {
	gateway.Log
	gateway.History
	gateway.Sessions
} = (*wire)(nil)

func over[T any](w *wire, call func() (T, error)) (T, error) {
	var none T
	if w.cut.Load() {
		return none, errGone()
	}
	v, err := call()
	if w.cut.Load() {
		return none, errGone()
	}
	return v, err
}

func just(w *wire, call func() error) error {
	_, err := over(w, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

func (w *wire) Append(ctx context.Context, batch []domain.Draft) ([]domain.Placement, error) {
	return over(w, func() ([]domain.Placement, error) { return w.store.Append(ctx, batch) })
}

func (w *wire) Change(ctx context.Context, batch []domain.ChangeRequest) ([]domain.Changed, error) {
	return over(w, func() ([]domain.Changed, error) { return w.store.Change(ctx, batch) })
}

func (w *wire) Heads(ctx context.Context, p domain.Principal, n domain.Needs) (*domain.Heads, error) {
	return over(w, func() (*domain.Heads, error) { return w.store.Heads(ctx, p, n) })
}

func (w *wire) Events(ctx context.Context, c domain.ConversationID, after, upto domain.Seq) ([]*domain.Event, error) {
	return over(w, func() ([]*domain.Event, error) { return w.store.Events(ctx, c, after, upto) })
}

func (w *wire) OpenSession(ctx context.Context, o domain.SessionOpening) (domain.StoredSession, error) {
	return over(w, func() (domain.StoredSession, error) { return w.ledger.OpenSession(ctx, o) })
}

func (w *wire) SaveSubscriptions(
	ctx context.Context, id domain.SessionID, subs []domain.Subscription, start []domain.ConversationID, all bool,
) error {
	return just(w, func() error { return w.ledger.SaveSubscriptions(ctx, id, subs, start, all) })
}

func (w *wire) Behind(
	ctx context.Context, id domain.SessionID, after domain.ConversationID, limit int,
) ([]domain.Stretch, error) {
	return over(w, func() ([]domain.Stretch, error) { return w.ledger.Behind(ctx, id, after, limit) })
}

func (w *wire) SavePositions(ctx context.Context, positions []domain.Position, marks []domain.Mark) error {
	return just(w, func() error { return w.ledger.SavePositions(ctx, positions, marks) })
}

func (w *wire) CloseSession(ctx context.Context, id domain.SessionID, node string, since, now int64, expiry uint32) error {
	return just(w, func() error { return w.ledger.CloseSession(ctx, id, node, since, now, expiry) })
}

func (w *wire) Beat(ctx context.Context, node string, now int64) error {
	return just(w, func() error { return w.ledger.Beat(ctx, node, now) })
}
