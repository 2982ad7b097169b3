package persistence

import (
	"context"

	"github.com/parley-im/parley/domain"
)

const (
	updateSettings = `UPDATE accounts SET edit_messages = COALESCE(CAST($2 AS bigint), edit_messages),
		remove_messages = COALESCE(CAST($3 AS bigint), remove_messages) WHERE name = $1`
	selectSettings = selectAccounts + ` WHERE a.id = $1`
)

// Account gives an account. Errors: not-found, unavailable, internal.
func (s *Store) Account(ctx context.Context, name string) (domain.Account, error) {
	var a domain.Account
	err := s.read(func(q runner) (err error) {
		a, err = account(ctx, q, name)
		return err
	})
	return a, err
}

// EditSettings changes the settings of an account, and gives it. Errors: not-found, unavailable, internal.
func (s *Store) EditSettings(ctx context.Context, name string, e domain.SettingsEdit) (domain.Account, error) {
	var a domain.Account
	err := s.write(ctx, func(q runner) error {
		if _, err := q.exec(ctx, updateSettings, name, switchOrNull(e.EditMessages), switchOrNull(e.RemoveMessages)); err != nil {
			return err
		}
		var err error
		a, err = account(ctx, q, name)
		return err
	})
	return a, err
}

func switchOrNull(s *domain.Switch) any {
	if s == nil {
		return nil
	}
	return int64(*s)
}

// settings reads those in effect for an account.
func (s *Store) settings(ctx context.Context, q runner, id domain.AccountID) (domain.AccountSettings, error) {
	list, err := scanAccounts(ctx, q, selectSettings, int64(id))
	if err != nil || len(list) == 0 {
		return domain.AccountSettings{}, err
	}
	return list[0].Effective, nil
}
