package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/metrics/metricstest"
)

const adminKey = "the admin key"

// office is Accounts over books, with a clock that the test moves and passwords that cost little.
type office struct {
	*Accounts
	t     *testing.T
	books *books
	clock time.Time
	ended []domain.Principal
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, books: newBooks(), clock: time.UnixMilli(1_700_000_000_123)}
	digest := sha256.Sum256([]byte(adminKey))
	var err error
	o.Accounts, err = NewAccounts(o.books, o.books, o.books, AccountsOptions{
		Password: Argon2{Memory: 64, Passes: 1, Lanes: 1}, Parallel: 2, Queue: 1, AdminKey: &digest,
		Now:   func() time.Time { return o.clock },
		Ended: func(p domain.Principal) { o.ended = append(o.ended, p) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func admin() domain.Principal { return domain.Principal{Admin: true} }

// user creates a user with the password "secret" and gives its principal.
func (o *office) user(name string) domain.Principal {
	o.t.Helper()
	password := "secret"
	u, err := o.CreateUser(o.t.Context(), admin(), domain.UserRequest{Username: domain.Username(name), Password: &password})
	if err != nil {
		o.t.Fatalf("creating %s: %v", name, err)
	}
	return u.Principal("")
}

// service creates a service and gives its principal and key.
func (o *office) service(account, name string) (domain.Principal, string) {
	o.t.Helper()
	s, key, err := o.CreateService(o.t.Context(), admin(), account, name)
	if err != nil {
		o.t.Fatalf("creating service %s of %s: %v", name, account, err)
	}
	return s.Principal(), key
}

func (o *office) login(name string) domain.Login {
	o.t.Helper()
	login, err := o.Login(o.t.Context(), name, "secret")
	if err != nil {
		o.t.Fatalf("login of %s: %v", name, err)
	}
	return login
}

func wantCode(t *testing.T, what string, err error, want domain.Code) {
	t.Helper()
	if got := domain.CodeOf(err); got != want {
		t.Errorf("%s: got %q (%v), want %q", what, got, err, want)
	}
}

func TestWrongNameWrongPasswordAndDeletedUserGetTheSameAnswer(t *testing.T) {
	// Otherwise anybody could find out who has an account.
	o := newOffice(t)
	o.user("alice@chat.acme")
	o.user("gone@chat.acme")
	if err := o.DeleteUser(t.Context(), admin(), "gone@chat.acme"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.CreateUser(t.Context(), admin(), domain.UserRequest{Username: "nopass@chat.acme"}); err != nil {
		t.Fatal(err)
	}
	answers := make(map[string][]string)
	for what, login := range map[string][2]string{
		"wrong password":    {"alice@chat.acme", "wrong"},
		"no such user":      {"nobody@chat.acme", "secret"},
		"no such account":   {"alice@chat.globex", "secret"},
		"not a name":        {"alice", "secret"},
		"deleted":           {"gone@chat.acme", "secret"},
		"without password":  {"nopass@chat.acme", "secret"},
		"empty password":    {"alice@chat.acme", ""},
		"password with NUL": {"alice@chat.acme", "secret\x00"},
	} {
		_, err := o.Login(t.Context(), login[0], login[1])
		wantCode(t, what, err, domain.NotAuthenticated)
		answers[domain.AsError(err).Detail] = append(answers[domain.AsError(err).Detail], what)
		_, _, err = o.Authenticate(t.Context(), domain.Hello{Username: login[0], Password: login[1], Device: "d"})
		wantCode(t, "over MQTT: "+what, err, domain.NotAuthenticated)
		answers[domain.AsError(err).Detail] = append(answers[domain.AsError(err).Detail], what)
	}
	if len(answers) != 1 {
		t.Errorf("the answers can be told apart: %q", answers)
	}
	o.login("alice@chat.acme")
}

func TestEveryLoginTakesItsTurnAtCheckingAPassword(t *testing.T) {
	// A user who is not there must cost the same time as one who is: the same hash, after the same queue.
	o := newOffice(t)
	o.user("alice@chat.acme")
	for range cap(o.hasher.slots) {
		o.hasher.slots <- struct{}{} // every slot is taken
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range []string{"alice@chat.acme", "nobody@chat.acme", "not a name"} {
		_, err := o.Login(ended, name, "secret")
		wantCode(t, name, err, domain.Unavailable)
	}
}

func TestLoginsBeyondTheQueueAreRateLimited(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	for range cap(o.hasher.slots) {
		o.hasher.slots <- struct{}{}
	}
	first := make(chan error)
	go func() {
		_, err := o.Login(context.WithoutCancel(t.Context()), "alice@chat.acme", "secret")
		first <- err
	}()
	for o.hasher.waiting.Load() == 0 {
		select {
		case err := <-first:
			t.Fatalf("the first login did not wait: %v", err)
		default:
		}
	}
	_, err := o.Login(t.Context(), "alice@chat.acme", "secret")
	wantCode(t, "one more than may wait", err, domain.RateLimited)
	<-o.hasher.slots
	if err := <-first; err != nil {
		t.Errorf("the login that waited: %v", err)
	}
}

func TestAStoreThatIsDownIsNotAWrongPassword(t *testing.T) {
	// Clients throw away a password that is called wrong, and try again where something is unavailable.
	o := newOffice(t)
	o.user("alice@chat.acme")
	login := o.login("alice@chat.acme")
	_, key := o.service("acme", "billing")
	o.books.down = domain.Errorf(domain.Unavailable, "no store")
	_, err := o.Login(t.Context(), "alice@chat.acme", "secret")
	wantCode(t, "login", err, domain.Unavailable)
	_, err = o.Bearer(t.Context(), login.AccessToken)
	wantCode(t, "access token", err, domain.Unavailable)
	_, err = o.Bearer(t.Context(), key)
	wantCode(t, "API key", err, domain.Unavailable)
	_, err = o.Refresh(t.Context(), login.RefreshToken)
	wantCode(t, "refresh", err, domain.Unavailable)
}

func TestAnAccessTokenIsAPasswordForItsOwnUserOnly(t *testing.T) {
	o := newOffice(t)
	alice := o.user("alice@chat.acme")
	o.user("bob@chat.acme")
	login := o.login("alice@chat.acme")
	p, expires, err := o.Authenticate(t.Context(), domain.Hello{Username: "alice@chat.acme", Password: login.AccessToken, Device: "phone"})
	if err != nil {
		t.Fatal(err)
	}
	if p.User != alice.User || p.Device != "phone" || !p.IsUser() {
		t.Errorf("principal %+v", p)
	}
	if expires.UnixMilli() != login.AccessExpires || expires.Sub(o.clock) > 48*time.Hour || expires.Sub(o.clock) < 48*time.Hour-time.Second {
		t.Errorf("expires %v, told %d", expires, login.AccessExpires)
	}
	_, _, err = o.Authenticate(t.Context(), domain.Hello{Username: "bob@chat.acme", Password: login.AccessToken, Device: "phone"})
	wantCode(t, "somebody else's token", err, domain.NotAuthenticated)
	_, expires, err = o.Authenticate(t.Context(), domain.Hello{Username: "alice@chat.acme", Password: "secret", Device: "phone"})
	if err != nil || !expires.IsZero() {
		t.Errorf("a login by password expires at %v, %v", expires, err)
	}
}

func TestAServiceConnectsUnderItsOwnNameOnly(t *testing.T) {
	o := newOffice(t)
	billing, key := o.service("acme", "Billing")
	for name, good := range map[string]bool{
		"service/Billing@acme":   true,
		"service/billing@acme":   false,
		"service/Billing@globex": false,
		"service/Billing":        false,
		"Billing@acme":           false,
		"alice@chat.acme":        false,
	} {
		p, _, err := o.Authenticate(t.Context(), domain.Hello{Username: name, Password: key, Device: "d"})
		switch {
		case !good:
			wantCode(t, name, err, domain.NotAuthenticated)
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case p.Service != billing.Service || p.Device != "d":
			t.Errorf("%s is %+v", name, p)
		}
	}
	_, _, err := o.Authenticate(t.Context(), domain.Hello{Username: "service/Billing@acme", Password: adminKey})
	wantCode(t, "admin key over MQTT", err, domain.NotAuthenticated)
}

func TestBearerKnowsKeysTokensAndTheAdmin(t *testing.T) {
	o := newOffice(t)
	alice := o.user("alice@chat.acme")
	billing, key := o.service("acme", "billing")
	if !strings.HasPrefix(key, "pk_") || len(key) != 3+43 {
		t.Errorf("key %q", key)
	}
	login := o.login("alice@chat.acme")
	for what, want := range map[string]struct {
		token string
		p     domain.Principal
	}{
		"admin key":    {adminKey, admin()},
		"API key":      {key, billing},
		"access token": {login.AccessToken, alice},
	} {
		p, err := o.Bearer(t.Context(), want.token)
		if err != nil || p != want.p {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
	for what, token := range map[string]string{
		"nothing": "", "refresh token": login.RefreshToken, "password": "secret", "half an API key": key[:20],
		"another API key": "pk_" + strings.Repeat("a", 43), "changed token": login.AccessToken + "A",
		"token without signature": login.AccessToken[:strings.LastIndexByte(login.AccessToken, '.')+1],
	} {
		_, err := o.Bearer(t.Context(), token)
		wantCode(t, what, err, domain.NotAuthenticated)
	}
}

func TestNoAdminKeyMeansNoAdmin(t *testing.T) {
	b := newBooks()
	a, err := NewAccounts(b, b, b, AccountsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", adminKey} {
		_, err := a.Bearer(t.Context(), token)
		wantCode(t, "token "+token, err, domain.NotAuthenticated)
	}
}

func TestARefreshTokenWorksOnceAndItsReuseEndsTheLogin(t *testing.T) {
	// Two parties that use one refresh token means that one of them has stolen it.
	o := newOffice(t)
	o.user("alice@chat.acme")
	first := o.login("alice@chat.acme")
	other := o.login("alice@chat.acme")
	o.clock = o.clock.Add(time.Hour)
	second, err := o.Refresh(t.Context(), first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if second.User.Username != "alice@chat.acme" || second.RefreshToken == first.RefreshToken || second.AccessToken == first.AccessToken {
		t.Errorf("refreshed: %+v", second)
	}
	if second.RefreshExpires != o.clock.Add(30*24*time.Hour).UnixMilli() {
		t.Errorf("the new refresh token expires at %d", second.RefreshExpires)
	}
	_, err = o.Refresh(t.Context(), first.RefreshToken)
	wantCode(t, "second use", err, domain.NotAuthenticated)
	_, err = o.Refresh(t.Context(), second.RefreshToken)
	wantCode(t, "the token that the first use gave", err, domain.NotAuthenticated)
	_, err = o.Bearer(t.Context(), second.AccessToken)
	wantCode(t, "the access token that it gave", err, domain.NotAuthenticated)
	if _, err := o.Bearer(t.Context(), other.AccessToken); err != nil {
		t.Errorf("another login of the same user: %v", err)
	}
}

func TestLogoutEndsOneLogin(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	first, second := o.login("alice@chat.acme"), o.login("alice@chat.acme")
	if err := o.Logout(t.Context(), first.AccessToken); err != nil {
		t.Fatal(err)
	}
	_, err := o.Bearer(t.Context(), first.AccessToken)
	wantCode(t, "access token after logout", err, domain.NotAuthenticated)
	_, err = o.Refresh(t.Context(), first.RefreshToken)
	wantCode(t, "refresh token after logout", err, domain.NotAuthenticated)
	wantCode(t, "second logout", o.Logout(t.Context(), first.AccessToken), domain.NotAuthenticated)
	if _, err := o.Bearer(t.Context(), second.AccessToken); err != nil {
		t.Errorf("the other login: %v", err)
	}
	_, key := o.service("acme", "billing")
	wantCode(t, "logout of a service", o.Logout(t.Context(), key), domain.AccessDenied)
	wantCode(t, "logout of the admin", o.Logout(t.Context(), adminKey), domain.AccessDenied)
}

func TestANewPasswordADeletionAndARevocationEndEveryLogin(t *testing.T) {
	for what, end := range map[string]func(o *office) error{
		"new password": func(o *office) error {
			password := "other"
			_, err := o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{Password: &password})
			return err
		},
		"deletion":   func(o *office) error { return o.DeleteUser(t.Context(), admin(), "alice@chat.acme") },
		"revocation": func(o *office) error { return o.RevokeTokens(t.Context(), admin(), "alice@chat.acme") },
	} {
		o := newOffice(t)
		alice := o.user("alice@chat.acme")
		login := o.login("alice@chat.acme")
		o.clock = o.clock.Add(time.Millisecond)
		if err := end(o); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		_, err := o.Bearer(t.Context(), login.AccessToken)
		wantCode(t, "access token after "+what, err, domain.NotAuthenticated)
		_, err = o.Refresh(t.Context(), login.RefreshToken)
		wantCode(t, "refresh token after "+what, err, domain.NotAuthenticated)
		if len(o.ended) != 1 || o.ended[0].User != alice.User {
			t.Errorf("after %s the sessions of %+v were to be closed", what, o.ended)
		}
	}
}

func TestALoginThatOverlapsARevocationDoesNotOutliveIt(t *testing.T) {
	// Who knows the old password must not slip in while it is being changed.
	o := newOffice(t)
	alice := o.user("alice@chat.acme")
	o.minter.ring.store = duringSigning{o.books, func() {
		if err := o.books.RevokeUser(t.Context(), alice.User, o.clock.Add(time.Millisecond).UnixMilli()); err != nil {
			t.Error(err)
		}
	}}
	_, err := o.Login(t.Context(), "alice@chat.acme", "secret")
	wantCode(t, "login", err, domain.NotAuthenticated)
	for _, f := range o.books.families {
		if !f.revoked {
			t.Error("the refresh token is still good")
		}
	}
}

// duringSigning does something between the check of a password and the login.
type duringSigning struct {
	*books
	do func()
}

func (d duringSigning) SigningKeys(ctx context.Context) ([]domain.SigningKey, error) {
	d.do()
	return d.books.SigningKeys(ctx)
}

func TestBackendsIssueTokensForUsersOfTheirTree(t *testing.T) {
	o := newOffice(t)
	alice := o.user("alice@chat.acme")
	o.user("eve@chat.globex")
	billing, _ := o.service("acme", "billing")
	for what, p := range map[string]domain.Principal{"service": billing, "admin": admin()} {
		tokens, err := o.IssueTokens(t.Context(), p, "alice@chat.acme")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got, err := o.Bearer(t.Context(), tokens.AccessToken); err != nil || got != alice {
			t.Errorf("%s: the token is of %+v, %v", what, got, err)
		}
		if _, err := o.Refresh(t.Context(), tokens.RefreshToken); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := o.IssueTokens(t.Context(), billing, "eve@chat.globex")
	wantCode(t, "user of another tree", err, domain.UserNotFound)
	_, err = o.IssueTokens(t.Context(), alice, "alice@chat.acme")
	wantCode(t, "user", err, domain.AccessDenied)
	_, err = o.IssueTokens(t.Context(), domain.Principal{}, "alice@chat.acme")
	wantCode(t, "nobody", err, domain.NotAuthenticated)
	if err := o.RevokeTokens(t.Context(), alice, "alice@chat.acme"); err != nil {
		t.Errorf("a user ends its own logins: %v", err)
	}
	o.user("bob@chat.acme")
	wantCode(t, "a user ends another's", o.RevokeTokens(t.Context(), alice, "bob@chat.acme"), domain.AccessDenied)
}

func TestServicesAdministerTheirOwnTreeOnly(t *testing.T) {
	// Whatever a service may not know of must answer as if it were not there.
	o := newOffice(t)
	billing, _ := o.service("acme", "billing")
	o.service("globex", "spy")
	alice, eve := o.user("alice@chat.acme"), o.user("eve@chat.globex")
	if _, err := o.CreateAccount(t.Context(), billing, "acme-labs", ""); err != nil {
		t.Fatalf("child account: %v", err)
	}
	if _, err := o.CreateUser(t.Context(), billing, domain.UserRequest{Username: "bob@new.acme-labs"}); err != nil {
		t.Errorf("user in a child account: %v", err)
	}
	for what, call := range map[string]struct {
		err  error
		want domain.Code
	}{
		"user elsewhere":       {second(o.CreateUser(t.Context(), billing, domain.UserRequest{Username: "x@chat.globex"})), domain.AccessDenied},
		"user nowhere":         {second(o.CreateUser(t.Context(), billing, domain.UserRequest{Username: "x@chat.nowhere"})), domain.AccessDenied},
		"user by a user":       {second(o.CreateUser(t.Context(), alice, domain.UserRequest{Username: "x@chat.acme"})), domain.AccessDenied},
		"edit elsewhere":       {second(o.UpdateUser(t.Context(), billing, "eve@chat.globex", domain.UserEdit{})), domain.UserNotFound},
		"edit nobody":          {second(o.UpdateUser(t.Context(), billing, "nobody@chat.acme", domain.UserEdit{})), domain.UserNotFound},
		"edit oneself":         {second(o.UpdateUser(t.Context(), eve, "eve@chat.globex", domain.UserEdit{})), domain.AccessDenied},
		"delete elsewhere":     {o.DeleteUser(t.Context(), billing, "eve@chat.globex"), domain.UserNotFound},
		"delete by a user":     {o.DeleteUser(t.Context(), alice, "alice@chat.acme"), domain.AccessDenied},
		"service elsewhere":    {third(o.CreateService(t.Context(), billing, "globex", "mole")), domain.AccessDenied},
		"rotate elsewhere":     {third(o.RotateService(t.Context(), billing, "globex", "spy")), domain.NotFound},
		"delete service":       {o.DeleteService(t.Context(), billing, "globex", "spy"), domain.NotFound},
		"service by a user":    {third(o.CreateService(t.Context(), alice, "acme", "mine")), domain.AccessDenied},
		"main account":         {second(o.CreateAccount(t.Context(), billing, "other", "globex")), domain.NotFound},
		"grandchild":           {second(o.CreateAccount(t.Context(), billing, "deep", "acme-labs")), domain.InvalidRequest},
		"taken name":           {second(o.CreateAccount(t.Context(), billing, "globex", "")), domain.AlreadyExists},
		"account by a user":    {second(o.CreateAccount(t.Context(), alice, "mine", "")), domain.AccessDenied},
		"application":          {o.CreateApplication(t.Context(), billing, "globex", "chat2"), domain.AccessDenied},
		"services by a user":   {second(o.Services(t.Context(), alice)), domain.AccessDenied},
		"accounts by a user":   {second(o.Accounts.Accounts(t.Context(), alice)), domain.AccessDenied},
		"accounts by nobody":   {second(o.Accounts.Accounts(t.Context(), domain.Principal{})), domain.NotAuthenticated},
		"search by nobody":     {second(o.SearchUsers(t.Context(), domain.Principal{}, domain.UserQuery{Limit: 1})), domain.NotAuthenticated},
		"look-up elsewhere":    {second(o.FindUsers(t.Context(), alice, []domain.UserRef{{UserID: eve.User}})), domain.UserNotFound},
		"look-up of too many":  {second(o.FindUsers(t.Context(), alice, make([]domain.UserRef, 51))), domain.InvalidRequest},
		"user that is there":   {second(o.CreateUser(t.Context(), billing, domain.UserRequest{Username: "alice@chat.acme"})), domain.AlreadyExists},
		"user without a name":  {second(o.CreateUser(t.Context(), billing, domain.UserRequest{})), domain.InvalidRequest},
		"service without name": {third(o.CreateService(t.Context(), billing, "", "")), domain.InvalidRequest},
		"page without end":     {second(o.SearchUsers(t.Context(), alice, domain.UserQuery{Limit: 1000})), domain.InvalidRequest},
	} {
		wantCode(t, what, call.err, call.want)
	}
	found, err := o.SearchUsers(t.Context(), alice, domain.UserQuery{Limit: 10})
	if err != nil || !slices.Equal(namesOf(found), []string{"alice@chat.acme", "bob@new.acme-labs"}) {
		t.Errorf("a user's search finds %v, %v", namesOf(found), err)
	}
	found, err = o.SearchUsers(t.Context(), admin(), domain.UserQuery{Limit: 10})
	if err != nil || len(found) != 3 {
		t.Errorf("the admin's search finds %v, %v", namesOf(found), err)
	}
	list, err := o.Services(t.Context(), billing)
	if err != nil || len(list) != 1 || list[0].Name != "billing" {
		t.Errorf("services %v, %v", list, err)
	}
}

func second[T any](_ T, err error) error { return err }

func third[T, U any](_ T, _ U, err error) error { return err }

func namesOf(users []domain.User) []string {
	names := make([]string, len(users))
	for i, u := range users {
		names[i] = string(u.Username)
	}
	return names
}

func TestARotatedKeyEndsTheOldOne(t *testing.T) {
	o := newOffice(t)
	billing, old := o.service("acme", "billing")
	_, fresh, err := o.RotateService(t.Context(), billing, "", "billing")
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Bearer(t.Context(), old)
	wantCode(t, "old key", err, domain.NotAuthenticated)
	if p, err := o.Bearer(t.Context(), fresh); err != nil || p != billing {
		t.Errorf("new key: %+v, %v", p, err)
	}
	if err := o.DeleteService(t.Context(), admin(), "acme", "billing"); err != nil {
		t.Fatal(err)
	}
	_, err = o.Bearer(t.Context(), fresh)
	wantCode(t, "key of a deleted service", err, domain.NotAuthenticated)
	if len(o.ended) != 2 || o.ended[0].Service != billing.Service || o.ended[1].Service != billing.Service {
		t.Errorf("the sessions of %+v were to be closed", o.ended)
	}
}

func TestPasswordsAndRecordsHaveBounds(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	long := domain.RawObject(`{"x":"` + strings.Repeat("y", maxUserData) + `"}`)
	for what, e := range map[string]domain.UserEdit{
		"empty password":      {Password: new("")},
		"long password":       {Password: new(strings.Repeat("x", 1025))},
		"password with NUL":   {Password: new("a\x00b")},
		"password not UTF-8":  {Password: new("a\xff")},
		"long display name":   {DisplayName: new(strings.Repeat("ü", 257))},
		"display name of NUL": {DisplayName: new("\x00")},
		"large customData":    {CustomData: &long},
	} {
		_, err := o.UpdateUser(t.Context(), admin(), "alice@chat.acme", e)
		wantCode(t, what, err, domain.InvalidRequest)
	}
	longest := strings.Repeat("ü", 512)
	if _, err := o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{Password: &longest}); err != nil {
		t.Fatal(err)
	}
	o.clock = o.clock.Add(time.Millisecond)
	if _, err := o.Login(t.Context(), "alice@chat.acme", longest); err != nil {
		t.Errorf("login with the longest password: %v", err)
	}
}

func TestAnEditLeavesWhatItDoesNotName(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	data := domain.RawObject(`{"a":1}`)
	u, err := o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{DisplayName: new("Alice"), CustomData: &data})
	if err != nil || u.DisplayName != "Alice" || !u.CustomData.Equal(data) {
		t.Fatalf("%+v, %v", u, err)
	}
	u, err = o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{})
	if err != nil || u.DisplayName != "Alice" || !u.CustomData.Equal(data) {
		t.Errorf("after an empty edit: %+v, %v", u, err)
	}
	none := domain.RawObject(`{ }`)
	u, err = o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{CustomData: &none})
	if err != nil || u.DisplayName != "Alice" || u.CustomData != nil {
		t.Errorf("after {}: %+v, %v", u, err)
	}
	if len(o.ended) != 0 {
		t.Error("an edit without password ended sessions")
	}
}

func TestOptionsOutOfRangeAreErrors(t *testing.T) {
	b := newBooks()
	for what, o := range map[string]AccountsOptions{
		"memory":   {Password: Argon2{Memory: 1 << 30}},
		"passes":   {Password: Argon2{Passes: 1000}},
		"lanes":    {Password: Argon2{Memory: 8, Lanes: 4}},
		"parallel": {Parallel: -1},
		"life":     {AccessLife: -time.Second},
	} {
		if _, err := NewAccounts(b, b, b, o); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := NewAccounts(nil, b, b, AccountsOptions{}); err == nil {
		t.Error("no directory: no error")
	}
	registry := prometheus.NewRegistry()
	if _, err := NewAccounts(b, b, b, AccountsOptions{Registerer: registry}); err != nil {
		t.Error(err)
	}
	var twice prometheus.AlreadyRegisteredError
	if _, err := NewAccounts(b, b, b, AccountsOptions{Registerer: registry}); !errors.As(err, &twice) {
		t.Errorf("registered twice: %v", err)
	}
}

func TestLoginMetricsKeepTheirNames(t *testing.T) {
	metricstest.Golden(t, "testdata/metrics_login.txt", func(r prometheus.Registerer) {
		if _, err := newLoginMetrics(r, func() float64 { return 0 }); err != nil {
			t.Error(err)
		}
	})
}
