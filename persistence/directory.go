package persistence

import (
	"context"
	"database/sql"

	"github.com/parley-im/parley/domain"
)

const selectLogin = `SELECT u.id, u.username, u.display_name, u.custom_data, u.deleted, u.created_at, a.id AS account_id,
	COALESCE(a.parent_id, a.id) AS root_id, u.password_hash, u.tokens_from, COALESCE(o.secret, '')
	FROM users u JOIN applications p ON p.id = u.application_id JOIN accounts a ON a.id = p.account_id
	LEFT JOIN one_time_secrets o ON o.user_id = u.id WHERE u.username = $1`

// Credential gives what a login is checked against. A user that was deleted has no password or secret any more, and is
// marked as deleted. Errors: user-not-found, unavailable, internal.
func (s *Store) Credential(ctx context.Context, name domain.Username) (domain.Credential, error) {
	var c domain.Credential
	err := s.read(func(q runner) error {
		var r userRow
		found, err := one(ctx, q, []any{
			&r.ID, &r.Username, &r.DisplayName, &r.CustomData, &r.Deleted, &r.CreatedAt, &r.AccountID, &r.RootID, &c.PasswordHash, &c.TokensFrom, &c.OneTimeSecret,
		}, selectLogin, string(name))
		if err == nil && !found {
			return domain.Errorf(domain.UserNotFound, "no user %q", name)
		}
		c.User = r.user()
		return err
	})
	if err != nil {
		return domain.Credential{}, err
	}
	return c, nil
}

const selectAccess = `SELECT u.id, u.username, u.display_name, u.custom_data, u.deleted, u.created_at, a.id AS account_id,
	COALESCE(a.parent_id, a.id) AS root_id, u.tokens_from, f.revoked
	FROM users u JOIN applications p ON p.id = u.application_id JOIN accounts a ON a.id = p.account_id
	LEFT JOIN token_families f ON f.id = $2 AND f.user_id = u.id
	WHERE u.id = $1`

// TokenUser gives a user, and whether an access token that was issued to it at the time (milliseconds since 1970) is
// still good: the user is there, its tokens of that time were not revoked, and the login that the token belongs to is
// known and not revoked. A zero family is no login, only the time counts then. Errors: user-not-found, unavailable,
// internal.
func (s *Store) TokenUser(ctx context.Context, id domain.UserID, family [16]byte, issued int64) (u domain.User, good bool, err error) {
	err = s.read(func(q runner) error {
		var r userRow
		var from int64
		var revoked sql.NullBool
		found, err := one(ctx, q, []any{
			&r.ID, &r.Username, &r.DisplayName, &r.CustomData, &r.Deleted, &r.CreatedAt, &r.AccountID, &r.RootID, &from, &revoked,
		}, selectAccess, int64(id), family[:])
		if err == nil && !found {
			return domain.Errorf(domain.UserNotFound, "no user %d", id)
		}
		u = r.user()
		live := family == [16]byte{} || (revoked.Valid && !revoked.Bool)
		good = !r.Deleted && issued > from && live
		return err
	})
	if err != nil {
		return domain.User{}, false, err
	}
	return u, good, nil
}

const selectService = `SELECT s.id, s.name, s.account_id, a.name, COALESCE(a.parent_id, a.id), s.key_hash, s.created_at
	FROM services s JOIN accounts a ON a.id = s.account_id`

// ServiceByKey gives the service whose API key has the SHA-256 digest. Errors: not-found, unavailable, internal.
func (s *Store) ServiceByKey(ctx context.Context, keyHash [32]byte) (domain.Service, error) {
	var list []domain.Service
	err := s.read(func(q runner) error {
		var err error
		list, err = scanServices(ctx, q, selectService+" WHERE s.key_hash = $1", keyHash[:])
		if err == nil && len(list) == 0 {
			return domain.Errorf(domain.NotFound, "no service has this key")
		}
		return err
	})
	if err != nil {
		return domain.Service{}, err
	}
	return list[0], nil
}
