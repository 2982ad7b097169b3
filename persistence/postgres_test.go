package persistence_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/persistence"
	"github.com/parley-im/parley/persistence/pgtest"
	"github.com/parley-im/parley/persistence/storetest"
)

func TestPostgresConformance(t *testing.T) {
	// Making and dropping a database takes longer than most tests; a schema is as empty.
	database := pgtest.NewDatabase(t)
	db := raw(t, database)
	n := 0
	storetest.Run(t, storetest.Backend{Shared: true, New: func(tb testing.TB) storetest.Place {
		n++
		schema := fmt.Sprint("place_", n)
		if _, err := db.ExecContext(tb.Context(), "CREATE SCHEMA "+schema); err != nil {
			tb.Fatal(err)
		}
		return place(with(tb, database, "search_path", schema))
	}})
}

// with adds a parameter to a URL.
func with(tb testing.TB, raw, name, value string) string {
	tb.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		tb.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func TestEveryDraftIsStoredOnceWhenTheServerIsKilled(t *testing.T) {
	// The database is a machine like any other: it is gone at the worst moment, and comes back.
	server := pgtest.New(t)
	url := server.NewDatabase(t)
	s := open(t, url)
	w := storetest.NewWorld(t, s, 3)
	setUp := s.Committers()[0]
	heads := []*domain.Conversation{w.Group(setUp, 1, 2), w.Group(setUp, 1), w.Group(setUp, 1, 2)}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	stop := make(chan struct{})
	progress := make(chan struct{}, 1)
	counts := make([]int, 2)
	var failures sync.Map
	var wg sync.WaitGroup
	for i, log := range s.Committers() {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				var batch []domain.Draft
				for j := range 1 + n%40 {
					batch = append(batch, w.Draft(heads[(n+j)%3], j%2, rand.Text(), "text"))
				}
				for {
					placements, err := w.Append(ctx, log, batch...)
					if err == nil {
						for _, p := range placements {
							if p.Status != domain.Stored && p.Status != domain.Known {
								t.Errorf("placement %+v", p)
							}
						}
						break
					}
					failures.Store(domain.CodeOf(err), err)
					if domain.CodeOf(err) != domain.Unavailable || ctx.Err() != nil {
						t.Error(err)
						return
					}
					// A while later, the same batch again.
					pause(ctx, 10*time.Millisecond)
				}
				counts[i] += len(batch)
				select {
				case progress <- struct{}{}:
				default:
				}
			}
		})
	}
	await := func(n int) {
		for range n {
			select {
			case <-progress:
			case <-ctx.Done():
				t.Error("no progress")
				return
			}
		}
	}
	for range 3 {
		await(60)
		if err := server.Kill9(); err != nil {
			t.Error(err)
		}
		if err := server.Restart(ctx); err != nil {
			t.Error(err)
			break
		}
	}
	await(60)
	close(stop)
	wg.Wait()
	if _, seen := failures.Load(domain.Unavailable); !seen {
		t.Error("no call noticed that the server was killed")
	}
	w.Verify()
	events := 0
	for _, c := range heads {
		events += len(w.Log(c.ID)) - 1
	}
	if want := counts[0] + counts[1]; events != want {
		t.Errorf("%d events for %d drafts", events, want)
	}
}

// pause waits, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func TestChangesAreCommittedOnceWhenTheirConnectionIsKilled(t *testing.T) {
	// The worst moment is when the server has committed and cannot say so any more.
	url := pgtest.NewDatabase(t)
	s := open(t, url)
	w := storetest.NewWorld(t, s, 3)
	log := s.Committers()[0]
	c := w.Group(log, 1)
	db := raw(t, url)
	// Every change is allowed a few blows, at whatever moment they fall; without an end to them a slow machine would
	// never get a connection made and a change committed between two of them.
	const blows = 4
	strike := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range strike {
			killBackends(t, db)
		}
	})
	lost := 0
	want := domain.Seq(1)
	created := 0
	for n := range 60 {
		batch := []domain.ChangeRequest{w.Retitle(c.ID, fmt.Sprint(n)), w.Request(w.User(1), &domain.CreateConversation{Participants: w.New(2)})}
		want++
		created++
		for attempt := 0; ; attempt++ {
			if attempt < blows {
				select {
				case strike <- struct{}{}:
				default: // The last one has not fallen yet.
				}
			}
			changed, err := log.Change(t.Context(), batch)
			if err == nil {
				for _, ch := range changed {
					if ch.Err != nil {
						t.Error(ch.Err)
					}
				}
				if seq := changed[0].Decision.Events[0].Seq; seq != want {
					t.Errorf("change %d has number %d", n, seq)
				}
				break
			}
			if domain.CodeOf(err) != domain.Unavailable {
				close(strike)
				wg.Wait()
				t.Fatal(err)
			}
			lost++
		}
	}
	close(strike)
	wg.Wait()
	if lost == 0 {
		t.Error("no change lost its connection")
	}
	if last := w.Head(c.ID).LastSeq; last != want {
		t.Errorf("last number %d, want %d", last, want)
	}
	w.Log(c.ID)
	h, err := s.Heads(t.Context(), w.User(2), domain.Needs{Self: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(h.Self.ConversationsList); n != created {
		t.Errorf("%d conversations were created by %d requests", n, created)
	}
}

// killBackends ends all connections to the database but its own.
func killBackends(t *testing.T, db *sql.DB) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'parley'`)
	if err != nil {
		t.Error(err)
	}
}

func TestCommitterReplacesItsConnection(t *testing.T) {
	// An operator restarts the database; nobody should have to restart the gateway for it.
	url := pgtest.NewDatabase(t)
	s := open(t, url)
	w := storetest.NewWorld(t, s, 2)
	log := s.Committers()[0]
	c := w.Group(log, 1)
	killBackends(t, raw(t, url))
	batch := []domain.Draft{w.Draft(c, 0, "a", "text")}
	_, err := log.Append(t.Context(), batch)
	if domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("on a lost connection: %v", err)
	}
	w.Send(log, batch...)
	w.Verify()
}

func TestUnavailableServerIsSaidToBe(t *testing.T) {
	// "Unavailable" is what makes clients try again instead of giving up.
	server := pgtest.New(t)
	s := open(t, server.NewDatabase(t))
	w := storetest.NewWorld(t, s, 2)
	log := s.Committers()[0]
	c := w.Group(log, 1)
	if err := server.Kill9(); err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"append": func() error { _, err := log.Append(t.Context(), []domain.Draft{w.Draft(c, 0, "a", "b")}); return err },
		"change": func() error {
			_, err := log.Change(t.Context(), []domain.ChangeRequest{w.Retitle(c.ID, "x")})
			return err
		},
		"heads": func() error {
			_, err := s.Heads(t.Context(), w.User(0), domain.Needs{Conversation: c.ID, Self: true})
			return err
		},
		"events": func() error { _, err := s.Events(t.Context(), c.ID, 0, 10); return err },
		"create": func() error {
			_, err := s.CreateUser(t.Context(), domain.NewUser{Username: "x@chat.acme", MakeAccount: true})
			return err
		},
		"refresh": func() error { _, err := s.Refresh(t.Context(), [32]byte{}, 1, domain.RefreshToken{}); return err },
		"ping":    func() error { return s.Ping(t.Context()) },
	}
	for range 2 {
		for name, call := range calls {
			if err := call(); domain.CodeOf(err) != domain.Unavailable {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"append", "change", "heads", "events", "create", "ping"} {
		if err := calls[name](); err != nil {
			t.Errorf("%s after the restart: %v", name, err)
		}
	}
}

func TestWaitsThatAreCutShortAreUnavailable(t *testing.T) {
	// A lock that another node holds for long is nobody's fault in the batch: it must not be split up and refused.
	database := pgtest.NewDatabase(t)
	s := open(t, database)
	w := storetest.NewWorld(t, s, 2)
	c := w.Group(s.Committers()[0], 1)
	db := raw(t, database)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), "SELECT * FROM conversations FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"statement_timeout": "1000", "lock_timeout": "500"} {
		impatient := open(t, with(t, database, name, value))
		log := impatient.Committers()[0]
		if _, err := log.Append(t.Context(), []domain.Draft{w.Draft(c, 0, name, "text")}); domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("%s: append: %v", name, err)
		}
		if _, err := log.Change(t.Context(), []domain.ChangeRequest{w.Retitle(c.ID, name)}); domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("%s: change: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	log := s.Committers()[0]
	if _, err := log.Append(ctx, []domain.Draft{w.Draft(c, 0, "deadline", "text")}); domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("deadline: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	w.Send(log, w.Draft(c, 0, "after", "text"))
	if list := w.Log(c.ID); len(list) != 2 {
		t.Errorf("%d events: what was given up was stored", len(list))
	}
}

func TestPoisonedDraftIsToBlame(t *testing.T) {
	// What the database will never take must be told from what it cannot take now; the batch is split to find it.
	s := open(t, pgtest.NewDatabase(t))
	w := storetest.NewWorld(t, s, 2)
	log := s.Committers()[0]
	c := w.Group(log, 1)
	good, poison := w.Draft(c, 0, "good", "text"), w.Draft(c, 0, "poison", "text")
	poison.Event.ClientID = "a\x00b"
	for _, batch := range [][]domain.Draft{{good, poison}, {poison}} {
		if _, err := log.Append(t.Context(), batch); domain.CodeOf(err) != domain.Internal {
			t.Errorf("%d drafts: %v", len(batch), err)
		}
	}
	if p := w.Send(log, good); p[0].Seq != 2 {
		t.Errorf("the good one: %+v", p)
	}
	w.Verify()
}

func TestStoresMigrateAtTheSameTime(t *testing.T) {
	// Nodes are started together, by a machine that does not wait.
	url := pgtest.NewDatabase(t)
	var stores []*persistence.Store
	for range 3 {
		s, err := persistence.Open(t.Context(), persistence.Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores = append(stores, s)
	}
	var wg sync.WaitGroup
	for _, s := range stores {
		wg.Go(func() {
			if err := s.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w := storetest.NewWorld(t, store{stores[2]}, 2)
	w.Send(stores[1].Logs()[0], w.Draft(w.Group(stores[0].Logs()[0], 1), 0, "a", "text"))
	w.Verify()
}

func TestUnsafeServersAreRefused(t *testing.T) {
	// 412 acknowledged messages were lost in six crashes with synchronous_commit off.
	database := pgtest.NewDatabase(t)
	for _, parameter := range [][2]string{{"synchronous_commit", "off"}, {"default_transaction_isolation", "serializable"}} {
		_, err := persistence.Open(t.Context(), persistence.Options{URL: with(t, database, parameter[0], parameter[1])})
		if !errors.Is(err, persistence.ErrUnsafe) || !strings.Contains(err.Error(), parameter[0]) {
			t.Errorf("%v: %v", parameter, err)
		}
	}
	s, err := persistence.Open(t.Context(), persistence.Options{URL: with(t, database, "synchronous_commit", "off"), AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	server, err := pgtest.Start(t.Context(), pgtest.Options{Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	}()
	_, err = persistence.Open(t.Context(), persistence.Options{URL: server.URL("postgres")})
	if !errors.Is(err, persistence.ErrUnsafe) || !strings.Contains(err.Error(), "fsync") {
		t.Errorf("fsync off: %v", err)
	}
}

func TestPasswordsStayOutOfErrors(t *testing.T) {
	// Errors end in logs, and logs in tickets.
	for _, u := range []string{
		"postgres://user:hunter2@127.0.0.1:1/db?sslmode=disable",
		"postgres://user:hunter2@127.0.0.1:1/db?sslmode=nonsense",
		"postgres://user@127.0.0.1:1/db?sslmode=disable&password=hunter2",
		"postgres://user:hunter2@127.0.0.1:notaport/db",
		"postgres://user:hun%ter2@127.0.0.1:1/db",
		"mysql://user:hunter2@127.0.0.1/db",
	} {
		_, err := persistence.Open(t.Context(), persistence.Options{URL: u})
		if err == nil {
			t.Errorf("%s was opened", u)
		} else if strings.Contains(err.Error(), "hun") {
			t.Errorf("%v", err)
		}
	}
	database := pgtest.NewDatabase(t)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("postgres", "hunter2")
	if _, err := persistence.Open(t.Context(), persistence.Options{URL: u.String()}); err == nil || strings.Contains(err.Error(), "hun") {
		t.Errorf("%v", err)
	}
}
