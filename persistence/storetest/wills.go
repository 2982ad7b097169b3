package storetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

// will makes the will of a connection that began at opened on node a; its text is its id.
func will(w *World, user int, device, id string, opened int64, delay uint32) domain.StoredWill {
	return domain.StoredWill{
		ID: domain.WillID(id), Principal: w.Users[user].Principal(device), Node: "a", Opened: opened,
		Will: domain.Will{
			Publish: domain.Publish{Topic: "commands/" + id, Payload: []byte(id), Version: 5, QoS: 1}, Delay: delay,
		},
	}
}

func keep(tb testing.TB, s Store, wills ...domain.StoredWill) {
	tb.Helper()
	for _, w := range wills {
		must(tb, s.KeepWill(tb.Context(), w, w.Opened))
	}
}

// taken takes what is due and gives it by its texts, in order.
func taken(tb testing.TB, s Store, now int64) []string {
	tb.Helper()
	list := []string{}
	for {
		due, _, err := s.DueWills(tb.Context(), domain.WillQuery{Now: now, Limit: 2})
		must(tb, err)
		for _, d := range due {
			list = append(list, string(d.Will.Payload))
		}
		if len(due) < 2 {
			return list
		}
	}
}

// next gives when the next will is due, where none is yet.
func next(tb testing.TB, s Store, node string) int64 {
	tb.Helper()
	due, at, err := s.DueWills(tb.Context(), domain.WillQuery{Node: node, Now: 0, Limit: 1})
	must(tb, err)
	if len(due) > 0 {
		tb.Errorf("%d wills are due at the beginning of time", len(due))
	}
	return at
}

func willsAreTakenOnce(t *testing.T, b Backend) {
	// A device that is lost once must not be said to be lost twice, by whatever nodes look for it at once.
	const wills = 60
	all := worlds(t, b, 2)
	w := all[0]
	ctx := t.Context()
	for i := range wills {
		id := fmt.Sprintf("%03d", i)
		keep(t, w.Store, will(w, i%2, "phone"+id, id, 1000, 0))
		must(t, all[i%len(all)].Store.EndWill(ctx, domain.WillID(id), domain.WillEnd{Due: int64(2000 + i)}))
	}
	equal(t, "the next", next(t, w.Store, ""), int64(2000))
	equal(t, "the next of nobody", next(t, w.Store, "b"), int64(0))
	equal(t, "what is due", taken(t, w.Store, 2002), []string{"000", "001", "002"})

	var wg sync.WaitGroup
	var mu sync.Mutex
	times := make(map[string]int)
	for i := range 6 {
		s := all[i%len(all)].Store
		wg.Go(func() {
			for range 2 * wills {
				due, _, err := s.DueWills(ctx, domain.WillQuery{Node: "a", Now: 2100, Limit: 3})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, d := range due {
					times[string(d.Will.Payload)]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(times) != wills-3 {
		t.Errorf("%d wills were taken, of %d", len(times), wills-3)
	}
	for id, n := range times {
		if n != 1 {
			t.Errorf("will %s was taken %d times", id, n)
		}
	}
}

func willsAreKeptWhole(t *testing.T, b Backend) {
	// What is carried out is what was set, in the name of whom it is of by then.
	place := b.New(t)
	s := place.Open(t)
	w := NewWorld(t, s, 2)
	ctx := t.Context()
	billing, err := s.CreateService(ctx, "acme", "billing", [32]byte{1}, true)
	must(t, err)
	_, err = s.CreateService(ctx, "acme", "gone", [32]byte{2}, true)
	must(t, err)
	services, err := s.Services(ctx, domain.TreeQuery{Root: billing.Root})
	must(t, err)

	whole := domain.Will{
		Publish: domain.Publish{
			Topic: "conversations/x/raw", Payload: []byte{0, 0xff, '"'}, Version: 5, QoS: 2, ContentType: "a/ö", ResponseTopic: "users/ö",
			Correlation: []byte{0xfe, 0}, Retain: true,
		},
		Delay: 4_294_967_295,
	}
	token, bot, gone := w.Users[0].Principal("ö"), billing.Principal(), services[1].Principal()
	token.Login, token.Issued, token.External = [16]byte{1, 0, 0xff}, 1_700_000_000_000, true
	bot.Device, bot.Proof, gone.Device, gone.Proof = "bot", [32]byte{0, 0xff, 2}, "bot", [32]byte{2}
	keep(t, s,
		domain.StoredWill{ID: "1", Principal: token, Node: "a", Opened: 1, Will: whole},
		domain.StoredWill{ID: "2", Principal: bot, Node: "a", Opened: 1, Will: whole},
		domain.StoredWill{ID: "3", Principal: gone, Node: "a", Opened: 1, Will: whole},
		will(w, 1, "phone", "4", 1, 0), will(w, 1, "tablet", "5", 1, 0))
	for i, id := range []domain.WillID{"1", "2", "3", "4"} {
		must(t, s.EndWill(ctx, id, domain.WillEnd{Due: int64(10 + i), Forgiving: i == 1}))
	}
	must(t, s.DeleteService(ctx, "acme", "gone"))
	must(t, s.Close())
	s = place.Open(t)
	due, at, err := s.DueWills(ctx, domain.WillQuery{Now: 12, Limit: 10})
	must(t, err)
	equal(t, "due after a restart", due, []domain.DueWill{
		{Principal: token, Will: whole}, {Principal: bot, Will: whole, Forgiving: true}, {Will: whole},
	})
	equal(t, "the next", at, int64(13))

	// Nothing of a user who was deleted is left.
	must(t, s.DeleteUser(ctx, w.Users[1].ID))
	equal(t, "after its user was deleted", next(t, s, ""), int64(0))
	must(t, s.EndWill(ctx, "5", domain.WillEnd{Due: 1}))
	equal(t, "after its user was deleted", taken(t, s, 1000), []string{})
}

func willsEndOnce(t *testing.T, b Backend) {
	// The first word about the end of a connection counts: later ones come from those who have not heard of it.
	s := open(t, b)
	w := NewWorld(t, s, 1)
	ctx := t.Context()
	first, second := will(w, 0, "phone", "1", 1000, 0), will(w, 0, "phone", "2", 1000, 0)
	second.ID = "1"
	keep(t, s, first)
	equal(t, "while the connection lasts", next(t, s, ""), int64(0))
	keep(t, s, second) // the last one counts
	must(t, s.EndWill(ctx, "1", domain.WillEnd{Due: 3000}))
	must(t, s.EndWill(ctx, "1", domain.WillEnd{Due: 2000}))
	must(t, s.EndWill(ctx, "1", domain.WillEnd{Due: 5000, Forgiving: true}))
	keep(t, s, first)
	equal(t, "when it is due", next(t, s, "a"), int64(3000))
	equal(t, "what is due", taken(t, s, 3000), []string{"2"})
	must(t, s.EndWill(ctx, "1", domain.WillEnd{Due: 4000}))
	equal(t, "what was taken is gone", taken(t, s, 9000), []string{})

	keep(t, s, first)
	must(t, s.EndWill(ctx, "1", domain.WillEnd{Due: 4000}))
	must(t, s.EndWill(ctx, "1", domain.WillEnd{}))
	must(t, s.EndWill(ctx, "1", domain.WillEnd{}))
	equal(t, "a will that was taken back", taken(t, s, 9000), []string{})
}

func willsOfReturningDevices(t *testing.T, b Backend) {
	// Whether a device was lost is known when it comes back, and it may come back to another node, before anybody has noticed
	// that it had gone.
	all := worlds(t, b, 1)
	w := all[0]
	ctx := t.Context()
	const opened, lost, back = int64(100_000), int64(110_000), int64(120_000)
	n := 0
	for _, tc := range []struct {
		name             string
		delay            uint32
		durable, clean   bool // the session was kept; the device wants another one
		noticed          bool // that the connection had gone
		forgiving        bool
		cancelled, hasty bool
	}{
		{name: "a session of one connection is taken over", hasty: true},
		{name: "with a delay", delay: 60, hasty: true},
		{name: "a session is taken over", durable: true, hasty: true},
		{name: "a session with a delay is taken over", durable: true, delay: 60, cancelled: true},
		{name: "a session with a delay is begun anew", durable: true, delay: 60, clean: true, hasty: true},
		{name: "a session with a delay is gone on with", durable: true, delay: 60, noticed: true, cancelled: true},
		{name: "a session with a delay is begun anew later", durable: true, delay: 60, noticed: true, clean: true, hasty: true},
		{name: "a session without a delay that nobody has taken yet", durable: true, noticed: true, hasty: true},
		{name: "the gateway went, and the session goes on", durable: true, noticed: true, forgiving: true, cancelled: true},
		{name: "the gateway went, and the session is begun anew", durable: true, clean: true, noticed: true, forgiving: true, cancelled: true},
		{name: "the gateway went", noticed: true, forgiving: true, cancelled: true},
	} {
		n++
		device, id := fmt.Sprint("device", n), fmt.Sprint("will", n)
		o := domain.SessionOpening{User: w.Users[0].ID, Device: device, Version: 5, Node: "a", Now: opened}
		if tc.durable {
			o.Expiry = 1000
		}
		first := begin(t, w.Store, o)
		keep(t, w.Store, will(w, 0, device, id, opened, tc.delay))
		if tc.noticed {
			due := lost + int64(tc.delay)*1000
			if tc.forgiving {
				due = lost + 30_000
			}
			must(t, w.Store.EndWill(ctx, domain.WillID(id), domain.WillEnd{Due: due, Forgiving: tc.forgiving}))
			if tc.durable {
				must(t, w.Store.CloseSession(ctx, first.ID, "a", opened, lost, o.Expiry))
			}
		}
		o.Node, o.Now, o.Clean = "b", back, tc.clean
		stored := begin(t, all[n%len(all)].Store, o)
		if (stored.WillsCancelled == 1) != tc.cancelled || stored.WillsDue != tc.hasty || stored.Present == (tc.clean || !tc.durable) {
			t.Errorf("%s: %+v", tc.name, stored)
		}
		// What the new connection leaves is another will, and the old one cannot be brought back.
		keep(t, w.Store, will(w, 0, device, id+"-new", back, 0))
		must(t, w.Store.EndWill(ctx, domain.WillID(id), domain.WillEnd{Due: back + 1}))
		want := []string{}
		if tc.hasty {
			want = append(want, id)
		}
		equal(t, tc.name, taken(t, all[n%len(all)].Store, back), want)
		equal(t, tc.name+", later", taken(t, w.Store, back+1_000_000), []string{})
		// The same opening, given again, changes nothing of that.
		if again := begin(t, w.Store, o); again.WillsCancelled != 0 || again.WillsDue {
			t.Errorf("%s, again: %+v", tc.name, again)
		}
	}
}

func willsOfDeadNodes(t *testing.T, b Backend) {
	// A gateway that is killed carries out nothing: the others do, once, and not before it is dead.
	const start, minute = int64(1_000_000_000), int64(60_000)
	place := b.New(t)
	s := place.Open(t)
	w := NewWorld(t, s, 1)
	ctx := t.Context()
	must(t, s.Beat(ctx, "a", start))
	for device, expiry := range map[string]uint32{"watch": 100, "car": 20} {
		fresh(t, s, domain.SessionOpening{User: w.Users[0].ID, Device: device, Version: 5, Expiry: expiry, Node: "a", Now: start})
	}
	elsewhere := will(w, 0, "tv", "of b", start, 0)
	elsewhere.Node = "b"
	keep(t, s, will(w, 0, "phone", "at once", start, 0), will(w, 0, "watch", "later", start, 50), will(w, 0, "car", "with the session", start, 50),
		will(w, 0, "tablet", "a session of one connection", start+1, 50), elsewhere)
	pending := will(w, 0, "fridge", "pending", start, 300)
	keep(t, s, pending)
	must(t, s.EndWill(ctx, pending.ID, domain.WillEnd{Due: start + 5*minute}))
	if b.Shared {
		must(t, s.Beat(ctx, "b", start+minute))
		equal(t, "a node that is slow", taken(t, s, start+4*minute), []string{})
	}
	must(t, s.Beat(ctx, "b", start+minute+1))
	must(t, s.Beat(ctx, "b", start+minute+2))
	equal(t, "the next", next(t, s, ""), start)
	equal(t, "at the last sign of life", taken(t, s, start+1), []string{"at once", "a session of one connection"})
	equal(t, "before the session ends", taken(t, s, start+20_000-1), []string{})
	equal(t, "when the session ends", taken(t, s, start+20_000), []string{"with the session"})
	equal(t, "before the delay is over", taken(t, s, start+50_000-1), []string{})
	equal(t, "when the delay is over", taken(t, s, start+50_000), []string{"later"})
	equal(t, "in the end", taken(t, s, start+10*minute), []string{"pending"})

	// A node that never said that it lives leaves a trace all the same.
	mute := will(w, 0, "phone", "of a mute node", start+minute, 0)
	mute.Node = "c"
	keep(t, s, mute)
	must(t, s.Beat(ctx, "b", start+3*minute))
	equal(t, "of a node that never beat", taken(t, s, start+3*minute), []string{"of a mute node"})
}
