package persistence

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

type missedTexts struct {
	// all is for all conversations but some, of is for some.
	all, of string
	newest  string
}

func newMissedTexts(d *dialect) missedTexts {
	// As in newSessionTexts, and for the same reasons.
	from, order := "m.conversation_id > $2", "m.conversation_id"
	limit := func(string) string { return "" }
	list, stretches := "(SELECT json_group_array(x.seq) FROM (%s) x)", `SELECT key AS i, unhex(json_extract(value, '$[0]')) AS id,
		json_extract(value, '$[1]') AS since, json_extract(value, '$[2]') AS upto FROM json_each($1)`
	number := "$2"
	if d.sets {
		limit = func(param string) string { return " FETCH FIRST (" + param + ") ROWS WITH TIES" }
		from, order = "(m.user_id, m.conversation_id) > ($1, $2)", "m.user_id, m.conversation_id"
		list, stretches = "CAST(array_to_json(ARRAY(%s)) AS text)", `SELECT i - 1 AS i, id, since, upto
			FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) WITH ORDINALITY g (id, since, upto, i)`
		number = "$4"
	}
	const last = `COALESCE(m.to_seq, (SELECT c.last_seq FROM conversations c WHERE c.id = m.conversation_id))`
	// NULL for those who do not take part. Who left and came back has a mark of its own of the time before.
	seen := fmt.Sprintf(`(SELECT CASE WHEN m.to_seq IS NULL THEN p.last_delivered ELSE (SELECT CASE
			WHEN max(o.last_delivered) > p.last_delivered THEN max(o.last_delivered) ELSE p.last_delivered END
			FROM memberships o WHERE o.conversation_id = m.conversation_id AND o.user_id = m.user_id) END
		FROM participants p WHERE p.conversation_id = m.conversation_id AND p.user_id = m.user_id AND p.permissions & %d <> 0)`, bitRead|bitOwner)
	undelivered := fmt.Sprintf(`SELECT m.conversation_id, m.from_seq, %[1]s, %[2]s, false FROM memberships m WHERE m.user_id = $1 AND %[3]s
		AND (m.to_seq IS NULL OR m.to_seq >= m.from_seq) AND CASE WHEN %[1]s > %[2]s THEN NOT (SELECT d.removed FROM conversation_data d
			WHERE d.id = m.conversation_id) ELSE false END AND `, last, seen, from)
	return missedTexts{
		all: undelivered + `NOT (` + d.amongIDs("m.conversation_id", "$3") + `) ORDER BY ` + order + limit("$4"),
		of:  undelivered + d.amongIDs("m.conversation_id", "$3") + ` ORDER BY ` + order + limit("$4"),
		// Walks each log backwards from its end.
		newest: fmt.Sprintf(`SELECT g.i, %s FROM (%s) g`, fmt.Sprintf(list, `SELECT e.seq FROM events e WHERE e.conversation_id = g.id
			AND e.seq >= g.since AND e.seq <= g.upto AND e.kind = 4 AND NOT e.removed ORDER BY e.seq DESC LIMIT `+number), stretches),
	}
}

// Undelivered gives what has reached no device of a user: for each time in which it took part and was allowed to read, the events
// after its delivered mark, of the conversations that it takes part in and may read now. It is asked for the conversations
// in only, or, where that is nil, for all but those in except. Removed conversations are left out. Order and pages are as those of
// [Store.Behind]. Errors: unavailable, internal.
func (s *Store) Undelivered(
	ctx context.Context, user domain.UserID, only, except []domain.ConversationID, after domain.ConversationID, limit int,
) ([]domain.Stretch, error) {
	if limit < 1 {
		return nil, nil
	}
	text, ids := s.text.missed.all, except
	if only != nil {
		text, ids = s.text.missed.of, only
	}
	var list []domain.Stretch
	err := s.read(func(q runner) error {
		var err error
		list, err = scanStretches(ctx, q, limit, text, int64(user), after[:], s.d.ids(ids), int64(limit))
		return err
	})
	return list, err
}

// Newest shortens what was missed, where that is more than n messages of a conversation: it then begins with the n-th newest
// of them. Removed messages do not count. The stretches of a conversation must follow one another, in the order of events;
// none becomes longer, and of no conversation nothing is left. Errors: unavailable, internal.
func (s *Store) Newest(ctx context.Context, missed []domain.Stretch, n int) ([]domain.Stretch, error) {
	var long []domain.Stretch // those that may have more than n messages
	for _, of := range byConversations(missed) {
		events := 0
		for _, st := range of {
			events += int(st.To - st.From + 1)
		}
		if events > n {
			long = append(long, of...)
		}
	}
	if len(long) == 0 {
		return missed, nil
	}
	var found [][]domain.Seq
	err := s.read(func(q runner) error {
		var err error
		found, err = s.newestMessages(ctx, q, long, n+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	starts := make(map[domain.ConversationID]domain.Seq)
	at := 0
	for _, of := range byConversations(long) {
		seqs := slices.Concat(found[at : at+len(of)]...)
		at += len(of)
		slices.Sort(seqs)
		if len(seqs) > n {
			starts[of[0].Conversation] = seqs[len(seqs)-n]
		}
	}
	short := make([]domain.Stretch, 0, len(missed))
	for _, st := range missed {
		st.From = max(st.From, starts[st.Conversation])
		if st.From <= st.To {
			short = append(short, st)
		}
	}
	return short, nil
}

// byConversations gives the parts of a list that are of one conversation each.
func byConversations(list []domain.Stretch) (parts [][]domain.Stretch) {
	for begin := 0; begin < len(list); {
		end := begin + 1
		for end < len(list) && list[end].Conversation == list[begin].Conversation {
			end++
		}
		parts = append(parts, list[begin:end])
		begin = end
	}
	return parts
}

// newestMessages gives the numbers of the newest messages, at most limit, of each stretch.
func (s *Store) newestMessages(ctx context.Context, q runner, list []domain.Stretch, limit int) ([][]domain.Seq, error) {
	found := make([][]domain.Seq, len(list))
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var i int
		var seqs []byte
		if err := rows.Scan(&i, &seqs); err != nil {
			return err
		}
		return json.Unmarshal(seqs, &found[i])
	}, s.text.missed.newest, append(s.stretchArgs(list), int64(limit))...)
	return found, err
}

func (s *Store) stretchArgs(list []domain.Stretch) []any {
	if s.d.sets {
		ids, since, upto := make(uuidArray, len(list)), make(bigintArray, len(list)), make(bigintArray, len(list))
		for i, st := range list {
			ids[i], since[i], upto[i] = st.Conversation, int64(st.From), int64(st.To)
		}
		return []any{ids, since, upto}
	}
	rows := make([][3]any, len(list))
	for i, st := range list {
		rows[i] = [3]any{hexID(st.Conversation), int64(st.From), int64(st.To)}
	}
	return []any{jsonList(rows)}
}
