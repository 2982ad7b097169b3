package gateway

import (
	"context"
	"testing"
	"time"

	"github.com/parley-im/parley/domain"
)

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
	p, _, err := o.Authenticate(t.Context(), domain.Hello{Username: "alice@chat.acme", Password: other.AccessToken})
	if err != nil || p.Login == ([16]byte{}) {
		t.Fatalf("%+v, %v", p, err)
	}
	if len(o.ended) != 1 || o.ended[0].User != p.User || o.ended[0].Login == ([16]byte{}) || o.ended[0].Login == p.Login {
		t.Errorf("the sessions of %+v were to be closed, not those of %+v", o.ended, p)
	}
}

func TestARefreshTokenThatTheStoreHasForgottenEndsItsLogin(t *testing.T) {
	// Used tokens are not kept for ever: a thief could use a stolen one so often that nobody remembers it.
	o := newOffice(t)
	o.user("alice@chat.acme")
	first, other := o.login("alice@chat.acme"), o.login("alice@chat.acme")
	second, err := o.Refresh(t.Context(), first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	digest, _, _ := refreshDigest(first.RefreshToken)
	if o.books.refresh[digest] == nil {
		t.Fatal("the store does not know the token")
	}
	delete(o.books.refresh, digest)
	strange := first.RefreshToken[:len(refreshPrefix)+secretDigits] + digits62([]byte("somebody else's!"), familyDigits)
	_, err = o.Refresh(t.Context(), strange)
	wantCode(t, "a token of no login", err, domain.NotAuthenticated)
	if _, err := o.Bearer(t.Context(), second.AccessToken); err != nil {
		t.Errorf("the login was ended by a token of another: %v", err)
	}
	_, err = o.Refresh(t.Context(), first.RefreshToken)
	wantCode(t, "the forgotten token", err, domain.NotAuthenticated)
	_, err = o.Refresh(t.Context(), second.RefreshToken)
	wantCode(t, "the one that it was exchanged for", err, domain.NotAuthenticated)
	_, err = o.Bearer(t.Context(), second.AccessToken)
	wantCode(t, "its access token", err, domain.NotAuthenticated)
	if _, err := o.Bearer(t.Context(), other.AccessToken); err != nil {
		t.Errorf("another login of the same user: %v", err)
	}
}

func TestLogoutEndsOneLogin(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	first, second := o.login("alice@chat.acme"), o.login("alice@chat.acme")
	p, _, err := o.Authenticate(t.Context(), domain.Hello{Username: "alice@chat.acme", Password: first.AccessToken})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Logout(t.Context(), first.AccessToken); err != nil {
		t.Fatal(err)
	}
	if len(o.ended) != 1 || o.ended[0] != p {
		t.Errorf("the sessions of %+v were to be closed, want those of %+v", o.ended, p)
	}
	_, err = o.Bearer(t.Context(), first.AccessToken)
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

func TestAnEndedLoginStartsNoOther(t *testing.T) {
	// A session on another node lives on for a moment; it must not leave tokens behind.
	o := newOffice(t)
	o.user("alice@chat.acme")
	l := o.login("alice@chat.acme")
	p, _, err := o.Authenticate(t.Context(), domain.Hello{Username: "alice@chat.acme", Password: l.AccessToken})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.StartLogin(t.Context(), p); err != nil {
		t.Errorf("a login that goes on: %v", err)
	}
	if err := o.Logout(t.Context(), l.AccessToken); err != nil {
		t.Fatal(err)
	}
	_, err = o.StartLogin(t.Context(), p)
	wantCode(t, "an ended one", err, domain.NotAuthenticated)
}
