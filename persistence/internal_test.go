package persistence

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/persistence/pgtest"
)

func TestErrorsAreSortedByCode(t *testing.T) {
	// Too much called unavailable is tried for ever, too little is refused to a sender who did nothing wrong.
	for code, want := range map[string]domain.Code{
		"40001": domain.Unavailable, "40P01": domain.Unavailable, "55P03": domain.Unavailable, "57014": domain.Unavailable,
		"57P01": domain.Unavailable, "57P02": domain.Unavailable, "57P03": domain.Unavailable, "08006": domain.Unavailable,
		"53100": domain.Unavailable, "53300": domain.Unavailable, "58030": domain.Unavailable, "25006": domain.Unavailable,
		"23505": domain.Internal, "23503": domain.Internal, "22021": domain.Internal, "54000": domain.Internal,
		"42P01": domain.Internal, "P0001": domain.Internal, "XX000": domain.Internal, "25P02": domain.Internal,
	} {
		err := fmt.Errorf("wrapped: %w", &pq.Error{Code: pqerror.Code(code)})
		if got := domain.CodeOf(refusal(err)); got != want {
			t.Errorf("%s: %s, want %s", code, got, want)
		}
	}
	for code, want := range map[int]domain.Code{
		sqlite3.SQLITE_BUSY: domain.Unavailable, sqlite3.SQLITE_BUSY_SNAPSHOT: domain.Unavailable, sqlite3.SQLITE_LOCKED: domain.Unavailable,
		sqlite3.SQLITE_IOERR_FSYNC: domain.Unavailable, sqlite3.SQLITE_FULL: domain.Unavailable, sqlite3.SQLITE_INTERRUPT: domain.Unavailable,
		sqlite3.SQLITE_CANTOPEN: domain.Unavailable, sqlite3.SQLITE_READONLY_DBMOVED: domain.Unavailable,
		sqlite3.SQLITE_CONSTRAINT_UNIQUE: domain.Internal, sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: domain.Internal,
		sqlite3.SQLITE_ERROR: domain.Internal, sqlite3.SQLITE_CORRUPT: domain.Internal, sqlite3.SQLITE_TOOBIG: domain.Internal,
	} {
		got := domain.Internal
		if kindOfSQLite(code).retryable() {
			got = domain.Unavailable
		}
		if got != want {
			t.Errorf("SQLite %d: %s, want %s", code, got, want)
		}
	}
	for _, err := range []error{
		driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed, context.Canceled,
		context.DeadlineExceeded, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, &net.DNSError{},
		&connectError{cause: &pq.Error{Code: "28P01"}},
	} {
		if got := domain.CodeOf(refusal(fmt.Errorf("wrapped: %w", err))); got != domain.Unavailable {
			t.Errorf("%v: %s", err, got)
		}
	}
	taken := domain.Errorf(domain.AlreadyExists, "x")
	if err := refusal(taken); !errors.Is(err, taken) {
		t.Errorf("a refusal became %v", err)
	}
	if refusal(nil) != nil {
		t.Error("no error became one")
	}
}

func TestPermissionsSurviveTheirColumn(t *testing.T) {
	for n := range int64(256) {
		if got := packPermissions(unpackPermissions(n)); got != n {
			t.Errorf("%b became %b", n, got)
		}
	}
	if packPermissions(domain.EveryPermission()) != 255 {
		t.Error("not every permission has a bit")
	}
}

func TestArraysReachPostgresAsTheyAre(t *testing.T) {
	// They are written by hand, byte by byte.
	s := openInternal(t, pgtest.NewDatabase(t))
	long := strings.Repeat("x", 70_000)
	for _, c := range []struct {
		cast  string
		array any
		want  string
	}{
		{"bigint[]", bigintArray{1, -2, 1 << 62}, "{1,-2,4611686018427387904}"},
		{"bigint[]", bigintArray{}, "{}"},
		{"bigint[]", bigintArray(nil), "{}"},
		{"integer[]", intArray{0, -7, 1 << 30}, "{0,-7,1073741824}"},
		{"text[]", textArray{"", "a", `"\,{}`, "ä🗺", "NULL", long}, `{"",a,"\"\\,{}",ä🗺,"NULL",` + long + `}`},
		{"bytea[]", byteaArray{{}, {0, 255}, nil}, `{"\\x","\\x00ff","\\x"}`},
		{"uuid[]", uuidArray{{1}, {15: 255}}, "{01000000-0000-0000-0000-000000000000,00000000-0000-0000-0000-0000000000ff}"},
	} {
		var got string
		text := "SELECT ($1::" + c.cast + ")::text"
		if _, err := one(t.Context(), s.reads, []any{&got}, text, c.array); err != nil {
			t.Errorf("%s: %v", c.cast, err)
		} else if got != c.want {
			t.Errorf("%s: got %s, want %s", c.cast, got, c.want)
		}
	}
}

func openInternal(t *testing.T, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSQLiteIsSetUpToBeDurable(t *testing.T) {
	// A pragma that is misspelt is ignored without a word.
	s := openInternal(t, "sqlite://"+filepath.Join(t.TempDir(), "parley.db"))
	read := func(q runner, name string) string {
		var value string
		if _, err := one(t.Context(), q, []any{&value}, "PRAGMA "+name); err != nil {
			t.Fatal(err)
		}
		return value
	}
	got := make(map[string]string)
	err := s.writer.do(t.Context(), func(q runner) error {
		for _, name := range []string{"journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete"} {
			got[name] = read(q, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "secure_delete": "1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("writer (-want +got):\n%s", diff)
	}
	if _, err := s.reads.exec(t.Context(), "INSERT INTO settings VALUES ('a', 'b')"); err == nil {
		t.Error("a reader can write")
	}
}
