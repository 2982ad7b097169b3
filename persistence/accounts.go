package persistence

import (
	"context"
	"math"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/parley-im/parley/domain"
)

const (
	selectAccounts = `SELECT a.id, a.name, COALESCE(a.parent_id, 0), COALESCE(a.parent_id, a.id), COALESCE(m.name, ''),
		a.edit_messages, a.remove_messages, COALESCE(m.edit_messages, 0), COALESCE(m.remove_messages, 0)
		FROM accounts a LEFT JOIN accounts m ON m.id = a.parent_id`
	insertAccount = `INSERT INTO accounts (name, parent_id) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`

	selectApplication = `SELECT id FROM applications WHERE account_id = $1 AND name = $2`
	insertApplication = `INSERT INTO applications (account_id, name) VALUES ($1, $2) ON CONFLICT (account_id, name) DO NOTHING`
)

func scanAccounts(ctx context.Context, q runner, text string, args ...any) ([]domain.Account, error) {
	list := []domain.Account{}
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var a domain.Account
		var main domain.AccountSettings
		if err := rows.Scan(&a.ID, &a.Name, &a.Parent, &a.Root, &a.ParentName, &a.Settings.EditMessages, &a.Settings.RemoveMessages,
			&main.EditMessages, &main.RemoveMessages); err != nil {
			return err
		}
		a.Effective = a.Settings.Under(main)
		list = append(list, a)
		return nil
	}, text, args...)
	return list, err
}

// account finds an account by name; not-found if there is none.
func account(ctx context.Context, q runner, name string) (domain.Account, error) {
	list, err := scanAccounts(ctx, q, selectAccounts+` WHERE a.name = $1`, name)
	if err != nil {
		return domain.Account{}, err
	}
	if len(list) == 0 {
		return domain.Account{}, domain.Errorf(domain.NotFound, "no account %q", name)
	}
	return list[0], nil
}

// ensureAccount finds an account, or makes it as a main account if that is wanted.
func ensureAccount(ctx context.Context, q runner, name string, makeIt bool) (domain.Account, error) {
	if makeIt {
		if _, err := domain.ParseAccountName(name); err != nil {
			return domain.Account{}, err
		}
		if _, err := q.exec(ctx, insertAccount, name, nil); err != nil {
			return domain.Account{}, err
		}
	}
	return account(ctx, q, name)
}

// application gives the number of an application, and makes it if that is wanted.
func application(ctx context.Context, q runner, a domain.Account, name string, makeIt bool) (int64, error) {
	if makeIt {
		if _, err := q.exec(ctx, insertApplication, int64(a.ID), name); err != nil {
			return 0, err
		}
	}
	var id int64
	found, err := one(ctx, q, []any{&id}, selectApplication, int64(a.ID), name)
	if err == nil && !found {
		return 0, domain.Errorf(domain.NotFound, "no application %q in account %q", name, a.Name)
	}
	return id, err
}

// CreateAccount creates a main account, or a child of parent, which must be a main account. Errors: invalid-request,
// not-found (the parent), already-exists, unavailable, internal.
func (s *Store) CreateAccount(ctx context.Context, name, parent string) (domain.Account, error) {
	var a domain.Account
	err := s.write(ctx, func(q runner) error {
		if _, err := domain.ParseAccountName(name); err != nil {
			return err
		}
		var parentID any
		if parent != "" {
			p, err := account(ctx, q, parent)
			if err != nil {
				return err
			}
			if p.Parent != 0 {
				return domain.Errorf(domain.InvalidRequest, "account %q is a child itself and cannot have children", parent)
			}
			parentID = int64(p.ID)
		}
		n, err := q.exec(ctx, insertAccount, name, parentID)
		if err != nil {
			return err
		}
		if n == 0 {
			return domain.Errorf(domain.AlreadyExists, "there is an account %q already", name)
		}
		a, err = account(ctx, q, name)
		return err
	})
	return a, err
}

// Accounts lists the accounts of a tree, or of all trees, in the order of their numbers.
func (s *Store) Accounts(ctx context.Context, query domain.TreeQuery) ([]domain.Account, error) {
	var list []domain.Account
	err := s.read(func(q runner) error {
		var err error
		list, err = scanAccounts(ctx, q, selectAccounts+
			inTree("a.id"), treeArgs(query)...)
		return err
	})
	return list, err
}

// CreateApplication creates an application. Errors: invalid-request, not-found (the account), already-exists,
// unavailable, internal.
func (s *Store) CreateApplication(ctx context.Context, accountName, name string) error {
	return s.write(ctx, func(q runner) error {
		if _, err := domain.ParseAccountName(name); err != nil {
			return err
		}
		a, err := account(ctx, q, accountName)
		if err != nil {
			return err
		}
		n, err := q.exec(ctx, insertApplication, int64(a.ID), name)
		if err == nil && n == 0 {
			return domain.Errorf(domain.AlreadyExists, "there is an application %q in account %q already", name, accountName)
		}
		return err
	})
}

const (
	lockAccount = `SELECT id FROM accounts WHERE id = $1`

	// What keeps an account from being deleted. Users who were deleted do too: their names are never given again.
	selectAccountUse = `SELECT
		EXISTS (SELECT 1 FROM accounts WHERE parent_id = $1),
		EXISTS (SELECT 1 FROM services WHERE account_id = $1),
		EXISTS (SELECT 1 FROM users u JOIN applications p ON p.id = u.application_id WHERE p.account_id = $1),
		EXISTS (SELECT 1 FROM conversation_data WHERE account_id = $1)`
	deleteApplications = `DELETE FROM applications WHERE account_id = $1`
	deleteAccount      = `DELETE FROM accounts WHERE id = $1`

	selectApplications   = `SELECT name FROM applications WHERE account_id = $1 ORDER BY name`
	selectApplicationUse = `SELECT EXISTS (SELECT 1 FROM users WHERE application_id = $1)`
	lockApplication      = `SELECT id FROM applications WHERE id = $1`
	deleteApplication    = `DELETE FROM applications WHERE id = $1`
)

// DeleteAccount removes an account with its applications, if nothing else was ever in it: no child account, service or
// conversation is, and no user was. Errors: not-found, in-use, unavailable, internal.
func (s *Store) DeleteAccount(ctx context.Context, name string) error {
	return s.write(ctx, func(q runner) error {
		a, err := account(ctx, q, name)
		if err != nil {
			return err
		}
		// From here on nobody can refer to it any more.
		var id int64
		found, err := one(ctx, q, []any{&id}, lockAccount+s.d.lock, int64(a.ID))
		if err != nil {
			return err
		}
		if !found {
			return domain.Errorf(domain.NotFound, "no account %q", name)
		}
		var children, services, users, conversations bool
		if _, err := one(ctx, q, []any{&children, &services, &users, &conversations}, selectAccountUse, id); err != nil {
			return err
		}
		for _, use := range []struct {
			of   string
			used bool
		}{
			{"child accounts", children},
			{"services", services},
			{"users, if only deleted ones", users},
			{"conversations", conversations},
		} {
			if use.used {
				return domain.Errorf(domain.InUse, "account %q has %s", name, use.of)
			}
		}
		if _, err := q.exec(ctx, deleteApplications, id); err != nil {
			return err
		}
		_, err = q.exec(ctx, deleteAccount, id)
		return err
	})
}

// Applications lists the names of an account's applications, in their order. Errors: not-found, unavailable, internal.
func (s *Store) Applications(ctx context.Context, accountName string) ([]string, error) {
	list := []string{}
	err := s.read(func(q runner) error {
		a, err := account(ctx, q, accountName)
		if err != nil {
			return err
		}
		return each(ctx, q, func(rows *sqlx.Rows) error {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			list = append(list, name)
			return nil
		}, selectApplications, int64(a.ID))
	})
	return list, err
}

// DeleteApplication removes an application that never had a user. Errors: not-found, in-use, unavailable, internal.
func (s *Store) DeleteApplication(ctx context.Context, accountName, name string) error {
	return s.write(ctx, func(q runner) error {
		a, err := account(ctx, q, accountName)
		if err != nil {
			return err
		}
		id, err := application(ctx, q, a, name, false)
		if err != nil {
			return err
		}
		if _, err := one(ctx, q, []any{&id}, lockApplication+s.d.lock, id); err != nil {
			return err
		}
		var used bool
		if _, err := one(ctx, q, []any{&used}, selectApplicationUse, id); err != nil {
			return err
		}
		if used {
			return domain.Errorf(domain.InUse, "application %q of account %q has users, if only deleted ones", name, accountName)
		}
		_, err = q.exec(ctx, deleteApplication, id)
		return err
	})
}

const (
	insertService = `INSERT INTO services (account_id, name, key_hash, created_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account_id, name) DO NOTHING`
	rotateService = `UPDATE services SET key_hash = $3 WHERE account_id = $1 AND name = $2`
	deleteService = `DELETE FROM services WHERE account_id = $1 AND name = $2`
)

func scanServices(ctx context.Context, q runner, text string, args ...any) ([]domain.Service, error) {
	list := []domain.Service{}
	err := each(ctx, q, func(rows *sqlx.Rows) error {
		var v domain.Service
		var hash digest
		if err := rows.Scan(&v.ID, &v.Name, &v.Account, &v.AccountName, &v.Root, &hash, &v.Created); err != nil {
			return err
		}
		v.KeyHash = hash
		list = append(list, v)
		return nil
	}, text, args...)
	return list, err
}

// service finds a service by account and name; not-found if there is none.
func service(ctx context.Context, q runner, a domain.Account, name string) (domain.Service, error) {
	list, err := scanServices(ctx, q, selectService+` WHERE s.account_id = $1 AND s.name = $2`, int64(a.ID), name)
	if err != nil {
		return domain.Service{}, err
	}
	if len(list) == 0 {
		return domain.Service{}, noService(a.Name, name)
	}
	return list[0], nil
}

func noService(account, name string) error {
	return domain.Errorf(domain.NotFound, "no service %q in account %q", name, account)
}

// CreateService creates a service whose API key has the SHA-256 digest, and a missing account (as a main account) if
// makeAccount is set. Errors: invalid-request, not-found (the account), already-exists, unavailable, internal.
func (s *Store) CreateService(ctx context.Context, accountName, name string, keyHash [32]byte, makeAccount bool) (domain.Service, error) {
	var v domain.Service
	err := s.write(ctx, func(q runner) error {
		if _, err := domain.ParseServiceName(name); err != nil {
			return err
		}
		a, err := ensureAccount(ctx, q, accountName, makeAccount)
		if err != nil {
			return err
		}
		n, err := q.exec(ctx, insertService, int64(a.ID), name, keyHash[:], time.Now().UnixMilli())
		if err != nil {
			return err
		}
		if n == 0 {
			return domain.Errorf(domain.AlreadyExists, "there is a service %q in account %q already", name, accountName)
		}
		v, err = service(ctx, q, a, name)
		return err
	})
	return v, err
}

// RotateService gives a service another API key; the old one is worthless at once. Errors: not-found, unavailable,
// internal.
func (s *Store) RotateService(ctx context.Context, accountName, name string, keyHash [32]byte) (domain.Service, error) {
	var v domain.Service
	err := s.write(ctx, func(q runner) error {
		a, err := account(ctx, q, accountName)
		if err != nil {
			return err
		}
		if _, err := q.exec(ctx, rotateService, int64(a.ID), name, keyHash[:]); err != nil {
			return err
		}
		if v, err = service(ctx, q, a, name); err != nil {
			return err
		}
		return noteEnded(ctx, q, domain.Ending{Service: v.ID, Root: v.Root})
	})
	return v, err
}

// DeleteService removes a service; what it wrote stays, and its number is never given to another. Errors: not-found,
// unavailable, internal.
func (s *Store) DeleteService(ctx context.Context, accountName, name string) error {
	return s.write(ctx, func(q runner) error {
		a, err := account(ctx, q, accountName)
		if err != nil {
			return err
		}
		v, err := service(ctx, q, a, name)
		if err != nil {
			return err
		}
		n, err := q.exec(ctx, deleteService, int64(a.ID), name)
		if err != nil {
			return err
		}
		if n == 0 {
			return noService(accountName, name)
		}
		return noteEnded(ctx, q, domain.Ending{Service: v.ID, Root: v.Root})
	})
}

// Services lists the services of a tree, or of all trees, in the order of their numbers.
func (s *Store) Services(ctx context.Context, query domain.TreeQuery) ([]domain.Service, error) {
	var list []domain.Service
	err := s.read(func(q runner) error {
		var err error
		list, err = scanServices(ctx, q, selectService+
			inTree("s.id"), treeArgs(query)...)
		return err
	})
	return list, err
}

// inTree is the condition that account a belongs to the tree of a query, with the order and the limit of a page.
func inTree(number string) string {
	return ` WHERE (CAST($1 AS bigint) = 0 OR COALESCE(a.parent_id, a.id) = CAST($1 AS bigint)) AND ` + number +
		` > $2 ORDER BY ` + number + ` LIMIT $3`
}

func treeArgs(q domain.TreeQuery) []any {
	limit := int64(math.MaxInt64)
	if q.Limit > 0 {
		limit = int64(q.Limit)
	}
	return []any{int64(q.Root), q.After, limit}
}
