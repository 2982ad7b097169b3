package gateway

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/parley-im/parley/domain"
)

func TestAnAccessTokenSaysWhoAndUntilWhen(t *testing.T) {
	// Backends may look into the token; RFC 7519 tells them what to find.
	o := newOffice(t)
	alice := o.user("alice@chat.acme")
	login := o.login("alice@chat.acme")
	var header struct{ Alg, Kid string }
	var body struct {
		Iss, Sub, Fam string
		Iat           float64
		Exp           int64
	}
	parts := strings.Split(login.AccessToken, ".")
	for i, v := range []any{&header, &body} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, v); err != nil {
			t.Fatal(err)
		}
	}
	if header.Alg != "EdDSA" || header.Kid != o.books.keys[0].ID {
		t.Errorf("header %+v", header)
	}
	if body.Iss != "parley" || body.Sub != alice.User.String() || len(body.Fam) != 32 || body.Iat != 1_700_000_000.123 {
		t.Errorf("claims %+v", body)
	}
	if body.Exp*1000 != login.AccessExpires || body.Exp != 1_700_000_000+48*3600 {
		t.Errorf("exp %d, told %d", body.Exp, login.AccessExpires)
	}
}

func TestAnAccessTokenEndsToTheSecond(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	login := o.login("alice@chat.acme")
	o.clock = time.UnixMilli(login.AccessExpires - 1)
	if _, err := o.Bearer(t.Context(), login.AccessToken); err != nil {
		t.Errorf("a millisecond before its end: %v", err)
	}
	o.clock = time.UnixMilli(login.AccessExpires)
	_, err := o.Bearer(t.Context(), login.AccessToken)
	wantCode(t, "at its end", err, domain.NotAuthenticated)
	if detail := domain.AsError(err).Detail; detail != "the access token has expired" {
		t.Errorf("detail %q", detail)
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	o := newOffice(t)
	alice := o.user("alice@chat.acme")
	login := o.login("alice@chat.acme")
	key := o.books.keys[0]
	private := ed25519.NewKeyFromSeed(key.Private)
	other := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	genuine, err := o.minter.verify(t.Context(), login.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	good := jwt.MapClaims{
		"iss": "parley", "sub": alice.User.String(), "fam": strings.Repeat("0", 32), "iat": genuine.issued / 1000,
		"exp": genuine.expires.Unix(),
	}
	without := func(name string) jwt.MapClaims {
		c := jwt.MapClaims{}
		for k, v := range good {
			if k != name {
				c[k] = v
			}
		}
		return c
	}
	with := func(name string, value any) jwt.MapClaims {
		c := without(name)
		c[name] = value
		return c
	}
	sign := func(m jwt.SigningMethod, kid, key any, c jwt.Claims) string {
		token := jwt.NewWithClaims(m, c)
		if kid != nil {
			token.Header["kid"] = kid
		}
		s, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	eddsa := jwt.SigningMethodEdDSA
	if _, err := o.minter.verify(t.Context(), sign(eddsa, key.ID, private, good)); err != nil {
		t.Fatalf("the forger's tools do not work: %v", err)
	}
	for what, token := range map[string]string{
		"algorithm none":             sign(jwt.SigningMethodNone, key.ID, jwt.UnsafeAllowNoneSignatureType, good),
		"HMAC with the public key":   sign(jwt.SigningMethodHS256, key.ID, []byte(private.Public().(ed25519.PublicKey)), good),
		"another key, same kid":      sign(eddsa, key.ID, other, good),
		"unknown kid":                sign(eddsa, "0123456789abcdef", private, good),
		"no kid":                     sign(eddsa, nil, private, good),
		"kid that is not text":       sign(eddsa, 1, private, good),
		"another issuer":             sign(eddsa, key.ID, private, with("iss", "somebody")),
		"no issuer":                  sign(eddsa, key.ID, private, without("iss")),
		"no end":                     sign(eddsa, key.ID, private, without("exp")),
		"no time":                    sign(eddsa, key.ID, private, without("iat")),
		"no family":                  sign(eddsa, key.ID, private, without("fam")),
		"family of another length":   sign(eddsa, key.ID, private, with("fam", "00")),
		"no subject":                 sign(eddsa, key.ID, private, without("sub")),
		"subject that is a name":     sign(eddsa, key.ID, private, with("sub", "alice@chat.acme")),
		"negative subject":           sign(eddsa, key.ID, private, with("sub", "-1")),
		"changed claims, same proof": swapClaims(t, login.AccessToken),
	} {
		_, err := o.minter.verify(t.Context(), token)
		wantCode(t, what, err, domain.NotAuthenticated)
	}
	_, err = o.Bearer(t.Context(), sign(eddsa, key.ID, private, good))
	wantCode(t, "a family that never was", err, domain.NotAuthenticated)
}

func swapClaims(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(b), `"sub":"1"`, `"sub":"2"`, 1)))
	return strings.Join(parts, ".")
}

func TestSigningKeysRotateAndVerifyUntilTheirLastTokenEnds(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	start := o.clock
	o.login("alice@chat.acme")
	o.clock = start.Add(30*24*time.Hour - time.Millisecond)
	last := o.login("alice@chat.acme")
	if len(o.books.keys) != 1 {
		t.Fatalf("%d keys within the first period", len(o.books.keys))
	}
	o.clock = start.Add(30 * 24 * time.Hour)
	next := o.login("alice@chat.acme")
	if len(o.books.keys) != 2 {
		t.Fatalf("%d keys in the second period", len(o.books.keys))
	}
	o.clock = time.UnixMilli(last.AccessExpires - 1)
	for what, login := range map[string]domain.Login{"the last of the old key": last, "the first of the new one": next} {
		if _, err := o.Bearer(t.Context(), login.AccessToken); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if ends := o.books.keys[0].Ends; ends < last.AccessExpires || ends > last.AccessExpires+2000 {
		t.Errorf("the old key ends at %d, its last token at %d", ends, last.AccessExpires)
	}
}

func TestNodesShareSigningKeys(t *testing.T) {
	// What one node has signed another must accept, also right after a rotation.
	one := newOffice(t)
	one.user("alice@chat.acme")
	two := newOffice(t)
	two.books = one.books
	two.dir, two.tokens, two.minter.ring.store = one.books, one.books, one.books
	if _, err := two.Bearer(t.Context(), one.login("alice@chat.acme").AccessToken); err != nil {
		t.Fatal(err)
	}
	for _, o := range []*office{one, two} {
		o.clock = o.clock.Add(31 * 24 * time.Hour)
	}
	if _, err := two.Bearer(t.Context(), one.login("alice@chat.acme").AccessToken); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	two.login("alice@chat.acme")
	if len(one.books.keys) != 2 {
		t.Errorf("%d keys, want that the second node uses the first one's", len(one.books.keys))
	}
}

func TestTokensThatNameUnknownKeysDoNotBecomeQueries(t *testing.T) {
	o := newOffice(t)
	o.user("alice@chat.acme")
	o.login("alice@chat.acme")
	before := o.books.loads
	for i := range 100 {
		token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"sub": "1"})
		token.Header["kid"] = strconv.Itoa(i)
		s, err := token.SignedString(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.Bearer(t.Context(), s)
		wantCode(t, "unknown key", err, domain.NotAuthenticated)
	}
	if n := o.books.loads - before; n > 1 {
		t.Errorf("100 tokens made %d queries", n)
	}
}

func TestManyFirstLoginsMakeOneKey(t *testing.T) {
	o := newOffice(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := o.minter.ring.signer(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(o.books.keys) != 1 {
		t.Errorf("%d keys", len(o.books.keys))
	}
}

func TestSecretsAreLongAndNeverTheSame(t *testing.T) {
	var seen []string
	for range 100 {
		s, digest, err := newSecret(newOffice(t).random, apiKeyPrefix)
		if err != nil {
			t.Fatal(err)
		}
		again, ok := secretDigest(s, apiKeyPrefix)
		if !ok || again != digest || slices.Contains(seen, s) {
			t.Fatalf("secret %q", s)
		}
		if _, ok := secretDigest(s, refreshPrefix); ok {
			t.Errorf("%q passes for a refresh token", s)
		}
		seen = append(seen, s)
	}
}

func FuzzBearer(f *testing.F) {
	b := newBooks()
	now := time.UnixMilli(1_700_000_000_000)
	a, err := NewAccounts(b, b, b, AccountsOptions{
		Password: Argon2{Memory: 64, Passes: 1, Lanes: 1}, Now: func() time.Time { return now },
	})
	if err != nil {
		f.Fatal(err)
	}
	password := "secret"
	if _, err := a.CreateUser(f.Context(), admin(), domain.UserRequest{Username: "alice@chat.acme", Password: &password}); err != nil {
		f.Fatal(err)
	}
	login, err := a.Login(f.Context(), "alice@chat.acme", password)
	if err != nil {
		f.Fatal(err)
	}
	_, key, err := a.CreateService(f.Context(), admin(), "acme", "billing")
	if err != nil {
		f.Fatal(err)
	}
	good := []string{login.AccessToken, key}
	for _, s := range append(good, login.RefreshToken, "", "eyJ..", "pk_", strings.Repeat("eyJ.", 3)) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		p, err := a.Bearer(t.Context(), token)
		if (err == nil) != slices.Contains(good, token) {
			t.Errorf("%q: %+v, %v", token, p, err)
		}
		if err != nil && domain.CodeOf(err) != domain.NotAuthenticated {
			t.Errorf("%q: %v", token, err)
		}
	})
}

func FuzzInstant(f *testing.F) {
	f.Add([]byte("1700000000.123"))
	f.Add([]byte("1e9"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var i instant
		if i.UnmarshalJSON(b) != nil {
			return
		}
		written, err := i.MarshalJSON()
		var again instant
		if err != nil || again.UnmarshalJSON(written) != nil || again != i {
			t.Errorf("%s is %d, written as %s", b, i, written)
		}
	})
}
