package persistence

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// The states in the column scheduled.state; what is pending is being sent once taken_until is set.
const (
	scheduledPending = iota
	scheduledSent
	scheduledRefused
	scheduledCancelled
)

const (
	scheduledColumns = `id, root_id, account_id, service_id, service_name, user_id, username, conversation_id, client_id, due_at,
		created_at, state, taken_until, outcome`
	selectScheduled = `SELECT ` + scheduledColumns + `, body FROM scheduled WHERE id = $1`
	insertScheduled = `INSERT INTO scheduled (id, root_id, account_id, service_id, service_name, user_id, username, conversation_id,
		client_id, due_at, created_at, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (id) DO NOTHING`
	countScheduled = `SELECT count(*) FROM (SELECT 1 FROM scheduled WHERE account_id = $1 AND state = 0 LIMIT $2) x`
)

// Schedule stores what is to be sent later, unless there is one of its id: then it gives that, and whether it did. External
// content that the message names is held until then. most bounds what may be pending of one account; 0: nothing does. Errors are
// rate-limited (too many), not-found (content that is gone), unavailable, internal.
func (s *Store) Schedule(
	ctx context.Context, n domain.Scheduled, p domain.Principal, external []domain.ContentID, most int,
) (stored domain.Scheduled, existing bool, err error) {
	err = s.write(ctx, func(q runner) error {
		stored, existing = n, false
		var locked, pending int64
		if _, err := one(ctx, q, []any{&locked}, lockAccount+s.d.lockWeakly, int64(n.Account)); err != nil {
			return err
		}
		if _, err := one(ctx, q, []any{&pending}, countScheduled, int64(n.Account), int64(max(most, 1))); err != nil {
			return err
		}
		var conversation any
		if n.Conversation != nil {
			conversation = n.Conversation[:]
		}
		rows, err := q.exec(ctx, insertScheduled, n.ID[:], int64(n.Root), int64(n.Account), int64(n.Service), n.ServiceName,
			int64(n.User), string(n.Username), conversation, n.ClientID, n.At, n.Created, n.Body)
		switch {
		case err != nil:
			return err
		case rows == 0:
			existing = true
			stored, _, err = scheduled(ctx, q, n.ID)
			return err
		case most > 0 && pending >= int64(most):
			return domain.Errorf(domain.RateLimited, "%d messages of the account are scheduled already", most)
		}
		return s.holdContent(ctx, q, &n, p, external)
	})
	return stored, existing, err
}

// holdContent claims external content for a message that will be stored when it is due.
func (s *Store) holdContent(ctx context.Context, q runner, n *domain.Scheduled, p domain.Principal, ids []domain.ContentID) error {
	if len(ids) == 0 || n.Conversation == nil {
		return nil
	}
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(id)
	}
	slices.Sort(texts)
	if err := s.lockContents(ctx, q, slices.Compact(texts)); err != nil {
		return err
	}
	claim := &domain.ContentClaim{Principal: p, Conversation: *n.Conversation, ClientID: n.ClientID, External: ids}
	answer, err := s.claim(ctx, q, claim, n.At)
	if err != nil || answer.Known {
		return err
	}
	for i := range answer.External {
		if !answer.External[i].Readable || !answer.External[i].Complete {
			return domain.Errorf(domain.NotFound, "there is no such content")
		}
	}
	if len(answer.External) != len(texts) {
		return domain.Errorf(domain.NotFound, "there is no such content")
	}
	return nil
}

// Scheduled gives what was scheduled under an id; not-found if nothing was, or it is forgotten.
func (s *Store) Scheduled(ctx context.Context, id domain.ScheduledID) (domain.Scheduled, error) {
	var n domain.Scheduled
	err := s.read(func(q runner) error {
		var found bool
		var err error
		if n, found, err = scheduled(ctx, q, id); err == nil && !found {
			err = domain.Errorf(domain.NotFound, "nothing of that id is scheduled")
		}
		return err
	})
	return n, err
}

func scheduled(ctx context.Context, q runner, id domain.ScheduledID) (n domain.Scheduled, found bool, err error) {
	err = each(ctx, q, func(rows *sqlx.Rows) error {
		found = true
		return scanScheduled(rows, &n, &n.Body)
	}, selectScheduled, id[:])
	return n, found, err
}

// scanScheduled reads scheduledColumns, and those that follow them into more.
func scanScheduled(rows *sqlx.Rows, n *domain.Scheduled, more ...any) error {
	var id uuid
	var conversation *uuid
	var state int
	var taken *int64
	var outcome []byte
	dest := []any{
		&id, &n.Root, &n.Account, &n.Service, &n.ServiceName, &n.User, &n.Username, &conversation, &n.ClientID, &n.At,
		&n.Created, &state, &taken, &outcome,
	}
	if err := rows.Scan(append(dest, more...)...); err != nil {
		return err
	}
	n.ID = domain.ScheduledID(id)
	if conversation != nil {
		c := domain.ConversationID(*conversation)
		n.Conversation = &c
	}
	n.Sender = domain.Initiator{UserID: n.User, Username: n.Username}
	if n.User == 0 {
		n.Sender = n.Principal().Initiator()
	}
	switch state {
	case scheduledSent:
		n.State = domain.ScheduledSent
	case scheduledRefused:
		n.State = domain.ScheduledRefused
	case scheduledCancelled:
		n.State = domain.ScheduledCancelled
	default:
		n.State = domain.ScheduledPending
		if taken != nil {
			n.State = domain.ScheduledSending
		}
	}
	if len(outcome) > 0 {
		n.Outcome = &domain.Outcome{}
		if err := json.Unmarshal(outcome, n.Outcome); err != nil {
			return fmt.Errorf("outcome of the scheduled %s: %w", n.ID, err)
		}
	}
	return nil
}

const (
	listScheduled = `SELECT ` + scheduledColumns + ` FROM scheduled WHERE root_id = $1 AND state = $2
		AND (root_id, state, due_at, id) > ($1, $2, $3, $4) ORDER BY root_id, state, due_at, id LIMIT $5`
	listAllScheduled = `SELECT ` + scheduledColumns + ` FROM scheduled WHERE state = $1
		AND (due_at, id) > ($2, $3) ORDER BY due_at, id LIMIT $4`
)

// ListScheduled gives a page of what was scheduled, without what is to be sent. What is being sent is among what is pending.
func (s *Store) ListScheduled(ctx context.Context, query domain.ScheduledQuery) ([]domain.Scheduled, error) {
	state := int64(scheduledPending)
	switch query.State {
	case domain.ScheduledSent:
		state = scheduledSent
	case domain.ScheduledRefused:
		state = scheduledRefused
	case domain.ScheduledCancelled:
		state = scheduledCancelled
	case domain.ScheduledPending, domain.ScheduledSending:
	}
	text, args := listScheduled, []any{int64(query.Root), state}
	if query.Root == 0 {
		text, args = listAllScheduled, []any{state}
	}
	var list []domain.Scheduled
	err := s.read(func(q runner) error {
		list = nil
		return each(ctx, q, func(rows *sqlx.Rows) error {
			var n domain.Scheduled
			err := scanScheduled(rows, &n)
			list = append(list, n)
			return err
		}, text, append(args, query.After, query.AfterID[:], int64(query.Limit))...)
	})
	return list, err
}

const (
	cancelScheduled = `UPDATE scheduled SET state = 3, finished_at = $2, outcome = $3, body = NULL
		WHERE id = $1 AND state < 1 AND taken_until IS NULL` // Asking for 0 might be taken for a hint at another index.
	releaseContent = `UPDATE content_uses SET created_at = $4
		WHERE conversation_id = $1 AND sender_id = $2 AND client_id = $3 AND NOT settled`
)

// CancelScheduled makes sure that something scheduled is not sent, and gives it as it is then: of it and [Store.TakeDue] one
// wins. It is not-found where there is nothing; what was cancelled before stays as it was. If it is too late, State tells.
func (s *Store) CancelScheduled(ctx context.Context, id domain.ScheduledID, now int64) (domain.Scheduled, error) {
	var n domain.Scheduled
	outcome, err := json.Marshal(domain.Outcome{Time: now})
	if err != nil {
		return n, err
	}
	err = s.write(ctx, func(q runner) error {
		rows, err := q.exec(ctx, cancelScheduled, id[:], now, outcome)
		if err != nil {
			return err
		}
		var found bool
		n, found, err = scheduled(ctx, q, id)
		switch {
		case err != nil:
			return err
		case !found:
			return domain.Errorf(domain.NotFound, "nothing of that id is scheduled")
		case rows == 0 || n.Conversation == nil:
			return nil
		}
		// What it named goes with the next cleaning.
		_, err = q.exec(ctx, releaseContent, n.Conversation[:], int64(n.SenderID()), n.ClientID, now)
		return err
	})
	return n, err
}

// scheduledTexts are the statements about what is to be sent later that differ between the dialects.
type scheduledTexts struct {
	alone, take, wait string
}

func newScheduledTexts(d *dialect) scheduledTexts {
	skip, alone := "", ""
	if d.lock != "" {
		skip, alone = d.lock+" SKIP LOCKED", `SELECT 1 FROM pg_advisory_xact_lock(7102530000000015)`
	}
	return scheduledTexts{
		alone: alone,
		wait:  `UPDATE scheduled SET taken_until = $2 WHERE state < 1 AND taken_until IS NOT NULL AND ` + d.amongIDs("id", "$1"),
		take: `UPDATE scheduled SET taken_until = $2 WHERE id IN (
			SELECT id FROM scheduled s WHERE state = 0 AND due_at <= $1 AND (taken_until IS NULL OR taken_until <= $1)
				AND NOT EXISTS (SELECT 1 FROM scheduled o WHERE o.conversation_id = s.conversation_id AND o.state = 0 AND o.taken_until > $1)
			ORDER BY due_at, created_at LIMIT $3` + skip + `) RETURNING ` + scheduledColumns + `, body,
			service_id = 0 OR EXISTS (SELECT 1 FROM services v WHERE v.id = service_id)`,
	}
}

// TakeDue gives what was due by now, at most limit, for the caller to send: until the other time nobody else gets it, and from
// now on nobody cancels it. While some of a conversation is held like this, nothing else of it is given, so that its order holds.
// Where Service is -1 the service is not there any more.
func (s *Store) TakeDue(ctx context.Context, now, until int64, limit int) ([]domain.Scheduled, error) {
	var list []domain.Scheduled
	err := s.write(ctx, func(q runner) error {
		list = nil
		if s.text.scheduled.alone != "" {
			// Who takes at the same time does not see yet what is held; the next statement does.
			var locked int64
			if _, err := one(ctx, q, []any{&locked}, s.text.scheduled.alone); err != nil {
				return err
			}
		}
		return each(ctx, q, func(rows *sqlx.Rows) error {
			var n domain.Scheduled
			var there bool
			err := scanScheduled(rows, &n, &n.Body, &there)
			if !there {
				n.Service = -1
			}
			list = append(list, n)
			return err
		}, s.text.scheduled.take, now, until, int64(limit))
	})
	slices.SortFunc(list, func(a, b domain.Scheduled) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Created, b.Created))
	})
	return list, err
}

const finishScheduled = `UPDATE scheduled SET state = $2, finished_at = $3, outcome = $4, body = NULL WHERE id = $1 AND state < 1`

// FinishScheduled writes what became of something that [Store.TakeDue] gave, and forgets what was to be sent.
func (s *Store) FinishScheduled(ctx context.Context, id domain.ScheduledID, o domain.Outcome) error {
	outcome, err := json.Marshal(o)
	if err != nil {
		return err
	}
	state := int64(scheduledSent)
	if o.Error != nil {
		state = scheduledRefused
	}
	return s.write(ctx, func(q runner) error {
		_, err := q.exec(ctx, finishScheduled, id[:], state, o.Time, outcome)
		return err
	})
}

// DeferScheduled lets things that [Store.TakeDue] gave be taken again from the time on.
func (s *Store) DeferScheduled(ctx context.Context, ids []domain.ScheduledID, until int64) error {
	list := make([]domain.ConversationID, len(ids))
	for i, id := range ids {
		list[i] = domain.ConversationID(id)
	}
	return s.write(ctx, func(q runner) error {
		_, err := q.exec(ctx, s.text.scheduled.wait, s.d.ids(list), until)
		return err
	})
}
