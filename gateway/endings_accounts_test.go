package gateway

import (
	"testing"

	"github.com/parley-im/parley/domain"
)

func TestASessionHoldsAsLongAsWhatProvedIt(t *testing.T) {
	// Other nodes decide by this whom they end. Too much and a new password locks out those who have it; too little and the old one
	// goes on.
	o := newOffice(t)
	o.user("alice@chat.acme")
	_, key := o.service("acme", "billing")
	enter := func(username, password string) domain.Principal {
		t.Helper()
		p, _, err := o.Authenticate(t.Context(), domain.Hello{Username: username, Password: password, Device: "phone"})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	want := func(when string, p domain.Principal, want bool) {
		t.Helper()
		if holds, err := o.Holds(t.Context(), p); err != nil || holds != want {
			t.Errorf("%s: %v, %v", when, holds, err)
		}
	}
	login, other := o.login("alice@chat.acme"), o.login("alice@chat.acme")
	token, second := enter("alice@chat.acme", login.AccessToken), enter("alice@chat.acme", other.AccessToken)
	password := enter("alice@chat.acme", "secret")
	service := enter("service/billing@acme", key)
	for _, p := range []domain.Principal{token, second, password, service} {
		want("in the beginning", p, true)
	}
	if err := o.Logout(t.Context(), login.AccessToken); err != nil {
		t.Fatal(err)
	}
	want("token after its logout", token, false)
	want("token after another's logout", second, true)
	if err := o.RevokeTokens(t.Context(), admin(), "alice@chat.acme"); err != nil {
		t.Fatal(err)
	}
	want("token after all were revoked", second, false)
	want("password after tokens were revoked", password, true)
	changed := "another"
	if _, err := o.UpdateUser(t.Context(), admin(), "alice@chat.acme", domain.UserEdit{Password: &changed}); err != nil {
		t.Fatal(err)
	}
	want("password after it was replaced", password, false)
	fresh := enter("alice@chat.acme", changed)
	want("new password", fresh, true)
	if _, _, err := o.RotateService(t.Context(), admin(), "acme", "billing"); err != nil {
		t.Fatal(err)
	}
	want("service with the old key", service, false)
	o.books.down = domain.Errorf(domain.Unavailable, "no store")
	if _, err := o.Holds(t.Context(), fresh); domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("without a store: %v", err)
	}
	o.books.down = nil
	if err := o.DeleteUser(t.Context(), admin(), "alice@chat.acme"); err != nil {
		t.Fatal(err)
	}
	want("password of a deleted user", fresh, false)
}

func TestTheStoreIsToldHowManyLoginsAUserMayHave(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	o.login("alice@chat.acme")
	if o.books.most != 7 {
		t.Errorf("told %d", o.books.most)
	}
}
