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
	case domain.Append:
		limiter = l.messages
	case domain.Signalling:
		return true // has limits of its own, wherever it comes from
	default:
	}
	return limiter == nil || limiter.Allow()
}

func errTooMany() error {
	return domain.Errorf(domain.RateLimited, "too many in a second; try again later")
}

// Submit takes a publish of the session. done is called once with its outcome, from any goroutine, possibly before
// Submit returns; a nil error means that what the command stored is committed. A reply or an error event that is due
// (protocol.md sections 2 and 6) is sent by the gateway, before done. Submit never blocks.
func (s *Session) Submit(req domain.Request, done func(domain.Receipt, error)) {
	answered := func(r domain.Receipt, err error) {
		s.reply(&req, r, err)
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
	default:
		s.g.run(s.principal, req.Command, s.g.now(), answered)
	}
}

// reply tells the user's sessions that listen what became of a request.
func (s *Session) reply(req *domain.Request, r domain.Receipt, err error) {
	if !s.principal.IsUser() || err == nil && !req.WantsReply {
		return
	}
	user, name := s.principal.Username, req.Name
	if t, ok := domain.ParseTopic(req.Topic); ok && name == "" {
		name = t.Command // one that does not exist: the client is told which
	}
	var payload []byte
	switch {
	case err == nil:
		payload = encode(domain.Reply{RequestID: req.RequestID, Command: name, Result: r.Result})
	case req.Unheard:
		payload = encode(domain.Notice{
			Type: domain.NoticeError, Time: domain.Millis(s.g.now()), Device: s.principal.Device, Topic: req.Topic,
			RequestID: req.RequestID, Command: name, Error: domain.AsError(err),
		})
		s.g.toInbox(s.principal.User, payload)
	case req.WantsReply:
		payload = encode(domain.Reply{RequestID: req.RequestID, Command: name, Error: domain.AsError(err)})
	default:
		return
	}
	topic := domain.Topic{Kind: domain.RepliesTopic, User: user}
	if req.ReplyTo != "" {
		if t, ok := domain.ParseTopic(req.ReplyTo); ok {
			topic = t
		}
	}
	pub := &domain.Publication{Topic: topic.String(), Payload: payload, Correlation: req.Correlation}
	for _, other := range s.g.hub.of(s.principal.User) {
		other.push(topic, pub)
	}
}
