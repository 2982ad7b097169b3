package gateway

import (
	"context"
	"slices"

	"github.com/parley-im/parley/domain"
)

// CreateService creates a service and gives its API key, which nobody can get again. An empty account is the caller's
// own. A service creates services of its tree; the admin key of every account, which it makes if there is none. Its
// errors are invalid-request, access-denied (also for an account that is not there), already-exists, or the store's.
func (a *Accounts) CreateService(ctx context.Context, p domain.Principal, account, name string) (s domain.Service, key string, err error) {
	if account, err = a.ownAccount(ctx, p, account, name); err != nil {
		return domain.Service{}, "", err
	}
	if err := a.mayAdminister(ctx, p, account); err != nil {
		return domain.Service{}, "", err
	}
	key, digest, err := newSecret(a.random, apiKeyPrefix)
	if err != nil {
		return domain.Service{}, "", err
	}
	if s, err = a.registry.CreateService(ctx, account, name, digest, p.Admin); err != nil {
		return domain.Service{}, "", err
	}
	return s, key, nil
}

// RotateService gives a service a new API key; the old one ends at once, and the service's sessions with it. Its errors
// are invalid-request, access-denied, not-found, or the store's.
func (a *Accounts) RotateService(ctx context.Context, p domain.Principal, account, name string) (s domain.Service, key string, err error) {
	if s, err = a.findService(ctx, p, account, name); err != nil {
		return domain.Service{}, "", err
	}
	key, digest, err := newSecret(a.random, apiKeyPrefix)
	if err != nil {
		return domain.Service{}, "", err
	}
	if s, err = a.registry.RotateService(ctx, s.AccountName, name, digest); err != nil {
		return domain.Service{}, "", err
	}
	a.ended(s.Principal(), false)
	return s, key, nil
}

// DeleteService deletes a service; what it sent remains. Its errors are those of [Accounts.RotateService].
func (a *Accounts) DeleteService(ctx context.Context, p domain.Principal, account, name string) error {
	s, err := a.findService(ctx, p, account, name)
	if err != nil {
		return err
	}
	if err := a.registry.DeleteService(ctx, s.AccountName, name); err != nil {
		return err
	}
	a.ended(s.Principal(), false)
	return nil
}

// Services gives a page of the services that p, a backend, may administer.
func (a *Accounts) Services(ctx context.Context, p domain.Principal, q domain.TreeQuery) ([]domain.Service, error) {
	if err := mustBeBackend(p); err != nil {
		return nil, err
	}
	q.Root = treeOf(p)
	return a.registry.Services(ctx, q)
}

// CreateAccount creates an account: a main account (no parent) with the admin key, or a child of a main account. A
// service creates children of its own main account, which is the parent where none is named. Its errors are
// invalid-request, access-denied, not-found (the parent), already-exists, or the store's.
func (a *Accounts) CreateAccount(ctx context.Context, p domain.Principal, name, parent string) (domain.Account, error) {
	if err := mustBeBackend(p); err != nil {
		return domain.Account{}, err
	}
	if _, err := domain.ParseAccountName(name); err != nil {
		return domain.Account{}, err
	}
	if parent == "" && p.Admin {
		return a.registry.CreateAccount(ctx, name, "")
	}
	accounts, err := a.registry.Accounts(ctx, domain.TreeQuery{Root: treeOf(p)})
	if err != nil {
		return domain.Account{}, err
	}
	i := slices.IndexFunc(accounts, func(acc domain.Account) bool {
		return acc.Name == parent || (parent == "" && acc.ID == p.Root)
	})
	switch {
	case i < 0:
		return domain.Account{}, domain.Errorf(domain.NotFound, "no such parent account")
	case accounts[i].Parent != 0:
		return domain.Account{}, domain.Errorf(domain.InvalidRequest, "a child account has no children")
	}
	return a.registry.CreateAccount(ctx, name, accounts[i].Name)
}

// Accounts gives a page of the accounts that p, a backend, may administer.
func (a *Accounts) Accounts(ctx context.Context, p domain.Principal, q domain.TreeQuery) ([]domain.Account, error) {
	if err := mustBeBackend(p); err != nil {
		return nil, err
	}
	q.Root = treeOf(p)
	return a.registry.Accounts(ctx, q)
}

// Account gives an account. Its errors are those of [Accounts.DeleteAccount], and not-found.
func (a *Accounts) Account(ctx context.Context, p domain.Principal, name string) (domain.Account, error) {
	if err := a.administering(ctx, p, name); err != nil {
		return domain.Account{}, err
	}
	return a.registry.Account(ctx, name)
}

// EditSettings changes the settings of an account, and gives it. Its errors are those of [Accounts.Account].
func (a *Accounts) EditSettings(ctx context.Context, p domain.Principal, name string, e domain.SettingsEdit) (domain.Account, error) {
	if err := a.administering(ctx, p, name); err != nil {
		return domain.Account{}, err
	}
	return a.registry.EditSettings(ctx, name, e)
}

// DeleteAccount deletes an account in which nothing is but applications. A service deletes child accounts of its tree. Its
// errors are invalid-request, access-denied (also for an account that is not there), in-use, or the store's.
func (a *Accounts) DeleteAccount(ctx context.Context, p domain.Principal, name string) error {
	if err := a.administering(ctx, p, name); err != nil {
		return err
	}
	return a.registry.DeleteAccount(ctx, name)
}

// Applications gives the names of an account's applications. Its errors are those of [Accounts.DeleteAccount].
func (a *Accounts) Applications(ctx context.Context, p domain.Principal, account string) ([]string, error) {
	if err := a.administering(ctx, p, account); err != nil {
		return nil, err
	}
	return a.registry.Applications(ctx, account)
}

// DeleteApplication deletes an application that never had a user. Its errors are those of [Accounts.DeleteAccount], and
// not-found.
func (a *Accounts) DeleteApplication(ctx context.Context, p domain.Principal, account, name string) error {
	if err := a.administering(ctx, p, account); err != nil {
		return err
	}
	return a.registry.DeleteApplication(ctx, account, name)
}

// administering refuses whoever may not administer the account that is named.
func (a *Accounts) administering(ctx context.Context, p domain.Principal, account string) error {
	if err := mustBeBackend(p); err != nil {
		return err
	}
	if _, err := domain.ParseAccountName(account); err != nil {
		return err
	}
	return a.mayAdminister(ctx, p, account)
}

// CreateApplication creates an application of an account; an empty account is the caller's own. Its errors are
// invalid-request, access-denied, not-found (the account), already-exists, or the store's.
func (a *Accounts) CreateApplication(ctx context.Context, p domain.Principal, account, name string) error {
	if err := mustBeBackend(p); err != nil {
		return err
	}
	account, err := a.nameOf(ctx, p, account)
	if err != nil {
		return err
	}
	if _, err := domain.ParseAccountName(name); err != nil {
		return err
	}
	if err := a.mayAdminister(ctx, p, account); err != nil {
		return err
	}
	return a.registry.CreateApplication(ctx, account, name)
}

// findService gives a service that p may administer.
func (a *Accounts) findService(ctx context.Context, p domain.Principal, account, name string) (domain.Service, error) {
	account, err := a.ownAccount(ctx, p, account, name)
	if err != nil {
		return domain.Service{}, err
	}
	services, err := a.registry.Services(ctx, domain.TreeQuery{Root: treeOf(p)})
	if err != nil {
		return domain.Service{}, err
	}
	i := slices.IndexFunc(services, func(s domain.Service) bool { return s.AccountName == account && s.Name == name })
	if i < 0 {
		return domain.Service{}, domain.Errorf(domain.NotFound, "no such service")
	}
	return services[i], nil
}

// ownAccount checks the names of a service and of its account, which is the caller's own if there is none.
func (a *Accounts) ownAccount(ctx context.Context, p domain.Principal, account, name string) (string, error) {
	if err := mustBeBackend(p); err != nil {
		return "", err
	}
	if _, err := domain.ParseServiceName(name); err != nil {
		return "", err
	}
	return a.nameOf(ctx, p, account)
}

// nameOf checks the name of an account; none is the caller's own.
func (a *Accounts) nameOf(ctx context.Context, p domain.Principal, account string) (string, error) {
	if account != "" || p.Admin {
		return domain.ParseAccountName(account)
	}
	accounts, err := a.registry.Accounts(ctx, domain.TreeQuery{Root: p.Root})
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(accounts, func(acc domain.Account) bool { return acc.ID == p.Account })
	if i < 0 {
		return "", domain.Errorf(domain.NotFound, "no such account")
	}
	return accounts[i].Name, nil
}

// mayAdminister refuses an account outside the tree of p, in the same words whether there is such an account or not.
func (a *Accounts) mayAdminister(ctx context.Context, p domain.Principal, account string) error {
	if p.Admin {
		return nil
	}
	accounts, err := a.registry.Accounts(ctx, domain.TreeQuery{Root: p.Root})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(accounts, func(acc domain.Account) bool { return acc.Name == account }) {
		return domain.Errorf(domain.AccessDenied, "the account is not one of yours")
	}
	return nil
}

// treeOf is the root that limits what p sees; 0: nothing does.
func treeOf(p domain.Principal) domain.AccountID {
	if p.Admin {
		return 0
	}
	return p.Root
}
