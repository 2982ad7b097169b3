package domain

// MarkAsRead says up to which event its principal has read (protocol.md section 6).
type MarkAsRead struct {
	Conversation ConversationID `json:"conversation"`
	Seq          *int64         `json:"seq,omitempty" doc:"1 to the last event; 0: everything but event 1 is unread; absent: the last event."`
	Meta
}

// Name implements [Command].
func (*MarkAsRead) Name() string { return "markAsRead" }

// Kind implements [Command].
func (*MarkAsRead) Kind() Kind { return Marking }

// Needs implements [Command].
func (c *MarkAsRead) Needs(Principal) Needs { return Needs{Conversation: c.Conversation, Alone: true} }

func (c *MarkAsRead) check(Limits) error {
	switch {
	case c.Conversation.IsZero():
		return Errorf(InvalidRequest, "conversation is missing")
	case c.Seq != nil && *c.Seq < 0:
		return Errorf(SequenceOutOfRange, "sequence numbers start at 1")
	}
	return nil
}

func (c *MarkAsRead) decide(h *Heads, p Principal) (Decision, error) {
	conv, err := h.live(p)
	if err != nil {
		return Decision{}, err
	}
	part, ok := conv.Participant(p.User)
	if !ok || !p.IsUser() || !part.Permissions.effective().CanRead {
		return Decision{}, Errorf(AccessDenied, "only who takes part and may read marks as read")
	}
	seq := conv.LastSeq
	if c.Seq != nil {
		seq = max(Seq(*c.Seq), 1)
	}
	if seq > conv.LastSeq {
		return Decision{}, errAfterLast(conv.LastSeq)
	}
	s := h.signal(SignalRead, conv, p)
	s.Seq, s.UserID = seq, p.User
	return Decision{
		Read:    &Mark{Conversation: conv.ID, User: p.User, Seq: seq, Time: h.Now},
		Signals: []*Signal{s},
	}, nil
}

// UnreadMost is up to where unread messages are counted.
const UnreadMost = 1000

// Unread is what a participant has not read of a conversation: messages after its read mark, since it joined, that are
// neither its own nor removed.
type Unread struct {
	Conversation ConversationID `json:"conversation"`
	Unread       int            `json:"unread" doc:"Messages of others that are not read; at most 1000."`
	More         bool           `json:"more,omitempty" doc:"There are more than 1000."`
	Mentioned    bool           `json:"mentioned" doc:"One of them mentions the user."`
	LastMessage  *Message       `json:"lastMessage,omitempty" doc:"The newest message that is not removed, whosever it is."`
	LastSeq      Seq            `json:"lastSeq" doc:"Number of the last event."`
	LastRead     Seq            `json:"lastRead" doc:"All events up to this one were read."`
}

// UnreadQuery asks for what a user has not read.
type UnreadQuery struct {
	// Of is the one conversation to look at; zero: all that the user takes part in and may read.
	Of ConversationID
	// Waiting leaves out conversations in which nothing is unread.
	Waiting bool
	// Limit is how many conversations are given at most: those with the newest messages.
	Limit int
}

// maxUnread is how many conversations an answer to getUnread has at most.
const maxUnread = 3000

// GetUnread asks what the caller has not read.
type GetUnread struct {
	Meta
}

// Name implements [Command].
func (*GetUnread) Name() string { return "getUnread" }

// Kind implements [Command].
func (*GetUnread) Kind() Kind { return Read }

// Needs implements [Command].
func (*GetUnread) Needs(Principal) Needs { return Needs{Unread: &UnreadQuery{Limit: maxUnread}} }

func (*GetUnread) check(Limits) error { return nil }

func (*GetUnread) decide(h *Heads, p Principal) (Decision, error) {
	if !p.IsUser() {
		return Decision{}, Errorf(AccessDenied, "only a user has something to read")
	}
	// Clients walk through lists without asking first: an empty one is [] and not null.
	return Decision{Result: Result{Unread: append([]Unread{}, h.Unread...)}}, nil
}

// Recipient is somebody who took part in a conversation when a message was sent, with how far it has come since.
type Recipient struct {
	User          UserID
	LastRead      Seq
	LastDelivered Seq
	// ReadAt and DeliveredAt are when the marks were set, in milliseconds since 1970; 0: never, or not known any more.
	ReadAt, DeliveredAt int64
}

// RecipientStatus says how far a message has come with somebody.
type RecipientStatus string

// The states of protocol.md section 6, getReceipts.
const (
	StatusSent      RecipientStatus = "sent"
	StatusDelivered RecipientStatus = "delivered"
	StatusRead      RecipientStatus = "read"
)

// Summary says for how many recipients something holds.
type Summary string

// The summaries of protocol.md section 6, getReceipts.
const (
	SummaryNone Summary = "none"
	SummarySome Summary = "some"
	SummaryAll  Summary = "all"
)

// Receipts tell who has got and read a message. Its sender is left out.
type Receipts struct {
	RecipientStatus map[UserID]RecipientStatus `json:"recipientStatus" doc:"By userId: sent, delivered or read; of those who took part when the message was sent, its sender left out."`
	ReadStatus      Summary                    `json:"readStatus" enum:"none,some,all"`
	DeliveryStatus  Summary                    `json:"deliveryStatus" enum:"none,some,all" doc:"What was read counts as delivered."`
	LastDeliveredAt int64                      `json:"lastDeliveredAt,omitempty" doc:"Where there is one recipient: when something was last delivered to it; milliseconds since 1970."`
	LastReadAt      int64                      `json:"lastReadAt,omitempty" doc:"Where there is one recipient: when it last marked something as read; milliseconds since 1970."`
}

// GetReceipts asks who has got and read a message.
type GetReceipts struct {
	Conversation ConversationID `json:"conversation"`
	Message      MessageID      `json:"message"`
	Meta
}

// Name implements [Command].
func (*GetReceipts) Name() string { return "getReceipts" }

// Kind implements [Command].
func (*GetReceipts) Kind() Kind { return Read }

// Needs implements [Command].
func (c *GetReceipts) Needs(Principal) Needs {
	seq, _ := c.Message.Seq(c.Conversation)
	return Needs{Conversation: c.Conversation, Past: true, Alone: true, Message: seq, Recipients: true}
}

func (c *GetReceipts) check(Limits) error {
	switch {
	case c.Conversation.IsZero():
		return Errorf(InvalidRequest, "conversation is missing")
	case c.Message.IsZero():
		return Errorf(InvalidRequest, "message is missing")
	}
	return nil
}

func (c *GetReceipts) decide(h *Heads, p Principal) (Decision, error) {
	conv, err := h.look(h.Conversation, p)
	if err != nil {
		return Decision{}, err
	}
	last, only, err := h.readable(conv, p)
	if err != nil {
		return Decision{}, err
	}
	seq, ours := c.Message.Seq(conv.ID)
	if !ours || h.Message == nil || h.Message.Seq != seq || !(Page{From: 1, To: last, Only: only}).Shows(seq) {
		return Decision{}, Errorf(MessageNotFound, "no such message")
	}
	if h.Message.Message.Removed {
		return Decision{}, Errorf(MessageRemoved, "the message was removed")
	}
	return Decision{Result: Result{Receipts: receiptsOf(h.Message, h.Recipients)}}, nil
}

// receiptsOf gives the receipts of a message.
func receiptsOf(ev *Event, recipients []Recipient) *Receipts {
	r := &Receipts{RecipientStatus: make(map[UserID]RecipientStatus, len(recipients))}
	read, delivered := 0, 0
	var only Recipient
	for _, to := range recipients {
		if SenderID(to.User) == ev.Sender {
			continue
		}
		only = to
		switch {
		case to.LastRead >= ev.Seq:
			r.RecipientStatus[to.User] = StatusRead
			read++
			delivered++
		case to.LastDelivered >= ev.Seq:
			r.RecipientStatus[to.User] = StatusDelivered
			delivered++
		default:
			r.RecipientStatus[to.User] = StatusSent
		}
	}
	n := len(r.RecipientStatus)
	r.ReadStatus, r.DeliveryStatus = summary(read, n), summary(delivered, n)
	if n == 1 {
		r.LastDeliveredAt, r.LastReadAt = only.DeliveredAt, only.ReadAt
	}
	return r
}

func summary(n, of int) Summary {
	switch n {
	case 0:
		return SummaryNone
	case of:
		return SummaryAll
	}
	return SummarySome
}
