package persistence

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// sessionStep is how many sessions are changed, or rows of them removed, in one transaction.
const sessionStep = 500

const (
	raiseBeat   = `UPDATE nodes SET beat_at = $2 WHERE id = $1 AND beat_at < $2`
	selectNodes = `SELECT id, beat_at FROM nodes WHERE id <> $1 AND beat_at < $2 ORDER BY id`
	deleteNode  = `DELETE FROM nodes WHERE id = $1 AND beat_at = $2`
)

// node is a gateway process with its last beat.
type node struct {
	id   string
	beat int64
}

// Beat notes that the node lives, at now (milliseconds since 1970; the clocks of all nodes must agree to some seconds).
// Sessions of nodes whose last beat was more than a minute ago count as disconnected since then; if such a node beats
// again, those that it still has are connected again. On SQLite, whose store only one process can have open, the first beat
// of a node does so with all other nodes at once.
//
// A node's name is that of one process's run: one that starts again takes another. It beats before it opens sessions.
// Errors: unavailable, internal.
func (s *Store) Beat(ctx context.Context, node string, now int64) error {
	fresh := false
	err := s.write(ctx, func(q runner) error {
		n, err := q.exec(ctx, addNode, node, now)
		if err != nil {
			return err
		}
		if fresh = n > 0; !fresh {
			_, err = q.exec(ctx, raiseBeat, node, now)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.inSteps(ctx, s.text.sessions.reviveSome, node, int64(sessionStep)); err != nil {
		return err
	}
	until := now - nodeTimeout
	if fresh && !s.d.sets {
		const ever = 1 << 62
		until = ever
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

// bury starts the expiry of a dead node's sessions, and forgets the node. Should it live after all, its next beat undoes
// this.
func (s *Store) bury(ctx context.Context, n node) error {
	err := s.inSteps(ctx, s.text.sessions.expireSome, n.id, n.beat, int64(domain.NeverExpires), int64(sessionStep))
	if err != nil {
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
	for {
		more := false
		err := s.write(ctx, func(q runner) error {
			const most = 100
			ids, err := scanNumbers(ctx, q, s.text.sessions.selectExpired, now, int64(most))
			if err != nil {
				return err
			}
			more = len(ids) == most
			rows := int64(0)
			for i, id := range ids {
				n, err := s.removeSession(ctx, q, id)
				if err != nil {
					return err
				}
				if rows += n; rows >= sessionStep && i < len(ids)-1 {
					more = true
					break
				}
			}
			return nil
		})
		if err != nil || !more {
			return err
		}
	}
}
