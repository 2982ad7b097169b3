package bench

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/persistence"
	"github.com/parley-im/parley/persistence/pgtest"
)

// Store makes empty stores for the scenarios: databases on a private Postgres with fsync on, or SQLite files.
type Store struct {
	Name string

	server *pgtest.Server
	dir    string
	made   int
}

// OpenStore starts a private Postgres ("postgres") or prepares a directory for SQLite files ("sqlite").
func OpenStore(ctx context.Context, kind string) (*Store, error) {
	dir, err := os.MkdirTemp("", "parley-bench-*")
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, Name: "SQLite, WAL, synchronous FULL"}
	if kind == "sqlite" {
		return s, nil
	}
	s.Name = "Postgres, fsync on, synchronous_commit on"
	if s.server, err = pgtest.Start(ctx, pgtest.Options{}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// Close ends the server and removes everything.
func (s *Store) Close() error {
	var err error
	if s.server != nil {
		err = s.server.Stop()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// fresh makes an empty store, and a directory for what goes with it.
func (s *Store) fresh(ctx context.Context) (storeURL, dir string, err error) {
	s.made++
	if s.server == nil {
		return "sqlite://" + filepath.Join(s.dir, "bench-"+strconv.Itoa(s.made)+".db"), s.dir, nil
	}
	name := "bench" + strconv.Itoa(s.made)
	db, err := sql.Open("postgres", s.server.URL("postgres"))
	if err != nil {
		return "", "", err
	}
	_, err = db.ExecContext(ctx, "CREATE DATABASE "+name)
	return s.server.URL(name), s.dir, errors.Join(err, db.Close())
}

// settle has what was written so far reach the disks. Otherwise it does so in the middle of what is measured, where every
// commit waits for it: the kernel writes out what is half a minute old, and Postgres when it makes a checkpoint.
func (s *Store) settle(ctx context.Context) error {
	if s.server != nil {
		db, err := sql.Open("postgres", s.server.URL("postgres"))
		if err != nil {
			return err
		}
		_, err = db.ExecContext(ctx, "CHECKPOINT")
		if err = errors.Join(err, db.Close()); err != nil {
			return err
		}
	}
	syncDisks()
	return nil
}

// storeFloor measures the store without a gateway: rows per second through its append statement in batches of 200, one
// committer, and the median of a bare commit of one row.
func storeFloor(ctx context.Context, s *Store, d time.Duration) (rows float64, single time.Duration, err error) {
	storeURL, _, err := s.fresh(ctx)
	if err != nil {
		return 0, 0, err
	}
	store, err := persistence.Open(ctx, persistence.Options{URL: storeURL})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Migrate(ctx); err != nil {
		return 0, 0, err
	}
	if rows, err = appendRate(ctx, store, d); err != nil {
		return 0, 0, err
	}
	single, err = s.bareCommit(ctx)
	return rows, single, err
}

func appendRate(ctx context.Context, store *persistence.Store, d time.Duration) (float64, error) {
	const conversations, batchSize = 100, 200
	u, err := store.CreateUser(ctx, domain.NewUser{Username: "sender@bench.bench", MakeAccount: true})
	if err != nil {
		return 0, err
	}
	log := store.Logs()[0]
	p := u.Principal("bench")
	heads := make([]*domain.Conversation, conversations)
	for i := range heads {
		changed, err := log.Change(ctx, []domain.ChangeRequest{{
			Key: uuid.NewString(), Principal: p, Needs: (&domain.CreateConversation{}).Needs(p),
			Decide: func(h *domain.Heads) (domain.Decision, error) {
				h.NewID, h.Now, h.Limits = domain.ConversationID(uuid.Must(uuid.NewV7())), domain.Millis(time.Now()), domain.DefaultLimits()
				return domain.Decide(h, p, &domain.CreateConversation{})
			},
		}})
		if err == nil {
			err = changed[0].Err
		}
		if err != nil {
			return 0, err
		}
		heads[i] = changed[0].Decision.Conversation
	}
	var command domain.SendMessage
	if err := json.Unmarshal(message(), &command); err != nil {
		return 0, err
	}
	n := 0
	var begin time.Time
	for round := 0; ; round++ {
		switch {
		case begin.IsZero() && round == 50: // the first batches prepare and warm up
			begin, n = time.Now(), 0
		case !begin.IsZero() && time.Since(begin) > d:
			return float64(n) / time.Since(begin).Seconds(), nil
		}
		batch := make([]domain.Draft, batchSize)
		for i := range batch {
			c := command
			head := heads[(n+i)%conversations]
			c.Conversation, c.ClientID = head.ID, uuid.NewString()
			decision, err := domain.Decide(&domain.Heads{
				Now: domain.Millis(time.Now()), Limits: domain.DefaultLimits(), Conversation: head,
			}, p, &c)
			if err != nil {
				return 0, err
			}
			batch[i] = domain.Draft{Event: decision.Events[0], Version: head.Version}
		}
		placed, err := log.Append(ctx, batch)
		if err != nil {
			return 0, err
		}
		for _, pl := range placed {
			if pl.Status != domain.Stored {
				return 0, fmt.Errorf("a draft was not stored: status %d", pl.Status)
			}
		}
		n += batchSize
	}
}

// bareCommit gives the median time of a transaction of one row, without anything of Parley.
func (s *Store) bareCommit(ctx context.Context) (_ time.Duration, err error) {
	driver, dsn := "sqlite", "file:"+filepath.Join(s.dir, "bare.db")+
		"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
	insert := "INSERT INTO bare (body) VALUES ($1)"
	if s.server != nil {
		storeURL, _, err := s.fresh(ctx)
		if err != nil {
			return 0, err
		}
		driver, dsn = "postgres", storeURL
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "CREATE TABLE bare (body text)"); err != nil {
		return 0, err
	}
	statement, err := db.PrepareContext(ctx, insert)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, statement.Close()) }()
	times := make([]time.Duration, 0, 2000)
	for range 2000 {
		begin := time.Now()
		if _, err := statement.ExecContext(ctx, text()); err != nil {
			return 0, err
		}
		times = append(times, time.Since(begin))
	}
	return quantile(times[200:], .5), nil
}
