package persistence

import (
	"cmp"
	"context"
	"slices"

	"github.com/parley-im/parley/domain"
)

// Behind gives what a session has not acknowledged of the conversations that its subscriptions cover: for each time
// in which its user took part and was allowed to read, the events after the session's position, up to the one by which the user left or the present
// last one. Where a conversation has no position, its times of membership are given whole. Where the user takes part without
// the permission to read, what it missed before is Withheld.
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
		text, args := s.text.sessions.behind, []any{int64(id), user, after[:]}
		switch {
		case covered.all:
		case len(covered.only) == 0:
			return nil
		default:
			text, args = s.text.sessions.behindOf, append(args, s.d.ids(covered.only))
		}
		list, err = scanStretches(ctx, q, limit, text, append(args, int64(limit))...)
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
		var from, to, seen int64
		var withheld bool
		if err := rows.Scan(&c, &from, &to, &seen, &withheld); err != nil {
			return nil, err
		}
		next := domain.Stretch{
			Conversation: domain.ConversationID(c), From: domain.Seq(max(from, seen+1)), To: domain.Seq(to), Withheld: withheld,
		}
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

// positionsAtOnce is how many positions, and as many marks, are written in one transaction: on SQLite others wait for the one
// writer meanwhile, on Postgres large ones show as pauses of live traffic, and small ones cost a commit each.
const positionsAtOnce = 500

// SavePositions advances positions and delivered marks; none ever goes back. Sessions that have ended and users who do not
// take part are passed over. The work is done in several transactions, so that after an error some of it may have been; the
// call may be repeated, also later and with newer values. Errors: unavailable, internal.
func (s *Store) SavePositions(ctx context.Context, positions []domain.Position, marks []domain.Mark) error {
	order := byConversation
	if s.d.sets {
		order = bySession
	}
	positions = ascending(positions, order, func(a, b *domain.Position) { a.Seq = max(a.Seq, b.Seq) })
	marks = ascending(marks, compareMarks, func(a, b *domain.Mark) {
		if a.Seq < b.Seq {
			*a = *b
		}
	})
	for len(positions) > 0 || len(marks) > 0 {
		n, m := min(len(positions), positionsAtOnce), min(len(marks), positionsAtOnce)
		if err := s.savePositions(ctx, positions[:n], marks[:m]); err != nil {
			return err
		}
		positions, marks = positions[n:], marks[m:]
	}
	return nil
}

func (s *Store) savePositions(ctx context.Context, positions []domain.Position, marks []domain.Mark) error {
	if !s.d.sets {
		return s.write(ctx, func(q runner) error {
			if err := advanceEach(ctx, q, positions); err != nil {
				return err
			}
			return markEach(ctx, q, marks)
		})
	}
	// Not in one transaction: nobody who has locked cursors waits for participants.
	if len(positions) > 0 {
		if err := s.advanceAll(ctx, positions); err != nil {
			return err
		}
	}
	if len(marks) > 0 {
		return s.markAll(ctx, marks)
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

// bySession is the order in which cursors are locked.
func bySession(a, b domain.Position) int {
	return cmp.Or(cmp.Compare(a.Session, b.Session), compareIDs(a.Conversation, b.Conversation))
}

// byConversation is the order in which SQLite's cursors lie.
func byConversation(a, b domain.Position) int {
	return cmp.Or(compareIDs(a.Conversation, b.Conversation), cmp.Compare(a.Session, b.Session))
}

func compareMarks(a, b domain.Mark) int {
	return cmp.Or(compareIDs(a.Conversation, b.Conversation), cmp.Compare(a.User, b.User))
}

const (
	// Gives the places of the positions that are saved. The others have no cursor yet, or one that is as far, or that
	// somebody has just changed: an update by physical place is much cheaper than one by key, but misses those.
	advanceCursors = `WITH held AS MATERIALIZED (
			SELECT k.ctid AS at, g.seq, g.i
			FROM unnest($1::bigint[], $2::uuid[], $3::bigint[]) WITH ORDINALITY g (session, conversation, seq, i)
			JOIN cursors k ON k.session_id = g.session AND k.conversation_id = g.conversation AND k.seq < g.seq
			ORDER BY k.session_id, k.conversation_id FOR NO KEY UPDATE OF k
		)
		UPDATE cursors k SET seq = h.seq FROM held h WHERE k.ctid = h.at RETURNING h.i`

	// The lock keeps the session until its new cursors are committed, and finds out whether it still is there.
	insertCursors = `INSERT INTO cursors (session_id, conversation_id, seq)
		SELECT g.session, g.conversation, g.seq
		FROM unnest($1::bigint[], $2::uuid[], $3::bigint[]) g (session, conversation, seq)
		JOIN (SELECT s.id FROM sessions s WHERE s.id = ANY ($1::bigint[]) ORDER BY s.id FOR KEY SHARE) s ON s.id = g.session
		ORDER BY g.session, g.conversation
		ON CONFLICT (session_id, conversation_id) DO UPDATE SET seq = excluded.seq WHERE cursors.seq < excluded.seq`

	// Gives the places of the marks that are raised. Participants are locked by changes of conversations as well, in any
	// order: whoever waited for one with others locked might wait for somebody who waits for those.
	raiseMarks = `WITH held AS MATERIALIZED (
			SELECT p.ctid AS at, g.seq, g.time, g.i
			FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY g (conversation, member, seq, time, i)
			JOIN participants p ON p.conversation_id = g.conversation AND p.user_id = g.member AND p.last_delivered < g.seq
			FOR NO KEY UPDATE OF p SKIP LOCKED
		)
		UPDATE participants p SET last_delivered = h.seq, last_delivered_at = h.time FROM held h WHERE p.ctid = h.at RETURNING h.i`

	// Gives the places of the marks that are still to be raised.
	lowMarks = `SELECT g.i FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])
		WITH ORDINALITY g (conversation, member, seq, time, i)
		JOIN participants p ON p.conversation_id = g.conversation AND p.user_id = g.member AND p.last_delivered < g.seq`

	// Gives the places of the marks of those who have left since: what reached them was on its way then.
	formerMarks = `SELECT g.i FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])
		WITH ORDINALITY g (conversation, member, seq, time, i)
		JOIN memberships m ON m.conversation_id = g.conversation AND m.user_id = g.member
			AND m.from_seq <= g.seq AND m.to_seq >= g.seq AND m.last_delivered < g.seq`

	raiseMark = `UPDATE participants SET last_delivered = $3, last_delivered_at = $4
		WHERE conversation_id = $1 AND user_id = $2 AND last_delivered < $3`
	raiseFormerMark = `UPDATE memberships SET last_delivered = $3, last_delivered_at = $4
		WHERE conversation_id = $1 AND user_id = $2 AND from_seq <= $3 AND to_seq >= $3 AND last_delivered < $3`

	advanceCursor = `UPDATE cursors SET seq = $3 WHERE session_id = $1 AND conversation_id = $2 AND seq < $3`
	upsertCursor  = `INSERT INTO cursors (session_id, conversation_id, seq) SELECT s.id, $2, $3 FROM sessions s WHERE s.id = $1
		ON CONFLICT (session_id, conversation_id) DO UPDATE SET seq = excluded.seq WHERE cursors.seq < excluded.seq`
)

// advanceAll advances positions on Postgres.
func (s *Store) advanceAll(ctx context.Context, positions []domain.Position) error {
	var saved []int64
	err := s.write(ctx, func(q runner) error {
		var err error
		saved, err = scanNumbers(ctx, q, advanceCursors, positionArgs(positions)...)
		return err
	})
	if err != nil || len(saved) == len(positions) {
		return err
	}
	left := without(positions, saved)
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

// without gives what is not at the places, which count from 1.
func without[T any](list []T, places []int64) []T {
	done := make([]bool, len(list))
	for _, n := range places {
		done[n-1] = true
	}
	var left []T
	for i := range list {
		if !done[i] {
			left = append(left, list[i])
		}
	}
	return left
}

// markAll raises delivered marks on Postgres.
func (s *Store) markAll(ctx context.Context, marks []domain.Mark) error {
	var low []domain.Mark
	err := s.write(ctx, func(q runner) error {
		low = nil
		raised, err := scanNumbers(ctx, q, raiseMarks, markArgs(marks)...)
		if err != nil || len(raised) == len(marks) {
			return err
		}
		// Mostly, another device was further.
		left := without(marks, raised)
		for _, text := range [...]string{lowMarks, formerMarks} {
			places, err := scanNumbers(ctx, q, text, markArgs(left)...)
			if err != nil {
				return err
			}
			for _, n := range places {
				low = append(low, left[n-1])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range low {
		err := s.write(ctx, func(q runner) error { return markEach(ctx, q, []domain.Mark{m}) })
		if err != nil {
			return err
		}
	}
	return nil
}

func markArgs(marks []domain.Mark) []any {
	conversations := make(uuidArray, len(marks))
	users := make(bigintArray, len(marks))
	seqs, times := make(bigintArray, len(marks)), make(bigintArray, len(marks))
	for i, m := range marks {
		conversations[i], users[i], seqs[i], times[i] = m.Conversation, int64(m.User), int64(m.Seq), m.Time
	}
	return []any{conversations, users, seqs, times}
}

// advanceEach advances positions one by one, on SQLite.
func advanceEach(ctx context.Context, q runner, positions []domain.Position) error {
	for i := range positions {
		p := &positions[i]
		n, err := q.exec(ctx, advanceCursor, int64(p.Session), p.Conversation[:], int64(p.Seq))
		if err == nil && n == 0 {
			_, err = q.exec(ctx, upsertCursor, int64(p.Session), p.Conversation[:], int64(p.Seq))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// markEach raises delivered marks one by one, on SQLite, or a single one.
func markEach(ctx context.Context, q runner, marks []domain.Mark) error {
	for i := range marks {
		m := &marks[i]
		n, err := q.exec(ctx, raiseMark, m.Conversation[:], int64(m.User), int64(m.Seq), m.Time)
		if err == nil && n == 0 {
			_, err = q.exec(ctx, raiseFormerMark, m.Conversation[:], int64(m.User), int64(m.Seq), m.Time)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
