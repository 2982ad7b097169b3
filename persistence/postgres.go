package persistence

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

const (
	defaultShards  = 2
	defaultReaders = 8
)

// openPostgres sets s up on a Postgres server.
func (s *Store) openPostgres(ctx context.Context, o Options) error {
	s.d = postgresDialect()
	dsn, err := postgresDSN(o.URL)
	if err != nil {
		return err
	}
	base, err := pq.NewConnector(dsn)
	if err != nil {
		// The driver's error may quote the URL, password included.
		return fmt.Errorf("%w: %s is not understood by the Postgres driver", ErrURL, redacted(o.URL))
	}
	connector := &connector{Connector: base}
	shards, readers := o.Shards, o.Readers
	if shards <= 0 {
		shards = defaultShards
	}
	if readers <= 0 {
		readers = defaultReaders
	}
	s.reads = newPool(openDB(connector, "postgres", readers))
	// Two more than are kept: a committer that has lost its connection must not wait for another.
	s.writes = openDB(connector, "postgres", shards+2)
	if err := s.checkServer(ctx, o); err != nil {
		return err
	}
	s.addLogs(shards, func(ctx context.Context, q runner) error {
		// A connection made later may lead to another server, or to one with other settings.
		return safeServer(ctx, q, o.AllowUnsafe)
	})
	return nil
}

// openDB makes a pool of up to n connections, which keeps them all.
func openDB(connector driver.Connector, name string, n int) *sqlx.DB {
	db := sqlx.NewDb(sql.OpenDB(connector), name)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxIdleTime(10 * time.Minute)
	return db
}

// connector makes connections and tells each what the store needs of its session.
type connector struct{ *pq.Connector }

// Everything the store asks for often has an index. A plan that was made, and kept, while a table was small must not read
// the whole of it when it has grown. And a gateway that hangs in the middle of a transaction must not keep its locks.
const setUpSession = `SET enable_seqscan = off; SET idle_in_transaction_session_timeout = '15s'`

// Connect implements driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(errors.New("the driver's connections execute nothing"), conn.Close())
	}
	if _, err := execer.ExecContext(ctx, setUpSession, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// postgresDSN gives the URL with what the store needs of the driver. What the operator has set stays, except for the
// binary form of parameters, on which the array types depend.
func postgresDSN(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("%w: it cannot be parsed; a password with special characters must be percent-encoded", ErrURL)
	}
	q := u.Query()
	q.Set("binary_parameters", "yes")
	for name, value := range map[string]string{
		"application_name":              "parley",
		"connect_timeout":               "5",
		"default_transaction_isolation": "read committed",
	} {
		if !q.Has(name) {
			q.Set(name, value)
		}
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// checkServer connects for the first time, and says for people what is wrong.
func (s *Store) checkServer(ctx context.Context, o Options) error {
	conn, err := s.writes.Connx(ctx)
	if err != nil {
		return fmt.Errorf("cannot connect to %s: %w", redacted(o.URL), err)
	}
	defer conn.Close()
	on := &statements{on: conn, made: make(map[string]*sqlx.Stmt)}
	if o.AllowUnsafe {
		if err := safeServer(ctx, on, false); err != nil {
			s.logger.Warn("acknowledged messages may be lost when the database server crashes", "err", err)
		}
	}
	if err := safeServer(ctx, on, o.AllowUnsafe); err != nil {
		return fmt.Errorf("%s: %w", redacted(o.URL), err)
	}
	return nil
}

const selectServer = `SELECT current_setting('fsync'), current_setting('synchronous_commit'),
	current_setting('default_transaction_isolation'), pg_is_in_recovery()`

// safeServer refuses a server that does not keep what it has committed, or on which the append function would not see
// what was committed while it waited for a lock.
func safeServer(ctx context.Context, q runner, allow bool) error {
	var fsync, synchronous, isolation string
	var standby bool
	if _, err := one(ctx, q, []any{&fsync, &synchronous, &isolation, &standby}, selectServer); err != nil {
		return fmt.Errorf("asking for the server's settings: %w", err)
	}
	switch {
	case standby:
		return fmt.Errorf("%w: it is a standby and cannot be written to", ErrUnsafe)
	case isolation != "read committed":
		return fmt.Errorf("%w: default_transaction_isolation is %q and must be \"read committed\"", ErrUnsafe, isolation)
	case fsync != "on" && !allow:
		return fmt.Errorf("%w: fsync is %s, so a crash may lose acknowledged messages or corrupt the database", ErrUnsafe, fsync)
	case synchronous == "off" && !allow:
		return fmt.Errorf("%w: synchronous_commit is off, so a crash would lose acknowledged messages", ErrUnsafe)
	}
	return nil
}
