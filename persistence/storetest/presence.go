package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/parley-im/parley/domain"
)

// list names users as a command does.
func (w *World) list(users ...int) domain.UserList {
	var l domain.UserList
	for _, i := range users {
		l.Users = append(l.Users, domain.Named{Ref: w.Ref(i)})
	}
	return l
}

// watched gives whom a user has subscribed to.
func (w *World) watched(user int) []domain.UserID {
	w.tb.Helper()
	h, err := w.Store.Heads(w.tb.Context(), w.User(user), domain.Needs{Watched: true})
	if err != nil {
		w.tb.Fatal(err)
	}
	ids := []domain.UserID{}
	for _, u := range h.Watched {
		ids = append(ids, u.ID)
	}
	return ids
}

// numbers gives the numbers of users.
func (w *World) numbers(users ...int) []domain.UserID {
	ids := []domain.UserID{}
	for _, i := range users {
		ids = append(ids, w.Users[i].ID)
	}
	return ids
}

// watchersOf gives who has subscribed to some users, as pairs in order.
func (w *World) watchersOf(users ...int) []string {
	w.tb.Helper()
	pairs := []string{}
	err := w.Store.Watchers(w.tb.Context(), w.numbers(users...), func(watched, watcher domain.UserID) {
		pairs = append(pairs, fmt.Sprint(watched-w.Users[0].ID, "<", watcher-w.Users[0].ID))
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	slices.Sort(pairs)
	return pairs
}

func watches(t *testing.T, b Backend) {
	// What a user subscribed to once holds on every device and after every restart.
	all := worlds(t, b, 4)
	w, log := all[0], all[0].Store.Committers()[0]
	other := all[len(all)-1]
	w.Change(log, w.User(0), &domain.Subscribe{UserList: w.list(2, 1, 2)})
	w.Change(log, w.User(1), &domain.Subscribe{UserList: w.list(0, 1)})
	w.Change(log, w.User(0), &domain.Subscribe{UserList: w.list(1, 3)})
	equal(t, "whom the first watches", other.watched(0), w.numbers(1, 2, 3))
	equal(t, "whom the second watches", other.watched(1), w.numbers(0, 1))
	equal(t, "whom the third watches", other.watched(2), w.numbers())
	// Nobody is told of itself by a subscription.
	equal(t, "who is watched by whom", other.watchersOf(0, 1, 2, 3), []string{"0<1", "1<0", "2<0", "3<0"})
	equal(t, "who watches two", other.watchersOf(1, 2), []string{"1<0", "2<0"})
	equal(t, "who watches nobody's number", other.watchersOf(), []string{})

	w.Change(log, w.User(0), &domain.Unsubscribe{UserList: w.list(2, 0)})
	equal(t, "whom the first watches still", other.watched(0), w.numbers(1, 3))
	changed := w.Change(log, w.User(0), &domain.UnsubscribeFromAll{})
	if n := len(changed.Decision.Result.Users); n != 2 {
		t.Errorf("%d users were unsubscribed from", n)
	}
	equal(t, "whom the first watches at last", other.watched(0), w.numbers())

	// Who is deleted watches nobody, and can still be watched.
	w.Change(log, w.User(3), &domain.Subscribe{UserList: w.list(1)})
	must(t, w.Store.DeleteUser(t.Context(), w.Users[1].ID))
	equal(t, "whom a deleted user watches", other.watched(1), w.numbers())
	equal(t, "who watches a deleted user", other.watchersOf(1), []string{"1<3"})
	h, err := other.Store.Heads(t.Context(), w.User(3), domain.Needs{Watched: true})
	must(t, err)
	if len(h.Watched) != 1 || !h.Watched[0].Deleted {
		t.Errorf("watched is %+v", h.Watched)
	}
}

func lastSeen(t *testing.T, b Backend) {
	// After a crash nobody stays online, and everybody was last seen when the node still lived.
	w := worlds(t, b, 5)[0]
	ctx, s := t.Context(), w.Store
	ids := w.numbers(0, 1, 2, 3, 4)
	want := func(what string, times ...int64) {
		t.Helper()
		seen := make(map[domain.UserID]int64)
		for i, at := range times {
			if at > 0 {
				seen[ids[i]] = at
			}
		}
		got, err := s.LastSeen(ctx, ids)
		must(t, err)
		equal(t, what, got, seen)
	}
	const old, young = "old", "young"
	want("before anything")
	must(t, s.Beat(ctx, old, 1_000_000))
	must(t, s.SaveSeen(ctx, old, []domain.Seen{
		{User: ids[3], At: 900_000, Here: true},
		{User: ids[0], At: 950_000, Here: true},
		{User: ids[1], At: 1_000_500, Here: true},
		{User: ids[2], At: 970_000},
	}))
	want("while the node lives", 1_000_000, 1_000_500, 970_000, 1_000_000)
	must(t, s.Beat(ctx, old, 1_010_000))
	want("after its next beat", 1_010_000, 1_010_000, 970_000, 1_010_000)
	must(t, s.SaveSeen(ctx, old, []domain.Seen{{User: ids[3], At: 1_011_000}, {User: ids[2], At: 960_000}}))
	want("when one has gone, and an older time came late", 1_010_000, 1_010_000, 970_000, 1_011_000)

	// The node dies; another notes it. One of its users is with that one by then.
	must(t, s.SaveSeen(ctx, young, []domain.Seen{{User: ids[1], At: 1_040_000, Here: true}}))
	must(t, s.SaveSeen(ctx, old, []domain.Seen{{User: ids[1], At: 1_039_000}})) // late
	must(t, s.Beat(ctx, young, 1_100_000))
	want("after the node's death", 1_010_000, 1_100_000, 970_000, 1_011_000)
	must(t, s.Beat(ctx, young, 1_200_000))
	want("long after it", 1_010_000, 1_200_000, 970_000, 1_011_000)
	must(t, s.SaveSeen(ctx, young, nil))

	// Many at once, twice.
	many := make([]domain.Seen, 0, 1500)
	for i := range 1500 {
		many = append(many, domain.Seen{User: ids[i%5], At: 2_000_000 + int64(i), Here: i%2 == 0})
	}
	must(t, s.SaveSeen(ctx, young, many))
	got, err := s.LastSeen(ctx, ids[4:])
	must(t, err)
	if got[ids[4]] < 2_001_495 {
		t.Errorf("last seen at %d", got[ids[4]])
	}
}
