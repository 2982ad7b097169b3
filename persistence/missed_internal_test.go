package persistence

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/parley-im/parley/persistence/pgtest"
)

func TestNewestMessagesAreReadFromTheEndOfALog(t *testing.T) {
	// What a session in push mode costs must not depend on how much its user has missed.
	t.Run("postgres", func(t *testing.T) {
		s := openInternal(t, pgtest.NewDatabase(t))
		conn, err := s.reads.db.Connx(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, text := range []string{fill, "ANALYZE", "SET plan_cache_mode = force_generic_plan", "PREPARE p AS " + s.text.missed.newest} {
			if _, err := conn.ExecContext(t.Context(), text); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		var plan strings.Builder
		rows, err := conn.QueryxContext(t.Context(), "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) "+
			"EXECUTE p('{00000000-0000-0000-0000-000000000001}', '{1}', '{20000}', 21)")
		if err != nil {
			t.Fatal(err)
		}
		scanLines(t, rows, &plan, 0)
		backwards := regexp.MustCompile(`Index Scan Backward using events_pkey on events e \(actual rows=21(\.00)? loops=1\)`)
		if !backwards.MatchString(plan.String()) {
			t.Errorf("the 21 newest messages are read by\n%s", plan.String())
		}
	})
	t.Run("sqlite", func(t *testing.T) {
		s := openInternal(t, "sqlite://"+filepath.Join(t.TempDir(), "parley.db"))
		var plan strings.Builder
		rows, err := s.reads.db.QueryxContext(t.Context(), "EXPLAIN QUERY PLAN "+s.text.missed.newest, "[]", 21)
		if err != nil {
			t.Fatal(err)
		}
		scanLines(t, rows, &plan, 3)
		got := plan.String()
		if !strings.Contains(got, "SEARCH e USING INDEX sqlite_autoindex_events_1 (conversation_id=? AND seq>? AND seq<?)") ||
			strings.Contains(got, "TEMP B-TREE") {
			t.Errorf("the newest messages are read by\n%s", got)
		}
	})
}
