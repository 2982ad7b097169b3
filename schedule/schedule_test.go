package schedule_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/metrics/metricstest"
	"github.com/parley-im/parley/schedule"
)

func TestMessagesAreSentAtTheirTime(t *testing.T) {
	// Not before, at most about a second after, once, and as whom it was asked for.
	synctest.Test(t, func(t *testing.T) {
		store, p := newShelf(), newPost()
		s, _ := begin(t, store, p)
		began := time.Now()
		late := plan(t, s, billing(), message("late", ""), in(30*24*time.Hour))
		asBob := billing().OnBehalfOf(domain.User{ID: 5, Username: "bob@chat.acme", Root: 1, Account: 2})
		soon := plan(t, s, asBob, message("soon", "own"), in(90*time.Second))
		a := &domain.Announce{}
		a.Text, a.To = "told", make(domain.List[domain.Named], 3)
		told := plan(t, s, billing(), a, in(2*time.Minute))
		if soon.Sender.UserID != 5 || late.Sender.Service != "billing" || soon.Message.Text != "soon" || len(told.To) != 3 {
			t.Errorf("scheduled: %+v, %+v, %+v", late, soon, told)
		}
		pass(89 * time.Second)
		if got := p.texts(); len(got) != 0 {
			t.Fatalf("sent before its time: %v", got)
		}
		pass(10 * time.Minute)
		pass(30 * 24 * time.Hour)
		if got := p.texts(); !slices.Equal(got, []string{"soon", "told", "late"}) {
			t.Fatalf("sent %v", got)
		}
		for i, due := range []time.Duration{90 * time.Second, 2 * time.Minute, 30 * 24 * time.Hour} {
			if delay := p.sent[i].at.Sub(began.Add(due)); delay < 0 || delay > time.Second {
				t.Errorf("%s was sent %v after its time", p.sent[i].text, delay)
			}
		}
		if by := p.sent[0].by; by.User != 5 || by.Service != 7 || by.Account != 2 || p.sent[0].id != "own" {
			t.Errorf("on behalf of a user: %+v", p.sent[0])
		}
		if by := p.sent[2].by; by != billing() || p.sent[2].id != late.ID.String() {
			t.Errorf("by itself: %+v", p.sent[2])
		}
		if n := store.get(soon.ID); n.State != domain.ScheduledSent || n.Outcome.Seq != 1 || n.Outcome.Message.IsZero() || n.taken != 1 {
			t.Errorf("%+v", n)
		}
		if n := store.get(told.ID); n.Outcome.Announcement.IsZero() || !n.Outcome.Message.IsZero() {
			t.Errorf("%+v", n.Outcome)
		}
		if asked := p.at[0]; !asked.Equal(began.Add(30 * 24 * time.Hour)) {
			t.Errorf("it was considered for %v", asked)
		}
	})
}

func TestWhatCannotBeSentIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, p := newShelf(), newPost()
		s, _ := begin(t, store, p)
		user := domain.Principal{User: 5, Username: "bob@chat.acme", Root: 1, Account: 1}
		transient := message("x", "")
		transient.Options = &domain.Options{Transient: true}
		will := message("x", "")
		will.Options = &domain.Options{Will: true}
		gone := message("x", "")
		gone.Parts = []domain.Part{{MimeType: "a/b", Content: "ffffffffffffffffffffffffffffffff"}}
		for what, tc := range map[string]struct {
			p    domain.Principal
			c    domain.Command
			at   int64
			want domain.Code
		}{
			"by a user":            {user, message("x", ""), in(time.Minute), domain.AccessDenied},
			"by nobody":            {domain.Principal{}, message("x", ""), in(time.Minute), domain.AccessDenied},
			"in the past":          {billing(), message("x", ""), in(-time.Second), domain.InvalidRequest},
			"now":                  {billing(), message("x", ""), in(0), domain.InvalidRequest},
			"long ago, by its id":  {billing(), message("x", "own"), 1, domain.InvalidRequest},
			"too far ahead":        {billing(), message("x", ""), in(30*24*time.Hour) + 1, domain.InvalidRequest},
			"transient":            {billing(), transient, in(time.Minute), domain.InvalidRequest},
			"a will":               {billing(), will, in(time.Minute), domain.InvalidRequest},
			"content that is gone": {billing(), gone, in(time.Minute), domain.NotFound},
		} {
			if _, err := s.Schedule(t.Context(), tc.p, tc.c, tc.at); domain.CodeOf(err) != tc.want {
				t.Errorf("%s: %v", what, err)
			}
		}
		p.forbids = domain.Errorf(domain.ConversationNotFound, "no such conversation")
		if _, err := s.Schedule(t.Context(), billing(), message("x", ""), in(time.Minute)); domain.CodeOf(err) != domain.ConversationNotFound {
			t.Errorf("what the rules refuse: %v", err)
		}
		if len(store.rows) != 0 {
			t.Errorf("%d are scheduled", len(store.rows))
		}
	})
}

func TestAskingTwiceIsAskingOnce(t *testing.T) {
	// Also when the first one is due, or sent, when the second comes.
	synctest.Test(t, func(t *testing.T) {
		store, p := newShelf(), newPost()
		s, _ := begin(t, store, p)
		at := in(time.Minute)
		first := plan(t, s, billing(), message("first", "own"), at)
		again := plan(t, s, billing(), message("again", "own"), in(time.Hour))
		if again.ID != first.ID || again.At != at || again.Message.Text != "first" {
			t.Errorf("again: %+v", again)
		}
		pass(2 * time.Minute)
		if again = plan(t, s, billing(), message("again", "own"), at); again.ID != first.ID || again.State != domain.ScheduledSent {
			t.Errorf("when it was sent: %+v", again)
		}
		other := billing()
		other.Service, other.Root = 8, 2
		if n, err := s.Schedule(t.Context(), other, message("x", "own"), at); domain.CodeOf(err) != domain.InvalidRequest {
			t.Errorf("another service gets %+v, %v", n, err)
		}
		if got := p.texts(); !slices.Equal(got, []string{"first"}) {
			t.Errorf("sent %v", got)
		}
	})
}

func TestOneMessageWhateverIsKilled(t *testing.T) {
	// A gateway dies, or loses the store, at each point of sending: another one goes on, and there is one message.
	for what, hinder := range map[string]func(*shelf, *post){
		"before it is sent": func(_ *shelf, p *post) {
			p.refuse = func(try int) error {
				if try < 3 {
					return errGone()
				}
				return nil
			}
		},
		"the outcome is unknown": func(_ *shelf, p *post) {
			p.after = func(try int) error {
				if try < 3 {
					return errGone()
				}
				return nil
			}
		},
		"it was sent and that is not written": func(s *shelf, _ *post) { s.unwrite = 2 },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, p := newShelf(), newPost()
				s, _ := begin(t, store, p)
				begin(t, store, p) // another gateway
				n := plan(t, s, billing(), message("once", ""), in(time.Minute))
				store.mu.Lock()
				p.mu.Lock()
				hinder(store, p)
				p.mu.Unlock()
				store.mu.Unlock()
				pass(3 * time.Minute)
				got := store.get(n.ID)
				if texts := p.texts(); len(texts) != 1 || got.State != domain.ScheduledSent || got.Outcome.Seq != 1 || got.taken != 3 {
					t.Errorf("sent %v; %+v, taken %d times", texts, got.Scheduled, got.taken)
				}
			})
		})
	}
}

func TestAnOutageDelaysAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, p := newShelf(), newPost()
		s, end := begin(t, store, p)
		for i := range 200 {
			m := message(fmt.Sprintf("%03d", i), "")
			plan(t, s, billing(), m, in(time.Minute)+int64(i))
		}
		end() // the gateway stops
		pass(24 * time.Hour)
		begin(t, store, p)
		store.mu.Lock()
		store.away = true // and the store is not there when it is back
		store.mu.Unlock()
		pass(time.Minute)
		store.mu.Lock()
		store.away = false
		store.mu.Unlock()
		pass(2 * time.Second)
		got := p.texts()
		if len(got) != 200 || !slices.IsSorted(got) {
			t.Errorf("%d messages, in their order: %t", len(got), slices.IsSorted(got))
		}
		if store.most > 64 {
			t.Errorf("%d were in memory at once", store.most)
		}
	})
}

func TestNothingOvertakesWhatHasToWait(t *testing.T) {
	// Neither what was taken with it, nor what is due while it waits; and another conversation does not wait.
	synctest.Test(t, func(t *testing.T) {
		store, p := newShelf(), newPost()
		p.refuse = func(try int) error {
			if try == 1 {
				return errGone()
			}
			return nil
		}
		s, _ := begin(t, store, p)
		for i, text := range []string{"a", "b", "c", "d"} {
			plan(t, s, billing(), message(text, ""), in(time.Minute-500*time.Millisecond)+int64(i))
		}
		plan(t, s, billing(), message("e", ""), in(time.Minute+1500*time.Millisecond))
		elsewhere := message("-", "")
		elsewhere.Conversation = domain.ConversationID{2}
		plan(t, s, billing(), elsewhere, in(time.Minute+500*time.Millisecond))
		pass(2 * time.Minute)
		if got := p.texts(); !slices.Equal(got, []string{"-", "a", "b", "c", "d", "e"}) {
			t.Errorf("sent %v", got)
		}
	})
}

func TestEndingFinishesWhatWasBegunAndLeavesTheRest(t *testing.T) {
	// A gateway that is to end does not work off what it has taken, which may last; another one has it at once.
	synctest.Test(t, func(t *testing.T) {
		store, p := newShelf(), newPost()
		p.delay = 10 * time.Second
		s, end := begin(t, store, p)
		for i := range 20 {
			plan(t, s, billing(), message(fmt.Sprintf("%02d", i), ""), in(time.Minute-500*time.Millisecond)+int64(i))
		}
		pass(62 * time.Second)
		began := time.Now()
		end()
		if lasted := time.Since(began); lasted > 10*time.Second || len(p.texts()) != 1 {
			t.Errorf("it ended after %v and sent %v", lasted, p.texts())
		}
		p.delay = 0
		begin(t, store, p)
		pass(2 * time.Second)
		if got := p.texts(); len(got) != 20 || !slices.IsSorted(got) {
			t.Errorf("sent %v", got)
		}
	})
}

func TestWhoeverCancelsCanRelyOnIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, p := newShelf(), newPost()
		p.delay = 5 * time.Second
		s, _ := begin(t, store, p)
		cancelled := plan(t, s, billing(), message("never", ""), in(time.Minute))
		late := plan(t, s, billing(), message("sent", ""), in(time.Minute))
		other := billing()
		other.Service = 8 // of the same tree
		for range 2 {
			if err := s.Cancel(t.Context(), other, cancelled.ID); err != nil {
				t.Error(err)
			}
		}
		stranger := domain.Principal{Service: 9, Root: 2, Account: 2}
		for what, tc := range map[string]struct {
			p    domain.Principal
			id   domain.ScheduledID
			want domain.Code
		}{
			"of another tree": {stranger, late.ID, domain.NotFound},
			"by a user":       {domain.Principal{User: 5, Root: 1}, late.ID, domain.AccessDenied},
			"nothing":         {billing(), domain.ScheduledID{1}, domain.NotFound},
		} {
			if err := s.Cancel(t.Context(), tc.p, tc.id); domain.CodeOf(err) != tc.want {
				t.Errorf("%s: %v", what, err)
			}
			if _, err := s.Get(t.Context(), tc.p, tc.id); domain.CodeOf(err) != tc.want {
				t.Errorf("%s: %v", what, err)
			}
		}
		pass(62 * time.Second) // it is just being sent
		for range 2 {
			if err := s.Cancel(t.Context(), billing(), late.ID); domain.CodeOf(err) != domain.AlreadySent {
				t.Errorf("too late: %v", err)
			}
			pass(10 * time.Second)
		}
		if got := p.texts(); !slices.Equal(got, []string{"sent"}) {
			t.Errorf("sent %v", got)
		}
		list, err := s.List(t.Context(), billing(), domain.ScheduledQuery{State: domain.ScheduledCancelled, Limit: 9})
		if err != nil || len(list) != 1 || list[0].ID != cancelled.ID {
			t.Errorf("%+v, %v", list, err)
		}
		if _, err := s.List(t.Context(), domain.Principal{User: 5, Root: 1}, domain.ScheduledQuery{}); domain.CodeOf(err) != domain.AccessDenied {
			t.Errorf("listed by a user: %v", err)
		}
		if list, err := s.List(t.Context(), stranger, domain.ScheduledQuery{State: domain.ScheduledSent, Root: 1}); err != nil || len(list) != 0 {
			t.Errorf("of another tree: %+v, %v", list, err)
		}
	})
}

func TestWhatIsRefusedInTheEndIsTold(t *testing.T) {
	// The conversation may be removed and the user gone by then: the service finds out why nothing came.
	synctest.Test(t, func(t *testing.T) {
		store, p := newShelf(), newPost()
		p.refuse = func(int) error { return domain.Errorf(domain.ConversationRemoved, "the conversation was removed") }
		s, _ := begin(t, store, p)
		removed := plan(t, s, billing(), message("x", ""), in(time.Minute))
		asBob := billing().OnBehalfOf(domain.User{ID: 5, Username: "bob@chat.acme", Root: 1, Account: 2})
		gone := plan(t, s, asBob, message("x", ""), in(time.Hour))
		service := plan(t, s, billing(), message("x", ""), in(2*time.Hour))
		broken := plan(t, s, billing(), message("x", ""), in(3*time.Hour))
		left := plan(t, s, asBob, message("x", ""), in(90*time.Second))
		pass(80 * time.Second)
		p.mu.Lock()
		p.left = true
		p.mu.Unlock()
		if _, err := s.Schedule(t.Context(), asBob, message("x", ""), in(time.Minute)); domain.CodeOf(err) != domain.NotParticipant {
			t.Errorf("on behalf of who has left: %v", err)
		}
		pass(time.Minute)
		p.mu.Lock()
		p.refuse, p.gone = nil, true
		p.mu.Unlock()
		store.mu.Lock()
		store.rows[service.ID].Service = -1
		store.rows[broken.ID].Body = []byte("{")
		store.mu.Unlock()
		pass(4 * time.Hour)
		for id, want := range map[domain.ScheduledID]domain.Code{
			removed.ID: domain.ConversationRemoved, left.ID: domain.NotParticipant, gone.ID: domain.UserNotFound, service.ID: domain.AccessDenied, broken.ID: domain.Internal,
		} {
			n := store.get(id)
			if n.State != domain.ScheduledRefused || n.Outcome.Error.Code != want || n.taken != 1 {
				t.Errorf("want %s: %+v, %+v, taken %d times", want, n.State, n.Outcome, n.taken)
			}
		}
		if got := p.texts(); len(got) != 0 {
			t.Errorf("sent %v", got)
		}
	})
}

func TestTheAdminKeySchedulesWhereItSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, p := newShelf(), newPost()
		s, _ := begin(t, store, p)
		admin := domain.Principal{Admin: true}
		a := &domain.Announce{}
		a.Text, a.To = "told", domain.List[domain.Named]{{Ref: domain.UserRef{UserID: 5}}}
		m, n := plan(t, s, admin, message("x", ""), in(time.Minute)), plan(t, s, admin, a, in(time.Minute))
		if m.Root != 1 || m.Account != 3 || n.Root != 1 || n.Account != 2 || m.Sender.Service != "admin" {
			t.Errorf("%+v, %+v", m, n)
		}
		if err := s.Cancel(t.Context(), billing(), n.ID); err != nil {
			t.Errorf("a service of the tree: %v", err)
		}
		pass(2 * time.Minute)
		if len(p.sent) != 1 || !p.sent[0].by.Admin {
			t.Errorf("sent %+v", p.sent)
		}
	})
}

func TestMetricsKeepTheirNames(t *testing.T) {
	// Dashboards and alerts of operators refer to them.
	metricstest.Golden(t, "testdata/metrics.txt", func(r prometheus.Registerer) {
		p := newPost()
		if _, err := schedule.New(schedule.Options{Store: newShelf(), Do: p.Do, Consider: p.Consider, Registerer: r}); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := schedule.New(schedule.Options{}); err == nil {
		t.Error("a service was made of nothing")
	}
}
