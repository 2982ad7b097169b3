package storetest

import (
	"fmt"
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
