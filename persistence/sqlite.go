package persistence

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	_ "modernc.org/sqlite" // The driver "sqlite".
)

const (
	defaultSQLiteReaders = 4
	// busyTimeout is how long a connection waits for a lock, in milliseconds.
	busyTimeout = "5000"
)

// openSQLite sets s up on an SQLite file, which it and its folder are made for if they are not there.
func (s *Store) openSQLite(ctx context.Context, o Options) error {
	s.d = sqliteDialect()
	path, err := sqlitePath(o.URL)
	if err != nil {
		return err
	}
	if path, err = makeFile(path); err != nil {
		return fmt.Errorf("cannot make the store: %w", err)
	}
	if s.unlock, err = lockStore(path + ".lock"); err != nil {
		s.unlock = func() error { return nil }
		return fmt.Errorf("store %s: %w", path, err)
	}
	readers := o.Readers
	if readers <= 0 {
		readers = defaultSQLiteReaders
	}
	// Two more than the one that is kept: migrations need one, and a lost one must not be waited for.
	if s.writes, err = openFile(path, 3, "immediate", writerPragmas()); err != nil {
		return err
	}
	reads, err := openFile(path, readers, "deferred", readerPragmas())
	if err != nil {
		return err
	}
	s.reads = newPool(reads)
	var mode string
	if err := s.writes.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return fmt.Errorf("cannot open the store %s: %w", path, err)
	}
	if mode != "wal" {
		return fmt.Errorf("store %s: its file system does not allow SQLite's write-ahead log (journal_mode is %q)", path, mode)
	}
	s.addLogs(1, nil)
	s.writer = s.logs[0].session
	return nil
}

// sqlitePath gives the absolute path of the file that a URL names.
func sqlitePath(raw string) (string, error) {
	path := strings.TrimPrefix(raw, "sqlite://")
	switch {
	case path == "" || strings.HasSuffix(path, "/"):
		return "", fmt.Errorf("%w: %q names no file; write sqlite://data/parley.db, or sqlite:///var/lib/parley/parley.db", ErrURL, raw)
	case strings.ContainsAny(path, "?#\x00"):
		return "", fmt.Errorf("%w: %q: the path of an SQLite store takes no options", ErrURL, raw)
	case strings.Contains(path, ":memory:"):
		return "", fmt.Errorf("%w: a store in memory would acknowledge what it cannot keep", ErrURL)
	}
	return filepath.Abs(path)
}

// makeFile makes the file and its folder if they are not there, for nobody else to read: it holds passwords and keys. It
// gives the file's true name, so that one file has one lock, by whatever name it is opened.
func makeFile(path string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// writerPragmas are the settings of the connection that writes. busy_timeout comes first: the others may have to wait.
func writerPragmas() []string {
	return []string{
		"busy_timeout(" + busyTimeout + ")", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-65536)", "temp_store(MEMORY)",
		"foreign_keys(ON)",
		// What was removed is overwritten, not just forgotten; and a log that grew in a busy hour shrinks again.
		"secure_delete(ON)", "journal_size_limit(67108864)",
	}
}

func readerPragmas() []string {
	return []string{"busy_timeout(" + busyTimeout + ")", "cache_size(-16384)", "temp_store(MEMORY)", "query_only(ON)"}
}

// openFile makes a pool of up to n connections to an SQLite file, whose transactions begin as begin says.
func openFile(path string, n int, begin string, pragmas []string) (*sqlx.DB, error) {
	q := url.Values{"_pragma": pragmas, "_txlock": {begin}}
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, fmt.Errorf("cannot open the store %s: %w", path, err)
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxIdleTime(10 * time.Minute)
	return sqlx.NewDb(db, "sqlite"), nil
}

// emptyLog brings what is in SQLite's write-ahead log to its place and empties the log: what was removed or overwritten since
// is in there as it was, and would stay until that part of the log is used again. It waits for readers a fifth of a second
// at a time, so that those who write wait no longer, and leaves it for the next time if there is always one.
func (s *Store) emptyLog(ctx context.Context) error {
	if s.writer == nil {
		return nil
	}
	for range 5 {
		busy := int64(1)
		err := s.writer.do(ctx, func(q runner) (err error) {
			if _, err := one(ctx, q, []any{new(int64)}, "PRAGMA busy_timeout = 200"); err != nil {
				return err
			}
			defer func() {
				_, again := one(ctx, q, []any{new(int64)}, "PRAGMA busy_timeout = "+busyTimeout)
				err = errors.Join(err, again)
			}()
			_, err = one(ctx, q, []any{&busy, new(int64), new(int64)}, "PRAGMA wal_checkpoint(TRUNCATE)")
			return err
		})
		if err != nil || busy == 0 {
			return refusal(err)
		}
	}
	s.logger.Debug("the write-ahead log is in use and not emptied")
	return nil
}

// lockStore makes this process the only user of a store, until unlock or its end. The file is left behind: removing it
// would let two processes each lock a file of that name.
func lockStore(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("its lock file: %w", err)
	}
	locked, err := tryLock(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking its lock file: %w", err), f.Close())
	}
	if !locked {
		who := make([]byte, 20)
		n, _ := f.ReadAt(who, 0)
		return nil, errors.Join(fmt.Errorf("%w (%s, process %s)", ErrLocked, path, strings.TrimSpace(string(who[:n]))), f.Close())
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}
