package gateway

import (
	"golang.org/x/time/rate"

	"github.com/parley-im/parley/domain"
)

// userLimits bound what one user may do, all its sessions together.
type userLimits struct {
	messages, commands *rate.Limiter
}

func (g *Gateway) newUserLimits() *userLimits {
	limiter := func(perSecond float64) *rate.Limiter {
		if perSecond <= 0 {
			return nil
		}
		return rate.NewLimiter(rate.Limit(perSecond), max(int(2*perSecond), 1))
	}
	l := &userLimits{limiter(g.messageRate), limiter(g.commandRate)}
	if l.messages == nil && l.commands == nil {
		return nil
	}
	return l
}

// whole reports whether nothing of the allowance is used up, so that a new one would be the same.
func (l *userLimits) whole() bool {
	if l == nil {
		return true
	}
	for _, limiter := range [...]*rate.Limiter{l.messages, l.commands} {
		if limiter != nil && limiter.Tokens() < float64(limiter.Burst()) {
			return false
		}
	}
	return true
}

func (l *userLimits) allow(c domain.Command) bool {
	if l == nil {
		return true
	}
	limiter := l.commands
	switch c.Kind() {
	case domain.Append, domain.Willing:
		limiter = l.messages
	case domain.Signalling:
		return true // has limits of its own, wherever it comes from
	default:
	}
	return limiter == nil || limiter.Allow()
}

// allowWill is allow for what the Will of a CONNECT comes to: a message to those online has no limit of its own there.
func (l *userLimits) allowWill(c domain.Command) bool {
	if l == nil || c.Kind() != domain.Signalling {
		return l.allow(c)
	}
	return l.messages == nil || l.messages.Allow()
}

func errTooMany() error {
	return domain.Errorf(domain.RateLimited, "too many in a second; try again later")
}

// Submit takes a publish of the session. done is called once with its outcome, from any goroutine, possibly before
// Submit returns; a nil error means that what the command stored is committed. A reply or an error event that is due
// (protocol.md sections 2 and 6) is sent by the gateway, before done. Submit never blocks.
func (s *Session) Submit(req domain.Request, done func(domain.Receipt, error)) {
	answered := func(r domain.Receipt, err error) {
		s.g.reply(s.principal, &req, r, err)
		done(r, err)
	}
	switch {
	case req.Err != nil:
		s.g.metrics.command(req.Name, req.Err)
		answered(domain.Receipt{}, req.Err)
	case !s.limits.allow(req.Command):
		err := errTooMany()
		s.g.metrics.command(req.Name, err)
		answered(domain.Receipt{}, err)
	case req.Command.Kind() == domain.Willing:
		s.arrange(req.Command, answered)
	default:
		s.g.run(s.principal, req.Command, s.g.now(), answered)
	}
}

// reply tells the sessions of the user, or the service, that listen what became of a request of p.
func (g *Gateway) reply(p domain.Principal, req *domain.Request, r domain.Receipt, err error) {
	own := p.OwnTopics()
	if own == "" || err == nil && !req.WantsReply {
		return
	}
	name := req.Name
	if t, ok := domain.ParseTopic(req.Topic); ok && name == "" {
		name = t.Command // one that does not exist: the client is told which
	}
	var payload []byte
	switch {
	case err == nil:
		payload = encode(domain.Reply{RequestID: req.RequestID, Command: name, Result: r.Result})
	case req.Unheard:
		payload = encode(domain.Notice{
			Type: domain.NoticeError, Time: domain.Millis(g.now()), Device: p.Device, Topic: req.Topic,
			RequestID: req.RequestID, Command: name, Error: domain.AsError(err),
		})
		g.toInbox(p.User, payload) // a service has none
	case req.WantsReply:
		payload = encode(domain.Reply{RequestID: req.RequestID, Command: name, Error: domain.AsError(err)})
	default:
		return
	}
	topic := domain.Topic{Kind: domain.RepliesTopic, User: own}
	if req.ReplyTo != "" {
		if t, ok := domain.ParseTopic(req.ReplyTo); ok {
			topic = t
		}
	}
	pub := &domain.Publication{Topic: topic.String(), Payload: payload, Correlation: req.Correlation}
	sessions := g.hub.of(p.User)
	if !p.IsUser() {
		sessions = g.hub.servicesOf(p.Root)
	}
	for _, other := range sessions {
		if other.principal.Service == p.Service {
			other.push(topic, pub)
		}
	}
}
