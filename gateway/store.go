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
	// StartFamily stores the first refresh token of a family.
	StartFamily(ctx context.Context, t domain.RefreshToken) error
	// Refresh exchanges a token that has not been used: it marks it and stores next, whose Family and User it sets
	// and returns. A token that is unknown, expired or of a revoked family is not-authenticated; one that was used
	// before is so too, and revokes its family.
	Refresh(ctx context.Context, hash [32]byte, now int64, next domain.RefreshToken) (domain.RefreshToken, error)
	// RevokeFamily ends a login; RevokeUser ends all of a user's logins up to the time.
	RevokeFamily(ctx context.Context, family [16]byte) error
	RevokeUser(ctx context.Context, id domain.UserID, now int64) error
}

// Registry administers users, services and accounts. Any goroutine may call it.
type Registry interface {
	UserRegistry
	ServiceRegistry
	AccountRegistry
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
	Services(ctx context.Context, root domain.AccountID) ([]domain.Service, error)
}

// AccountRegistry administers accounts and their applications.
type AccountRegistry interface {
	CreateAccount(ctx context.Context, name, parent string) (domain.Account, error)
	Accounts(ctx context.Context, root domain.AccountID) ([]domain.Account, error)
	CreateApplication(ctx context.Context, account, name string) error
}
