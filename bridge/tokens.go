package bridge

import (
	"context"
	"net/http"

	"github.com/parley-im/parley/domain"
)

type oneTimeSecret struct {
	Secret string `json:"secret" doc:"Key of the HMAC, as it stands. For the backend alone."`
}

// tokenRoutes are for backends that know their users themselves: logins without a password.
func (a *api) tokenRoutes() {
	handle(a, route{
		method: http.MethodPost, path: "/v1/users/{username}/tokens", id: "issueTokens", tag: tagUsers, creates: true, secret: true,
		status: http.StatusCreated, summary: "Log a user in without its password",
		description: "For services that know their users themselves, and the admin key.",
		result:      schemaOf[domain.Tokens](a), refusals: []domain.Code{domain.AccessDenied, domain.UserNotFound},
	}, func(ctx context.Context, c caller, in *usernamePath) (reply, error) {
		t, err := a.Accounts.IssueTokens(ctx, c.principal, domain.Username(in.Username))
		return reply{Body: t}, err
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/users/{username}/tokens", id: "revokeTokens", tag: tagUsers, status: http.StatusNoContent,
		summary:     "End every login of a user",
		description: "For services, the admin key and the user itself. Sessions that were opened with a token end, too.",
		refusals:    []domain.Code{domain.AccessDenied, domain.UserNotFound},
	}, func(ctx context.Context, c caller, in *usernamePath) (reply, error) {
		return reply{}, a.Accounts.RevokeTokens(ctx, c.principal, domain.Username(in.Username))
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/users/{username}/one-time-secret", id: "getOneTimeSecret", tag: tagUsers, status: http.StatusOK,
		summary: "Get what hashes of a user's one-time keys are keyed with",
		description: "For services and the admin key; made when it is asked for first. The hash of a key is the hexadecimal " +
			"HMAC-SHA-256 of the key, keyed with the secret.",
		result: schemaOf[oneTimeSecret](a), refusals: []domain.Code{domain.AccessDenied, domain.UserNotFound},
	}, func(ctx context.Context, c caller, in *usernamePath) (reply, error) {
		secret, err := a.Accounts.OneTimeSecret(ctx, c.principal, domain.Username(in.Username))
		return reply{Body: oneTimeSecret{secret}}, err
	})
	handle(a, route{
		method: http.MethodDelete, path: "/v1/users/{username}/one-time-secret", id: "forgetOneTimeSecret", tag: tagUsers,
		status: http.StatusNoContent, summary: "Make a user's one-time secret worthless",
		description: "For services and the admin key. The next one that is asked for is another.",
		refusals:    []domain.Code{domain.AccessDenied, domain.UserNotFound},
	}, func(ctx context.Context, c caller, in *usernamePath) (reply, error) {
		return reply{}, a.Accounts.ForgetOneTimeSecret(ctx, c.principal, domain.Username(in.Username))
	})
}
