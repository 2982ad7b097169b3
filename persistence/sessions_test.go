package persistence_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/persistence/pgtest"
	"github.com/parley-im/parley/persistence/storetest"
)

// everywhere runs a test on an empty store of each kind.
func everywhere(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { test(t, file(t)) })
	t.Run("Postgres", func(t *testing.T) { test(t, pgtest.NewDatabase(t)) })
}

// count gives the number that a query asks for.
func count(tb testing.TB, url, query string) int {
	tb.Helper()
	var n int
	if err := raw(tb, url).QueryRowContext(tb.Context(), query).Scan(&n); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestBehindFindsEverythingAmongManyConversations(t *testing.T) {
	// A user of many conversations comes back: each event missed must be found, however the pages are cut.
	const users, conversations, last = 40, 5000, 20
	everywhere(t, func(t *testing.T, url string) {
		s := open(t, url)
		seed(t, url, users, conversations)
		var positions []domain.Position
		var want []domain.Stretch
		for i := range conversations {
			c := seededConversation(i + 1)
			p := domain.Position{Session: 7, Conversation: c, Seq: last}
			switch i % 3 {
			case 0: // is behind
				p.Seq = domain.Seq(1 + i%(last-1))
				fallthrough
			case 1: // is not
				positions = append(positions, p)
			case 2: // has never acknowledged anything
				p.Seq = 0
			}
			if p.Seq < last {
				want = append(want, domain.Stretch{Conversation: c, From: p.Seq + 1, To: last})
			}
		}
		if _, err := raw(t, url).ExecContext(t.Context(), "DELETE FROM cursors WHERE session_id = 7"); err != nil {
			t.Fatal(err)
		}
		if err := s.SavePositions(t.Context(), positions, nil); err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int{137, 500, 10_000} {
			var got []domain.Stretch
			var after domain.ConversationID
			for {
				page, err := s.Behind(t.Context(), 7, after, limit)
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, page...); len(page) < limit {
					break
				}
				after = page[len(page)-1].Conversation
			}
			if !slices.Equal(got, want) {
				t.Errorf("pages of %d: %d stretches, not the %d that it is behind", limit, len(got), len(want))
			}
		}
		// The others have nothing to do with it.
		if page, err := s.Behind(t.Context(), 8, domain.ConversationID{}, 500); err != nil || len(page) > 0 {
			t.Errorf("a session that has acknowledged everything: %d stretches, %v", len(page), err)
		}
	})
}

func TestEndedSessionsLeaveNoPositions(t *testing.T) {
	// They would never be found again, and fill the store.
	everywhere(t, func(t *testing.T, url string) {
		const rounds = 40
		s := open(t, url)
		w := storetest.NewWorld(t, s, 2)
		var heads []*domain.Conversation
		for range 5 {
			heads = append(heads, w.Group(s.Committers()[0], 1))
		}
		all := []domain.Subscription{{Filter: "conversations/+/events"}}
		ids := make(chan domain.SessionID, rounds)
		var wg sync.WaitGroup
		wg.Go(func() {
			defer close(ids)
			for i := range rounds {
				stored, err := s.OpenSession(t.Context(), domain.SessionOpening{
					User: w.Users[1].ID, Device: "phone", Version: 5, Clean: true, Expiry: 1, Node: "a", Now: int64(i),
				})
				if err != nil {
					t.Error(err)
					return
				}
				ids <- stored.ID
				if err := s.SaveSubscriptions(t.Context(), stored.ID, all, nil, i%2 == 0); err != nil {
					t.Error(err)
				}
			}
		})
		for range 3 {
			wg.Go(func() {
				var last domain.SessionID
				for id := range ids {
					var positions []domain.Position
					for _, c := range heads {
						positions = append(positions, domain.Position{Session: id, Conversation: c.ID, Seq: domain.Seq(rand.IntN(5))},
							domain.Position{Session: last, Conversation: c.ID, Seq: domain.Seq(rand.IntN(5))})
					}
					last = id
					if err := s.SavePositions(t.Context(), positions, nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n := count(t, url, "SELECT count(*) FROM sessions"); n != 1 {
			t.Errorf("%d sessions", n)
		}
		strays := "SELECT count(*) FROM cursors WHERE session_id NOT IN (SELECT id FROM sessions)"
		if n := count(t, url, strays); n != 0 {
			t.Errorf("%d positions of sessions that have ended", n)
		}
		if err := s.DeleteUser(t.Context(), w.Users[1].ID); err != nil {
			t.Fatal(err)
		}
		if n := count(t, url, "SELECT count(*) FROM sessions") + count(t, url, "SELECT count(*) FROM cursors"); n != 0 {
			t.Errorf("a deleted user leaves %d rows", n)
		}
	})
}

func TestPositionsOfWhatIsNotCoveredAreDropped(t *testing.T) {
	// Users subscribe to single conversations for as long as they look at them.
	everywhere(t, func(t *testing.T, url string) {
		const conversations = 50
		s := open(t, url)
		seed(t, url, 2, conversations)
		one := []domain.Subscription{{Filter: "conversations/" + seededConversation(3).String() + "/events"}}
		for _, c := range []struct {
			subs []domain.Subscription
			left int
		}{{one, 1}, {[]domain.Subscription{{Filter: "conversations/+/signals"}}, 0}} {
			if err := s.SaveSubscriptions(t.Context(), 1, c.subs, nil, false); err != nil {
				t.Fatal(err)
			}
			if n := count(t, url, "SELECT count(*) FROM cursors WHERE session_id = 1"); n != c.left {
				t.Errorf("%v: %d positions are left", c.subs, n)
			}
		}
		if n := count(t, url, "SELECT count(*) FROM cursors WHERE session_id = 2"); n != conversations {
			t.Errorf("another session has %d positions", n)
		}
	})
}

func TestSavedPositionsSurviveAKilledServer(t *testing.T) {
	// What was saved must not be delivered again, or a device would get everything twice each time that the database fails.
	server := pgtest.New(t)
	s := open(t, server.NewDatabase(t))
	w := storetest.NewWorld(t, s, 2)
	log := s.Committers()[0]
	c := w.Group(log, 1)
	const last = 200
	var batch []domain.Draft
	for i := range last {
		batch = append(batch, w.Draft(c, 0, fmt.Sprint(i), "text"))
	}
	w.Send(log, batch...)
	o := domain.SessionOpening{User: w.Users[1].ID, Device: "phone", Version: 5, Expiry: 100, Node: "a", Now: 1}
	stored, err := s.OpenSession(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	saved := make(chan domain.Seq)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(saved)
		for seq := domain.Seq(1); seq <= last && ctx.Err() == nil; seq++ {
			err := s.SavePositions(ctx, []domain.Position{{Session: stored.ID, Conversation: c.ID, Seq: seq}},
				[]domain.Mark{{Conversation: c.ID, User: w.Users[1].ID, Seq: seq}})
			switch domain.CodeOf(err) {
			case "":
				saved <- seq
			case domain.Unavailable:
				pause(ctx, 5*time.Millisecond) // and again, later, with a newer one
			default:
				t.Error(err)
			}
		}
	})
	var highest domain.Seq
	n := 0
	for seq := range saved {
		highest = seq
		if n++; n%40 != 0 {
			continue
		}
		if err := server.Kill9(); err != nil {
			t.Error(err)
		}
		if err := server.Restart(ctx); err != nil {
			t.Error(err)
			break
		}
	}
	for range saved {
	}
	wg.Wait()
	if err := s.SaveSubscriptions(ctx, stored.ID, []domain.Subscription{{Filter: "conversations/+/events"}}, nil, false); err != nil {
		t.Fatal(err)
	}
	page, err := s.Behind(ctx, stored.ID, domain.ConversationID{}, 10)
	if err != nil || len(page) != 1 || page[0].From <= highest || page[0].To != last+1 {
		t.Errorf("position %d was saved, and yet: %v, %v", highest, page, err)
	}
	if p, _ := w.Head(c.ID).Participant(w.Users[1].ID); p.LastDelivered < highest {
		t.Errorf("mark %d was saved, and is %d", highest, p.LastDelivered)
	}
}

func TestMarksPassByParticipantsThatAreLocked(t *testing.T) {
	// A change of one conversation may take long. The marks of all the others need not wait for it.
	url := pgtest.NewDatabase(t)
	s := open(t, url)
	w := storetest.NewWorld(t, s, 2)
	var marks []domain.Mark
	for range 10 {
		c := w.Group(s.Committers()[0], 1)
		marks = append(marks, domain.Mark{Conversation: c.ID, User: w.Users[0].ID, Seq: 1}, domain.Mark{Conversation: c.ID, User: w.Users[1].ID, Seq: 1})
	}
	tx, err := raw(t, url).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	held := marks[7]
	if _, err := tx.ExecContext(t.Context(), "SELECT * FROM participants WHERE conversation_id = $1 AND user_id = $2 FOR UPDATE",
		held.Conversation.String(), int64(held.User)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.SavePositions(ctx, nil, marks) }()
	const delivered = "SELECT count(*) FROM participants WHERE last_delivered = 1"
	for count(t, url, delivered) < len(marks)-1 {
		select {
		case err := <-done:
			t.Fatalf("the marks were not saved, and yet it is over: %v", err)
		default:
			pause(ctx, time.Millisecond)
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := count(t, url, delivered); n != len(marks) {
		t.Errorf("%d marks of %d", n, len(marks))
	}
}

func TestLargeBatchesOfPositionsAreSaved(t *testing.T) {
	// After the store was away, much has gathered.
	everywhere(t, func(t *testing.T, url string) {
		const users, conversations = 6, 2000
		s := open(t, url)
		seed(t, url, users, conversations)
		var positions []domain.Position
		var marks []domain.Mark
		for i := range users * conversations {
			p := domain.Position{Session: domain.SessionID(1 + i%users), Conversation: seededConversation(1 + i/users), Seq: 30}
			positions = append(positions, p)
			marks = append(marks, domain.Mark{Conversation: p.Conversation, User: domain.UserID(p.Session), Seq: 30})
		}
		rand.Shuffle(len(positions), func(i, j int) { positions[i], positions[j] = positions[j], positions[i] })
		rand.Shuffle(len(marks), func(i, j int) { marks[i], marks[j] = marks[j], marks[i] })
		given := slices.Clone(positions)
		if err := s.SavePositions(t.Context(), positions, marks); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(positions, given) {
			t.Error("the caller's slice was changed")
		}
		for _, table := range []string{"cursors WHERE seq = 30", "participants WHERE last_delivered = 30"} {
			if n := count(t, url, "SELECT count(*) FROM "+table); n != users*conversations {
				t.Errorf("%s: %d of %d", strings.Fields(table)[0], n, users*conversations)
			}
		}
	})
}
