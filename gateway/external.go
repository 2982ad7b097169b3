package gateway

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/parley-im/parley/domain"
)

// Issuers verify tokens of other issuers. Any goroutine may call it.
type Issuers interface {
	// Verify tells of whom a token is; known is false if it does not even claim to be of an issuer that is believed. Its
	// errors are not-authenticated and unavailable.
	Verify(ctx context.Context, token string) (v domain.Vouched, known bool, err error)
}

// LoginService is the operator's own service that knows passwords. Any goroutine may call it.
type LoginService interface {
	// Governs reports whether the service is to be asked about a user.
	Governs(name domain.Username) bool
	// Ask asks about a login. Its error is unavailable: nobody is let in by it.
	Ask(ctx context.Context, a domain.Attempt) (domain.Answer, error)
}

// maxForeignPassword bounds what is passed on to a login service as a password, in bytes: it may well be a token.
const maxForeignPassword = 8 << 10

// external gives the user of a token of another issuer. known is false if it is not of one.
func (a *Accounts) external(ctx context.Context, token string) (f foreign, known bool, err error) {
	if a.issuers == nil {
		return foreign{}, false, nil
	}
	v, known, err := a.issuers.Verify(ctx, token)
	if !known || err != nil {
		return foreign{}, known, err
	}
	c, err := a.vouched(ctx, v.Username, v.DisplayName, v.Create)
	if err != nil {
		return foreign{}, true, err
	}
	if v.Issued <= c.TokensFrom {
		return foreign{}, true, domain.Errorf(domain.NotAuthenticated, "the token was revoked")
	}
	return foreign{user: c.User, issued: v.Issued, expires: v.Expires}, true, nil
}

// foreign is what a token of another issuer has proven.
type foreign struct {
	user    domain.User
	issued  int64 // milliseconds since 1970
	expires time.Time
}

// vouched gives the user of a name that others vouch for, and makes it if that is wanted. One who is not there, or was
// deleted, is a wrong login.
func (a *Accounts) vouched(ctx context.Context, name domain.Username, displayName string, create bool) (domain.Credential, error) {
	c, err := a.dir.Credential(ctx, name)
	if code := domain.CodeOf(err); create && (code == domain.UserNotFound || code == domain.NotFound) {
		if checkRecord(&displayName, nil) != nil {
			displayName = "" // what others put into it keeps nobody out
		}
		_, err = a.registry.CreateUser(ctx, domain.NewUser{Username: name, DisplayName: displayName, MakeAccount: true})
		if err == nil || domain.CodeOf(err) == domain.AlreadyExists { // another device may have been faster
			c, err = a.dir.Credential(ctx, name)
		}
	}
	switch {
	case err != nil && domain.CodeOf(loginRefusal(err)) == domain.NotAuthenticated, err == nil && c.User.Deleted:
		return domain.Credential{}, errWrong()
	case err != nil:
		return domain.Credential{}, err
	}
	return c, nil
}

// asks tells whether the login service is the one to ask about a login.
func (a *Accounts) asks(at domain.Attempt) (name domain.Username, ok bool) {
	name, err := domain.ParseUsername(at.Username)
	return name, err == nil && a.service != nil && a.service.Governs(name) && at.Password != "" &&
		len(at.Password) <= maxForeignPassword && utf8.ValidString(at.Password) && !strings.ContainsRune(at.Password, 0)
}

// asked asks the login service about a login. settled is false if it has nothing to say about the user: then the password
// in the store decides.
func (a *Accounts) asked(ctx context.Context, at domain.Attempt) (c domain.Credential, settled bool, err error) {
	name, asks := a.asks(at)
	if !asks {
		return domain.Credential{}, false, nil
	}
	// A right password is remembered for a while, by its keyed digest alone. Whether the user is still there is asked each
	// time.
	const proof = "login service\x00"
	if a.allowed.knows(proof+at.Username, at.Password) {
		c, err := a.vouched(ctx, name, "", false)
		return c, true, err
	}
	leave, err := a.asking.enter(ctx)
	if err != nil {
		return domain.Credential{}, true, err
	}
	answer, err := a.service.Ask(ctx, at)
	leave()
	switch {
	case err != nil:
		return domain.Credential{}, true, err
	case answer.Result == domain.Ignored:
		return domain.Credential{}, false, nil
	case answer.Result != domain.Allowed:
		return domain.Credential{}, true, errWrong()
	}
	c, err = a.vouched(ctx, name, answer.DisplayName, answer.Create)
	if err == nil {
		a.allowed.learn(proof+at.Username, at.Password)
	}
	return c, true, err
}
