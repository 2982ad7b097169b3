package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/parley-im/parley/domain"
)

// hashOf is what a backend computes.
func hashOf(secret, key string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(key))
	return hex.EncodeToString(h.Sum(nil))
}

// secret gives a user's one-time secret.
func (o *office) secret(name domain.Username) string {
	o.t.Helper()
	s, err := o.OneTimeSecret(o.t.Context(), admin(), name)
	if err != nil {
		o.t.Fatal(err)
	}
	return s
}

func (o *office) key(name string) domain.OneTimeKey {
	o.t.Helper()
	k, err := o.OneTimeKey(o.t.Context(), name)
	if err != nil {
		o.t.Fatal(err)
	}
	return k
}

func TestAOneTimeKeyLogsInOnce(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	k := o.key("alice@chat.acme")
	if want := o.clock.Add(5 * time.Minute).UnixMilli(); k.Expires != want {
		t.Errorf("expires %d, want %d", k.Expires, want)
	}
	hash := hashOf(o.secret("alice@chat.acme"), k.Key)
	login, err := o.LoginOneTime(t.Context(), "alice@chat.acme", k.Key, strings.ToUpper(hash))
	if err != nil || login.User.Username != "alice@chat.acme" {
		t.Fatalf("%+v, %v", login, err)
	}
	if _, err := o.Bearer(t.Context(), login.AccessToken); err != nil {
		t.Error(err)
	}
	_, err = o.LoginOneTime(t.Context(), "alice@chat.acme", k.Key, hash)
	wantCode(t, "again", err, domain.NotAuthenticated)
}

func TestAWrongOneTimeLoginDoesNotSayWhatWasWrong(t *testing.T) {
	// Keys are given to anybody for any name: neither their making nor their refusal may tell who exists.
	o := newOffice(t)
	o.user("alice@chat.acme")
	o.user("bob@chat.acme")
	o.user("gone@chat.acme")
	secret, bobs, gones := o.secret("alice@chat.acme"), o.secret("bob@chat.acme"), o.secret("gone@chat.acme")
	if err := o.DeleteUser(t.Context(), admin(), "gone@chat.acme"); err != nil {
		t.Fatal(err)
	}
	o.user("fresh@chat.acme") // nobody has asked for its secret
	k := o.key("alice@chat.acme")
	raw, err := base64.RawURLEncoding.DecodeString(k.Key)
	if err != nil {
		t.Fatal(err)
	}
	later := append([]byte(nil), raw...)
	later[oneTimeNonce+6]++ // of the expiry
	forged := base64.RawURLEncoding.EncodeToString(later)
	details := make(map[string]bool)
	for what, l := range map[string][3]string{
		"wrong hash":         {"alice@chat.acme", k.Key, hashOf("x", k.Key)},
		"no hash":            {"alice@chat.acme", k.Key, "zz"},
		"empty hash":         {"alice@chat.acme", k.Key, ""},
		"short hash":         {"alice@chat.acme", k.Key, hashOf(secret, k.Key)[:62]},
		"another's secret":   {"alice@chat.acme", k.Key, hashOf(bobs, k.Key)},
		"another's key":      {"bob@chat.acme", k.Key, hashOf(bobs, k.Key)},
		"nobody":             {"nobody@chat.acme", o.key("nobody@chat.acme").Key, hashOf("", "")},
		"nobody's secret":    {"nobody@chat.acme", o.key("nobody@chat.acme").Key, hashOf("", o.key("nobody@chat.acme").Key)},
		"deleted":            {"gone@chat.acme", o.key("gone@chat.acme").Key, hashOf(gones, o.key("gone@chat.acme").Key)},
		"no name":            {"not a name", o.key("not a name").Key, hashOf("", "")},
		"no key":             {"alice@chat.acme", "", hashOf(secret, "")},
		"key of fantasy":     {"alice@chat.acme", "fantasy", hashOf(secret, "fantasy")},
		"key with a newline": {"alice@chat.acme", k.Key + "\n", hashOf(secret, k.Key+"\n")},
		"prolonged key":      {"alice@chat.acme", forged, hashOf(secret, forged)},
	} {
		_, err := o.LoginOneTime(t.Context(), l[0], l[1], l[2])
		wantCode(t, what, err, domain.NotAuthenticated)
		details[domain.AsError(err).Detail] = true
	}
	fresh := o.key("fresh@chat.acme")
	_, err = o.LoginOneTime(t.Context(), "fresh@chat.acme", fresh.Key, hashOf("", fresh.Key))
	wantCode(t, "without a secret", err, domain.NotAuthenticated)
	details[domain.AsError(err).Detail] = true
	if len(details) != 1 {
		t.Errorf("the answers differ: %v", details)
	}
	// None of that has used the key up, and none may: whoever sees it could otherwise lock alice out.
	if _, err := o.LoginOneTime(t.Context(), "alice@chat.acme", k.Key, hashOf(secret, k.Key)); err != nil {
		t.Errorf("the key after failed attempts: %v", err)
	}
	old := o.key("alice@chat.acme")
	o.clock = o.clock.Add(5*time.Minute - time.Millisecond)
	if _, err := o.LoginOneTime(t.Context(), "alice@chat.acme", old.Key, hashOf(secret, old.Key)); err != nil {
		t.Errorf("a key in its last millisecond: %v", err)
	}
	old = o.key("alice@chat.acme")
	o.clock = o.clock.Add(5 * time.Minute)
	_, err = o.LoginOneTime(t.Context(), "alice@chat.acme", old.Key, hashOf(secret, old.Key))
	wantCode(t, "expired", err, domain.NotAuthenticated)
	for _, name := range []string{"", strings.Repeat("x", 513)} {
		_, err := o.OneTimeKey(t.Context(), name)
		wantCode(t, "a key for no name", err, domain.InvalidRequest)
	}
}

func TestOneTimeKeysWorkOnEveryNode(t *testing.T) {
	// The client may ask one node and log in at another.
	o := newOffice(t)
	o.user("alice@chat.acme")
	k := o.key("alice@chat.acme")
	other, err := NewAccounts(o.books, o.books, o.books, AccountsOptions{
		Password: Argon2{Memory: 64, Passes: 1, Lanes: 1}, Now: func() time.Time { return o.clock },
	})
	if err != nil {
		t.Fatal(err)
	}
	hash := hashOf(o.secret("alice@chat.acme"), k.Key)
	if _, err := other.LoginOneTime(t.Context(), "alice@chat.acme", k.Key, hash); err != nil {
		t.Error(err)
	}
	_, err = o.LoginOneTime(t.Context(), "alice@chat.acme", k.Key, hash)
	wantCode(t, "used elsewhere", err, domain.NotAuthenticated)
}

func TestOneTimeSecretsAreForBackendsOfTheTree(t *testing.T) {
	o := newOffice(t)
	alice := o.user("alice@chat.acme")
	billing, _ := o.service("acme", "billing")
	spy, _ := o.service("globex", "spy")
	for what, call := range map[string]struct {
		err  error
		want domain.Code
	}{
		"the user":       {second(o.OneTimeSecret(t.Context(), alice, "alice@chat.acme")), domain.AccessDenied},
		"elsewhere":      {second(o.OneTimeSecret(t.Context(), spy, "alice@chat.acme")), domain.UserNotFound},
		"nobody":         {second(o.OneTimeSecret(t.Context(), billing, "nobody@chat.acme")), domain.UserNotFound},
		"forget by user": {o.ForgetOneTimeSecret(t.Context(), alice, "alice@chat.acme"), domain.AccessDenied},
		"forget":         {o.ForgetOneTimeSecret(t.Context(), spy, "alice@chat.acme"), domain.UserNotFound},
	} {
		wantCode(t, what, call.err, call.want)
	}
	first, err := o.OneTimeSecret(t.Context(), billing, "alice@chat.acme")
	if err != nil || first != o.secret("alice@chat.acme") {
		t.Fatalf("%q, %v", first, err)
	}
	k := o.key("alice@chat.acme")
	if err := o.ForgetOneTimeSecret(t.Context(), billing, "alice@chat.acme"); err != nil {
		t.Fatal(err)
	}
	_, err = o.LoginOneTime(t.Context(), "alice@chat.acme", k.Key, hashOf(first, k.Key))
	wantCode(t, "by the old secret", err, domain.NotAuthenticated)
	if _, err := o.LoginOneTime(t.Context(), "alice@chat.acme", k.Key, hashOf(o.secret("alice@chat.acme"), k.Key)); err != nil {
		t.Errorf("by the new one: %v", err)
	}
}

func FuzzOpenOneTime(f *testing.F) {
	a := &Accounts{now: func() time.Time { return time.UnixMilli(1000) }}
	macKey := make([]byte, 32)
	head := append(make([]byte, oneTimeNonce), 0, 0, 0, 0, 0, 0, 0xff, 0xff)
	good := base64.RawURLEncoding.EncodeToString(append(head, sealOneTime(macKey, head, "alice@chat.acme")...))
	f.Add("alice@chat.acme", good)
	f.Add("", "")
	f.Add("bob@chat.acme", good)
	f.Fuzz(func(t *testing.T, name, key string) {
		if _, ok := a.openOneTime(macKey, name, key); ok != (name == "alice@chat.acme" && key == good) {
			t.Errorf("%q for %q: %t", key, name, ok)
		}
	})
}
