package domain_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

// announcement makes an announcement for users named by number.
func announcement(text string, to ...domain.UserID) *domain.Announce {
	a := &domain.Announce{}
	for _, id := range to {
		a.To = append(a.To, domain.Named{Ref: domain.UserRef{UserID: id}})
	}
	a.Text = text
	return a
}

// announcementsOf gives a page of a user's announcements.
func (s *store) announcementsOf(user domain.UserID, q domain.AnnouncementQuery) (page []domain.Announcement) {
	for _, a := range slices.Backward(s.announcements) {
		if slices.Contains(a.Recipients, user) && (!q.Unread || !a.Read) && (q.Before == 0 || a.Number < q.Before) && len(page) < q.Limit {
			page = append(page, a)
		}
	}
	return page
}

func TestAnnouncementsAreForAllOrNobody(t *testing.T) {
	// A list of customers with one typo must not leave the service guessing who was told.
	name := func(n domain.Username) domain.Named { return domain.Named{Ref: domain.UserRef{Username: n}} }
	for _, tc := range []struct {
		what   string
		p      domain.Principal
		change func(*domain.Announce)
		number int
		to     []domain.UserID
	}{
		{"by number", service(), func(*domain.Announce) {}, 0, []domain.UserID{bob}},
		{"by name, each once", service(), func(a *domain.Announce) { a.To = append(a.To, name("bob@chat.acme"), name("dave@chat.acme-child")) }, 0, []domain.UserID{bob, dave}},
		{"one who does not exist", service(), func(a *domain.Announce) { a.To = append(a.To, name("nobody@chat.acme")) }, 25, nil},
		{"one of another tree", service(), func(a *domain.Announce) { a.To = append(a.To, name("mallory@chat.rival")) }, 25, nil},
		{"one who was deleted", service(), func(a *domain.Announce) { a.To = append(a.To, name("ghost@chat.acme")) }, 25, nil},
		{"one who was deleted since", service(), func(a *domain.Announce) { a.To, a.Remaining = append(a.To, name("ghost@chat.acme")), true }, 0, []domain.UserID{bob}},
		{"all were deleted since", service(), func(a *domain.Announce) { a.To, a.Remaining = domain.List[domain.Named]{name("ghost@chat.acme")}, true }, 25, nil},
		{"by admin, in one tree", admin(), func(a *domain.Announce) { a.To = append(a.To, name("dave@chat.acme-child")) }, 0, []domain.UserID{bob, dave}},
		{"by admin, in two trees", admin(), func(a *domain.Announce) { a.To = append(a.To, name("mallory@chat.rival")) }, 25, nil},
		{"on behalf of a user", service().OnBehalfOf(person(alice)), func(*domain.Announce) {}, 12, nil},
		{"expired", service(), func(a *domain.Announce) { a.Expires = now }, 1, nil},
		{"kept too long", service(), func(a *domain.Announce) { a.Expires = now + domain.MaxAhead.Milliseconds() + 1 }, 1, nil},
		{"kept for 30 days", service(), func(a *domain.Announce) { a.Expires = now + domain.MaxAhead.Milliseconds() }, 0, []domain.UserID{bob}},
		{"to nobody", service(), func(a *domain.Announce) { a.To = nil }, 1, nil},
		{"to 1001", service(), func(a *domain.Announce) { a.To = slices.Repeat(a.To, 1001) }, 1, nil},
		{"a name that cannot exist", service(), func(a *domain.Announce) { a.To = append(a.To, name("Bob")) }, 25, nil},
		{"without content", service(), func(a *domain.Announce) { a.Text = "" }, 1, nil},
		{"too long", service(), func(a *domain.Announce) { a.Text = strings.Repeat("x", 5001) }, 23, nil},
		{"mentions", service(), func(a *domain.Announce) { a.Mentions = &domain.Mentions{All: ptr(true)} }, 1, nil},
		{"transient", service(), func(a *domain.Announce) { a.Options = &domain.Options{Transient: true} }, 1, nil},
		{"receipt", service(), func(a *domain.Announce) { a.Options = &domain.Options{Receipt: true} }, 1, nil},
		{"will", service(), func(a *domain.Announce) { a.Options = &domain.Options{Will: true} }, 1, nil},
		{"expires before 1970", service(), func(a *domain.Announce) { a.Expires = -1 }, 1, nil},
		{"uploaded content", service(), func(a *domain.Announce) {
			a.Parts = []domain.Part{{MimeType: "a/b", Content: "00000000000000000000000000000001"}}
		}, 1, nil},
		{"content of elsewhere", service(), func(a *domain.Announce) {
			a.Parts = []domain.Part{{MimeType: "a/b", URL: "https://cdn.example.com/v1/content/00000000000000000000000000000001/data"}}
		}, 0, []domain.UserID{bob}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			a := announcement("hello", bob)
			tc.change(a)
			d := wantNumber(t, tc.what, newStore(), tc.p, a, tc.number)
			if tc.number != 0 {
				return
			}
			if diff := cmp.Diff(tc.to, d.Announcement.Recipients); diff != "" || d.Announcement.Root != 1 {
				t.Errorf("for %s in the tree %d", diff, d.Announcement.Root)
			}
			if diff := cmp.Diff(tc.to, d.Notices[0].To); diff != "" || d.Notices[0].Notice.Announcement != d.Announcement {
				t.Errorf("told: %s", diff)
			}
		})
	}
}

func TestRecipientsLearnNothingOfEachOther(t *testing.T) {
	a := announcement("hello", bob, alice)
	a.Options = &domain.Options{Priority: "high", Push: domain.RawObject(`{"badge":1}`)}
	d := wantNumber(t, "announce", newStore(), service(), a, 0)
	shown, err := json.Marshal(d.Notices[0].Notice)
	if err != nil {
		t.Fatal(err)
	}
	for _, hidden := range []string{"alice", "bob", "userId"} {
		if strings.Contains(string(shown), hidden) {
			t.Errorf("%s is in %s", hidden, shown)
		}
	}
	if !strings.Contains(string(shown), `"push":{"badge":1}`) {
		t.Errorf("what is for the push service does not come back: %s", shown)
	}
	if want := now + domain.MaxAhead.Milliseconds(); d.Announcement.Expires != want || d.Announcement.Priority != "high" {
		t.Errorf("%+v", d.Announcement)
	}
	// What is stored reads as it was, with what the push service needs.
	stored, err := d.Announcement.MarshalStored()
	if err != nil {
		t.Fatal(err)
	}
	again := domain.Announcement{
		ID: d.Announcement.ID, Time: d.Announcement.Time, Expires: d.Announcement.Expires, By: d.Announcement.By,
		Root: d.Announcement.Root, Recipients: d.Announcement.Recipients,
	}
	if err := again.UnmarshalStored(stored); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*d.Announcement, again); diff != "" {
		t.Errorf("read back:\n%s", diff)
	}
}

func TestAnnouncementsComeInPages(t *testing.T) {
	s := newStore()
	for n := int64(1); n <= 7; n++ {
		s.announcements = append(s.announcements, domain.Announcement{
			ID: domain.AnnouncementID{byte(n)}, Number: n, Expires: now + 1, Recipients: []domain.UserID{bob}, Read: n%2 == 0, Size: 10,
		})
	}
	s.announcements[4].Expires = now // is gone, though the store has it still
	read := func(what string, c domain.GetAnnouncements) (got []int64, next string) {
		t.Helper()
		d := wantNumber(t, what, s, user(bob), &c, 0)
		for _, a := range d.Result.Announcements {
			got = append(got, a.Number)
		}
		return got, d.Result.NextCursor
	}
	var pages [][]int64
	for cursor := ""; len(pages) == 0 || cursor != ""; {
		page, next := read("a page", domain.GetAnnouncements{Limit: 3, Cursor: cursor})
		pages, cursor = append(pages, page), next
	}
	if diff := cmp.Diff([][]int64{{7, 6}, {4, 3, 2}, {1}}, pages); diff != "" {
		t.Error(diff)
	}
	if got, next := read("unread", domain.GetAnnouncements{Unread: true}); !slices.Equal(got, []int64{7, 3, 1}) || next != "" {
		t.Errorf("unread %v, %q", got, next)
	}
	// Large ones make shorter pages, and one is always given.
	s.announcements[6].Size, s.announcements[5].Size = 512<<10+1, 512<<10-10
	if got, next := read("a large one", domain.GetAnnouncements{}); !slices.Equal(got, []int64{7}) || next == "" {
		t.Errorf("%v, %q", got, next)
	} else if got, _ := read("after it", domain.GetAnnouncements{Cursor: next}); !slices.Equal(got, []int64{6}) {
		t.Errorf("after the large one %v", got)
	}
	for _, c := range []domain.GetAnnouncements{{Limit: -1}, {Limit: 101}, {Cursor: "x"}, {Cursor: "YW5ub3VuY2VtZW50OjA"}} {
		wantNumber(t, "a page that cannot be", s, user(bob), &c, 1)
	}
	d := wantNumber(t, "nobody's", s, user(eve), &domain.GetAnnouncements{}, 0)
	if d.Result.Announcements == nil {
		t.Error("no announcements are null instead of []")
	}
}

func TestReadingIsToldToTheOtherDevices(t *testing.T) {
	s := newStore()
	ids := domain.List[domain.AnnouncementID]{{1}, {2}}
	d := wantNumber(t, "some", s, user(bob), &domain.MarkAnnouncementsRead{Announcements: ids}, 0)
	want := domain.AnnouncementMark{User: bob, IDs: ids, Time: now}
	if diff := cmp.Diff(&want, d.AnnouncementsRead); diff != "" {
		t.Error(diff)
	}
	if n := d.Notices[0]; !n.OthersOnly || !slices.Equal(n.To, []domain.UserID{bob}) || len(n.Notice.Announcements) != 2 {
		t.Errorf("told %+v", n)
	}
	d = wantNumber(t, "all", s, user(bob), &domain.MarkAnnouncementsRead{}, 0)
	if d.AnnouncementsRead == nil || d.AnnouncementsRead.IDs != nil {
		t.Errorf("%+v", d.AnnouncementsRead)
	}
	for what, list := range map[string]domain.List[domain.AnnouncementID]{
		"none": {}, "101": slices.Repeat(ids[:1], 101), "zero": {{}},
	} {
		wantNumber(t, what, s, user(bob), &domain.MarkAnnouncementsRead{Announcements: list}, 1)
	}
}

func TestRemovedAnnouncementsSayNothingAnyMore(t *testing.T) {
	// A service that told the wrong people must be able to take it back: what remains is that its id was used.
	s := newStore()
	s.announced(7, alice, bob)
	s.announced(8, bob)
	s.announcements[1].Expires = now
	remove := func(id domain.AnnouncementID) *domain.RemoveAnnouncement {
		return &domain.RemoveAnnouncement{Announcement: id}
	}
	for range 2 { // the second time: nobody heard of the first
		d := wantNumber(t, "remove", s, service(), remove(domain.AnnouncementID{7}), 0)
		want := s.announcements[0]
		want.Content, want.Priority, want.Push, want.Removed = domain.Content{}, "", nil, true
		if diff := cmp.Diff(&want, d.AnnouncementRemoved); diff != "" {
			t.Error(diff)
		}
		told := []domain.Told{{
			Notice: domain.Notice{Type: "announcementRemoved", Time: now, Announcements: []domain.AnnouncementID{{7}}}, To: []domain.UserID{alice, bob},
		}}
		if diff := cmp.Diff(told, d.Notices); diff != "" {
			t.Error(diff)
		}
		s.announcements[0] = *d.AnnouncementRemoved
	}
	stored, err := s.announcements[0].MarshalStored()
	if err != nil || strings.Contains(string(stored), "hello") || !strings.Contains(string(stored), "a-7") {
		t.Errorf("%s, %v", stored, err)
	}
	wantNumber(t, "it has expired", s, service(), remove(domain.AnnouncementID{8}), 110)
	wantNumber(t, "there is none", s, service(), remove(domain.AnnouncementID{9}), 110)
	wantNumber(t, "none is named", s, service(), remove(domain.AnnouncementID{}), 1)
	wantNumber(t, "by a recipient", s, user(bob), remove(domain.AnnouncementID{7}), 12)
}
