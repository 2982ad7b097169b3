package storetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

func create(t *testing.T, s Store, n domain.NewUser) domain.User {
	t.Helper()
	n.MakeAccount = true
	u, err := s.CreateUser(t.Context(), n)
	must(t, err)
	return u
}

func usersAreFound(t *testing.T, b Backend) {
	// Two users under one name, or one under two numbers, would read each other's messages.
	s := open(t, b)
	alice := create(t, s, domain.NewUser{
		Username: "alice@chat.acme", DisplayName: "Älice", CustomData: domain.RawObject(`{"a":1}`), PasswordHash: "$argon2id$x",
	})
	if alice.ID <= 0 || alice.Root == 0 || alice.Root != alice.Account || alice.Created == 0 || alice.Own != nil {
		t.Errorf("created: %+v", alice)
	}
	_, err := s.CreateUser(t.Context(), domain.NewUser{Username: "alice@chat.acme", MakeAccount: true})
	refused(t, "again", err, domain.AlreadyExists)
	_, err = s.CreateUser(t.Context(), domain.NewUser{Username: "Alice@chat.acme", MakeAccount: true})
	refused(t, "not a name", err, domain.InvalidRequest)
	_, err = s.CreateUser(t.Context(), domain.NewUser{Username: "bob@chat.acme", DisplayName: "a\x00b"})
	refused(t, "NUL", err, domain.InvalidRequest)
	_, err = s.CreateUser(t.Context(), domain.NewUser{Username: "bob@chat.nowhere"})
	refused(t, "no account", err, domain.NotFound)
	_, err = s.CreateUser(t.Context(), domain.NewUser{Username: "bob@nowhere.acme"})
	refused(t, "no application", err, domain.NotFound)
	other := create(t, s, domain.NewUser{Username: "alice@chat.other"})
	if other.ID == alice.ID || other.Root == alice.Root {
		t.Errorf("of another account: %+v", other)
	}

	cred, err := s.Credential(t.Context(), "alice@chat.acme")
	must(t, err)
	equal(t, "credential", cred, domain.Credential{User: alice, PasswordHash: "$argon2id$x"})
	_, err = s.Credential(t.Context(), "nobody@chat.acme")
	refused(t, "credential of nobody", err, domain.UserNotFound)

	name, data := "Alice", domain.RawObject(`{"b":2}`)
	changed, err := s.UpdateUser(t.Context(), alice.ID, domain.UserPatch{DisplayName: &name, CustomData: &data})
	must(t, err)
	alice.DisplayName, alice.CustomData = name, data
	equal(t, "updated", changed, alice)
	hash, none := "other", domain.RawObject(nil)
	changed, err = s.UpdateUser(t.Context(), alice.ID, domain.UserPatch{PasswordHash: &hash, CustomData: &none})
	must(t, err)
	alice.CustomData = nil
	equal(t, "updated again", changed, alice)
	cred, err = s.Credential(t.Context(), "alice@chat.acme")
	must(t, err)
	equal(t, "credential", cred, domain.Credential{User: alice, PasswordHash: "other"})
	_, err = s.UpdateUser(t.Context(), 1<<40, domain.UserPatch{DisplayName: &name})
	refused(t, "nobody", err, domain.UserNotFound)

	found, err := s.FindUsers(t.Context(), []domain.UserRef{{UserID: other.ID}, {Username: "alice@chat.acme"}, {UserID: alice.ID}, {UserID: 1 << 40}})
	must(t, err)
	equal(t, "found", found, []domain.User{alice, other})

	// The same name at the same time: one wins.
	var wg sync.WaitGroup
	outcomes := make([]error, 8)
	for i := range outcomes {
		wg.Go(func() {
			_, outcomes[i] = s.CreateUser(t.Context(), domain.NewUser{Username: "race@new.fresh", MakeAccount: true})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range outcomes {
		if err == nil {
			won++
		} else {
			refused(t, "race", err, domain.AlreadyExists)
		}
	}
	if won != 1 {
		t.Errorf("%d creations of one user went well", won)
	}
}

func searchFinds(t *testing.T, b Backend) {
	// Customers must not see one another's users, and paging must neither skip nor repeat.
	s := open(t, b)
	for i, n := range []domain.NewUser{
		{Username: "anna@chat.acme", DisplayName: "Anna Karenina"},
		{Username: "bert@chat.acme", DisplayName: "ÄRMEL 100%"},
		{Username: "carl@support.acme", DisplayName: "hannah_b"},
		{Username: "anna@chat.other", DisplayName: "Anna O."},
	} {
		if u := create(t, s, n); int(u.ID) != i+1 {
			t.Fatalf("user %d has number %d", i, u.ID)
		}
	}
	child, err := s.CreateAccount(t.Context(), "branch", "acme")
	must(t, err)
	must(t, s.CreateApplication(t.Context(), "branch", "chat"))
	five, err := s.CreateUser(t.Context(), domain.NewUser{Username: "anna@chat.branch", DisplayName: "x"})
	must(t, err)
	acme := child.Root
	if five.Root != acme || five.Account != child.ID {
		t.Errorf("user of a child account: %+v", five)
	}
	for _, c := range []struct {
		query domain.UserQuery
		want  []domain.UserID
	}{
		{domain.UserQuery{Limit: 10}, []domain.UserID{1, 2, 3, 4, 5}},
		{domain.UserQuery{Root: acme, Limit: 10}, []domain.UserID{1, 2, 3, 5}},
		{domain.UserQuery{Root: acme, Limit: 2}, []domain.UserID{1, 2}},
		{domain.UserQuery{Root: acme, Limit: 2, After: 2}, []domain.UserID{3, 5}},
		{domain.UserQuery{Root: acme, Limit: 2, After: 5}, nil},
		{domain.UserQuery{Root: 99, Limit: 10}, nil},
		{domain.UserQuery{Application: "chat", Limit: 10}, []domain.UserID{1, 2, 4, 5}},
		{domain.UserQuery{Account: "acme", Limit: 10}, []domain.UserID{1, 2, 3}},
		{domain.UserQuery{Text: "anna", Limit: 10}, []domain.UserID{1, 3, 4, 5}},
		{domain.UserQuery{Text: "ANNA K", Limit: 10}, []domain.UserID{1}},
		{domain.UserQuery{Text: "nna@", Limit: 10}, nil},
		{domain.UserQuery{Text: "ärm", Limit: 10}, []domain.UserID{2}},
		{domain.UserQuery{Text: "0%", Limit: 10}, []domain.UserID{2}},
		{domain.UserQuery{Text: "%", Limit: 10}, []domain.UserID{2}},
		{domain.UserQuery{Text: "h_b", Limit: 10}, []domain.UserID{3}},
		{domain.UserQuery{Text: "!", Limit: 10}, nil},
		{domain.UserQuery{Text: "\x00", Limit: 10}, nil},
		{domain.UserQuery{Text: "anna", Limit: 0}, nil},
	} {
		list, err := s.SearchUsers(t.Context(), c.query)
		must(t, err)
		var got []domain.UserID
		for _, u := range list {
			got = append(got, u.ID)
		}
		equal(t, fmt.Sprintf("%+v", c.query), got, c.want)
	}
}

func deletedUsers(t *testing.T, b Backend) {
	// Messages stay attributed, and nobody ever inherits them by taking the name.
	s := open(t, b)
	u := create(t, s, domain.NewUser{Username: "gone@chat.acme", DisplayName: "Gone", PasswordHash: "hash"})
	family := [16]byte{1}
	must(t, s.StartFamily(t.Context(), domain.RefreshToken{Hash: [32]byte{1}, Family: family, User: u.ID, Expires: 1000}, 0))
	must(t, s.DeleteUser(t.Context(), u.ID))
	must(t, s.DeleteUser(t.Context(), u.ID))
	refused(t, "nobody", s.DeleteUser(t.Context(), 1<<40), domain.UserNotFound)
	u.Deleted = true
	found, err := s.FindUsers(t.Context(), []domain.UserRef{{Username: "gone@chat.acme"}})
	must(t, err)
	equal(t, "found", found, []domain.User{u})
	cred, err := s.Credential(t.Context(), "gone@chat.acme")
	must(t, err)
	equal(t, "credential", cred, domain.Credential{User: u})
	_, good, err := s.TokenUser(t.Context(), u.ID, family, 10)
	must(t, err)
	if good {
		t.Error("the tokens of a deleted user are good")
	}
	_, err = s.Refresh(t.Context(), [32]byte{1}, 10, domain.RefreshToken{Hash: [32]byte{2}, Expires: 1000})
	refused(t, "refresh", err, domain.NotAuthenticated)
	_, err = s.CreateUser(t.Context(), domain.NewUser{Username: "gone@chat.acme"})
	refused(t, "the name", err, domain.AlreadyExists)
	name := "Back"
	_, err = s.UpdateUser(t.Context(), u.ID, domain.UserPatch{DisplayName: &name})
	refused(t, "update", err, domain.UserNotFound)
	if list, err := s.SearchUsers(t.Context(), domain.UserQuery{Limit: 10}); err != nil || len(list) != 0 {
		t.Errorf("search: %v, %v", list, err)
	}
}

func services(t *testing.T, b Backend) {
	// The key is all that a backend proves itself with.
	s := open(t, b)
	key, next := [32]byte{1}, [32]byte{2}
	_, err := s.CreateService(t.Context(), "acme", "Billing", key, false)
	refused(t, "no account", err, domain.NotFound)
	_, err = s.CreateService(t.Context(), "acme", "bill/ing", key, true)
	refused(t, "not a name", err, domain.InvalidRequest)
	v, err := s.CreateService(t.Context(), "acme", "Billing", key, true)
	must(t, err)
	if v.ID <= 0 || v.Name != "Billing" || v.AccountName != "acme" || v.Account == 0 || v.Root != v.Account || v.KeyHash != key || v.Created == 0 {
		t.Errorf("created: %+v", v)
	}
	_, err = s.CreateService(t.Context(), "acme", "Billing", next, true)
	refused(t, "again", err, domain.AlreadyExists)
	_, err = s.CreateService(t.Context(), "acme", "Other", key, true)
	refused(t, "with the key of another", err, domain.Internal)
	got, err := s.ServiceByKey(t.Context(), key)
	must(t, err)
	equal(t, "by key", got, v)

	v.KeyHash = next
	got, err = s.RotateService(t.Context(), "acme", "Billing", next)
	must(t, err)
	equal(t, "rotated", got, v)
	_, err = s.ServiceByKey(t.Context(), key)
	refused(t, "the old key", err, domain.NotFound)
	_, err = s.RotateService(t.Context(), "acme", "Nobody", [32]byte{3})
	refused(t, "rotate nobody", err, domain.NotFound)

	child, err := s.CreateAccount(t.Context(), "branch", "acme")
	must(t, err)
	w, err := s.CreateService(t.Context(), "branch", "Billing", [32]byte{4}, false)
	must(t, err)
	if w.Root != v.Root || w.Account != child.ID {
		t.Errorf("of a child account: %+v", w)
	}
	x, err := s.CreateService(t.Context(), "other", "Billing", [32]byte{5}, true)
	must(t, err)
	for root, want := range map[domain.AccountID][]domain.Service{0: {v, w, x}, v.Root: {v, w}, x.Root: {x}, 99: {}} {
		list, err := s.Services(t.Context(), domain.TreeQuery{Root: root})
		must(t, err)
		equal(t, fmt.Sprint("of tree ", root), list, want)
	}
	must(t, s.DeleteService(t.Context(), "other", "Billing"))
	refused(t, "delete again", s.DeleteService(t.Context(), "other", "Billing"), domain.NotFound)
	refused(t, "delete nowhere", s.DeleteService(t.Context(), "nowhere", "Billing"), domain.NotFound)
	y, err := s.CreateService(t.Context(), "other", "Billing", [32]byte{5}, true)
	must(t, err)
	if y.ID == x.ID {
		t.Error("the number of a deleted service was given to another")
	}
}

func accounts(t *testing.T, b Backend) {
	// Who sees whom follows from the tree.
	s := open(t, b)
	acme, err := s.CreateAccount(t.Context(), "acme", "")
	must(t, err)
	branch, err := s.CreateAccount(t.Context(), "branch", "acme")
	must(t, err)
	other, err := s.CreateAccount(t.Context(), "other", "")
	must(t, err)
	on := domain.AccountSettings{EditMessages: domain.On, RemoveMessages: domain.On}
	equal(t, "main", acme, domain.Account{ID: acme.ID, Name: "acme", Root: acme.ID, Effective: on})
	equal(t, "child", branch, domain.Account{ID: branch.ID, Name: "branch", Parent: acme.ID, ParentName: "acme", Root: acme.ID, Effective: on})
	_, err = s.CreateAccount(t.Context(), "twig", "branch")
	refused(t, "grandchild", err, domain.InvalidRequest)
	_, err = s.CreateAccount(t.Context(), "acme", "")
	refused(t, "again", err, domain.AlreadyExists)
	_, err = s.CreateAccount(t.Context(), "twig", "nowhere")
	refused(t, "no parent", err, domain.NotFound)
	_, err = s.CreateAccount(t.Context(), "Twig", "")
	refused(t, "not a name", err, domain.InvalidRequest)
	for root, want := range map[domain.AccountID][]domain.Account{0: {acme, branch, other}, acme.ID: {acme, branch}, other.ID: {other}, 99: {}} {
		list, err := s.Accounts(t.Context(), domain.TreeQuery{Root: root})
		must(t, err)
		equal(t, fmt.Sprint("tree ", root), list, want)
	}
	for limit := 1; limit <= 3; limit++ {
		for root, want := range map[domain.AccountID][]domain.Account{0: {acme, branch, other}, acme.ID: {acme, branch}} {
			var list []domain.Account
			q := domain.TreeQuery{Root: root, Limit: limit}
			for len(list)%limit == 0 && len(list) < 4 {
				page, err := s.Accounts(t.Context(), q)
				must(t, err)
				if list = append(list, page...); len(page) == 0 {
					break
				}
				q.After = int64(page[len(page)-1].ID)
			}
			equal(t, fmt.Sprint("tree ", root, " in pages of ", limit), list, want)
		}
	}
	must(t, s.CreateApplication(t.Context(), "acme", "chat"))
	must(t, s.CreateApplication(t.Context(), "branch", "chat"))
	refused(t, "application again", s.CreateApplication(t.Context(), "acme", "chat"), domain.AlreadyExists)
	refused(t, "application nowhere", s.CreateApplication(t.Context(), "nowhere", "chat"), domain.NotFound)
	refused(t, "not an application's name", s.CreateApplication(t.Context(), "acme", "a b"), domain.InvalidRequest)
}

func accountSettings(t *testing.T, b Backend) {
	// What an operator has switched off must be off for everybody concerned, and for nobody else.
	s := open(t, b)
	w := NewWorld(t, s, 1)
	p := w.User(0)
	main, err := s.Accounts(t.Context(), domain.TreeQuery{Root: p.Root})
	must(t, err)
	child, err := s.CreateAccount(t.Context(), "branch", main[0].Name)
	must(t, err)
	member, err := s.CreateUser(t.Context(), domain.NewUser{Username: "kid@chat.branch", MakeAccount: true})
	must(t, err)
	kid := member.Principal("device")
	other, err := s.CreateUser(t.Context(), domain.NewUser{Username: "x@chat.elsewhere", MakeAccount: true})
	must(t, err)
	const later = domain.Switch(15 * 60 * 1000)
	in := func(what string, p domain.Principal, edit, remove domain.Switch) {
		t.Helper()
		h, err := s.Heads(t.Context(), p, domain.Needs{Settings: true})
		must(t, err)
		equal(t, what, h.Settings, domain.AccountSettings{EditMessages: edit, RemoveMessages: remove})
	}
	set := func(account string, edit, remove *domain.Switch) domain.Account {
		t.Helper()
		a, err := s.EditSettings(t.Context(), account, domain.SettingsEdit{EditMessages: edit, RemoveMessages: remove})
		must(t, err)
		again, err := s.Account(t.Context(), account)
		must(t, err)
		equal(t, "read again", again, a)
		return a
	}
	to := func(s domain.Switch) *domain.Switch { return &s }
	in("at first", p, domain.On, domain.On)
	set(main[0].Name, to(domain.Off), nil)
	in("main account", p, domain.Off, domain.On)
	in("its child", kid, domain.Off, domain.On)
	in("another tree", other.Principal(""), domain.On, domain.On)
	a := set(child.Name, to(later), to(domain.Off))
	equal(t, "the child's own", a.Settings, domain.AccountSettings{EditMessages: later, RemoveMessages: domain.Off})
	in("child apart", kid, later, domain.Off)
	in("main account as before", p, domain.Off, domain.On)
	set(child.Name, to(domain.Inherit), to(domain.On))
	in("child as the main account", kid, domain.Off, domain.On)
	set(main[0].Name, to(domain.Inherit), to(domain.Off))
	in("main account open", p, domain.On, domain.Off)
	in("child with its own", kid, domain.On, domain.On)
	in("a backend", domain.Principal{Admin: true}, domain.Inherit, domain.Inherit)
	_, err = s.Account(t.Context(), "nowhere")
	refused(t, "no account", err, domain.NotFound)
	_, err = s.EditSettings(t.Context(), "nowhere", domain.SettingsEdit{EditMessages: to(domain.On)})
	refused(t, "settings of no account", err, domain.NotFound)
}

func emptyAccounts(t *testing.T, b Backend) {
	// Deleting an account must take nothing along, and give no name of a user to somebody else.
	s := open(t, b)
	ctx := t.Context()
	parents := map[string]string{"talking": "peopled"}
	for _, name := range []string{"acme", "empty", "served", "peopled", "talking"} {
		_, err := s.CreateAccount(ctx, name, parents[name])
		must(t, err)
		must(t, s.CreateApplication(ctx, name, "chat"))
		must(t, s.CreateApplication(ctx, name, "alarm"))
	}
	_, err := s.CreateAccount(ctx, "branch", "acme")
	must(t, err)
	key := [32]byte{1}
	_, err = s.CreateService(ctx, "served", "billing", key, false)
	must(t, err)
	u, err := s.CreateUser(ctx, domain.NewUser{Username: "ann@chat.peopled"})
	must(t, err)
	service, err := s.CreateService(ctx, "talking", "bot", [32]byte{2}, false)
	must(t, err)
	w := NewWorld(t, s, 0)
	w.Change(s.Committers()[0], service.Principal(), &domain.CreateConversation{
		Participants: []domain.NewParticipant{{UserRef: domain.UserRef{UserID: u.ID}}},
	})
	must(t, s.DeleteUser(ctx, u.ID))

	names, err := s.Applications(ctx, "acme")
	must(t, err)
	equal(t, "applications", names, []string{"alarm", "chat"})
	_, err = s.Applications(ctx, "nowhere")
	refused(t, "applications of no account", err, domain.NotFound)
	refused(t, "an application with a user", s.DeleteApplication(ctx, "peopled", "chat"), domain.InUse)
	must(t, s.DeleteApplication(ctx, "peopled", "alarm"))
	refused(t, "an application that is gone", s.DeleteApplication(ctx, "peopled", "alarm"), domain.NotFound)

	for _, name := range []string{"acme", "served", "peopled", "talking"} {
		refused(t, name, s.DeleteAccount(ctx, name), domain.InUse)
	}
	must(t, s.DeleteService(ctx, "talking", "bot"))
	refused(t, "an account with a conversation", s.DeleteAccount(ctx, "talking"), domain.InUse)
	must(t, s.DeleteService(ctx, "served", "billing"))
	for _, name := range []string{"empty", "served", "branch", "acme"} {
		must(t, s.DeleteAccount(ctx, name))
		refused(t, name+" again", s.DeleteAccount(ctx, name), domain.NotFound)
	}
	names, err = s.Applications(ctx, "peopled")
	must(t, err)
	equal(t, "what was refused stays", names, []string{"chat"})
	list, err := s.Accounts(ctx, domain.TreeQuery{})
	must(t, err)
	if len(list) != 2 {
		t.Errorf("left are %+v", list)
	}
	again, err := s.CreateAccount(ctx, "acme", "")
	must(t, err)
	names, err = s.Applications(ctx, "acme")
	must(t, err)
	if len(names) != 0 || again.Parent != 0 {
		t.Errorf("made again, the account is %+v with %v", again, names)
	}
}
