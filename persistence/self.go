package persistence

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/parley-im/parley/domain"
)

const updateSelf = `UPDATE users SET custom_data = $2, private_custom_data = $3, notifications = $4 WHERE id = $1 AND NOT deleted`

// writeSelf writes what a decision says about the principal itself, whose record is locked.
func (s *Store) writeSelf(ctx context.Context, q runner, d *domain.Decision) error {
	if d.Watch != nil {
		if err := s.writeWatch(ctx, q, d.Watch); err != nil {
			return err
		}
	}
	if d.AnnouncementsRead != nil {
		if err := s.markAnnouncements(ctx, q, d.AnnouncementsRead); err != nil {
			return err
		}
	}
	u := d.Self
	if u == nil {
		return nil
	}
	if u.Own == nil {
		return errors.New("a decision rewrites a user's record without its private part")
	}
	list, err := json.Marshal(append([]string{}, u.Notifications...))
	if err != nil {
		return err
	}
	_, err = q.exec(ctx, updateSelf, int64(u.ID), orNull(u.CustomData), orNull(u.PrivateCustomData), string(list))
	return err
}
