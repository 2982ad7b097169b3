package storetest

import (
	"context"
	"fmt"
	"math"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

// The sessions of these tests expire after 100 seconds, unless they say otherwise.
const (
	expiry   = 100
	expiryMS = expiry * 1000
)

// phone is a connection of a user's phone to node a.
func phone(w *World, user int, now int64) domain.SessionOpening {
	return domain.SessionOpening{User: w.Users[user].ID, Device: "phone", Version: 5, Expiry: expiry, Node: "a", Now: now}
}

func begin(tb testing.TB, s Store, o domain.SessionOpening) domain.StoredSession {
	tb.Helper()
	stored, err := s.OpenSession(tb.Context(), o)
	must(tb, err)
	return stored
}

// fresh begins a connection that must not find a session.
func fresh(tb testing.TB, s Store, o domain.SessionOpening) domain.SessionID {
	tb.Helper()
	stored := begin(tb, s, o)
	if stored.Present || len(stored.Subscriptions) > 0 || (stored.ID != 0) != (o.Expiry > 0) {
		tb.Errorf("a session that should be new, and last for %d s: %+v", o.Expiry, stored)
	}
	return stored.ID
}

// present begins a connection that must find the session.
func present(tb testing.TB, s Store, o domain.SessionOpening, id domain.SessionID, subs ...domain.Subscription) {
	tb.Helper()
	equal(tb, fmt.Sprintf("opening at %d", o.Now), begin(tb, s, o), domain.StoredSession{ID: id, Present: true, Subscriptions: subs})
}

// toAll and toOne are subscriptions to events.
func toAll() domain.Subscription {
	return domain.Subscription{Filter: "conversations/+/events", Options: domain.SubscribeOptions{QoS: 1}}
}

func toOne(c *domain.Conversation) domain.Subscription {
	return domain.Subscription{Filter: "conversations/" + c.ID.String() + "/events", Options: domain.SubscribeOptions{QoS: 1}}
}

// subscribed opens a session of a user that is subscribed to all conversations.
func subscribed(tb testing.TB, s Store, o domain.SessionOpening) domain.SessionID {
	tb.Helper()
	id := fresh(tb, s, o)
	must(tb, s.SaveSubscriptions(tb.Context(), id, []domain.Subscription{toAll()}, nil, true))
	return id
}

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

// exists reports whether a session is there.
func exists(tb testing.TB, s Store, id domain.SessionID) bool {
	tb.Helper()
	err := s.SaveSubscriptions(tb.Context(), id, []domain.Subscription{toAll()}, nil, false)
	if domain.CodeOf(err) == domain.NotFound {
		return false
	}
	must(tb, err)
	return true
}

func sessionsExpire(t *testing.T, b Backend) {
	// Too early loses a device its messages, too late gives it some that it has declined.
	s := open(t, b)
	w := NewWorld(t, s, 1)
	ctx := t.Context()
	o := phone(w, 0, 1000)
	id := fresh(t, s, o)
	subs := []domain.Subscription{
		{Filter: "conversations/+/events", Options: domain.SubscribeOptions{QoS: 1, NoLocal: true, Identifier: 268_435_455}},
		{Filter: "users/" + string(w.Users[0].Username) + "/inbox"},
		{Filter: "devices/ö/#", Options: domain.SubscribeOptions{QoS: 1}},
	}
	must(t, s.SaveSubscriptions(ctx, id, subs, nil, true))
	must(t, s.CloseSession(ctx, id, "a", 1000, 2000, expiry))

	last := int64(2000 + expiryMS - 1)
	o.Now, o.Version, o.Expiry = last, 4, 7
	present(t, s, o, id, subs...)
	// While it is connected it does not expire, however long that is; and the last word on how long counts.
	o.Now, o.Expiry = last+1_000_000_000, 1
	present(t, s, o, id, subs...)
	must(t, s.CloseSession(ctx, id, "a", o.Now, o.Now, expiry))
	o.Now += expiryMS
	again := fresh(t, s, o)
	if again == id {
		t.Error("a session that has expired came back under its number")
	}
	if exists(t, s, id) {
		t.Error("a session that has expired is still there")
	}

	must(t, s.CloseSession(ctx, again, "a", o.Now, o.Now, domain.NeverExpires))
	o.Now, o.Expiry = math.MaxInt64/2, domain.NeverExpires
	present(t, s, o, again, []domain.Subscription{}...)
	must(t, s.CloseSession(ctx, again, "a", o.Now, o.Now, 0))
	o.Now++
	fresh(t, s, o)
}

func cleanStart(t *testing.T, b Backend) {
	// A device that starts anew must not be haunted by what it left.
	s := open(t, b)
	w := NewWorld(t, s, 2)
	log := s.Committers()[0]
	c := w.Group(log, 1)
	o := phone(w, 1, 1000)
	id := subscribed(t, s, o)
	w.texts(log, c, 3)
	acknowledged(t, s, id, c, 2)
	isBehind(t, s, id, "before", stretch(c, 3, 4))

	o.Clean, o.Now = true, 2000
	now := fresh(t, s, o)
	if now == id || exists(t, s, id) {
		t.Errorf("session %d is still there, beside %d", id, now)
	}
	isBehind(t, s, now, "without subscriptions")
	must(t, s.SaveSubscriptions(t.Context(), now, []domain.Subscription{toAll()}, nil, true))
	isBehind(t, s, now, "after a clean start")
	// The connection before, which does not know yet, still saves what it has sent.
	acknowledged(t, s, id, c, 4)
	isBehind(t, s, id, "of a session that has ended")

	o.Expiry, o.Now = 0, 3000
	fresh(t, s, o)
	if exists(t, s, now) {
		t.Error("a clean start without expiry has left the session before")
	}
	o.Clean, o.Expiry, o.Now = false, expiry, 4000
	fresh(t, s, o)
}

func sessionsOfOneConnection(t *testing.T, b Backend) {
	// A session with an expiry of 0 ends with its connection, also when it is the continuation of one that was to last.
	s := open(t, b)
	w := NewWorld(t, s, 2)
	ctx := t.Context()
	log := s.Committers()[0]
	c := w.Group(log, 1)
	short := phone(w, 1, 1000)
	short.Expiry = 0
	fresh(t, s, short)
	short.Now++
	fresh(t, s, short)

	id := subscribed(t, s, phone(w, 1, 2000))
	w.texts(log, c, 1)
	must(t, s.CloseSession(ctx, id, "a", 2000, 3000, expiry))
	short.Now = 4000
	present(t, s, short, id, toAll())
	isBehind(t, s, id, "in the last connection", stretch(c, 2, 2))
	must(t, s.CloseSession(ctx, id, "a", 4000, 5000, 0))
	fresh(t, s, phone(w, 1, 6000))

	// The device comes back before anybody noticed that it had gone.
	id = begin(t, s, phone(w, 1, 7000)).ID
	short.Now = 8000
	present(t, s, short, id, []domain.Subscription{}...)
	if now := fresh(t, s, phone(w, 1, 9000)); now == id {
		t.Error("the session outlived its connection")
	}

	// MQTT 5 allows a longer expiry to be named at the end, if there was one at all.
	must(t, s.CloseSession(ctx, begin(t, s, phone(w, 1, 9500)).ID, "a", 9500, 9600, 2*expiry))
	if !begin(t, s, phone(w, 1, 9600+2*expiryMS-1)).Present {
		t.Error("the expiry named at the end does not count")
	}
}

func repeatedOpenings(t *testing.T, b Backend) {
	// After an error nobody knows whether the session was opened. What was new then must not be taken for an old one now:
	// MQTT has clients close the connection when the server remembers more than they do.
	s := open(t, b)
	w := NewWorld(t, s, 1)
	o := phone(w, 0, 1000)
	id := fresh(t, s, o)
	equal(t, "again", fresh(t, s, o), id)
	must(t, s.SaveSubscriptions(t.Context(), id, []domain.Subscription{toAll()}, nil, true))
	o.Now = 2000
	present(t, s, o, id, toAll())
	present(t, s, o, id, toAll())
	o.Now, o.Expiry = 3000, 0
	present(t, s, o, id, toAll())
	present(t, s, o, id, toAll())
	o.Clean, o.Expiry, o.Now = true, expiry, 4000
	id = fresh(t, s, o)
	equal(t, "clean again", fresh(t, s, o), id)
	must(t, s.CloseSession(t.Context(), id, "a", 4000, 5000, expiry))
	must(t, s.CloseSession(t.Context(), id, "a", 4000, 6000, expiry))
	o.Clean, o.Now = false, 5000+expiryMS
	fresh(t, s, o)
}

func simultaneousOpenings(t *testing.T, b Backend) {
	// A device on a bad network connects several times at once, and to several nodes.
	const rounds, openings = 25, 6
	all := worlds(t, b, 1)
	for round := range rounds {
		now := int64(1_000_000 * (round + 1))
		var wg sync.WaitGroup
		found := make([]domain.StoredSession, openings)
		for i := range found {
			w := all[i%len(all)]
			o := phone(w, 0, now+int64(i))
			o.Device = fmt.Sprint("device", round)
			o.Node = fmt.Sprint("node", i%len(all))
			o.Clean = round%2 == 1 && i == openings-1
			wg.Go(func() {
				var err error
				if found[i], err = w.Store.OpenSession(t.Context(), o); err != nil {
					t.Errorf("opening %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		ids := make(map[domain.SessionID]int)
		for _, f := range found {
			if f.ID == 0 {
				t.Fatal("no session")
			}
			if !f.Present {
				ids[f.ID]++
			}
		}
		// Each session was new for one, and present for the others.
		for _, f := range found {
			if ids[f.ID] != 1 {
				t.Errorf("session %d was new for %d openings", f.ID, ids[f.ID])
			}
		}
		if most := 1 + round%2; len(ids) > most {
			t.Errorf("%d sessions were made, where %d can be", len(ids), most)
		}
		o := phone(all[0], 0, now+openings)
		o.Device = fmt.Sprint("device", round)
		last := begin(t, all[0].Store, o)
		if !last.Present || ids[last.ID] != 1 {
			t.Errorf("after all: %+v", last)
		}
		for id := range ids {
			if there := exists(t, all[0].Store, id); there != (id == last.ID) {
				t.Errorf("session %d is there: %v", id, there)
			}
		}
	}
}

func olderConnections(t *testing.T, b Backend) {
	// The end of a connection is often noticed long after its device has come back, here or elsewhere.
	all := worlds(t, b, 1)
	here, there := all[0].Store, all[len(all)-1].Store
	w := all[0]
	ctx := t.Context()
	id := fresh(t, here, phone(w, 0, 1000))
	must(t, here.SaveSubscriptions(ctx, id, []domain.Subscription{toAll()}, nil, true))
	there2 := phone(w, 0, 1500)
	there2.Node = "b"
	present(t, there, there2, id, toAll())
	for _, e := range []uint32{0, 1, domain.NeverExpires} {
		must(t, here.CloseSession(ctx, id, "a", 1000, 2000, e))
		must(t, here.CloseSession(ctx, id, "b", 1000, 2000, e))
		must(t, here.CloseSession(ctx, id, "a", 1500, 2000, e))
		must(t, here.CloseSession(ctx, id+1000, "b", 1500, 2000, e))
	}
	back := phone(w, 0, 2500)
	present(t, here, back, id, toAll())
	must(t, there.CloseSession(ctx, id, "b", 1500, 2501, 0))
	// On the same node.
	again := back
	again.Now++
	present(t, here, again, id, toAll())
	must(t, here.CloseSession(ctx, id, "a", back.Now, back.Now+2, 0))
	must(t, here.CloseSession(ctx, id, "a", again.Now, again.Now, expiry))
	must(t, here.CloseSession(ctx, id, "a", again.Now, again.Now+5, 0))
	again.Now += expiryMS - 1
	present(t, here, again, id, toAll())
}

func devicesAreApart(t *testing.T, b Backend) {
	// Client ids are scoped to the user.
	s := open(t, b)
	w := NewWorld(t, s, 2)
	log := s.Committers()[0]
	c := w.Group(log, 1)
	mine := phone(w, 1, 1000)
	tablet, theirs := mine, mine
	tablet.Device = "phöne"
	theirs.User = w.Users[0].ID
	ids := []domain.SessionID{subscribed(t, s, mine), subscribed(t, s, tablet), subscribed(t, s, theirs)}
	w.texts(log, c, 5)
	for i, id := range ids {
		acknowledged(t, s, id, c, domain.Seq(2+i))
	}
	for i, id := range ids {
		isBehind(t, s, id, fmt.Sprint("device ", i), stretch(c, domain.Seq(3+i), 6))
	}
	mine.Clean, mine.Now = true, 2000
	fresh(t, s, mine)
	tablet.Now, theirs.Now = 2000, 2000
	present(t, s, tablet, ids[1], toAll())
	present(t, s, theirs, ids[2], toAll())
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

func deadNodes(t *testing.T, b Backend) {
	// A node that is killed says goodbye for none of its sessions.
	const start, minute = int64(1_000_000_000), int64(60_000)
	s := open(t, b)
	w := NewWorld(t, s, 1)
	ctx := t.Context()
	opening := func(device, node string, expiry uint32, now int64) domain.SessionOpening {
		return domain.SessionOpening{User: w.Users[0].ID, Device: device, Version: 5, Expiry: expiry, Node: node, Now: now}
	}
	must(t, s.Beat(ctx, "a", start))
	ids := make(map[string]domain.SessionID)
	for _, device := range []string{"phone", "tablet", "watch"} {
		ids[device] = fresh(t, s, opening(device, "a", expiry, start))
	}
	ids["car"] = fresh(t, s, opening("car", "a", domain.NeverExpires, start))
	ids["gone"] = fresh(t, s, opening("gone", "a", expiry, start))
	must(t, s.CloseSession(ctx, ids["gone"], "a", start, start+5, 10*expiry))
	present(t, s, opening("watch", "c", expiry, start+1), ids["watch"], []domain.Subscription{}...)
	must(t, s.CloseSession(ctx, ids["watch"], "c", start+1, start+2, 10*expiry))
	check := func(what string, now int64, want ...string) {
		t.Helper()
		must(t, s.Cleanup(ctx, now))
		for device, id := range ids {
			if there := exists(t, s, id); there != slices.Contains(want, device) {
				t.Errorf("%s: the session of the %s is there: %v", what, device, there)
			}
		}
	}

	late := start + minute
	if b.Shared {
		must(t, s.Beat(ctx, "b", late))
		check("a node that is slow", late+100*expiryMS, "phone", "tablet", "car")
		ids["gone"] = fresh(t, s, opening("gone", "b", expiry, late))
		ids["watch"] = fresh(t, s, opening("watch", "b", expiry, late))
		must(t, s.CloseSession(ctx, ids["gone"], "b", late, start+5, 10*expiry))
		must(t, s.CloseSession(ctx, ids["watch"], "b", late, start+2, 10*expiry))
		late++
	}
	// From here on, a is dead for b.
	must(t, s.Beat(ctx, "b", late))
	check("just before the expiry", start+expiryMS-1, "phone", "tablet", "car", "gone", "watch")
	// Where it comes back in time, its sessions are as connected as ever.
	must(t, s.Beat(ctx, "a", late+1))
	check("the node lives", start+5*expiryMS, "phone", "tablet", "car", "gone", "watch")
	present(t, s, opening("tablet", "b", expiry, late+2), ids["tablet"], toAll())

	must(t, s.Beat(ctx, "b", late+10*minute))
	end := late + 1 + expiryMS
	check("just before the second expiry", end-1, "phone", "tablet", "car", "gone", "watch")
	check("after the second expiry", end, "tablet", "car", "gone", "watch")
	check("after all", start+100*expiryMS, "tablet", "car")
	present(t, s, opening("car", "b", domain.NeverExpires, end), ids["car"], toAll())
}

func deadNodesUnnoticed(t *testing.T, b Backend) {
	// The expiry counts to the second, also before another node has found out about a dead one, and at once on a store that
	// has one node.
	const start, minute = int64(1_000_000_000), int64(60_000)
	s := open(t, b)
	w := NewWorld(t, s, 1)
	must(t, s.Beat(t.Context(), "a", start))
	device := func(name string, expiry uint32) domain.SessionOpening {
		return domain.SessionOpening{User: w.Users[0].ID, Device: name, Version: 5, Expiry: expiry, Node: "a", Now: start + 1}
	}
	phone, tablet, car := device("phone", 61), device("tablet", 62), device("car", domain.NeverExpires)
	fresh(t, s, phone)
	kept, parked := fresh(t, s, tablet), fresh(t, s, car)
	// A node that opens a session lives, whatever became of its beats.
	watch, clock := device("watch", 20), device("clock", 20)
	watch.Now, clock.Now = start+50_000, start+50_000
	worn, wall := fresh(t, s, watch), fresh(t, s, clock)
	for _, o := range []*domain.SessionOpening{&phone, &tablet, &car, &watch} {
		o.Node, o.Now = "b", start+minute+1001
	}
	fresh(t, s, phone)
	present(t, s, tablet, kept, []domain.Subscription{}...)
	present(t, s, car, parked, []domain.Subscription{}...)
	present(t, s, watch, worn, []domain.Subscription{}...)

	must(t, s.Beat(t.Context(), "b", start+minute+1002))
	must(t, s.Cleanup(t.Context(), clock.Now+20_000-1))
	if !exists(t, s, wall) {
		t.Error("the session expired by a beat before it was opened")
	}
	must(t, s.Cleanup(t.Context(), clock.Now+20_000))
	if exists(t, s, wall) {
		t.Error("the session has not expired")
	}
}

func cleanupOfSessions(t *testing.T, b Backend) {
	// Devices are lost, and their sessions would stay for ever.
	const sessions = 130 // more than are removed in one go
	s := open(t, b)
	w := NewWorld(t, s, 2)
	ctx := t.Context()
	log := s.Committers()[0]
	c := w.Group(log, 1)
	var ids []domain.SessionID
	for i := range sessions {
		o := phone(w, 1, 1000)
		o.Device = fmt.Sprint(i)
		id := subscribed(t, s, o)
		if i%10 != 0 {
			must(t, s.CloseSession(ctx, id, "a", 1000, int64(i), 1))
		}
		ids = append(ids, id)
	}
	w.texts(log, c, 1)
	const now = 1000 + sessions/2
	must(t, s.Cleanup(ctx, now))
	for i, id := range ids {
		want := i%10 == 0 || i > sessions/2
		if there := exists(t, s, id); there != want {
			t.Errorf("session %d is there: %v", i, there)
		}
		if n := len(behind(t, s, id, 10)); (n == 1) != want {
			t.Errorf("session %d is behind in %d conversations", i, n)
		}
	}
}

func deletedUsersHaveNoSessions(t *testing.T, b Backend) {
	// Who is deleted while a device connects must not come in by that device.
	all := worlds(t, b, 12)
	w := all[0]
	for i := range w.Users {
		o := phone(w, i, 1000)
		before := fresh(t, w.Store, o)
		var wg sync.WaitGroup
		opened := make([]domain.SessionID, 4)
		for n := range opened {
			o := phone(w, i, int64(2000+n))
			o.Device = []string{"phone", "tablet"}[n%2]
			o.Clean = n == 2
			wg.Go(func() {
				stored, err := all[n%len(all)].Store.OpenSession(t.Context(), o)
				if err != nil && domain.CodeOf(err) != domain.UserNotFound {
					t.Error(err)
				}
				opened[n] = stored.ID
			})
		}
		wg.Go(func() {
			if err := w.Store.DeleteUser(t.Context(), w.Users[i].ID); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		for _, id := range slices.Concat(opened, []domain.SessionID{before}) {
			if id != 0 && exists(t, w.Store, id) {
				t.Errorf("session %d of user %d is there", id, i)
			}
		}
		_, err := w.Store.OpenSession(t.Context(), o)
		refused(t, "a deleted user", err, domain.UserNotFound)
	}
	o := phone(w, 0, 1)
	o.User = 1_000_000
	_, err := w.Store.OpenSession(t.Context(), o)
	refused(t, "no user", err, domain.UserNotFound)
}

func sessionsSurviveARestart(t *testing.T, b Backend) {
	// "After any absence" includes absences of the gateway.
	place := b.New(t)
	s := place.Open(t)
	w := NewWorld(t, s, 2)
	log := s.Committers()[0]
	c, d := w.Group(log, 1), w.Group(log, 1)
	id := subscribed(t, s, phone(w, 1, 1000))
	w.texts(log, c, 5)
	w.texts(log, d, 5)
	acknowledged(t, s, id, c, 3)
	must(t, s.Close())
	for i := range 3 {
		s = place.Open(t)
		o := phone(w, 1, int64(2000+i))
		o.Node = fmt.Sprint("run", i)
		must(t, s.Beat(t.Context(), o.Node, o.Now))
		present(t, s, o, id, toAll())
		isBehind(t, s, id, "after a restart", stretch(c, 4, 6), stretch(d, domain.Seq(2+i), 6))
		acknowledged(t, s, id, d, domain.Seq(2+i))
		must(t, s.Close())
	}
}

func sessionsUnderLoad(t *testing.T, b Backend) {
	// All that happens to sessions happens at once, and none of it may fail, or wait in a circle.
	const rounds = 30
	all := worlds(t, b, 3)
	w := all[0]
	var heads []*domain.Conversation
	for range 10 {
		heads = append(heads, w.Group(w.Store.Committers()[0], 1, 2))
	}
	var mu sync.Mutex // guards ids and now
	var ids []domain.SessionID
	now := int64(1000)
	open := func(ctx context.Context, s Store, user, node int) error {
		mu.Lock()
		now++
		o := phone(w, user, now)
		mu.Unlock()
		o.Node, o.Clean = fmt.Sprint(node), mrand.IntN(3) == 0
		stored, err := s.OpenSession(ctx, o)
		if err != nil {
			return err
		}
		mu.Lock()
		ids = append(ids, stored.ID)
		mu.Unlock()
		// The device may have begun another session already.
		if err := s.SaveSubscriptions(ctx, stored.ID, []domain.Subscription{toAll()}, nil, true); err != nil && domain.CodeOf(err) != domain.NotFound {
			return err
		}
		if mrand.IntN(2) == 0 {
			return s.CloseSession(ctx, stored.ID, o.Node, o.Now, o.Now, uint32(mrand.IntN(2)))
		}
		return nil
	}
	save := func(ctx context.Context, s Store, round int) error {
		var positions []domain.Position
		mu.Lock()
		for _, id := range ids[max(0, len(ids)-5):] {
			for _, n := range mrand.Perm(len(heads)) {
				positions = append(positions, domain.Position{Session: id, Conversation: heads[n].ID, Seq: domain.Seq(round)})
			}
		}
		mu.Unlock()
		return s.SavePositions(ctx, positions, nil)
	}
	var wg sync.WaitGroup
	for i, v := range all {
		s := v.Store
		for name, do := range map[string]func(ctx context.Context, round int) error{
			"open":    func(ctx context.Context, _ int) error { return open(ctx, s, 1, i) },
			"other":   func(ctx context.Context, _ int) error { return open(ctx, s, 2, i) },
			"save":    func(ctx context.Context, round int) error { return save(ctx, s, round) },
			"again":   func(ctx context.Context, round int) error { return save(ctx, s, round) },
			"cleanup": func(ctx context.Context, _ int) error { return s.Cleanup(ctx, 1500) },
			"beat": func(ctx context.Context, round int) error {
				return s.Beat(ctx, fmt.Sprint(i), int64(1000+100_000*round))
			},
		} {
			wg.Go(func() {
				for round := range rounds {
					if err := do(t.Context(), round); err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
}
