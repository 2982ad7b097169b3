package domain

// SendMessage sends a message to a conversation (protocol.md section 6).
type SendMessage struct {
	Conversation ConversationID `json:"conversation"`
	MessageRequest
	Meta
}

// Name implements [Command].
func (*SendMessage) Name() string { return "sendMessage" }

// Kind implements [Command].
func (c *SendMessage) Kind() Kind {
	switch {
	case c.isWill():
		return Willing
	case c.transient():
		return Signalling
	}
	return Append
}

// isWill reports whether the message is for the time when the session is lost.
func (c *SendMessage) isWill() bool { return c.Options != nil && c.Options.Will }

// transient reports whether the message is for those online only.
func (c *SendMessage) transient() bool { return c.Options != nil && c.Options.Transient }

// Needs implements [Command].
func (c *SendMessage) Needs(Principal) Needs { return Needs{Conversation: c.Conversation} }

func (c *SendMessage) check(l Limits) error {
	if c.Conversation.IsZero() {
		return Errorf(InvalidRequest, "conversation is missing")
	}
	if (c.transient() || c.isWill()) && c.HasExternal() {
		return Errorf(InvalidRequest, "a message that is not stored keeps no content: its parts have a body or a url")
	}
	return c.MessageRequest.check(l)
}

func (c *SendMessage) decide(h *Heads, p Principal) (Decision, error) {
	conv, err := h.writable(p)
	if err != nil {
		return Decision{}, err
	}
	if _, part := conv.Participant(p.User); !part && p.User != 0 {
		return Decision{}, Errorf(NotParticipant, "%s takes no part in the conversation", p.Username)
	}
	e, err := c.event(h, conv, p)
	if err != nil {
		return Decision{}, err
	}
	switch {
	case c.isWill():
		will, err := c.will(p)
		if err != nil {
			return Decision{}, err
		}
		return Decision{Will: will, Result: Result{Message: e.Message}}, nil
	case c.transient():
		s := h.signal(SignalTransientMessage, conv, p)
		s.Message = e.Message
		return Decision{Signals: []*Signal{s}, Result: Result{Message: e.Message}}, nil
	}
	return Decision{Events: []*Event{e}, Result: Result{Message: e.Message}}, nil
}

// event gives the event of the message, or the refusal of what it says.
func (c *SendMessage) event(h *Heads, conv *Conversation, p Principal) (*Event, error) {
	e := h.event(EventSendMessage, p, c)
	e.Conversation, e.ClientID = conv.ID, c.ClientID
	var err error
	if e.Mentioned, err = c.mentioned(conv, p); err != nil {
		return nil, err
	}
	content := c.Content
	if content.Parts, err = h.parts(c.Parts, p); err != nil {
		return nil, err
	}
	sender := e.Initiator
	sender.Device = ""
	e.Message = &Message{
		Conversation: conv.ID, ClientID: c.ClientID, Sender: &sender, Time: h.Now, Content: content,
	}
	if o := c.Options; o != nil {
		e.Message.Receipt, e.Message.Priority, e.Message.Push = o.Receipt, o.Priority, o.Push
	}
	return e, nil
}

// mentioned gives the users whom the message mentions, or the refusal where one of them takes no part in conv. The work
// grows with the sum of mentions and participants, not with their product: both come from clients.
func (c *SendMessage) mentioned(conv *Conversation, p Principal) ([]UserID, error) {
	if c.Mentions == nil {
		return nil, nil
	}
	named := make(map[Username]UserID, len(c.Mentions.Users))
	for _, name := range c.Mentions.Users {
		named[name] = 0
	}
	for i := range conv.Participants {
		part := &conv.Participants[i]
		if _, ok := named[part.Username]; ok {
			named[part.Username] = part.UserID
		}
	}
	var ids []UserID
	for _, name := range c.Mentions.Users {
		id, again := named[name]
		switch {
		case !again:
			continue // named twice
		case id == 0:
			return nil, Errorf(NotParticipant, "%s is mentioned but takes no part", name)
		case SenderID(id) != p.Sender():
			ids = append(ids, id)
		}
		delete(named, name)
	}
	if c.Mentions.everybody() {
		return []UserID{0}, nil
	}
	return ids, nil
}

// RetransmitEvents asks for a stretch of a conversation's log by exactly two of its three arguments.
type RetransmitEvents struct {
	Conversation ConversationID `json:"conversation"`
	From         *int64         `json:"from,omitempty"`
	To           *int64         `json:"to,omitempty"`
	Count        *int64         `json:"count,omitempty"`
	Meta
}

// Name implements [Command].
func (*RetransmitEvents) Name() string { return "retransmitEvents" }

// Kind implements [Command].
func (*RetransmitEvents) Kind() Kind { return Read }

// Needs implements [Command].
func (c *RetransmitEvents) Needs(Principal) Needs {
	return Needs{Conversation: c.Conversation, Past: true}
}

// pageEvents is the most events of a page; one more is tolerated where from and to are given, because clients of
// old ask for last-100…last.
const pageEvents = 100

func (c *RetransmitEvents) check(Limits) error {
	if c.Conversation.IsZero() {
		return Errorf(InvalidRequest, "conversation is missing")
	}
	given := 0
	for _, a := range []*int64{c.From, c.To, c.Count} {
		if a != nil {
			given++
		}
	}
	switch {
	case given == 3:
		return Errorf(TooManyRangeArguments, "give two of from, to and count, not three")
	case given < 2:
		return Errorf(TooFewRangeArguments, "give two of from, to and count")
	case c.Count != nil && *c.Count < 1:
		return Errorf(CountOutOfRange, "count is 1 to %d", pageEvents)
	case c.Count != nil && *c.Count > pageEvents:
		return errCountTooLarge()
	case c.From != nil && *c.From < 1, c.To != nil && *c.To < 1:
		return Errorf(SequenceOutOfRange, "sequence numbers start at 1")
	case c.From != nil && c.To != nil && *c.From > *c.To:
		return Errorf(FromAfterTo, "from is after to")
	}
	return nil
}

func errCountTooLarge() *Error {
	e := Errorf(CountOutOfRange, "at most %d events at a time", pageEvents)
	e.Number = 22
	return e
}

func errAfterLast(last Seq) *Error { return Errorf(SequenceOutOfRange, "the last event is %d", last) }

func (c *RetransmitEvents) decide(h *Heads, p Principal) (Decision, error) {
	conv, err := h.visible(p)
	if err != nil {
		return Decision{}, err
	}
	last, only, err := h.readable(conv, p)
	if err != nil {
		return Decision{}, err
	}
	if conv.Removed && !p.IsBackend() {
		return Decision{}, Errorf(ConversationRemoved, "the conversation was removed")
	}
	page := Page{Conversation: conv.ID, Only: only}
	switch {
	case c.From != nil && Seq(*c.From) > last:
		// Before anything is added to a number that may be the largest there is.
		return Decision{}, errAfterLast(last)
	case c.Count == nil:
		page.From, page.To = Seq(*c.From), Seq(*c.To)
	case c.From != nil:
		page.From, page.To = Seq(*c.From), min(Seq(*c.From+*c.Count-1), last)
	default:
		page.From, page.To = max(Seq(*c.To-*c.Count+1), 1), Seq(*c.To)
	}
	if page.To > last {
		return Decision{}, errAfterLast(last)
	}
	if page.To-page.From > pageEvents {
		return Decision{}, errCountTooLarge()
	}
	return Decision{Page: &page, Result: Result{Events: []*Event{}, From: page.From, To: page.To}}, nil
}

// Unreadable reports whether an error of [RetransmitEvents] says that who asked may not read the events, now at least.
func Unreadable(err error) bool {
	switch CodeOf(err) {
	case AccessDenied, ConversationNotFound, ConversationRemoved, SequenceOutOfRange:
		return true
	default:
		return false
	}
}

// PlaceOf is a message of which nothing is shown but where it is.
func PlaceOf(c ConversationID, seq Seq) *Message {
	return &Message{ID: NewMessageID(c, seq), Conversation: c, Seq: seq}
}

// readable gives how far p may read conv's log, and which intervals of it alone (nil: all). A participant reads
// everything; who left, up to leaving; in an uber conversation both only what happened while they took part.
func (h *Heads) readable(conv *Conversation, p Principal) (last Seq, only []Interval, err error) {
	if p.IsBackend() {
		return conv.LastSeq, nil, nil
	}
	past := h.Past[conv.ID]
	if r, ok := rights(conv, p); ok {
		if !r.CanRead {
			return 0, nil, Errorf(AccessDenied, "you may not read this conversation")
		}
		last = conv.LastSeq
	} else {
		if len(past) == 0 {
			return 0, nil, Errorf(AccessDenied, "you take no part in this conversation")
		}
		for _, i := range past {
			last = max(last, i.To)
		}
		if last < 1 {
			return 0, nil, Errorf(AccessDenied, "you were not allowed to read this conversation")
		}
	}
	if conv.Uber {
		// Never nil, which would mean everything.
		only = append([]Interval{}, past...)
	}
	return last, only, nil
}
