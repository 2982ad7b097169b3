package storetest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/parley-im/parley/domain"
)

func rangesAreExact(t *testing.T, b Backend) {
	// An event too few is a gap for the reader, one too many a duplicate.
	w := NewWorld(t, open(t, b), 2)
	log := w.Store.Committers()[0]
	c, other := w.Group(log, 1), w.Group(log, 1)
	for i := range 9 {
		w.Send(log, w.Draft(c, 0, string(rune('a'+i)), "text"), w.Draft(other, 0, string(rune('a'+i)), "text"))
	}
	for _, r := range []struct {
		after, upto domain.Seq
		want        []domain.Seq
	}{
		{0, 10, []domain.Seq{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{0, 1000, []domain.Seq{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{0, 1, []domain.Seq{1}},
		{9, 10, []domain.Seq{10}},
		{3, 6, []domain.Seq{4, 5, 6}},
		{10, 20, nil},
		{5, 5, nil},
		{6, 3, nil},
		{-5, 2, []domain.Seq{1, 2}},
	} {
		list, err := w.Store.Events(t.Context(), c.ID, r.after, r.upto)
		must(t, err)
		var got []domain.Seq
		for _, e := range list {
			if e.Conversation != c.ID {
				t.Errorf("event %d is of another conversation", e.Seq)
			}
			got = append(got, e.Seq)
		}
		if !slices.Equal(got, r.want) {
			t.Errorf("after %d up to %d: got %v, want %v", r.after, r.upto, got, r.want)
		}
	}
	if list, err := w.Store.Events(t.Context(), w.NewID(), 0, 10); err != nil || len(list) != 0 {
		t.Errorf("no conversation: %v, %v", list, err)
	}
}

func storedEventsReadAsWritten(t *testing.T, b Backend) {
	// What a reader gets a year later must be what the first ones got.
	w := NewWorld(t, open(t, b), 3)
	log := w.Store.Committers()[0]
	created := w.Change(log, w.User(0), &domain.CreateConversation{
		Title: "Plans — 計画 🗺", Uber: true, PublicJoin: true, Policy: domain.Open, Participants: w.New(1),
		CustomData: domain.RawObject(`{"a":[1,2.50,"\u0000"],"b":null}`),
	})
	c := created.Decision.Conversation
	var m domain.SendMessage
	m.Conversation = c.ID
	m.ClientID = "k"
	m.Text = "line\nbreak \" \\ \u2028 ä 🗺 <&>"
	m.Payload = []domain.RawObject{domain.RawObject(`{"x":{"y":"\u0000"}}`)}
	m.Parts = []domain.Part{{MimeType: "image/png", Body: "AAEC/w==", Encoding: "base64"}, {MimeType: "video/mp4", URL: "https://x/y", Size: 1 << 40}}
	m.MessageType, m.Attributes = -2, domain.RawObject(`{"n":12345678901234567890}`)
	m.Mentions = &domain.Mentions{Users: []domain.Username{w.Users[1].Username}}
	m.Notification = &domain.Notification{Text: "t", Sound: "s"}
	m.Options = &domain.Options{Receipt: true, Priority: "high", Push: domain.RawObject(`{"p":1}`)}
	d, err := domain.Decide(&domain.Heads{Conversation: c, Now: 123456789012345, Limits: domain.DefaultLimits()}, w.User(0), &m)
	must(t, err)
	service := domain.Principal{Service: 7, ServiceName: "Billing", Root: w.Users[0].Root, Account: w.Users[0].Account}
	var plain domain.SendMessage
	plain.Conversation, plain.ClientID, plain.Text = c.ID, "k", "from a service"
	d2, err := domain.Decide(&domain.Heads{Conversation: c, Now: 5, Limits: domain.DefaultLimits()}, service, &plain)
	must(t, err)
	w.Send(log, domain.Draft{Event: d.Events[0], Version: c.Version}, domain.Draft{Event: d2.Events[0], Version: c.Version})
	d.Events[0].At(c.ID, 2)
	d2.Events[0].At(c.ID, 3)

	list := w.Log(c.ID)
	want := []*domain.Event{created.Decision.Events[0], d.Events[0], d2.Events[0]}
	equal(t, "events", list, want, presentOnly()...)
	if list[1].Sender != domain.SenderID(w.Users[0].ID) || list[1].ClientID != "k" || list[2].Sender != -7 {
		t.Errorf("idempotency keys: %d %q, %d", list[1].Sender, list[1].ClientID, list[2].Sender)
	}
	equal(t, "head", w.Head(c.ID), func() *domain.Conversation { h := *c; h.LastSeq = 3; return &h }())
}

// presentOnly ignores what an event does not keep in the log.
func presentOnly() []cmp.Option {
	return []cmp.Option{
		cmpopts.IgnoreFields(domain.Event{}, "RequestID", "ClientID", "Sender", "Mentioned"),
		cmpopts.IgnoreFields(domain.Conversation{}, "Root", "Account", "Version", "UniqueKey"),
		cmpopts.EquateEmpty(),
	}
}

func headsHoldWhatIsNeeded(t *testing.T, b Backend) {
	// Decisions see nothing but the heads: what is missing there is refused, what is too much may be allowed.
	w := NewWorld(t, open(t, b), 5)
	log := w.Store.Committers()[0]
	c, d, left := w.Group(log, 1), w.Group(log, 1), w.Group(log, 1, 2)
	c = w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(2)}).Decision.Conversation
	w.Change(log, w.User(0), &domain.RemoveParticipants{UUID: left.ID, Participants: []domain.UserRef{w.Ref(1)}})
	w.Send(log, w.Draft(c, 0, "m", "a message"))
	must(t, w.Store.DeleteUser(t.Context(), w.Users[4].ID))
	one := w.User(1)

	h, err := w.Store.Heads(t.Context(), one, domain.Needs{
		Conversation: c.ID, Conversations: []domain.ConversationID{d.ID, w.NewID(), c.ID, d.ID, left.ID}, Past: true, Self: true, Message: 3,
		Users: []domain.UserRef{w.Ref(3), {Username: w.Users[2].Username}, w.Ref(4), {UserID: 1 << 40}, {Username: "x@y.z"}, w.Ref(3)},
	})
	must(t, err)
	if h.Conversation == nil || h.Conversation.ID != c.ID || h.Conversation.LastSeq != 3 || h.Conversation.Version != c.Version {
		t.Errorf("conversation: %+v", h.Conversation)
	}
	var ids []domain.ConversationID
	for _, conv := range h.Conversations {
		ids = append(ids, conv.ID)
	}
	equal(t, "conversations", sortedIDs(ids), sortedIDs([]domain.ConversationID{c.ID, d.ID, left.ID}))
	equal(t, "past", h.Past, map[domain.ConversationID][]domain.Interval{c.ID: {{From: 1}}, d.ID: {{From: 1}}, left.ID: {{From: 1, To: 2}}})
	gone := w.Users[4]
	gone.Deleted = true
	equal(t, "users", h.Users, []domain.User{w.Users[2], w.Users[3], gone})
	if h.Message == nil || h.Message.Message == nil || h.Message.Message.Text != "a message" || h.Message.Seq != 3 {
		t.Errorf("message: %+v", h.Message)
	}
	self := w.Users[1]
	self.Own = &domain.Own{
		ConversationsList: sortedIDs([]domain.ConversationID{c.ID, d.ID}), LeaveConversationList: []domain.ConversationID{left.ID},
		Notifications: []string{},
	}
	equal(t, "self", h.Self, &self)

	h, err = w.Store.Heads(t.Context(), one, domain.Needs{Conversation: c.ID, Message: 2})
	must(t, err)
	if h.Message != nil || h.Self != nil || h.Users != nil || h.Conversations != nil || len(h.Past) > 0 {
		t.Errorf("what was not asked for, or is no message: %+v", h)
	}
	h, err = w.Store.Heads(t.Context(), one, domain.Needs{Conversation: w.NewID(), Past: true, Message: 1})
	must(t, err)
	if h.Conversation != nil || h.Message != nil || len(h.Past) > 0 {
		t.Errorf("of a conversation that does not exist: %+v", h)
	}
	h, err = w.Store.Heads(t.Context(), domain.Principal{Admin: true}, domain.Needs{Self: true, Past: true, Conversation: c.ID})
	must(t, err)
	if h.Self != nil || len(h.Past) > 0 || h.Conversation == nil {
		t.Errorf("a principal that is no user: %+v", h)
	}
}

func sortedIDs(ids []domain.ConversationID) []domain.ConversationID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b domain.ConversationID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

func headsAreConsistent(t *testing.T, b Backend) {
	// A head read while its participants change must be of one moment: the version decides what may be written on it.
	w := NewWorld(t, open(t, b), 3)
	log := w.Store.Committers()[0]
	c := w.Group(log, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		for range 60 {
			for _, cmd := range []domain.Command{
				&domain.AddParticipants{UUID: c.ID, Participants: w.New(2)},
				&domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(2)}},
			} {
				if _, err := log.Change(t.Context(), []domain.ChangeRequest{w.Request(w.User(0), cmd)}); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	two := w.User(2)
	for ctx.Err() == nil {
		h, err := w.Store.Heads(t.Context(), two, domain.Needs{Conversation: c.ID, Past: true})
		must(t, err)
		// Version 1 is the creation; each change adds one event and one version.
		if h.Conversation.LastSeq != domain.Seq(h.Conversation.Version) {
			t.Errorf("version %d with last number %d", h.Conversation.Version, h.Conversation.LastSeq)
		}
		_, in := h.Conversation.Participant(two.User)
		past := h.Past[c.ID]
		if want := h.Conversation.Version%2 == 0; in != want || (want && past[len(past)-1].To != 0) {
			t.Errorf("version %d: takes part: %v, past %v", h.Conversation.Version, in, past)
		}
	}
	wg.Wait()
}
