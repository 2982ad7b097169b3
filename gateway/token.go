package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/parley-im/parley/domain"
)

// maxToken bounds an access token's length in bytes before anybody looks into it; ours have about 300.
const maxToken = 2048

// claims are what an access token says: RFC 7519, with the family of the login that it belongs to.
type claims struct {
	Issuer  string  `json:"iss"`
	Subject string  `json:"sub"`
	Family  string  `json:"fam"`
	Issued  instant `json:"iat"`
	Expires instant `json:"exp"`
}

// GetExpirationTime implements jwt.Claims.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.Expires.date(), nil }

// GetIssuedAt implements jwt.Claims.
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) { return c.Issued.date(), nil }

// GetNotBefore implements jwt.Claims.
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) { return nil, nil } //nolint:nilnil // the interface's way of saying "none"

// GetIssuer implements jwt.Claims.
func (c *claims) GetIssuer() (string, error) { return c.Issuer, nil }

// GetSubject implements jwt.Claims.
func (c *claims) GetSubject() (string, error) { return c.Subject, nil }

// GetAudience implements jwt.Claims.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return nil, nil }

// instant is a NumericDate of RFC 7519 kept in milliseconds since 1970: with whole seconds, a login right after all
// tokens were revoked could not be told from one right before.
type instant int64

func (i instant) date() *jwt.NumericDate {
	if i == 0 {
		return nil
	}
	return &jwt.NumericDate{Time: time.UnixMilli(int64(i))}
}

// MarshalJSON gives seconds, with a fraction if there is one.
func (i instant) MarshalJSON() ([]byte, error) {
	b := strconv.AppendInt(nil, int64(i)/1000, 10)
	if ms := int64(i) % 1000; ms != 0 {
		b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	}
	return b, nil
}

// UnmarshalJSON takes seconds, with or without a fraction.
func (i *instant) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || !(f >= 0.001 && f < 1e11) {
		return errors.New("not a date in seconds since 1970")
	}
	*i = instant(math.Round(f * 1000))
	return nil
}

// access is a verified access token.
type access struct {
	user    domain.UserID
	family  [16]byte
	issued  int64 // milliseconds since 1970
	expires time.Time
}

// minter signs and verifies access tokens.
type minter struct {
	issuer string
	now    func() time.Time
	life   time.Duration
	ring   *keyRing
	parser *jwt.Parser
}

func newMinter(issuer string, now func() time.Time, life time.Duration, ring *keyRing) *minter {
	return &minter{
		issuer: issuer, now: now, life: life, ring: ring,
		parser: jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithTimeFunc(now),
			jwt.WithExpirationRequired(), jwt.WithIssuer(issuer), jwt.WithStrictDecoding()),
	}
}

// mint signs an access token. It gives when the token expires, in milliseconds since 1970.
func (m *minter) mint(ctx context.Context, user domain.UserID, family [16]byte) (token string, expires int64, err error) {
	key, err := m.ring.signer(ctx)
	if err != nil {
		return "", 0, err
	}
	now := m.now()
	c := &claims{
		Issuer: m.issuer, Subject: user.String(), Family: hex.EncodeToString(family[:]),
		Issued: instant(now.UnixMilli()), Expires: instant(now.Add(m.life).Unix() * 1000),
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	t.Header["kid"] = key.id
	token, err = t.SignedString(key.private)
	return token, int64(c.Expires), err
}

// looksLikeToken tells what may be an access token from what can only be something else.
func looksLikeToken(s string) bool {
	return strings.HasPrefix(s, "eyJ") && strings.Count(s, ".") == 2 && len(s) <= maxToken && !strings.ContainsAny(s, " \t\n")
}

// verify reads an access token. It does not ask whether the login has been ended since. Its errors are
// not-authenticated, or the store's.
func (m *minter) verify(ctx context.Context, token string) (access, error) {
	if !looksLikeToken(token) {
		return access{}, errBadToken(nil)
	}
	var (
		c      claims
		failed error
	)
	_, err := m.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		id, _ := t.Header["kid"].(string)
		if id == "" {
			return nil, errors.New("no kid")
		}
		key, err := m.ring.verifier(ctx, id)
		if err != nil {
			failed = err
			return nil, err
		}
		if key == nil {
			return nil, errors.New("no key of this kid")
		}
		return key, nil
	})
	switch {
	case failed != nil:
		return access{}, failed
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return access{}, domain.Because(domain.NotAuthenticated, err, "the access token has expired")
	case err != nil:
		return access{}, errBadToken(err)
	}
	id, err := strconv.ParseInt(c.Subject, 10, 64)
	family, herr := hex.DecodeString(c.Family)
	if err != nil || id <= 0 || herr != nil || len(family) != 16 ||
		c.Issued == 0 {
		return access{}, errBadToken(errors.New("claims of another form"))
	}
	return access{
		user: domain.UserID(id), family: [16]byte(family), issued: int64(c.Issued),
		expires: time.UnixMilli(int64(c.Expires)),
	}, nil
}

// errForeign is the cause of every refusal of what is not, as it stands, a token that we signed.
var errForeign = errors.New("not an access token of ours")

func errBadToken(cause error) error {
	return domain.Because(domain.NotAuthenticated, errors.Join(errForeign, cause), "the access token is not valid")
}
