package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/parley-im/parley/domain"
)

func TestTokensOfAnIssuerSayWhoSomebodyIs(t *testing.T) {
	for _, algorithm := range algorithms() {
		k := newSigner(t, "one", algorithm)
		b := newBorder(t, newIDP(t, newSigner(t, "other", rs256), k), nil).ready(t)
		v, err := b.verify(t, k.token(t, b.claims(nil), nil))
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		now := b.clock.now()
		want := domain.Vouched{
			Username: "alice@chat.acme", DisplayName: "Alice", Issued: now.Truncate(time.Second).UnixMilli(),
			Expires: now.Truncate(time.Second).Add(330 * time.Second),
		}
		if v != want {
			t.Errorf("%s: %+v, want %+v", algorithm, v, want)
		}
		for what, changes := range map[string]map[string]any{
			"one of several audiences": {"aud": []string{"other", "parley-web"}},
			"just expired":             {"exp": now.Unix() - 29},
			"almost valid":             {"nbf": now.Unix() + 29, "iat": now.Unix() + 29},
			"without iat":              {"iat": nil},
		} {
			if _, err := b.verify(t, k.token(t, b.claims(changes), nil)); err != nil {
				t.Errorf("%s, %s: %v", algorithm, what, err)
			}
		}
	}
}

func TestForgedAndUnfitTokensAreRefused(t *testing.T) {
	// Each of these has opened somebody's door once.
	rsaKey, ecKey, edKey := newSigner(t, "rsa", rs256), newSigner(t, "ec", es256), newSigner(t, "ed", edDSA)
	stranger := newSigner(t, "rsa", rs256)
	b := newBorder(t, newIDP(t, rsaKey, ecKey, edKey), nil).ready(t)
	now := b.clock.now().Unix()
	good := rsaKey.token(t, b.claims(nil), nil)
	parts := strings.Split(good, ".")
	public, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	mac := func(secret []byte) string {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, b.claims(nil))
		token.Header["kid"] = "rsa"
		s, err := token.SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	unsigned := jwt.NewWithClaims(jwt.SigningMethodNone, b.claims(nil))
	unsigned.Header["kid"] = "rsa"
	none, err := unsigned.SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	segment := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	for what, token := range map[string]string{
		"signed by somebody else":     stranger.token(t, b.claims(nil), nil),
		"none":                        none,
		"NONE":                        segment(map[string]string{"alg": "NONE", "kid": "rsa"}) + "." + parts[1] + ".",
		"no signature":                parts[0] + "." + parts[1] + ".",
		"HMAC by the public key":      mac(public),
		"HMAC by the modulus":         mac([]byte(rsaKey.jwk()["n"].(string))),
		"HMAC by nothing":             mac([]byte{}),
		"algorithm of another key":    ecKey.token(t, b.claims(nil), map[string]any{"kid": "rsa"}),
		"algorithm of another key, 2": edKey.token(t, b.claims(nil), map[string]any{"kid": "ec"}),
		"RS512":                       signer{"rsa", jwt.SigningMethodRS512, rsaKey.Signer}.token(t, b.claims(nil), nil),
		"PS256":                       signer{"rsa", jwt.SigningMethodPS256, rsaKey.Signer}.token(t, b.claims(nil), nil),
		"no kid":                      rsaKey.token(t, b.claims(nil), map[string]any{"kid": nil}),
		"empty kid":                   rsaKey.token(t, b.claims(nil), map[string]any{"kid": ""}),
		"kid of another form":         rsaKey.token(t, b.claims(nil), map[string]any{"kid": 7}),
		"unknown kid":                 rsaKey.token(t, b.claims(nil), map[string]any{"kid": "../rsa"}),
		"its own key":                 stranger.token(t, b.claims(nil), map[string]any{"jwk": stranger.jwk(), "kid": "mine"}),
		"its own key set":             stranger.token(t, b.claims(nil), map[string]any{"jku": "https://evil.example.com/"}),
		"critical extension":          rsaKey.token(t, b.claims(nil), map[string]any{"crit": []string{"b64"}, "b64": false}),
		"other claims":                parts[0] + "." + segment(b.claims(map[string]any{"sub": "bob"})) + "." + parts[2],
		"expired":                     rsaKey.token(t, b.claims(map[string]any{"exp": now - 31}), nil),
		"without end":                 rsaKey.token(t, b.claims(map[string]any{"exp": nil}), nil),
		"end of another form":         rsaKey.token(t, b.claims(map[string]any{"exp": "tomorrow"}), nil),
		"not yet valid":               rsaKey.token(t, b.claims(map[string]any{"nbf": now + 31}), nil),
		"issued in the future":        rsaKey.token(t, b.claims(map[string]any{"iat": now + 31}), nil),
		"wrong audience":              rsaKey.token(t, b.claims(map[string]any{"aud": "other"}), nil),
		"no audience":                 rsaKey.token(t, b.claims(map[string]any{"aud": nil}), nil),
		"empty audience":              rsaKey.token(t, b.claims(map[string]any{"aud": []string{}}), nil),
		"no user":                     rsaKey.token(t, b.claims(map[string]any{"sub": nil}), nil),
		"empty user":                  rsaKey.token(t, b.claims(map[string]any{"sub": ""}), nil),
		"user as a number":            rsaKey.token(t, b.claims(map[string]any{"sub": 7}), nil),
		"user in capitals":            rsaKey.token(t, b.claims(map[string]any{"sub": "Alice"}), nil),
		"user elsewhere":              rsaKey.token(t, b.claims(map[string]any{"sub": "eve@chat.globex"}), nil),
		"user of two lines":           rsaKey.token(t, b.claims(map[string]any{"sub": "alice\n"}), nil),
		"user with a wildcard":        rsaKey.token(t, b.claims(map[string]any{"sub": "%s"}), nil),
	} {
		v, err := b.verify(t, token)
		wantCode(t, what, err, domain.NotAuthenticated)
		if v != (domain.Vouched{}) {
			t.Errorf("%s: %+v", what, v)
		}
		if err != nil && strings.Contains(err.Error(), parts[2]) || strings.Contains(b.log.String(), "eyJ") {
			t.Errorf("%s: a token is shown: %v", what, err)
		}
	}
	for what, token := range map[string]string{
		"another issuer":     rsaKey.token(t, b.claims(map[string]any{"iss": "https://evil.example.com/"}), nil),
		"no issuer":          rsaKey.token(t, b.claims(map[string]any{"iss": nil}), nil),
		"issuer in capitals": rsaKey.token(t, b.claims(map[string]any{"iss": nil, "ISS": issuerName}), nil),
		"two parts":          parts[0] + "." + parts[1],
		"huge":               good + strings.Repeat("A", maxToken),
		"a password":         "secret",
		"nothing":            "",
	} {
		if v, known, err := b.Verify(t.Context(), token); known || err != nil {
			t.Errorf("%s: %+v, %v", what, v, err)
		}
	}
}

func TestAnIssuerNamesOnlyWhomItMay(t *testing.T) {
	k := newSigner(t, "k", edDSA)
	b := newBorder(t, newIDP(t, k), func(i *Issuer) {
		i.Username, i.Claim, i.Accounts, i.Algorithms, i.Create = "%s", "parley_user", []string{"acme"}, []string{edDSA}, true
	}).ready(t)
	v, err := b.verify(t, k.token(t, b.claims(map[string]any{"parley_user": "bob@web.acme"}), nil))
	if err != nil || v.Username != "bob@web.acme" || !v.Create {
		t.Errorf("%+v, %v", v, err)
	}
	for _, name := range []string{"eve@chat.globex", "bob", "bob@acme", "bob@web.acme@chat.acme"} {
		_, err := b.verify(t, k.token(t, b.claims(map[string]any{"parley_user": name}), nil))
		wantCode(t, name, err, domain.NotAuthenticated)
	}
	_, err = b.verify(t, k.token(t, b.claims(nil), nil))
	wantCode(t, "without the claim", err, domain.NotAuthenticated)
	r := newSigner(t, "r", rs256)
	only := newBorder(t, newIDP(t, k, r), func(i *Issuer) { i.Algorithms = []string{edDSA} }).ready(t)
	_, err = only.verify(t, r.token(t, only.claims(nil), nil))
	wantCode(t, "an algorithm that is not allowed", err, domain.NotAuthenticated)
}

func TestARotatedKeyIsFetchedOnceAndFantasiesAreNot(t *testing.T) {
	// Issuers rotate keys without telling anybody; and anybody may send tokens that name keys of fantasy.
	old, fresh := newSigner(t, "old", es256), newSigner(t, "fresh", es256)
	i := newIDP(t, old)
	b := newBorder(t, i, nil).ready(t)
	i.publish(old, fresh)
	before := i.requests.Load()
	var wg sync.WaitGroup
	for range 20 {
		token := fresh.token(t, b.claims(nil), nil)
		wg.Go(func() {
			if _, _, err := b.Verify(t.Context(), token); err != nil {
				t.Errorf("a token of the new key: %v", err)
			}
		})
	}
	wg.Wait()
	for range 50 {
		_, err := b.verify(t, fresh.token(t, b.claims(nil), map[string]any{"kid": "fantasy"}))
		wantCode(t, "fantasy", err, domain.NotAuthenticated)
	}
	if n := i.requests.Load() - before; n != 1 {
		t.Errorf("%d fetches", n)
	}
	i.publish(newSigner(t, "third", es256)) // both are withdrawn
	b.clock.advance(demandPause)
	_, err := b.verify(t, fresh.token(t, b.claims(nil), map[string]any{"kid": "fantasy"}))
	wantCode(t, "fantasy", err, domain.NotAuthenticated)
	if n := i.requests.Load() - before; n != 2 {
		t.Errorf("%d fetches after the pause", n)
	}
	_, err = b.verify(t, old.token(t, b.claims(nil), nil))
	wantCode(t, "a withdrawn key", err, domain.NotAuthenticated)
}

func TestAnIssuerThatIsDownAtTheStartIsAskedAgain(t *testing.T) {
	k := newSigner(t, "k", rs256)
	i := newIDP(t, k)
	i.fails()
	b := newBorder(t, i, nil)
	_, err := b.verify(t, k.token(t, b.claims(nil), nil))
	wantCode(t, "without keys", err, domain.Unavailable)
	i.publish(k)
	eventually(t, "the token is believed", func() bool {
		_, err := b.verify(t, k.token(t, b.claims(nil), nil))
		return err == nil
	})
	if !strings.Contains(b.log.String(), "cannot be fetched") {
		t.Errorf("the log says %q", b.log)
	}
}

func TestKeysAreUsedForADayWithoutTheirIssuer(t *testing.T) {
	// Its outage must not lock everybody out, and a key that it may have withdrawn must not be good for ever.
	k := newSigner(t, "k", edDSA)
	i := newIDP(t, k)
	b := newBorder(t, i, nil).ready(t)
	i.fails()
	_, err := b.verify(t, newSigner(t, "new", edDSA).token(t, b.claims(nil), nil))
	wantCode(t, "a key that may be new", err, domain.Unavailable)
	b.clock.advance(keepFor - time.Minute)
	if _, err := b.verify(t, k.token(t, b.claims(nil), nil)); err != nil {
		t.Errorf("an old key: %v", err)
	}
	b.clock.advance(time.Minute)
	_, err = b.verify(t, k.token(t, b.claims(nil), nil))
	wantCode(t, "a key that is too old", err, domain.Unavailable)
	i.publish(k)
	b.clock.advance(demandPause)
	if _, err := b.verify(t, k.token(t, b.claims(nil), nil)); err != nil {
		t.Errorf("when the issuer is back: %v", err)
	}
}

func TestBadKeySetsChangeNothing(t *testing.T) {
	k := newSigner(t, "k", edDSA)
	elsewhere := newIDP(t, newSigner(t, "k", edDSA))
	for what, answer := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(endless{}, maxKeySet+1))
		},
		"no JSON":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"no keys":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
		"nothing":   func(http.ResponseWriter, *http.Request) {},
		"not found": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"torn":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"too many keys": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[0`+strings.Repeat(",0", maxKeys)+`]}`)
		},
	} {
		i := newIDP(t, k)
		b := newBorder(t, i, nil).ready(t)
		i.does(answer)
		before := elsewhere.requests.Load()
		_, err := b.verify(t, newSigner(t, "new", edDSA).token(t, b.claims(nil), nil))
		wantCode(t, what, err, domain.Unavailable)
		if _, err := b.verify(t, k.token(t, b.claims(nil), nil)); err != nil {
			t.Errorf("%s: the old key is not good any more: %v", what, err)
		}
		if elsewhere.requests.Load() != before {
			t.Errorf("%s: the redirect was followed", what)
		}
	}
}

// endless is JSON without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestCertificatesOfIssuersAreVerified(t *testing.T) {
	k := newSigner(t, "k", edDSA)
	i := newIDP(t, k)
	s, err := NewIssuers(IssuersOptions{Issuers: []Issuer{{Name: issuerName, Keys: i.URL, Audience: []string{"parley"}, Username: "%s@chat.acme"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	claims := jwt.MapClaims{"iss": issuerName, "sub": "alice", "aud": "parley", "exp": time.Now().Unix() + 60}
	_, known, err := s.Verify(t.Context(), k.token(t, claims, nil))
	wantCode(t, "keys from a server without a certificate", err, domain.Unavailable)
	if !known || i.requests.Load() != 0 {
		t.Errorf("known %t, %d requests", known, i.requests.Load())
	}
}

func TestOnlyKeysForOurAlgorithmsAreTaken(t *testing.T) {
	r, e, d := newSigner(t, "r", rs256), newSigner(t, "e", es256), newSigner(t, "d", edDSA)
	with := func(s signer, name string, v any) map[string]any {
		k := s.jwk()
		if k[name] = v; v == nil {
			delete(k, name)
		}
		return k
	}
	b64 := base64.RawURLEncoding.EncodeToString
	for what, test := range map[string]struct {
		key  map[string]any
		good bool
	}{
		"RSA":                   {r.jwk(), true},
		"EC":                    {e.jwk(), true},
		"Ed25519":               {d.jwk(), true},
		"without use":           {with(r, "use", nil), true},
		"without alg":           {with(e, "alg", nil), true},
		"with key_ops":          {with(d, "key_ops", []string{"verify"}), true},
		"for encryption":        {with(r, "use", "enc"), false},
		"for another operation": {with(d, "key_ops", []string{"wrapKey"}), false},
		"for RS512":             {with(r, "alg", "RS512"), false},
		"for HS256":             {with(d, "alg", "HS256"), false},
		"without kid":           {with(r, "kid", nil), false},
		"long kid":              {with(r, "kid", strings.Repeat("x", maxKid+1)), false},
		"small RSA":             {with(r, "n", b64(append([]byte{0x80}, make([]byte, 126)...))+"AQ"), false},
		"huge RSA":              {with(r, "n", b64(append([]byte{0xff}, make([]byte, 2047)...))), false},
		"even RSA":              {with(r, "n", b64(append([]byte{0xff}, make([]byte, 255)...))), false},
		"RSA exponent 1":        {with(r, "e", "AQ"), false},
		"RSA exponent 0":        {with(r, "e", ""), false},
		"RSA huge exponent":     {with(r, "e", "_____w"), false},
		"EC not on the curve":   {with(e, "x", b64(make([]byte, 32))), false},
		"EC of another curve":   {with(e, "crv", "P-521"), false},
		"EC short":              {with(e, "y", "AAAA"), false},
		"X25519":                {with(d, "crv", "X25519"), false},
		"Ed25519 short":         {with(d, "x", "AAAA"), false},
		"no base64":             {with(d, "x", "!"), false},
		"secret key":            {map[string]any{"kty": "oct", "kid": "x", "k": "AAAA"}, false},
	} {
		body, err := json.Marshal(map[string]any{"keys": []any{test.key}})
		if err != nil {
			t.Fatal(err)
		}
		if keys, err := parseKeys(body); (err == nil) != test.good {
			t.Errorf("%s: %v, %v", what, keys, err)
		}
	}
	body, err := json.Marshal(map[string]any{"keys": []any{r.jwk(), with(newSigner(t, "x", rs256), "kid", "r")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseKeys(body); err == nil {
		t.Error("two keys of one id")
	}
}

func FuzzParseKeys(f *testing.F) {
	for _, algorithm := range algorithms() {
		body, err := json.Marshal(map[string]any{"keys": []any{newSigner(f, "k", algorithm).jwk()}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"x","n":"","e":""},7,null,{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeys(b)
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		for k, public := range keys {
			if k.kid == "" || public == nil {
				t.Errorf("%+v: %v", k, public)
			}
			if p, ok := public.(ed25519.PublicKey); ok && len(p) != ed25519.PublicKeySize {
				t.Errorf("a key of %d bytes", len(p))
			}
			if _, err := x509.MarshalPKIXPublicKey(public); err != nil {
				t.Errorf("%+v cannot be used: %v", k, err)
			}
		}
	})
}

func FuzzVerify(f *testing.F) {
	k := newSigner(f, "k", edDSA)
	b := newBorder(f, newIDP(f, k), nil).ready(f)
	good := k.token(f, b.claims(nil), nil)
	f.Add(good)
	f.Add("eyJ..")
	f.Add(strings.Replace(good, ".", ".eyJ", 1))
	f.Fuzz(func(t *testing.T, token string) {
		v, known, err := b.Verify(t.Context(), token)
		if (known && err == nil) != (token == good) {
			t.Errorf("%q: %+v, %t, %v", token, v, known, err)
		}
	})
}
