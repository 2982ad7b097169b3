package persistence

import (
	"context"
	"math"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// sessionStep is how many sessions are changed, or rows of them removed, in one transaction.
const sessionStep = 500

const (
	raiseBeat = `INSERT INTO nodes (id, beat_at) VALUES ($1, $2)
		ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at WHERE nodes.beat_at < excluded.beat_at`
	selectNodes = `SELECT id, beat_at FROM nodes WHERE id <> $1 AND beat_at < $2 ORDER BY id`
	deleteNode  = `DELETE FROM nodes WHERE id = $1 AND beat_at = $2`
)

// node is a gateway process with its last beat.
type node struct {
	id   string
	beat int64
}

// Beat notes that the node lives, at now (milliseconds since 1970; the clocks of all nodes must agree to some seconds).
// Sessions of nodes whose last beat was more than a minute ago count as disconnected since then, or since they were opened
// if that was later; if such a node beats again, those that it still has are connected again. An SQLite store is open in
// one process only: there all nodes but the one that beats are dead.
//
// A node's name is that of one process's run: one that starts again takes another. Errors: unavailable, internal.
func (s *Store) Beat(ctx context.Context, node string, now int64) error {
	err := s.write(ctx, func(q runner) error {
		_, err := q.exec(ctx, raiseBeat, node, now)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.inSteps(ctx, s.text.sessions.reviveSome, node, int64(sessionStep)); err != nil {
		return err
	}
	until := now - nodeTimeout
	if s.alone() {
		until = math.MaxInt64
	}
	dead, err := s.nodesBefore(ctx, node, until)
	if err != nil {
		return err
	}
	for _, d := range dead {
		if err := s.bury(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// alone reports whether no other process can have the store open.
func (s *Store) alone() bool { return !s.d.sets }

// nodesBefore gives all nodes but one whose last beat was before until.
func (s *Store) nodesBefore(ctx context.Context, but string, until int64) ([]node, error) {
	var list []node
	err := s.read(func(q runner) error {
		return each(ctx, q, func(rows *sqlx.Rows) error {
			var n node
			if err := rows.Scan(&n.id, &n.beat); err != nil {
				return err
			}
			list = append(list, n)
			return nil
		}, selectNodes, but, until)
	})
	return list, err
}

// bury starts the expiry of a dead node's sessions, has their wills carried out, and forgets the node. Should it live after
// all, its next beat undoes this, but for the wills.
func (s *Store) bury(ctx context.Context, n node) error {
	// First, while it can be seen which sessions are kept.
	if err := s.inSteps(ctx, s.text.wills.loseSome, n.id, n.beat, int64(sessionStep)); err != nil {
		return err
	}
	err := s.inSteps(ctx, s.text.sessions.expireSome, n.id, n.beat, int64(domain.NeverExpires), int64(sessionStep))
	if err != nil {
		return err
	}
	if err := s.inSteps(ctx, burySeen, n.id, n.beat, int64(sessionStep)); err != nil {
		return err
	}
	return s.write(ctx, func(q runner) error {
		_, err := q.exec(ctx, deleteNode, n.id, n.beat)
		return err
	})
}

// inSteps runs a statement that changes at most sessionStep rows until it finds no more, each time in a transaction of its
// own.
func (s *Store) inSteps(ctx context.Context, text string, args ...any) error {
	for {
		var n int64
		err := s.write(ctx, func(q runner) error {
			var err error
			n, err = q.exec(ctx, text, args...)
			return err
		})
		if err != nil || n < sessionStep {
			return err
		}
	}
}

// removeExpired removes the sessions that have expired by now, in steps.
func (s *Store) removeExpired(ctx context.Context, now int64) error {
	// A node that opened a session while it was taken for dead, and then ended, has left nothing by which to find that out.
	err := s.inSteps(ctx, s.text.sessions.expireStrays, now, int64(domain.NeverExpires), int64(sessionStep))
	if err == nil {
		err = s.write(ctx, func(q runner) error {
			_, err := q.exec(ctx, strayWills, now)
			return err
		})
	}
	for more := true; more && err == nil; {
		err = s.write(ctx, func(q runner) error {
			more, err = s.removeSome(ctx, q, now)
			return err
		})
	}
	return err
}

// removeSome removes some of the sessions that have expired by now, and reports whether there may be more.
func (s *Store) removeSome(ctx context.Context, q runner, now int64) (more bool, err error) {
	const most = 100
	ids, err := scanNumbers(ctx, q, s.text.sessions.selectExpired, now, int64(most))
	if err != nil {
		return false, err
	}
	slices.Sort(ids)
	rows := int64(0)
	for i, id := range ids {
		n, err := s.removeSession(ctx, q, id)
		if err != nil {
			return false, err
		}
		if rows += n; rows >= sessionStep && i < len(ids)-1 {
			return true, nil
		}
	}
	return len(ids) == most, nil
}
