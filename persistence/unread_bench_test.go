package persistence_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/persistence/pgtest"
)

// What the benchmark of unread messages works on: a user takes part in so many conversations with so many events each,
// whose messages others have sent, and another user who has sent half of them.
const (
	unreadConversations = 1000
	unreadEvents        = 10_000
)

// BenchmarkUnread measures getUnread of a user in 1,000 conversations of 10,000 events each, and gives the median. The
// target of the reader is 50 ms, whatever is unread. Making the ten million events takes some minutes per store.
func BenchmarkUnread(b *testing.B) {
	for _, on := range []struct {
		name string
		url  func(testing.TB) string
	}{
		{"sqlite", func(tb testing.TB) string { return "sqlite://" + filepath.Join(tb.TempDir(), "parley.db") }},
		{"postgres", pgtest.NewDatabase},
	} {
		b.Run(on.name, func(b *testing.B) {
			url := on.url(b)
			s := open(b, url)
			seedUnread(b, url)
			const reader, sender, idle = 1, 2, 3
			for _, c := range []struct {
				user         domain.UserID
				unread, want int
			}{
				{reader, 0, 0},
				{reader, 1, 1},
				{reader, 100, 100},
				{reader, 900, 900},
				{reader, unreadEvents, domain.UnreadMost},
				{sender, 100, 50},
				{sender, unreadEvents, domain.UnreadMost},
				{idle, 0, 0},
			} {
				b.Run(fmt.Sprintf("user=%d/unread=%d", c.user, c.unread), func(b *testing.B) {
					text := fmt.Sprintf("UPDATE participants SET last_read = %d WHERE user_id = %d", unreadEvents-c.unread, c.user)
					if _, err := raw(b, url).ExecContext(b.Context(), text); err != nil {
						b.Fatal(err)
					}
					var took []time.Duration
					for b.Loop() {
						begin := time.Now()
						h, err := s.Heads(b.Context(), domain.Principal{User: c.user}, domain.Needs{Unread: &domain.UnreadQuery{Limit: 3000}})
						took = append(took, time.Since(begin))
						if err != nil {
							b.Fatal(err)
						}
						if c.user == idle {
							continue
						}
						if len(h.Unread) != unreadConversations || h.Unread[0].Unread != c.want || h.Unread[0].LastMessage == nil {
							b.Fatalf("%d conversations, the first %+v", len(h.Unread), h.Unread[0])
						}
					}
					slices.Sort(took)
					b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/median")
				})
			}
		})
	}
}

// seedUnread makes the users 1 to 3, of whom 1 and 2 take part in all conversations: their events, after the first, are
// messages of user 2 and of user 4 in turns, written across all conversations.
func seedUnread(tb testing.TB, url string) {
	tb.Helper()
	numbers := func(n int, name string) string { return fmt.Sprintf("generate_series(1, %d) %s (x)", n, name) }
	id, blob := "lpad(to_hex(%s), 32, '0')::uuid", "convert_to('%s', 'UTF8')"
	if strings.HasPrefix(url, "sqlite:") {
		numbers = func(n int, name string) string {
			return fmt.Sprintf("(WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < %d) SELECT x FROM n) %s", n, name)
		}
		id, blob = "unhex(printf('%%032x', %s))", "CAST('%s' AS blob)"
	}
	payload := fmt.Sprintf(blob, `{"y":"sendMessage","t":1700000000000,"i":{"userId":4,"username":"user4@chat.acme","device":"phone"},"m":{"c":{"text":"hello"}}}`)
	db := raw(tb, url)
	statements := []string{
		"INSERT INTO accounts (name) VALUES ('acme')",
		"INSERT INTO applications (account_id, name) VALUES (1, 'chat')",
		`INSERT INTO users (username, application_id, display_name, search_name, password_hash, created_at)
			SELECT 'user' || x || '@chat.acme', 1, '', '', '', 0 FROM ` + numbers(4, "n"),
		fmt.Sprintf("INSERT INTO conversations (id, last_seq, version) SELECT %s, %d, 1 FROM %s", fmt.Sprintf(id, "x"), unreadEvents,
			numbers(unreadConversations, "n")),
		`INSERT INTO conversation_data (id, root_id, account_id, title, direct, is_distinct, uber, public_join, policy, permissions, created_at,
			updated_at, removed) SELECT id, 1, 1, '', false, false, false, false, 'managed', 15, 0, 0, false FROM conversations`,
		"INSERT INTO memberships (conversation_id, user_id, from_seq) SELECT c.id, u.id, 1 FROM conversations c CROSS JOIN users u WHERE u.id <> 3",
		`INSERT INTO participants (conversation_id, user_id, permissions, last_read, last_delivered, joined_seq, position)
			SELECT c.id, u.id, 15, 0, 0, 1, u.id FROM conversations c CROSS JOIN users u WHERE u.id <> 3`,
	}
	const step = 500
	for from := 0; from < unreadEvents; from += step {
		statements = append(statements, fmt.Sprintf(`INSERT INTO events (conversation_id, seq, sender_id, client_id, kind, created_at, payload)
			SELECT %s, n.x + %d, 2 + 2 * (n.x %% 2), c.x || '-' || (n.x + %d), CASE WHEN n.x + %d = 1 THEN 1 ELSE 4 END, n.x + %d, %s
			FROM %s CROSS JOIN %s`, fmt.Sprintf(id, "c.x"), from, from, from, from, payload, numbers(step, "n"), numbers(unreadConversations, "c")))
	}
	if !strings.HasPrefix(url, "sqlite:") {
		statements = append(statements, "VACUUM")
	}
	for _, text := range append(statements, "ANALYZE") {
		if _, err := db.ExecContext(tb.Context(), text); err != nil {
			tb.Fatalf("%.200s: %v", text, err)
		}
	}
}
