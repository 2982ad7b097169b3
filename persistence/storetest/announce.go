package storetest

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

// service gives a service of the users' account.
func (w *World) service() domain.Principal {
	w.tb.Helper()
	_, _, account := w.Users[0].Username.Parts()
	s, err := w.Store.CreateService(w.tb.Context(), account, fmt.Sprintf("s%d", w.Now()), [32]byte{byte(w.Now()), byte(w.Now() >> 8)}, false)
	must(w.tb, err)
	return s.Principal()
}

// announcement makes an announcement for users.
func (w *World) announcement(text, client string, users ...int) *domain.Announce {
	a := &domain.Announce{}
	for _, i := range users {
		a.To = append(a.To, domain.Named{Ref: w.Ref(i)})
	}
	a.Text, a.ClientID = text, client
	return a
}

// told gives the texts of a user's announcements, the newest first; those read in brackets.
func (w *World) told(user int, q domain.AnnouncementQuery) []string {
	w.tb.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	h, err := w.Store.Heads(w.tb.Context(), w.User(user), domain.Needs{Announcements: &q})
	must(w.tb, err)
	texts := []string{}
	for _, a := range h.Announcements {
		text := a.Text
		if a.Read {
			text = "(" + text + ")"
		}
		texts = append(texts, text)
	}
	return texts
}

func announcementsWait(t *testing.T, b Backend) {
	// Who is away for a week is told when it comes back, by whatever gateway; and each reads for itself.
	place := b.New(t)
	w := NewWorld(t, place.Open(t), 4)
	log, by := w.Store.Committers()[0], w.service()
	first := w.Change(log, by, w.announcement("one", "", 0, 1, 2))
	w.Change(log, by, w.announcement("two", "", 1))
	w.Change(log, by, w.announcement("three", "", 0, 1))
	equal(t, "the first's", w.told(0, domain.AnnouncementQuery{}), []string{"three", "one"})
	equal(t, "the second's", w.told(1, domain.AnnouncementQuery{}), []string{"three", "two", "one"})
	equal(t, "nobody's", w.told(3, domain.AnnouncementQuery{}), []string{})
	if r := w.Try(log, w.Request(by, w.announcement("four", "", 0, 1, 2)), w.Request(by, &domain.Announce{}))[1]; r.Err == nil {
		t.Error("an announcement for nobody was stored")
	}

	w.Change(log, w.User(1), &domain.MarkAnnouncementsRead{
		Announcements: domain.List[domain.AnnouncementID]{first.Decision.Announcement.ID, {9}},
	})
	equal(t, "one of them read", w.told(1, domain.AnnouncementQuery{}), []string{"four", "three", "two", "(one)"})
	equal(t, "not read", w.told(1, domain.AnnouncementQuery{Unread: true}), []string{"four", "three", "two"})
	equal(t, "others have not read", w.told(0, domain.AnnouncementQuery{Unread: true}), []string{"four", "three", "one"})
	w.Change(log, w.User(1), &domain.MarkAnnouncementsRead{})
	equal(t, "all read", w.told(1, domain.AnnouncementQuery{Unread: true}), []string{})
	w.Change(log, by, w.announcement("five", "", 1))
	equal(t, "a later one", w.told(1, domain.AnnouncementQuery{Unread: true}), []string{"five"})

	h, err := w.Store.Heads(t.Context(), w.User(1), domain.Needs{Announcements: &domain.AnnouncementQuery{Limit: 2}})
	must(t, err)
	equal(t, "a page", w.told(1, domain.AnnouncementQuery{Limit: 2, Before: h.Announcements[1].Number}), []string{"(three)", "(two)"})
	a := h.Announcements[0]
	want := domain.Announcement{
		ID: a.ID, Sender: &domain.Initiator{Service: by.ServiceName}, Time: a.Time, Content: domain.Content{Text: "five"},
		Expires: a.Time + domain.MaxAhead.Milliseconds(), Number: a.Number, Size: a.Size,
	}
	equal(t, "as it reads", a, want)

	// One that is taken back is gone for all at once, and its words are gone for good.
	gone := w.Change(log, by, w.announcement("secret-words", "gone", 0, 1)).Decision.Announcement
	remove := &domain.RemoveAnnouncement{Announcement: gone.ID}
	for range 2 {
		d := w.Change(log, by, remove).Decision
		equal(t, "who is told", d.Notices[0].To, []domain.UserID{w.Users[0].ID, w.Users[1].ID})
	}
	equal(t, "the first's, without it", w.told(0, domain.AnnouncementQuery{}), []string{"four", "three", "one"})
	again := w.Change(log, by, w.announcement("again", "gone", 0)).Decision.Result
	equal(t, "its id stays used", again.Announcement.ID, gone.ID)
	if r := again.Announcement; !again.Duplicate || !r.Removed || r.Text != "" {
		t.Errorf("the same id again: %+v", r)
	}
	equal(t, "nobody is told", w.told(0, domain.AnnouncementQuery{}), []string{"four", "three", "one"})

	for _, cell := range place.Dump(t) {
		if bytes.Contains(cell, []byte("secret-words")) {
			t.Errorf("what it said is kept in %q", cell)
		}
	}

	// They outlive the process, and not their time; nor the user.
	must(t, w.Store.Close())
	w = w.On(place.Open(t))
	equal(t, "after a restart", w.told(0, domain.AnnouncementQuery{Unread: true}), []string{"four", "three", "one"})
	must(t, w.Store.DeleteUser(t.Context(), w.Users[0].ID))
	equal(t, "of a deleted user", w.told(0, domain.AnnouncementQuery{}), []string{})
	must(t, w.Store.Cleanup(t.Context(), w.Now()))
	equal(t, "after a cleaning", w.told(2, domain.AnnouncementQuery{}), []string{"four", "one"})
	must(t, w.Store.Cleanup(t.Context(), w.Now()+domain.MaxAhead.Milliseconds()))
	equal(t, "after their time", w.told(1, domain.AnnouncementQuery{}), []string{})
}

func announcementsAreMadeOnce(t *testing.T, b Backend) {
	// A service that did not hear the answer asks again, perhaps somewhere else, and users must not be told twice.
	all := worlds(t, b, 3)
	w, by := all[0], all[0].service()
	log := w.Store.Committers()[0]
	r := w.Request(by, w.announcement("once", "a", 0, 1))
	first := w.Try(log, r)[0]
	again := w.Try(log, r)[0] // the outcome was unknown to the gateway: it is the same request
	if first.Err != nil || again.Err != nil || len(again.Decision.Notices) != 1 || again.Decision.Result.Duplicate {
		t.Errorf("the same request again: %+v", again)
	}
	repeated := w.Change(log, by, w.announcement("another text", "a", 2))
	d := repeated.Decision
	if !d.Result.Duplicate || len(d.Notices) != 0 || d.Result.Announcement.Text != "once" ||
		d.Result.Announcement.ID != first.Decision.Announcement.ID {
		t.Errorf("a repetition: %+v", d.Result.Announcement)
	}
	w.Change(log, w.service(), w.announcement("of another", "a", 0))
	bare := w.Request(by, w.announcement("without an id", "", 2))
	w.Try(log, bare)
	w.Try(log, bare)
	w.Change(log, by, w.announcement("without an id", "", 2))
	equal(t, "the first's", w.told(0, domain.AnnouncementQuery{}), []string{"of another", "once"})
	equal(t, "the third's", w.told(2, domain.AnnouncementQuery{}), []string{"without an id", "without an id"})

	// At the same time, on several nodes, one is made.
	logs, of := committers(all...)
	var wg sync.WaitGroup
	for i, log := range logs {
		wg.Go(func() {
			for n := range 20 {
				request := of[i].Request(by, of[i].announcement(fmt.Sprint(n), fmt.Sprintf("at once %d", n), 1))
				if _, err := log.Change(t.Context(), []domain.ChangeRequest{request}); err != nil && domain.CodeOf(err) != domain.Unavailable {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := w.told(1, domain.AnnouncementQuery{}); len(got) != 21 {
		t.Errorf("%d announcements: %v", len(got), got)
	}
}

func announcementsForAThousand(t *testing.T, b Backend) {
	// It is one transaction: nobody is left out by a crash in the middle.
	w := NewWorld(t, open(t, b), 1000)
	users := make([]int, 1000)
	for i := range users {
		users[i] = i
	}
	w.Change(w.Store.Committers()[0], w.service(), w.announcement("all of you", "", users...))
	for _, i := range []int{0, 1, 499, 999} {
		equal(t, "what a user is told", w.told(i, domain.AnnouncementQuery{Unread: true}), []string{"all of you"})
	}
}
