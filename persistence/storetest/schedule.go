package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/parley-im/parley/domain"
)

// Scheduler is what keeps what is to be sent later.
type Scheduler interface {
	Schedule(ctx context.Context, n domain.Scheduled, p domain.Principal, external []domain.ContentID, most int) (stored domain.Scheduled, existing bool, err error)
	Scheduled(ctx context.Context, id domain.ScheduledID) (domain.Scheduled, error)
	ListScheduled(ctx context.Context, q domain.ScheduledQuery) ([]domain.Scheduled, error)
	CancelScheduled(ctx context.Context, id domain.ScheduledID, now int64) (domain.Scheduled, error)
	DueKeeper
}

// DueKeeper is what gives it out when it is due.
type DueKeeper interface {
	TakeDue(ctx context.Context, now, until int64, limit int) ([]domain.Scheduled, error)
	FinishScheduled(ctx context.Context, id domain.ScheduledID, o domain.Outcome) error
	DeferScheduled(ctx context.Context, ids []domain.ScheduledID, until int64) error
}

// scheduled makes a message of a service for a conversation, to be sent at a time.
func (w *World) scheduled(by domain.Principal, c domain.ConversationID, text string, at int64) domain.Scheduled {
	w.tb.Helper()
	m := &domain.SendMessage{Conversation: c}
	m.Text = text
	n := domain.Scheduled{
		ID: domain.ScheduledID(w.NewID()), At: at, Created: w.Now(), State: domain.ScheduledPending, Sender: by.Initiator(),
		Service: by.Service, ServiceName: by.ServiceName, User: by.User, Username: by.Username, Root: by.Root, Account: by.Account,
	}
	must(w.tb, n.Schedule(m))
	return n
}

// plan stores something scheduled.
func (w *World) plan(by domain.Principal, n domain.Scheduled) domain.Scheduled {
	w.tb.Helper()
	stored, existing, err := w.Store.Schedule(w.tb.Context(), n, by, nil, 0)
	must(w.tb, err)
	if existing {
		w.tb.Fatalf("%s exists", n.ID)
	}
	return stored
}

func (w *World) state(id domain.ScheduledID) domain.ScheduledState {
	w.tb.Helper()
	n, err := w.Store.Scheduled(w.tb.Context(), id)
	if domain.CodeOf(err) == domain.NotFound {
		return "forgotten"
	}
	must(w.tb, err)
	return n.State
}

func scheduledMessagesWait(t *testing.T, b Backend) {
	// What a service was told to be scheduled is sent, however often gateways are restarted, and once it was sent its text is
	// where messages are alone.
	place := b.New(t)
	w := NewWorld(t, place.Open(t), 2)
	ctx, by := t.Context(), w.service()
	c := w.Group(w.Store.Committers()[0], 1)
	const at = 2_000_000_000_000
	later := w.scheduled(by, c.ID, "the secret of later", at+5)
	first := w.scheduled(by.OnBehalfOf(w.Users[1]), c.ID, "as a user", at)
	announced := w.scheduled(by, c.ID, "x", at+1)
	announced.Conversation = nil
	must(t, announced.Schedule(w.announcement("told", "", 0)))
	announced.Conversation = nil
	for _, n := range []domain.Scheduled{later, first, announced} {
		w.plan(by, n)
	}
	if due, err := w.Store.TakeDue(ctx, at-1, at+10, 10); err != nil || len(due) != 0 {
		t.Errorf("before its time: %v, %v", due, err)
	}
	must(t, w.Store.Close())
	w = w.On(place.Open(t))

	got, err := w.Store.Scheduled(ctx, later.ID)
	must(t, err)
	want := later
	want.To, want.Message = nil, nil
	equal(t, "as it is kept", got, want)
	command, err := got.Command()
	must(t, err)
	equal(t, "what is to be sent", command.(*domain.SendMessage).Text, "the secret of later")

	due, err := w.Store.TakeDue(ctx, at+1, at+100, 10)
	must(t, err)
	var ids []domain.ScheduledID
	for _, n := range due {
		ids = append(ids, n.ID)
		if n.State != domain.ScheduledSending || n.Service != by.Service {
			t.Errorf("taken: %+v", n)
		}
	}
	equal(t, "what was due, in its order", ids, []domain.ScheduledID{first.ID, announced.ID})
	if again, err := w.Store.TakeDue(ctx, at+99, at+200, 10); err != nil || len(again) != 0 {
		t.Errorf("while taken: %d, %v", len(again), err) // what is due meanwhile does not overtake
	}
	// Who took it may have died.
	again, err := w.Store.TakeDue(ctx, at+100, at+300, 1)
	must(t, err)
	if len(again) != 1 || again[0].ID != first.ID {
		t.Errorf("taken again: %+v", again)
	}
	must(t, w.Store.DeferScheduled(ctx, []domain.ScheduledID{first.ID}, at+150))
	must(t, w.Store.FinishScheduled(ctx, announced.ID, domain.Outcome{Time: at, Announcement: domain.AnnouncementID{7}}))
	if again, err := w.Store.TakeDue(ctx, at+150, at+300, 10); err != nil || len(again) != 2 || again[0].ID != first.ID || again[1].ID != later.ID {
		t.Errorf("after a time: %+v, %v", again, err)
	}
	refusal := domain.Errorf(domain.AccessDenied, "not any more")
	must(t, w.Store.FinishScheduled(ctx, first.ID, domain.Outcome{Time: at, Error: refusal}))
	must(t, w.Store.FinishScheduled(ctx, later.ID, domain.Outcome{Time: at + 200, Message: domain.MessageID{8}, Seq: 5}))
	must(t, w.Store.FinishScheduled(ctx, later.ID, domain.Outcome{Time: at + 300, Error: refusal})) // too late
	got, err = w.Store.Scheduled(ctx, later.ID)
	must(t, err)
	equal(t, "sent", got.Outcome, &domain.Outcome{Time: at + 200, Message: domain.MessageID{8}, Seq: 5})
	if got.State != domain.ScheduledSent || len(got.Body) != 0 || w.state(first.ID) != domain.ScheduledRefused {
		t.Errorf("%+v", got)
	}
	for _, cell := range place.Dump(t) {
		if slices.Contains([]string{"the secret of later"}, string(cell)) {
			t.Error("what was sent is still in the schedule")
		}
	}
	if due, err := w.Store.TakeDue(ctx, at*2, at*3, 10); err != nil || len(due) != 0 {
		t.Errorf("after all was done: %v, %v", due, err)
	}
	week := (7 * 24 * time.Hour).Milliseconds()
	must(t, w.Store.Cleanup(ctx, at+200+week-1))
	equal(t, "a week later", []domain.ScheduledState{w.state(first.ID), w.state(later.ID)}, []domain.ScheduledState{"forgotten", domain.ScheduledSent})
	must(t, w.Store.Cleanup(ctx, at+200+week))
	equal(t, "and a little later", w.state(later.ID), domain.ScheduledState("forgotten"))
}

func scheduledOnce(t *testing.T, b Backend) {
	// Asking twice is asking once, also at the same time and on two nodes, and the limit holds then, too.
	all := worlds(t, b, 2)
	w, by := all[0], all[0].service()
	c := w.Group(w.Store.Committers()[0], 1)
	first := w.plan(by, w.scheduled(by, c.ID, "first", 2_000_000_000_000))
	second := w.scheduled(by, c.ID, "second", 2_000_000_000_001)
	second.ID = first.ID
	got, existing, err := all[len(all)-1].Store.Schedule(t.Context(), second, by, nil, 1)
	must(t, err)
	if !existing || got.At != first.At {
		t.Errorf("again: %+v, %t", got, existing)
	}
	const most = 10
	var wg sync.WaitGroup
	var mu sync.Mutex
	outcomes := make(map[domain.Code]int)
	for i := range 30 {
		wg.Go(func() {
			v := all[i%len(all)]
			_, _, err := v.Store.Schedule(t.Context(), v.scheduled(by, c.ID, "x", 2_000_000_000_000), by, nil, most)
			mu.Lock()
			defer mu.Unlock()
			outcomes[domain.CodeOf(err)]++
		})
	}
	wg.Wait()
	equal(t, "outcomes", outcomes, map[domain.Code]int{"": most - 1, domain.RateLimited: 30 - most + 1})
	// What is done does not count.
	_, err = w.Store.CancelScheduled(t.Context(), first.ID, w.Now())
	must(t, err)
	_, _, err = w.Store.Schedule(t.Context(), w.scheduled(by, c.ID, "y", 2_000_000_000_000), by, nil, most)
	must(t, err)
}

func cancellingMeetsSending(t *testing.T, b Backend) {
	// Whoever is told that a message is cancelled must never see it; and two nodes never get the same one.
	all := worlds(t, b, 2)
	w, by := all[0], all[0].service()
	const at, n = 2_000_000_000_000, 60
	ids := make([]domain.ScheduledID, n)
	for i := range ids {
		c := w.Group(w.Store.Committers()[0], 1) // of one conversation one at a time is given
		ids[i] = w.plan(by, w.scheduled(by, c.ID, "x", at+int64(i))).ID
	}
	var mu sync.Mutex
	sent, cancelled := make(map[domain.ScheduledID]int), make(map[domain.ScheduledID]bool)
	var wg sync.WaitGroup
	for _, v := range all {
		for range 2 {
			wg.Go(func() {
				for range 40 {
					due, err := v.Store.TakeDue(t.Context(), at+n, at+2*n, 2)
					if err != nil && domain.CodeOf(err) != domain.Unavailable {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, d := range due {
						sent[d.ID]++
					}
					mu.Unlock()
				}
			})
		}
		wg.Go(func() {
			for _, id := range slices.Backward(ids) {
				got, err := v.Store.CancelScheduled(t.Context(), id, at)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if got.State == domain.ScheduledCancelled {
					cancelled[id] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if times := sent[id]; times > 1 || (times == 1) == cancelled[id] {
			t.Errorf("%s was given to senders %d times; cancelled: %t, now %s", id, times, cancelled[id], w.state(id))
		}
	}
	if len(sent) == 0 || len(cancelled) == 0 {
		t.Logf("%d sent, %d cancelled: they hardly met", len(sent), len(cancelled))
	}
	_, err := w.Store.CancelScheduled(t.Context(), domain.ScheduledID{1}, at)
	refused(t, "nothing", err, domain.NotFound)
}

func scheduledKeepsItsOrder(t *testing.T, b Backend) {
	// Whatever gateways take at the same time, and whatever has to wait: in a conversation nothing is given to anybody before
	// what was due earlier is done.
	all := worlds(t, b, 2)
	w, by, ctx := all[0], all[0].service(), t.Context()
	c, other := w.Group(w.Store.Committers()[0], 1), w.Group(w.Store.Committers()[0], 1)
	const at, n = 2_000_000_000_000, 40
	ids := make([]domain.ScheduledID, n)
	for i := range ids {
		ids[i] = w.plan(by, w.scheduled(by, c.ID, fmt.Sprint(i), at+int64(i))).ID
	}
	take := func(v *World, now int64, limit int) (got []domain.ScheduledID) {
		t.Helper()
		due, err := v.Store.TakeDue(ctx, now, now+1000, limit)
		must(t, err)
		for i := range due {
			got = append(got, due[i].ID)
		}
		return got
	}
	var now int64 = at + n
	equal(t, "the first", take(w, now, 3), ids[:3])
	elsewhere := w.plan(by, w.scheduled(by, other.ID, "elsewhere", at)).ID
	equal(t, "what others may have meanwhile", take(all[len(all)-1], now, 3), []domain.ScheduledID{elsewhere})
	must(t, w.Store.FinishScheduled(ctx, ids[0], domain.Outcome{Time: now, Seq: 1}))
	must(t, w.Store.DeferScheduled(ctx, ids[1:3], now+50))
	equal(t, "while it waits", take(w, now+49, n), []domain.ScheduledID(nil))
	now += 50
	equal(t, "afterwards", take(w, now, 2), ids[1:3])
	must(t, w.Store.FinishScheduled(ctx, ids[1], domain.Outcome{Time: now, Seq: 2}))
	must(t, w.Store.FinishScheduled(ctx, ids[2], domain.Outcome{Time: now, Seq: 3}))

	done := ids[3:]
	for len(done) > 0 {
		var mu sync.Mutex
		var takers int
		var got []domain.ScheduledID
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				due, err := all[i%len(all)].Store.TakeDue(ctx, now, now+1000, 3)
				if err != nil && domain.CodeOf(err) != domain.Unavailable {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if len(due) > 0 {
					takers++
				}
				for i := range due {
					got = append(got, due[i].ID)
				}
			})
		}
		wg.Wait()
		if takers > 1 || len(got) > len(done) || !slices.Equal(got, done[:len(got)]) {
			t.Fatalf("%d have taken %v of %v", takers, got, done)
		}
		for _, id := range got {
			must(t, w.Store.FinishScheduled(ctx, id, domain.Outcome{Time: now, Seq: 4}))
		}
		done = done[len(got):]
	}
}

func scheduledIsListed(t *testing.T, b Backend) {
	w := NewWorld(t, open(t, b), 2)
	by, ctx := w.service(), t.Context()
	c := w.Group(w.Store.Committers()[0], 1)
	var ids []domain.ScheduledID
	for i := range 7 {
		ids = append(ids, w.plan(by, w.scheduled(by, c.ID, fmt.Sprint(i), 2_000_000_000_000+int64(i/2))).ID)
	}
	_, err := w.Store.CancelScheduled(ctx, ids[3], w.Now())
	must(t, err)
	_, err = w.Store.TakeDue(ctx, 2_000_000_000_000, 3_000_000_000_000, 1)
	must(t, err)
	list := func(q domain.ScheduledQuery) (got []domain.ScheduledID) {
		t.Helper()
		for pages := 0; ; pages++ {
			page, err := w.Store.ListScheduled(ctx, q)
			must(t, err)
			for _, n := range page {
				if len(n.Body) > 0 {
					t.Error("a list has what is to be sent")
				}
				got = append(got, n.ID)
			}
			if len(page) < q.Limit || pages > 9 {
				return got
			}
			q.After, q.AfterID = page[len(page)-1].At, page[len(page)-1].ID
		}
	}
	want := slices.Delete(slices.Clone(ids), 3, 4)
	got := list(domain.ScheduledQuery{Root: by.Root, State: domain.ScheduledPending, Limit: 2})
	slices.SortFunc(got[:2], func(a, b domain.ScheduledID) int { return slices.Index(want, a) - slices.Index(want, b) }) // of the same time
	slices.SortFunc(got[3:5], func(a, b domain.ScheduledID) int { return slices.Index(want, a) - slices.Index(want, b) })
	equal(t, "pending", got, want)
	equal(t, "cancelled", list(domain.ScheduledQuery{Root: by.Root, State: domain.ScheduledCancelled, Limit: 2}), ids[3:4])
	equal(t, "of another tree", len(list(domain.ScheduledQuery{Root: by.Root + 1000, State: domain.ScheduledPending, Limit: 2})), 0)
	if all := list(domain.ScheduledQuery{State: domain.ScheduledPending, Limit: 2}); len(all) != len(want) {
		t.Errorf("of all trees: %v", all)
	}
	// A service that is gone is no reason to lose what it wanted without a word.
	_, _, account := w.Users[0].Username.Parts()
	must(t, w.Store.DeleteService(ctx, account, by.ServiceName))
	due, err := w.Store.TakeDue(ctx, 4_000_000_000_000, 5_000_000_000_000, 10)
	must(t, err)
	for _, n := range due {
		if n.Service >= 0 || n.ServiceName != by.ServiceName {
			t.Errorf("of a deleted service: %+v", n)
		}
	}
	equal(t, "due", len(due), len(want))
}

func scheduledContentStays(t *testing.T, b Backend) {
	// What a scheduled message names must be there when it is sent, weeks later or late; and it must go when it is cancelled.
	w := NewWorld(t, open(t, b), 2)
	ctx, by, log := t.Context(), w.User(0), w.Store.Committers()[0]
	c := w.Group(log, 1)
	at := w.Now() + 1_000_000
	with := func(id domain.ContentID) domain.Scheduled {
		n := w.scheduled(by, c.ID, "with content", at)
		stored, _, err := w.Store.Schedule(ctx, n, by, []domain.ContentID{id}, 0)
		must(t, err)
		return stored
	}
	clean := func() {
		t.Helper()
		for more := true; more; {
			var err error
			more, err = w.Store.SettleUses(ctx, w.Now())
			must(t, err)
		}
		_, _, err := w.Store.RemoveUnused(ctx, w.Now())
		must(t, err)
	}
	stays, late, goes, unused := w.whole(0), w.whole(0), w.whole(0), w.whole(0)
	sent, never, dropped := with(stays), with(late), with(goes)
	clean()
	equal(t, "before it is due", w.there(stays, late, goes, unused), []bool{true, true, true, false})
	_, err := w.Store.CancelScheduled(ctx, dropped.ID, w.Now())
	must(t, err)
	clean()
	equal(t, "after a cancellation", w.there(stays, late, goes), []bool{true, true, false})

	w.clock.Store(at + 5_000_000) // the gateway was away when it was due
	clean()
	equal(t, "long after it was due", w.there(stays, late), []bool{true, true})
	_, err = w.Store.TakeDue(ctx, w.Now(), w.Now()+1000, 10)
	must(t, err)
	d := w.Draft(c, 0, sent.ClientID, "with content")
	d.Event.Message.Parts = []domain.Part{{MimeType: "a/b", Content: stays, Size: 10}}
	seq := w.Send(log, d)[0].Seq
	must(t, w.Store.FinishScheduled(ctx, sent.ID, domain.Outcome{Time: w.Now(), Seq: seq}))
	must(t, w.Store.FinishScheduled(ctx, never.ID, domain.Outcome{Time: w.Now(), Error: domain.Errorf(domain.AccessDenied, "no")}))
	w.clock.Add(100_000)
	clean()
	equal(t, "when it was sent", w.there(stays, late), []bool{true, false})
	_, _, err = w.Store.Schedule(ctx, w.scheduled(by, c.ID, "x", w.Now()+1), by, []domain.ContentID{late}, 0)
	refused(t, "content that is gone", err, domain.NotFound)
}
