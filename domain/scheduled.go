package domain

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
)

// ScheduledState says what became of something that is to be sent later.
type ScheduledState string

// The states of protocol.md section 8, scheduled messages. What is being sent can be cancelled no more.
const (
	ScheduledPending   ScheduledState = "pending"
	ScheduledSending   ScheduledState = "sending"
	ScheduledSent      ScheduledState = "sent"
	ScheduledRefused   ScheduledState = "refused"
	ScheduledCancelled ScheduledState = "cancelled"
)

// Scheduled is a message or an announcement that a service wants sent at a time.
type Scheduled struct {
	ID           ScheduledID     `json:"uuid"`
	At           int64           `json:"at" doc:"When it is due, in milliseconds since 1970."`
	State        ScheduledState  `json:"state" enum:"pending,sending,sent,refused,cancelled"`
	Created      int64           `json:"createdTime" doc:"Milliseconds since 1970."`
	Sender       Initiator       `json:"sender" doc:"As whom it is sent."`
	Conversation *ConversationID `json:"conversation,omitempty" doc:"Where it is sent; absent: it is an announcement."`
	// To, Expires and Message are what is sent, until it was.
	To      List[Named]     `json:"to,omitempty" doc:"Whom an announcement is for; not in lists, and not once it was sent."`
	Expires int64           `json:"expires,omitempty" doc:"Until when an announcement is kept, if that was said."`
	Message *MessageRequest `json:"message,omitempty" doc:"What is to be sent; not in lists, and not once it was sent."`
	Outcome *Outcome        `json:"outcome,omitempty" doc:"What became of it; absent while it is pending."`

	// Service and ServiceName are of the service that wants it (0: the admin key) and sends as itself or, if User is set, on
	// behalf of a user.
	Service     ServiceID `json:"-"`
	ServiceName string    `json:"-"`
	User        UserID    `json:"-"`
	Username    Username  `json:"-"`
	Root        AccountID `json:"-"`
	Account     AccountID `json:"-"`
	// ClientID is the message's own id, which makes another attempt harmless.
	ClientID string `json:"-"`
	// Body is the command as it is stored.
	Body []byte `json:"-"`
}

// Outcome says what became of something scheduled.
type Outcome struct {
	Time         int64          `json:"time" doc:"When it was sent, refused or cancelled, in milliseconds since 1970."`
	Message      MessageID      `json:"message,omitzero" doc:"UUID of the message that was sent."`
	Seq          Seq            `json:"seq,omitempty" doc:"Number of its sendMessage event."`
	Announcement AnnouncementID `json:"announcement,omitzero" doc:"UUID of the announcement that was made."`
	Error        *Error         `json:"error,omitempty" doc:"Why it was refused."`
}

// ScheduledQuery asks for a page of what was scheduled, in the order in which it is due.
type ScheduledQuery struct {
	// Root limits it to an account tree; 0: all trees.
	Root  AccountID
	State ScheduledState
	// After and AfterID are At and ID of the last one of the page before; Limit the most to give.
	After   int64
	AfterID ScheduledID
	Limit   int
}

// ScheduledIDOf gives the id of what p wants sent under a client id of its own, so that asking twice is asking once. For an
// announcement by the admin key, Root of p is the account tree that it is for.
func ScheduledIDOf(p Principal, c ConversationID, clientID string) ScheduledID {
	h := sha256.New()
	var sender [8]byte
	binary.BigEndian.PutUint64(sender[:], uint64(p.Sender()))
	h.Write(sender[:])
	h.Write(c[:])
	if p.Sender() == 0 && p.Root != 0 {
		var root [9]byte // no client id begins like this
		binary.BigEndian.PutUint64(root[1:], uint64(p.Root))
		h.Write(root[:])
	}
	h.Write([]byte(clientID))
	var id ScheduledID
	copy(id[:], h.Sum(nil))
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // version 8 (RFC 9562, section 5.8)
	return id
}

// Schedule fills in what the command c, a [SendMessage] or [Announce], says. It gives the command a client id if it has none.
func (s *Scheduled) Schedule(c Command) error {
	*c.Common() = Meta{}
	switch c := c.(type) {
	case *SendMessage:
		s.Conversation = &c.Conversation
		s.ClientID = s.keyed(&c.MessageRequest)
		s.Message = &c.MessageRequest
	case *Announce:
		s.ClientID = s.keyed(&c.MessageRequest)
		s.To, s.Expires, s.Message = c.To, c.Expires, &c.MessageRequest
	default:
		return errors.New("nobody schedules a " + c.Name())
	}
	var err error
	s.Body, err = json.Marshal(c)
	return err
}

func (s *Scheduled) keyed(m *MessageRequest) string {
	if m.ClientID == "" {
		m.ClientID = s.ID.String()
	}
	return m.ClientID
}

// Command gives what is to be carried out, and fills in what it says.
func (s *Scheduled) Command() (Command, error) {
	if s.Conversation != nil {
		c := &SendMessage{}
		if err := json.Unmarshal(s.Body, c); err != nil {
			return nil, err
		}
		s.Message = &c.MessageRequest
		return c, nil
	}
	c := &Announce{}
	if err := json.Unmarshal(s.Body, c); err != nil {
		return nil, err
	}
	s.To, s.Expires, s.Message = c.To, c.Expires, &c.MessageRequest
	return c, nil
}

// SenderID is that of who sends it.
func (s *Scheduled) SenderID() SenderID {
	if s.User != 0 {
		return SenderID(s.User)
	}
	return -SenderID(s.Service)
}

// Principal gives the service that it is sent by; on whose behalf is left out.
func (s *Scheduled) Principal() Principal {
	if s.Service == 0 {
		return Principal{Admin: true}
	}
	return Principal{Service: s.Service, ServiceName: s.ServiceName, Root: s.Root, Account: s.Account}
}
