package persistence_test

import (
	"database/sql"
	"flag"
	"strings"
	"testing"

	"github.com/parley-im/parley/persistence"
	"github.com/parley-im/parley/persistence/pgtest"
	"github.com/parley-im/parley/persistence/storetest"
)

func TestMain(m *testing.M) {
	// A round on Postgres takes a second. Whoever wants more says so by the flag.
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	pgtest.Main(m)
}

// TestChild is run in a process of its own by the conformance suite, which kills it.
func TestChild(t *testing.T) {
	storetest.Child(t, func(t *testing.T, url string) storetest.Store { return open(t, url) })
}

// store is a store as the conformance suite wants it.
type store struct{ *persistence.Store }

func (s store) Committers() []storetest.Log {
	var logs []storetest.Log
	for _, l := range s.Logs() {
		logs = append(logs, l)
	}
	return logs
}

// open opens a store, migrates it, and closes it when the test ends.
func open(tb testing.TB, url string) store {
	tb.Helper()
	s, err := persistence.Open(tb.Context(), persistence.Options{URL: url})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	if err := s.Migrate(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return store{s}
}

func place(url string) storetest.Place {
	return storetest.Place{
		URL:  url,
		Open: func(tb testing.TB) storetest.Store { return open(tb, url) },
		Dump: func(tb testing.TB) [][]byte { return dump(tb, url) },
	}
}

// raw opens the database of a store past the store.
func raw(tb testing.TB, url string) *sql.DB {
	tb.Helper()
	driver, source := "postgres", url
	if path, ok := strings.CutPrefix(url, "sqlite://"); ok {
		driver, source = "sqlite", path
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// dump gives the values of all columns of all tables.
func dump(tb testing.TB, url string) [][]byte {
	tb.Helper()
	db := raw(tb, url)
	list := "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
	if strings.HasPrefix(url, "sqlite:") {
		list = "SELECT name FROM sqlite_master WHERE type = 'table'"
	}
	var values [][]byte
	tables := cells(tb, db, list)
	for _, table := range tables {
		values = append(values, cells(tb, db, `SELECT * FROM "`+string(table)+`"`)...)
	}
	if len(tables) < 10 {
		tb.Fatalf("only %d tables", len(tables))
	}
	return values
}

func cells(tb testing.TB, db *sql.DB, query string, args ...any) [][]byte {
	tb.Helper()
	rows, err := db.QueryContext(tb.Context(), query, args...)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		tb.Fatal(err)
	}
	var values [][]byte
	for rows.Next() {
		row := make([]sql.RawBytes, len(columns))
		dest := make([]any, len(columns))
		for i := range row {
			dest[i] = &row[i]
		}
		if err := rows.Scan(dest...); err != nil {
			tb.Fatal(err)
		}
		for _, v := range row {
			values = append(values, append([]byte(nil), v...))
		}
	}
	if err := rows.Err(); err != nil {
		tb.Fatal(err)
	}
	return values
}
