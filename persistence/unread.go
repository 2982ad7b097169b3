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
// ten thousand. Where one of the two is long, the messages are counted after all, as far as they matter.
const (
	// mostOwn is how many of a user's own events in a conversation are looked at, mostUncounted how many of the others.
	mostOwn       = 100
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
	const after = `e.conversation_id = u.id AND e.seq > u.start AND e.seq <= u.last`
	// Each is looked up one by one, and only where something has happened. The last message is looked for backwards.
	text := fmt.Sprintf(`SELECT u.id, u.last, u.read, u.start,
		CASE WHEN u.last > u.start THEN (SELECT count(*) FROM (SELECT 1 FROM events e WHERE %[1]s
			AND (e.kind <> 4 OR e.removed) AND (e.kind <> 4 OR e.sender_id <> $1) LIMIT %[3]d) x) ELSE 0 END,
		CASE WHEN u.last > u.start THEN (SELECT count(*) * 1000 + COALESCE(sum(CASE WHEN x.kind = 4 AND x.seq > u.start AND x.seq <= u.last
			THEN 1 ELSE 0 END), 0) FROM (SELECT e.kind, e.seq FROM events e WHERE %[2]s AND e.sender_id = $1 LIMIT %[4]d) x) ELSE 0 END,
		CASE WHEN u.last > u.start THEN EXISTS (SELECT 1 FROM mentions m WHERE m.conversation_id = u.id AND m.user_id = $1
			AND m.seq > u.start AND m.seq <= u.last AND m.sender_id <> $1) OR EXISTS (SELECT 1 FROM mentions m WHERE m.conversation_id = u.id
			AND m.user_id = 0 AND m.seq > u.start AND m.seq <= u.last AND m.sender_id <> $1) ELSE false END,
		(SELECT e.seq FROM events e WHERE e.conversation_id = u.id AND e.seq >= u.visible AND e.seq <= u.last AND e.kind = 4 AND NOT e.removed
			ORDER BY e.seq DESC LIMIT 1)
		FROM (SELECT p.conversation_id AS id, c.last_seq AS last, p.last_read AS read,
				CASE WHEN p.joined_seq > p.last_read THEN p.joined_seq ELSE p.last_read END AS start,
				CASE WHEN d.uber THEN p.joined_seq ELSE 0 END AS visible
			FROM participants p JOIN conversations c ON c.id = p.conversation_id JOIN conversation_data d ON d.id = p.conversation_id
			WHERE p.user_id = $1 AND p.permissions & %[5]d <> 0 AND NOT d.removed`, after, own, mostUncounted, mostOwn, bitRead|bitOwner)
	return unreadTexts{
		all: text + `) u`,
		of:  text + ` AND p.conversation_id = $2) u`,
		messages: fmt.Sprintf(`SELECT x.i, e.sender_id, e.client_id, e.created_at, length(e.payload),
			CASE WHEN length(e.payload) <= %d THEN e.payload END
			FROM (%s) x JOIN events e ON e.conversation_id = x.id AND e.seq = x.seq`, smallMessage, pairs),
	}
}

const countUnread = `SELECT count(*) FROM events
	WHERE conversation_id = $1 AND seq > $2 AND seq <= $3 AND kind = 4 AND NOT removed AND sender_id <> $4`

// unreadRow is a conversation on its way to a domain.Unread.
type unreadRow struct {
	domain.Unread
	// start is the number after which unread messages may be; uncounted, own and mine are what was found behind it, own in
	// the whole log.
	start          domain.Seq
	uncounted, own int64
	mine           int64
	message        domain.Seq // the newest one; 0: there is none
	time, size     int64      // of that
}

// unread gives what a user has not read, the conversations with the newest messages first.
func (s *Store) unread(ctx context.Context, q runner, user domain.UserID, query *domain.UnreadQuery) ([]domain.Unread, error) {
	text, args := s.text.unread.all, []any{int64(user)}
	if !query.Of.IsZero() {
		text, args = s.text.unread.of, append(args, query.Of[:])
	}
	var list []*unreadRow
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var r unreadRow
		var id uuid
		var own int64
		var message sql.NullInt64
		err := rows.Scan(&id, &r.LastSeq, &r.LastRead, &r.start, &r.uncounted, &own, &r.Mentioned, &message)
		r.Conversation, r.own, r.mine, r.message = domain.ConversationID(id), own/1000, own%1000, domain.Seq(message.Int64)
		list = append(list, &r)
		return err
	}, text, args...)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		if err := s.count(ctx, q, user, r); err != nil {
			return nil, err
		}
	}
	if query.Waiting {
		list = slices.DeleteFunc(list, func(r *unreadRow) bool { return r.Unread.Unread == 0 })
	}
	return s.lastMessages(ctx, q, list, query.Limit)
}

// count finds out how many messages of a conversation are unread.
func (s *Store) count(ctx context.Context, q runner, user domain.UserID, r *unreadRow) error {
	n := int64(r.LastSeq - r.start)
	if n <= 0 {
		return nil
	}
	if r.uncounted < mostUncounted && r.own < mostOwn {
		n -= r.uncounted + r.mine
	} else {
		n = 0
		for from := r.start; from < r.LastSeq && n <= domain.UnreadMost; from += countStep {
			var found int64
			if _, err := one(ctx, q, []any{&found}, countUnread, r.Conversation[:], int64(from), int64(min(from+countStep, r.LastSeq)),
				int64(user)); err != nil {
				return err
			}
			n += found
		}
	}
	r.Unread.Unread, r.More = int(min(n, domain.UnreadMost)), n > domain.UnreadMost
	return nil
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
