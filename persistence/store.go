package persistence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
)

// Options say which store to open, and how. The zero value of everything but URL is what most want.
type Options struct {
	// URL is sqlite://<path> (relative or absolute, created if it is not there) or postgres://….
	URL string
	// Shards is how many [Log] values a Postgres store has, 2 if it is 0. SQLite has one writer and so always one.
	Shards int
	// Readers is the most connections used for reading, and on Postgres for administration: 8 on Postgres and 4 on
	// SQLite if it is 0. A Postgres store opens up to Shards+2 further ones.
	Readers int
	// AllowUnsafe only warns where a Postgres server may lose what it has acknowledged (fsync or synchronous_commit
	// off), instead of refusing it.
	AllowUnsafe bool
	// Logger gets what an operator should know; nil: nobody does.
	Logger *slog.Logger
	// Registerer gets the metrics; nil: they are not registered.
	Registerer prometheus.Registerer
}

// Store is an open store. All of its methods may be called from any goroutine, until Close.
type Store struct {
	d       *dialect
	logger  *slog.Logger
	metrics *storeMetrics
	// reads runs what only reads, writes holds the connections of the sessions, which each keep one.
	reads  *pool
	writes *sqlx.DB
	logs   []*Log
	// writer, on SQLite, is the session that everybody who writes shares; nil on Postgres.
	writer *session
	text   texts
	unlock func() error
}

// Open opens the store and makes sure that it answers and is safe to use; it changes nothing in it. [Store.Migrate]
// must have been called, by this process or another, before anything is read or written. The caller closes the store.
//
// Errors are for the operator: wrapping [ErrURL], [ErrLocked], [ErrUnsafe], [ErrNewerSchema], or saying why there is no
// connection.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{logger: o.Logger, unlock: func() error { return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	scheme, _, ok := strings.Cut(o.URL, "://")
	switch {
	case ok && scheme == "sqlite":
		err = s.openSQLite(ctx, o)
	case ok && (scheme == "postgres" || scheme == "postgresql"):
		err = s.openPostgres(ctx, o)
	case ok:
		err = fmt.Errorf("%w: no store speaks %q; write sqlite://<path> or postgres://user:password@host/database", ErrURL, scheme)
	default:
		err = fmt.Errorf("%w: %q has no scheme; write sqlite://<path> or postgres://user:password@host/database", ErrURL, clipURL(o.URL))
	}
	if err != nil {
		return nil, err
	}
	s.text = newTexts(s.d)
	if s.metrics, err = newMetrics(o.Registerer, s); err != nil {
		return nil, fmt.Errorf("metrics of the store: %w", err)
	}
	for _, l := range s.logs {
		l.session.made = s.metrics.connects.Inc
	}
	if err := s.checkVersion(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// clipURL shortens a URL for an error. What has no scheme is hardly a URL with a password in it, but may be long.
func clipURL(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// redacted gives a URL without its password.
func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the given URL"
	}
	q := u.Query()
	if q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

// addLogs makes n committers, each with a connection of its own.
func (s *Store) addLogs(n int, check func(context.Context, runner) error) {
	for i := range n {
		session := newSession(s.writes, s.d, s.logger.With("committer", i))
		session.check = check
		s.logs = append(s.logs, &Log{store: s, session: session})
	}
}

// Logs gives the store's committers, one per shard. Each may be used by one goroutine at a time; all of them may write
// to any conversation.
func (s *Store) Logs() []*Log { return s.logs }

// Ping reports whether the store answers; its error is unavailable.
func (s *Store) Ping(ctx context.Context) error {
	return s.read(func(q runner) error {
		var n int
		_, err := one(ctx, q, []any{&n}, "SELECT 1")
		return err
	})
}

// Close gives up all connections. Nobody may be using the store any more. Closing it again does nothing.
func (s *Store) Close() error {
	var errs []error
	for _, l := range s.logs {
		errs = append(errs, l.session.close())
	}
	if s.reads != nil {
		errs = append(errs, s.reads.close())
	}
	if s.writes != nil {
		errs = append(errs, s.writes.Close())
	}
	errs = append(errs, s.unlock())
	s.unlock = func() error { return nil }
	return errors.Join(errs...)
}

// read runs f, which reads, on the pool, and gives the domain's error for whatever goes wrong.
func (s *Store) read(f func(runner) error) error {
	start := time.Now()
	err := f(s.reads)
	s.metrics.observe(opRead, start, err)
	return refusal(err)
}

// write runs f in a transaction, and gives the domain's error for whatever goes wrong: nothing is written then, except
// that with unavailable it may be.
func (s *Store) write(ctx context.Context, f func(runner) error) error {
	start := time.Now()
	err := s.writeOnce(ctx, f)
	s.metrics.observe(opWrite, start, err)
	return refusal(err)
}

func (s *Store) writeOnce(ctx context.Context, f func(runner) error) (err error) {
	if s.writer != nil {
		return s.writer.write(ctx, f)
	}
	tx, err := s.reads.db.BeginTxx(ctx, nil)
	if err != nil {
		return &connectError{cause: err}
	}
	done := false
	defer func() {
		if !done {
			// The error that led here says more than one of the rollback; the pool drops the connection if it is broken.
			_ = tx.Rollback()
		}
	}()
	if err := f(transaction{tx}); err != nil {
		return err
	}
	done = true
	return tx.Commit()
}

// gauge counts the open connections of a pool.
func (s *Store) gauge(name string, db *sqlx.DB) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "parley_store_open_connections",
		Help:        "Connections to the store, by what they are for.",
		ConstLabels: prometheus.Labels{"pool": name},
	}, func() float64 { return float64(db.Stats().OpenConnections) })
}
