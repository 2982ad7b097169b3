package domain

// This file holds the words of the seam between the gateway and the store.

// Draft is an event that an [Append] command was allowed to make, on its way into the log. The event has no number
// yet, and always a client id: where the client gave none the gateway makes one up, so that a batch whose outcome
// is unknown can be given again.
type Draft struct {
	Event *Event
	// Version is that of the head on which the command was decided.
	Version int64
}

// PlacementStatus says what became of a draft.
type PlacementStatus int

const (
	// Stored: the event is committed at Seq.
	Stored PlacementStatus = iota
	// Known: an event of the same sender and client id was committed before, at Seq; nothing was stored.
	Known
	// Stale: the head has moved on to another version; nothing was stored, decide again on the new one.
	Stale
	// Missing: there is no such conversation; nothing was stored.
	Missing
)

// Placement tells where a draft ended up, after the commit.
type Placement struct {
	Status PlacementStatus
	Seq    Seq
}

// ChangeRequest is a command on its way to being decided under the store's locks.
type ChangeRequest struct {
	// Key is unique to the request. The store keeps it with the first event as its client id, and so knows a request
	// that it committed already when it is given again after an unknown outcome.
	Key       string
	Principal Principal
	Needs     Needs
	// Decide runs on what the store read, possibly more than once (a retried transaction, a unique key found
	// taken), and must then forget its earlier runs. The store fills in all of Heads but Now, NewID and Limits.
	Decide func(*Heads) (Decision, error)
}

// Changed is what a change came to, after the commit.
type Changed struct {
	// Err is the refusal of Decide; the others are then empty.
	Err error
	// Decision is what was committed. For a request that had been committed before, its Events are read back, its
	// Conversation and Result.Conversation are the present state.
	Decision Decision
	// Before is the conversation as it was; nil if the change created it, or concerned none.
	Before *Conversation
}

// Credential is what a login by password or one-time key is checked against.
type Credential struct {
	User User
	// PasswordHash is in the PHC string format; empty: the user has no password.
	PasswordHash string
	// TokensFrom is until when tokens issued are no longer good, milliseconds since 1970.
	TokensFrom int64
	// OneTimeSecret is what hashes of one-time keys are keyed with; empty: there is none.
	OneTimeSecret string
}

// NewUser is a user to be created.
type NewUser struct {
	Username     Username
	DisplayName  string
	CustomData   RawObject
	PasswordHash string
	// MakeAccount also creates a missing account (as a main account) and application.
	MakeAccount bool
}

// UserPatch changes a user; nil leaves a field as it is.
type UserPatch struct {
	DisplayName  *string
	CustomData   *RawObject
	PasswordHash *string
}

// UserQuery searches the directory. Results are in the order of user numbers.
type UserQuery struct {
	// Root limits the search to an account tree; 0: all trees.
	Root AccountID
	// Application and Account limit it to one of these names; empty: any.
	Application, Account string
	// Text is looked for at the start of the user name and anywhere in the display name, letter case aside.
	Text string
	// After is the last user of the page before; Limit the most users to give.
	After UserID
	Limit int
}

// TreeQuery asks for accounts or services, in the order of their numbers.
type TreeQuery struct {
	// Root is the tree; 0: all trees.
	Root AccountID
	// After is the last number of the page before; Limit the most to give, 0: all.
	After int64
	Limit int
}

// ConversationQuery asks for a page of conversations in the order of their ids. Removed ones are left out.
type ConversationQuery struct {
	// Root limits the page to an account tree; 0: all trees.
	Root AccountID
	// Account, if not 0, limits it to those made in this account or in Root itself.
	Account AccountID
	// Member, if not 0, limits it to those that the user takes part in, whatever the other limits are.
	Member UserID
	// Public limits it to those that users may join.
	Public bool
	// After is the last conversation of the page before; Limit the most conversations to give.
	After ConversationID
	Limit int
	// Whole asks for the conversations themselves, and not only for their ids.
	Whole bool
}

// Service is a backend of an account, with the digest of its API key.
type Service struct {
	ID      ServiceID
	Name    string
	Account AccountID
	// AccountName is the account's name, Root the main account of its tree.
	AccountName string
	Root        AccountID
	// KeyHash is the SHA-256 of the API key.
	KeyHash [32]byte
	Created int64
}

// Principal gives the principal that s is.
func (s Service) Principal() Principal {
	return Principal{
		Service: s.ID, ServiceName: s.Name, AccountName: s.AccountName, Root: s.Root, Account: s.Account,
	}
}

// Account is a customer, or a child account of one.
type Account struct {
	ID   AccountID
	Name string
	// Parent is 0 for a main account, ParentName empty; Root is the main account of the tree.
	Parent     AccountID
	ParentName string
	Root       AccountID
	// Settings are the account's own, Effective those that hold.
	Settings  AccountSettings
	Effective AccountSettings
}

// SigningKey signs access tokens. The newest that has begun signs; the others verify until they end.
type SigningKey struct {
	ID      string
	Private []byte // Ed25519 seed, 32 bytes
	Created int64  // milliseconds since 1970
	Ends    int64  // no token signed by it is valid after this, milliseconds since 1970
}

// RefreshToken is a refresh token as the store keeps it: a digest, and the family of tokens that one login started.
type RefreshToken struct {
	Hash    [32]byte // SHA-256 of the token
	Family  [16]byte
	User    UserID
	Expires int64 // milliseconds since 1970
}

// Remembered is the answer to an HTTP request that carried an Idempotency-Key.
type Remembered struct {
	// Fingerprint tells whether a repeated key comes with the same request.
	Fingerprint [32]byte
	Status      int
	ContentType string
	Body        []byte
}

// SessionID is the store's number of a durable session.
type SessionID int64

// NeverExpires is the Session Expiry Interval of a session that stays until somebody ends it (MQTT 5, section
// 3.1.2.11.2).
const NeverExpires = 0xFFFFFFFF

// SessionOpening is the beginning of a connection, as the store of sessions sees it.
type SessionOpening struct {
	User    UserID
	Device  string
	Version byte
	// Clean discards an earlier session of the device; Expiry is how long the new one outlives its connection, in
	// seconds, 0: not at all, and then the store keeps nothing of it.
	Clean  bool
	Expiry uint32
	// Node names the gateway process that has the connection, Now is in milliseconds since 1970.
	Node string
	Now  int64
}

// StoredSession is what the store keeps of a device between its connections.
type StoredSession struct {
	// ID is 0 for a session that ends with its connection.
	ID SessionID
	// Present says that there was one to go on with; Subscriptions are what it had subscribed to.
	Present       bool
	Subscriptions []Subscription
	// WillsCancelled counts the wills of the device's earlier connections that are not carried out because it has come back;
	// WillsDue: there are others, which are due now.
	WillsCancelled int
	WillsDue       bool
}

// Position says up to which event a durable session has acknowledged a conversation.
type Position struct {
	Session      SessionID
	Conversation ConversationID
	Seq          Seq
}

// Stretch is a part of a conversation's log that a session has not acknowledged and is entitled to: From to To, both
// included. Withheld: its user takes part without the permission to read now, and gets it when that has ended.
type Stretch struct {
	Conversation ConversationID
	From, To     Seq
	Withheld     bool
}

// Mark is a watermark: all events up to Seq have reached a device of the user, or were read by it.
type Mark struct {
	Conversation ConversationID
	User         UserID
	Seq          Seq
	// Time is when that was, in milliseconds since 1970.
	Time int64
}

// Seen says that a user was there at a time, in milliseconds since 1970, and whether it still is.
type Seen struct {
	User UserID
	At   int64
	Here bool
}
