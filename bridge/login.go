package bridge

import (
	"context"
	"net/http"

	"github.com/parley-im/parley/domain"
)

const tagLogin = "Login"

type loginRequest struct {
	Body struct {
		Username string `json:"username" doc:"Full name, name@application.account."`
		Password string `json:"password,omitempty" doc:"Or oneTimeKey and hash."`

		OneTimeKey string `json:"oneTimeKey,omitempty" doc:"A key of /v1/login/one-time-keys for the same user."`
		Hash       string `json:"hash,omitempty" doc:"Hexadecimal HMAC-SHA-256 of the key, keyed with the user's one-time secret."`
	} `nameHint:"LoginRequest"`
}

type oneTimeKeyRequest struct {
	Body struct {
		Username string `json:"username" doc:"Full name, name@application.account."`
	} `nameHint:"OneTimeKeyRequest"`
}

type refreshRequest struct {
	Body struct {
		RefreshToken string `json:"refreshToken"`
	} `nameHint:"RefreshRequest"`
}

type empty struct{}

func (a *api) loginRoutes() {
	handle(a, route{
		method: http.MethodPost, path: "/v1/login", id: "login", tag: tagLogin, public: true, status: http.StatusOK,
		summary:     "Log in with name and password, or with a one-time key",
		description: "The access token is good for 48 hours, over HTTP and as a password over MQTT.",
		result:      schemaOf[domain.Login](a), refusals: []domain.Code{domain.NotAuthenticated},
	}, func(ctx context.Context, _ caller, in *loginRequest) (reply, error) {
		byKey := in.Body.OneTimeKey != "" && in.Body.Hash != ""
		switch {
		case in.Body.Username == "", (in.Body.Password == "") != byKey, (in.Body.OneTimeKey != "") != byKey, (in.Body.Hash != "") != byKey:
			return reply{}, domain.Errorf(domain.InvalidRequest, "username and password are required, or username, oneTimeKey and hash")
		case byKey:
			login, err := a.Accounts.LoginOneTime(ctx, in.Body.Username, in.Body.OneTimeKey, in.Body.Hash)
			return reply{Body: login}, err
		}
		login, err := a.Accounts.Login(ctx, in.Body.Username, in.Body.Password)
		return reply{Body: login}, err
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/login/one-time-keys", id: "getOneTimeKey", tag: tagLogin, public: true, status: http.StatusOK,
		summary: "Get a key to log in with, once",
		description: "The key lives for five minutes. The application's backend computes its hash, with the user's one-time secret; " +
			"name, key and hash are then a login. Whether there is such a user is not told.",
		result: schemaOf[domain.OneTimeKey](a),
	}, func(ctx context.Context, _ caller, in *oneTimeKeyRequest) (reply, error) {
		key, err := a.Accounts.OneTimeKey(ctx, in.Body.Username)
		return reply{Body: key}, err
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/login/refresh", id: "refreshLogin", tag: tagLogin, public: true, status: http.StatusOK,
		summary:     "Exchange a refresh token for new tokens",
		description: "A refresh token works once. Using it again ends the login and all its tokens.",
		result:      schemaOf[domain.Login](a), refusals: []domain.Code{domain.NotAuthenticated},
	}, func(ctx context.Context, _ caller, in *refreshRequest) (reply, error) {
		if in.Body.RefreshToken == "" {
			return reply{}, domain.Errorf(domain.InvalidRequest, "refreshToken is required")
		}
		login, err := a.Accounts.Refresh(ctx, in.Body.RefreshToken)
		return reply{Body: login}, err
	})
	handle(a, route{
		method: http.MethodPost, path: "/v1/logout", id: "logout", tag: tagLogin, status: http.StatusOK,
		summary: "End the login that the access token belongs to", result: schemaOf[empty](a),
		refusals: []domain.Code{domain.AccessDenied},
	}, func(ctx context.Context, c caller, _ *struct{}) (reply, error) {
		return reply{Body: empty{}}, a.Accounts.Logout(ctx, c.token)
	})
}
