package persistence_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/metrics/metricstest"
	"github.com/parley-im/parley/persistence"
	"github.com/parley-im/parley/persistence/pgtest"
	"github.com/parley-im/parley/persistence/storetest"
)

func TestSQLiteConformance(t *testing.T) {
	storetest.Run(t, storetest.Backend{New: func(tb testing.TB) storetest.Place { return place(file(tb)) }})
}

// file gives the URL of a store in a folder that does not exist yet.
func file(tb testing.TB) string {
	return "sqlite://" + filepath.Join(tb.TempDir(), "da ta %41?"[:8], "parley.db")
}

func TestSecondProcessIsRefused(t *testing.T) {
	// Two gateways on one file would each believe that they are the only one.
	url := file(t)
	s := open(t, url)
	_, err := persistence.Open(t.Context(), persistence.Options{URL: url})
	if !errors.Is(err, persistence.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("opened twice: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(strings.TrimPrefix(url, "sqlite://"), link); err != nil {
		t.Fatal(err)
	}
	if _, err := persistence.Open(t.Context(), persistence.Options{URL: "sqlite://" + link}); !errors.Is(err, persistence.ErrLocked) {
		t.Errorf("opened by another name: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, url)
}

func TestFilesAreTheGatewaysAlone(t *testing.T) {
	// Password digests and signing keys are in there.
	url := file(t)
	s := open(t, url)
	storetest.NewWorld(t, s, 1)
	path := strings.TrimPrefix(url, "sqlite://")
	for _, name := range []string{path, path + "-wal", path + "-shm", path + ".lock"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, info.Mode())
		}
	}
}

func TestWhatWasRemovedIsInNoFile(t *testing.T) {
	// Whoever gets hold of the disk, or of a copy, must not read what people have taken back; and reading meanwhile must not keep it
	// there for ever.
	url := file(t)
	s := open(t, url)
	w := storetest.NewWorld(t, s, 1)
	log := s.Committers()[0]
	c := w.Group(log)
	const said, edited, kept = "what-was-said-once", "what-it-was-edited-to", "what-is-still-there"
	w.Send(log, w.Draft(c, 0, "m", said), w.Draft(c, 0, "n", strings.Repeat(said, 270)), w.Draft(c, 0, "k", kept))
	for i, text := range []string{edited, ""} {
		for _, seq := range []domain.Seq{2, 3} {
			if changed := w.Try(log, w.Rewrite(c.ID, seq, text))[0]; changed.Err != nil {
				t.Fatal(i, changed.Err)
			}
		}
	}
	found := func(text string) bool {
		t.Helper()
		files, err := filepath.Glob(strings.TrimPrefix(url, "sqlite://") + "*")
		if err != nil || len(files) < 3 {
			t.Fatal(files, err)
		}
		return slices.ContainsFunc(files, func(name string) bool {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			return bytes.Contains(content, []byte(text))
		})
	}
	if !found(said) || !found(edited) || !found(kept) {
		t.Fatal("the texts were never there, so that the rest shows nothing")
	}
	// Somebody who reads all the time holds it up, and nobody else.
	db := raw(t, url)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRowContext(t.Context(), "SELECT count(*) FROM events").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if err := s.Cleanup(t.Context(), 0); err != nil {
		t.Errorf("with a reader: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	w.Send(log, w.Draft(c, 0, "l", "later"))
	if err := s.Cleanup(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if found(said) || found(edited) {
		t.Error("what was removed is in the files")
	}
	if !found(kept) {
		t.Error("what was not removed is not in the files")
	}
	w.Send(log, w.Draft(c, 0, "o", "and on it goes"))
}

func TestWrongURLsAreExplained(t *testing.T) {
	// The first thing that goes wrong for a newcomer is the URL.
	for url, hint := range map[string]string{
		"":                         "no scheme",
		"data/parley.db":           "no scheme",
		"mysql://host/db":          `no store speaks "mysql"`,
		"sqlite://":                "names no file",
		"sqlite://data/":           "names no file",
		"sqlite://:memory:":        "in memory",
		"sqlite://x.db?mode=ro":    "takes no options",
		"postgres://a:b c@[::1/db": "cannot be parsed",
	} {
		s, err := persistence.Open(t.Context(), persistence.Options{URL: url})
		if err == nil {
			t.Errorf("%q was opened", url)
			_ = s.Close()
			continue
		}
		if !errors.Is(err, persistence.ErrURL) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	// An old binary on a new schema would write what the new one does not expect.
	for _, url := range []string{file(t), pgtest.NewDatabase(t)} {
		s := open(t, url)
		status, err := s.MigrationStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range status {
			if !m.Applied || m.Name == "" {
				t.Errorf("%+v", m)
			}
		}
		if err := s.Migrate(t.Context()); err != nil {
			t.Errorf("again: %v", err)
		}
		db := raw(t, url)
		if _, err := db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)"); err != nil {
			t.Fatal(err)
		}
		if err := s.Migrate(t.Context()); !errors.Is(err, persistence.ErrNewerSchema) {
			t.Errorf("migrate: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := persistence.Open(t.Context(), persistence.Options{URL: url}); !errors.Is(err, persistence.ErrNewerSchema) {
			t.Errorf("open: %v", err)
		}
	}
}

func TestRemovedContentIsNotInTheFile(t *testing.T) {
	// A backup is a copy of the file.
	url := file(t)
	s := open(t, url)
	w := storetest.NewWorld(t, s, 2)
	log := s.Committers()[0]
	c := w.Group(log, 1)
	secret := "secret-" + strings.Repeat("long enough for pages of its own ", 140)
	w.Send(log, w.Draft(c, 0, "a", "short-secret"), w.Draft(c, 0, "b", secret))
	for _, seq := range []domain.Seq{2, 3} {
		if changed := w.Try(log, w.Rewrite(c.ID, seq, ""))[0]; changed.Err != nil {
			t.Fatal(changed.Err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := strings.TrimPrefix(url, "sqlite://")
	for _, name := range []string{path, path + "-wal"} {
		content, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) && name != path {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"short-secret", "long enough"} {
			if bytes.Contains(content, []byte(s)) {
				t.Errorf("%q is in %s", s, name)
			}
		}
	}
}

func TestBusyFileIsUnavailable(t *testing.T) {
	// Somebody looks into the file with another tool, and holds its lock for longer than we wait.
	t.Parallel()
	url := file(t)
	s := open(t, url)
	w := storetest.NewWorld(t, s, 2)
	log := s.Committers()[0]
	c := w.Group(log, 1)
	conn, err := raw(t, url).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	batch := []domain.Draft{w.Draft(c, 0, "a", "text")}
	if _, err := log.Append(t.Context(), batch); domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("append: %v", err)
	}
	if _, err := s.Events(t.Context(), c.ID, 0, 10); err != nil {
		t.Errorf("reading waits for no writer: %v", err)
	}
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	w.Send(log, batch...)
	w.Verify()
}

func TestMetricsAreStable(t *testing.T) {
	metricstest.Golden(t, "testdata/metrics.txt", func(r prometheus.Registerer) {
		s, err := persistence.Open(t.Context(), persistence.Options{URL: file(t), Registerer: r})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
