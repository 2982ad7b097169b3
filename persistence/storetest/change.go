package storetest

import (
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/parley-im/parley/domain"
)

func simultaneousCreations(t *testing.T, b Backend) {
	// Two people who write to each other at the same moment must end up in one conversation.
	const pairs = 12
	all := worlds(t, b, pairs+2)
	logs, of := committers(all...)
	command := func(i int) domain.Command {
		if i%2 == 0 {
			return &domain.CreateConversation{Direct: true, Participants: all[0].New(i + 1)}
		}
		return &domain.CreateConversation{Distinct: true, Participants: all[0].New(i+1, i+2)}
	}
	found := make([][]*domain.Conversation, len(logs))
	var wg sync.WaitGroup
	for l, log := range logs {
		wg.Go(func() {
			for i := range pairs {
				// Twice in a batch, so that a request meets the work of another of its own transaction as well.
				batch := []domain.ChangeRequest{of[l].Request(of[l].User(0), command(i)), of[l].Request(of[l].User(0), command(i))}
				changed, err := log.Change(t.Context(), batch)
				if err != nil {
					t.Error(err)
					return
				}
				if second := changed[1].Decision.Result; second.Existing == nil || !*second.Existing {
					t.Errorf("the second of a batch is not told of an existing conversation: %+v", changed[1])
				}
				for _, c := range changed {
					if c.Err != nil {
						t.Error(c.Err)
						return
					}
					found[l] = append(found[l], c.Decision.Result.Conversation)
				}
			}
		})
	}
	wg.Wait()
	for l := range found {
		for i := range found[l] {
			if found[l][i].ID != found[0][i/2*2].ID {
				t.Errorf("creation %d ended in %s and in %s", i/2, found[l][i].ID, found[0][i/2*2].ID)
			}
			equal(t, "the existing conversation", found[l][i], found[0][i/2*2])
		}
	}
	h, err := all[0].Store.Heads(t.Context(), all[0].User(0), domain.Needs{Self: true})
	must(t, err)
	if n := len(h.Self.ConversationsList); n != pairs {
		t.Errorf("%d conversations instead of %d", n, pairs)
	}
	for _, id := range h.Self.ConversationsList {
		if n := len(all[0].Log(id)); n != 1 {
			t.Errorf("conversation %s has %d events", id, n)
		}
	}
}

func distinctLosesItsKey(t *testing.T, b Backend) {
	// Once somebody was added it is another conversation, and the old set of people may have a new one.
	w := NewWorld(t, open(t, b), 3)
	log := w.Store.Committers()[0]
	create := &domain.CreateConversation{Distinct: true, Participants: w.New(1), CustomData: domain.RawObject(`{"a":1}`)}
	first := w.Change(log, w.User(0), create).Decision.Conversation
	other := &domain.CreateConversation{Distinct: true, Participants: w.New(1), CustomData: domain.RawObject(`{"a":2}`)}
	conflict := w.Try(log, w.Request(w.User(0), other))[0]
	refused(t, "other custom data", conflict.Err, domain.DistinctConflict)
	if e := domain.AsError(conflict.Err); e == nil || e.Conversation == nil || e.Conversation.ID != first.ID {
		t.Errorf("the conflict does not name the conversation: %+v", conflict.Err)
	}
	w.Change(log, w.User(0), &domain.AddParticipants{UUID: first.ID, Participants: w.New(2)})
	w.Change(log, w.User(0), &domain.RemoveParticipants{UUID: first.ID, Participants: []domain.UserRef{w.Ref(2)}})
	second := w.Change(log, w.User(0), other)
	if second.Decision.Conversation == nil || second.Decision.Conversation.ID == first.ID {
		t.Errorf("the conversation that is not distinct any more was found: %+v", second)
	}
	if head := w.Head(first.ID); head.Distinct || head.UniqueKey != "" {
		t.Errorf("still distinct: %+v", head)
	}
}

func refusedChangesDoNotDisturb(t *testing.T, b Backend) {
	// A batch is of strangers: one may not pay for the other's mistake.
	w := NewWorld(t, open(t, b), 4)
	log := w.Store.Committers()[0]
	c, d := w.Group(log, 1), w.Group(log, 1)
	remove := &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(1)}}
	anyone := errors.New("not a refusal but an error all the same")
	odd := w.Request(w.User(0), remove)
	odd.Decide = func(*domain.Heads) (domain.Decision, error) { return domain.Decision{}, anyone }
	changed := w.Try(log,
		w.Request(w.User(1), remove), // may not
		w.Request(w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(2)}),
		w.Request(w.User(0), &domain.AddParticipants{UUID: w.NewID(), Participants: w.New(2)}),
		odd,
		w.Request(w.User(0), remove),
		w.Request(w.User(0), &domain.AddParticipants{UUID: d.ID, Participants: w.New(1)}), // is in it
		w.Request(w.User(0), &domain.CreateConversation{Direct: true, Participants: w.New(3)}),
	)
	refused(t, "first", changed[0].Err, domain.AccessDenied)
	refused(t, "third", changed[2].Err, domain.ConversationNotFound)
	if !errors.Is(changed[3].Err, anyone) {
		t.Errorf("fourth: %v", changed[3].Err)
	}
	refused(t, "sixth", changed[5].Err, domain.AlreadyParticipant)
	for _, i := range []int{1, 4, 6} {
		if changed[i].Err != nil || len(changed[i].Decision.Events) != 1 {
			t.Errorf("request %d: %+v", i, changed[i])
		}
	}
	for _, i := range []int{0, 2, 3, 5} {
		if changed[i].Before != nil || changed[i].Decision.Events != nil {
			t.Errorf("refused request %d has more than an error: %+v", i, changed[i])
		}
	}
	equal(t, "head", w.Head(c.ID), changed[4].Decision.Conversation)
	equal(t, "untouched", w.Head(d.ID), d)
	if n := len(w.Log(c.ID)); n != 3 {
		t.Errorf("%d events", n)
	}
}

func laterChangesSeeEarlierOnes(t *testing.T, b Backend) {
	// A batch is decided in order, each request on what the one before has left.
	w := NewWorld(t, open(t, b), 4)
	log := w.Store.Committers()[0]
	c := w.Group(log)
	var batch []domain.ChangeRequest
	for i := 1; i < 4; i++ {
		batch = append(batch, w.Request(w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(i)}))
	}
	batch = append(batch,
		w.Request(w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(2)}),
		w.Request(w.User(0), &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(2)}}),
		w.Request(w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(2)}))
	changed := w.Try(log, batch...)
	refused(t, "twice", changed[3].Err, domain.AlreadyParticipant)
	before := c
	for _, i := range []int{0, 1, 2, 4, 5} {
		if changed[i].Err != nil {
			t.Fatal(changed[i].Err)
		}
		equal(t, "before", changed[i].Before, before)
		before = changed[i].Decision.Conversation
	}
	equal(t, "head", w.Head(c.ID), before)
	if before.LastSeq != 6 || before.Version != 6 {
		t.Errorf("last number %d, version %d", before.LastSeq, before.Version)
	}
	w.Log(c.ID)
}

func repeatedChangesAreCommittedOnce(t *testing.T, b Backend) {
	// After an unknown outcome the gateway gives the same requests again, perhaps by another connection.
	place := b.New(t)
	s := place.Open(t)
	w := NewWorld(t, s, 4)
	log := s.Committers()[0]
	c := w.Group(log, 1)
	create := w.Request(w.User(0), &domain.CreateConversation{Title: "t", Participants: w.New(1)})
	add := w.Request(w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(2, 3)})
	remove := w.Request(w.User(0), &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(1)}})
	refusedOne := w.Request(w.User(1), &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(0)}})
	batch := []domain.ChangeRequest{create, add, refusedOne, remove}
	first := w.Try(log, batch...)
	w.Send(log, w.Draft(first[3].Decision.Conversation, 0, "later", "text"))

	check := func(log Log, w *World) {
		t.Helper()
		again := w.Try(log, batch...)
		for i := range again {
			if (again[i].Err == nil) != (first[i].Err == nil) {
				t.Fatalf("request %d: %v, then %v", i, first[i].Err, again[i].Err)
			}
			equal(t, "events", again[i].Decision.Events, first[i].Decision.Events, presentOnly()...)
		}
		now := w.Head(c.ID)
		equal(t, "conversation", again[1].Decision.Conversation, now)
		equal(t, "result", again[1].Decision.Result.Conversation, now)
		if e := again[0].Decision.Result.Existing; e == nil || *e || again[0].Before != nil {
			t.Errorf("the creation: %+v", again[0])
		}
		for _, i := range []int{1, 3} {
			equal(t, "who took part before", userIDs(again[i].Before), userIDs(first[i].Before),
				cmpopts.SortSlices(func(a, b domain.UserID) bool { return a < b }))
			if again[i].Before.LastSeq != first[i].Before.LastSeq {
				t.Errorf("before: last number %d, then %d", first[i].Before.LastSeq, again[i].Before.LastSeq)
			}
		}
		if n := len(w.Log(c.ID)); n != 4 {
			t.Errorf("%d events", n)
		}
	}
	check(log, w)
	must(t, s.Close())
	s = place.Open(t)
	check(s.Committers()[0], w.On(s))
	if b.Shared {
		other := place.Open(t)
		check(other.Committers()[0], w.On(other))
	}
}

func userIDs(c *domain.Conversation) []domain.UserID {
	if c == nil {
		return nil
	}
	ids := []domain.UserID{}
	for _, p := range c.Participants {
		ids = append(ids, p.UserID)
	}
	return ids
}

func repeatedChangesMeeting(t *testing.T, b Backend) {
	// A connection that was given up may still be committing what the next one repeats.
	all := worlds(t, b, 3)
	w := all[0]
	logs, of := committers(all...)
	c := w.Group(logs[0])
	var requests []domain.ChangeRequest
	for i := range 10 {
		if i%2 == 0 {
			requests = append(requests, w.Request(w.User(0), &domain.CreateConversation{Participants: w.New(1)}))
		} else {
			requests = append(requests, w.Retitle(c.ID, rand.Text()))
		}
	}
	results := make([][]domain.Changed, len(logs))
	var wg sync.WaitGroup
	for l, log := range logs {
		wg.Go(func() {
			for _, r := range requests {
				changed, err := log.Change(t.Context(), []domain.ChangeRequest{r, r})
				if err != nil {
					t.Error(err)
					return
				}
				results[l] = append(results[l], changed...)
			}
		})
	}
	wg.Wait()
	for l := range results {
		for i, r := range results[l] {
			equal(t, "outcome", r.Decision.Events, results[0][i/2*2].Decision.Events, presentOnly()...)
		}
	}
	for _, w := range of {
		if n := len(w.Log(c.ID)); n != 6 {
			t.Errorf("%d events", n)
		}
	}
	h, err := w.Store.Heads(t.Context(), w.User(0), domain.Needs{Self: true})
	must(t, err)
	if n := len(h.Self.ConversationsList); n != 6 {
		t.Errorf("%d conversations", n)
	}
}

func brokenDecisions(t *testing.T, b Backend) {
	// A fault in the rules must not become a gap in a log.
	w := NewWorld(t, open(t, b), 3)
	log := w.Store.Committers()[0]
	c := w.Group(log, 1)
	add := &domain.AddParticipants{UUID: c.ID, Participants: w.New(2)}
	for name, spoil := range map[string]func(*domain.Decision){
		"number too high":      func(d *domain.Decision) { d.Events[0].Seq++ },
		"number taken":         func(d *domain.Decision) { d.Events[0].Seq-- },
		"another conversation": func(d *domain.Decision) { d.Events[0].Conversation = w.NewID() },
		"last number":          func(d *domain.Decision) { d.Conversation.LastSeq++ },
		"version":              func(d *domain.Decision) { d.Conversation.Version++ },
		"no event":             func(d *domain.Decision) { d.Events = nil },
		"unknown type":         func(d *domain.Decision) { d.Events[0].Type = domain.NoticeError },
		"no such message": func(d *domain.Decision) {
			d.Message = &domain.Event{Type: domain.EventSendMessage, Conversation: c.ID, Seq: 9}
		},
		"not a message": func(d *domain.Decision) { d.Message = d.Events[0] },
	} {
		r := w.Request(w.User(0), add)
		r.Decide = func(h *domain.Heads) (domain.Decision, error) {
			d, err := domain.Decide(withTime(h, w), w.User(0), add)
			if err == nil {
				spoil(&d)
			}
			return d, err
		}
		good := w.Request(w.User(0), &domain.CreateConversation{Participants: w.New(1)})
		changed := w.Try(log, r, good)
		refused(t, name, changed[0].Err, domain.Internal)
		if changed[1].Err != nil {
			t.Errorf("%s: the next request: %v", name, changed[1].Err)
		}
		equal(t, name, w.Head(c.ID), c)
		w.Log(c.ID)
	}
}

func membershipIntervals(t *testing.T, b Backend) {
	// What a former participant may read is decided by these.
	w := NewWorld(t, open(t, b), 4)
	log := w.Store.Committers()[0]
	c := w.Group(log, 1)
	id := c.ID
	send := func(n int) {
		for range n {
			w.Send(log, w.Draft(w.Head(id), 0, rand.Text(), "text"))
		}
	}
	add := func(users ...int) {
		w.Change(log, w.User(0), &domain.AddParticipants{UUID: id, Participants: w.New(users...)})
	}
	remove := func(users ...int) {
		var refs []domain.UserRef
		for _, i := range users {
			refs = append(refs, w.Ref(i))
		}
		w.Change(log, w.User(0), &domain.RemoveParticipants{UUID: id, Participants: refs})
	}
	send(2)      // 2, 3
	add(2, 3)    // 4
	send(1)      // 5
	remove(1, 2) // 6
	send(1)      // 7
	add(1)       // 8
	remove(1)    // 9
	add(1, 2)    // 10
	remove(3)    // 11
	for user, want := range [][]domain.Interval{
		{{From: 1}},
		{{From: 1, To: 6}, {From: 8, To: 9}, {From: 10}},
		{{From: 4, To: 6}, {From: 10}},
		{{From: 4, To: 11}},
	} {
		h, err := w.Store.Heads(t.Context(), w.User(user), domain.Needs{Conversations: []domain.ConversationID{id}, Past: true, Self: true})
		must(t, err)
		equal(t, w.Users[user].DisplayName, h.Past[id], want)
		open := want[len(want)-1].To == 0
		if in := slices.Contains(h.Self.ConversationsList, id); in != open {
			t.Errorf("user %d: conversationsList has it: %v", user, in)
		}
		if left := slices.Contains(h.Self.LeaveConversationList, id); left == open {
			t.Errorf("user %d: leaveConversationList has it: %v", user, left)
		}
		if p, in := h.Conversations[0].Participant(w.Users[user].ID); in && p.JoinedSeq != want[len(want)-1].From {
			t.Errorf("user %d joined with %d", user, p.JoinedSeq)
		}
	}
	w.Log(id)
}

func participantsKeepTheirOrder(t *testing.T, b Backend) {
	// A list that jumps about with every change confuses people and caches.
	w := NewWorld(t, open(t, b), 8)
	log := w.Store.Committers()[0]
	c := w.Group(log, 3, 1, 2)
	check := func(want ...int) {
		t.Helper()
		var ids []domain.UserID
		for _, i := range want {
			ids = append(ids, w.Users[i].ID)
		}
		equal(t, "order", userIDs(w.Head(c.ID)), ids)
	}
	check(0, 3, 1, 2)
	w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(7, 5)})
	check(0, 3, 1, 2, 7, 5)
	w.Change(log, w.User(0), &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(1), w.Ref(5)}})
	check(0, 3, 2, 7)
	w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(1, 6)})
	check(0, 3, 2, 7, 1, 6)

	// Whatever order a decision gives is kept, and so are the participants' own fields.
	var want *domain.Conversation
	r := w.Edit(c.ID, func(conv *domain.Conversation) {
		p := conv.Participants
		p[0], p[5] = p[5], p[0]
		p[2].LastRead, p[2].LastDelivered, p[3].Permissions.CanWrite = 3, 4, false
		conv.Participants = slices.Insert(p, 1, domain.Participant{UserID: w.Users[4].ID, Username: w.Users[4].Username, JoinedSeq: 5})
		want = conv
	})
	if changed := w.Try(log, r)[0]; changed.Err != nil {
		t.Fatal(changed.Err)
	}
	check(6, 4, 3, 2, 7, 1, 0)
	equal(t, "head", w.Head(c.ID), want)
}
