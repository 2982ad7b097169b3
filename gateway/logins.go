package gateway

import (
	"context"

	"github.com/parley-im/parley/domain"
)

// Logins makes and ends logins of users who have proven who they are; [Accounts] is the one there is. Any goroutine may
// call it.
type Logins interface {
	// StartLogin starts another login of the user.
	StartLogin(ctx context.Context, p domain.Principal) (domain.Tokens, error)
	// EndLogins makes all tokens of the user worthless. What is returned ends the sessions that were opened with them.
	EndLogins(ctx context.Context, p domain.Principal) (endSessions func(), err error)
}

// logIns answers a command that makes or ends the caller's logins. after, which is never nil, is to be called once the
// caller has its answer: its own session may be among those that it ends.
func (g *Gateway) logIns(p domain.Principal, c domain.Command) (result domain.Result, after func(), err error) {
	after = func() {}
	defer g.contain(c.Name(), &err)
	d, err := g.decide(&domain.Heads{Now: domain.Millis(g.now()), Limits: g.limits}, p, c)
	if err != nil {
		return domain.Result{}, after, err
	}
	if g.logins == nil {
		return domain.Result{}, after, domain.Errorf(domain.Unavailable, "no logins are made here")
	}
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	defer cancel()
	switch d.Login {
	case domain.IssueStep:
		var t domain.Tokens
		if t, err = g.logins.StartLogin(ctx, p); err == nil {
			d.Result.Tokens = &t
		}
	case domain.RevokeStep:
		var end func()
		if end, err = g.logins.EndLogins(ctx, p); err == nil {
			after = end
		}
	case domain.NoStep:
	}
	if err != nil {
		return domain.Result{}, after, err
	}
	return d.Result, after, nil
}
