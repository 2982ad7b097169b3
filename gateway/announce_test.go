package gateway_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
)

// announcement makes an announcement for users.
func announcement(text, client string, users ...domain.UserID) *domain.Announce {
	a := &domain.Announce{}
	for _, id := range users {
		a.To = append(a.To, domain.Named{Ref: domain.UserRef{UserID: id}})
	}
	a.Text, a.ClientID = text, client
	return a
}

// announce makes an announcement as a service, and lets everything happen that follows from it.
func (w *world) announce(text string, users ...domain.UserID) domain.Receipt {
	w.t.Helper()
	for _, id := range users {
		w.user(id)
	}
	r, err := w.g.Do(w.t.Context(), service(1), announcement(text, "", users...))
	if err != nil {
		w.t.Fatal(err)
	}
	w.settle()
	return r
}

// announced gives the texts of the announcements that the client got.
func (c *client) announced() []string {
	texts := []string{}
	for _, n := range c.notices(c.inbox()) {
		if n["type"] == "announcement" {
			texts = append(texts, fmt.Sprint(n["announcement"].(map[string]any)["text"]))
		}
	}
	return texts
}

func TestAnnouncementsAreToldUntilTheyAreRead(t *testing.T) {
	// On every device, at once or when it comes, the oldest first; what expired or was read is not told any more.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		phone, desk, deaf := w.connect(1), w.connect(1, device("desk")), w.connect(1, device("deaf"))
		for _, c := range []*client{phone, desk} {
			c.subscribe(c.inbox(), domain.SubscribeOptions{QoS: 1})
		}
		w.settle() // what is announced while a device comes may be told twice
		first := w.announce("one", 1, 2)
		short := announcement("short", "", 2)
		short.Expires = domain.Millis(time.Now().Add(time.Minute))
		if _, err := w.g.Do(t.Context(), service(1), short); err != nil {
			t.Fatal(err)
		}
		w.announce("two", 2, 1)
		for _, c := range []*client{phone, desk} {
			if got := c.announced(); !slices.Equal(got, []string{"one", "two"}) {
				t.Errorf("%s was told %v", c.principal.Device, got)
			}
		}
		if got := deaf.notices(deaf.inbox()); len(got) != 0 {
			t.Errorf("who does not listen was told %v", got)
		}
		come := func(user domain.UserID, name string) []string {
			c := w.connect(user, device(name))
			c.subscribe(c.inbox(), domain.SubscribeOptions{QoS: 1})
			w.settle()
			return c.announced()
		}
		if got := come(2, "a"); !slices.Equal(got, []string{"one", "short", "two"}) {
			t.Errorf("at the login: %v", got)
		}
		w.pass(2 * time.Minute)
		if got := come(2, "b"); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("when one has expired: %v", got)
		}
		w.do(2, &domain.MarkAnnouncementsRead{Announcements: domain.List[domain.AnnouncementID]{first.Result.Announcement.ID}})
		if got := come(2, "c"); !slices.Equal(got, []string{"two"}) {
			t.Errorf("when one was read: %v", got)
		}
		if got := come(1, "other"); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("of the other user: %v", got)
		}
		if got := come(3, "nobody"); len(got) != 0 {
			t.Errorf("of nobody: %v", got)
		}
	})
}

func TestManyAnnouncementsDoNotDrownWhoComes(t *testing.T) {
	// A device that has just come would be ended as too slow, each time that it comes.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 60 {
			w.announce(fmt.Sprint(i), 1)
		}
		c := w.connect(1)
		c.subscribe(c.inbox(), domain.SubscribeOptions{QoS: 1})
		w.settle()
		if got := c.announced(); len(got) != 50 || got[0] != "10" || got[49] != "59" {
			t.Errorf("%d announcements from %v", len(got), got[:1])
		}
		for range 60 {
			w.announce(strings.Repeat("x", 5000), 2)
		}
		large := w.connect(2)
		large.subscribe(large.inbox(), domain.SubscribeOptions{QoS: 1})
		w.settle()
		if n := len(large.announced()); n != 50 || len(large.goodbyes()) != 0 {
			t.Errorf("%d large ones; %v", n, large.goodbyes())
		}
	})
}

func TestAnnouncementsSurviveDoubtfulCommits(t *testing.T) {
	// The store commits, and the answer is lost: the gateway asks again, and the users are told once.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.connect(1)
		c.subscribe(c.inbox(), domain.SubscribeOptions{QoS: 1})
		w.settle()
		w.store.failAfterCommit(2)
		r, err := w.g.Do(t.Context(), service(1), announcement("once", "own", 1))
		if err != nil || r.Duplicate || r.Result.Announcement.Text != "once" {
			t.Errorf("%+v, %v", r, err)
		}
		w.store.heal()
		again, err := w.g.Do(t.Context(), service(1), announcement("again", "own", 1))
		if err != nil || !again.Duplicate || !again.Result.Duplicate || again.Result.Announcement.ID != r.Result.Announcement.ID {
			t.Errorf("%+v, %v", again, err)
		}
		w.settle()
		if got := c.announced(); !slices.Equal(got, []string{"once"}) {
			t.Errorf("told %v", got)
		}
		up := w.store.down()
		refused := w.start(service(1), announcement("never", "", 1))
		w.pass(20 * time.Second)
		if refused.code() != domain.Unavailable {
			t.Errorf("without a store: %v", refused.code())
		}
		up()
		w.pass(time.Minute)
		if got := c.announced(); len(got) != 1 {
			t.Errorf("told %v", got)
		}
	})
}

func TestRemovedAnnouncementsAreTakenFromTheInboxes(t *testing.T) {
	// Also when the store removed it and the answer was lost.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.connect(1)
		c.subscribe(c.inbox(), domain.SubscribeOptions{QoS: 1})
		w.settle()
		made := w.announce("oops", 1, 2)
		id := made.Result.Announcement.ID
		remove := &domain.RemoveAnnouncement{Announcement: id}
		w.store.failAfterCommit(1)
		if _, err := w.g.Do(t.Context(), service(1), remove); err != nil {
			t.Fatal(err)
		}
		w.store.heal()
		w.settle()
		var told []any
		for _, n := range c.notices(c.inbox()) {
			if n["type"] == "announcementRemoved" {
				told = append(told, n["announcements"])
			}
		}
		if want := []any{[]any{id.String()}}; !reflect.DeepEqual(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
		later := w.connect(2)
		later.subscribe(later.inbox(), domain.SubscribeOptions{QoS: 1})
		w.settle()
		if got := later.announced(); len(got) != 0 {
			t.Errorf("who came later was told %v", got)
		}
	})
}

func TestConsideringChangesNothing(t *testing.T) {
	// What is scheduled is decided twice; only the second time anything may happen.
	synctest.Test(t, func(t *testing.T) {
		s := newCupboard(time.Hour)
		w := newWorld(t, s.options)
		c := w.converse(1, 2)
		w.user(3)
		before := w.store.last(c)
		consider := func(p domain.Principal, cmd domain.Command) domain.Code {
			return domain.CodeOf(w.g.Consider(t.Context(), p, cmd, time.Now().Add(time.Hour)))
		}
		expires := announcement("x", "", 1)
		expires.Expires = domain.Millis(time.Now().Add(time.Minute))
		for what, tc := range map[string]struct {
			p    domain.Principal
			c    domain.Command
			want domain.Code
		}{
			"a message":                   {service(1), message(c, "x", ""), ""},
			"an announcement":             {service(1), announcement("x", "", 1), ""},
			"it will have expired":        {service(1), expires, domain.InvalidRequest},
			"nothing said":                {service(1), message(c, "", ""), domain.InvalidRequest},
			"of another tree":             {service(2), message(c, "x", ""), domain.ConversationNotFound},
			"by a stranger":               {w.user(3), message(c, "x", ""), domain.AccessDenied},
			"content that does not exist": {service(1), naming(c, domain.ContentID(strings.Repeat("f", 32)), ""), domain.NotFound},
		} {
			if got := consider(tc.p, tc.c); got != tc.want {
				t.Errorf("%s: %q, want %q", what, got, tc.want)
			}
		}
		w.settle()
		if w.store.last(c) != before || len(w.store.announced) != 0 || len(s.claims) != 0 {
			t.Error("something happened")
		}
		up := w.store.down()
		if got := consider(service(1), message(c, "x", "")); got != domain.Unavailable {
			t.Errorf("without a store: %q", got)
		}
		up()
	})
}
