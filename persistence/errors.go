package persistence

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/lib/pq"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/parley-im/parley/domain"
)

// Errors of [Open] and [Store.Migrate] that an operator can do something about. They come wrapped in one that says more.
var (
	// ErrURL is a URL that names no store.
	ErrURL = errors.New("not the URL of a store")
	// ErrLocked is an SQLite store that another process has open.
	ErrLocked = errors.New("the store is in use by another process")
	// ErrNewerSchema is a store that a newer version of Parley has migrated.
	ErrNewerSchema = errors.New("the store was migrated by a newer version of Parley")
	// ErrUnsafe is a Postgres server that would lose what it has acknowledged, or answers with another isolation level
	// than the statements were made for.
	ErrUnsafe = errors.New("the database server is not safe to use")
)

// kind says what an error of a driver means for what was attempted.
type kind int

const (
	// kindOther: nothing was written, and it would fail again.
	kindOther kind = iota
	// kindConnection: the connection is of no use any more. What became of the attempt is unknown.
	kindConnection
	// kindConflict: another transaction was in the way.
	kindConflict
	// kindTimeout: it was given up, by the caller or by a limit of the server.
	kindTimeout
	// kindResources: the server has too little of something, or its disk fails.
	kindResources
	// kindUnique: a value that may exist once exists already.
	kindUnique
	// kindConstraint: another constraint was violated.
	kindConstraint
	// kindData: a value that its column does not take.
	kindData
	// kindRefusal: not of the driver but a decision, the domain's error.
	kindRefusal
)

// String gives the value of the metrics' label.
func (k kind) String() string {
	switch k {
	case kindConnection:
		return "connection"
	case kindConflict:
		return "conflict"
	case kindTimeout:
		return "timeout"
	case kindResources:
		return "resources"
	case kindUnique:
		return "unique"
	case kindConstraint:
		return "constraint"
	case kindData:
		return "data"
	case kindRefusal:
		return "refusal"
	case kindOther:
	}
	return "other"
}

// retryable reports whether the same may succeed later.
func (k kind) retryable() bool {
	switch k {
	case kindConnection, kindConflict, kindTimeout, kindResources:
		return true
	case kindOther, kindUnique, kindConstraint, kindData, kindRefusal:
	}
	return false
}

// doubtful reports whether the connection that gave the error should not be used again.
func (k kind) doubtful() bool {
	switch k {
	case kindConnection, kindTimeout, kindResources:
		return true
	case kindOther, kindConflict, kindUnique, kindConstraint, kindData, kindRefusal:
	}
	return false
}

// kindOfError sorts an error by the driver's code, never by its text.
func kindOfError(err error) kind {
	var refusal *domain.Error
	var lost *connectError
	var pqErr *pq.Error
	var liteErr *sqlite.Error
	var netErr net.Error
	switch {
	case errors.As(err, &refusal):
		return kindRefusal
	case errors.As(err, &lost):
		return kindConnection
	case errors.As(err, &pqErr):
		return kindOfPostgres(pqErr)
	case errors.As(err, &liteErr):
		return kindOfSQLite(liteErr.Code())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return kindTimeout
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &netErr):
		return kindConnection
	}
	return kindOther
}

func kindOfPostgres(err *pq.Error) kind {
	switch err.Code {
	case "40001", "40P01", "55P03": // serialization failure, deadlock, lock not available
		return kindConflict
	case "57014": // query canceled
		return kindTimeout
	case "23505":
		return kindUnique
	case "25006", "26000": // a server that is no longer the primary; a prepared statement that a pooler does not know
		return kindConnection
	}
	switch err.Code.Class() {
	case "08", "57": // connection exception, operator intervention
		return kindConnection
	case "53", "58": // insufficient resources, system error
		return kindResources
	case "23":
		return kindConstraint
	case "22", "54": // data exception, program limit exceeded
		return kindData
	}
	return kindOther
}

func kindOfSQLite(code int) kind {
	if code == sqlite3.SQLITE_CONSTRAINT_UNIQUE || code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY {
		return kindUnique
	}
	switch code & 0xff { // The higher bits say more about the same thing.
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		return kindConflict
	case sqlite3.SQLITE_INTERRUPT:
		return kindTimeout
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM:
		return kindResources
	case sqlite3.SQLITE_CONSTRAINT:
		return kindConstraint
	case sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE:
		return kindData
	}
	return kindOther
}

// connectError is a connection that could not be made: whatever the reason, nothing was attempted on it.
type connectError struct{ cause error }

func (e *connectError) Error() string { return "no connection to the store: " + e.cause.Error() }

func (e *connectError) Unwrap() error { return e.cause }

// refusal gives the domain's error for one of a driver.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	k := kindOfError(err)
	switch {
	case k == kindRefusal:
		return domain.AsError(err)
	case k.retryable():
		return domain.Because(domain.Unavailable, err, "the store is not available at the moment")
	}
	return domain.Because(domain.Internal, err, "the store could not do this")
}
