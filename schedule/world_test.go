package schedule_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/schedule"
)

// shelf is a store in memory that several services may share, as several gateways share one.
type shelf struct {
	mu      sync.Mutex
	rows    map[domain.ScheduledID]*row
	away    bool
	unwrite int // how many outcomes fail to be written from now on
	most    int // the most that was taken at once
}

type row struct {
	domain.Scheduled
	until int64
	taken int
}

func errGone() error { return domain.Errorf(domain.Unavailable, "the store is gone") }

func newShelf() *shelf { return &shelf{rows: make(map[domain.ScheduledID]*row)} }

// Schedule implements schedule.Store.
func (s *shelf) Schedule(
	_ context.Context, n domain.Scheduled, _ domain.Principal, external []domain.ContentID, most int,
) (domain.Scheduled, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rows[n.ID]; r != nil {
		return r.Scheduled, true, nil
	}
	if most > 0 && len(s.rows) >= most {
		return n, false, domain.Errorf(domain.RateLimited, "too many")
	}
	if len(external) > 0 && external[0][0] == 'f' {
		return n, false, domain.Errorf(domain.NotFound, "no such content")
	}
	n.To, n.Message = nil, nil
	s.rows[n.ID] = &row{Scheduled: n}
	return n, false, nil
}

// Scheduled implements schedule.Store.
func (s *shelf) Scheduled(_ context.Context, id domain.ScheduledID) (domain.Scheduled, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rows[id]; r != nil {
		return r.Scheduled, nil
	}
	return domain.Scheduled{}, domain.Errorf(domain.NotFound, "nothing")
}

// ListScheduled implements schedule.Store.
func (s *shelf) ListScheduled(_ context.Context, q domain.ScheduledQuery) (list []domain.Scheduled, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rows {
		if (q.Root == 0 || q.Root == r.Root) && q.State == r.State {
			list = append(list, r.Scheduled)
		}
	}
	return list, nil
}

// CancelScheduled implements schedule.Store.
func (s *shelf) CancelScheduled(_ context.Context, id domain.ScheduledID, now int64) (domain.Scheduled, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rows[id]
	if r == nil {
		return domain.Scheduled{}, domain.Errorf(domain.NotFound, "nothing")
	}
	if r.State == domain.ScheduledPending {
		r.State, r.Outcome = domain.ScheduledCancelled, &domain.Outcome{Time: now}
	}
	return r.Scheduled, nil
}

// TakeDue implements schedule.Due.
func (s *shelf) TakeDue(_ context.Context, now, until int64, limit int) (due []domain.Scheduled, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, errGone()
	}
	for _, r := range s.rows {
		if unsent(r) && r.At <= now && r.until <= now && !s.holds(r.Conversation, now) {
			due = append(due, r.Scheduled)
		}
	}
	slices.SortFunc(due, func(a, b domain.Scheduled) int { return cmp.Compare(a.At, b.At) })
	due = due[:min(len(due), limit)]
	for _, n := range due {
		r := s.rows[n.ID]
		r.State, r.until = domain.ScheduledSending, until
		r.taken++
	}
	s.most = max(s.most, len(due))
	return due, nil
}

func unsent(r *row) bool {
	return r.State == domain.ScheduledPending || r.State == domain.ScheduledSending
}

// holds reports whether somebody has something of the conversation. The caller holds mu.
func (s *shelf) holds(c *domain.ConversationID, now int64) bool {
	for _, r := range s.rows {
		if c != nil && r.Conversation != nil && *r.Conversation == *c && unsent(r) && r.until > now {
			return true
		}
	}
	return false
}

// FinishScheduled implements schedule.Due.
func (s *shelf) FinishScheduled(_ context.Context, id domain.ScheduledID, o domain.Outcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unwrite > 0 {
		s.unwrite--
		return errGone()
	}
	r := s.rows[id]
	if r.State = domain.ScheduledSent; o.Error != nil {
		r.State = domain.ScheduledRefused
	}
	r.Outcome, r.Body = &o, nil
	return nil
}

// DeferScheduled implements schedule.Due.
func (s *shelf) DeferScheduled(_ context.Context, ids []domain.ScheduledID, until int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.rows[id].until = until
	}
	return nil
}

func (s *shelf) get(id domain.ScheduledID) row {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.rows[id]
}

// post is what carries commands out: it knows a message again by its id, as a store does.
type post struct {
	mu      sync.Mutex
	sent    []sent
	known   map[string]domain.Seq
	tries   int
	refuse  func(try int) error // nil: nothing is refused
	after   func(try int) error // the same, but it was carried out
	forbids error               // what Consider says
	gone    bool                // the user is deleted
	left    bool                // the user takes no part
	delay   time.Duration
	at      []time.Time // what was asked by Consider
}

type sent struct {
	by   domain.Principal
	text string
	id   string
	at   time.Time
	to   int
}

// Do is what schedule.Options want.
func (p *post) Do(_ context.Context, who domain.Principal, c domain.Command) (domain.Receipt, error) {
	switch c := c.(type) {
	case *domain.GetUser:
		p.mu.Lock()
		defer p.mu.Unlock()
		return domain.Receipt{Result: &domain.Result{User: &domain.User{ID: 5, Username: "bob@chat.acme", Root: 1, Account: 2, Deleted: p.gone}}}, nil
	case *domain.GetConversation:
		p.mu.Lock()
		defer p.mu.Unlock()
		conv := &domain.Conversation{ID: c.UUID, Root: 1, Account: 3}
		if !p.left {
			conv.Participants = []domain.Participant{{UserID: 5}}
		}
		return domain.Receipt{Result: &domain.Result{Conversation: conv}}, nil
	case *domain.SendMessage:
		return p.send(who, c.Conversation.String()+c.ClientID, sent{by: who, text: c.Text, id: c.ClientID})
	case *domain.Announce:
		if !c.Remaining {
			return domain.Receipt{}, domain.Errorf(domain.UserNotFound, "one of them is gone")
		}
		r, err := p.send(who, c.ClientID, sent{by: who, text: c.Text, id: c.ClientID, to: len(c.To)})
		r.Result, r.Message = &domain.Result{Announcement: &domain.Announcement{ID: domain.AnnouncementID{9}}}, domain.MessageID{}
		return r, err
	}
	return domain.Receipt{}, fmt.Errorf("unexpected %s", c.Name())
}

func (p *post) send(_ domain.Principal, key string, s sent) (domain.Receipt, error) {
	if p.delay > 0 {
		<-time.After(p.delay)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries++
	if p.refuse != nil {
		if err := p.refuse(p.tries); err != nil {
			return domain.Receipt{}, err
		}
	}
	seq, again := p.known[key]
	if !again {
		seq = domain.Seq(len(p.sent) + 1)
		s.at = time.Now()
		p.sent, p.known[key] = append(p.sent, s), seq
	}
	if p.after != nil {
		if err := p.after(p.tries); err != nil {
			return domain.Receipt{}, err
		}
	}
	return domain.Receipt{Seq: seq, Message: domain.MessageID{15: byte(seq)}, Duplicate: again}, nil
}

// Consider is what schedule.Options want.
func (p *post) Consider(_ context.Context, _ domain.Principal, _ domain.Command, at time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = append(p.at, at)
	return p.forbids
}

func (p *post) texts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	texts := []string{}
	for _, s := range p.sent {
		texts = append(texts, s.text)
	}
	return texts
}

func newPost() *post { return &post{known: make(map[string]domain.Seq)} }

// begin starts a service in the bubble of the test; the function ends it.
func begin(t *testing.T, store *shelf, p *post) (*schedule.Service, func()) {
	t.Helper()
	s, err := schedule.New(schedule.Options{Store: store, Do: p.Do, Consider: p.Consider, Most: 1000})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	end := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(end)
	return s, end
}

func billing() domain.Principal {
	return domain.Principal{Service: 7, ServiceName: "billing", Root: 1, Account: 1}
}

func in(d time.Duration) int64 { return domain.Millis(time.Now().Add(d)) }

func message(text, id string) *domain.SendMessage {
	m := &domain.SendMessage{Conversation: domain.ConversationID{1}}
	m.Text, m.ClientID = text, id
	return m
}

func plan(t *testing.T, s *schedule.Service, p domain.Principal, c domain.Command, at int64) domain.Scheduled {
	t.Helper()
	n, err := s.Schedule(t.Context(), p, c, at)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
