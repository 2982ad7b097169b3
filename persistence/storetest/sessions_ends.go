package storetest

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

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
