package persistence

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// place is where the first event of a committed change is.
type place struct {
	conversation domain.ConversationID
	seq          domain.Seq
}

// change works the requests of a batch off, inside a transaction.
func (s *Store) change(ctx context.Context, q runner, batch []domain.ChangeRequest) ([]domain.Changed, error) {
	if err := s.lockHeads(ctx, q, batch); err != nil {
		return nil, err
	}
	if err := s.lockSelves(ctx, q, batch); err != nil {
		return nil, err
	}
	// Only now: a request that another connection was still committing is visible once its locks are ours.
	places, err := s.known(ctx, q, batch)
	if err != nil {
		return nil, err
	}
	changed := make([]domain.Changed, len(batch))
	for i := range batch {
		r := &batch[i]
		at, known := places[r.Key]
		if known && r.Key != "" {
			changed[i], err = s.readBack(ctx, q, at)
		} else {
			changed[i], err = s.decide(ctx, q, r)
		}
		if err != nil {
			return nil, err
		}
		if events := changed[i].Decision.Events; len(events) > 0 {
			places[r.Key] = place{events[0].Conversation, events[0].Seq}
		}
	}
	return changed, nil
}

// lockHeads locks the heads of all conversations that the requests are about, in ascending order.
func (s *Store) lockHeads(ctx context.Context, q runner, batch []domain.ChangeRequest) error {
	var ids []domain.ConversationID
	for i := range batch {
		if id := batch[i].Needs.Conversation; !id.IsZero() {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 || s.d.lock == "" {
		return nil
	}
	slices.SortFunc(ids, compareIDs)
	return each(ctx, q, func(*sqlx.Rows) error { return nil }, s.text.lockHeads, s.d.ids(slices.Compact(ids)))
}

// lockSelves locks the records of the principals whose requests are about themselves, in ascending order and behind the
// heads.
func (s *Store) lockSelves(ctx context.Context, q runner, batch []domain.ChangeRequest) error {
	var users []int64
	for i := range batch {
		if n := &batch[i].Needs; n.Self && n.Conversation.IsZero() {
			users = append(users, int64(batch[i].Principal.User))
		}
	}
	if len(users) == 0 || s.d.lockWeakly == "" {
		return nil
	}
	slices.Sort(users)
	return each(ctx, q, func(*sqlx.Rows) error { return nil }, s.text.lockSelves, s.d.numbers(slices.Compact(users)))
}

// known finds those of the requests that are committed already.
func (s *Store) known(ctx context.Context, q runner, batch []domain.ChangeRequest) (map[string]place, error) {
	keys := make([]string, len(batch))
	for i := range batch {
		keys[i] = batch[i].Key
	}
	places := make(map[string]place)
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var key string
		var id uuid
		var seq int64
		if err := rows.Scan(&key, &id, &seq); err != nil {
			return err
		}
		places[key] = place{domain.ConversationID(id), domain.Seq(seq)}
		return nil
	}, s.text.changes, s.d.texts(keys))
	return places, err
}

// readBack gives a change that was committed before.
func (s *Store) readBack(ctx context.Context, q runner, at place) (domain.Changed, error) {
	var none domain.Changed
	l, err := s.conversations(ctx, q, []domain.ConversationID{at.conversation}, scope{})
	if err != nil {
		return none, err
	}
	c := l.conversations[at.conversation]
	if c == nil {
		return none, fmt.Errorf("conversation %s has events but no head", at.conversation)
	}
	const most = 100 // A change makes one event, or a few.
	list, err := s.events(ctx, q, c.ID, at.seq-1, at.seq-1+most)
	if err != nil {
		return none, err
	}
	// The further events of a change are those after its first that have no client id.
	n := 1
	for n < len(list) && list[n].ClientID == "" {
		n++
	}
	if len(list) == 0 {
		return none, fmt.Errorf("event %d of conversation %s is gone", at.seq, c.ID)
	}
	changed := domain.Changed{Decision: domain.Decision{Events: list[:n], Conversation: c, Result: domain.Result{Conversation: c}}}
	switch list[0].Type { //nolint:exhaustive // the others are told below
	case domain.EventCreateConversation:
		existing := false
		changed.Decision.Result.Existing = &existing
		return changed, nil
	case domain.EventEditMessage, domain.EventRemoveMessage:
		// The head stayed as it was, but for its last number.
		changed.Before, changed.Decision.Conversation = c, nil
		changed.Decision.Result = domain.Result{}
		if list[0].Type == domain.EventEditMessage {
			changed.Decision.Result.Message = list[0].Message
		}
		return changed, nil
	case domain.EventRemoveConversation:
		changed.Decision.Result = domain.Result{}
	}
	changed.Before, err = s.before(ctx, q, c, at.seq)
	return changed, err
}

const selectMembersAt = `SELECT m.user_id, u.username, m.from_seq FROM memberships m JOIN users u ON u.id = m.user_id
	WHERE m.conversation_id = $1 AND m.from_seq < $2 AND (m.to_seq IS NULL OR m.to_seq >= $2) ORDER BY m.from_seq, m.user_id`

// before gives a conversation as it was before the event, as far as it is still known: who took part.
func (s *Store) before(ctx context.Context, q runner, c *domain.Conversation, seq domain.Seq) (*domain.Conversation, error) {
	b := *c
	b.LastSeq, b.Participants = seq-1, []domain.Participant{}
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var user, from int64
		var name string
		if err := rows.Scan(&user, &name, &from); err != nil {
			return err
		}
		part, ok := c.Participant(domain.UserID(user))
		if !ok {
			part = domain.Participant{UserID: domain.UserID(user), Username: domain.Username(name)}
		}
		part.JoinedSeq = domain.Seq(from)
		b.Participants = append(b.Participants, part)
		return nil
	}, selectMembersAt, c.ID[:], int64(seq))
	return &b, err
}

// decide runs the decision of a request and writes what it came to. Its error is one of the store; a refusal is in what
// it returns.
func (s *Store) decide(ctx context.Context, q runner, r *domain.ChangeRequest) (domain.Changed, error) {
	h, l, err := s.heads(ctx, q, r.Principal, r.Needs)
	if err != nil {
		return domain.Changed{}, err
	}
	before := h.Conversation
	const attempts = 5
	for n := 1; ; n++ {
		d, err := r.Decide(h)
		if err != nil {
			return domain.Changed{Err: err}, nil //nolint:nilerr // A refusal is an outcome, not a failure.
		}
		w := &writing{s: s, q: q, key: r.Key, before: before, after: d.Conversation, d: &d}
		if before != nil {
			w.positions = l.positions[before.ID]
		}
		if err := w.check(); err != nil {
			s.logger.Error("a decision cannot be stored", "err", err)
			return domain.Changed{Err: domain.Because(domain.Internal, err, "something went wrong inside Parley")}, nil
		}
		taken, err := w.write(ctx)
		if err != nil {
			return domain.Changed{}, err
		}
		if !taken {
			if err := s.writeSelf(ctx, q, &d); err != nil {
				return domain.Changed{}, err
			}
			if err := s.announce(ctx, q, &d, r.Key); err != nil {
				return domain.Changed{}, err
			}
			if err := s.removeAnnouncement(ctx, q, d.AnnouncementRemoved); err != nil {
				return domain.Changed{}, err
			}
			return domain.Changed{Decision: d, Before: before}, nil
		}
		// Who has the key may lose it before it is read: then it is free.
		if h.Existing, err = s.holder(ctx, q, d.Conversation.UniqueKey); err != nil {
			return domain.Changed{}, err
		}
		if n == attempts {
			return domain.Changed{}, fmt.Errorf("no decision after %d attempts for the unique key of a conversation", n)
		}
	}
}

const selectHolder = `SELECT id FROM conversation_data WHERE unique_key = $1`

// holder reads the conversation that has a unique key; nil: none has it.
func (s *Store) holder(ctx context.Context, q runner, key string) (*domain.Conversation, error) {
	var id uuid
	found, err := one(ctx, q, []any{&id}, selectHolder, key)
	if err != nil || !found {
		return nil, err
	}
	l, err := s.conversations(ctx, q, []domain.ConversationID{domain.ConversationID(id)}, scope{})
	if err != nil {
		return nil, err
	}
	return l.conversations[domain.ConversationID(id)], nil
}
