package domain

// The built-in reasons of editMessage and removeMessage events.
const (
	reasonModerator = -1
	reasonBackend   = -2
)

// MessageEdit gives a message other content; what is absent or null stays as it is.
type MessageEdit struct {
	Text       *string     `json:"text,omitempty" doc:"Up to 5000 characters; empty: none."`
	Payload    []RawObject `json:"payload,omitempty" doc:"Replaces the whole; empty: none."`
	Parts      []Part      `json:"parts,omitempty" doc:"Replaces the whole; empty: none."`
	Attributes RawObject   `json:"attributes,omitempty" doc:"Replaces the whole; {}: none."`
	Reason     *Reason     `json:"reason,omitempty" doc:"Why, for backends that edit a message of somebody else; its code is positive."`
}

// EditMessage edits a message: one's own, or with the permission for it any.
type EditMessage struct {
	Conversation ConversationID `json:"conversation"`
	Message      MessageID      `json:"message" doc:"uuid of the message."`
	MessageEdit
	Meta
}

// Name implements [Command].
func (*EditMessage) Name() string { return "editMessage" }

// Kind implements [Command].
func (*EditMessage) Kind() Kind { return Change }

// Needs implements [Command].
func (c *EditMessage) Needs(Principal) Needs {
	n := needsMessage(c.Conversation, c.Message)
	n.External = (&Content{Parts: c.Parts}).External()
	return n
}

func (c *EditMessage) check(l Limits) error {
	switch {
	case c.Text == nil && c.Payload == nil && c.Parts == nil && c.Attributes == nil:
		return Errorf(InvalidRequest, "nothing is to be changed: give text, payload, parts or attributes")
	}
	if err := c.Reason.check(); err != nil {
		return err
	}
	// What is not changed is a message that was checked before: here something stands for it.
	rest := c.over(Content{Text: "x"})
	if rest.Text == "" {
		rest.Text = "x"
	}
	if err := rest.check(l); err != nil {
		return err
	}
	return checkMessageRef(c.Conversation, c.Message)
}

// maxReason is the most bytes of a reason's detail.
const maxReason = 1000

// check refuses a reason that backends may not give; nil is none.
func (r *Reason) check() error {
	switch {
	case r == nil:
	case r.Code < 1:
		return Errorf(InvalidRequest, "reason.code is a positive number")
	case len(r.Detail) > maxReason:
		return Errorf(InvalidRequest, "reason.detail is longer than %d bytes", maxReason)
	}
	return nil
}

// why gives the reason that others are told of a change that p makes: the one that a backend gives, or a built-in one; nil for
// the sender's own. done says what p does.
func (r *Reason) why(p Principal, own bool, done string) (*Reason, error) {
	switch {
	case r != nil && (own || !p.IsBackend()):
		return nil, Errorf(InvalidRequest, "only a backend gives a reason, and not for its own message")
	case r != nil || own:
		return r, nil
	case p.IsBackend():
		return &Reason{Code: reasonBackend, Detail: done + " by a backend"}, nil
	}
	return &Reason{Code: reasonModerator, Detail: done + " by a participant with the right to all messages"}, nil
}

// over lays the edit over a message's content.
func (c *MessageEdit) over(old Content) Content {
	if c.Text != nil {
		old.Text = *c.Text
	}
	if c.Payload != nil {
		old.Payload = c.Payload
	}
	if c.Parts != nil {
		old.Parts = c.Parts
	}
	if c.Attributes != nil {
		old.Attributes = c.Attributes
		if c.Attributes.Equal(nil) {
			old.Attributes = nil
		}
	}
	return old
}

func (c *EditMessage) decide(h *Heads, p Principal) (Decision, error) {
	conv, own, err := h.rewritable(p, c.Message, func(r Permissions) (own, all bool) { return r.CanEdit, r.CanEditAll })
	if err != nil {
		return Decision{}, err
	}
	if err := h.Settings.EditMessages.permits(p, "editing", h.Message.Time, h.Now); err != nil {
		return Decision{}, err
	}
	m := *h.Message.Message
	m.Content = c.over(m.Content)
	if c.Parts != nil {
		if m.Parts, err = h.parts(c.Parts, p); err != nil {
			return Decision{}, err
		}
	}
	m.EditedTime = h.Now
	m.EditCount++
	if err := m.Content.check(h.Limits); err != nil {
		return Decision{}, err
	}
	whole := MessageRequest{ClientID: m.ClientID, Content: m.Content, Options: &Options{Push: m.Push}}
	if whole.leastSize() > h.Limits.MessageBytes {
		return Decision{}, errMessageTooLarge(h.Limits)
	}
	e := h.event(EventEditMessage, p, c)
	if e.Reason, err = c.Reason.why(p, own, "edited"); err != nil {
		return Decision{}, err
	}
	said := m
	e.Message = &said
	d := h.rewritten(conv, e, &m)
	if mine, _ := rights(conv, p); !own && !mine.CanRead {
		// Editing is no way to read: the result has of the content what the edit said.
		blind := m
		blind.Content = c.over(Content{})
		d.Result.Message = &blind
	}
	return d, nil
}

// RemoveMessage removes what a message says, everywhere; that there was one stays in the log.
type RemoveMessage struct {
	Conversation ConversationID `json:"conversation"`
	Message      MessageID      `json:"message" doc:"uuid of the message."`
	Reason       *Reason        `json:"reason,omitempty" doc:"Why, for backends that remove a message of somebody else; its code is positive."`
	Meta
}

// Name implements [Command].
func (*RemoveMessage) Name() string { return "removeMessage" }

// Kind implements [Command].
func (*RemoveMessage) Kind() Kind { return Change }

// Needs implements [Command].
func (c *RemoveMessage) Needs(Principal) Needs { return needsMessage(c.Conversation, c.Message) }

func (c *RemoveMessage) check(Limits) error {
	if err := c.Reason.check(); err != nil {
		return err
	}
	return checkMessageRef(c.Conversation, c.Message)
}

func (c *RemoveMessage) decide(h *Heads, p Principal) (Decision, error) {
	conv, own, err := h.rewritable(p, c.Message, func(r Permissions) (own, all bool) { return r.CanRemove, r.CanRemoveAll })
	if err != nil {
		return Decision{}, err
	}
	if err := h.Settings.RemoveMessages.permits(p, "removing", h.Message.Time, h.Now); err != nil {
		return Decision{}, err
	}
	m := h.Message.Message.tombstone()
	e := h.event(EventRemoveMessage, p, c)
	if e.Reason, err = c.Reason.why(p, own, "removed"); err != nil {
		return Decision{}, err
	}
	e.Message = &Message{ID: m.ID, Conversation: m.Conversation, Seq: m.Seq}
	d := h.rewritten(conv, e, m)
	d.Result.Message = nil
	return d, nil
}

// needsMessage asks for a message: its id says where it is.
func needsMessage(c ConversationID, id MessageID) Needs {
	seq, ok := id.Seq(c)
	if !ok {
		seq = 0
	}
	return Needs{Conversation: c, Message: seq, Past: true, Settings: true}
}

func checkMessageRef(c ConversationID, id MessageID) error {
	switch {
	case c.IsZero():
		return Errorf(InvalidRequest, "conversation is missing")
	case id.IsZero():
		return Errorf(InvalidRequest, "message is missing")
	}
	return nil
}

// rewritable gives the conversation of a message that p may change, and whether it is p's own. may gives which rights
// are needed for that: on own messages and on those of all.
func (h *Heads) rewritable(p Principal, id MessageID, may func(Permissions) (own, all bool)) (conv *Conversation, own bool, err error) {
	conv, err = h.live(p)
	if err != nil {
		return nil, false, err
	}
	mine, part := rights(conv, p)
	if !part {
		return nil, false, Errorf(AccessDenied, "you take no part in this conversation")
	}
	e := h.Message
	if e == nil || e.Type != EventSendMessage || e.Message.ID != id || h.withheld(conv, p, e.Seq) {
		return nil, false, Errorf(MessageNotFound, "no such message in this conversation")
	}
	if e.Message.Removed {
		return nil, false, Errorf(MessageRemoved, "the message was removed")
	}
	own = e.Sender == p.Sender()
	ofOwn, ofAll := may(mine)
	if !ofAll && (!own || !ofOwn) {
		return nil, false, Errorf(AccessDenied, "you may not change this message")
	}
	return conv, own, nil
}

// withheld reports whether an uber conversation hides an event from p, because p took no part then.
func (h *Heads) withheld(conv *Conversation, p Principal, seq Seq) bool {
	if !conv.Uber || p.IsBackend() {
		return false
	}
	return !Page{From: seq, To: seq, Only: append([]Interval{}, h.Past[conv.ID]...)}.Shows(seq)
}

// rewritten completes a decision by which a message reads as m from now on, with its event.
func (h *Heads) rewritten(conv *Conversation, e *Event, m *Message) Decision {
	e.At(conv.ID, conv.LastSeq+1)
	sent := *h.Message
	sent.Message = m
	return Decision{Events: []*Event{e}, Message: &sent, Result: Result{Message: m}}
}

// tombstone gives what remains of a message that is removed.
func (m *Message) tombstone() *Message {
	t := *m
	t.Content, t.Push, t.Removed = Content{}, nil, true
	return &t
}

// Amended gives the event as it reads after a later one: an event that shows a message shows its present state. It
// reports false where the later one changes nothing about it, for instance because e shows a newer state already.
func (e *Event) Amended(by *Event) (*Event, bool) {
	was, is := e.Message, by.Message
	shows := e.Type == EventSendMessage || e.Type == EventEditMessage
	if !shows || was == nil || is == nil || was.ID != is.ID || e.Seq >= by.Seq || was.Removed {
		return nil, false
	}
	now := *e
	switch {
	case by.Type == EventRemoveMessage, by.Type == EventEditMessage && is.Removed:
		now.Message = was.tombstone()
	case by.Type == EventEditMessage && is.EditCount > was.EditCount:
		now.Message = is
	default:
		return nil, false
	}
	return &now, true
}
