package gateway

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/parley-im/parley/domain"
)

// books is a Directory, Tokens and Registry in memory, with the semantics that persistence gives them.
type books struct {
	mu       sync.Mutex
	users    []domain.User
	hashes   map[domain.UserID]string
	from     map[domain.UserID]int64
	accounts []domain.Account
	apps     map[string]bool
	services []domain.Service
	nextID   domain.ServiceID
	keys     []domain.SigningKey
	families map[[16]byte]*booksFamily
	refresh  map[[32]byte]*booksRefresh
	settings map[string][]byte
	secrets  map[domain.UserID]string
	used     map[[32]byte]bool
	most     int      // logins of a user, as StartFamily was told
	gone     []string // accounts and applications that were deleted
	// down, when set, is what every call fails with; loads counts calls of SigningKeys.
	down  error
	loads int
}

type booksFamily struct {
	user    domain.UserID
	revoked bool
}

type booksRefresh struct {
	domain.RefreshToken
	used bool
}

func newBooks() *books {
	return &books{
		hashes: make(map[domain.UserID]string), from: make(map[domain.UserID]int64), apps: make(map[string]bool),
		families: make(map[[16]byte]*booksFamily), refresh: make(map[[32]byte]*booksRefresh),
		settings: make(map[string][]byte), secrets: make(map[domain.UserID]string), used: make(map[[32]byte]bool),
	}
}

func (b *books) enter() (leave func(), err error) {
	b.mu.Lock()
	return b.mu.Unlock, b.down
}

func (b *books) user(r domain.UserRef) int {
	return slices.IndexFunc(b.users, r.Is)
}

func (b *books) account(name string) (domain.Account, bool) {
	i := slices.IndexFunc(b.accounts, func(a domain.Account) bool { return a.Name == name })
	if i < 0 {
		return domain.Account{}, false
	}
	return b.accounts[i], true
}

func (b *books) Credential(_ context.Context, name domain.Username) (domain.Credential, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return domain.Credential{}, err
	}
	i := b.user(domain.UserRef{Username: name})
	if i < 0 {
		return domain.Credential{}, domain.Errorf(domain.UserNotFound, "no user")
	}
	id := b.users[i].ID
	return domain.Credential{User: b.users[i], PasswordHash: b.hashes[id], TokensFrom: b.from[id], OneTimeSecret: b.secrets[id]}, nil
}

func (b *books) TokenUser(_ context.Context, id domain.UserID, f [16]byte, issued int64) (domain.User, bool, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return domain.User{}, false, err
	}
	i := b.user(domain.UserRef{UserID: id})
	if i < 0 {
		return domain.User{}, false, domain.Errorf(domain.UserNotFound, "no user")
	}
	fam := b.families[f]
	return b.users[i], fam != nil && fam.user == id && !fam.revoked && !b.users[i].Deleted && issued > b.from[id], nil
}

func (b *books) ServiceByKey(_ context.Context, hash [32]byte) (domain.Service, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return domain.Service{}, err
	}
	i := slices.IndexFunc(b.services, func(s domain.Service) bool { return s.KeyHash == hash })
	if i < 0 {
		return domain.Service{}, domain.Errorf(domain.NotFound, "no service")
	}
	return b.services[i], nil
}

func (b *books) InitSetting(_ context.Context, name string, value []byte) ([]byte, bool, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return nil, false, err
	}
	stored, there := b.settings[name]
	if !there {
		stored, b.settings[name] = value, value
	}
	return stored, !there, nil
}

func (b *books) OneTimeSecret(_ context.Context, id domain.UserID, fresh string) (string, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return "", err
	}
	if b.secrets[id] == "" {
		b.secrets[id] = fresh
	}
	return b.secrets[id], nil
}

func (b *books) ForgetOneTimeSecret(_ context.Context, id domain.UserID) error {
	leave, err := b.enter()
	defer leave()
	if err == nil {
		delete(b.secrets, id)
	}
	return err
}

func (b *books) UseKey(_ context.Context, hash [32]byte, _ int64) error {
	leave, err := b.enter()
	defer leave()
	switch {
	case err != nil:
		return err
	case b.used[hash]:
		return domain.Errorf(domain.NotAuthenticated, "used before")
	}
	b.used[hash] = true
	return nil
}

func (b *books) SigningKeys(context.Context) ([]domain.SigningKey, error) {
	leave, err := b.enter()
	defer leave()
	b.loads++
	return slices.Clone(b.keys), err
}

func (b *books) AddSigningKey(_ context.Context, k domain.SigningKey) error {
	leave, err := b.enter()
	defer leave()
	if err == nil {
		b.keys = append(b.keys, k)
	}
	return err
}

func (b *books) StartFamily(_ context.Context, t domain.RefreshToken, most int) error {
	leave, err := b.enter()
	defer leave()
	if err == nil {
		b.most = most
		b.families[t.Family] = &booksFamily{user: t.User}
		b.refresh[t.Hash] = &booksRefresh{RefreshToken: t}
	}
	return err
}

func (b *books) Refresh(_ context.Context, hash [32]byte, now int64, next domain.RefreshToken) (domain.RefreshToken, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return domain.RefreshToken{}, err
	}
	t := b.refresh[hash]
	switch {
	case t == nil || b.families[t.Family].revoked || t.Expires <= now:
		return domain.RefreshToken{}, domain.Errorf(domain.NotAuthenticated, "the refresh token is not valid")
	case t.used:
		b.families[t.Family].revoked = true
		return domain.RefreshToken{Family: t.Family, User: t.User},
			domain.Errorf(domain.NotAuthenticated, "the refresh token was used before")
	}
	t.used = true
	next.Family, next.User = t.Family, t.User
	b.refresh[next.Hash] = &booksRefresh{RefreshToken: next}
	return next, nil
}

func (b *books) RevokeFamily(_ context.Context, f [16]byte) error {
	leave, err := b.enter()
	defer leave()
	if fam := b.families[f]; fam != nil && err == nil {
		fam.revoked = true
	}
	return err
}

func (b *books) RevokeUser(_ context.Context, id domain.UserID, now int64) error {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return err
	}
	b.from[id] = now
	for _, f := range b.families {
		f.revoked = f.revoked || f.user == id
	}
	return nil
}

// EndedSince is for a store that several gateways share.
func (b *books) EndedSince(context.Context, int64) ([]domain.Ending, error) { return nil, nil }

func (b *books) CreateUser(_ context.Context, n domain.NewUser) (domain.User, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return domain.User{}, err
	}
	if b.user(domain.UserRef{Username: n.Username}) >= 0 {
		return domain.User{}, domain.Errorf(domain.AlreadyExists, "there is one")
	}
	_, app, name := n.Username.Parts()
	acc, ok := b.account(name)
	if !ok {
		if !n.MakeAccount {
			return domain.User{}, domain.Errorf(domain.NotFound, "no account")
		}
		acc = b.addAccount(name, 0)
	}
	b.apps[app+"."+name] = true
	u := domain.User{
		ID: domain.UserID(len(b.users) + 1), Username: n.Username, DisplayName: n.DisplayName, CustomData: n.CustomData,
		Root: acc.Root, Account: acc.ID,
	}
	b.users = append(b.users, u)
	b.hashes[u.ID] = n.PasswordHash
	return u, nil
}

func (b *books) addAccount(name string, parent domain.AccountID) domain.Account {
	a := domain.Account{ID: domain.AccountID(len(b.accounts) + 1), Name: name, Parent: parent}
	a.Root = a.ID
	if parent != 0 {
		a.Root = parent
	}
	b.accounts = append(b.accounts, a)
	return a
}

func (b *books) UpdateUser(_ context.Context, id domain.UserID, patch domain.UserPatch) (domain.User, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return domain.User{}, err
	}
	u := &b.users[b.user(domain.UserRef{UserID: id})]
	if patch.DisplayName != nil {
		u.DisplayName = *patch.DisplayName
	}
	if patch.CustomData != nil {
		u.CustomData = *patch.CustomData
	}
	if patch.PasswordHash != nil {
		b.hashes[id] = *patch.PasswordHash
	}
	return *u, nil
}

func (b *books) DeleteUser(_ context.Context, id domain.UserID) error {
	leave, err := b.enter()
	defer leave()
	if err == nil {
		b.users[b.user(domain.UserRef{UserID: id})].Deleted = true
		b.hashes[id] = ""
	}
	return err
}

func (b *books) FindUsers(_ context.Context, refs []domain.UserRef) ([]domain.User, error) {
	leave, err := b.enter()
	defer leave()
	var found []domain.User
	for _, u := range b.users {
		if slices.ContainsFunc(refs, func(r domain.UserRef) bool { return r.Is(u) }) {
			found = append(found, u)
		}
	}
	return found, err
}

func (b *books) SearchUsers(_ context.Context, q domain.UserQuery) ([]domain.User, error) {
	leave, err := b.enter()
	defer leave()
	var found []domain.User
	for _, u := range b.users {
		if (q.Root == 0 || q.Root == u.Root) && u.ID > q.After && len(found) < q.Limit &&
			strings.HasPrefix(string(u.Username), q.Text) {
			found = append(found, u)
		}
	}
	return found, err
}

func (b *books) CreateService(_ context.Context, account, name string, hash [32]byte, makeAccount bool) (domain.Service, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return domain.Service{}, err
	}
	acc, ok := b.account(account)
	if !ok {
		if !makeAccount {
			return domain.Service{}, domain.Errorf(domain.NotFound, "no account")
		}
		acc = b.addAccount(account, 0)
	}
	if b.service(account, name) >= 0 {
		return domain.Service{}, domain.Errorf(domain.AlreadyExists, "there is one")
	}
	b.nextID++
	s := domain.Service{ID: b.nextID, Name: name, Account: acc.ID, AccountName: account, Root: acc.Root, KeyHash: hash}
	b.services = append(b.services, s)
	return s, nil
}

func (b *books) service(account, name string) int {
	return slices.IndexFunc(b.services, func(s domain.Service) bool { return s.AccountName == account && s.Name == name })
}

func (b *books) RotateService(_ context.Context, account, name string, hash [32]byte) (domain.Service, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return domain.Service{}, err
	}
	s := &b.services[b.service(account, name)]
	s.KeyHash = hash
	return *s, nil
}

func (b *books) DeleteService(_ context.Context, account, name string) error {
	leave, err := b.enter()
	defer leave()
	if i := b.service(account, name); i >= 0 && err == nil {
		b.services = slices.Delete(b.services, i, i+1)
	}
	return err
}

func (b *books) Services(_ context.Context, q domain.TreeQuery) ([]domain.Service, error) {
	leave, err := b.enter()
	defer leave()
	return slices.DeleteFunc(slices.Clone(b.services), func(s domain.Service) bool { return q.Root != 0 && s.Root != q.Root }), err
}

func (b *books) CreateAccount(_ context.Context, name, parent string) (domain.Account, error) {
	leave, err := b.enter()
	defer leave()
	if err != nil {
		return domain.Account{}, err
	}
	if _, taken := b.account(name); taken {
		return domain.Account{}, domain.Errorf(domain.AlreadyExists, "there is one")
	}
	p, _ := b.account(parent)
	return b.addAccount(name, p.ID), nil
}

func (b *books) Accounts(_ context.Context, q domain.TreeQuery) ([]domain.Account, error) {
	leave, err := b.enter()
	defer leave()
	return slices.DeleteFunc(slices.Clone(b.accounts), func(a domain.Account) bool { return q.Root != 0 && a.Root != q.Root }), err
}

func (b *books) Account(_ context.Context, name string) (domain.Account, error) {
	leave, err := b.enter()
	defer leave()
	a, ok := b.account(name)
	if err == nil && !ok {
		err = domain.Errorf(domain.NotFound, "no account")
	}
	return a, err
}

func (b *books) EditSettings(_ context.Context, name string, e domain.SettingsEdit) (domain.Account, error) {
	leave, err := b.enter()
	defer leave()
	a, ok := b.account(name)
	if err == nil && !ok {
		err = domain.Errorf(domain.NotFound, "no account")
	}
	if e.EditMessages != nil {
		a.Settings.EditMessages = *e.EditMessages
	}
	return a, err
}

func (b *books) DeleteAccount(_ context.Context, name string) error {
	leave, err := b.enter()
	defer leave()
	b.gone = append(b.gone, name)
	return err
}

func (b *books) Applications(_ context.Context, account string) ([]string, error) {
	leave, err := b.enter()
	defer leave()
	names := []string{}
	for app := range b.apps {
		if name, ok := strings.CutSuffix(app, "."+account); ok {
			names = append(names, name)
		}
	}
	return names, err
}

func (b *books) DeleteApplication(_ context.Context, account, name string) error {
	leave, err := b.enter()
	defer leave()
	b.gone = append(b.gone, name+"."+account)
	return err
}

func (b *books) CreateApplication(_ context.Context, account, name string) error {
	leave, err := b.enter()
	defer leave()
	if err == nil {
		b.apps[name+"."+account] = true
	}
	return err
}
