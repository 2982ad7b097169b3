package gateway

import (
	"context"

	"github.com/parley-im/parley/domain"
)

// Log commits events. Each value belongs to one committer goroutine, which alone uses it: it holds a connection of
// its own.
//
// Both methods commit before they return. A nil error means that everything is decided and durable. An error that
// is unavailable (domain.Unavailable) means that the outcome is unknown: the same arguments may be given again,
// and what was committed the first time is then found by its idempotency key (Append) or by ChangeRequest.Key
// (Change). Any other error means that nothing was stored, and that it would
// happen again: one of the batch is to blame.
type Log interface {
	// Append stores the drafts of one batch in the given order, in one transaction. No two drafts of a batch have
	// the same conversation, sender and client id. Placements are in the order of the drafts.
	Append(ctx context.Context, batch []domain.Draft) ([]domain.Placement, error)
	// Change decides and stores the requests in the given order, in one transaction. A request that is refused
	// does not disturb the others.
	Change(ctx context.Context, batch []domain.ChangeRequest) ([]domain.Changed, error)
}

// History reads what is committed. Any goroutine may call it.
type History interface {
	// Heads reads what the needs name, without locks.
	Heads(ctx context.Context, p domain.Principal, needs domain.Needs) (*domain.Heads, error)
	// Events gives the events of a conversation with after < seq <= upto in order. The caller bounds the range.
	Events(ctx context.Context, c domain.ConversationID, after, upto domain.Seq) ([]*domain.Event, error)
}

// Contents keeps external content, and which messages have it. Any goroutine may call it.
type Contents interface {
	// Claim notes, in one transaction, that the messages about to be stored have the content that their claims name, where
	// it is readable and complete, so that it is not removed; it gives the answers in the order of the claims. A claim may
	// be made again. What is claimed for a message that is not stored in the end counts for nothing after some time. An
	// error is unavailable or internal.
	Claim(ctx context.Context, claims []domain.ContentClaim, now int64) ([]domain.ClaimedContent, error)
}

// Directory knows who may log in. Any goroutine may call it. What is not there is user-not-found or not-found.
type Directory interface {
	Credential(ctx context.Context, name domain.Username) (domain.Credential, error)
	// TokenUser gives a user and whether its access tokens of the family, issued at the time, are still good.
	TokenUser(ctx context.Context, id domain.UserID, family [16]byte, issued int64) (u domain.User, good bool, err error)
	ServiceByKey(ctx context.Context, keyHash [32]byte) (domain.Service, error)
}

// Tokens keeps what tokens are signed and refreshed with. Any goroutine may call it.
type Tokens interface {
	SigningKeys(ctx context.Context) ([]domain.SigningKey, error)
	AddSigningKey(ctx context.Context, k domain.SigningKey) error
	Families
	OneTime
}

// Families keeps the families of tokens, one per login. Any goroutine may call it.
type Families interface {
	// StartFamily stores the first refresh token of a family. If its user then has more than most families, it ends those that were
	// begun or refreshed least recently; 0: there may be any number.
	StartFamily(ctx context.Context, t domain.RefreshToken, most int) error
	// Refresh exchanges a token that has not been used: it marks it and stores next, whose Family and User it sets
	// and returns. A token that is unknown, expired or of a revoked family is not-authenticated; one that was used
	// before is so too, and revokes its family: only then Family and User come with the error.
	Refresh(ctx context.Context, hash [32]byte, now int64, next domain.RefreshToken) (domain.RefreshToken, error)
	// RevokeFamily ends a login; RevokeUser ends all of a user's logins up to the time.
	RevokeFamily(ctx context.Context, family [16]byte) error
	RevokeUser(ctx context.Context, id domain.UserID, now int64) error
	// EndedSince gives the users and services some or all of whose logins were ended after a time, on whatever node, as far
	// as that was committed; each once, with its latest.
	EndedSince(ctx context.Context, since int64) ([]domain.Ending, error)
}

// OneTime keeps what logins by one-time keys need.
type OneTime interface {
	// InitSetting stores a value unless there is one of that name, and gives the one that is stored then.
	InitSetting(ctx context.Context, name string, value []byte) (stored []byte, created bool, err error)
	// OneTimeSecret gives a user's secret, and makes it fresh if there is none; ForgetOneTimeSecret removes it.
	OneTimeSecret(ctx context.Context, id domain.UserID, fresh string) (string, error)
	ForgetOneTimeSecret(ctx context.Context, id domain.UserID) error
	// UseKey notes that a key has been used, until it expires; not-authenticated if it was used before.
	UseKey(ctx context.Context, hash [32]byte, expires int64) error
}

// Registry administers users, services and accounts. Any goroutine may call it.
type Registry interface {
	UserRegistry
	ServiceRegistry
	AccountRegistry
	ApplicationRegistry
}

// UserRegistry administers users.
type UserRegistry interface {
	CreateUser(ctx context.Context, u domain.NewUser) (domain.User, error)
	UpdateUser(ctx context.Context, id domain.UserID, patch domain.UserPatch) (domain.User, error)
	// DeleteUser marks a user as deleted: it keeps its number and name, loses its password and tokens.
	DeleteUser(ctx context.Context, id domain.UserID) error
	FindUsers(ctx context.Context, refs []domain.UserRef) ([]domain.User, error)
	SearchUsers(ctx context.Context, q domain.UserQuery) ([]domain.User, error)
}

// ServiceRegistry administers services.
type ServiceRegistry interface {
	// CreateService makes a missing account only if makeAccount is set.
	CreateService(ctx context.Context, account, name string, keyHash [32]byte, makeAccount bool) (domain.Service, error)
	RotateService(ctx context.Context, account, name string, keyHash [32]byte) (domain.Service, error)
	DeleteService(ctx context.Context, account, name string) error
	Services(ctx context.Context, q domain.TreeQuery) ([]domain.Service, error)
}

// AccountRegistry administers accounts.
type AccountRegistry interface {
	CreateAccount(ctx context.Context, name, parent string) (domain.Account, error)
	Account(ctx context.Context, name string) (domain.Account, error)
	Accounts(ctx context.Context, q domain.TreeQuery) ([]domain.Account, error)
	// EditSettings takes effect for every command that is decided from then on, on whatever node.
	EditSettings(ctx context.Context, name string, e domain.SettingsEdit) (domain.Account, error)
	// DeleteAccount is in-use where something else is or, of users, ever was in it.
	DeleteAccount(ctx context.Context, name string) error
}

// ApplicationRegistry administers the applications of accounts.
type ApplicationRegistry interface {
	CreateApplication(ctx context.Context, account, name string) error
	Applications(ctx context.Context, account string) ([]string, error)
	// DeleteApplication is in-use where a user ever was in it.
	DeleteApplication(ctx context.Context, account, name string) error
}

// Sessions keeps what outlives connections: durable sessions with their subscriptions and positions. Any goroutine may
// call it. Nothing here concerns what is stored in conversations: an error is unavailable, and the call may be repeated.
type Sessions interface {
	// OpenSession begins a connection: it discards the device's earlier session, or gives it to go on with unless it
	// has expired, and notes that it is connected to the node.
	OpenSession(ctx context.Context, o domain.SessionOpening) (domain.StoredSession, error)
	// SaveSubscriptions replaces what a session is subscribed to. Conversations that become covered by start begin at
	// their present last event; the positions in those no longer covered by any subscription to events are dropped.
	// start is what was added: it decides where positions are made, all conversations of the user for the filter
	// conversations/+/events.
	SaveSubscriptions(ctx context.Context, id domain.SessionID, subs []domain.Subscription, start []domain.ConversationID, all bool) error
	// Behind gives what a session has not acknowledged, by its positions and the user's times of membership, in the
	// order of conversations and then of events: at most limit stretches of conversations after the given one. What the user
	// may not read now is among them, Withheld.
	Behind(ctx context.Context, id domain.SessionID, after domain.ConversationID, limit int) ([]domain.Stretch, error)
	// SavePositions advances positions and delivered marks; none ever goes back.
	SavePositions(ctx context.Context, positions []domain.Position, marks []domain.Mark) error
	// CloseSession notes that a session has lost its connection to the node, at the time, and how long it shall be
	// kept from then on, in seconds; 0 removes it. It does nothing if the session is connected to another node or
	// began another connection since: since is the SessionOpening.Now of the connection that ends.
	CloseSession(ctx context.Context, id domain.SessionID, node string, since, now int64, expiry uint32) error
	// Beat notes that the node lives. Sessions of nodes that have not beaten for a minute count as disconnected since
	// their last beat.
	Beat(ctx context.Context, node string, now int64) error
}
