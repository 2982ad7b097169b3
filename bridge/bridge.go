package bridge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
)

// Logins prove who somebody is, and make and end tokens. Any goroutine may call it; refusals are *domain.Error.
type Logins interface {
	// Bearer proves who sends a bearer token: an API key, an access token or the admin key.
	Bearer(ctx context.Context, token string) (domain.Principal, error)
	Login(ctx context.Context, username, password string) (domain.Login, error)
	Refresh(ctx context.Context, refreshToken string) (domain.Login, error)
	Logout(ctx context.Context, accessToken string) error
	IssueTokens(ctx context.Context, p domain.Principal, username domain.Username) (domain.Tokens, error)
	RevokeTokens(ctx context.Context, p domain.Principal, username domain.Username) error
}

// OneTime logs users in by keys that work once.
type OneTime interface {
	OneTimeKey(ctx context.Context, username string) (domain.OneTimeKey, error)
	LoginOneTime(ctx context.Context, username, key, hash string) (domain.Login, error)
	OneTimeSecret(ctx context.Context, p domain.Principal, username domain.Username) (string, error)
	ForgetOneTimeSecret(ctx context.Context, p domain.Principal, username domain.Username) error
}

// Users administer users.
type Users interface {
	CreateUser(ctx context.Context, p domain.Principal, r domain.UserRequest) (domain.User, error)
	UpdateUser(ctx context.Context, p domain.Principal, username domain.Username, e domain.UserEdit) (domain.User, error)
	DeleteUser(ctx context.Context, p domain.Principal, username domain.Username) error
	SearchUsers(ctx context.Context, p domain.Principal, q domain.UserQuery) ([]domain.User, error)
}

// Services administer services. An empty account is the caller's own.
type Services interface {
	CreateService(ctx context.Context, p domain.Principal, account, name string) (s domain.Service, key string, err error)
	RotateService(ctx context.Context, p domain.Principal, account, name string) (s domain.Service, key string, err error)
	DeleteService(ctx context.Context, p domain.Principal, account, name string) error
	Services(ctx context.Context, p domain.Principal, q domain.TreeQuery) ([]domain.Service, error)
}

// Tenants administer accounts.
type Tenants interface {
	CreateAccount(ctx context.Context, p domain.Principal, name, parent string) (domain.Account, error)
	Account(ctx context.Context, p domain.Principal, name string) (domain.Account, error)
	Accounts(ctx context.Context, p domain.Principal, q domain.TreeQuery) ([]domain.Account, error)
	EditSettings(ctx context.Context, p domain.Principal, name string, e domain.SettingsEdit) (domain.Account, error)
	DeleteAccount(ctx context.Context, p domain.Principal, name string) error
}

// Applications administer the applications of accounts.
type Applications interface {
	CreateApplication(ctx context.Context, p domain.Principal, account, name string) error
	Applications(ctx context.Context, p domain.Principal, account string) ([]string, error)
	DeleteApplication(ctx context.Context, p domain.Principal, account, name string) error
}

// Administration is all that the bridge wants to know about who is who.
type Administration interface {
	Logins
	OneTime
	Users
	Services
	Tenants
	Applications
}

// Memory keeps answers to requests with an Idempotency-Key. Any goroutine may call it.
type Memory interface {
	// Recall gives what was remembered, and whether there is anything.
	Recall(ctx context.Context, scope, key string) (domain.Remembered, bool, error)
	// Remember keeps r unless something is kept already, and gives what is kept then: the first one wins. now is in
	// milliseconds since 1970.
	Remember(ctx context.Context, scope, key string, r domain.Remembered, now int64) (domain.Remembered, error)
}

// Options configure [New]. Do, Accounts and Memory are required.
type Options struct {
	// Do runs a command and returns when it is committed, or refused with a *domain.Error.
	Do       func(ctx context.Context, p domain.Principal, c domain.Command) (domain.Receipt, error)
	Accounts Administration
	Memory   Memory
	// Contents keeps external content; nil: there is none, nor its routes.
	Contents Contents
	// Schedules sends things later; nil: nothing does, and its routes are missing.
	Schedules Schedules
	// Idle is how long an upload or a download may stand still before it is given up; 0: a minute.
	Idle time.Duration

	// Ready reports why requests should go elsewhere (starting, draining, no store); nil: never.
	Ready func(ctx context.Context) error
	// Version and Commit say which program is running.
	Version, Commit string
	// Limits bound messages; zero: [domain.DefaultLimits].
	Limits domain.Limits
	// Origins are the web origins that may use the API from a browser, such as https://chat.example.com; * is any.
	// None: browsers refuse it to pages from elsewhere.
	Origins []string

	Logger     *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: nothing is registered
	Now        func() time.Time
}

// maxBody is the most bytes of a request body, messages aside.
const maxBody = 1 << 20

// patience bounds how long a request may take inside. It is less than the server's write timeout, so that there is
// an answer.
const patience = 30 * time.Second

// api is the HTTP side at work.
type api struct {
	Options
	huma    huma.API
	mux     *http.ServeMux
	metrics *httpMetrics
	flights flights
}

// New makes the HTTP side. An error means options that are missing, or metrics that were registered before.
func New(o Options) (http.Handler, error) {
	if o.Do == nil || o.Accounts == nil || o.Memory == nil {
		return nil, errors.New("bridge: Do, Accounts and Memory are required")
	}
	if o.Ready == nil {
		o.Ready = func(context.Context) error { return nil }
	}
	if o.Limits == (domain.Limits{}) {
		o.Limits = domain.DefaultLimits()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Idle <= 0 {
		o.Idle = time.Minute
	}
	for _, origin := range o.Origins {
		if origin != "*" && !strings.HasPrefix(origin, "http://") && !strings.HasPrefix(origin, "https://") {
			return nil, errors.New("bridge: an origin has the form https://host, or is *: " + origin)
		}
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	a := &api{Options: o, mux: http.NewServeMux(), metrics: m, flights: newFlights()}
	a.huma = humago.New(a.mux, humaConfig(o.Version))
	a.loginRoutes()
	a.tokenRoutes()
	a.userRoutes()
	a.conversationRoutes()
	a.changeRoutes()
	a.messageRoutes()
	a.readRoutes()
	a.announcementRoutes()
	a.scheduledRoutes()
	a.contentRoutes()
	a.serviceRoutes()
	a.healthRoutes()
	if err := a.describe(); err != nil {
		return nil, err
	}
	a.mux.HandleFunc("/", a.fallback)
	return a.router(), nil
}

// humaConfig configures huma for strict JSON and our own problems. The documents that it could serve itself are
// made in openapi.go and docs.go.
func humaConfig(version string) huma.Config {
	strict := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: decode}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI:    "3.1.0",
			Info:       &huma.Info{Title: "Parley", Version: version, Description: about},
			Components: &huma.Components{Schemas: newRegistry()},
		},
		Formats:       map[string]huma.Format{"application/json": strict, "json": strict},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{problems},
	}
}

// decode reads a request body. Its error is for the client's eyes.
func decode(data []byte, v any) error {
	if err := domain.DecodeObject(data, v); err != nil {
		return errors.New(domain.AsError(err).Detail)
	}
	return nil
}
