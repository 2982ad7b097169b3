package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/parley-im/parley/domain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// signer is a private key with its id and algorithm.
type signer struct {
	kid    string
	method jwt.SigningMethod
	crypto.Signer
}

func newSigner(tb testing.TB, kid, algorithm string) signer {
	tb.Helper()
	var (
		k   crypto.Signer
		err error
	)
	switch algorithm {
	case rs256:
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	case es256:
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		_, k, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return signer{kid, jwt.GetSigningMethod(algorithm), k}
}

// jwk gives the public key as issuers publish it.
func (s signer) jwk() map[string]any {
	b64 := base64.RawURLEncoding.EncodeToString
	k := map[string]any{"kid": s.kid, "use": "sig", "alg": s.method.Alg()}
	switch p := s.Public().(type) {
	case *rsa.PublicKey:
		k["kty"], k["n"], k["e"] = "RSA", b64(p.N.Bytes()), b64(big.NewInt(int64(p.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			panic(err)
		}
		k["kty"], k["crv"], k["x"], k["y"] = "EC", "P-256", b64(point[1:33]), b64(point[33:])
	case ed25519.PublicKey:
		k["kty"], k["crv"], k["x"] = "OKP", "Ed25519", b64(p)
	}
	return k
}

// token signs claims; header changes the header.
func (s signer) token(tb testing.TB, claims jwt.MapClaims, header map[string]any) string {
	tb.Helper()
	t := jwt.NewWithClaims(s.method, claims)
	t.Header["kid"] = s.kid
	for k, v := range header {
		if t.Header[k] = v; v == nil {
			delete(t.Header, k)
		}
	}
	text, err := t.SignedString(s.Signer)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// idp is an issuer: a server with a key set.
type idp struct {
	*httptest.Server
	requests atomic.Int64
	mu       sync.Mutex
	answer   http.HandlerFunc
}

func newIDP(tb testing.TB, keys ...signer) *idp {
	tb.Helper()
	i := &idp{}
	i.publish(keys...)
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		answer := i.answer
		i.mu.Unlock()
		i.requests.Add(1)
		answer(w, r)
	}))
	i.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	tb.Cleanup(i.Server.Close)
	return i
}

func (i *idp) does(f http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = f
}

// publish makes these the keys.
func (i *idp) publish(keys ...signer) {
	set := make([]any, 0, len(keys))
	for _, k := range keys {
		set = append(set, k.jwk())
	}
	body, err := json.Marshal(map[string]any{"keys": set})
	if err != nil {
		panic(err)
	}
	i.does(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
}

func (i *idp) fails() {
	i.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
}

// clock is a clock that the test moves.
type clock struct{ ms atomic.Int64 }

func (c *clock) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// border is Issuers with one issuer, and a clock.
type border struct {
	*Issuers
	clock *clock
	log   *locked
}

const issuerName = "https://login.example.com/"

func newBorder(tb testing.TB, i *idp, change func(*Issuer)) *border {
	tb.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(i.Certificate())
	o := Issuer{
		Name: issuerName, Keys: i.URL, Audience: []string{"parley", "parley-web"}, Username: "%s@chat.acme", Skew: 30 * time.Second,
	}
	if change != nil {
		change(&o)
	}
	b := &border{clock: &clock{}, log: &locked{}}
	b.clock.ms.Store(1_700_000_000_000)
	logger := slog.New(slog.NewTextHandler(b.log, nil))
	before := i.requests.Load()
	var err error
	b.Issuers, err = NewIssuers(IssuersOptions{Issuers: []Issuer{o}, Roots: roots, Now: b.clock.now, Logger: logger})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.Close)
	eventually(tb, "the keys are asked for", func() bool { return i.requests.Load() > before })
	return b
}

// ready waits until the keys are there.
func (b *border) ready(tb testing.TB) *border {
	tb.Helper()
	eventually(tb, "the keys are there", func() bool {
		s := b.issuers[issuerName].keys
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.keys != nil
	})
	return b
}

// claims are those of a good token, changed.
func (b *border) claims(changes map[string]any) jwt.MapClaims {
	now := b.clock.now().Unix()
	c := jwt.MapClaims{"iss": issuerName, "sub": "alice", "aud": "parley", "iat": now, "exp": now + 300, "name": "Alice"}
	maps.Copy(c, changes)
	for k, v := range c {
		if v == nil {
			delete(c, k)
		}
	}
	return c
}

func (b *border) verify(tb testing.TB, token string) (domain.Vouched, error) {
	tb.Helper()
	v, known, err := b.Verify(tb.Context(), token)
	if !known {
		tb.Errorf("the token's issuer is not known")
	}
	return v, err
}

type locked struct {
	mu sync.Mutex
	w  bytes.Buffer
}

// String gives what was written.
func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.String()
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func eventually(tb testing.TB, what string, f func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			tb.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func wantCode(tb testing.TB, what string, err error, want domain.Code) {
	tb.Helper()
	if got := domain.CodeOf(err); got != want {
		tb.Errorf("%s: got %q (%v), want %q", what, got, err, want)
	}
}

func algorithms() []string { return slices.Clone([]string{rs256, es256, edDSA}) }
