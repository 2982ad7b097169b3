package persistence

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

// announcementTexts are the statements about announcements that differ between the dialects.
type announcementTexts struct {
	addRecipients string
	markSome      string
}

func newAnnouncementTexts(d *dialect) announcementTexts {
	list := `SELECT value, $1 FROM json_each($2)`
	if d.sets {
		list = `SELECT user_id, $1::bigint FROM unnest($2::bigint[]) t (user_id)`
	}
	return announcementTexts{
		addRecipients: `INSERT INTO announced (user_id, number) ` + list,
		markSome: `UPDATE announced SET read_at = $2 WHERE user_id = $1 AND read_at IS NULL AND number IN (
			SELECT r.number FROM announced r JOIN announcements a ON a.number = r.number
			WHERE r.user_id = $1 AND r.read_at IS NULL AND ` + d.amongIDs("a.id", "$3") + `)`,
	}
}

const (
	insertAnnouncement = `INSERT INTO announcements (id, root_id, sender_id, client_id, payload, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (sender_id, client_id) DO NOTHING RETURNING number`
	selectAnnouncementOf = `SELECT number, id, payload, created_at, expires_at, NULL FROM announcements
		WHERE sender_id = $1 AND client_id = $2`
	markAll = `UPDATE announced SET read_at = $2 WHERE user_id = $1 AND read_at IS NULL`
)

// announce stores what a decision announces, and for whom. key stands in for a client id that is missing. What the sender
// announced under that before is given instead, and nobody is told again, unless it is this very one.
func (s *Store) announce(ctx context.Context, q runner, d *domain.Decision, key string) error {
	a := d.Announcement
	if a == nil {
		return nil
	}
	key = a.Key(key)
	payload, err := a.MarshalStored()
	if err != nil {
		return err
	}
	var number int64
	fresh, err := one(ctx, q, []any{&number}, insertAnnouncement, a.ID[:], int64(a.Root), int64(a.By), key, payload, a.Time, a.Expires)
	if err != nil {
		return err
	}
	if fresh {
		users := make([]int64, len(a.Recipients))
		for i, id := range a.Recipients {
			users[i] = int64(id)
		}
		slices.Sort(users)
		_, err = q.exec(ctx, s.text.announcements.addRecipients, number, s.d.numbers(users))
		return err
	}
	list, err := scanAnnouncements(ctx, q, selectAnnouncementOf, int64(a.By), key)
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return fmt.Errorf("announcement %q of sender %d is gone", key, a.By)
	case list[0].ID == a.ID:
		return nil // the outcome of an earlier attempt was unknown
	}
	d.Result.Announcement, d.Result.Duplicate, d.Notices = &list[0], true, nil
	return nil
}

const (
	selectAnnouncement = `SELECT number, payload, created_at, expires_at, root_id FROM announcements WHERE id = $1`
	selectAnnounced    = `SELECT user_id FROM announced WHERE number = $1 ORDER BY user_id`
	dropAnnouncement   = `UPDATE announcements SET payload = $2, removed = true WHERE number = $1`
)

// announcement reads one with its recipients; nil: there is none.
func (s *Store) announcement(ctx context.Context, q runner, id domain.AnnouncementID) (*domain.Announcement, error) {
	var a domain.Announcement
	var payload []byte
	var root int64
	found, err := one(ctx, q, []any{&a.Number, &payload, &a.Time, &a.Expires, &root}, selectAnnouncement, id[:])
	if err != nil || !found {
		return nil, err
	}
	if err := a.UnmarshalStored(payload); err != nil {
		return nil, fmt.Errorf("announcement %d: %w", a.Number, err)
	}
	a.ID, a.Root, a.Size = id, domain.AccountID(root), len(payload)
	err = each(ctx, q, func(rows *sqlx.Rows) error {
		var user int64
		if err := rows.Scan(&user); err != nil {
			return err
		}
		a.Recipients = append(a.Recipients, domain.UserID(user))
		return nil
	}, selectAnnounced, a.Number)
	return &a, err
}

// removeAnnouncement writes what remains of an announcement; nil: nothing is removed. Its recipients are kept as long as it
// would have been: a repetition tells them as well.
func (s *Store) removeAnnouncement(ctx context.Context, q runner, a *domain.Announcement) error {
	if a == nil {
		return nil
	}
	payload, err := a.MarshalStored()
	if err != nil {
		return err
	}
	_, err = q.exec(ctx, dropAnnouncement, a.Number, payload)
	return err
}

// markAnnouncements writes which announcements a user has read.
func (s *Store) markAnnouncements(ctx context.Context, q runner, m *domain.AnnouncementMark) error {
	if len(m.IDs) == 0 {
		_, err := q.exec(ctx, markAll, int64(m.User), m.Time)
		return err
	}
	ids := make([]domain.ConversationID, len(m.IDs))
	for i, id := range m.IDs {
		ids[i] = domain.ConversationID(id)
	}
	_, err := q.exec(ctx, s.text.announcements.markSome, int64(m.User), m.Time, s.d.ids(ids))
	return err
}

const (
	announcementsOf = `SELECT a.number, a.id, a.payload, a.created_at, a.expires_at, r.read_at
		FROM announced r JOIN announcements a ON a.number = r.number
		WHERE r.user_id = $1 AND r.number < $2 AND NOT a.removed`
	selectAnnouncements       = announcementsOf + ` ORDER BY r.number DESC LIMIT $3`
	selectUnreadAnnouncements = announcementsOf + ` AND r.read_at IS NULL ORDER BY r.number DESC LIMIT $3`
)

// announcements gives a page of a user's announcements, the newest first.
func (s *Store) announcements(
	ctx context.Context, q runner, user domain.UserID, query *domain.AnnouncementQuery,
) ([]domain.Announcement, error) {
	text := selectAnnouncements
	if query.Unread {
		text = selectUnreadAnnouncements
	}
	before := query.Before
	if before == 0 {
		before = math.MaxInt64
	}
	return scanAnnouncements(ctx, q, text, int64(user), before, int64(query.Limit))
}

func scanAnnouncements(ctx context.Context, q runner, text string, args ...any) ([]domain.Announcement, error) {
	var list []domain.Announcement
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var a domain.Announcement
		var id uuid
		var payload []byte
		var read *int64
		if err := rows.Scan(&a.Number, &id, &payload, &a.Time, &a.Expires, &read); err != nil {
			return err
		}
		if err := a.UnmarshalStored(payload); err != nil {
			return fmt.Errorf("announcement %d: %w", a.Number, err)
		}
		a.ID, a.Read, a.Size = domain.AnnouncementID(id), read != nil, len(payload)
		list = append(list, a)
		return nil
	}, text, args...)
	return list, err
}
