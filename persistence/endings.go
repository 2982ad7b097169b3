package persistence

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

const (
	// The time of one that is noted again is later in any case, whatever the clock of the node says: it is how others
	// recognise that something is new.
	laterEnding = ` ON CONFLICT (user_id, service_id) DO UPDATE
		SET at = CASE WHEN excluded.at > endings.at THEN excluded.at ELSE endings.at + 1 END`
	noteEnding = `INSERT INTO endings (user_id, service_id, root_id, at) VALUES ($1, $2, $3, $4)` + laterEnding
	noteFamily = `INSERT INTO endings (user_id, service_id, root_id, at)
		SELECT f.user_id, 0, 0, CAST($2 AS bigint) FROM token_families f WHERE f.id = $1` + laterEnding
	selectEndings = `SELECT user_id, service_id, root_id, at FROM endings WHERE at > $1 ORDER BY at`
)

// noteEnded notes that logins were ended, for all nodes to see. It is the last thing in its transaction: whoever sees it sees
// what it is about.
func noteEnded(ctx context.Context, q runner, e domain.Ending) error {
	_, err := q.exec(ctx, noteEnding, int64(e.User), int64(e.Service), int64(e.Root), time.Now().UnixMilli())
	return err
}

// EndedSince gives the users and services some or all of whose logins were ended after a time (milliseconds since 1970, by
// the clock of the node that ended them): by [Store.RevokeFamily], [Store.RevokeUser], [Store.DeleteUser], [Store.RotateService],
// [Store.DeleteService], or a refresh token that was used twice. Each comes once, with its latest, in the order of times.
// Errors: unavailable, internal.
func (s *Store) EndedSince(ctx context.Context, since int64) ([]domain.Ending, error) {
	var list []domain.Ending
	err := s.read(func(q runner) error {
		list = nil
		return each(ctx, q, func(rows *sqlx.Rows) error {
			var e domain.Ending
			if err := rows.Scan(&e.User, &e.Service, &e.Root, &e.At); err != nil {
				return err
			}
			list = append(list, e)
			return nil
		}, selectEndings, since)
	})
	return list, err
}
