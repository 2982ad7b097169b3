package gateway

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/parley-im/parley/domain"
)

// Login checks a user's name and password and starts a family of tokens. Its errors are those of
// [Accounts.Authenticate].
func (a *Accounts) Login(ctx context.Context, username, password string) (login domain.Login, err error) {
	began := a.now()
	defer func() { a.metrics.observe(methodPassword, a.now().Sub(began), err) }()
	c, err := a.password(ctx, domain.Attempt{Username: username, Password: password, Protocol: "http"})
	if err != nil {
		return domain.Login{}, err
	}
	return a.begin(ctx, c.User, began)
}

// begin starts a login of a user who has proven who it is; what was proven was read after began.
func (a *Accounts) begin(ctx context.Context, u domain.User, began time.Time) (domain.Login, error) {
	t, family, err := a.start(ctx, u)
	if err != nil {
		return domain.Login{}, err
	}
	// Whoever ended the user's logins meanwhile, perhaps with a new password, meant this one too.
	if _, good, err := a.dir.TokenUser(ctx, u.ID, family, began.UnixMilli()); err != nil {
		return domain.Login{}, loginRefusal(err)
	} else if !good {
		return domain.Login{}, errors.Join(errWrong(), a.tokens.RevokeFamily(ctx, family))
	}
	return domain.Login{Tokens: t, User: u}, nil
}

// Refresh exchanges a refresh token for the next pair of tokens of its family. A token that was used before ends the
// whole family: either its owner or somebody else has a copy. Its errors are not-authenticated, or the store's.
func (a *Accounts) Refresh(ctx context.Context, refreshToken string) (login domain.Login, err error) {
	now := a.now()
	defer func() { a.metrics.observe(methodRefresh, a.now().Sub(now), err) }()
	digest, family, ok := refreshDigest(refreshToken)
	if !ok {
		return domain.Login{}, domain.Errorf(domain.NotAuthenticated, "the refresh token is not valid")
	}
	// What may fail comes first: the exchange cannot be repeated.
	if _, err := a.minter.ring.signer(ctx); err != nil {
		return domain.Login{}, err
	}
	secret, next, err := newRefresh(a.random, family)
	if err != nil {
		return domain.Login{}, err
	}
	stored, err := a.tokens.Refresh(ctx, digest, now.UnixMilli(), domain.RefreshToken{
		Hash: next, Expires: now.Add(a.refresh).UnixMilli(),
	})
	if err != nil {
		switch {
		case stored.User != 0:
			a.ended(domain.Principal{User: stored.User, Login: stored.Family}, false)
		case family != nil && domain.CodeOf(err) == domain.NotAuthenticated:
			// It was used so long ago that the store has forgotten it. Its sessions end as if another node had been told.
			err = errors.Join(err, a.tokens.RevokeFamily(ctx, *family))
		}
		return domain.Login{}, loginRefusal(err)
	}
	u, good, err := a.dir.TokenUser(ctx, stored.User, stored.Family, now.UnixMilli())
	if err != nil {
		return domain.Login{}, loginRefusal(err)
	}
	if !good || u.Deleted {
		return domain.Login{}, domain.Errorf(domain.NotAuthenticated, "the login was ended")
	}
	t := domain.Tokens{RefreshToken: secret, RefreshExpires: stored.Expires}
	if t.AccessToken, t.AccessExpires, err = a.minter.mint(ctx, u.ID, stored.Family); err != nil {
		return domain.Login{}, err
	}
	return domain.Login{Tokens: t, User: u}, nil
}

// Logout ends the login that an access token belongs to: its whole family of tokens, on every node at once, and the
// sessions here that were opened with one of them. Its errors are not-authenticated, access-denied for keys (which have no login), or the store's.
func (a *Accounts) Logout(ctx context.Context, accessToken string) error {
	if _, key := secretDigest(accessToken, apiKeyPrefix); key || a.isAdmin(accessToken) {
		return domain.Errorf(domain.AccessDenied, "only users log out")
	}
	if _, known, err := a.external(ctx, accessToken); known {
		if err != nil {
			return err
		}
		return domain.Errorf(domain.AccessDenied, "a token of another issuer is ended there; revoke the user's tokens to refuse it here")
	}
	u, t, err := a.bearer(ctx, accessToken)
	if err != nil {
		return err
	}
	if err := a.tokens.RevokeFamily(ctx, t.family); err != nil {
		return err
	}
	p := u.Principal("")
	p.Login, p.Issued = t.family, t.issued
	a.ended(p, false)
	return nil
}

// IssueTokens starts a login of a user without its password, for a backend that has checked the user in its own way.
// Its errors are access-denied, user-not-found, or the store's.
func (a *Accounts) IssueTokens(ctx context.Context, p domain.Principal, username domain.Username) (domain.Tokens, error) {
	u, err := a.administered(ctx, p, username)
	if err != nil {
		return domain.Tokens{}, err
	}
	t, _, err := a.start(ctx, u)
	return t, err
}

// StartLogin starts another login of the user p. Its errors are user-not-found if it was deleted, not-authenticated if the
// login of p itself was ended, or the store's.
func (a *Accounts) StartLogin(ctx context.Context, p domain.Principal) (domain.Tokens, error) {
	u, err := a.find(ctx, p, p.Username)
	if err != nil {
		return domain.Tokens{}, err
	}
	t, family, err := a.start(ctx, u)
	if err != nil || p.Login == ([16]byte{}) {
		return t, err
	}
	// Whoever ended p's login meanwhile, or on another node, has not seen the new one.
	_, good, err := a.dir.TokenUser(ctx, p.User, p.Login, a.now().UnixMilli())
	if err == nil && good {
		return t, nil
	}
	if err == nil {
		err = domain.Errorf(domain.NotAuthenticated, "the login was ended")
	}
	return domain.Tokens{}, errors.Join(err, a.tokens.RevokeFamily(ctx, family))
}

// EndLogins makes all tokens of the user p worthless. What is returned ends the sessions that were opened with them; it is
// not nil if there is no error.
func (a *Accounts) EndLogins(ctx context.Context, p domain.Principal) (endSessions func(), err error) {
	if err := a.tokens.RevokeUser(ctx, p.User, a.now().UnixMilli()); err != nil {
		return nil, err
	}
	return func() {
		a.ended(domain.Principal{User: p.User, Username: p.Username, Root: p.Root, Account: p.Account}, true)
	}, nil
}

// RevokeTokens ends every login of a user, and the sessions that were opened with tokens. The user itself may do it, and
// backends. Its errors are those of [Accounts.IssueTokens].
func (a *Accounts) RevokeTokens(ctx context.Context, p domain.Principal, username domain.Username) error {
	var (
		u   domain.User
		err error
	)
	if p.IsUser() && p.Username == username {
		u, err = a.find(ctx, p, username)
	} else {
		u, err = a.administered(ctx, p, username)
	}
	if err != nil {
		return err
	}
	end, err := a.EndLogins(ctx, u.Principal(""))
	if err == nil {
		end()
	}
	return err
}

// end ends every login of a user, and all its sessions.
func (a *Accounts) end(ctx context.Context, u domain.User) error {
	if err := a.tokens.RevokeUser(ctx, u.ID, a.now().UnixMilli()); err != nil {
		return err
	}
	a.ended(u.Principal(""), false)
	return nil
}

// start makes the first tokens of a new family.
func (a *Accounts) start(ctx context.Context, u domain.User) (t domain.Tokens, family [16]byte, err error) {
	if _, err := io.ReadFull(a.random, family[:]); err != nil {
		return domain.Tokens{}, family, err
	}
	secret, digest, err := newRefresh(a.random, &family)
	if err != nil {
		return domain.Tokens{}, family, err
	}
	if t.AccessToken, t.AccessExpires, err = a.minter.mint(ctx, u.ID, family); err != nil {
		return domain.Tokens{}, family, err
	}
	t.RefreshToken, t.RefreshExpires = secret, a.now().Add(a.refresh).UnixMilli()
	err = a.tokens.StartFamily(ctx, domain.RefreshToken{
		Hash: digest, Family: family, User: u.ID, Expires: t.RefreshExpires,
	}, a.mostLogins)
	if err != nil {
		return domain.Tokens{}, family, err
	}
	return t, family, nil
}
