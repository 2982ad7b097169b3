package identity

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
)

// maxToken bounds a token, in bytes, before anybody looks into it.
const maxToken = 8 << 10

// Issuer is somebody whose tokens are believed.
type Issuer struct {
	// Name is the claim iss, Keys the URL of the key set (RFC 7517).
	Name, Keys string
	// Audience are values of the claim aud of which a token must have one.
	Audience []string
	// Algorithms are those that are allowed, of RS256, ES256 and EdDSA; none: all of them.
	Algorithms []string
	// Skew is how far the clocks may be apart.
	Skew time.Duration
	// Claim holds the user, a text; default: sub. It takes the place of %s in Username, which gives the full user name.
	Claim, Username string
	// Accounts are those whose users the issuer may name; none: whatever Username gives.
	Accounts []string
	// Create makes users that are not there yet.
	Create bool
}

// IssuersOptions configure [NewIssuers].
type IssuersOptions struct {
	Issuers []Issuer
	// Roots are the authorities that servers may have their certificate from; nil: the system's.
	Roots      *x509.CertPool
	Logger     *slog.Logger // nil: nothing is logged
	Now        func() time.Time
	Registerer prometheus.Registerer // nil: nothing is registered
}

// Issuers verify tokens of other issuers. Any goroutine may call it. [Issuers.Close] ends it.
type Issuers struct {
	issuers map[string]*issuer
	client  *client
	stop    context.CancelFunc
	running sync.WaitGroup
}

type issuer struct {
	Issuer
	keys   *keySet
	parser *jwt.Parser
}

// NewIssuers begins to fetch the issuers' keys. It does not wait for them: an issuer that is down keeps nobody else out. An
// error means options that do not make sense, or metrics that were registered before.
func NewIssuers(o IssuersOptions) (*Issuers, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	m, err := newKeyMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Issuers{issuers: make(map[string]*issuer), client: newClient(o.Roots, fetchTimeout, 2), stop: cancel}
	for _, i := range o.Issuers {
		if _, twice := s.issuers[i.Name]; twice || i.Name == "" || i.Keys == "" || len(i.Audience) == 0 || strings.Count(i.Username, "%s") != 1 {
			cancel()
			return nil, errors.New("identity: an issuer needs a name of its own, keys, an audience, and a user name with one %s")
		}
		if len(i.Algorithms) == 0 {
			i.Algorithms = []string{rs256, es256, edDSA}
		}
		if i.Claim == "" {
			i.Claim = "sub"
		}
		s.issuers[i.Name] = &issuer{
			Issuer: i,
			keys:   &keySet{url: i.Keys, client: s.client, now: o.Now, logger: o.Logger, fetches: m.count},
			parser: jwt.NewParser(jwt.WithValidMethods(i.Algorithms), jwt.WithTimeFunc(o.Now), jwt.WithLeeway(i.Skew),
				jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithIssuer(i.Name), jwt.WithAudience(i.Audience...),
				jwt.WithStrictDecoding()),
		}
	}
	for _, i := range s.issuers {
		s.running.Go(func() { i.keys.run(ctx) })
	}
	return s, nil
}

// Close stops fetching keys.
func (s *Issuers) Close() {
	s.stop()
	s.running.Wait()
	s.client.close()
}

// Verify tells of whom a token is; known is false if it does not even claim to be of one of the issuers. Its errors are
// not-authenticated, and unavailable where the keys cannot be had.
func (s *Issuers) Verify(ctx context.Context, token string) (v domain.Vouched, known bool, err error) {
	i := s.issuers[claimedIssuer(token)]
	if i == nil {
		return domain.Vouched{}, false, nil
	}
	v, err = i.verify(ctx, token)
	return v, true, err
}

// claimedIssuer gives the claim iss of what may be a token, without believing it.
func claimedIssuer(token string) string {
	if len(token) > maxToken || !strings.HasPrefix(token, "eyJ") {
		return ""
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	// A map, since names of fields would be matched regardless of case.
	var claims map[string]json.RawMessage
	var name string
	if json.Unmarshal(payload, &claims) != nil || json.Unmarshal(claims["iss"], &name) != nil {
		return ""
	}
	return name
}

func (i *issuer) verify(ctx context.Context, token string) (domain.Vouched, error) {
	var (
		claims = jwt.MapClaims{}
		down   error
	)
	_, err := i.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		// What must be understood (RFC 7515, section 4.1.11), and is not.
		if _, critical := t.Header["crit"]; critical {
			return nil, errors.New("the token has critical extensions")
		}
		kid, _ := t.Header["kid"].(string)
		if kid == "" {
			return nil, errors.New("the token does not name its key")
		}
		public, err := i.keys.key(ctx, key{kid, t.Method.Alg()})
		if err != nil && !errors.Is(err, errUnknownKey) {
			down = err
		}
		return public, err
	})
	switch {
	case down != nil:
		return domain.Vouched{}, domain.Because(domain.Unavailable, down, "the keys of the token's issuer cannot be had now")
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return domain.Vouched{}, domain.Because(domain.NotAuthenticated, err, "the token has expired")
	case err != nil:
		return domain.Vouched{}, domain.Because(domain.NotAuthenticated, err, "the token is not valid")
	}
	name, err := i.username(claims)
	if err != nil {
		return domain.Vouched{}, err
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return domain.Vouched{}, domain.Because(domain.NotAuthenticated, err, "the token does not say when it expires")
	}
	v := domain.Vouched{Username: name, Issued: 1, Expires: expires.Add(i.Skew), Create: i.Create}
	if issued, err := claims.GetIssuedAt(); err == nil && issued != nil {
		v.Issued = max(issued.UnixMilli(), 1)
	}
	v.DisplayName, _ = claims["name"].(string)
	return v, nil
}

// username gives the user that the claims name.
func (i *issuer) username(claims jwt.MapClaims) (domain.Username, error) {
	value, _ := claims[i.Claim].(string)
	name, err := domain.ParseUsername(strings.Replace(i.Username, "%s", value, 1))
	if err != nil || value == "" {
		return "", domain.Because(domain.NotAuthenticated, err, "the token does not name a user: its "+i.Claim+" gives no user name")
	}
	if _, _, account := name.Parts(); len(i.Accounts) > 0 && !slices.Contains(i.Accounts, account) {
		return "", domain.Errorf(domain.NotAuthenticated, "the token's issuer may not name users of that account")
	}
	return name, nil
}
