package domain

import "time"

// Principal is who acts: a user on a device, a service, or the holder of the admin key. It is proven by a login
// and never taken from what a client says about itself. The zero value may do nothing.
type Principal struct {
	// User and Username are set for a user, and for a service that acts on a user's behalf.
	User     UserID
	Username Username
	// Device is the MQTT client id of a user's session; empty over HTTP.
	Device string
	// Login is the family of the access token that proved who the user is; zero for a password.
	Login [16]byte
	// External is set for a user who was proven by a token of another issuer.
	External bool
	// Issued is when the token was made that proved who the user is, in milliseconds since 1970; 0 for a password.
	Issued int64
	// Proof is a digest of what the store keeps of the password or API key that proved who it is; zero for a token.
	Proof [32]byte
	// Service and ServiceName are set for a service, also when it acts on a user's behalf.
	Service     ServiceID
	ServiceName string
	// AccountName is the name of a service's account, for the names of its topics.
	AccountName string
	// Admin is set for the admin key: it may do whatever a service of any account may.
	Admin bool
	// Root is the main account of the tree that the principal belongs to; 0 for the admin key, which sees all.
	Root AccountID
	// Account is the account itself: Root or one of its children.
	Account AccountID
}

// IsUser reports whether p is a user acting for itself.
func (p Principal) IsUser() bool { return p.User != 0 && p.Service == 0 && !p.Admin }

// ByToken reports whether p is a user who was proven by a token, ours or another issuer's.
func (p Principal) ByToken() bool { return p.IsUser() && (p.External || p.Login != [16]byte{}) }

// Proven reports whether it is known what proved p: a password, a token or a key.
func (p Principal) Proven() bool {
	return p.External || p.Login != [16]byte{} || p.Proof != [32]byte{}
}

// IsBackend reports whether p is a service or the admin key: it acts with every right in the trees that it sees.
func (p Principal) IsBackend() bool { return p.Service != 0 || p.Admin }

// Sees reports whether p may know of things in the account tree of root.
func (p Principal) Sees(root AccountID) bool {
	return p.Admin || (p.Root != 0 && p.Root == root)
}

// Sender is p's part of the idempotency key.
func (p Principal) Sender() SenderID {
	switch {
	case p.User != 0:
		return SenderID(p.User)
	case p.Service != 0:
		return -SenderID(p.Service)
	}
	return 0
}

// OwnTopics is what the topics of p's own have behind users/: the name of a user, or what a service connects with. Empty:
// it has none.
func (p Principal) OwnTopics() Username {
	switch {
	case p.IsUser():
		return p.Username
	case p.Service != 0 && p.User == 0 && p.AccountName != "":
		return Username(servicePrefix + p.ServiceName + "@" + p.AccountName)
	}
	return ""
}

// Initiator is how events show p.
func (p Principal) Initiator() Initiator {
	switch {
	case p.User != 0:
		return Initiator{UserID: p.User, Username: p.Username, Device: p.Device}
	case p.Service != 0:
		return Initiator{Service: p.ServiceName}
	}
	return Initiator{Service: "admin"}
}

// OnBehalfOf gives the principal of a backend that acts as user u.
func (p Principal) OnBehalfOf(u User) Principal {
	p.User, p.Username, p.Device = u.ID, u.Username, ""
	p.Root, p.Account = u.Root, u.Account
	return p
}

// User is a person or device of the directory. JSON shows its public part; [User.Private] adds the fields that
// only the user itself sees.
type User struct {
	ID          UserID    `json:"userId" doc:"Number of the user, stable and never reused."`
	Username    Username  `json:"username" doc:"Full name, name@application.account."`
	DisplayName string    `json:"displayName,omitempty"`
	CustomData  RawObject `json:"customData,omitempty" doc:"Whatever the application keeps about the user, for all to see."`
	Deleted     bool      `json:"deleted,omitempty" doc:"The user no longer exists; its messages do."`
	Created     int64     `json:"createdTime,omitempty" doc:"Milliseconds since 1970."`

	// Own is filled only in what is shown to the user itself.
	*Own

	Root    AccountID `json:"-"`
	Account AccountID `json:"-"`
}

// Own is what only the user itself sees of its record (protocol.md section 6, getMe).
type Own struct {
	PrivateCustomData     RawObject        `json:"privateCustomData,omitempty"`
	ConversationsList     []ConversationID `json:"conversationsList,omitzero" doc:"Conversations that the user takes part in."`
	LeaveConversationList []ConversationID `json:"leaveConversationList,omitzero" doc:"Conversations that the user left or was removed from."`
	MutedConversations    []ConversationID `json:"mutedConversations,omitempty" doc:"Conversations that the user wants no pushes about."`
	Notifications         []string         `json:"notifications" doc:"Events that the user wants to be pushed."`
}

// Principal gives the principal that u is when it acts for itself from a device.
func (u User) Principal(device string) Principal {
	return Principal{User: u.ID, Username: u.Username, Device: device, Root: u.Root, Account: u.Account}
}

// UserRef names a user by number or by name; exactly one is set in a valid reference.
type UserRef struct {
	UserID   UserID   `json:"userId,omitempty" doc:"Number of the user; or username."`
	Username Username `json:"username,omitempty" doc:"Full name of the user; or userId."`
}

// Check reports what is wrong with the reference.
func (r UserRef) Check() error {
	switch {
	case (r.UserID == 0) == (r.Username == ""):
		return Errorf(InvalidRequest, "a user is named by exactly one of userId and username")
	case r.UserID < 0:
		return Errorf(InvalidRequest, "userId is a positive number")
	case r.Username != "":
		if _, err := ParseUsername(string(r.Username)); err != nil {
			// A name that cannot exist is a user that does not exist.
			return Errorf(UserNotFound, "no user %q", clip(string(r.Username)))
		}
	}
	return nil
}

// Is reports whether the reference names u.
func (r UserRef) Is(u User) bool {
	return (r.UserID != 0 && r.UserID == u.ID) || (r.Username != "" && r.Username == u.Username)
}

// Hello is what a device says about itself when it connects: already parsed, not yet believed.
type Hello struct {
	// Username is the CONNECT user name without its options; a service says service/<name>@<account>.
	Username string
	// Password is a password, an access token or an API key.
	Password string
	// Device is the client id: scoped to the user, 1 to 256 bytes.
	Device string
	// Tag limits the user to one live session per tag; Reconnect makes this login the loser of a conflict.
	Tag       string
	Reconnect bool
	// Push asks for the newest missed messages of each conversation as events (protocol.md, "Sync modes").
	Push bool
	// Version is the MQTT protocol level, 4 or 5.
	Version byte
	// Clean discards what the store knows of an earlier session of the device; Expiry is how long the session
	// outlives its connection, in seconds (0: not at all).
	Clean  bool
	Expiry uint32
	// Remote is the peer's address, for limits and logs.
	Remote string
	// Will is what the client wants published when it is gone without a farewell; nil: nothing. It has the form of a
	// publish, but whether this user may make it is not yet known.
	Will *Will
}

// Farewell says why a session is ended, in terms that every MQTT version can map.
type Farewell struct {
	// Reason is the MQTT 5 DISCONNECT reason code.
	Reason byte
	// Text is the MQTT 5 reason string; empty: none.
	Text string
}

// String gives the reason string.
func (f Farewell) String() string { return f.Text }

// TokenExpired ends a session whose access token has run out.
func TokenExpired() Farewell { return Farewell{Reason: 0x87, Text: "token-expired"} }

// TakenOver ends the older of two sessions with one client id or one tag.
func TakenOver() Farewell { return Farewell{Reason: 0x8e, Text: "taken-over"} }

// NotWelcome ends the sessions of a user who was deleted or whose tokens were revoked.
func NotWelcome() Farewell { return Farewell{Reason: 0x87, Text: "not-authenticated"} }

// ShuttingDown ends the sessions of a gateway that stops.
func ShuttingDown() Farewell { return Farewell{Reason: 0x8b, Text: "shutting-down"} }

// TooSlow ends a session that let more wait for it than its limits allow. Its position is kept.
func TooSlow() Farewell { return Farewell{Reason: 0x97, Text: "too-slow"} }

// SessionLost ends a connection whose durable session the store does not have any more. The client finds that out when it
// connects again.
func SessionLost() Farewell { return Farewell{Reason: 0x80, Text: "session-lost"} }

// Millis is the protocol's form of an instant: milliseconds since 1970.
func Millis(t time.Time) int64 { return t.UnixMilli() }
