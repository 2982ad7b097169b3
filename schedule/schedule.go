// Package schedule sends later what services want sent at a time: messages and announcements.
//
// What is scheduled is in the store, and every gateway on it looks once a second whether something is due. It takes what it
// finds for some seconds, so that others leave it alone, carries it out as the command that it is, and writes what became of it.
// A gateway that is killed in between leaves it to be taken again; the message's own id, which it has from the beginning,
// makes one message of any number of attempts. Whoever takes it first or cancels it first has it.
//
// The package knows neither HTTP nor SQL, nor how commands are carried out. It imports domain of this module.
package schedule

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
)

// Store keeps what is scheduled. Any goroutine may call it; errors are *domain.Error.
type Store interface {
	// Schedule stores n unless there is one of its id, which it gives then. External content that it names is held; most bounds
	// what may be pending of one account.
	Schedule(ctx context.Context, n domain.Scheduled, p domain.Principal, external []domain.ContentID, most int) (stored domain.Scheduled, existing bool, err error)
	// Scheduled gives what was scheduled; not-found if there is nothing of the id.
	Scheduled(ctx context.Context, id domain.ScheduledID) (domain.Scheduled, error)
	// ListScheduled gives a page of what was scheduled, without what is to be sent.
	ListScheduled(ctx context.Context, q domain.ScheduledQuery) ([]domain.Scheduled, error)
	// CancelScheduled cancels what was not taken yet, and gives it as it is then.
	CancelScheduled(ctx context.Context, id domain.ScheduledID, now int64) (domain.Scheduled, error)
	Due
}

// Due is what sending needs of the store. Several gateways may send at once: each gets other work. Times are milliseconds since
// 1970.
type Due interface {
	// TakeDue gives what was due by now, which nobody else gets until the other time, nor anything of the same conversation
	// while some of it is held like this.
	TakeDue(ctx context.Context, now, until int64, limit int) ([]domain.Scheduled, error)
	// FinishScheduled writes what became of it; DeferScheduled leaves several to be taken again from a time on.
	FinishScheduled(ctx context.Context, id domain.ScheduledID, o domain.Outcome) error
	DeferScheduled(ctx context.Context, ids []domain.ScheduledID, until int64) error
}

// Options configure [New]. Store, Do and Consider are required.
type Options struct {
	Store Store
	// Do runs a command and returns when it is committed, or refused with a *domain.Error.
	Do func(ctx context.Context, p domain.Principal, c domain.Command) (domain.Receipt, error)
	// Consider reports why a command would be refused if it came at the time.
	Consider func(ctx context.Context, p domain.Principal, c domain.Command, at time.Time) error
	// Most is how many messages of one account may be pending; 0: any number.
	Most int

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Service schedules and sends. Make one with [New] and run [Service.Run] beside it.
type Service struct {
	Options
	metrics *scheduleMetrics
}

// New makes a service. An error means options that are missing, or metrics that were registered before.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.Do == nil || o.Consider == nil {
		return nil, errors.New("schedule: Store, Do and Consider are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	m, err := newMetrics(o.Registerer)
	return &Service{Options: o, metrics: m}, err
}

// Schedule stores a message ([domain.SendMessage], by p or on behalf of a user whom p names) or an announcement
// ([domain.Announce]) to be sent at a time, in milliseconds since 1970. What would be refused then, as far as that is known
// now, is refused at once. Who asks again with the same client id gets what was scheduled first.
//
// Errors: access-denied for who is no service, invalid-request for times that are past or more than 30 days ahead,
// rate-limited where too much is pending, and whatever the command is refused with.
func (s *Service) Schedule(ctx context.Context, p domain.Principal, c domain.Command, at int64) (n domain.Scheduled, err error) {
	if !p.IsBackend() {
		return n, domain.Errorf(domain.AccessDenied, "only a service schedules messages")
	}
	now := domain.Millis(s.Now())
	n = domain.Scheduled{
		At: at, Created: now, Service: p.Service, ServiceName: p.ServiceName, User: p.User, Username: p.Username,
		Root: p.Root, Account: p.Account, State: domain.ScheduledPending, Sender: p.Initiator(),
	}
	if a, ok := c.(*domain.Announce); ok {
		if err := s.settleAnnouncement(ctx, p, a, &n); err != nil {
			return n, err
		}
	}
	var external []domain.ContentID
	if n.ID, external, err = identify(p, n.Root, c); err != nil {
		return n, err
	}
	if at <= now {
		// Whoever repeats a request whose time has come meanwhile asks for what it was answered.
		if n, err := s.Store.Scheduled(ctx, n.ID); err == nil && p.Sees(n.Root) {
			return shown(n), nil
		}
		return n, domain.Errorf(domain.InvalidRequest, "at is not in the future")
	}
	if at > now+domain.MaxAhead.Milliseconds() {
		return n, domain.Errorf(domain.InvalidRequest, "a message is scheduled at most 30 days ahead")
	}
	if err := s.Consider(ctx, p, c, time.UnixMilli(at)); err != nil {
		return n, err
	}
	if m, ok := c.(*domain.SendMessage); ok {
		if err := s.settleMessage(ctx, p, m, &n); err != nil {
			return n, err
		}
	}
	if err := n.Schedule(c); err != nil {
		return n, err
	}
	if err := s.takesPart(ctx, p, &n); err != nil {
		return n, err
	}
	stored, existing, err := s.Store.Schedule(ctx, n, p, external, s.Most)
	if err == nil && !existing {
		s.metrics.scheduled.Inc()
	}
	return shown(stored), err
}

// identify gives the id under which the command is scheduled, and the external content that it names. root is the account tree
// of an announcement.
func identify(p domain.Principal, root domain.AccountID, c domain.Command) (id domain.ScheduledID, external []domain.ContentID, err error) {
	var client string
	var where domain.ConversationID
	switch c := c.(type) {
	case *domain.SendMessage:
		if c.Kind() != domain.Append {
			return id, nil, domain.Errorf(domain.InvalidRequest, "only messages that are stored are scheduled: neither transient ones nor wills")
		}
		client, where, external = c.ClientID, c.Conversation, c.External()
	case *domain.Announce:
		client = c.ClientID
		p.Root = root
	}
	if client != "" {
		return domain.ScheduledIDOf(p, where, client), external, nil
	}
	return domain.ScheduledID(uuid.Must(uuid.NewV7())), external, nil
}

// settleMessage finds out in which account a message belongs that the admin key sends, which has none.
func (s *Service) settleMessage(ctx context.Context, p domain.Principal, m *domain.SendMessage, n *domain.Scheduled) error {
	if n.Root != 0 {
		return nil
	}
	r, err := s.Do(ctx, p, &domain.GetConversation{UUID: m.Conversation})
	if err == nil {
		n.Root, n.Account = r.Result.Conversation.Root, r.Result.Conversation.Account
	}
	return err
}

// settleAnnouncement does so for an announcement. Its id depends on it.
func (s *Service) settleAnnouncement(ctx context.Context, p domain.Principal, a *domain.Announce, n *domain.Scheduled) error {
	if n.Root != 0 || len(a.To) == 0 { // for nobody: that is refused later
		return nil
	}
	r, err := s.Do(ctx, p, &domain.GetUser{UserRef: a.To[0].Ref})
	if err == nil {
		n.Root, n.Account = r.Result.User.Root, r.Result.User.Account
	}
	return err
}

// takesPart refuses what is to be sent on behalf of a user who takes no part where it is sent: who has left by the time is not
// made to speak.
func (s *Service) takesPart(ctx context.Context, p domain.Principal, n *domain.Scheduled) error {
	if n.User == 0 || n.Conversation == nil {
		return nil
	}
	r, err := s.Do(ctx, p, &domain.GetConversation{UUID: *n.Conversation})
	if err != nil {
		return err
	}
	if _, ok := r.Result.Conversation.Participant(n.User); !ok {
		return domain.Errorf(domain.NotParticipant, "%s takes no part in the conversation", n.Username)
	}
	return nil
}

// Cancel makes sure that something is not sent. Doing so again is fine. Errors: not-found, already-sent where it is too late.
func (s *Service) Cancel(ctx context.Context, p domain.Principal, id domain.ScheduledID) error {
	if _, err := s.Get(ctx, p, id); err != nil {
		return err
	}
	n, err := s.Store.CancelScheduled(ctx, id, domain.Millis(s.Now()))
	switch {
	case err != nil:
		return err
	case n.State != domain.ScheduledCancelled:
		return domain.Errorf(domain.AlreadySent, "it is %s already", n.State)
	}
	s.metrics.finished.WithLabelValues(string(domain.ScheduledCancelled)).Inc()
	return nil
}

// Get gives something that a service of p's tree has scheduled; what p may not know of is not-found.
func (s *Service) Get(ctx context.Context, p domain.Principal, id domain.ScheduledID) (domain.Scheduled, error) {
	if !p.IsBackend() {
		return domain.Scheduled{}, domain.Errorf(domain.AccessDenied, "only a service schedules messages")
	}
	n, err := s.Store.Scheduled(ctx, id)
	if err == nil && !p.Sees(n.Root) {
		err = domain.Errorf(domain.NotFound, "nothing of that id is scheduled")
	}
	return shown(n), err
}

// List gives a page of what the services of p's tree have scheduled, in the order in which it is due and without what is to be
// sent.
func (s *Service) List(ctx context.Context, p domain.Principal, q domain.ScheduledQuery) ([]domain.Scheduled, error) {
	if !p.IsBackend() {
		return nil, domain.Errorf(domain.AccessDenied, "only a service schedules messages")
	}
	q.Root = p.Root
	return s.Store.ListScheduled(ctx, q)
}

// shown gives something scheduled with what is to be sent, as far as that is still known.
func shown(n domain.Scheduled) domain.Scheduled {
	if len(n.Body) > 0 {
		_, _ = n.Command() // what cannot be read is not shown; sending it will tell
	}
	return n
}
