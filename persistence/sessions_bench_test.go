package persistence_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/persistence/pgtest"
)

// What the benchmarks of sessions work on: each session is of another user, all of whom take part in all conversations.
const (
	seededSessions      = 200
	seededConversations = 5000
)

// onSeededStores runs a benchmark on a store of each kind with a million cursors.
func onSeededStores(b *testing.B, run func(b *testing.B, s store, url string)) {
	b.Helper()
	for name, url := range map[string]func(testing.TB) string{
		"sqlite": func(tb testing.TB) string { return "sqlite://" + filepath.Join(tb.TempDir(), "parley.db") }, "postgres": pgtest.NewDatabase,
	} {
		b.Run(name, func(b *testing.B) {
			url := url(b)
			s := open(b, url)
			seed(b, url, seededSessions, seededConversations)
			run(b, s, url)
		})
	}
}

// seed makes the sessions 1 to n, of as many users, which have acknowledged all of the 20 events of each conversation.
func seed(tb testing.TB, url string, n, conversations int) {
	tb.Helper()
	numbers, id, blob := "SELECT x FROM generate_series(1, %d) x", "lpad(to_hex(x), 32, '0')::uuid", "bytea"
	if strings.HasPrefix(url, "sqlite:") {
		numbers = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < %d) SELECT x FROM n"
		id, blob = "unhex(printf('%%032x', x))", "blob"
	}
	db := raw(tb, url)
	for _, text := range []string{
		"INSERT INTO accounts (name) VALUES ('acme')",
		"INSERT INTO applications (account_id, name) VALUES (1, 'chat')",
		fmt.Sprintf(`INSERT INTO users (username, application_id, display_name, search_name, password_hash, created_at)
			SELECT 'user' || x || '@chat.acme', 1, '', '', '', 0 FROM (`+numbers+`) n`, n),
		fmt.Sprintf(`INSERT INTO sessions (user_id, device, version, expiry, subscriptions, created_at, opened_at)
			SELECT x, 'phone', 5, 3600, CAST('[{"filter":"conversations/+/events"}]' AS `+blob+`), 0, 0 FROM (`+numbers+`) n`,
			n),
		fmt.Sprintf("INSERT INTO conversations (id, last_seq, version) SELECT "+id+", 20, 1 FROM ("+numbers+") n", conversations),
		"INSERT INTO memberships (conversation_id, user_id, from_seq) SELECT c.id, u.id, 1 FROM conversations c CROSS JOIN users u",
		`INSERT INTO participants (conversation_id, user_id, permissions, last_read, last_delivered, joined_seq, position)
			SELECT c.id, u.id, 15, 0, 0, 1, u.id FROM conversations c CROSS JOIN users u`,
		"INSERT INTO cursors (session_id, conversation_id, seq) SELECT s.id, c.id, 20 FROM sessions s CROSS JOIN conversations c",
		"ANALYZE",
	} {
		if _, err := db.ExecContext(tb.Context(), text); err != nil {
			tb.Fatalf("%s: %v", text, err)
		}
	}
}

func seededConversation(n int) domain.ConversationID {
	var id domain.ConversationID
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

// BenchmarkSavePositions measures what the acknowledgements of a second cost: of all sessions in a few conversations, which
// are others each time (groups), or of sessions and conversations that have nothing to do with one another (scattered).
func BenchmarkSavePositions(b *testing.B) {
	onSeededStores(b, func(b *testing.B, s store, _ string) {
		seq := domain.Seq(100)
		for _, n := range []int{1000, 10_000} {
			for _, scattered := range []bool{false, true} {
				for _, marked := range []bool{false, true} {
					b.Run(fmt.Sprintf("positions=%d/scattered=%v/marks=%v", n, scattered, marked), func(b *testing.B) {
						for b.Loop() {
							seq++
							var positions []domain.Position
							var marks []domain.Mark
							for i := range n {
								at := int(seq)*n + i
								if scattered {
									at = at * 7919 % (seededSessions * seededConversations)
								}
								session, conversation := 1+at%seededSessions, 1+at/seededSessions*97%seededConversations
								id := seededConversation(conversation)
								positions = append(positions, domain.Position{Session: domain.SessionID(session), Conversation: id, Seq: seq})
								if marked {
									marks = append(marks, domain.Mark{Conversation: id, User: domain.UserID(session), Seq: seq})
								}
							}
							if err := s.SavePositions(b.Context(), positions, marks); err != nil {
								b.Fatal(err)
							}
						}
						b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/position")
					})
				}
			}
		}
	})
}

// BenchmarkBehind measures finding out what a session has missed in its 5,000 conversations, by in how many it has.
func BenchmarkBehind(b *testing.B) {
	onSeededStores(b, func(b *testing.B, s store, url string) {
		for id, behind := range []int{1: 0, 2: 100, 3: seededConversations} {
			if id == 0 {
				continue
			}
			b.Run(fmt.Sprintf("behind=%d", behind), func(b *testing.B) {
				text := fmt.Sprintf(`UPDATE cursors SET seq = 10 WHERE session_id = %d AND conversation_id IN (
					SELECT id FROM conversations ORDER BY id LIMIT %d)`, id, behind)
				if _, err := raw(b, url).ExecContext(b.Context(), text); err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					const limit = 500
					n := 0
					var after domain.ConversationID
					for {
						page, err := s.Behind(b.Context(), domain.SessionID(id), after, limit)
						if err != nil {
							b.Fatal(err)
						}
						if n += len(page); len(page) < limit {
							break
						}
						after = page[len(page)-1].Conversation
					}
					if n != behind {
						b.Fatalf("%d stretches instead of %d", n, behind)
					}
				}
			})
		}
	})
}
