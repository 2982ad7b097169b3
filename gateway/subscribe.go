package gateway

import (
	"context"
	"log/slog"

	"github.com/parley-im/parley/domain"
)

// Subscribe takes the entries of one SUBSCRIBE and gives, for each, nil if it was granted or the refusal. A
// subscription to what is subscribed already replaces its options. Events are delivered from the next one on.
//
// It may read the store: whether a user takes part in a conversation that nothing happened in lately, for instance.
func (s *Session) Subscribe(ctx context.Context, subs []domain.Subscription) []error {
	refusals := make([]error, len(subs))
	filters := make([]domain.Filter, len(subs))
	var names []domain.Username
	for i, sub := range subs {
		filters[i], _ = domain.ParseFilter(sub.Filter)
		if filters[i].Kind == domain.StatusTopic && filters[i].Allowed(s.principal) {
			names = append(names, filters[i].User)
		}
	}
	statuses, unknown := s.g.followable(ctx, s.principal, names)
	var started []domain.Filter
	fresh := make([]bool, len(subs))
	for i, f := range filters {
		if f.Kind == domain.StatusTopic {
			if _, ok := statuses[f.User]; !ok && f.Allowed(s.principal) {
				if refusals[i] = unknown; unknown == nil {
					refusals[i] = domain.Errorf(domain.UserNotFound, "no such user")
				}
				continue
			}
		}
		if fresh[i], refusals[i] = s.subscribe(ctx, f, subs[i].Options); fresh[i] {
			started = append(started, f)
		}
	}
	err := s.remember(ctx, started)
	if err == nil {
		for i, f := range filters {
			if f.Kind == domain.StatusTopic && refusals[i] == nil {
				handling := subs[i].Options.RetainHandling
				s.g.presence.follow(s, f.User, statuses[f.User], handling == 0 || handling == 1 && fresh[i], true)
			}
		}
		s.g.greetUnread(s)
		return refusals
	}
	// Not stored is not granted: the client would count on it after its next connection.
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range started {
		delete(s.subscriptions, f)
		s.endPush(f)
	}
	for i := range refusals {
		if refusals[i] == nil {
			refusals[i] = err
		}
	}
	return refusals
}

// subscribe grants one subscription, or says why not. fresh: there was none to the filter before.
func (s *Session) subscribe(ctx context.Context, f domain.Filter, o domain.SubscribeOptions) (fresh bool, err error) {
	if !f.Allowed(s.principal) {
		return false, domain.Errorf(domain.AccessDenied, "you may not subscribe to that")
	}
	switch {
	case f.Group != "":
		return false, domain.Errorf(domain.AccessDenied, "not available yet")
	case !f.Conversation.IsZero():
		if err := s.g.mayFollow(ctx, s.principal, f.Conversation); err != nil {
			return false, err
		}
	}
	if f.Kind == domain.SignalsTopic {
		o.QoS = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false, domain.Errorf(domain.Unavailable, "the session is ending")
	}
	_, had := s.subscriptions[f]
	if !had && len(s.subscriptions) >= s.g.maxSubscriptions {
		s.g.metrics.limited.WithLabelValues(limitSubscriptions).Inc()
		return false, domain.Errorf(domain.RateLimited, "too many subscriptions")
	}
	if s.subscriptions == nil {
		s.subscriptions = make(map[domain.Filter]domain.SubscribeOptions, 4)
	}
	if !had {
		s.beginPush(f)
	}
	s.subscriptions[f] = o
	return !had, nil
}

// Unsubscribe takes the filters of one UNSUBSCRIBE and tells, for each, whether there was such a subscription.
func (s *Session) Unsubscribe(ctx context.Context, filters []string) []bool {
	had := s.unsubscribe(filters)
	if err := s.remember(ctx, nil); err != nil {
		// It takes effect now all the same; the next connection may find the subscription again.
		s.g.logger.Warn("an unsubscription is not written", slog.Any("error", err))
	}
	return had
}

func (s *Session) unsubscribe(filters []string) []bool {
	had := make([]bool, len(filters))
	for i, filter := range filters {
		f, ok := domain.ParseFilter(filter)
		if !ok {
			continue
		}
		s.mu.Lock()
		_, had[i] = s.subscriptions[f]
		delete(s.subscriptions, f)
		s.endPush(f)
		s.mu.Unlock()
		if f.Kind == domain.StatusTopic {
			s.g.presence.unfollow(s, f.User)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetWithheld()
	return had
}

// mayFollow reports why p may not subscribe to a conversation's events.
func (g *Gateway) mayFollow(ctx context.Context, p domain.Principal, id domain.ConversationID) error {
	heads, err := g.history.Heads(ctx, p, domain.Needs{Conversation: id})
	if err != nil {
		return err
	}
	c := heads.Conversation
	if c == nil || !p.Sees(c.Root) {
		return domain.Errorf(domain.ConversationNotFound, "no such conversation")
	}
	if p.IsBackend() {
		return nil
	}
	part, ok := c.Participant(p.User)
	switch {
	case !ok:
		return domain.Errorf(domain.AccessDenied, "you take no part in this conversation")
	case !part.Permissions.Reads():
		return domain.Errorf(domain.AccessDenied, "you may not read this conversation")
	case c.Removed:
		return domain.Errorf(domain.ConversationRemoved, "the conversation was removed")
	}
	return nil
}
