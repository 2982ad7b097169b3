package gateway

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/parley-im/parley/domain"
)

// vouchers are Issuers and a LoginService that say what the test tells them to.
type vouchers struct {
	tokens map[string]domain.Vouched // by token; those that start with "their" are known
	err    error

	answer  domain.Answer
	asked   []domain.Attempt
	waiting chan struct{} // if not nil, Ask says that it is waiting, until ctx ends
}

func (v *vouchers) Verify(_ context.Context, token string) (domain.Vouched, bool, error) {
	if !strings.HasPrefix(token, "their") {
		return domain.Vouched{}, false, nil
	}
	if v.err != nil {
		return domain.Vouched{}, true, v.err
	}
	found, ok := v.tokens[token]
	if !ok {
		return domain.Vouched{}, true, domain.Errorf(domain.NotAuthenticated, "the token is not valid")
	}
	return found, true, nil
}

func (v *vouchers) Governs(name domain.Username) bool {
	return strings.HasSuffix(string(name), ".acme")
}

func (v *vouchers) Ask(ctx context.Context, a domain.Attempt) (domain.Answer, error) {
	if v.waiting != nil {
		v.waiting <- struct{}{}
		<-ctx.Done()
		return domain.Answer{}, domain.Because(domain.Unavailable, ctx.Err(), "gone")
	}
	v.asked = append(v.asked, a)
	return v.answer, v.err
}

// newConsulate is an office that believes others.
func newConsulate(t *testing.T, v *vouchers) *office {
	t.Helper()
	o := newOffice(t)
	o.issuers, o.Accounts.service = v, v
	return o
}

func (o *office) hello(name, password string) (domain.Principal, time.Time, error) {
	return o.Authenticate(o.t.Context(), domain.Hello{Username: name, Password: password, Device: "phone", Remote: "192.0.2.1:5"})
}

func TestTokensOfOtherIssuersOpenTheDoorToTheirUsers(t *testing.T) {
	v := &vouchers{tokens: make(map[string]domain.Vouched)}
	o := newConsulate(t, v)
	o.user("alice@chat.acme")
	o.user("gone@chat.acme")
	if err := o.DeleteUser(t.Context(), admin(), "gone@chat.acme"); err != nil {
		t.Fatal(err)
	}
	ends := o.clock.Add(time.Minute)
	say := func(name domain.Username, create bool) domain.Vouched {
		return domain.Vouched{Username: name, DisplayName: "New", Issued: o.clock.UnixMilli(), Expires: ends, Create: create}
	}
	v.tokens["theirs of alice"] = say("alice@chat.acme", false)
	v.tokens["theirs of nobody"] = say("nobody@chat.acme", false)
	v.tokens["theirs of the new"] = say("new@web.newacme", true)
	v.tokens["theirs of gone"] = say("gone@chat.acme", true)

	p, expires, err := o.hello("alice@chat.acme", "theirs of alice")
	if err != nil || !p.External || !p.ByToken() || p.Username != "alice@chat.acme" || p.Device != "phone" || !expires.Equal(ends) {
		t.Errorf("%+v until %v, %v", p, expires, err)
	}
	if p, err := o.Bearer(t.Context(), "theirs of alice"); err != nil || !p.External || !p.IsUser() {
		t.Errorf("as a bearer token: %+v, %v", p, err)
	}
	if p, err = o.Bearer(t.Context(), "theirs of the new"); err != nil || p.Username != "new@web.newacme" {
		t.Errorf("a user that is made: %+v, %v", p, err)
	}
	if again, err := o.Bearer(t.Context(), "theirs of the new"); err != nil || again != p {
		t.Errorf("the second time: %+v, %v", again, err)
	}
	for what, login := range map[string][2]string{
		"somebody else's name": {"bob@chat.acme", "theirs of alice"},
		"nobody":               {"nobody@chat.acme", "theirs of nobody"},
		"deleted":              {"gone@chat.acme", "theirs of gone"},
		"not valid":            {"alice@chat.acme", "theirs of fantasy"},
	} {
		_, _, err := o.hello(login[0], login[1])
		wantCode(t, what, err, domain.NotAuthenticated)
	}
	if len(v.asked) > 0 {
		t.Errorf("the login service was asked about tokens of issuers: %d times", len(v.asked))
	}
	wantCode(t, "logout", o.Logout(t.Context(), "theirs of alice"), domain.AccessDenied)

	// "Log me out everywhere" holds for them, too.
	if err := o.RevokeTokens(t.Context(), admin(), "alice@chat.acme"); err != nil {
		t.Fatal(err)
	}
	_, err = o.Bearer(t.Context(), "theirs of alice")
	wantCode(t, "revoked", err, domain.NotAuthenticated)
	o.clock = o.clock.Add(time.Second)
	v.tokens["theirs of alice"] = say("alice@chat.acme", false)
	if _, err := o.Bearer(t.Context(), "theirs of alice"); err != nil {
		t.Errorf("a newer token: %v", err)
	}
	v.tokens["theirs of alice"] = domain.Vouched{Username: "alice@chat.acme", Issued: 1, Expires: ends}
	_, err = o.Bearer(t.Context(), "theirs of alice")
	wantCode(t, "one that does not say when it was issued", err, domain.NotAuthenticated)

	v.err = domain.Errorf(domain.Unavailable, "no keys")
	_, _, err = o.hello("alice@chat.acme", "theirs of alice")
	wantCode(t, "without keys", err, domain.Unavailable)
	v.err = nil
	o.books.down = domain.Errorf(domain.Unavailable, "no store")
	_, _, err = o.hello("alice@chat.acme", "theirs of alice")
	wantCode(t, "without a store", err, domain.Unavailable)
}

func TestUsersAreMadeOnceByManyDevices(t *testing.T) {
	v := &vouchers{tokens: map[string]domain.Vouched{
		"theirs": {Username: "new@chat.acme", DisplayName: "bad\x00name", Issued: 1 << 50, Expires: time.UnixMilli(1 << 50), Create: true},
	}}
	o := newConsulate(t, v)
	results := make(chan error, 16)
	for range cap(results) {
		go func() {
			_, err := o.Bearer(context.WithoutCancel(t.Context()), "theirs")
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestTheLoginServiceDecidesWhatItKnows(t *testing.T) {
	v := &vouchers{}
	o := newConsulate(t, v)
	o.user("alice@chat.acme") // with the password "secret" in the store
	o.user("eve@chat.globex")

	v.answer = domain.Answer{Result: domain.Denied}
	_, _, err := o.hello("alice@chat.acme", "secret")
	wantCode(t, "denied", err, domain.NotAuthenticated)
	if want := (domain.Attempt{
		Username: "alice@chat.acme", Password: "secret", Device: "phone", Address: "192.0.2.1:5", Protocol: "mqtt",
	}); len(v.asked) != 1 || v.asked[0] != want {
		t.Errorf("asked %+v", v.asked)
	}
	_, _, other := o.hello("nobody@chat.acme", "secret")
	if len(v.asked) != 2 || domain.AsError(other).Detail != domain.AsError(err).Detail {
		t.Errorf("a name that nobody has makes a difference: %v, and %v", err, other)
	}

	v.answer = domain.Answer{Result: domain.Ignored}
	if _, _, err := o.hello("alice@chat.acme", "secret"); err != nil {
		t.Errorf("ignored, with the right password: %v", err)
	}
	_, _, err = o.hello("alice@chat.acme", "wrong")
	wantCode(t, "ignored, with a wrong password", err, domain.NotAuthenticated)

	v.err = domain.Errorf(domain.Unavailable, "the service is down")
	_, _, err = o.hello("alice@chat.acme", "secret")
	wantCode(t, "down, with the right password in the store", err, domain.Unavailable)
	v.err = nil

	n := len(v.asked)
	if _, _, err := o.hello("eve@chat.globex", "secret"); err != nil || len(v.asked) != n {
		t.Errorf("an account that it does not govern: %v, asked %d times", err, len(v.asked)-n)
	}
	for _, password := range []string{"", "a\x00b", "a\xff", strings.Repeat("x", maxForeignPassword+1)} {
		_, _, err := o.hello("alice@chat.acme", password)
		wantCode(t, "a password that is none", err, domain.NotAuthenticated)
	}
	_, _, err = o.hello("not a name", "secret")
	wantCode(t, "not a name", err, domain.NotAuthenticated)
	if len(v.asked) != n {
		t.Errorf("asked %+v", v.asked[n:])
	}

	v.answer = domain.Answer{Result: domain.Allowed, DisplayName: "New", Create: true}
	login, err := o.Login(t.Context(), "new@chat.acme", strings.Repeat("x", maxForeignPassword))
	if err != nil || login.User.DisplayName != "New" || v.asked[n].Protocol != "http" {
		t.Errorf("a user that is made: %+v, %v", login.User, err)
	}
	v.answer.Create = false
	_, err = o.Login(t.Context(), "nobody@chat.acme", "x")
	wantCode(t, "one that is not made", err, domain.NotAuthenticated)
}

func TestARightPasswordIsNotAskedAboutAgainForAWhile(t *testing.T) {
	// A thousand devices that come back at once must not be a thousand questions; a withdrawn password must not be good
	// for long.
	v := &vouchers{answer: domain.Answer{Result: domain.Allowed}}
	o := newConsulate(t, v)
	o.user("alice@chat.acme")
	for range 10 {
		if _, _, err := o.hello("alice@chat.acme", "right"); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.asked) != 1 {
		t.Errorf("asked %d times", len(v.asked))
	}
	v.answer = domain.Answer{Result: domain.Denied}
	for range 3 {
		_, _, err := o.hello("alice@chat.acme", "wrong")
		wantCode(t, "wrong", err, domain.NotAuthenticated)
	}
	_, _, err := o.hello("bob@chat.acme", "right")
	wantCode(t, "somebody else with the password", err, domain.NotAuthenticated)
	if len(v.asked) != 5 {
		t.Errorf("asked %d times: a wrong password is remembered", len(v.asked))
	}
	o.clock = o.clock.Add(30 * time.Second)
	_, _, err = o.hello("alice@chat.acme", "right")
	wantCode(t, "after a while", err, domain.NotAuthenticated)
	v.answer = domain.Answer{Result: domain.Allowed}
	if _, _, err := o.hello("alice@chat.acme", "right"); err != nil {
		t.Fatal(err)
	}
	if err := o.DeleteUser(t.Context(), admin(), "alice@chat.acme"); err != nil {
		t.Fatal(err)
	}
	_, _, err = o.hello("alice@chat.acme", "right")
	wantCode(t, "of a deleted user", err, domain.NotAuthenticated)
}

func TestQuestionsToTheLoginServiceAreBounded(t *testing.T) {
	v := &vouchers{waiting: make(chan struct{})}
	o := newConsulate(t, v)
	o.asking = newSlots(1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 2)
	ask := func(ctx context.Context) {
		_, err := o.Login(ctx, "alice@chat.acme", "x")
		results <- err
	}
	go ask(ctx)
	<-v.waiting // it is being asked about
	gone, leave := context.WithCancel(t.Context())
	go ask(gone)
	for o.asking.waiting.Load() == 0 {
		select {
		case err := <-results:
			t.Fatal(err)
		default:
		}
	}
	_, err := o.Login(t.Context(), "alice@chat.acme", "x")
	wantCode(t, "one more than may wait", err, domain.RateLimited)
	leave() // who has gone makes room, without having been asked about
	wantCode(t, "gone", <-results, domain.Unavailable)
	if n := o.asking.waiting.Load(); n != 0 {
		t.Errorf("%d wait", n)
	}
	cancel()
	wantCode(t, "cancelled", <-results, domain.Unavailable)
}

func TestWhoIsVouchedForByOthersGetsNoTokensOfOurs(t *testing.T) {
	// They would outlive what its issuer has said.
	_, err := domain.Decide(&domain.Heads{}, domain.Principal{User: 1, Username: "a@b.c", External: true}, &domain.IssueTokens{})
	wantCode(t, "issueTokens", err, domain.AccessDenied)
	d, err := domain.Decide(&domain.Heads{}, domain.Principal{User: 1, Username: "a@b.c", External: true}, &domain.RevokeTokens{})
	if err != nil || d.Login != domain.RevokeStep {
		t.Errorf("revokeTokens: %+v, %v", d, err)
	}
}
