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
		Password string `json:"password"`
	} `nameHint:"LoginRequest"`
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
		summary:     "Log in with name and password",
		description: "The access token is good for 48 hours, over HTTP and as a password over MQTT.",
		result:      schemaOf[domain.Login](a), refusals: []domain.Code{domain.NotAuthenticated},
	}, func(ctx context.Context, _ caller, in *loginRequest) (reply, error) {
		if in.Body.Username == "" || in.Body.Password == "" {
			return reply{}, domain.Errorf(domain.InvalidRequest, "username and password are required")
		}
		login, err := a.Accounts.Login(ctx, in.Body.Username, in.Body.Password)
		return reply{Body: login}, err
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
