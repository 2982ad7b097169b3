package e2e_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/parley-im/parley/configs"
)

// authority is the operator's side: an issuer of tokens with its key set, and a login service that knows passwords.
type authority struct {
	*httptest.Server
	ca string // file of its certificate

	mu        sync.Mutex // guards the following
	keys      map[string]crypto.Signer
	passwords map[string]string // by user name
	asked     []map[string]any
	down      bool
	fetches   atomic.Int64
}

const (
	idpName   = "https://login.example.com/"
	hookToken = "hook-token"
)

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{keys: make(map[string]crypto.Signer), passwords: make(map[string]string)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /keys", a.serveKeys)
	mux.HandleFunc("POST /login", a.serveLogin)
	a.Server = httptest.NewTLSServer(mux)
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	tb.Cleanup(a.Server.Close)
	a.ca = filepath.Join(tb.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	if err := os.WriteFile(a.ca, block, 0o600); err != nil {
		tb.Fatal(err)
	}
	return a
}

func (a *authority) serveKeys(w http.ResponseWriter, _ *http.Request) {
	a.fetches.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	b64 := base64.RawURLEncoding.EncodeToString
	keys := []any{}
	for kid, k := range a.keys {
		jwk := map[string]any{"kid": kid, "use": "sig"}
		switch p := k.Public().(type) {
		case *rsa.PublicKey:
			jwk["kty"], jwk["n"], jwk["e"] = "RSA", b64(p.N.Bytes()), b64(big.NewInt(int64(p.E)).Bytes())
		case *ecdsa.PublicKey:
			point, err := p.Bytes()
			if err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			jwk["kty"], jwk["crv"], jwk["x"], jwk["y"] = "EC", "P-256", b64(point[1:33]), b64(point[33:])
		case ed25519.PublicKey:
			jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", b64(p)
		}
		keys = append(keys, jwk)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": keys})
}

func (a *authority) serveLogin(w http.ResponseWriter, r *http.Request) {
	var q map[string]any
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &q) != nil || r.Header.Get("Authorization") != "Bearer "+hookToken {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, q)
	name, _ := q["username"].(string)
	password, known := a.passwords[name]
	switch {
	case a.down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case !known:
		_, _ = io.WriteString(w, `{"result":"ignore"}`)
	case q["password"] == password:
		_, _ = io.WriteString(w, `{"result":"allow","displayName":"From elsewhere"}`)
	default:
		_, _ = io.WriteString(w, `{"result":"deny"}`)
	}
}

func (a *authority) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// key adds a key.
func (a *authority) key(tb testing.TB, kid, algorithm string) {
	tb.Helper()
	var (
		k   crypto.Signer
		err error
	)
	switch algorithm {
	case "RS256":
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, k, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	a.set(func() { a.keys[kid] = k })
}

// token makes a token that a key signs; changes are laid over good claims.
func (a *authority) token(tb testing.TB, kid, sub string, changes map[string]any) string {
	tb.Helper()
	now := time.Now().Unix()
	claims := jwt.MapClaims{"iss": idpName, "aud": "parley", "sub": sub, "iat": now, "exp": now + 300}
	maps.Copy(claims, changes)
	var k crypto.Signer
	a.set(func() { k = a.keys[kid] })
	var method jwt.SigningMethod = jwt.SigningMethodEdDSA
	switch k.(type) {
	case *rsa.PrivateKey:
		method = jwt.SigningMethodRS256
	case *ecdsa.PrivateKey:
		method = jwt.SigningMethodES256
	}
	t := jwt.NewWithClaims(method, claims)
	t.Header["kid"] = kid
	s, err := t.SignedString(k)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// believed is a gateway that believes the authority, for users of the world's account.
func (a *authority) believed(t *testing.T, s store, change func(*configs.Config)) *world {
	t.Helper()
	// The account of a world is not known before its gateway runs: that of the only one in an empty store is.
	account := ""
	g := start(t, s.empty(t), func(c *configs.Config) {
		account = fmt.Sprintf("believer%d", worlds.Add(1))
		c.Identity.CA = a.ca
		c.Identity.Issuers = []configs.Issuer{{
			Issuer: idpName, JWKS: a.URL + "/keys", Audience: []string{"parley"}, Username: "%s@chat." + account,
			Skew: time.Second, Create: true,
		}}
		c.Hook.URL, c.Hook.Token, c.Hook.Accounts, c.Hook.Create = a.URL+"/login", hookToken, []string{account}, true
		if change != nil {
			change(c)
		}
	})
	w := &world{gateway: g, account: account, admin: g.api(adminKey)}
	var made struct{ Key string }
	w.admin.ok(t, "POST", "/v1/services", map[string]any{"account": account, "name": "Billing"}).into(t, &made)
	w.service = g.api(made.Key)
	return w
}

func TestTokensOfAnIssuerOpenTheDoor(t *testing.T) {
	// Who has an identity provider does not want to keep passwords a second time.
	onBothStores(t, func(t *testing.T, s store) {
		a := newAuthority(t)
		for _, algorithm := range []string{"RS256", "ES256", "EdDSA"} {
			a.key(t, algorithm, algorithm)
		}
		w := a.believed(t, s, nil)
		for i, algorithm := range []string{"RS256", "ES256", "EdDSA"} {
			for _, version := range []byte{4, 5} {
				sub := fmt.Sprintf("%c%d", 'a'+i, version)
				u := user{Name: sub + "@chat." + w.account}
				token := a.token(t, algorithm, sub, map[string]any{"name": "Name of " + sub})
				d := w.online(t, u, version, withPassword(token))
				var me struct {
					User struct{ Username, DisplayName string }
				}
				d.command(t, "getMe", nil).into(t, &me)
				if me.User.Username != u.Name || me.User.DisplayName != "Name of "+sub {
					t.Errorf("%s: %+v", algorithm, me)
				}
				w.api(token).ok(t, "GET", "/v1/users/"+u.Name, nil)
				if p := w.api(token).refused(t, "POST", "/v1/logout", nil); p.Status != 403 {
					t.Errorf("logout: %+v", p)
				}
				// It is ended like any other by "log me out everywhere".
				w.service.ok(t, "DELETE", "/v1/users/"+u.Name+"/tokens", nil)
				if f := d.over(t); version == 5 && f.reason != 0x87 {
					t.Errorf("DISCONNECT 0x%02x", f.reason)
				}
				w.refuse(t, u, version, withPassword(token))
				if p := w.api(token).refused(t, "GET", "/v1/users/"+u.Name, nil); p.Status != 401 {
					t.Errorf("a revoked token: %+v", p)
				}
			}
		}
	})
}

func TestSessionEndsWithTheTokenOfItsIssuer(t *testing.T) {
	onBothStores(t, func(t *testing.T, s store) {
		a := newAuthority(t)
		a.key(t, "k", "EdDSA")
		w := a.believed(t, s, nil)
		u := user{Name: "alice@chat." + w.account}
		token := a.token(t, "k", "alice", map[string]any{"exp": time.Now().Unix() + 8}) // long enough to log in twice
		old, modern := w.online(t, u, 4, named("old"), withPassword(token)), w.online(t, u, 5, named("new"), withPassword(token))
		if r := old.command(t, "issueTokens", nil); r.Error == nil || r.Error.Code != "access-denied" {
			t.Errorf("issueTokens: %+v", r) // such tokens would outlive their issuer's
		}
		if f := modern.over(t); f.reason != 0x87 || f.text != "token-expired" {
			t.Errorf("DISCONNECT 0x%02x %q, want 0x87 token-expired", f.reason, f.text)
		}
		old.over(t)
		w.refuse(t, u, 5, withPassword(token))
	})
}

func TestUnfitTokensOfAnIssuerAreRefused(t *testing.T) {
	onBothStores(t, func(t *testing.T, s store) {
		a, evil := newAuthority(t), newAuthority(t)
		a.key(t, "k", "RS256")
		evil.key(t, "k", "RS256")
		w := a.believed(t, s, nil)
		u := user{Name: "alice@chat." + w.account}
		w.connect(t, u, 5, withPassword(a.token(t, "k", "alice", nil))).leave()
		now := time.Now().Unix()
		for what, token := range map[string]string{
			"expired":            a.token(t, "k", "alice", map[string]any{"exp": now - 10}),
			"not yet valid":      a.token(t, "k", "alice", map[string]any{"nbf": now + 60}),
			"other audience":     a.token(t, "k", "alice", map[string]any{"aud": "other"}),
			"other issuer":       a.token(t, "k", "alice", map[string]any{"iss": "https://evil.example.com/"}),
			"other key":          evil.token(t, "k", "alice", nil),
			"other user":         a.token(t, "k", "bob", nil),
			"user of elsewhere":  a.token(t, "k", "alice@chat.other", nil),
			"user of many words": a.token(t, "k", "alice and bob", nil),
		} {
			for _, version := range []byte{4, 5} {
				if hello := w.refuse(t, u, version, withPassword(token)); version == 5 && hello.reason != 0x87 {
					t.Errorf("%s: CONNACK 0x%02x", what, hello.reason)
				}
			}
			if what == "other user" {
				continue // over HTTP the token alone says who it is
			}
			if p := w.api(token).refused(t, "GET", "/v1/users/"+u.Name, nil); p.Status != 401 || p.Code != "not-authenticated" {
				t.Errorf("%s: %+v", what, p)
			}
		}
	})
}

func TestKeysOfAnIssuerMayChangeAndBeAway(t *testing.T) {
	// The provider rotates its keys, and is down when the gateway starts and again later: nobody notices more than he must.
	onBothStores(t, func(t *testing.T, s store) {
		a := newAuthority(t)
		a.key(t, "old", "ES256")
		a.set(func() { a.down = true })
		w := a.believed(t, s, nil)
		u := user{Name: "alice@chat." + w.account}
		eventually(t, "the keys are asked for", func() error {
			if a.fetches.Load() == 0 {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		old := a.token(t, "old", "alice", nil)
		if hello := w.refuse(t, u, 5, withPassword(old)); hello.reason != 0x88 {
			t.Errorf("without keys: CONNACK 0x%02x, want 0x88", hello.reason)
		}
		if p := w.api(old).refused(t, "GET", "/v1/users/"+u.Name, nil); p.Status != 503 {
			t.Errorf("without keys: %+v", p)
		}
		a.set(func() { a.down = false })
		eventually(t, "the keys are there", func() error {
			_, err := w.api(old).try(t.Context(), "GET", "/v1/users/"+u.Name, nil)
			return err
		})
		a.key(t, "new", "ES256")
		a.set(func() { a.down = true })
		w.connect(t, u, 5, withPassword(old)).leave()
		w.connect(t, u, 4, withPassword(old)).leave()
	})
}

func TestALoginServiceDecidesAboutPasswords(t *testing.T) {
	onBothStores(t, func(t *testing.T, s store) {
		a := newAuthority(t)
		w := a.believed(t, s, func(c *configs.Config) { c.Hook.Remember = 0 })
		for _, version := range []byte{4, 5} {
			local := w.user(t, fmt.Sprintf("local%d", version)) // of whom the service does not know
			w.connect(t, local, version, named("a")).leave()
			remote := user{Name: fmt.Sprintf("remote%d@chat.%s", version, w.account), password: "known elsewhere"}
			a.set(func() { a.passwords[remote.Name] = remote.password })
			w.connect(t, remote, version, named("b")).leave() // and is there from now on
			var session struct {
				AccessToken string
				User        struct{ DisplayName string }
			}
			w.api("").ok(t, "POST", "/v1/login", map[string]any{"username": remote.Name, "password": remote.password}).into(t, &session)
			if session.User.DisplayName != "From elsewhere" {
				t.Errorf("%+v", session)
			}
			w.connect(t, remote, version, withPassword(session.AccessToken)).leave()

			answers := make(map[string]bool)
			for _, wrong := range []user{
				{Name: remote.Name, password: "wrong"},
				{Name: local.Name, password: "wrong"},
				{Name: "nobody@chat." + w.account, password: "wrong"},
				{Name: "nobody@chat.nowhere", password: "wrong"},
			} {
				hello := w.refuse(t, wrong, version)
				p := w.api("").refused(t, "POST", "/v1/login", map[string]any{"username": wrong.Name, "password": wrong.password})
				answers[fmt.Sprint(hello.reason, hello.text, hello.user, p.Status, p.Code, p.Detail)] = true
			}
			if len(answers) != 1 {
				t.Errorf("the answers differ: %v", answers)
			}
			a.set(func() { a.down = true })
			for _, u := range []user{local, remote} {
				if hello := w.refuse(t, u, version); version == 5 && hello.reason != 0x88 {
					t.Errorf("the service is down: CONNACK 0x%02x, want 0x88", hello.reason)
				}
				if p := w.api("").refused(t, "POST", "/v1/login", map[string]any{"username": u.Name, "password": u.password}); p.Status != 503 {
					t.Errorf("the service is down: %+v", p)
				}
			}
			a.set(func() { a.down = false })
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if q := a.asked[0]; q["protocol"] != "mqtt" || q["device"] != "a" || q["address"] == "" {
			t.Errorf("asked %v", q["protocol"])
		}
		for _, q := range a.asked {
			if name := q["username"].(string); name == "nobody@chat.nowhere" {
				t.Error("the service was asked about a user of an account that is not its own")
			}
		}
	})
}
