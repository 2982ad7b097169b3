package storetest

import (
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

// behind gives all that a session is behind, as it comes in pages of limit.
func behind(tb testing.TB, s Store, id domain.SessionID, limit int) []domain.Stretch {
	tb.Helper()
	var list []domain.Stretch
	var after domain.ConversationID
	for {
		page, err := s.Behind(tb.Context(), id, after, limit)
		must(tb, err)
		if list = append(list, page...); len(page) < limit {
			return list
		}
		after = page[len(page)-1].Conversation
	}
}

// isBehind checks what a session is behind; want may be in any order.
func isBehind(tb testing.TB, s Store, id domain.SessionID, what string, want ...domain.Stretch) {
	tb.Helper()
	slices.SortFunc(want, compareStretches)
	equal(tb, "behind, "+what, behind(tb, s, id, 100), want)
}

func compareStretches(a, b domain.Stretch) int {
	if n := slices.Compare(a.Conversation[:], b.Conversation[:]); n != 0 {
		return n
	}
	return int(a.From - b.From)
}

func stretch(c *domain.Conversation, from, to domain.Seq) domain.Stretch {
	return domain.Stretch{Conversation: c.ID, From: from, To: to}
}

func withheld(c *domain.Conversation, from, to domain.Seq) domain.Stretch {
	return domain.Stretch{Conversation: c.ID, From: from, To: to, Withheld: true}
}

// acknowledged saves one position.
func acknowledged(tb testing.TB, s Store, id domain.SessionID, c *domain.Conversation, seq domain.Seq) {
	tb.Helper()
	must(tb, s.SavePositions(tb.Context(), []domain.Position{{Session: id, Conversation: c.ID, Seq: seq}}, nil))
}

// texts appends n messages to a conversation.
func (w *World) texts(log Log, c *domain.Conversation, n int) {
	w.tb.Helper()
	var batch []domain.Draft
	head := w.Head(c.ID)
	for range n {
		batch = append(batch, w.Draft(head, 0, w.NewID().String(), "text"))
	}
	w.Send(log, batch...)
}

func positionsStartAtTheEnd(t *testing.T, b Backend) {
	// A subscription is to what happens from then on, and to nothing that it was not for.
	s := open(t, b)
	w := NewWorld(t, s, 3)
	ctx := t.Context()
	log := s.Committers()[0]
	c, d := w.Group(log, 1, 2), w.Group(log, 1)
	w.texts(log, c, 3)
	w.texts(log, d, 1)
	id := fresh(t, s, phone(w, 1, 1000))
	isBehind(t, s, id, "without a subscription")
	save := func(start []*domain.Conversation, all bool, subs ...domain.Subscription) {
		t.Helper()
		var ids []domain.ConversationID
		for _, c := range start {
			ids = append(ids, c.ID)
		}
		must(t, s.SaveSubscriptions(ctx, id, subs, ids, all))
	}
	signals := domain.Subscription{Filter: "conversations/+/signals"}
	shared := domain.Subscription{Filter: "$share/group/conversations/+/events"}

	save([]*domain.Conversation{c}, false, toOne(c), signals, shared)
	isBehind(t, s, id, "one at its end")
	w.texts(log, c, 1) // 5
	w.texts(log, d, 1) // 3
	isBehind(t, s, id, "one", stretch(c, 5, 5))

	// All, of which c is one already; d starts now, e when it is joined.
	save(nil, true, toOne(c), toAll(), signals)
	e := w.Group(log, 1)
	w.texts(log, e, 1)
	w.texts(log, d, 1) // 4
	all := []domain.Stretch{stretch(c, 5, 5), stretch(d, 4, 4), stretch(e, 1, 2)}
	isBehind(t, s, id, "all", all...)
	// Clients subscribe again each time they come back. That skips nothing, nor does a single one that is covered by all.
	save([]*domain.Conversation{c, e}, true, toOne(c), toOne(e), toAll())
	isBehind(t, s, id, "the same again", all...)
	save(nil, false, toOne(e), toAll())
	isBehind(t, s, id, "all still covers c", all...)

	// What is not covered any more is forgotten, and starts at its end when it is covered again.
	save(nil, false, toOne(e))
	isBehind(t, s, id, "only e", stretch(e, 1, 2))
	acknowledged(t, s, id, d, 4) // was still on its way
	w.texts(log, c, 1)           // 6
	w.texts(log, d, 1)           // 5
	isBehind(t, s, id, "only e as before", stretch(e, 1, 2))
	save(nil, true, toOne(e), toAll())
	isBehind(t, s, id, "all again", stretch(e, 1, 2))
	w.texts(log, d, 1) // 6
	isBehind(t, s, id, "all goes on", stretch(e, 1, 2), stretch(d, 6, 6))
	save(nil, false, signals)
	isBehind(t, s, id, "nothing")
	save([]*domain.Conversation{e, d}, false, toOne(e))
	w.texts(log, d, 1) // 7
	w.texts(log, e, 1) // 3
	isBehind(t, s, id, "e from its end", stretch(e, 3, 3))

	refused(t, "no session", s.SaveSubscriptions(ctx, id+1000, nil, nil, true), domain.NotFound)
}

func behindFollowsMembership(t *testing.T, b Backend) {
	// Everybody gets the events of their times of membership, the last of which says that it ends, and no others.
	s := open(t, b)
	w := NewWorld(t, s, 4)
	log := s.Committers()[0]
	add := func(c *domain.Conversation, user int) {
		t.Helper()
		w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(user)})
	}
	remove := func(c *domain.Conversation, user int) {
		t.Helper()
		w.Change(log, w.User(0), &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(user)}})
	}
	left, present, other := w.Group(log, 1), w.Group(log, 1), w.Group(log, 2)
	remove(left, 1) // 2
	w.texts(log, left, 2)
	id := subscribed(t, s, phone(w, 1, 1000))
	isBehind(t, s, id, "at the start")

	w.texts(log, other, 2)
	w.texts(log, present, 2) // 3
	isBehind(t, s, id, "where it takes part", stretch(present, 2, 3))

	// It joins, leaves, joins again; and comes back to one that it had left.
	joined := w.Group(log, 2)
	w.texts(log, joined, 1)  // 2
	add(joined, 1)           // 3
	w.texts(log, joined, 1)  // 4
	remove(joined, 1)        // 5
	w.texts(log, joined, 1)  // 6
	add(joined, 1)           // 7
	add(left, 1)             // 5
	w.texts(log, left, 1)    // 6
	remove(present, 1)       // 4
	w.texts(log, present, 2) // 6
	isBehind(t, s, id, "of all times", stretch(present, 2, 4), stretch(joined, 3, 5), stretch(joined, 7, 7), stretch(left, 5, 6))

	// Partly acknowledged: in the first stretch, at its end, in between, in the second.
	for _, c := range []struct {
		seq  domain.Seq
		want []domain.Stretch
	}{
		{3, []domain.Stretch{stretch(joined, 4, 5), stretch(joined, 7, 7)}},
		{5, []domain.Stretch{stretch(joined, 7, 7)}},
		{6, []domain.Stretch{stretch(joined, 7, 7)}},
		{7, nil},
	} {
		acknowledged(t, s, id, joined, c.seq)
		isBehind(t, s, id, fmt.Sprint("acknowledged up to ", c.seq), append(c.want, stretch(present, 2, 4), stretch(left, 5, 6))...)
	}
	acknowledged(t, s, id, present, 4)
	acknowledged(t, s, id, left, 6)
	isBehind(t, s, id, "all acknowledged")

	// A conversation that was removed for all ends with the event that says so.
	must(t, w.Try(log, w.Edit(left.ID, func(c *domain.Conversation) { c.Removed = true }))[0].Err)
	isBehind(t, s, id, "removed", stretch(left, 7, 7))

	// Without canRead what was missed before is withheld, until it is given back, and then what was said meanwhile is not in it;
	// owners have every right, and who has left sees what it was allowed to.
	may := func(c *domain.Conversation, p domain.Permissions) {
		t.Helper()
		must(t, w.Try(log, w.Edit(c.ID, func(c *domain.Conversation) {
			for i := range c.Participants {
				if c.Participants[i].UserID == w.Users[1].ID {
					c.Participants[i].Permissions = p
				}
			}
		}))[0].Err)
	}
	may(joined, domain.Permissions{CanWrite: true}) // 8
	w.texts(log, joined, 1)                         // 9
	isBehind(t, s, id, "without canRead", stretch(left, 7, 7), withheld(joined, 8, 8))
	may(joined, domain.Permissions{IsOwner: true}) // 10
	isBehind(t, s, id, "owner", stretch(left, 7, 7), stretch(joined, 8, 8), stretch(joined, 10, 10))
	may(joined, domain.Permissions{CanEditAll: true}) // 11
	isBehind(t, s, id, "without canRead again", stretch(left, 7, 7), withheld(joined, 8, 8), withheld(joined, 10, 11))
	remove(joined, 1) // 12
	isBehind(t, s, id, "left", stretch(left, 7, 7), stretch(joined, 8, 8), stretch(joined, 10, 11))
}

func behindComesInPages(t *testing.T, b Backend) {
	// Whatever falls between two pages is lost to the device.
	s := open(t, b)
	w := NewWorld(t, s, 2)
	log := s.Committers()[0]
	id := subscribed(t, s, phone(w, 1, 1000))
	var want []domain.Stretch
	var only []domain.Subscription
	var some []domain.Stretch
	for i := range 25 {
		c := w.Group(log, 1)
		n := i % 4
		stretches := []domain.Stretch{stretch(c, 1, domain.Seq(max(1, 2*n)))}
		if n > 0 {
			stretches[0].To = 2
		}
		for j := range n {
			w.Change(log, w.User(0), &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(1)}})
			w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(1)})
			from := domain.Seq(3 + 2*j)
			stretches = append(stretches, stretch(c, from, from+1))
		}
		stretches[n].To = domain.Seq(1 + 2*n)
		want = append(want, stretches...)
		if i%3 == 0 {
			only, some = append(only, toOne(c)), append(some, stretches...)
		}
	}
	slices.SortFunc(want, compareStretches)
	slices.SortFunc(some, compareStretches)
	for limit := 1; limit <= len(want)+1; limit++ {
		equal(t, fmt.Sprint("pages of ", limit), behind(t, s, id, limit), want)
	}
	must(t, s.SaveSubscriptions(t.Context(), id, only, nil, false))
	for limit := 1; limit <= len(some)+1; limit++ {
		equal(t, fmt.Sprint("some in pages of ", limit), behind(t, s, id, limit), some)
	}
	for _, limit := range []int{0, -1} {
		page, err := s.Behind(t.Context(), id, domain.ConversationID{}, limit)
		must(t, err)
		equal(t, "no page", page, []domain.Stretch(nil))
	}
	page, err := s.Behind(t.Context(), id+1000, domain.ConversationID{}, 10)
	must(t, err)
	equal(t, "no session", page, []domain.Stretch(nil))
}

func positionsNeverGoBack(t *testing.T, b Backend) {
	// An older one may be saved late, by another goroutine or another node.
	const conversations, last = 12, 40
	all := worlds(t, b, 3)
	w := all[0]
	log := w.Store.Committers()[0]
	ids := []domain.SessionID{subscribed(t, w.Store, phone(w, 1, 1000)), subscribed(t, w.Store, phone(w, 2, 1000))}
	var heads []*domain.Conversation
	for range conversations {
		c := w.Group(log, 1, 2)
		w.texts(log, c, last-1)
		heads = append(heads, w.Head(c.ID))
	}
	var mu sync.Mutex // guards highest and marked
	highest := make(map[domain.Position]domain.Seq)
	marked := make(map[domain.Mark]domain.Seq)
	var wg sync.WaitGroup
	for i := range 6 {
		store := all[i%len(all)].Store
		wg.Go(func() {
			for range 25 {
				var positions []domain.Position
				var marks []domain.Mark
				// In any order, some of them twice, some of sessions and users that there are not.
				for range 1 + mrand.IntN(40) {
					c := heads[mrand.IntN(conversations)].ID
					seq := domain.Seq(1 + mrand.IntN(last))
					positions = append(positions, domain.Position{Session: ids[mrand.IntN(2)], Conversation: c, Seq: seq})
					marks = append(marks, domain.Mark{Conversation: c, User: w.Users[1+mrand.IntN(2)].ID, Seq: seq})
				}
				positions = append(positions, domain.Position{Session: 1_000_000, Conversation: heads[0].ID, Seq: 1})
				marks = append(marks, domain.Mark{Conversation: heads[0].ID, User: 1_000_000, Seq: 1},
					domain.Mark{Conversation: w.NewID(), User: w.Users[1].ID, Seq: 1})
				if err := store.SavePositions(t.Context(), positions, marks); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, p := range positions {
					at := domain.Position{Session: p.Session, Conversation: p.Conversation}
					highest[at] = max(highest[at], p.Seq)
				}
				for _, m := range marks {
					at := domain.Mark{Conversation: m.Conversation, User: m.User}
					marked[at] = max(marked[at], m.Seq)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i, id := range ids {
		var want []domain.Stretch
		for _, c := range heads {
			if p := highest[domain.Position{Session: id, Conversation: c.ID}]; p < last {
				want = append(want, stretch(c, p+1, last))
			}
		}
		isBehind(t, w.Store, id, fmt.Sprint("session ", i), want...)
	}
	for _, c := range heads {
		// Nothing but the marks has changed, the version least of all.
		for i := range c.Participants {
			p := &c.Participants[i]
			p.LastDelivered = marked[domain.Mark{Conversation: c.ID, User: p.UserID}]
		}
		equal(t, "head", w.Head(c.ID), c)
	}
	must(t, w.Store.SavePositions(t.Context(), nil, nil))
}

func marksMeetChanges(t *testing.T, b Backend) {
	// Receipts come in by the thousands, while people join, leave and read. Neither may wait for the other in a circle, nor
	// undo what the other has done.
	const conversations, rounds = 8, 30
	all := worlds(t, b, 3)
	w := all[0]
	var heads []*domain.Conversation
	logs, of := committers(all...)
	for range conversations {
		c := w.Group(logs[0], 1, 2)
		w.texts(logs[0], c, 20)
		heads = append(heads, c)
	}
	var wg sync.WaitGroup
	for i, log := range logs {
		wg.Go(func() {
			for round := range rounds {
				var batch []domain.ChangeRequest
				for _, n := range mrand.Perm(conversations) {
					batch = append(batch, of[i].Edit(heads[n].ID, func(c *domain.Conversation) {
						for k := range c.Participants {
							c.Participants[k].LastRead = domain.Seq(round % 20)
						}
					}))
				}
				changed, err := log.Change(t.Context(), batch)
				if err != nil {
					t.Error(err)
					return
				}
				for _, c := range changed {
					if c.Err != nil {
						t.Error(c.Err)
					}
				}
			}
		})
	}
	for _, v := range all {
		wg.Go(func() {
			for round := range rounds {
				var marks []domain.Mark
				for _, c := range heads {
					for _, u := range w.Users {
						marks = append(marks, domain.Mark{Conversation: c.ID, User: u.ID, Seq: domain.Seq(round % 20)})
					}
				}
				if err := v.Store.SavePositions(t.Context(), nil, marks); err != nil {
					t.Error(err)
				}
				for _, c := range heads {
					for _, p := range w.Head(c.ID).Participants {
						if p.LastDelivered < domain.Seq(min(round, 19)) {
							t.Errorf("mark %d was saved, and is %d", round, p.LastDelivered)
						}
					}
				}
			}
		})
	}
	wg.Wait()
}
