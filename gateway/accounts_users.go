package gateway

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/parley-im/parley/domain"
)

// The bounds of a user's record and of a search.
const (
	maxDisplayName = 256 // characters
	maxSearch      = 256 // bytes of text
	maxLookup      = 50  // users of one request
	maxPage        = 101 // users of one search: a page, and one more that tells whether there is a next
)

// CreateUser creates a user. A service creates users of the accounts of its tree, in a new application if need be;
// the admin key of every account, which it makes if there is none. Its errors are invalid-request, access-denied
// (also for an account that is not there), already-exists, or the store's.
func (a *Accounts) CreateUser(ctx context.Context, p domain.Principal, r domain.UserRequest) (domain.User, error) {
	if err := mustBeBackend(p); err != nil {
		return domain.User{}, err
	}
	name, err := domain.ParseUsername(string(r.Username))
	if err != nil {
		return domain.User{}, err
	}
	n := domain.NewUser{Username: name, DisplayName: r.DisplayName, CustomData: r.CustomData.OrNone(), MakeAccount: true}
	if err := checkRecord(&r.DisplayName, n.CustomData); err != nil {
		return domain.User{}, err
	}
	_, _, account := name.Parts()
	if err := a.mayAdminister(ctx, p, account); err != nil {
		return domain.User{}, err
	}
	if r.Password != nil {
		if n.PasswordHash, err = a.hasher.hash(ctx, *r.Password); err != nil {
			return domain.User{}, err
		}
	}
	return a.registry.CreateUser(ctx, n)
}

// UpdateUser changes a user; backends only. A new password ends the user's logins. Its errors are invalid-request,
// access-denied, user-not-found, or the store's.
func (a *Accounts) UpdateUser(ctx context.Context, p domain.Principal, username domain.Username, e domain.UserEdit) (domain.User, error) {
	u, err := a.administered(ctx, p, username)
	if err != nil {
		return domain.User{}, err
	}
	patch := domain.UserPatch{DisplayName: e.DisplayName}
	if e.CustomData != nil {
		data := e.CustomData.OrNone()
		patch.CustomData = &data
		err = checkRecord(e.DisplayName, data)
	} else {
		err = checkRecord(e.DisplayName, nil)
	}
	if err != nil {
		return domain.User{}, err
	}
	if e.Password != nil {
		hash, err := a.hasher.hash(ctx, *e.Password)
		if err != nil {
			return domain.User{}, err
		}
		patch.PasswordHash = &hash
	}
	if patch == (domain.UserPatch{}) {
		return u, nil
	}
	if u, err = a.registry.UpdateUser(ctx, u.ID, patch); err != nil {
		return domain.User{}, err
	}
	if patch.DisplayName != nil || patch.CustomData != nil {
		a.changed(ctx, u)
	}
	if patch.PasswordHash != nil {
		err = a.end(ctx, u)
	}
	return u, err
}

// DeleteUser deletes a user for good: its name and number are never given to anybody else. Backends only. Its errors
// are access-denied, user-not-found, or the store's.
func (a *Accounts) DeleteUser(ctx context.Context, p domain.Principal, username domain.Username) error {
	u, err := a.administered(ctx, p, username)
	if err != nil {
		return err
	}
	if err := a.registry.DeleteUser(ctx, u.ID); err != nil {
		return err
	}
	u.Deleted = true
	a.changed(ctx, u)
	a.ended(u.Principal(""), false)
	return nil
}

// FindUsers gives the users that the references name, at most 50, deleted ones included, in the order of the
// references. Everybody may look up users of the own tree. Its errors are invalid-request, user-not-found (any of them),
// or the store's.
func (a *Accounts) FindUsers(ctx context.Context, p domain.Principal, refs []domain.UserRef) ([]domain.User, error) {
	if err := mustBeKnown(p); err != nil {
		return nil, err
	}
	if len(refs) == 0 || len(refs) > maxLookup {
		return nil, domain.Errorf(domain.InvalidRequest, "ask for 1 to %d users", maxLookup)
	}
	for _, r := range refs {
		if err := r.Check(); err != nil {
			return nil, err
		}
	}
	found, err := a.registry.FindUsers(ctx, refs)
	if err != nil {
		return nil, err
	}
	users := make([]domain.User, 0, len(refs))
	for _, r := range refs {
		i := slices.IndexFunc(found, func(u domain.User) bool { return r.Is(u) && p.Sees(u.Root) })
		if i < 0 {
			return nil, domain.Errorf(domain.UserNotFound, "no such user")
		}
		users = append(users, found[i])
	}
	return users, nil
}

// SearchUsers gives a page of the directory, in the order of user numbers: at most q.Limit users (1 to 101) after
// q.After. q.Root is set to what p may see. Its errors are invalid-request, or the store's.
func (a *Accounts) SearchUsers(ctx context.Context, p domain.Principal, q domain.UserQuery) ([]domain.User, error) {
	if err := mustBeKnown(p); err != nil {
		return nil, err
	}
	switch {
	case q.Limit < 1 || q.Limit > maxPage:
		return nil, domain.Errorf(domain.InvalidRequest, "limit is 1 to %d", maxPage)
	case q.After < 0:
		return nil, domain.Errorf(domain.InvalidRequest, "a page starts after a user's number")
	case len(q.Text) > maxSearch || !utf8.ValidString(q.Text) || strings.ContainsRune(q.Text, 0):
		return nil, domain.Errorf(domain.InvalidRequest, "the text to look for is up to %d bytes of UTF-8 without NUL", maxSearch)
	}
	for _, name := range [...]string{q.Application, q.Account} {
		if name == "" {
			continue
		}
		if _, err := domain.ParseAccountName(name); err != nil {
			return nil, err
		}
	}
	q.Root = p.Root
	if p.Admin {
		q.Root = 0
	}
	return a.registry.SearchUsers(ctx, q)
}

// administered gives a user that p, a backend, may administer: one of its tree who was not deleted.
func (a *Accounts) administered(ctx context.Context, p domain.Principal, username domain.Username) (domain.User, error) {
	if err := mustBeBackend(p); err != nil {
		return domain.User{}, err
	}
	return a.find(ctx, p, username)
}

func (a *Accounts) find(ctx context.Context, p domain.Principal, username domain.Username) (domain.User, error) {
	users, err := a.FindUsers(ctx, p, []domain.UserRef{{Username: username}})
	if err != nil {
		return domain.User{}, err
	}
	if users[0].Deleted {
		return domain.User{}, domain.Errorf(domain.UserNotFound, "no such user")
	}
	return users[0], nil
}

// mustBeKnown refuses those who have proven nothing, mustBeBackend also users.
func mustBeKnown(p domain.Principal) error {
	if !p.IsUser() && !p.IsBackend() {
		return domain.Errorf(domain.NotAuthenticated, "log in first")
	}
	return nil
}

func mustBeBackend(p domain.Principal) error {
	if err := mustBeKnown(p); err != nil {
		return err
	}
	if !p.IsBackend() {
		return domain.Errorf(domain.AccessDenied, "only a service may do that")
	}
	return nil
}

func checkRecord(displayName *string, customData domain.RawObject) error {
	switch {
	case displayName != nil && utf8.RuneCountInString(*displayName) > maxDisplayName:
		return domain.Errorf(domain.InvalidRequest, "displayName is longer than %d characters", maxDisplayName)
	case displayName != nil && (!utf8.ValidString(*displayName) || strings.ContainsRune(*displayName, 0)):
		return domain.Errorf(domain.InvalidRequest, "displayName is UTF-8 without NUL")
	case len(customData) > domain.MaxUserData:
		return domain.Errorf(domain.InvalidRequest, "customData is larger than %d bytes", domain.MaxUserData)
	}
	return nil
}
