package pgtest_test

import (
	"bufio"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	_ "github.com/lib/pq"

	"github.com/parley-im/parley/persistence/pgtest"
)

// holdServer makes this test binary start a server, print its address and data directory, and wait to be killed.
const holdServer = "PARLEY_TEST_HOLD_SERVER"

func TestMain(m *testing.M) { pgtest.Main(m) }

func open(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func exec1(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func value(t *testing.T, db *sql.DB, query string) string {
	t.Helper()
	var v string
	if err := db.QueryRowContext(t.Context(), query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func TestEachTestGetsADatabaseOfItsOwn(t *testing.T) {
	// Tests that see each other's rows pass or fail by their order.
	one, two := pgtest.NewDatabase(t), pgtest.NewDatabase(t)
	if one == two {
		t.Fatalf("both are %s", one)
	}
	exec1(t, open(t, one), "CREATE TABLE mine (a int)")
	if got := value(t, open(t, two), "SELECT count(*) FROM pg_tables WHERE tablename = 'mine'"); got != "0" {
		t.Errorf("the second database has the first one's table")
	}
}

func TestDatabaseIsDroppedThoughConnectionsAreOpen(t *testing.T) {
	// A test that fails half-way leaves connections behind; its database must not pile up on the shared server.
	var address string
	t.Run("inner", func(t *testing.T) {
		address = pgtest.NewDatabase(t)
		db, err := sql.Open("postgres", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	admin := open(t, pgtest.Shared(t).URL("postgres"))
	name := strings.TrimPrefix(u.Path, "/")
	if got := value(t, admin, "SELECT count(*) FROM pg_database WHERE datname = '"+name+"'"); got != "0" {
		t.Errorf("database %s is still there", name)
	}
}

func TestCommitsAreDurableAsInProduction(t *testing.T) {
	// Durability tests and benchmarks mean nothing on a server that does not sync.
	db := open(t, pgtest.NewDatabase(t))
	for name, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_connections": "200", "shared_buffers": "256MB",
	} {
		if got := value(t, db, "SHOW "+name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestCommittedRowSurvivesKill9(t *testing.T) {
	// The gateway's first promise is tested with Kill9 and Restart, so these must really kill and really keep.
	s := pgtest.New(t)
	address := s.NewDatabase(t)
	db := open(t, address)
	exec1(t, db, "CREATE TABLE kept (a text)")
	exec1(t, db, "INSERT INTO kept VALUES ('committed')")
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "INSERT INTO kept VALUES ('not committed')"); err != nil {
		t.Fatal(err)
	}

	if err := s.Kill9(); err != nil {
		t.Fatal(err)
	}
	if s.Running() {
		t.Fatal("still running after Kill9")
	}
	if err := db.PingContext(t.Context()); err == nil {
		t.Fatal("still answering after Kill9")
	}
	_ = tx.Rollback()
	if err := s.Kill9(); err != nil {
		t.Errorf("the second Kill9: %v", err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.Log(), "was not properly shut down") {
		t.Errorf("Postgres has not noticed a crash:\n%s", s.Log())
	}
	if got := value(t, open(t, address), "SELECT string_agg(a, ',') FROM kept"); got != "committed" {
		t.Errorf("rows after the crash: %s", got)
	}

	if err := s.Restart(t.Context()); err != nil {
		t.Fatalf("restart of a running server: %v", err)
	}
	if got := value(t, open(t, address), "SELECT count(*) FROM kept"); got != "1" {
		t.Errorf("%s rows after an orderly restart", got)
	}
}

func TestStopRemovesTheDirectory(t *testing.T) {
	// A few dozen runs with a 40 MB directory each fill a small disk.
	s, err := pgtest.Start(t.Context(), pgtest.Options{Settings: map[string]string{"shared_buffers": "'16MB'"}})
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, s.URL("postgres"))
	dir := filepath.Dir(value(t, db, "SHOW data_directory"))
	if got := value(t, db, "SHOW shared_buffers"); got != "16MB" {
		t.Errorf("shared_buffers is %s though the options say otherwise", got)
	}
	for range 2 {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if err := s.Restart(t.Context()); err == nil {
		t.Error("a stopped server can be restarted")
	}
}

func TestMissingPostgresSaysWhatToDo(t *testing.T) {
	// Nobody should have to read this package to get the tests running.
	_, err := pgtest.Start(t.Context(), pgtest.Options{Bin: t.TempDir()})
	if !errors.Is(err, pgtest.ErrNoPostgres) || !strings.Contains(err.Error(), "make postgres") {
		t.Errorf("error without binaries: %v", err)
	}
}

func TestServerDiesWithItsProcess(t *testing.T) {
	// A test run that is interrupted or times out must not leave servers behind, 256 MB each.
	if os.Getenv(holdServer) != "" {
		s := pgtest.Shared(t)
		_, err := os.Stdout.WriteString("\nserver " + s.URL("postgres") + "\n")
		if err != nil {
			t.Fatal(err)
		}
		select {}
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux can tie a process to its parent's life")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), holdServer+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var address string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if found, ok := strings.CutPrefix(lines.Text(), "server "); ok {
			address = found
			break
		}
	}
	if address == "" {
		t.Fatalf("the child process has not started a server: %v", cmd.Wait())
	}
	db := open(t, address)
	dir := filepath.Dir(value(t, db, "SHOW data_directory"))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for db.PingContext(t.Context()) == nil {
		select {
		case <-deadline.C:
			t.Fatal("the server still answers though its process is gone")
		case <-tick.C:
		}
	}

	// The next server to start tidies up after it.
	pgtest.New(t)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s has not been removed: %v", dir, err)
	}
}
