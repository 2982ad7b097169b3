package domain

import "encoding/json"

// Will is what a session wants published in its name when its connection is lost: the Will of a CONNECT, or what setWill
// gives. There is one per session (protocol.md sections 2 and 6).
type Will struct {
	// Publish is checked and carried out like any other publish of the session's principal. A message with options.will
	// becomes a willMessage signal, every other one what it is.
	Publish
	// Delay is for how long after the loss the will waits for the device to come back, in seconds (MQTT 5, section
	// 3.1.3.2.2). It does not wait longer than the session lasts.
	Delay uint32
}

// SetWill makes a message the will of the session: the participants are told it, as a signal, if the session's connection
// is lost (protocol.md section 6). A sendMessage with options.will is the same.
type SetWill struct {
	Conversation ConversationID `json:"conversation"`
	MessageRequest
	Meta
}

// Name implements [Command].
func (*SetWill) Name() string { return "setWill" }

// Kind implements [Command].
func (*SetWill) Kind() Kind { return Willing }

// Needs implements [Command].
func (c *SetWill) Needs(Principal) Needs { return Needs{Conversation: c.Conversation} }

func (c *SetWill) check(l Limits) error { return c.message().check(l) }

func (c *SetWill) decide(h *Heads, p Principal) (Decision, error) {
	d, err := c.message().decide(h, p)
	d.Result = Result{}
	return d, err
}

// message gives the message that the will is.
func (c *SetWill) message() *SendMessage {
	m := &SendMessage{Conversation: c.Conversation, MessageRequest: c.MessageRequest, Meta: c.Meta}
	options := Options{}
	if c.Options != nil {
		options = *c.Options
	}
	options.Will = true
	m.Options = &options
	return m
}

// will gives the will that a message with options.will is, for a session of p.
func (c *SendMessage) will(p Principal) (*Will, error) {
	if err := checkSession(p); err != nil {
		return nil, err
	}
	payload, err := json.Marshal(MessageOnTopic{MessageRequest: c.MessageRequest})
	if err != nil {
		return nil, Errorf(InvalidRequest, "the message cannot be kept: %v", err)
	}
	topic := Topic{Kind: MessagesTopic, Conversation: c.Conversation}
	return &Will{Publish: Publish{Topic: topic.String(), Payload: payload, Version: 5, QoS: 1}}, nil
}

// checkSession refuses what belongs to a session to whoever has none.
func checkSession(p Principal) error {
	if p.Device == "" {
		return Errorf(InvalidRequest, "a will belongs to a session: set it over MQTT")
	}
	return nil
}

// ClearWill leaves the session without a will, whichever way it got one.
type ClearWill struct {
	Meta
}

// Name implements [Command].
func (*ClearWill) Name() string { return "clearWill" }

// Kind implements [Command].
func (*ClearWill) Kind() Kind { return Willing }

// Needs implements [Command].
func (*ClearWill) Needs(Principal) Needs { return Needs{} }

func (*ClearWill) check(Limits) error { return nil }

func (*ClearWill) decide(_ *Heads, p Principal) (Decision, error) {
	if err := checkSession(p); err != nil {
		return Decision{}, err
	}
	return Decision{Will: &Will{}}, nil
}

// WillMessage is a message with options.will whose time has come. No client can give it: it comes of [DecodeWill] alone.
type WillMessage struct{ SendMessage }

// Kind implements [Command].
func (*WillMessage) Kind() Kind { return Signalling }

func (c *WillMessage) decide(h *Heads, p Principal) (Decision, error) {
	conv, err := h.writable(p)
	if err != nil {
		return Decision{}, err
	}
	e, err := c.event(h, conv, p)
	if err != nil {
		return Decision{}, err
	}
	s := h.signal(SignalWillMessage, conv, p)
	s.Message = e.Message
	return Decision{Signals: []*Signal{s}}, nil
}

// DecodeWill gives the command that a will of p comes to, as [DecodePublish] does for a publish. Whether p may give it is
// decided when the will is set and again when it is carried out.
func DecodeWill(p Principal, w *Will, l Limits) Request {
	req := DecodePublish(p, &w.Publish, l)
	var err error
	switch c := req.Command.(type) {
	case *SetWill, *ClearWill:
		err = Errorf(InvalidRequest, "a will can neither set nor clear one")
	case *SendMessage:
		if c.HasExternal() {
			err = Errorf(InvalidRequest, "a will keeps no content: its parts have a body or a url")
		}
		if c.isWill() {
			req.Command = &WillMessage{*c}
		}
	}
	if err != nil {
		req.Command, req.Err = nil, err
	}
	return req
}

// WillID names a will: there is one per connection.
type WillID string

// StoredWill is the will of a session as the store keeps it.
type StoredWill struct {
	// ID is unique to the connection, and made up by its gateway.
	ID WillID
	// Principal is who set it: its sender, device and what proved it are kept.
	Principal Principal
	// Node is the gateway that has the connection, Opened when that began, in milliseconds since 1970.
	Node   string
	Opened int64
	Will   Will
}

// WillEnd says what becomes of a will now that its connection has gone.
type WillEnd struct {
	// Due is when it is to be carried out, in milliseconds since 1970; 0: not at all.
	Due int64
	// Forgiving: whatever connection the device begins before that, it is not carried out.
	Forgiving bool
}

// WillQuery asks for wills that are due.
type WillQuery struct {
	// Node limits them to those of connections to the node; empty: all.
	Node string
	// Now is in milliseconds since 1970. Limit is the most wills to give.
	Now   int64
	Limit int
}

// DueWill is a will that is to be carried out.
type DueWill struct {
	// Principal is who it is of, with the device and what proved it; zero: a user or service that was deleted.
	Principal Principal
	Will      Will
	// Forgiving is that of its WillEnd.
	Forgiving bool
}
