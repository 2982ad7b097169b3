package bridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/parley-im/parley/bridge"
	"github.com/parley-im/parley/domain"
)

// fakeSchedules is a bridge.Schedules that keeps what it is given.
type fakeSchedules struct {
	mu      sync.Mutex
	kept    []domain.Scheduled
	asked   domain.ScheduledQuery
	by      []domain.Principal
	refusal error
}

func (f *fakeSchedules) Schedule(_ context.Context, p domain.Principal, c domain.Command, at int64) (domain.Scheduled, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refusal != nil {
		return domain.Scheduled{}, f.refusal
	}
	n := domain.Scheduled{
		ID: domain.ScheduledID{15: byte(len(f.kept) + 1)}, At: at, State: domain.ScheduledPending, Sender: p.Initiator(), Root: p.Root,
	}
	err := n.Schedule(c)
	f.kept, f.by = append(f.kept, n), append(f.by, p)
	return n, err
}

func (f *fakeSchedules) Get(_ context.Context, p domain.Principal, id domain.ScheduledID) (domain.Scheduled, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.kept {
		if n.ID == id && p.Sees(n.Root) {
			return n, nil
		}
	}
	return domain.Scheduled{}, domain.Errorf(domain.NotFound, "nothing")
}

func (f *fakeSchedules) List(_ context.Context, _ domain.Principal, q domain.ScheduledQuery) ([]domain.Scheduled, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = q
	var list []domain.Scheduled
	for _, n := range f.kept {
		if (n.At > q.After || n.At == q.After && slices.Compare(n.ID[:], q.AfterID[:]) > 0) && len(list) < q.Limit {
			list = append(list, n)
		}
	}
	return list, f.refusal
}

func (f *fakeSchedules) Cancel(_ context.Context, _ domain.Principal, _ domain.ScheduledID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refusal
}

// withSchedules makes a world in which things are sent later.
func withSchedules(t *testing.T) (*world, *fakeSchedules) {
	t.Helper()
	f := &fakeSchedules{}
	return newWorld(t, func(o *bridge.Options) { o.Schedules = f }), f
}

func TestAnnouncementRoutes(t *testing.T) {
	w, _ := withSchedules(t)
	a := domain.Announcement{ID: domain.AnnouncementID{15: 1}, Sender: &domain.Initiator{Service: "billing"}, Time: 5, Expires: 9}
	a.Text = "hello"
	w.answers(domain.Result{Announcement: &a})
	w.call("POST", "/v1/announcements", `{"to":["alice@chat.acme",7],"text":"hello","expires":9,"options":{"priority":"high"}}`, "Idempotency-Key: k").want(t, "announce", 201,
		`{"announcement":{"uuid":"00000000-0000-0000-0000-000000000001","sender":{"service":"billing"},"time":5,"text":"hello","expires":9}}`)
	cmd := w.only().cmd.(*domain.Announce)
	if cmd.To[0].Ref.Username != "alice@chat.acme" || cmd.To[1].Ref.UserID != 7 || cmd.ClientID != "k" || cmd.Expires != 9 || cmd.Options.Priority != "high" {
		t.Errorf("%+v", cmd)
	}
	// The key remembers the whole answer: nothing else has it for the service.
	again := w.call("POST", "/v1/announcements", `{"to":["alice@chat.acme",7],"text":"hello","expires":9,"options":{"priority":"high"}}`, "Idempotency-Key: k")
	again.want(t, "again", 201, "")
	if !strings.Contains(string(again.body), `"hello"`) || again.Header.Get("Idempotency-Replayed") != "true" || len(w.commands) != 1 {
		t.Errorf("%d commands", len(w.commands))
	}
	w.commands = nil
	w.do = func(context.Context, domain.Principal, domain.Command) (domain.Receipt, error) {
		return domain.Receipt{Duplicate: true, Result: &domain.Result{Announcement: &a, Duplicate: true}}, nil
	}
	w.call("POST", "/v1/announcements", `{"to":7,"id":"own","text":"hello"}`).want(t, "known already", 200, "")
	w.call("POST", "/v1/announcements", `{"to":7,"text":"hello","mentions":{}}`).wantProblem(t, "mentions", 400, domain.InvalidRequest)
	w.call("POST", "/v1/announcements", `{"to":[],"text":"hello"}`).wantProblem(t, "nobody", 400, domain.InvalidRequest)
	w.call("POST", "/v1/announcements", `{"to":7,"text":"hello","as":"alice@chat.acme"}`).wantProblem(t, "as a user", 400, domain.InvalidRequest)

	w.answers(domain.Result{Announcements: []domain.Announcement{a}, NextCursor: "c"})
	w.commands = nil
	w.as(aliceToken, "GET", "/v1/announcements?unread=true&limit=7", "").want(t, "list", 200, `{"announcements":[
		{"uuid":"00000000-0000-0000-0000-000000000001","sender":{"service":"billing"},"time":5,"text":"hello","expires":9}],"nextCursor":"c"}`)
	if c := w.only().cmd.(*domain.GetAnnouncements); !c.Unread || c.Limit != 7 {
		t.Errorf("%+v", c)
	}
	for _, query := range []string{"limit=0", "limit=101", "limit=-1", "cursor=x", "older=1"} {
		w.as(aliceToken, "GET", "/v1/announcements?"+query, "").wantProblem(t, query, 400, domain.InvalidRequest)
	}
	w.answers(domain.Result{})
	w.commands = nil
	w.as(aliceToken, "POST", "/v1/announcements/read", `{"announcements":["00000000-0000-0000-0000-000000000001"]}`).want(t, "read", 200, `{}`)
	if c := w.only().cmd.(*domain.MarkAnnouncementsRead); len(c.Announcements) != 1 {
		t.Errorf("%+v", c)
	}
	w.as(aliceToken, "POST", "/v1/announcements/read", "").want(t, "read all", 200, `{}`)
	w.as(aliceToken, "POST", "/v1/announcements/read", `{"announcements":["x"]}`).wantProblem(t, "no uuid", 400, domain.InvalidRequest)
	w.commands = nil
	w.call("DELETE", "/v1/announcements/00000000-0000-0000-0000-000000000001", "").want(t, "remove", 200, `{}`)
	if c := w.only().cmd.(*domain.RemoveAnnouncement); c.Announcement != a.ID {
		t.Errorf("%+v", c)
	}
	w.call("DELETE", "/v1/announcements/x", "").wantProblem(t, "one that cannot exist", 404, domain.NotFound)
}

func TestMessagesAreScheduled(t *testing.T) {
	const now = 1_700_000_000_000
	w, f := withSchedules(t)
	path := "/v1/conversations/" + someID + "/messages"
	a := w.call("POST", path, `{"text":"hi","delay":60}`, "Idempotency-Key: k")
	a.want(t, "with a delay", 202, fmt.Sprintf(`{"scheduled":{"uuid":"00000000-0000-0000-0000-000000000001","at":%d,"state":"pending",
		"createdTime":0,"sender":{"service":"billing"},"conversation":%q,"message":{"id":"k","text":"hi"}}}`, now+60_000, someID))
	// A repetition shows what has become of it, and what it says is in no other place than the schedule.
	for _, r := range w.memory.kept {
		if strings.Contains(string(r.Body), "hi") {
			t.Errorf("remembered: %s", r.Body)
		}
	}
	f.kept[0].State, f.kept[0].Message = domain.ScheduledCancelled, nil
	again := w.call("POST", path, `{"text":"hi","delay":60}`, "Idempotency-Key: k")
	if again.StatusCode != 202 || !strings.Contains(string(again.body), `"cancelled"`) || strings.Contains(string(again.body), "hi") || len(f.kept) != 1 {
		t.Errorf("again: %d %s", again.StatusCode, again.body)
	}
	w.call("POST", path, fmt.Sprintf(`{"text":"hi","at":%d}`, now+5)).want(t, "at a time", 202, "")
	w.call("POST", "/v1/announcements", `{"to":7,"text":"hi","delay":2592000}`).want(t, "an announcement", 202, "")
	if n := f.kept[2]; n.At != now+2_592_000_000 || n.Conversation != nil || n.To[0].Ref.UserID != 7 {
		t.Errorf("%+v", n)
	}
	if len(w.commands) != 0 {
		t.Errorf("sent at once: %+v", w.commands)
	}
	w.answers(domain.Result{User: &domain.User{ID: 3, Username: "alice@chat.acme"}})
	w.call("POST", path, `{"text":"hi","as":"alice@chat.acme","delay":1}`).want(t, "as a user", 202, "")
	if p := f.by[3]; p.User != 3 || p.Service != 7 {
		t.Errorf("by %+v", p)
	}
	w.answers(domain.Result{Message: &domain.Message{}})
	w.commands = nil
	w.call("POST", path, `{"text":"hi","delay":0}`).want(t, "no delay", 201, "")
	w.only()
	for _, body := range []string{
		`{"text":"hi","delay":-1}`, `{"text":"hi","delay":2592001}`, `{"text":"hi","delay":1,"at":1700000000001}`, `{"text":"hi","delay":"1"}`,
		`{"delay":1}`, `{"text":"hi","delay":1.5}`, `{"text":"hi","delay":9223372036854775807}`,
	} {
		w.call("POST", path, body).wantProblem(t, body, 400, domain.InvalidRequest)
	}
	f.refusal = domain.Errorf(domain.RateLimited, "too many")
	w.call("POST", path, `{"text":"hi","delay":1}`).wantProblem(t, "too many", 429, domain.RateLimited)
	if len(f.kept) != 4 {
		t.Errorf("%d are scheduled", len(f.kept))
	}
	bare := newWorld(t, func(o *bridge.Options) { o.Schedules = nil })
	bare.call("POST", path, `{"text":"hi","delay":1}`).wantProblem(t, "where nothing is sent later", 400, domain.InvalidRequest)
	bare.call("GET", "/v1/scheduled", "").wantProblem(t, "nor listed", 404, domain.UnknownCommand)
}

func TestScheduledRoutes(t *testing.T) {
	w, f := withSchedules(t)
	for i := range 5 {
		f.kept = append(f.kept, domain.Scheduled{ID: domain.ScheduledID{15: byte(i + 1)}, At: int64(10 + i/2), State: domain.ScheduledPending, Root: 1})
	}
	var got []string
	for cursor := ""; ; {
		var page struct {
			Scheduled []struct {
				UUID string
			}
			NextCursor string
		}
		a := w.call("GET", "/v1/scheduled?limit=2&cursor="+url.QueryEscape(cursor), "")
		if err := json.Unmarshal(a.body, &page); err != nil || a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		for _, n := range page.Scheduled {
			got = append(got, n.UUID[35:])
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if strings.Join(got, "") != "12345" {
		t.Errorf("pages: %v", got)
	}
	w.call("GET", "/v1/scheduled?state=sent", "").want(t, "sent", 200, "")
	if f.asked.State != domain.ScheduledSent || f.asked.Limit != 51 {
		t.Errorf("asked %+v", f.asked)
	}
	f.kept = nil
	w.call("GET", "/v1/scheduled", "").want(t, "nothing", 200, `{"scheduled":[]}`)
	for _, query := range []string{"limit=0", "limit=101", "cursor=x", "state=sending", "state=x"} {
		w.call("GET", "/v1/scheduled?"+query, "").wantProblem(t, query, 400, domain.InvalidRequest)
	}
	f.kept = append(f.kept, domain.Scheduled{ID: domain.ScheduledID{15: 1}, Root: 1, State: domain.ScheduledSent, Outcome: &domain.Outcome{Time: 3, Seq: 4}})
	w.call("GET", "/v1/scheduled/00000000-0000-0000-0000-000000000001", "").want(t, "one", 200,
		`{"scheduled":{"uuid":"00000000-0000-0000-0000-000000000001","at":0,"state":"sent","createdTime":0,"sender":{},"outcome":{"time":3,"seq":4}}}`)
	w.call("GET", "/v1/scheduled/x", "").wantProblem(t, "no uuid", 404, domain.NotFound)
	w.call("DELETE", "/v1/scheduled/00000000-0000-0000-0000-000000000001", "").want(t, "cancelled", 204, "")
	f.refusal = domain.Errorf(domain.AlreadySent, "too late")
	w.call("DELETE", "/v1/scheduled/00000000-0000-0000-0000-000000000001", "").wantProblem(t, "too late", 409, domain.AlreadySent)
	w.call("DELETE", "/v1/scheduled/00000000-0000-0000-0000-000000000000", "").wantProblem(t, "zero", 404, domain.NotFound)
}
