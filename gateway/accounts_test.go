package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"strconv"
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
		Password: Argon2{Memory: 64, Passes: 1, Lanes: 1}, Parallel: 2, Queue: 1, AdminKey: &digest, MostLogins: 7,
		Now:   func() time.Time { return o.clock },
		Ended: func(p domain.Principal, _ bool) { o.ended = append(o.ended, p) },
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
	for range cap(o.hasher.slots.free) {
		o.hasher.slots.free <- struct{}{} // every slot is taken
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
	for range cap(o.hasher.slots.free) {
		o.hasher.slots.free <- struct{}{}
	}
	first := make(chan error)
	go func() {
		_, err := o.Login(context.WithoutCancel(t.Context()), "alice@chat.acme", "secret")
		first <- err
	}()
	for o.hasher.slots.waiting.Load() == 0 {
		select {
		case err := <-first:
			t.Fatalf("the first login did not wait: %v", err)
		default:
		}
	}
	_, err := o.Login(t.Context(), "alice@chat.acme", "secret")
	wantCode(t, "one more than may wait", err, domain.RateLimited)
	<-o.hasher.slots.free
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

func TestAPasswordMayLookLikeAToken(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	password := "eyJhbGciOiJub25lIn0.e30.x"
	if _, err := o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{Password: &password}); err != nil {
		t.Fatal(err)
	}
	p, expires, err := o.Authenticate(t.Context(), domain.Hello{Username: "alice@chat.acme", Password: password, Device: "d"})
	if err != nil || p.Username != "alice@chat.acme" || !expires.IsZero() {
		t.Errorf("%+v until %v, %v", p, expires, err)
	}
	_, _, err = o.Authenticate(t.Context(), domain.Hello{Username: "alice@chat.acme", Password: password + "x", Device: "d"})
	wantCode(t, "another one", err, domain.NotAuthenticated)
}

func TestAnExpiredTokenIsNotTriedAsAPassword(t *testing.T) {
	// A thousand devices with old tokens must not cost a thousand slow hashes.
	o := newOffice(t)
	o.user("alice@chat.acme")
	login := o.login("alice@chat.acme")
	for range cap(o.hasher.slots.free) {
		o.hasher.slots.free <- struct{}{}
	}
	o.clock = o.clock.Add(48 * time.Hour)
	_, _, err := o.Authenticate(t.Context(), domain.Hello{Username: "alice@chat.acme", Password: login.AccessToken, Device: "d"})
	wantCode(t, "expired", err, domain.NotAuthenticated)
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

func TestARightPasswordIsRememberedForAWhile(t *testing.T) {
	// Otherwise a thousand devices that reconnect at once wait for a thousand slow hashes.
	o := newOffice(t)
	o.user("alice@chat.acme")
	o.login("alice@chat.acme")
	busy, cancel := context.WithCancel(t.Context())
	cancel()
	for range cap(o.hasher.slots.free) {
		o.hasher.slots.free <- struct{}{} // nothing can be hashed
	}
	try := func(password string) error {
		_, _, err := o.Authenticate(busy, domain.Hello{Username: "alice@chat.acme", Password: password, Device: "d"})
		return err
	}
	if err := try("secret"); err != nil {
		t.Errorf("a password that was right a moment ago: %v", err)
	}
	wantCode(t, "a wrong one", try("Secret"), domain.Unavailable)
	o.clock = o.clock.Add(5 * time.Minute)
	wantCode(t, "five minutes later", try("secret"), domain.Unavailable)

	for range cap(o.hasher.slots.free) {
		<-o.hasher.slots.free
	}
	o.login("alice@chat.acme")
	password := "other"
	if _, err := o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{Password: &password}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "the password before", second(o.Login(t.Context(), "alice@chat.acme", "secret")), domain.NotAuthenticated)
	if err := o.DeleteUser(t.Context(), admin(), "alice@chat.acme"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "after deletion", try("other"), domain.NotAuthenticated)
}

func TestThePasswordCacheIsBounded(t *testing.T) {
	o := newOffice(t)
	c := o.hasher.cache
	for i := range c.most + 10 {
		c.learn("hash", strconv.Itoa(i))
	}
	if n := len(c.entries); n > c.most || n < c.most/2 {
		t.Errorf("%d entries, at most %d wanted", n, c.most)
	}
	if !c.knows("hash", strconv.Itoa(c.most+9)) {
		t.Error("it has forgotten the newest")
	}
	c, err := newPasswordCache(o.random, -1, o.now)
	if err != nil {
		t.Fatal(err)
	}
	if c.learn("hash", "x"); c.knows("hash", "x") || len(c.entries) != 0 {
		t.Error("it remembers although it should not")
	}
}

func TestOptionsOutOfRangeAreErrors(t *testing.T) {
	b := newBooks()
	for what, o := range map[string]AccountsOptions{
		"memory":   {Password: Argon2{Memory: 1 << 30}, PasswordMost: generous()},
		"passes":   {Password: Argon2{Passes: 1000}, PasswordMost: generous()},
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
