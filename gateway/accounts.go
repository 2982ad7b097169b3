package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
)

// Accounts knows who is who: it proves logins, makes and ends tokens, and administers users, services and accounts
// on behalf of those who may. Any goroutine may call its methods.
//
// What a principal may not know of does not exist for it: the refusal for a user of another account tree is that for
// a user who was never there.
type Accounts struct {
	dir      Directory
	tokens   Tokens
	registry Registry

	hasher  *hasher
	minter  *minter
	refresh time.Duration
	// mostLogins is per user; 0: any number.
	mostLogins int
	admin      *[32]byte
	ended      func(p domain.Principal, byToken bool)
	changed    func(context.Context, domain.User)
	now        func() time.Time
	random     io.Reader
	metrics    *loginMetrics
	oneTime    oneTimeMAC

	issuers Issuers      // nil: no other issuer is believed
	service LoginService // nil: there is none
	asking  *slots
	allowed *passwordCache
}

// AccountsOptions configure [NewAccounts]. The zero value is a sensible default.
type AccountsOptions struct {
	// Password are the parameters for new password hashes.
	Password Argon2
	// PasswordMost bounds Password and what a stored hash may ask for; each zero value is that of Password.
	PasswordMost Argon2
	// Parallel is how many passwords are hashed at a time; default: one per processor that Go may use.
	Parallel int
	// Queue is how many further logins may wait for that, default 1024. Those beyond are refused as rate-limited.
	Queue int
	// Remember is for how long a password that was found right need not be hashed again, default 5 minutes; negative:
	// not at all. It is what makes many devices reconnect quickly.
	Remember time.Duration

	AccessLife  time.Duration // of an access token; default 48 hours
	RefreshLife time.Duration // of a refresh token; default 30 days
	// MostLogins is how many logins by token a user may have: one more ends the one used least recently. 0: any number.
	MostLogins int
	// KeyPeriod is for how long a signing key signs, default 30 days. It verifies for AccessLife longer.
	KeyPeriod time.Duration
	// Issuer is who access tokens say made them; default "parley".
	Issuer string

	// Issuers are believed besides ourselves; nil: none.
	Issuers Issuers
	// LoginService is asked before passwords in the store are looked at; nil: there is none. ServiceParallel is how many
	// may be asked about at a time, default 32, Queue bounds those that wait as well. ServiceRemember is for how long nobody
	// is asked again about a password that was found right, default 30 seconds; negative: not at all.
	LoginService    LoginService
	ServiceParallel int
	ServiceRemember time.Duration

	// AdminKey is the SHA-256 of the admin key; nil: there is none.
	AdminKey *[32]byte
	// Ended is told of a user or service whose logins have all been ended (it was deleted, its tokens were revoked,
	// its password or key replaced), or of a user with the one Login that has been (a logout, a stolen refresh token), so
	// that the sessions can be closed; byToken: only those that were opened with a token. It must not block. nil: nobody
	// cares.
	Ended func(p domain.Principal, byToken bool)

	// Changed is told of a user whose record a backend has changed, or who was deleted; nil: nobody cares.
	Changed func(ctx context.Context, u domain.User)

	Now        func() time.Time
	Random     io.Reader             // default: crypto/rand
	Registerer prometheus.Registerer // nil: nothing is registered
}

// NewAccounts makes Accounts over the store. It does not touch the store yet. An error means options out of range,
// or metrics that were registered before.
func NewAccounts(dir Directory, tokens Tokens, reg Registry, o AccountsOptions) (*Accounts, error) {
	if dir == nil || tokens == nil || reg == nil {
		return nil, errors.New("gateway: accounts need a directory, tokens and a registry")
	}
	defaultTo(&o.Parallel, runtime.GOMAXPROCS(0))
	defaultTo(&o.Queue, 1024)
	defaultTo(&o.Remember, 5*time.Minute)
	defaultTo(&o.AccessLife, 48*time.Hour)
	defaultTo(&o.RefreshLife, 30*24*time.Hour)
	defaultTo(&o.KeyPeriod, 30*24*time.Hour)
	defaultTo(&o.Issuer, "parley")
	defaultTo(&o.ServiceParallel, 32)
	defaultTo(&o.ServiceRemember, 30*time.Second)
	if o.Parallel < 1 || o.ServiceParallel < 1 || o.Queue < 0 || o.AccessLife < time.Second || o.RefreshLife < time.Second || o.KeyPeriod < time.Second {
		return nil, errors.New("gateway: a limit or lifetime of the accounts is out of range")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Ended == nil {
		o.Ended = func(domain.Principal, bool) {}
	}
	if o.Changed == nil {
		o.Changed = func(context.Context, domain.User) {}
	}
	cache, err := newPasswordCache(o.Random, o.Remember, o.Now)
	if err != nil {
		return nil, err
	}
	allowed, err := newPasswordCache(o.Random, o.ServiceRemember, o.Now)
	if err != nil {
		return nil, err
	}
	params := o.Password.orDefaults()
	defaultTo(&o.PasswordMost.Memory, params.Memory)
	defaultTo(&o.PasswordMost.Passes, params.Passes)
	defaultTo(&o.PasswordMost.Lanes, params.Lanes)
	h, err := newHasher(params, o.PasswordMost, o.Random, o.Parallel, o.Queue, cache)
	if err != nil {
		return nil, err
	}
	m, err := newLoginMetrics(o.Registerer, func() float64 { return float64(h.slots.waiting.Load()) })
	if err != nil {
		return nil, err
	}
	ring := &keyRing{store: tokens, now: o.Now, random: o.Random, period: o.KeyPeriod, life: o.AccessLife}
	return &Accounts{
		dir: dir, tokens: tokens, registry: reg,
		hasher: h, minter: newMinter(o.Issuer, o.Now, o.AccessLife, ring), refresh: o.RefreshLife, mostLogins: o.MostLogins,
		admin: o.AdminKey, ended: o.Ended, changed: o.Changed, now: o.Now, random: o.Random, metrics: m,
		issuers: o.Issuers, service: o.LoginService, asking: newSlots(o.ServiceParallel, o.Queue), allowed: allowed,
	}, nil
}

func defaultTo[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Authenticate proves who connects over MQTT: a user with its password or an access token of its own, or a service
// with its API key. expires is when the session must end; zero: it need not.
//
// Its errors are not-authenticated, the same for every wrong pair of name and password; rate-limited and unavailable
// where nothing could be proven.
func (a *Accounts) Authenticate(ctx context.Context, h domain.Hello) (p domain.Principal, expires time.Time, err error) {
	method := methodPassword
	defer func(began time.Time) { a.metrics.observe(method, a.now().Sub(began), err) }(a.now())
	if strings.HasPrefix(h.Username, "service/") {
		method = methodKey
		p, err = a.backend(ctx, h)
		return p, time.Time{}, err
	}
	foreign, known, err := a.external(ctx, h.Password)
	if known {
		method = methodIssuer
		if err == nil && string(foreign.user.Username) != h.Username {
			err = errWrong()
		}
		if err != nil {
			return domain.Principal{}, time.Time{}, err
		}
		p = foreign.user.Principal(h.Device)
		p.External, p.Issued = true, foreign.issued
		return p, foreign.expires, nil
	}
	if looksLikeToken(h.Password) {
		u, t, err := a.bearer(ctx, h.Password)
		// A password may happen to look like a token.
		if !errors.Is(err, errForeign) {
			method = methodToken
			if err == nil && string(u.Username) != h.Username {
				err = errWrong()
			}
			if err != nil {
				return domain.Principal{}, time.Time{}, err
			}
			p = u.Principal(h.Device)
			p.Login, p.Issued = t.family, t.issued
			return p, t.expires, nil
		}
	}
	at := domain.Attempt{Username: h.Username, Password: h.Password, Device: h.Device, Address: h.Remote, Protocol: "mqtt"}
	c, err := a.password(ctx, at)
	if err != nil {
		return domain.Principal{}, time.Time{}, err
	}
	p = c.User.Principal(h.Device)
	p.Proof = proofOf(c)
	return p, time.Time{}, nil
}

// Bearer proves who makes an HTTP request by its bearer token: the admin key, an API key or an access token. Its
// errors are those of [Accounts.Authenticate].
func (a *Accounts) Bearer(ctx context.Context, token string) (domain.Principal, error) {
	if a.isAdmin(token) {
		return domain.Principal{Admin: true}, nil
	}
	if digest, ok := secretDigest(token, apiKeyPrefix); ok {
		s, err := a.dir.ServiceByKey(ctx, digest)
		if err != nil {
			return domain.Principal{}, loginRefusal(err)
		}
		return s.Principal(), nil
	}
	foreign, known, err := a.external(ctx, token)
	u := foreign.user
	if !known {
		u, _, err = a.bearer(ctx, token)
	}
	if err != nil {
		return domain.Principal{}, err
	}
	p := u.Principal("")
	p.External = known
	return p, nil
}

func (a *Accounts) isAdmin(token string) bool {
	if a.admin == nil || token == "" {
		return false
	}
	digest := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(digest[:], a.admin[:]) == 1
}

// bearer gives the user of an access token that is good at this moment.
func (a *Accounts) bearer(ctx context.Context, token string) (domain.User, access, error) {
	t, err := a.minter.verify(ctx, token)
	if err != nil {
		return domain.User{}, access{}, err
	}
	// Asked each time, without a cache: a logout holds at once, on every node.
	u, good, err := a.dir.TokenUser(ctx, t.user, t.family, t.issued)
	switch {
	case err != nil:
		return domain.User{}, access{}, loginRefusal(err)
	case !good || u.Deleted:
		return domain.User{}, access{}, domain.Errorf(domain.NotAuthenticated, "the access token was revoked")
	}
	return u, t, nil
}

// backend proves a service's login over MQTT.
func (a *Accounts) backend(ctx context.Context, h domain.Hello) (domain.Principal, error) {
	name, account, named := domain.ServiceLogin(h.Username)
	digest, key := secretDigest(h.Password, apiKeyPrefix)
	if !named || !key {
		return domain.Principal{}, errWrong()
	}
	s, err := a.dir.ServiceByKey(ctx, digest)
	if err != nil {
		return domain.Principal{}, loginRefusal(err)
	}
	if s.Name != name || s.AccountName != account {
		return domain.Principal{}, errWrong()
	}
	p := s.Principal()
	p.Device, p.Proof = h.Device, digest
	return p, nil
}

// password gives the user whose name and password these are, with what that was checked against.
func (a *Accounts) password(ctx context.Context, at domain.Attempt) (domain.Credential, error) {
	if c, settled, err := a.asked(ctx, at); settled {
		return c, err
	}
	c, err := a.credential(ctx, at.Username)
	if err != nil {
		return domain.Credential{}, err
	}
	right, err := a.hasher.verify(ctx, c.PasswordHash, at.Password)
	if err != nil {
		return domain.Credential{}, err
	}
	if !right {
		return domain.Credential{}, errWrong()
	}
	return c, nil
}

// credential gives what a login of the name is checked against: an empty one for a user who is not there or was deleted,
// so that the caller goes on, and takes as long as for one who is.
func (a *Accounts) credential(ctx context.Context, username string) (domain.Credential, error) {
	name, err := domain.ParseUsername(username)
	var c domain.Credential
	if err == nil {
		c, err = a.dir.Credential(ctx, name)
	}
	switch domain.CodeOf(err) {
	case "":
		if !c.User.Deleted {
			return c, nil
		}
		return domain.Credential{}, nil
	case domain.InvalidRequest, domain.UserNotFound, domain.NotFound:
		return domain.Credential{}, nil
	default:
		return domain.Credential{}, err
	}
}

// errWrong is the one answer to every wrong login.
func errWrong() error {
	return domain.Errorf(domain.NotAuthenticated, "wrong name or password")
}

// loginRefusal turns "there is none" of the store into the refusal of a login.
func loginRefusal(err error) error {
	switch domain.CodeOf(err) {
	case domain.UserNotFound, domain.NotFound:
		return domain.Because(domain.NotAuthenticated, err, "wrong name, password, key or token")
	default:
		return err
	}
}
