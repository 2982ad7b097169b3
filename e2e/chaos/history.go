package chaos

import "time"

// History is what happened, as those outside of the gateway saw it.
type History struct {
	// Logs are the conversations' logs as they were read in the end.
	Logs      map[string][]Event
	Publishes []Publish
	Rewrites  []Rewrite
	// Revocations made the tokens of users worthless.
	Revocations []Revocation
	Devices     []Device
	Reads       []Read
	// Shaky are the times during which an acknowledgement of a delivery may have been forgotten: the last flush before a
	// gateway was killed, and whenever the store was gone.
	Shaky []Period
}

// Event is an event, as a log or a delivery shows it.
type Event struct {
	Conversation string
	Seq          int64
	Type, Action string
	// Message is the id that the sender gave to a message.
	Message string
	// Of is, of what is about a message, the number of its sendMessage event; Shows is what it shows of the message.
	Of    int64
	Shows Content
	// Users are the participants concerned: all at creation, otherwise those who came, went or were edited. Blind are those of
	// them who may not read.
	Users, Blind []int64
	// Uber says, at creation, that readers see only their own times.
	Uber bool
	// Asked and Answered are, in a log, when the change was asked for and when that was answered; zero: it is not known.
	Asked, Answered time.Time
}

// Content is what a message says at some time.
type Content struct {
	Text    string
	Edits   int
	Removed bool
}

// Outcome is what a publisher knows.
type Outcome int

const (
	// Unanswered: the last attempt was not answered.
	Unanswered Outcome = iota
	// Accepted: acknowledged with success.
	Accepted
	// Refused: definitely.
	Refused
)

// Publish is a message on its way into a log, with all its attempts.
type Publish struct {
	Conversation, ID, Text string
	Outcome                Outcome
	// Seq is what the acknowledgement told; 0: nothing.
	Seq int64
	// Doubtful: an attempt, not necessarily the last one, was not answered.
	Doubtful bool
	// Begun is when the first attempt was made.
	Begun time.Time
}

// Rewrite is an edit or a removal of a message, asked for once.
type Rewrite struct {
	Conversation string
	// Of is the number of the message's sendMessage event, Text what it is to say; Removal: nothing any more.
	Of      int64
	Text    string
	Removal bool
	Outcome Outcome
	// Edits is how often the message had been edited with this, as the answer told; 0: it did not.
	Edits           int
	Asked, Answered time.Time
}

// Read is what somebody was shown who asked for events of the past.
type Read struct {
	// User is who asked; 0: a backend.
	User            int64
	Conversation    string
	Asked, Answered time.Time
	Events          []Event
	// Final: everything was asked for, after the last event.
	Final bool
}

// Device is a client id of a user, subscribed to all events.
type Device struct {
	Name    string
	User    int64
	Durable bool
	// Start is, for a durable device, the last event of each conversation when it subscribed; 0 for those that were created
	// later.
	Start map[string]int64
	// Connections are in the order in which they were opened; those of a take-over overlap.
	Connections []Connection
	// Complete: in the end the device was given the time to get everything.
	Complete bool
}

// Connection is a connection of a device.
type Connection struct {
	// Opened is when the CONNECT was sent, Subscribed when the subscription was known to hold.
	Opened, Subscribed time.Time
	// Token is when the token was given with which it was opened; zero: it was a password.
	Token      time.Time
	Present    bool
	Deliveries []Delivery
}

// Delivery is an event that arrived.
type Delivery struct {
	Event
	Arrived time.Time
	// Acknowledged is when the acknowledgement was sent; zero: it is not known when, but at once before Confirmed.
	Acknowledged time.Time
	// Confirmed is when it was certain that the gateway had handled the acknowledgement; zero: it never was.
	Confirmed time.Time
}

// Revocation is when all tokens of a user were made worthless, so that sessions that were opened with one ended.
type Revocation struct {
	User            int64
	Asked, Answered time.Time
}

// Period is a time, its ends included.
type Period struct{ From, To time.Time }

func (p Period) overlaps(from, to time.Time) bool { return !to.Before(p.From) && !from.After(p.To) }
