package domain

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

// Kind says what a command does to the store, and so which way the gateway takes with it.
type Kind int

const (
	// Read changes nothing; it is decided on what the store holds at that moment.
	Read Kind = iota
	// Append adds one event to a conversation and leaves its state as it is: the hot path. It is decided on a
	// cached head, whose version the store compares.
	Append
	// Change may alter the state of a conversation; it is decided under the store's row locks.
	Change
)

// Command is what somebody wants: the sealed set of protocol.md section 6, decoded from MQTT and HTTP alike.
type Command interface {
	// Name is the command's name on the wire.
	Name() string
	// Kind says which way the gateway takes with it.
	Kind() Kind
	// Needs says what the decision looks at.
	Needs(p Principal) Needs
	// Common gives what every command carries.
	Common() *Meta

	// check reports what is wrong with the parameters alone.
	check(l Limits) error
	decide(h *Heads, p Principal) (Decision, error)
}

// Meta is what every command may carry.
type Meta struct {
	RequestID string `json:"requestId,omitempty" maxLength:"128" doc:"Echoed in the reply, and in events towards the initiator's own devices."`
}

// Common implements [Command] for all that embed it.
func (m *Meta) Common() *Meta { return m }

// CommandNames lists the commands that exist, in the order of protocol.md section 6.
func CommandNames() []string {
	return []string{
		"getMe", "getUser", "getUsers", "createConversation", "getConversation", "getConversations",
		"addParticipants", "removeParticipants", "sendMessage", "retransmitEvents",
	}
}

// newCommand gives an empty command of the name, or nil.
func newCommand(name string) Command {
	switch name {
	case "getMe":
		return &GetMe{}
	case "getUser":
		return &GetUser{}
	case "getUsers":
		return &GetUsers{}
	case "createConversation":
		return &CreateConversation{}
	case "getConversation":
		return &GetConversation{}
	case "getConversations":
		return &GetConversations{}
	case "addParticipants":
		return &AddParticipants{}
	case "removeParticipants":
		return &RemoveParticipants{}
	case "sendMessage":
		return &SendMessage{}
	case "retransmitEvents":
		return &RetransmitEvents{}
	}
	return nil
}

// Request is a command on its way through the gateway, with what its answer needs.
type Request struct {
	// Command is nil when Err says why there is none.
	Command Command
	// Err is the refusal of a publish that could not be decoded.
	Err error
	// Name is the command's name, also when it could not be decoded; empty if there is not even that.
	Name string
	// RequestID, ReplyTo (a replies topic, empty: the default one) and Correlation are for the reply.
	RequestID   string
	ReplyTo     string
	Correlation []byte
	// WantsReply is set when a reply is due (protocol.md section 2).
	WantsReply bool
	// Topic is where the publish went.
	Topic string
	// Unheard is set when no acknowledgement can carry a refusal (MQTT 3.1.1, or QoS 0): it becomes an error event.
	Unheard bool
}

// Receipt is what the acknowledgement of a committed command tells.
type Receipt struct {
	Conversation ConversationID // zero: the command was not about one
	Seq          Seq            // 0: nothing was stored
	Message      MessageID      // zero: not a message
	Duplicate    bool           // it was known already; the others are of its first acceptance
	Result       *Result
}

// Publish is a PUBLISH packet as the MQTT side hands it over, alias resolved.
type Publish struct {
	Topic   string
	Payload []byte
	// Version is the protocol level, 4 or 5, QoS that of the packet. The rest is MQTT 5 properties.
	Version       byte
	QoS           byte
	ContentType   string
	ResponseTopic string
	Correlation   []byte
	Retain        bool
}

// DecodePublish turns a publish of p into a request. The request is usable for the reply even when its Err is set:
// as much of it is filled in as could be read. Checks that need no state are made here.
func DecodePublish(p Principal, pub *Publish, l Limits) Request {
	req := Request{Topic: pub.Topic, Correlation: pub.Correlation, Unheard: pub.Version < 5 || pub.QoS == 0}
	if pub.ResponseTopic != "" {
		t, ok := ParseTopic(pub.ResponseTopic)
		if !ok || t.Kind != RepliesTopic || !p.IsUser() || t.User != p.Username {
			req.Err = Errorf(AccessDenied, "a Response Topic must lie under your own users/<username>/replies")
			return req
		}
		req.ReplyTo, req.WantsReply = pub.ResponseTopic, true
	}
	topic, ok := ParseTopic(pub.Topic)
	if !ok {
		req.Err = Errorf(AccessDenied, "no such topic to publish to")
		return req
	}
	var err error
	switch topic.Kind {
	case MessagesTopic:
		req.Name = "sendMessage"
		m := &SendMessage{Conversation: topic.Conversation}
		var body messageOnTopic
		req.RequestID, err = decodeStrict(pub.Payload, &body)
		m.MessageRequest, m.RequestID = body.MessageRequest, body.RequestID
		req.Command = m
	case RawTopic:
		req.Name = "sendMessage"
		// In 3.1.1 there are no properties, and a payload is not JSON: nobody asked for a reply.
		req.Command = rawMessage(topic.Conversation, pub)
	case CommandTopic:
		req.WantsReply = true
		req.Command = newCommand(topic.Command)
		if req.Command == nil {
			req.RequestID = lenientRequestID(pub.Payload)
			req.Err = Errorf(UnknownCommand, "no command %q", clip(topic.Command))
			return req
		}
		req.Name = topic.Command
		payload := pub.Payload
		if len(bytes.TrimSpace(payload)) == 0 {
			payload = []byte("{}")
		}
		req.RequestID, err = decodeStrict(payload, req.Command)
	case NoTopic, TypingTopic, ReadTopic, EventsTopic, SignalsTopic, InboxTopic, StatusTopic, RepliesTopic:
		err = Errorf(AccessDenied, "nobody may publish to %s", clip(pub.Topic))
	}
	req.WantsReply = req.WantsReply || req.RequestID != ""
	if err == nil && pub.Retain {
		err = Errorf(InvalidRequest, "conversations keep no retained messages")
	}
	if err == nil {
		err = Check(req.Command, l)
	}
	if err != nil {
		req.Command, req.Err = nil, err
	}
	return req
}

// messageOnTopic is the payload of conversations/<uuid>/messages.
type messageOnTopic struct {
	MessageRequest
	Meta
}

// rawMessage makes the message of a raw publish (protocol.md section 2).
func rawMessage(c ConversationID, pub *Publish) *SendMessage {
	part := Part{MimeType: pub.ContentType}
	text := utf8.Valid(pub.Payload) && !bytes.ContainsRune(pub.Payload, 0)
	if part.MimeType == "" {
		part.MimeType = "application/octet-stream"
		if text {
			part.MimeType = "text/plain"
		}
	}
	if text {
		part.Body = string(pub.Payload)
	} else {
		part.Body, part.Encoding = base64.StdEncoding.EncodeToString(pub.Payload), "base64"
	}
	m := &SendMessage{Conversation: c}
	m.Parts = []Part{part}
	if len(pub.Correlation) > 0 {
		m.ClientID = string(pub.Correlation)
		if !utf8.Valid(pub.Correlation) || strings.ContainsRune(m.ClientID, 0) {
			m.ClientID = base64.RawURLEncoding.EncodeToString(pub.Correlation)
		}
	}
	return m
}

// Check reports what is wrong with a command's parameters alone, without looking at any state. Transports call it
// before they hand a command over.
func Check(c Command, l Limits) error {
	if len(c.Common().RequestID) > 128 {
		return Errorf(InvalidRequest, "requestId is at most 128 bytes long")
	}
	return c.check(l)
}

// decodeStrict decodes JSON into v: one object, no unknown fields, nothing after it. It gives the requestId also
// when the rest is wrong.
func decodeStrict(payload []byte, v any) (requestID string, err error) {
	if !utf8.Valid(payload) {
		return "", Errorf(InvalidRequest, "the payload is not UTF-8")
	}
	trimmed := bytes.TrimLeft(payload, " \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '{' {
		return "", Errorf(InvalidRequest, "the payload is not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return lenientRequestID(payload), jsonError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return lenientRequestID(payload), Errorf(InvalidRequest, "something follows the JSON object")
	}
	switch c := v.(type) {
	case Command:
		return c.Common().RequestID, nil
	case *messageOnTopic:
		return c.RequestID, nil
	}
	return "", nil
}

func lenientRequestID(payload []byte) string {
	var m Meta
	if json.Unmarshal(payload, &m) != nil || len(m.RequestID) > 128 {
		return ""
	}
	return m.RequestID
}

// jsonError makes a refusal of a decoding error that names the field where it can.
func jsonError(err error) error {
	var refusal *Error
	if errors.As(err, &refusal) {
		return refusal
	}
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		if wrongType.Field == "" {
			return Errorf(InvalidRequest, "the payload must be a JSON object, not a %s", wrongType.Value)
		}
		return Errorf(InvalidRequest, "%s must not be a %s", wrongType.Field, wrongType.Value)
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return Errorf(InvalidRequest, "not JSON: %s at byte %d", syntax.Error(), syntax.Offset)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return Errorf(InvalidRequest, "not JSON: it ends too early")
	}
	// encoding/json has no type for an unknown field; its text names the field and nothing private.
	return Errorf(InvalidRequest, "%s", clip(strings.TrimPrefix(err.Error(), "json: ")))
}

// List is a JSON value that may be written as one element or as an array of them.
type List[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *List[T]) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]T)(l))
	}
	var one T
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*l = List[T]{one}
	return nil
}
