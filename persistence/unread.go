package persistence

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// Unread messages are not counted one by one, but taken from what is known of a log: the numbers after the read mark, less
// those of events that are no messages or were removed (an index of its own, which is short), less those of the user's own
// messages (found by the idempotency key, of which the user is a part). That costs the same for one unread message and for
// ten thousand. Where one of the two is long, the messages are counted after all, as far as they matter, and the participant
// keeps what was found: how many there were does not change, and how many of them were removed since is in the short index.
const (
	// mostOwn is how many of a user's own events in a conversation are looked at, mostUncounted how many of the others.
	mostOwn       = 64
	mostUncounted = 500
	// countStep is how many numbers of a log are looked at together where messages are counted.
	countStep = 2048
	// smallMessage is up to how many stored bytes messages are read all together, allMessages how many bytes of messages an
	// answer has at most.
	smallMessage = 2 << 10
	allMessages  = 512 << 10
)

type unreadTexts struct {
	all, of  string
	messages string
}

func newUnreadTexts(d *dialect) unreadTexts {
	own, pairs := "e.conversation_id = u.id", `SELECT x.key + 1 AS i, unhex(json_extract(x.value, '$[0]')) AS id,
		json_extract(x.value, '$[1]') AS seq FROM json_each($1) x`
	if d.sets {
		own, pairs = "uuid_send(e.conversation_id) = uuid_send(u.id)", "SELECT i, id, seq FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY x (id, seq, i)"
	}
	// In an uber conversation nothing of before the present time of taking part and reading is shown, not even counted.
	const since = `(CASE WHEN d.uber THEN COALESCE((SELECT max(m.from_seq) FROM memberships m WHERE m.conversation_id = p.conversation_id
		AND m.user_id = p.user_id AND m.to_seq IS NULL), p.joined_seq) ELSE p.joined_seq END)`
	const after = `e.conversation_id = u.id AND e.seq > u.start AND e.seq <= u.last`
	// Each is looked up one by one, and only where something has happened. The last message is looked for backwards.
	text := fmt.Sprintf(`SELECT u.id, u.last, u.read, u.start,
		CASE WHEN u.last > u.start THEN (SELECT count(*) FROM (SELECT 1 FROM events e WHERE %[1]s
			AND (e.kind <> 4 OR e.removed) AND (e.kind <> 4 OR e.sender_id <> $1) LIMIT %[3]d) x) ELSE 0 END,
		CASE WHEN u.last > u.start AND u.counted_to = 0 THEN (SELECT count(*) * 1000 + COALESCE(sum(CASE WHEN x.kind = 4 AND x.seq > u.start AND x.seq <= u.last
			THEN 1 ELSE 0 END), 0) FROM (SELECT e.kind, e.seq FROM events e WHERE %[2]s AND e.sender_id = $1 LIMIT %[4]d) x) ELSE 0 END,
		CASE WHEN u.last > u.start THEN EXISTS (SELECT 1 FROM mentions m WHERE m.conversation_id = u.id AND m.user_id = $1
			AND m.seq > u.start AND m.seq <= u.last AND m.sender_id <> $1) OR EXISTS (SELECT 1 FROM mentions m WHERE m.conversation_id = u.id
			AND m.user_id = 0 AND m.seq > u.start AND m.seq <= u.last AND m.sender_id <> $1) ELSE false END,
		u.counted_to, u.counted, CASE WHEN u.counted_to > 0 THEN (SELECT count(*) FROM events e WHERE e.conversation_id = u.id
			AND e.seq > u.start AND e.seq <= u.counted_to AND (e.kind <> 4 OR e.removed) AND e.kind = 4 AND e.sender_id <> $1) ELSE 0 END,
		(SELECT e.seq FROM events e WHERE e.conversation_id = u.id AND e.seq >= u.visible AND e.seq <= u.last AND e.kind = 4 AND NOT e.removed
			ORDER BY e.seq DESC LIMIT 1)
		FROM (SELECT p.conversation_id AS id, c.last_seq AS last, p.last_read AS read, %[6]s AS start,
				CASE WHEN p.counted_from = %[6]s AND p.counted_to > %[6]s THEN p.counted_to ELSE 0 END AS counted_to, p.counted,
				CASE WHEN d.uber THEN %[7]s ELSE 0 END AS visible
			FROM participants p JOIN conversations c ON c.id = p.conversation_id JOIN conversation_data d ON d.id = p.conversation_id
			WHERE p.user_id = $1 AND p.permissions & %[5]d <> 0 AND NOT d.removed`, after, own, mostUncounted, mostOwn, bitRead|bitOwner,
		`(CASE WHEN `+since+` > p.last_read THEN `+since+` ELSE p.last_read END)`, since)
	return unreadTexts{
		all: text + `) u`,
		of:  text + ` AND p.conversation_id = $2) u`,
		messages: fmt.Sprintf(`SELECT x.i, e.sender_id, e.client_id, e.created_at, length(e.payload),
			CASE WHEN length(e.payload) <= %d THEN e.payload END
			FROM (%s) x JOIN events e ON e.conversation_id = x.id AND e.seq = x.seq`, smallMessage, pairs),
	}
}

const (
	countUnread = `SELECT count(*), COALESCE(sum(CASE WHEN removed THEN 1 ELSE 0 END), 0) FROM events
		WHERE conversation_id = $1 AND seq > $2 AND seq <= $3 AND kind = 4 AND sender_id <> $4`

	// Participants are locked by changes of conversations as well, in any order: who would wait is passed over, and counts again.
	keepCounts = `WITH held AS MATERIALIZED (
			SELECT p.ctid AS at, g.start, g.upto, g.n
			FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[]) g (conversation, start, upto, n)
			JOIN participants p ON p.conversation_id = g.conversation AND p.user_id = $1
			FOR NO KEY UPDATE OF p SKIP LOCKED
		)
		UPDATE participants p SET counted_from = h.start, counted_to = h.upto, counted = h.n FROM held h WHERE p.ctid = h.at`
	keepCount = `UPDATE participants SET counted_from = $3, counted_to = $4, counted = $5 WHERE user_id = $1 AND conversation_id = $2`
)

// unreadRow is a conversation on its way to a domain.Unread.
type unreadRow struct {
	domain.Unread
	// start is the number after which unread messages may be; uncounted, own and mine are what was found behind it, own in
	// the whole log.
	start          domain.Seq
	uncounted, own int64
	mine           int64
	// upto is up to where found messages of others were counted, gone of which were removed since; 0: they were not.
	upto        domain.Seq
	found, gone int64
	// news: counting has got further.
	news       bool
	message    domain.Seq // the newest one; 0: there is none
	time, size int64      // of that
}

// unread gives what a user has not read, the conversations with the newest messages first.
func (s *Store) unread(
	ctx context.Context, q runner, user domain.UserID, query *domain.UnreadQuery,
) (given []domain.Unread, news []*unreadRow, err error) {
	text, args := s.text.unread.all, []any{int64(user)}
	if !query.Of.IsZero() {
		text, args = s.text.unread.of, append(args, query.Of[:])
	}
	var list []*unreadRow
	err = each(ctx, q, func(rows *sqlx.Rows) error {
		var r unreadRow
		var id uuid
		var own int64
		var message sql.NullInt64
		err := rows.Scan(&id, &r.LastSeq, &r.LastRead, &r.start, &r.uncounted, &own, &r.Mentioned,
			&r.upto, &r.found, &r.gone, &message)
		r.Conversation, r.own, r.mine, r.message = domain.ConversationID(id), own/1000, own%1000, domain.Seq(message.Int64)
		list = append(list, &r)
		return err
	}, text, args...)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range list {
		if err := s.count(ctx, q, user, r); err != nil {
			return nil, nil, err
		}
		if r.news {
			news = append(news, r)
		}
	}
	if query.Waiting {
		list = slices.DeleteFunc(list, func(r *unreadRow) bool { return r.Unread.Unread == 0 })
	}
	given, err = s.lastMessages(ctx, q, list, query.Limit)
	return given, news, err
}

// count finds out how many messages of a conversation are unread.
func (s *Store) count(ctx context.Context, q runner, user domain.UserID, r *unreadRow) error {
	n := int64(r.LastSeq - r.start)
	if n <= 0 {
		return nil
	}
	if r.uncounted < mostUncounted && r.own < mostOwn && r.upto == 0 {
		n -= r.uncounted + r.mine
	} else {
		if r.upto == 0 {
			r.upto, r.found, r.gone = r.start, 0, 0
		}
		for r.upto < r.LastSeq && r.found-r.gone <= domain.UnreadMost {
			to := min(r.upto+countStep, r.LastSeq)
			var found, gone int64
			if _, err := one(ctx, q, []any{&found, &gone}, countUnread, r.Conversation[:], int64(r.upto), int64(to), int64(user)); err != nil {
				return err
			}
			r.upto, r.found, r.gone, r.news = to, r.found+found, r.gone+gone, true
		}
		n = r.found - r.gone
	}
	r.Unread.Unread, r.More = int(min(n, domain.UnreadMost)), n > domain.UnreadMost
	return nil
}

// keep writes what counting has found. It does not matter if that fails.
func (s *Store) keep(ctx context.Context, user domain.UserID, news []*unreadRow) {
	for chunk := range slices.Chunk(news, positionsAtOnce) {
		err := s.write(ctx, func(q runner) error {
			if s.d.sets {
				ids := make(uuidArray, len(chunk))
				var starts, ends, counts bigintArray
				for i, r := range chunk {
					ids[i] = r.Conversation
					starts, ends, counts = append(starts, int64(r.start)), append(ends, int64(r.upto)), append(counts, r.found)
				}
				_, err := q.exec(ctx, keepCounts, int64(user), ids, starts, ends, counts)
				return err
			}
			for _, r := range chunk {
				if _, err := q.exec(ctx, keepCount, int64(user), r.Conversation[:], int64(r.start), int64(r.upto), r.found); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.logger.Debug("what was counted is not kept", "err", err)
			return
		}
	}
}

// lastMessages gives the rows with the newest messages, newest first, each with its last message as long as there is room
// for them.
func (s *Store) lastMessages(ctx context.Context, q runner, rows []*unreadRow, limit int) ([]domain.Unread, error) {
	var with []*unreadRow
	for _, r := range rows {
		if r.message > 0 {
			with = append(with, r)
		}
	}
	if len(with) > 0 {
		err := each(ctx, q, func(found *sqlx.Rows) error {
			var i, sender int64
			var r unreadRow
			var client sql.NullString
			var payload sql.RawBytes
			if err := found.Scan(&i, &sender, &client, &r.time, &r.size, &payload); err != nil {
				return err
			}
			at := with[i-1]
			at.time, at.size = r.time, r.size
			if len(payload) == 0 {
				return nil
			}
			e, err := domain.UnmarshalStored(at.Conversation, at.message, payload)
			if err != nil {
				return fmt.Errorf("event %d of conversation %s: %w", at.message, at.Conversation, err)
			}
			at.LastMessage = e.Message
			return nil
		}, s.text.unread.messages, s.pairs(with)...)
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(rows, func(a, b *unreadRow) int {
		return cmp.Or(cmp.Compare(b.time, a.time), compareIDs(a.Conversation, b.Conversation))
	})
	if len(rows) > limit {
		rows = rows[:limit]
	}
	list := make([]domain.Unread, 0, len(rows))
	room := int64(allMessages)
	for _, r := range rows {
		if room -= r.size; room < 0 {
			r.LastMessage = nil
		} else if r.LastMessage == nil && r.message > 0 {
			e, err := s.message(ctx, q, r.Conversation, r.message)
			if err != nil {
				return nil, err
			}
			if e != nil {
				r.LastMessage = e.Message
			}
		}
		if r.LastMessage != nil && r.LastMessage.Removed {
			r.LastMessage = nil // just now
		}
		list = append(list, r.Unread)
	}
	return list, nil
}

// pairs gives the parameters that name the last messages of conversations.
func (s *Store) pairs(rows []*unreadRow) []any {
	if s.d.sets {
		ids, seqs := make(uuidArray, len(rows)), make(bigintArray, len(rows))
		for i, r := range rows {
			ids[i], seqs[i] = r.Conversation, int64(r.message)
		}
		return []any{ids, seqs}
	}
	list := make([][2]any, len(rows))
	for i, r := range rows {
		list[i] = [2]any{hexID(r.Conversation), int64(r.message)}
	}
	b, err := json.Marshal(list)
	if err != nil {
		return []any{"[]"} // Cannot be: texts and numbers always marshal.
	}
	return []any{string(b)}
}

const selectRecipients = `SELECT m.user_id, m.last_read, m.last_delivered, m.last_read_at, m.last_delivered_at,
	COALESCE(p.last_read, 0), COALESCE(p.last_delivered, 0), COALESCE(p.last_read_at, 0), COALESCE(p.last_delivered_at, 0)
	FROM memberships m LEFT JOIN participants p ON p.conversation_id = m.conversation_id AND p.user_id = m.user_id
	WHERE m.conversation_id = $1 AND m.from_seq <= $2 AND (m.to_seq IS NULL OR m.to_seq >= $2) ORDER BY m.user_id`

// recipients gives those who took part when an event happened, with how far they have come: until they left, or until now.
func (s *Store) recipients(ctx context.Context, q runner, c domain.ConversationID, seq domain.Seq) ([]domain.Recipient, error) {
	var list []domain.Recipient
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var then, now domain.Recipient
		if err := rows.Scan(&then.User, &then.LastRead, &then.LastDelivered, &then.ReadAt, &then.DeliveredAt,
			&now.LastRead, &now.LastDelivered, &now.ReadAt, &now.DeliveredAt); err != nil {
			return err
		}
		then.LastRead, then.LastDelivered = max(then.LastRead, now.LastRead), max(then.LastDelivered, now.LastDelivered)
		then.ReadAt, then.DeliveredAt = max(then.ReadAt, now.ReadAt), max(then.DeliveredAt, now.DeliveredAt)
		list = append(list, then)
		return nil
	}, selectRecipients, c[:], int64(seq))
	return list, err
}
