package gateway

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"time"

	"github.com/parley-im/parley/domain"
)

// Endings knows which logins were ended, on whatever node; [Accounts] is the one there is. Any goroutine may call it.
type Endings interface {
	// EndedSince gives the users and services some or all of whose logins were ended after a time, in milliseconds since
	// 1970, as far as that is committed; each once, with its latest.
	EndedSince(ctx context.Context, since int64) ([]domain.Ending, error)
	// Holds reports whether what has proven a session's principal still would.
	Holds(ctx context.Context, p domain.Principal) (bool, error)
}

const (
	// endingsPeriod is how often a gateway looks for logins that were ended on other nodes.
	endingsPeriod = time.Second
	// endingsOverlap is how far back it looks again: what was noted then may have been committed only now, by a clock that is
	// behind, and sessions may have been on their way then.
	endingsOverlap = 30 * time.Second
)

// watchEndings ends the sessions whose logins were ended on other nodes, until the gateway is closed.
func (g *Gateway) watchEndings(e Endings) {
	tick := time.NewTicker(endingsPeriod)
	defer tick.Stop()
	looked, failing := g.now(), false
	for {
		select {
		case <-g.running.Done():
			return
		case <-tick.C:
		}
		now := g.now()
		err := g.endSince(e, looked.Add(-endingsOverlap))
		if err == nil {
			looked = now
		} else if !failing && g.running.Err() == nil {
			g.logger.Warn("it is not known whose logins were ended elsewhere; trying again", slog.Any("error", err))
		}
		failing = err != nil
	}
}

func (g *Gateway) endSince(e Endings, since time.Time) (err error) {
	defer g.contain("looking for ended logins", &err)
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	defer cancel()
	list, err := e.EndedSince(ctx, domain.Millis(since))
	if err != nil {
		return err
	}
	for _, ended := range list {
		sessions := g.hub.of(ended.User)
		if ended.User == 0 {
			sessions = g.hub.servicesOf(ended.Root)
		}
		for _, s := range sessions {
			if s.held >= ended.At || s.principal.Service != ended.Service {
				continue
			}
			holds, err := e.Holds(ctx, s.principal)
			if err != nil {
				return err
			}
			if s.held = ended.At; !holds {
				s.disinherit() // a logout of sorts
				s.sink.Close(domain.NotWelcome())
			}
		}
	}
	return nil
}

// EndedSince is part of [Endings].
func (a *Accounts) EndedSince(ctx context.Context, since int64) ([]domain.Ending, error) {
	return a.tokens.EndedSince(ctx, since)
}

// Holds is part of [Endings].
func (a *Accounts) Holds(ctx context.Context, p domain.Principal) (bool, error) {
	var holds bool
	var err error
	switch {
	case p.Service != 0:
		var s domain.Service
		s, err = a.dir.ServiceByKey(ctx, p.Proof)
		holds = s.ID == p.Service
	case p.ByToken():
		_, holds, err = a.dir.TokenUser(ctx, p.User, p.Login, p.Issued)
	default:
		var c domain.Credential
		c, err = a.dir.Credential(ctx, p.Username)
		holds = !c.User.Deleted && proofOf(c) == p.Proof
	}
	if err != nil && domain.CodeOf(loginRefusal(err)) == domain.NotAuthenticated {
		return false, nil
	}
	return err == nil && holds, err
}

// proofOf gives what a session that was opened by password is recognised by: a new password has another salt, and so
// another digest.
func proofOf(c domain.Credential) [32]byte { return sha256.Sum256([]byte(c.PasswordHash)) }
