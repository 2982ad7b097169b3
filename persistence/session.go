package persistence

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"sync"

	"github.com/jmoiron/sqlx"
)

// runner runs statements: inside a transaction, or each for itself.
type runner interface {
	// query runs a statement that gives rows; the caller closes them.
	query(ctx context.Context, text string, args ...any) (*sqlx.Rows, error)
	// exec runs a statement and tells how many rows it has written.
	exec(ctx context.Context, text string, args ...any) (int64, error)
}

// each calls scan for every row of a statement.
func each(ctx context.Context, q runner, scan func(*sqlx.Rows) error, text string, args ...any) error {
	rows, err := q.query(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// one reads the first row of a statement into dest and reports whether there was one.
func one(ctx context.Context, q runner, dest []any, text string, args ...any) (found bool, err error) {
	err = each(ctx, q, func(rows *sqlx.Rows) error {
		found = true
		return rows.Scan(dest...)
	}, text, args...)
	return found, err
}

// statements are the prepared statements of a connection, or of a pool, by their text.
type statements struct {
	on interface {
		PreparexContext(ctx context.Context, query string) (*sqlx.Stmt, error)
	}
	// detached, on SQLite: statements run to their end, whatever happens to the caller's context. They are short, and
	// being able to interrupt each costs as much as a short one takes.
	detached bool
	mu       sync.RWMutex // guards made
	made     map[string]*sqlx.Stmt
}

func (s *statements) get(ctx context.Context, text string) (*sqlx.Stmt, error) {
	s.mu.RLock()
	stmt := s.made[text]
	s.mu.RUnlock()
	if stmt != nil {
		return stmt, nil
	}
	stmt, err := s.on.PreparexContext(ctx, text)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if first := s.made[text]; first != nil {
		defer stmt.Close()
		return first, nil
	}
	s.made[text] = stmt
	return stmt, nil
}

// query implements [runner].
func (s *statements) query(ctx context.Context, text string, args ...any) (*sqlx.Rows, error) {
	if s.detached {
		ctx = context.WithoutCancel(ctx)
	}
	stmt, err := s.get(ctx, text) //nolint:sqlclosecheck // Kept as long as the connection.
	if err != nil {
		return nil, err
	}
	return stmt.QueryxContext(ctx, args...)
}

// exec implements [runner].
func (s *statements) exec(ctx context.Context, text string, args ...any) (int64, error) {
	if s.detached {
		ctx = context.WithoutCancel(ctx)
	}
	stmt, err := s.get(ctx, text) //nolint:sqlclosecheck // Kept as long as the connection.
	if err != nil {
		return 0, err
	}
	res, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// close frees the statements. SQLite keeps a connection open until it has been done for each; Postgres drops them with
// the connection, and might not be there to be asked.
func (s *statements) close() error {
	if !s.detached {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, stmt := range s.made {
		errs = append(errs, stmt.Close())
	}
	clear(s.made)
	return errors.Join(errs...)
}

// pool runs statements that only read, each on whatever connection is free and each prepared once per connection.
type pool struct {
	statements
	db *sqlx.DB
}

func newPool(db *sqlx.DB) *pool {
	return &pool{statements: statements{on: db, made: make(map[string]*sqlx.Stmt)}, db: db}
}

// snapshot runs f, which reads, so that all of its statements see the same state.
func (p *pool) snapshot(ctx context.Context, o *sql.TxOptions, f func(runner) error) error {
	tx, err := p.db.BeginTxx(ctx, o)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // Nothing was written.
	return f(transaction{tx})
}

func (p *pool) close() error { return p.db.Close() }

// transaction runs the statements of an explicit transaction on a pooled connection. They are not prepared: in this
// driver's binary mode an unprepared statement takes one round trip as well.
type transaction struct{ tx *sqlx.Tx }

// query implements [runner].
func (t transaction) query(ctx context.Context, text string, args ...any) (*sqlx.Rows, error) {
	return t.tx.QueryxContext(ctx, text, args...)
}

// exec implements [runner].
func (t transaction) exec(ctx context.Context, text string, args ...any) (int64, error) {
	res, err := t.tx.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// session is a connection that is kept, with its prepared statements. It is made when it is first needed, and again
// after it was lost. One caller at a time has it.
type session struct {
	db     *sqlx.DB
	d      *dialect
	logger *slog.Logger
	// check, if not nil, refuses a fresh connection; made counts them.
	check func(ctx context.Context, q runner) error
	made  func()

	busy chan struct{} // holds one token while somebody has the session; guards the rest
	conn *sqlx.Conn
	*statements
}

func newSession(db *sqlx.DB, d *dialect, logger *slog.Logger) *session {
	return &session{db: db, d: d, logger: logger, made: func() {}, busy: make(chan struct{}, 1)}
}

// acquire waits for the session and sees to it that it has a connection.
func (s *session) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err // Nothing is begun that would cost the connection to give up.
	}
	select {
	case s.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.conn != nil {
		return nil
	}
	if err := s.connect(ctx); err != nil {
		s.release()
		return &connectError{cause: err}
	}
	return nil
}

func (s *session) release() { <-s.busy }

func (s *session) connect(ctx context.Context) error {
	conn, err := s.db.Connx(ctx)
	if err != nil {
		return err
	}
	s.conn = conn
	s.statements = &statements{on: conn, detached: !s.d.sets, made: make(map[string]*sqlx.Stmt)}
	if s.check != nil {
		if err := s.check(ctx, s); err != nil {
			s.discard()
			return err
		}
	}
	s.made()
	return nil
}

// discard gives the connection up: what was attempted on it last has an unknown outcome, and a transaction that may
// still be open on it must end.
func (s *session) discard() {
	err := s.statements.close()
	// Giving this error to the pool makes it close the connection instead of keeping it for others.
	if badConn := s.conn.Raw(func(any) error { return driver.ErrBadConn }); !errors.Is(badConn, driver.ErrBadConn) {
		err = errors.Join(err, badConn)
	}
	if err != nil {
		s.logger.Debug("giving up a connection", "err", err)
	}
	s.conn, s.statements = nil, nil
}

// do runs f on the session, each statement for itself. Only statements that are one transaction and harmless if the
// caller repeats them belong there.
func (s *session) do(ctx context.Context, f func(runner) error) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	err := f(s)
	if err != nil && kindOfError(err).doubtful() {
		s.lost(err)
	}
	return err
}

// write runs f in a transaction on the session and commits it, unless f fails.
func (s *session) write(ctx context.Context, f func(runner) error) (err error) {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	open := true
	defer func() {
		// Also when f panics: the next one must not find a transaction open.
		if open && s.conn != nil {
			s.rollback(ctx, err)
		}
	}()
	if _, err := s.conn.ExecContext(ctx, s.d.begin); err != nil {
		return err
	}
	if err := f(s); err != nil {
		return err
	}
	if _, err := s.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return err
	}
	open = false
	return nil
}

// rollback ends a transaction that failed with err.
func (s *session) rollback(ctx context.Context, err error) {
	if kindOfError(err).doubtful() || ctx.Err() != nil {
		s.lost(err)
		return
	}
	if _, err := s.conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		s.lost(err)
	}
}

// lost gives up the connection after an error that leaves it in doubt.
func (s *session) lost(err error) {
	if s.conn == nil {
		return
	}
	s.logger.Warn("a connection to the store is given up; the next call makes a new one", "kind", kindOfError(err).String(), "err", err)
	s.discard()
}

// close ends the session. Nobody may have it, or wait for it.
func (s *session) close() error {
	s.busy <- struct{}{}
	defer s.release()
	if s.conn == nil {
		return nil
	}
	err := errors.Join(s.statements.close(), s.conn.Close())
	s.conn, s.statements = nil, nil
	return err
}
