package persistence

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/persistence/pgtest"
)

// asked are the statements that are run often, with the index that each must use on Postgres.
func asked(s *Store) map[string]string {
	return map[string]string{
		s.text.conversations:                     "conversations_pkey",
		s.text.participants:                      "participants_pkey",
		s.text.past:                              "memberships",
		s.text.users:                             "users_username_key",
		s.text.changes:                           "events_change",
		s.text.lockHeads:                         "conversations_pkey",
		selectEvents:                             "events_pkey",
		selectMessage:                            "events_pkey",
		selectAbout:                              "events_about",
		selectPresent:                            "participants_user",
		selectLeft:                               "memberships",
		selectMuted:                              "participants_user",
		selectMine:                               "participants_user",
		selectPublicOf:                           "conversation_data_public",
		selectPublic:                             "conversation_data_public",
		selectTree:                               "conversation_data_tree",
		selectAll:                                "conversation_data_pkey",
		selectAllPublic:                          "conversation_data_",
		updateMuted:                              "participants_",
		selectMembersAt:                          "memberships_pkey",
		selectHolder:                             "conversation_data_unique_key_key",
		selectLogin:                              "users_username_key",
		selectAccess:                             "users_pkey",
		selectRefresh:                            "refresh_tokens_pkey",
		selectRemembered:                         "remembered_pkey",
		selectService + " WHERE s.key_hash = $1": "services_key_hash_key",
		s.text.sessions.behind:                   "memberships_order",
		s.text.sessions.behindOf:                 "cursors_pkey",
		s.text.missed.all:                        "memberships_order",
		s.text.missed.of:                         "participants_",
		s.text.missed.newest:                     "events_pkey",
		s.text.sessions.startAll:                 "memberships",
		s.text.sessions.startSome:                "memberships",
		s.text.sessions.dropOthers:               "cursors_pkey",
		s.text.sessions.lockCursors:              "cursors_pkey",
		deleteCursors:                            "cursors_pkey",
		s.text.sessions.lockSession:              "sessions_user_id_device_key",
		s.text.sessions.selectExpired:            "sessions_expires",
		s.text.sessions.expireSome:               "sessions_node",
		s.text.sessions.expireStrays:             "sessions_node",
		s.text.sessions.reviveSome:               "sessions_node",
		selectUserSessions:                       "sessions_user_id_device_key",
		selectSubscriptions:                      "sessions_pkey",
		raiseMark:                                "participants_",
		markRead:                                 "participants_",
		selectRecipients:                         "memberships_pkey",
		countUnread:                              "events_pkey",
		s.text.unread.of:                         "events_uncounted",
		s.text.unread.all:                        "participants_user",
		deleteMentions:                           "mentions_message",
		s.text.lockSelves:                        "users_pkey",
		selectWatched:                            "watches_pkey",
		s.text.presence.watchers:                 "watches_watched",
		s.text.presence.unwatch:                  "watches_watched",
		s.text.presence.lastSeen:                 "presence_pkey",
		burySeen:                                 "presence_node",
		s.text.wills.take:                        "wills_due",
		s.text.wills.loseSome:                    "wills_node",
		nextWill:                                 "wills_due",
		cancelWills:                              "wills_device",
		hastenWills:                              "wills_device",
		deleteWillsOf:                            "wills_device",
		strayWills:                               "wills_node",
		s.text.contents.look:                     "events_client",
		s.text.contents.message:                  "events_client",
		s.text.contents.takeUnused:               "contents_unused",
		s.text.contents.takeDoomed:               "content_blobs_doomed",
		selectUses:                               "content_uses_message",
		selectBlobs:                              "content_blobs_content",
		sumContents:                              "contents_owner",
		selectUnsettled:                          "content_uses_unsettled",
		doomBlobs:                                "content_blobs_content",
		doomUnused:                               "content_uses_pkey",
		selectHolding:                            "scheduled_message",
		releaseContent:                           "content_uses_message",
		selectAnnouncements:                      "announced_pkey",
		selectUnreadAnnouncements:                "announced_",
		selectAnnouncementOf:                     "announcements_sender_id_client_id_key",
		markAll:                                  "announced_",
		selectAnnouncement:                       "announcements_id",
		selectAnnounced:                          "announced_number",
		dropAnnouncement:                         "announcements_pkey",
		s.text.announcements.markSome:            "announced_",
		countScheduled:                           "scheduled_account",
		selectScheduled:                          "scheduled_pkey",
		listScheduled:                            "scheduled_list",
		cancelScheduled:                          "scheduled_pkey",
		finishScheduled:                          "scheduled_pkey",
		s.text.scheduled.wait:                    "scheduled_pkey",
		s.text.scheduled.take:                    "scheduled_due",
	}
}

// fill makes many conversations of three people and three events, and one of 20000 events.
const fill = `
	INSERT INTO accounts (name) SELECT n FROM generate_series(1, 50) n;
	INSERT INTO applications (account_id, name) SELECT n, 'chat' FROM generate_series(1, 50) n;
	INSERT INTO users (username, application_id, display_name, search_name, password_hash, created_at)
		SELECT n, n % 50 + 1, '', '', '', 0 FROM generate_series(1, 1000) n;
	INSERT INTO services (account_id, name, key_hash, created_at) SELECT n % 50 + 1, n, uuid_send(gen_random_uuid()), 0 FROM generate_series(1, 500) n;
	INSERT INTO token_families (id, user_id, expires_at) SELECT gen_random_uuid(), n % 1000 + 1, n FROM generate_series(1, 2000) n;
	INSERT INTO refresh_tokens (hash, family_id, expires_at) SELECT uuid_send(gen_random_uuid()), id, 0 FROM token_families;
	INSERT INTO remembered SELECT n % 50, n, '', 1, '', '', n FROM generate_series(1, 1000) n;
	INSERT INTO conversations SELECT CAST(lpad(to_hex(c), 32, '0') AS uuid), 3, 1 FROM generate_series(1, 2000) c;
	INSERT INTO conversation_data SELECT id, 1, 1, '', false, false, false, false, '', '', 0, 0, 0, id, false FROM conversations;
	INSERT INTO participants SELECT id, row_number() OVER () % 900 + n, 0, 0, 0, 1, n FROM conversations, generate_series(1, 3) n;
	INSERT INTO memberships SELECT conversation_id, user_id, 1 FROM participants;
	INSERT INTO nodes SELECT n, 0 FROM generate_series(1, 3) n;
	INSERT INTO sessions (user_id, device, version, expiry, subscriptions, node, created_at, opened_at, expires_at)
		SELECT id, '', 5, 1, '[]', CASE id % 2 WHEN 0 THEN id % 3 END, 0, 0, CASE id % 2 WHEN 1 THEN id END FROM users;
	INSERT INTO watches SELECT a.id, b.id FROM users a, users b WHERE (a.id + b.id) % 20 = 0;
	INSERT INTO presence SELECT id, 0, CASE id % 2 WHEN 0 THEN id % 3 END FROM users;
	INSERT INTO contents SELECT n, 1, n % 1000 + 1, 'a/b', 1, '', n % 2, '', 0, CASE n % 50 WHEN 0 THEN n END FROM generate_series(1, 5000) n;
	INSERT INTO content_blobs SELECT n, n, 0, 1, CASE n % 50 WHEN 0 THEN n END FROM generate_series(1, 5000) n;
	INSERT INTO content_uses SELECT n, CAST(lpad(to_hex(n % 2000 + 1), 32, '0') AS uuid), 1, '2 0', n, n % 50 > 0 FROM generate_series(1, 5000) n;
	INSERT INTO announcements (id, root_id, sender_id, client_id, payload, created_at, expires_at)
		SELECT gen_random_uuid(), 1, -1, n, '', 0, n FROM generate_series(1, 2000) n;
	INSERT INTO announced SELECT u.id, a.number, CASE a.number % 9 WHEN 1 THEN NULL ELSE 1 END FROM users u, announcements a WHERE (u.id + a.number) % 20 = 0;
	INSERT INTO scheduled (id, root_id, account_id, service_id, service_name, user_id, username, conversation_id, client_id, due_at, created_at, state)
		SELECT gen_random_uuid(), n % 5 + 1, n % 50 + 1, n % 500 + 1, '', 0, '', CAST(lpad(to_hex(n % 2000 + 1), 32, '0') AS uuid), n, n, 0, CASE n % 10 WHEN 0 THEN 0 ELSE 1 END
		FROM generate_series(1, 20000) n;
	INSERT INTO cursors SELECT s.id, m.conversation_id, 1 FROM sessions s JOIN memberships m ON m.user_id = s.user_id;
	INSERT INTO events (conversation_id, seq, sender_id, client_id, kind, about, created_at, payload)
		SELECT CAST(lpad(to_hex(c), 32, '0') AS uuid), n, 1, n::text || ' ' || CASE n WHEN 1 THEN c ELSE 0 END, CASE n WHEN 1 THEN 1 ELSE 4 END,
			CASE n WHEN 1 THEN gen_random_uuid() END, 0, 'x'
		FROM generate_series(1, 2000) c, generate_series(1, CASE c WHEN 1 THEN 20000 ELSE 3 END) n`

func TestStatementsUseTheirIndexOnPostgres(t *testing.T) {
	// Plans are made for the average conversation, and kept. The longest one is who pays for a wrong one.
	s := openInternal(t, pgtest.NewDatabase(t))
	conn, err := s.reads.db.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	exec := func(text string) {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	exec("SET plan_cache_mode = force_generic_plan")
	statements := asked(s)
	// What append_events_v1 and append_event_v1 look up.
	statements[advanceCursors], statements[insertCursors] = "cursors_pkey", "sessions_pkey"
	// Of one user in one conversation: there are two indexes by which that is found.
	statements[raiseMarks], statements[lowMarks] = "participants_", "participants_"
	statements[keepCounts], statements[formerMarks], statements[s.text.unread.messages] = "participants_", "memberships", "events_pkey"
	statements[`SELECT x.seq FROM events x WHERE uuid_send(x.conversation_id) = uuid_send($1) AND x.sender_id = $2 AND x.client_id = $3`] = "events_client"
	check := func(when string) {
		for text, index := range statements {
			exec("DEALLOCATE ALL")
			exec("PREPARE p AS " + text)
			nulls := strings.TrimSuffix(strings.Repeat("NULL,", parameters(text)), ",")
			var plan strings.Builder
			rows, err := conn.QueryxContext(t.Context(), "EXPLAIN EXECUTE p("+nulls+")")
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			scanLines(t, rows, &plan, 0)
			if !strings.Contains(plan.String(), index) || regexp.MustCompile(`Seq Scan on (events|content|conversation|participants|memberships|users|sessions|cursors|watches|presence|announce|scheduled)`).MatchString(plan.String()) {
				t.Errorf("%s, %s\n\nis not looked up by %s:\n%s", when, text, index, plan.String())
			}
		}
	}
	check("on an empty store")
	exec(fill)
	check("before statistics")
	exec("ANALYZE")
	check("with statistics")
}

func TestStatementsUseAnIndexOnSQLite(t *testing.T) {
	s := openInternal(t, "sqlite://"+filepath.Join(t.TempDir(), "parley.db"))
	statements := asked(s)
	statements[selectHead], statements[selectClient], statements[raiseHead] = "", "", ""
	statements[advanceCursor], statements[upsertCursor] = "", ""
	for text := range statements {
		args := make([]any, parameters(text))
		var plan strings.Builder
		err := s.read(func(runner) error {
			rows, err := s.reads.db.QueryxContext(t.Context(), "EXPLAIN QUERY PLAN "+text, args...)
			if err != nil {
				return err
			}
			scanLines(t, rows, &plan, 3)
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for line := range strings.Lines(plan.String()) {
			// What is called x is a subquery, of a few rows.
			if strings.HasPrefix(line, "SCAN") && !strings.Contains(line, "json_each") && strings.TrimSpace(line) != "SCAN x" &&
				strings.TrimSpace(line) != "SCAN CONSTANT ROW" {
				t.Errorf("%s\n\nreads a whole table:\n%s", text, plan.String())
				break
			}
		}
	}
}

func TestAPageOfEventsIsOneIndexRange(t *testing.T) {
	// Catch-up and retransmission read nothing else: what a page costs must not depend on how long the log is, nor be
	// collected and sorted first.
	t.Run("postgres", func(t *testing.T) {
		s := openInternal(t, pgtest.NewDatabase(t))
		conn, err := s.reads.db.Connx(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, text := range []string{fill, "ANALYZE", "SET plan_cache_mode = force_generic_plan", "PREPARE p AS " + selectEvents} {
			if _, err := conn.ExecContext(t.Context(), text); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		var plan strings.Builder
		rows, err := conn.QueryxContext(t.Context(),
			"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) EXECUTE p('00000000-0000-0000-0000-000000000001', 10000, 10100)")
		if err != nil {
			t.Fatal(err)
		}
		scanLines(t, rows, &plan, 0)
		whole := regexp.MustCompile(`^Index Scan using events_pkey on events \(actual rows=100(\.00)? loops=1\)
  Index Cond: \(\(conversation_id = \$1\) AND \(seq > \$2\) AND \(seq <= \$3\)\)
(  Index Searches: 1
)?$`)
		if !whole.MatchString(plan.String()) {
			t.Errorf("a page of 100 events is read by\n%s", plan.String())
		}
	})
	t.Run("sqlite", func(t *testing.T) {
		s := openInternal(t, "sqlite://"+filepath.Join(t.TempDir(), "parley.db"))
		var plan strings.Builder
		rows, err := s.reads.db.QueryxContext(t.Context(), "EXPLAIN QUERY PLAN "+selectEvents, []byte("0123456789abcdef"), 10000, 10100)
		if err != nil {
			t.Fatal(err)
		}
		scanLines(t, rows, &plan, 3)
		if got := plan.String(); got != "SEARCH events USING INDEX sqlite_autoindex_events_1 (conversation_id=? AND seq>? AND seq<?)\n" {
			t.Errorf("a page of events is read by\n%s", got)
		}
	})
}

// parameters counts the parameters of a statement.
func parameters(text string) int {
	n := 0
	for i := 1; strings.Contains(text, fmt.Sprint("$", i)); i++ {
		n = i
	}
	return n
}

// scanLines adds a column of all rows to a text, each as a line.
func scanLines(t *testing.T, rows *sqlx.Rows, to *strings.Builder, column int) {
	t.Helper()
	defer rows.Close()
	for rows.Next() {
		values, err := rows.SliceScan()
		if err != nil {
			t.Fatal(err)
		}
		switch v := values[column].(type) {
		case []byte:
			to.Write(v)
		default:
			fmt.Fprint(to, v)
		}
		to.WriteByte('\n')
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
