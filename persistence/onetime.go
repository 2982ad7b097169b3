package persistence

import (
	"context"

	"github.com/parley-im/parley/domain"
)

const (
	insertSecret = `INSERT INTO one_time_secrets (user_id, secret) VALUES ($1, $2) ON CONFLICT (user_id) DO NOTHING`
	selectSecret = `SELECT secret FROM one_time_secrets WHERE user_id = $1`
	deleteSecret = `DELETE FROM one_time_secrets WHERE user_id = $1`
	insertUsed   = `INSERT INTO used_keys (hash, expires_at) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING`
)

// OneTimeSecret gives what hashes of a user's one-time keys are keyed with, and makes it fresh if there is none. Errors:
// user-not-found (also if the user was deleted), unavailable, internal.
func (s *Store) OneTimeSecret(ctx context.Context, id domain.UserID, fresh string) (string, error) {
	var secret string
	err := s.write(ctx, func(q runner) error {
		var deleted bool
		found, err := one(ctx, q, []any{&deleted}, lockUser+s.d.lock, int64(id))
		if err != nil {
			return err
		}
		if !found || deleted {
			return domain.Errorf(domain.UserNotFound, "no user %d", id)
		}
		if _, err := q.exec(ctx, insertSecret, int64(id), fresh); err != nil {
			return err
		}
		_, err = one(ctx, q, []any{&secret}, selectSecret, int64(id))
		return err
	})
	return secret, err
}

// ForgetOneTimeSecret makes a user's secret worthless; the next one is another. A user without one is nothing to do.
func (s *Store) ForgetOneTimeSecret(ctx context.Context, id domain.UserID) error {
	return s.write(ctx, func(q runner) error {
		_, err := q.exec(ctx, deleteSecret, int64(id))
		return err
	})
}

// UseKey notes that somebody logs in with a one-time key, until it expires (milliseconds since 1970). One that was used
// before is not-authenticated: of several who come with it at once, one gets through.
//
// After an error that is unavailable the key may have been used.
func (s *Store) UseKey(ctx context.Context, hash [32]byte, expires int64) error {
	var used bool
	err := s.write(ctx, func(q runner) error {
		n, err := q.exec(ctx, insertUsed, hash[:], expires)
		used = n == 0
		return err
	})
	if err == nil && used {
		return domain.Errorf(domain.NotAuthenticated, "the one-time key was used before")
	}
	return err
}
