package persistence

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// batch is drafts in the form of columns, one element per draft that is to be looked at.
type batch struct {
	keys     []domain.ConversationID // ascending, each once
	pos      []int32                 // position in keys, from 1
	versions []int64
	senders  []int64
	clients  []string
	kinds    []int32
	times    []int64
	payloads [][]byte
	// mentions are pairs of the number of a draft, from 1, and a user whom it mentions.
	mentions struct {
		drafts []int32
		users  []int64
	}

	results []domain.Placement
	// of is, per draft of the caller, the element that answers for it; first says whether it is the first such draft.
	of    []int
	first []bool
}

// identity is the idempotency key.
type identity struct {
	conversation domain.ConversationID
	sender       domain.SenderID
	client       string
}

func newBatch(drafts []domain.Draft) (*batch, error) {
	n := len(drafts)
	b := &batch{
		pos: make([]int32, 0, n), versions: make([]int64, 0, n), senders: make([]int64, 0, n), clients: make([]string, 0, n),
		kinds: make([]int32, 0, n), times: make([]int64, 0, n), payloads: make([][]byte, 0, n),
		of: make([]int, n), first: make([]bool, n),
	}
	b.keys = make([]domain.ConversationID, n)
	for i := range drafts {
		b.keys[i] = drafts[i].Event.Conversation
	}
	slices.SortFunc(b.keys, compareIDs)
	b.keys = slices.Compact(b.keys)
	// The gateway folds equal drafts before they come here. If it ever does not, they must not become two rows, nor
	// fail the batch.
	seen := make(map[identity]int, n)
	for i := range drafts {
		e := drafts[i].Event
		if e.ClientID == "" {
			return nil, domain.Errorf(domain.Internal, "a draft without a client id cannot be appended")
		}
		id := identity{e.Conversation, e.Sender, e.ClientID}
		if at, ok := seen[id]; ok {
			b.of[i] = at
			continue
		}
		at := len(b.pos)
		seen[id], b.of[i], b.first[i] = at, at, true
		kind, err := kindOf(e.Type)
		if err != nil {
			return nil, err
		}
		payload, err := e.MarshalStored()
		if err != nil {
			return nil, fmt.Errorf("event of conversation %s: %w", e.Conversation, err)
		}
		k, _ := slices.BinarySearchFunc(b.keys, e.Conversation, compareIDs)
		b.pos = append(b.pos, int32(k+1))
		b.versions = append(b.versions, drafts[i].Version)
		b.senders = append(b.senders, int64(e.Sender))
		b.clients = append(b.clients, e.ClientID)
		b.kinds = append(b.kinds, int32(kind))
		b.times = append(b.times, e.Time)
		b.payloads = append(b.payloads, payload)
		for _, u := range e.Mentioned {
			b.mentions.drafts = append(b.mentions.drafts, int32(len(b.pos)))
			b.mentions.users = append(b.mentions.users, int64(u))
		}
	}
	b.results = make([]domain.Placement, len(b.pos))
	return b, nil
}

func compareIDs(a, b domain.ConversationID) int { return bytes.Compare(a[:], b[:]) }

// placements gives the results in the order of the drafts.
func (b *batch) placements() []domain.Placement {
	list := make([]domain.Placement, len(b.of))
	for i, at := range b.of {
		list[i] = b.results[at]
		if !b.first[i] && list[i].Status == domain.Stored {
			list[i].Status = domain.Known
		}
	}
	return list
}

// The casts leave no doubt which function is meant, should there ever be two of the name.
const callAppend = `SELECT ordinal, status, seq FROM append_events_v1($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[],
	$5::text[], $6::integer[], $7::bigint[], $8::bytea[])`

// The rows of mentions are made by whoever calls the function, for the few messages that mention somebody.
const callAppendMentioning = `WITH placed AS MATERIALIZED (
		SELECT ordinal, status, seq FROM append_events_v1($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[],
			$5::text[], $6::integer[], $7::bigint[], $8::bytea[])
	), noted AS (
		INSERT INTO mentions (conversation_id, user_id, seq, sender_id)
		SELECT ($1::uuid[])[($2::integer[])[p.ordinal]], m.member, p.seq, ($4::bigint[])[p.ordinal]
		FROM placed p JOIN unnest($9::integer[], $10::bigint[]) m (draft, member) ON m.draft = p.ordinal WHERE p.status = 0
	)
	SELECT ordinal, status, seq FROM placed`

const callAppendOne = `SELECT status, seq FROM append_event_v1($1::uuid, $2::bigint, $3::bigint, $4::text, $5::integer, $6::bigint,
	$7::bytea)`

// call appends the batch by the server's function.
func (b *batch) call(ctx context.Context, q runner) error {
	text, args := callAppend, []any{
		uuidArray(b.keys), intArray(b.pos), bigintArray(b.versions), bigintArray(b.senders), textArray(b.clients),
		intArray(b.kinds), bigintArray(b.times), byteaArray(b.payloads),
	}
	switch {
	case len(b.mentions.users) > 0:
		text, args = callAppendMentioning, append(args, intArray(b.mentions.drafts), bigintArray(b.mentions.users))
	case len(b.pos) == 1:
		return b.callOne(ctx, q)
	}
	answers := 0
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var ordinal, status int64
		var seq sql.NullInt64
		if err := rows.Scan(&ordinal, &status, &seq); err != nil {
			return err
		}
		if ordinal < 1 || int(ordinal) > len(b.results) {
			return fmt.Errorf("append_events_v1 answers for draft %d of %d", ordinal, len(b.results))
		}
		b.results[ordinal-1] = domain.Placement{Status: domain.PlacementStatus(status), Seq: domain.Seq(seq.Int64)}
		answers++
		return nil
	}, text, args...)
	if err == nil && answers != len(b.results) {
		err = fmt.Errorf("append_events_v1 answers for %d drafts of %d", answers, len(b.results))
	}
	return err
}

// callOne is call for a single draft.
func (b *batch) callOne(ctx context.Context, q runner) error {
	var status int64
	var seq sql.NullInt64
	found, err := one(ctx, q, []any{&status, &seq}, callAppendOne, b.keys[0][:], b.versions[0], b.senders[0], b.clients[0],
		int64(b.kinds[0]), b.times[0], b.payloads[0])
	if err == nil && !found {
		err = errors.New("append_event_v1 gives no answer")
	}
	b.results[0] = domain.Placement{Status: domain.PlacementStatus(status), Seq: domain.Seq(seq.Int64)}
	return err
}

const (
	selectHead    = `SELECT last_seq, version FROM conversations WHERE id = $1`
	selectClient  = `SELECT seq FROM events WHERE conversation_id = $1 AND sender_id = $2 AND client_id = $3`
	raiseHead     = `UPDATE conversations SET last_seq = $2 WHERE id = $1`
	insertMention = `INSERT INTO mentions (conversation_id, user_id, seq, sender_id) VALUES ($1, $2, $3, $4)`
	insertEvent   = `INSERT INTO events (conversation_id, seq, sender_id, client_id, kind, about, created_at, payload)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
)

// insert appends the batch by statements in a transaction that has the database for itself.
func (b *batch) insert(ctx context.Context, q runner) error {
	type head struct {
		found         bool
		last, version int64
		raised        bool
	}
	heads := make([]head, len(b.keys))
	for k := range b.keys {
		h := &heads[k]
		var err error
		if h.found, err = one(ctx, q, []any{&h.last, &h.version}, selectHead, b.keys[k][:]); err != nil {
			return err
		}
	}
	mention := 0
	for i := range b.pos {
		k := b.pos[i] - 1
		h, id := &heads[k], b.keys[k][:]
		if !h.found {
			b.results[i].Status = domain.Missing
			continue
		}
		var seq int64
		known, err := one(ctx, q, []any{&seq}, selectClient, id, b.senders[i], b.clients[i])
		switch {
		case err != nil:
			return err
		case known:
			b.results[i] = domain.Placement{Status: domain.Known, Seq: domain.Seq(seq)}
			continue
		case h.version != b.versions[i]:
			b.results[i].Status = domain.Stale
			continue
		}
		h.last++
		h.raised = true
		if _, err := q.exec(ctx, insertEvent, id, h.last, b.senders[i], b.clients[i], int64(b.kinds[i]), nil, b.times[i],
			b.payloads[i]); err != nil {
			return err
		}
		b.results[i] = domain.Placement{Status: domain.Stored, Seq: domain.Seq(h.last)}
		for ; mention < len(b.mentions.drafts) && int(b.mentions.drafts[mention]) <= i+1; mention++ {
			if int(b.mentions.drafts[mention]) <= i {
				continue // of a draft that is not stored
			}
			if _, err := q.exec(ctx, insertMention, id, b.mentions.users[mention], h.last, b.senders[i]); err != nil {
				return err
			}
		}
	}
	for k := range heads {
		if heads[k].raised {
			if _, err := q.exec(ctx, raiseHead, b.keys[k][:], heads[k].last); err != nil {
				return err
			}
		}
	}
	return nil
}
