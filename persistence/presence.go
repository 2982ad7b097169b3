package persistence

import (
	"cmp"
	"context"
	"database/sql"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

const (
	selectWatched = selectUser + ` JOIN watches w ON w.watched_id = u.id WHERE w.user_id = $1 ORDER BY u.id`
	deleteWatches = `DELETE FROM watches WHERE user_id = $1`

	onSeen = ` ON CONFLICT (user_id) DO UPDATE SET
		last_seen = CASE WHEN presence.last_seen > excluded.last_seen THEN presence.last_seen ELSE excluded.last_seen END,
		node = CASE WHEN excluded.node IS NOT NULL OR presence.node = $4 THEN excluded.node ELSE presence.node END`
	insertSeenAll = `INSERT INTO presence (user_id, last_seen, node)
		SELECT g.u, g.at, CASE WHEN g.here = 1 THEN CAST($4 AS text) END
		FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) g (u, at, here) ORDER BY g.u` + onSeen
	insertSeen = `INSERT INTO presence (user_id, last_seen, node) VALUES ($1, $2, CASE WHEN $3 = 1 THEN $4 END)` + onSeen

	// Users whose node has died were last seen when it was.
	burySeen = `UPDATE presence SET last_seen = CASE WHEN last_seen < $2 THEN $2 ELSE last_seen END, node = NULL
		WHERE user_id IN (SELECT user_id FROM presence WHERE node = $1 LIMIT $3)`
)

// presenceTexts are the statements of presence that are not the same text in both dialects.
type presenceTexts struct {
	watch, unwatch, watchers, lastSeen string
}

func newPresenceTexts(d *dialect) presenceTexts {
	return presenceTexts{
		watch: `INSERT INTO watches (user_id, watched_id) SELECT CAST($1 AS bigint), u.id FROM users u WHERE ` +
			d.among("u.id", "$2") + ` ON CONFLICT (user_id, watched_id) DO NOTHING`,
		unwatch: `DELETE FROM watches WHERE user_id = $1 AND ` + d.among("watched_id", "$2"),
		watchers: `SELECT watched_id, user_id FROM watches WHERE ` + d.among("watched_id", "$1") +
			` AND user_id <> watched_id`,
		lastSeen: `SELECT p.user_id, p.last_seen, n.beat_at FROM presence p LEFT JOIN nodes n ON n.id = p.node WHERE ` +
			d.among("p.user_id", "$1"),
	}
}

// writeWatch changes whom a user has subscribed to. The user is locked.
func (s *Store) writeWatch(ctx context.Context, q runner, w *domain.Watch) error {
	if len(w.Add) > 0 {
		if _, err := q.exec(ctx, s.text.presence.watch, int64(w.User), s.d.numbers(numbers(w.Add))); err != nil {
			return err
		}
	}
	if len(w.Remove) > 0 {
		if _, err := q.exec(ctx, s.text.presence.unwatch, int64(w.User), s.d.numbers(numbers(w.Remove))); err != nil {
			return err
		}
	}
	return nil
}

func numbers(ids []domain.UserID) []int64 {
	ns := make([]int64, len(ids))
	for i, id := range ids {
		ns[i] = int64(id)
	}
	return ns
}

// Watchers calls each for every pair of one of the users and another who has subscribed to it, in no order. Errors:
// unavailable, internal.
func (s *Store) Watchers(ctx context.Context, of []domain.UserID, pair func(watched, watcher domain.UserID)) error {
	return s.read(func(q runner) error {
		return each(ctx, q, func(rows *sqlx.Rows) error {
			var watched, watcher int64
			if err := rows.Scan(&watched, &watcher); err != nil {
				return err
			}
			pair(domain.UserID(watched), domain.UserID(watcher))
			return nil
		}, s.text.presence.watchers, s.d.numbers(numbers(of)))
	})
}

// LastSeen gives when users were last seen, in milliseconds since 1970; who never was is left out. Errors: unavailable,
// internal.
func (s *Store) LastSeen(ctx context.Context, users []domain.UserID) (map[domain.UserID]int64, error) {
	seen := make(map[domain.UserID]int64, len(users))
	err := s.read(func(q runner) error {
		return each(ctx, q, func(rows *sqlx.Rows) error {
			var user, at int64
			var beat sql.NullInt64
			if err := rows.Scan(&user, &at, &beat); err != nil {
				return err
			}
			seen[domain.UserID(user)] = max(at, beat.Int64)
			return nil
		}, s.text.presence.lastSeen, s.d.numbers(numbers(users)))
	})
	return seen, err
}

// SaveSeen notes when users were last seen by a node, and who of them is still there: these are seen as long as the node
// beats. The work is done in several transactions; the call may be repeated. Errors: unavailable, internal.
func (s *Store) SaveSeen(ctx context.Context, node string, seen []domain.Seen) error {
	byUser := func(a, b domain.Seen) int { return cmp.Compare(a.User, b.User) }
	seen = ascending(seen, byUser, func(into, from *domain.Seen) {
		if from.At >= into.At {
			*into = *from
		}
	})
	for chunk := range slices.Chunk(seen, sessionStep) {
		if err := s.write(ctx, func(q runner) error { return s.writeSeen(ctx, q, node, chunk) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) writeSeen(ctx context.Context, q runner, node string, seen []domain.Seen) error {
	users, times, here := make(bigintArray, len(seen)), make(bigintArray, len(seen)), make(bigintArray, len(seen))
	for i, n := range seen {
		users[i], times[i] = int64(n.User), n.At
		if n.Here {
			here[i] = 1
		}
	}
	if s.d.sets {
		_, err := q.exec(ctx, insertSeenAll, users, times, here, node)
		return err
	}
	for i := range users {
		if _, err := q.exec(ctx, insertSeen, users[i], times[i], here[i], node); err != nil {
			return err
		}
	}
	return nil
}
