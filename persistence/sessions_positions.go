package persistence

import (
	"cmp"
	"context"
	"slices"


	"github.com/parley-im/parley/domain"
)

// Behind gives what a session has not acknowledged of the conversations that its subscriptions cover: for each time of
// membership of its user, the events after the session's position, up to the one by which the user left or the present
// last one. Where a conversation has no position, its times of membership are given whole. Conversations that the user
// takes part in without the permission to read are left out.
//
// Stretches are in the order of conversations and then of events. Those of a conversation come together, so there may be
// more than limit; fewer mean that no conversation follows. A limit of less than 1 gives nothing, as does a session that
// has ended. Errors: unavailable, internal.
func (s *Store) Behind(
	ctx context.Context, id domain.SessionID, after domain.ConversationID, limit int,
) ([]domain.Stretch, error) {
	if limit < 1 {
		return nil, nil
	}
	var list []domain.Stretch
	err := s.read(func(q runner) error {
		var user int64
		var packed []byte
		found, err := one(ctx, q, []any{&user, &packed}, selectSubscriptions, int64(id))
		if err != nil || !found {
			return err
		}
		subs, err := unpackSubscriptions(packed)
		if err != nil {
			return err
		}
		covered := coverageOf(subs)
		text, args := s.text.sessions.behind, []any{int64(id), user, after[:], int64(limit)}
		switch {
		case covered.all:
		case len(covered.only) == 0:
			return nil
		default:
			text, args = s.text.sessions.behindOf, append(args, s.d.ids(covered.only))
		}
		list, err = scanStretches(ctx, q, limit, text, args...)
		return err
	})
	return list, err
}

// scanStretches reads stretches until there are limit and the conversation ends.
func scanStretches(ctx context.Context, q runner, limit int, text string, args ...any) ([]domain.Stretch, error) {
	rows, err := q.query(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []domain.Stretch
	for rows.Next() {
		var c uuid
		var from, to int64
		if err := rows.Scan(&c, &from, &to); err != nil {
			return nil, err
		}
		next := domain.Stretch{Conversation: domain.ConversationID(c), From: domain.Seq(from), To: domain.Seq(to)}
		if len(list) >= limit && next.Conversation != list[len(list)-1].Conversation {
			break
		}
		list = append(list, next)
	}
	slices.SortFunc(list, func(a, b domain.Stretch) int {
		return cmp.Or(compareIDs(a.Conversation, b.Conversation), cmp.Compare(a.From, b.From))
	})
	return list, rows.Err()
}

// Positions are written in transactions of so many: on SQLite others wait for the one writer meanwhile.
const (
	positionsPostgres = 5000
	positionsSQLite   = 500
)

// SavePositions advances positions and delivered marks; none ever goes back. Sessions that have ended and users who do not
// take part are passed over. The work is done in several transactions, so that after an error some of it may have been; the
// call may be repeated, also later and with newer values. Errors: unavailable, internal.
func (s *Store) SavePositions(ctx context.Context, positions []domain.Position, marks []domain.Mark) error {
	positions = ascending(positions, comparePositions, func(a, b *domain.Position) { a.Seq = max(a.Seq, b.Seq) })
	marks = ascending(marks, compareMarks, func(a, b *domain.Mark) { a.Seq = max(a.Seq, b.Seq) })
	step, advance, mark := positionsSQLite, s.advanceEach, s.markEach
	if s.d.sets {
		step, advance, mark = positionsPostgres, s.advanceAll, s.markAll
	}
	for chunk := range slices.Chunk(positions, step) {
		if err := advance(ctx, chunk); err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(marks, step) {
		if err := mark(ctx, chunk); err != nil {
			return err
		}
	}
	return nil
}

// ascending gives a sorted copy of list in which merge has made one of those that compare as equal.
func ascending[T any](list []T, compare func(a, b T) int, merge func(into, from *T)) []T {
	list = slices.Clone(list)
	slices.SortFunc(list, compare)
	n := 0
	for i := range list {
		if n > 0 && compare(list[n-1], list[i]) == 0 {
			merge(&list[n-1], &list[i])
			continue
		}
		list[n] = list[i]
		n++
	}
	return list[:n]
}

func comparePositions(a, b domain.Position) int {
	return cmp.Or(cmp.Compare(a.Session, b.Session), compareIDs(a.Conversation, b.Conversation))
}

func compareMarks(a, b domain.Mark) int {
	return cmp.Or(compareIDs(a.Conversation, b.Conversation), cmp.Compare(a.User, b.User))
}

const (
	// Gives the places of those positions that have no cursor. The cursors are locked in their order first.
	advanceCursors = `WITH given AS MATERIALIZED (
			SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bigint[]) WITH ORDINALITY g (session, conversation, seq, i)
		), held AS MATERIALIZED (
			SELECT k.session_id, k.conversation_id, g.seq, g.i FROM given g
			JOIN cursors k ON k.session_id = g.session AND k.conversation_id = g.conversation
			ORDER BY k.session_id, k.conversation_id FOR NO KEY UPDATE OF k
		), advanced AS (
			UPDATE cursors k SET seq = h.seq FROM held h
			WHERE k.session_id = h.session_id AND k.conversation_id = h.conversation_id AND k.seq < h.seq
		)
		SELECT g.i FROM given g WHERE NOT EXISTS (SELECT 1 FROM held h WHERE h.i = g.i)`

	// The lock keeps the session until its new cursors are committed, and finds out whether it still is there.
	insertCursors = `INSERT INTO cursors (session_id, conversation_id, seq)
		SELECT g.session, g.conversation, g.seq
		FROM unnest($1::bigint[], $2::uuid[], $3::bigint[]) g (session, conversation, seq)
		JOIN (SELECT s.id FROM sessions s WHERE s.id = ANY ($1::bigint[]) ORDER BY s.id FOR KEY SHARE) s ON s.id = g.session
		ORDER BY g.session, g.conversation
		ON CONFLICT (session_id, conversation_id) DO UPDATE SET seq = excluded.seq WHERE cursors.seq < excluded.seq`

	// Gives the places of those marks whose row somebody else has locked. To wait for it with other rows locked might be to
	// wait for one who waits for those.
	raiseMarks = `WITH wanted AS MATERIALIZED (
			SELECT p.conversation_id, p.user_id, g.seq, g.i
			FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) WITH ORDINALITY g (conversation, member, seq, i)
			JOIN participants p ON p.conversation_id = g.conversation AND p.user_id = g.member AND p.last_delivered < g.seq
		), held AS MATERIALIZED (
			SELECT w.conversation_id, w.user_id, w.seq, w.i FROM wanted w
			JOIN participants p ON p.conversation_id = w.conversation_id AND p.user_id = w.user_id
			FOR NO KEY UPDATE OF p SKIP LOCKED
		), raised AS (
			UPDATE participants p SET last_delivered = h.seq FROM held h
			WHERE p.conversation_id = h.conversation_id AND p.user_id = h.user_id AND p.last_delivered < h.seq
		)
		SELECT w.i FROM wanted w WHERE NOT EXISTS (SELECT 1 FROM held h WHERE h.i = w.i)`

	raiseMark = `UPDATE participants SET last_delivered = $3
		WHERE conversation_id = $1 AND user_id = $2 AND last_delivered < $3`

	upsertCursor = `INSERT INTO cursors (session_id, conversation_id, seq) SELECT s.id, $2, $3 FROM sessions s WHERE s.id = $1
		ON CONFLICT (session_id, conversation_id) DO UPDATE SET seq = excluded.seq WHERE cursors.seq < excluded.seq`
)

// advanceAll advances positions on Postgres.
func (s *Store) advanceAll(ctx context.Context, positions []domain.Position) error {
	var left []domain.Position
	err := s.write(ctx, func(q runner) error {
		var err error
		left, err = picked(ctx, q, positions, advanceCursors, positionArgs(positions)...)
		return err
	})
	if err != nil || len(left) == 0 {
		return err
	}
	// Not in the same transaction: sessions are locked before cursors.
	return s.write(ctx, func(q runner) error {
		_, err := q.exec(ctx, insertCursors, positionArgs(left)...)
		return err
	})
}

func positionArgs(positions []domain.Position) []any {
	sessions := make(bigintArray, len(positions))
	conversations := make(uuidArray, len(positions))
	seqs := make(bigintArray, len(positions))
	for i, p := range positions {
		sessions[i], conversations[i], seqs[i] = int64(p.Session), p.Conversation, int64(p.Seq)
	}
	return []any{sessions, conversations, seqs}
}

// picked runs a statement that gives places in list, counted from 1, and gives what is there.
func picked[T any](ctx context.Context, q runner, list []T, text string, args ...any) ([]T, error) {
	places, err := scanNumbers(ctx, q, text, args...)
	if err != nil {
		return nil, err
	}
	slices.Sort(places)
	out := make([]T, len(places))
	for i, n := range places {
		out[i] = list[n-1]
	}
	return out, nil
}

// markAll raises delivered marks on Postgres.
func (s *Store) markAll(ctx context.Context, marks []domain.Mark) error {
	conversations := make(uuidArray, len(marks))
	users := make(bigintArray, len(marks))
	seqs := make(bigintArray, len(marks))
	for i, m := range marks {
		conversations[i], users[i], seqs[i] = m.Conversation, int64(m.User), int64(m.Seq)
	}
	var left []domain.Mark
	err := s.write(ctx, func(q runner) error {
		var err error
		left, err = picked(ctx, q, marks, raiseMarks, conversations, users, seqs)
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range left {
		if err := s.markEach(ctx, []domain.Mark{m}); err != nil {
			return err
		}
	}
	return nil
}

// advanceEach advances positions on SQLite.
func (s *Store) advanceEach(ctx context.Context, positions []domain.Position) error {
	return s.write(ctx, func(q runner) error {
		for i := range positions {
			p := &positions[i]
			if _, err := q.exec(ctx, upsertCursor, int64(p.Session), p.Conversation[:], int64(p.Seq)); err != nil {
				return err
			}
		}
		return nil
	})
}

// markEach raises delivered marks one by one, on SQLite, or a single one.
func (s *Store) markEach(ctx context.Context, marks []domain.Mark) error {
	return s.write(ctx, func(q runner) error {
		for i := range marks {
			m := &marks[i]
			if _, err := q.exec(ctx, raiseMark, m.Conversation[:], int64(m.User), int64(m.Seq)); err != nil {
				return err
			}
		}
		return nil
	})
}
