// Package pgtest gives tests and benchmarks a real Postgres server of their own.
//
// A server lives in a temporary directory, listens on a free port of 127.0.0.1 and on a socket in that directory, and has
// fsync and synchronous_commit on, as in production: what it acknowledged survives [Server.Kill9]. It runs as an
// unprivileged user, also when the tests run as root.
//
// Most tests want [NewDatabase]: a fresh database on a server that all tests of the process share. The package's TestMain
// then calls [Main], which stops that server at the end. Tests that kill or stop the server take their own from [New].
//
// A machine without Postgres fails these tests, it never skips them: `make postgres` installs what is missing.
//
// A server has one goroutine that waits for its process; checks for leaked goroutines ignore it by the name
// "github.com/parley-im/parley/persistence/pgtest.(*postmaster).run".
//
// The package imports nothing else of this module.
package pgtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"
)

// ErrNoPostgres is returned by [Start] where the Postgres server binaries cannot be found.
var ErrNoPostgres = errors.New("no Postgres server binaries (initdb, postgres) found: run `make postgres`")

const (
	superuser = "postgres"
	prefix    = "parley-pg-"

	// startTimeout is long because two cores may be running several packages' tests with the race detector.
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
)

// Options change how [Start] sets a server up. The zero value is what most tests want.
type Options struct {
	// Bin is the directory of initdb and postgres; empty means wherever they are found.
	Bin string
	// Settings are lines of postgresql.conf, name to value, which override the package's own.
	Settings map[string]string
}

// Server is a Postgres server. Its methods may be called from several goroutines.
type Server struct {
	dir      string // removed by Stop; holds lock, data, log and the socket
	bin      string
	port     int
	password string
	user     *owner
	unlock   func()
	nextDB   atomic.Int64

	mu      sync.Mutex // guards the two below, and serialises start, stop and kill
	proc    *postmaster
	stopped bool
}

// Start creates a server and waits until it accepts connections. The caller calls [Server.Stop]; on Linux the server also
// ends when this process does. It returns [ErrNoPostgres] if there is nothing to start.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	bin := o.Bin
	if bin == "" {
		if bin, err = findBin(ctx); err != nil {
			return nil, err
		}
	} else if !hasServer(bin) {
		return nil, fmt.Errorf("%s: %w", bin, ErrNoPostgres)
	}
	user, err := unprivileged()
	if err != nil {
		return nil, err
	}
	base, err := baseDir(user)
	if err != nil {
		return nil, err
	}
	removeLeftovers(base)
	dir, err := os.MkdirTemp(base, prefix)
	if err != nil {
		return nil, fmt.Errorf("directory for Postgres: %w", err)
	}
	s := &Server{dir: dir, bin: bin, user: user, password: rand.Text(), unlock: func() {}}
	defer func() {
		if err != nil {
			s.unlock()
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if s.unlock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	if err := s.init(ctx); err != nil {
		return nil, err
	}
	// Between finding a free port and listening on it, somebody else may take it.
	for attempt := 1; ; attempt++ {
		if s.port, err = freePort(); err != nil {
			return nil, err
		}
		if err = s.configure(o.Settings); err != nil {
			return nil, err
		}
		err = s.start(ctx)
		if err == nil || attempt == 5 || !strings.Contains(err.Error(), "could not bind") {
			return s, err
		}
	}
}

// New starts a server of the test's own, which the test may kill and restart, and stops it when the test ends.
func New(tb testing.TB) *Server {
	tb.Helper()
	s, err := Start(tb.Context(), Options{})
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return s
}

// init makes the data directory.
func (s *Server) init(ctx context.Context) error {
	// Only the data and the socket belong to the server's user; the directory around them stays ours, and may be passed through.
	if err := os.Chmod(s.dir, 0o711); err != nil {
		return err
	}
	for _, name := range []string{"data", "socket"} {
		path := filepath.Join(s.dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		if err := s.user.own(path); err != nil {
			return err
		}
	}
	// initdb wants an empty data directory, so the password waits elsewhere.
	pwfile := filepath.Join(s.dir, "socket", "pw")
	if err := os.WriteFile(pwfile, []byte(s.password+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(pwfile)
	if err := s.user.own(pwfile); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "--pgdata="+s.data(), "--username="+superuser,
		"--pwfile="+pwfile, "--auth=password", "--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.Dir = s.dir
	cmd.Env = s.env()
	cmd.SysProcAttr = s.user.attr()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// configure writes the settings.
func (s *Server) configure(extra map[string]string) error {
	settings := map[string]string{
		"listen_addresses":        "'127.0.0.1'",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "'" + filepath.Join(s.dir, "socket") + "'",
		"max_connections":         "200",
		"shared_buffers":          "'256MB'",
		"fsync":                   "on",
		"synchronous_commit":      "on",
		"full_page_writes":        "on",
		"max_wal_size":            "'1GB'",
		"timezone":                "'UTC'",
		"log_timezone":            "'UTC'",
		"log_line_prefix":         "'%m [%p] %d '",
		"log_lock_waits":          "on",
	}
	maps.Copy(settings, extra)
	var conf strings.Builder
	for name, value := range settings {
		fmt.Fprintf(&conf, "%s = %s\n", name, value)
	}
	path := filepath.Join(s.data(), "postgresql.auto.conf")
	if err := os.WriteFile(path, []byte(conf.String()), 0o600); err != nil {
		return err
	}
	return s.user.own(path)
}

// start runs the server and waits until it answers. The caller holds mu, or is the only one who knows s.
func (s *Server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data()) //nolint:noctx // It outlives ctx, which is for starting only.
	cmd.Dir = s.dir
	cmd.Env = s.env()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = s.user.attr()
	proc, err := run(cmd)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}

	db, err := sql.Open("postgres", s.URL("postgres"))
	if err != nil {
		return errors.Join(err, proc.kill())
	}
	defer db.Close()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if err = db.PingContext(ctx); err == nil {
			s.proc = proc
			return nil
		}
		select {
		case <-proc.done:
			return fmt.Errorf("postgres ended while starting (%w):\n%s", proc.err, s.logFrom(from))
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("postgres does not answer (%w):\n%s", err, s.logFrom(from)), proc.kill())
		case <-ticker.C:
		}
	}
}

// URL returns the URL of a database of this server, for lib/pq and for the gateway's store.url. It is the same after a restart.
func (s *Server) URL(db string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + db,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Bin returns the directory of the Postgres binaries that the server runs from.
func (s *Server) Bin() string { return s.bin }

// Log returns what the server has written to its log so far.
func (s *Server) Log() string { return s.logFrom(0) }

// NewDatabase creates an empty database for a test, drops it when the test ends, and returns its URL. A server that the
// test has killed or stopped by then takes the database with it.
func (s *Server) NewDatabase(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test_%d", s.nextDB.Add(1))
	address, err := s.CreateDatabase(tb.Context(), name)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if !s.Running() {
			return
		}
		// The test's own context is over when cleanups run. FORCE ends the connections that the test has left open.
		err := s.exec(context.Background(), "DROP DATABASE IF EXISTS "+pq.QuoteIdentifier(name)+" WITH (FORCE)")
		if err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return address
}

// CreateDatabase creates an empty database and returns its URL. It stays until the server is stopped.
func (s *Server) CreateDatabase(ctx context.Context, name string) (string, error) {
	if err := s.exec(ctx, "CREATE DATABASE "+pq.QuoteIdentifier(name)); err != nil {
		return "", err
	}
	return s.URL(name), nil
}

func (s *Server) exec(ctx context.Context, statement string) error {
	db, err := sql.Open("postgres", s.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// Running tells whether the server's process is alive.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running()
}

func (s *Server) running() bool {
	if s.proc == nil {
		return false
	}
	select {
	case <-s.proc.done:
		return false
	default:
		return true
	}
}

// Kill9 ends the server with SIGKILL, all of its processes at once, as a power cut or the out-of-memory killer would, and
// returns when they are gone. Without a running server it does nothing.
func (s *Server) Kill9() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running() {
		return nil
	}
	return s.proc.kill()
}

// Restart stops the server, if it runs, and starts it again on the same port with the same data. After [Server.Kill9] that
// includes Postgres's crash recovery. It fails after [Server.Stop].
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.New("the server has been stopped for good")
	}
	if s.running() {
		if err := s.proc.shutdown(stopTimeout); err != nil {
			return err
		}
	}
	return s.start(ctx)
}

// Stop ends the server and removes its directory. Calling it again does nothing.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	var err error
	if s.running() {
		err = s.proc.shutdown(stopTimeout)
	}
	s.unlock()
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *Server) data() string    { return filepath.Join(s.dir, "data") }
func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// env keeps the developer's own PG* variables away from the server.
func (s *Server) env() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=" + s.dir}
}

func (s *Server) logFrom(offset int64) string {
	content, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(content[min(offset, int64(len(content))):])
}
