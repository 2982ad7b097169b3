package persistence

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

const (
	selectKeys = `SELECT id, private_key, created_at, ends_at FROM signing_keys ORDER BY created_at, id`
	insertKey  = `INSERT INTO signing_keys (id, private_key, created_at, ends_at) VALUES ($1, $2, $3, $4)`
)

// SigningKeys gives all keys, the oldest first, those that have ended but were not cleaned up included.
func (s *Store) SigningKeys(ctx context.Context) ([]domain.SigningKey, error) {
	var keys []domain.SigningKey
	err := s.read(func(q runner) error {
		keys = nil
		return each(ctx, q, func(rows *sqlx.Rows) error {
			var k domain.SigningKey
			if err := rows.Scan(&k.ID, &k.Private, &k.Created, &k.Ends); err != nil {
				return err
			}
			keys = append(keys, k)
			return nil
		}, selectKeys)
	})
	return keys, err
}

// AddSigningKey adds a key. An id that exists is already-exists.
func (s *Store) AddSigningKey(ctx context.Context, k domain.SigningKey) error {
	return s.write(ctx, func(q runner) error {
		n, err := q.exec(ctx, insertKey+" ON CONFLICT (id) DO NOTHING", k.ID, k.Private, k.Created, k.Ends)
		if err == nil && n == 0 {
			return domain.Errorf(domain.AlreadyExists, "there is a signing key %q already", k.ID)
		}
		return err
	})
}

const (
	insertFamily  = `INSERT INTO token_families (id, user_id, expires_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`
	insertRefresh = `INSERT INTO refresh_tokens (hash, family_id, expires_at) VALUES ($1, $2, $3)`
	selectRefresh = `SELECT t.family_id, t.used, t.expires_at, f.user_id, f.revoked
		FROM refresh_tokens t JOIN token_families f ON f.id = t.family_id WHERE t.hash = $1`
	selectSpare = `SELECT id, revoked FROM token_families WHERE user_id = $1 AND id <> $2
		ORDER BY revoked, expires_at DESC, id LIMIT 100 OFFSET $3`
	deleteRefresh = `DELETE FROM refresh_tokens WHERE family_id = $1`
	deleteFamily  = `DELETE FROM token_families WHERE id = $1`
	// Used tokens are kept to recognise thieves by, but not without end.
	forgetUsed = `DELETE FROM refresh_tokens WHERE hash IN
		(SELECT hash FROM refresh_tokens WHERE family_id = $1 AND used ORDER BY expires_at DESC, hash LIMIT 100 OFFSET $2)`
	markUsed     = `UPDATE refresh_tokens SET used = true WHERE hash = $1`
	extendFamily = `UPDATE token_families SET expires_at = $2 WHERE id = $1 AND expires_at < $2`
	revokeFamily = `UPDATE token_families SET revoked = true WHERE id = $1`
	revokeAll    = `UPDATE token_families SET revoked = true WHERE user_id = $1 AND NOT revoked`
	endAccess    = `UPDATE users SET tokens_from = $2 WHERE id = $1 AND tokens_from < $2`
)

// StartFamily stores the first refresh token of a login. If the user has more than most logins then, those that have ended are
// forgotten, and next those end that were begun or refreshed least recently; 0: there may be any number. A family that exists
// is already-exists.
func (s *Store) StartFamily(ctx context.Context, t domain.RefreshToken, most int) error {
	return s.write(ctx, func(q runner) error {
		n, err := q.exec(ctx, insertFamily, t.Family[:], int64(t.User), t.Expires)
		if err != nil {
			return err
		}
		if n == 0 {
			return domain.Errorf(domain.AlreadyExists, "the login is stored already")
		}
		if _, err = q.exec(ctx, insertRefresh, t.Hash[:], t.Family[:], t.Expires); err != nil || most < 1 {
			return err
		}
		return s.endSpare(ctx, q, t, most)
	})
}

// endSpare ends logins of a user until there are no more than most, the one that has just begun included.
func (s *Store) endSpare(ctx context.Context, q runner, begun domain.RefreshToken, most int) error {
	var spare []uuid
	lives := false
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var id uuid
		var revoked bool
		if err := rows.Scan(&id, &revoked); err != nil {
			return err
		}
		spare, lives = append(spare, id), lives || !revoked
		return nil
	}, selectSpare, int64(begun.User), begun.Family[:], int64(most-1))
	if err != nil {
		return err
	}
	// In this order, and tokens before their family, whoever else may lock some of them.
	slices.SortFunc(spare, func(a, b uuid) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range spare {
		for _, text := range [...]string{deleteRefresh, deleteFamily} {
			if _, err := q.exec(ctx, text, id[:]); err != nil {
				return err
			}
		}
	}
	if !lives {
		return nil
	}
	return noteEnded(ctx, q, domain.Ending{User: begun.User})
}

// usedKept is how many used tokens of a login are remembered. Of those that are older, whoever calls Refresh has to know the login
// from the token itself.
const usedKept = 100

// Refresh exchanges a token that was not used yet: it marks it as used, stores next in its family, and gives next back
// with Family and User filled in. Any other token is not-authenticated; one that was used before revokes its family, for
// then two parties have it, and Family and User come with the error. now is in milliseconds since 1970.
//
// After an error that is unavailable the exchange may have happened; the user must log in again.
func (s *Store) Refresh(ctx context.Context, hash [32]byte, now int64, next domain.RefreshToken) (domain.RefreshToken, error) {
	var refused error
	var reused domain.RefreshToken
	err := s.write(ctx, func(q runner) error {
		var family uuid
		var user, expires int64
		var used, revoked bool
		refused, reused = nil, domain.RefreshToken{}
		found, err := one(ctx, q, []any{&family, &used, &expires, &user, &revoked}, selectRefresh+s.d.lock, hash[:])
		switch {
		case err != nil:
			return err
		case !found || revoked:
			refused = domain.Errorf(domain.NotAuthenticated, "the refresh token is not valid")
			return nil
		case used:
			// Committed, although the caller is refused.
			refused = domain.Errorf(domain.NotAuthenticated, "the refresh token was used before; the login has ended")
			reused = domain.RefreshToken{Family: family, User: domain.UserID(user)}
			return endFamily(ctx, q, family)
		case expires <= now:
			refused = domain.Errorf(domain.NotAuthenticated, "the refresh token has expired")
			return nil
		}
		next.Family, next.User = family, domain.UserID(user)
		if _, err = q.exec(ctx, markUsed, hash[:]); err != nil {
			return err
		}
		if _, err = q.exec(ctx, insertRefresh, next.Hash[:], family[:], next.Expires); err != nil {
			return err
		}
		if _, err = q.exec(ctx, forgetUsed, family[:], int64(usedKept)); err != nil {
			return err
		}
		_, err = q.exec(ctx, extendFamily, family[:], next.Expires)
		return err
	})
	switch {
	case err != nil:
		return domain.RefreshToken{}, err
	case refused != nil:
		return reused, refused
	}
	return next, nil
}

// RevokeFamily ends a login: none of its tokens is good any more. An unknown family is nothing to do.
func (s *Store) RevokeFamily(ctx context.Context, family [16]byte) error {
	return s.write(ctx, func(q runner) error {
		return endFamily(ctx, q, family)
	})
}

func endFamily(ctx context.Context, q runner, family [16]byte) error {
	if _, err := q.exec(ctx, revokeFamily, family[:]); err != nil {
		return err
	}
	_, err := q.exec(ctx, noteFamily, family[:], time.Now().UnixMilli())
	return err
}

// RevokeUser ends all logins that a user has, and makes access tokens issued up to now (milliseconds since 1970)
// worthless.
func (s *Store) RevokeUser(ctx context.Context, id domain.UserID, now int64) error {
	return s.write(ctx, func(q runner) error {
		if _, err := q.exec(ctx, endAccess, int64(id), now); err != nil {
			return err
		}
		if _, err := q.exec(ctx, revokeAll, int64(id)); err != nil {
			return err
		}
		return noteEnded(ctx, q, domain.Ending{User: id})
	})
}
