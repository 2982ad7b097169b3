package persistence

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// The upper bound is what makes the database walk the index instead of collecting and sorting all that follows.
const selectEvents = `SELECT seq, sender_id, client_id, payload FROM events
	WHERE conversation_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq`

const selectMessage = `SELECT seq, sender_id, client_id, payload FROM events
	WHERE conversation_id = $1 AND seq = $2 AND kind = 4`

// Events gives the events of a conversation with after < seq <= upto in order: fewer, where there are fewer, and none
// for a conversation that does not exist. The caller bounds the range. Errors are unavailable or internal.
func (s *Store) Events(ctx context.Context, c domain.ConversationID, after, upto domain.Seq) ([]*domain.Event, error) {
	if upto <= after {
		return nil, nil
	}
	var list []*domain.Event
	err := s.read(func(q runner) error {
		var err error
		list, err = s.events(ctx, q, c, after, upto)
		return err
	})
	return list, err
}

func (s *Store) events(ctx context.Context, q runner, c domain.ConversationID, after, upto domain.Seq) ([]*domain.Event, error) {
	return scanEvents(ctx, q, c, selectEvents, c[:], int64(after), int64(upto))
}

// message reads the sendMessage event of a number; nil: there is none.
func (s *Store) message(ctx context.Context, q runner, c domain.ConversationID, seq domain.Seq) (*domain.Event, error) {
	list, err := scanEvents(ctx, q, c, selectMessage, c[:], int64(seq))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

func scanEvents(ctx context.Context, q runner, c domain.ConversationID, text string, args ...any) ([]*domain.Event, error) {
	var list []*domain.Event
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var seq, sender int64
		var client sql.NullString
		var payload sql.RawBytes
		if err := rows.Scan(&seq, &sender, &client, &payload); err != nil {
			return err
		}
		e, err := domain.UnmarshalStored(c, domain.Seq(seq), payload)
		if err != nil {
			return fmt.Errorf("event %d of conversation %s: %w", seq, c, err)
		}
		e.Sender, e.ClientID = domain.SenderID(sender), client.String
		list = append(list, e)
		return nil
	}, text, args...)
	return list, err
}

// Heads reads what the needs of a command name, without locks, and as one consistent state per conversation. Now, NewID
// and Limits are left to the caller. Errors are unavailable or internal.
func (s *Store) Heads(ctx context.Context, p domain.Principal, needs domain.Needs) (*domain.Heads, error) {
	var h *domain.Heads
	var l *loaded
	err := s.read(func(q runner) error {
		var err error
		h, l, err = s.heads(ctx, q, p, needs)
		return err
	})
	if err == nil && len(l.counted) > 0 {
		s.keep(ctx, p.User, l.counted)
	}
	return h, err
}
