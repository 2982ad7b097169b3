package persistence

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/parley-im/parley/domain"
)

const insertUser = `INSERT INTO users (username, application_id, display_name, search_name, custom_data, password_hash, created_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (username) DO NOTHING`

// CreateUser creates a user, and with MakeAccount a missing account and application. The name of a user that was deleted
// stays taken. Errors: invalid-request, not-found (the account or application), already-exists, unavailable, internal.
func (s *Store) CreateUser(ctx context.Context, n domain.NewUser) (domain.User, error) {
	var u domain.User
	err := s.write(ctx, func(q runner) error {
		name, err := domain.ParseUsername(string(n.Username))
		if err != nil {
			return err
		}
		if err := checkText("displayName", n.DisplayName); err != nil {
			return err
		}
		_, app, acc := name.Parts()
		a, err := ensureAccount(ctx, q, acc, n.MakeAccount)
		if err != nil {
			return err
		}
		application, err := application(ctx, q, a, app, n.MakeAccount)
		if err != nil {
			return err
		}
		rows, err := q.exec(ctx, insertUser, string(name), application, n.DisplayName, strings.ToLower(n.DisplayName),
			orNull(n.CustomData), n.PasswordHash, time.Now().UnixMilli())
		if err != nil {
			return err
		}
		if rows == 0 {
			return domain.Errorf(domain.AlreadyExists, "there is a user %q already", name)
		}
		u, err = s.user(ctx, q, domain.UserRef{Username: name})
		return err
	})
	return u, err
}

// checkText refuses what a column of text cannot hold.
func checkText(field, s string) error {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return domain.Errorf(domain.InvalidRequest, "%s must be UTF-8 without NUL", field)
	}
	return nil
}

// user reads one user; user-not-found if there is none.
func (s *Store) user(ctx context.Context, q runner, ref domain.UserRef) (domain.User, error) {
	list, err := s.users(ctx, q, []domain.UserRef{ref})
	if err != nil {
		return domain.User{}, err
	}
	if len(list) == 0 {
		return domain.User{}, domain.Errorf(domain.UserNotFound, "no such user")
	}
	return list[0], nil
}

const (
	updateName   = `UPDATE users SET display_name = $2, search_name = $3 WHERE id = $1`
	updateCustom = `UPDATE users SET custom_data = $2 WHERE id = $1`
	updateHash   = `UPDATE users SET password_hash = $2 WHERE id = $1`
	lockUser     = `SELECT deleted FROM users WHERE id = $1`
)

// UpdateUser changes what the patch names. A new password does not end the logins made with the old one. Errors:
// invalid-request, user-not-found (also if the user was deleted), unavailable, internal.
func (s *Store) UpdateUser(ctx context.Context, id domain.UserID, patch domain.UserPatch) (domain.User, error) {
	var u domain.User
	err := s.write(ctx, func(q runner) error {
		var deleted bool
		found, err := one(ctx, q, []any{&deleted}, lockUser+s.d.lock, int64(id))
		if err != nil {
			return err
		}
		if !found || deleted {
			return domain.Errorf(domain.UserNotFound, "no user %d", id)
		}
		if patch.DisplayName != nil {
			if err := checkText("displayName", *patch.DisplayName); err != nil {
				return err
			}
			if _, err := q.exec(ctx, updateName, int64(id), *patch.DisplayName, strings.ToLower(*patch.DisplayName)); err != nil {
				return err
			}
		}
		if patch.CustomData != nil {
			if _, err := q.exec(ctx, updateCustom, int64(id), orNull(*patch.CustomData)); err != nil {
				return err
			}
		}
		if patch.PasswordHash != nil {
			if _, err := q.exec(ctx, updateHash, int64(id), *patch.PasswordHash); err != nil {
				return err
			}
		}
		u, err = s.user(ctx, q, domain.UserRef{UserID: id})
		return err
	})
	return u, err
}

const markDeleted = `UPDATE users SET deleted = true, password_hash = '', private_custom_data = NULL WHERE id = $1`

// DeleteUser marks a user as deleted: it keeps its number and name and what others see of it, and loses its password,
// its private data, its logins, its sessions and their wills. Deleting it again does nothing. Errors: user-not-found, unavailable, internal.
func (s *Store) DeleteUser(ctx context.Context, id domain.UserID) error {
	return s.write(ctx, func(q runner) error {
		n, err := q.exec(ctx, markDeleted, int64(id))
		if err != nil {
			return err
		}
		if n == 0 {
			return domain.Errorf(domain.UserNotFound, "no user %d", id)
		}
		for _, text := range [...]string{revokeAll, deleteSecret} {
			if _, err = q.exec(ctx, text, int64(id)); err != nil {
				return err
			}
		}
		if _, err = q.exec(ctx, `DELETE FROM announced WHERE user_id = $1`, int64(id)); err != nil {
			return err
		}
		if _, err = q.exec(ctx, deleteWatches, int64(id)); err != nil {
			return err
		}
		if err := s.removeSessionsOf(ctx, q, id); err != nil {
			return err
		}
		if _, err = q.exec(ctx, deleteWillsOf, int64(id)); err != nil {
			return err
		}
		return noteEnded(ctx, q, domain.Ending{User: id})
	})
}

// FindUsers gives those of the users that exist, deleted ones included, each once and in the order of their numbers.
func (s *Store) FindUsers(ctx context.Context, refs []domain.UserRef) ([]domain.User, error) {
	var list []domain.User
	err := s.read(func(q runner) error {
		var err error
		list, err = s.users(ctx, q, refs)
		return err
	})
	return list, err
}

const searchUsers = selectUser + ` WHERE u.id > $1 AND NOT u.deleted
	AND (CAST($2 AS bigint) = 0 OR COALESCE(a.parent_id, a.id) = CAST($2 AS bigint))
	AND (CAST($3 AS text) = '' OR p.name = CAST($3 AS text))
	AND (CAST($4 AS text) = '' OR a.name = CAST($4 AS text))
	AND (CAST($5 AS text) = '' OR u.username LIKE CAST($5 AS text) || '%' ESCAPE '!'
		OR u.search_name LIKE '%' || CAST($5 AS text) || '%' ESCAPE '!')
	ORDER BY u.id LIMIT $6`

// SearchUsers gives a page of the directory, without the users that were deleted. A limit of less than 1 gives nothing.
func (s *Store) SearchUsers(ctx context.Context, query domain.UserQuery) ([]domain.User, error) {
	if query.Limit < 1 {
		return nil, nil
	}
	if !utf8.ValidString(query.Text) || strings.ContainsRune(query.Text, 0) {
		return nil, nil // Nobody is called that.
	}
	text := strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(strings.ToLower(query.Text))
	var list []domain.User
	err := s.read(func(q runner) error {
		var err error
		list, err = scanUsers(ctx, q, searchUsers, int64(query.After), int64(query.Root), query.Application, query.Account, text,
			int64(query.Limit))
		return err
	})
	return list, err
}
