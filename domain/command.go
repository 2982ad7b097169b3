package domain

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
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
	// Change may alter the state of a conversation, or the record of the principal; it is decided under the store's row
	// locks.
	Change
	// Logins makes or ends the caller's logins; it is decided on the principal alone.
	Logins
	// Marking is a Change that alters nothing but how far its principal has come: messages that were given after it may
	// be stored before it.
	Marking
	// Signalling stores nothing: it is decided on a cached head like an Append, and tells those who are there.
	Signalling
	// Announcing is a Change that concerns no conversation, but the inboxes of users.
	Announcing
	// Immediate is decided at once, without the store: what it leads to lasts no longer than the user is connected.
	Immediate
	// Willing sets or clears the will of the session that gives it; it is decided on what the store holds at that moment.
	Willing
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
		"getMe", "getUser", "getUsers", "editUser", "setStatus", "subscribe", "unsubscribe", "unsubscribeFromAll",
		"getSubscriptions", "managePushNotifications", "createConversation", "getConversation", "getConversations",
		"getPublicConversations", "joinConversation", "leaveConversation", "editConversation",
		"addParticipants", "removeParticipants", "editParticipants", "removeConversation", "muteConversation",
		"sendMessage", "editMessage", "removeMessage", "typing", "markAsRead", "retransmitEvents", "getReceipts",
		"getUnread", "getContent", "announce", "getAnnouncements", "markAnnouncementsRead", "removeAnnouncement",
		"setWill", "clearWill", "issueTokens", "revokeTokens",
	}
}

// NewCommand gives an empty command of the name, or nil.
func NewCommand(name string) Command {
	switch name {
	case "getMe":
		return &GetMe{}
	case "getUser":
		return &GetUser{}
	case "getUsers":
		return &GetUsers{}
	case "editUser":
		return &EditUser{}
	case "setStatus":
		return &SetStatus{}
	case "subscribe":
		return &Subscribe{}
	case "unsubscribe":
		return &Unsubscribe{}
	case "unsubscribeFromAll":
		return &UnsubscribeFromAll{}
	case "getSubscriptions":
		return &GetSubscriptions{}
	case "managePushNotifications":
		return &ManagePushNotifications{}
	case "createConversation":
		return &CreateConversation{}
	case "getConversation":
		return &GetConversation{}
	case "getConversations":
		return &GetConversations{}
	case "getPublicConversations":
		return &GetPublicConversations{}
	case "joinConversation":
		return &JoinConversation{}
	case "leaveConversation":
		return &LeaveConversation{}
	case "editConversation":
		return &EditConversation{}
	case "addParticipants":
		return &AddParticipants{}
	case "removeParticipants":
		return &RemoveParticipants{}
	case "editParticipants":
		return &EditParticipants{}
	case "removeConversation":
		return &RemoveConversation{}
	case "muteConversation":
		return &MuteConversation{}
	case "sendMessage":
		return &SendMessage{}
	case "editMessage":
		return &EditMessage{}
	case "removeMessage":
		return &RemoveMessage{}
	case "typing":
		return &Typing{}
	case "markAsRead":
		return &MarkAsRead{}
	case "retransmitEvents":
		return &RetransmitEvents{}
	case "issueTokens":
		return &IssueTokens{}
	case "revokeTokens":
		return &RevokeTokens{}
	case "getReceipts":
		return &GetReceipts{}
	case "getUnread":
		return &GetUnread{}
	case "getContent":
		return &GetContent{}
	case "setWill":
		return &SetWill{}
	case "clearWill":
		return &ClearWill{}
	case "announce":
		return &Announce{}
	case "getAnnouncements":
		return &GetAnnouncements{}
	case "markAnnouncementsRead":
		return &MarkAnnouncementsRead{}
	case "removeAnnouncement":
		return &RemoveAnnouncement{}
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
	err := req.decode(pub, l)
	if len(req.RequestID) > maxRequestID {
		req.RequestID = ""
	}
	req.WantsReply = req.WantsReply || req.RequestID != ""
	if pub.ResponseTopic != "" {
		t, ok := ParseTopic(pub.ResponseTopic)
		if ok && t.Kind == RepliesTopic && t.User == p.OwnTopics() {
			req.ReplyTo, req.WantsReply = pub.ResponseTopic, true
		} else {
			err = Errorf(AccessDenied, "a Response Topic must lie under your own users/<username>/replies")
		}
	}
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

// decode fills in the command of a publish, its name and its request id.
func (req *Request) decode(pub *Publish, l Limits) error {
	topic, ok := ParseTopic(pub.Topic)
	if !ok {
		return Errorf(AccessDenied, "no such topic to publish to")
	}
	payload := pub.Payload
	switch topic.Kind {
	case MessagesTopic:
		req.Name = "sendMessage"
	case RawTopic:
		req.Name = "sendMessage"
		// In 3.1.1 there are no properties, and a payload is not JSON: nobody asked for a reply.
		req.Command = rawMessage(topic.Conversation, pub)
		return nil
	case TypingTopic:
		req.Name = "typing"
	case ReadTopic:
		req.Name = "markAsRead"
	case CommandTopic:
		req.WantsReply = true
		req.Command = NewCommand(topic.Command)
		if req.Command == nil {
			req.RequestID = lenientRequestID(payload)
			return Errorf(UnknownCommand, "no command %q", clip(topic.Command))
		}
		req.Name = topic.Command
	case NoTopic, EventsTopic, SignalsTopic, InboxTopic, StatusTopic, RepliesTopic:
		return Errorf(AccessDenied, "nobody may publish to %s", clip(pub.Topic))
	}
	if (req.Name == "sendMessage" || req.Name == "editMessage" || req.Name == "setWill") && len(payload) > l.MessageBytes {
		req.RequestID = lenientRequestID(payload)
		return errMessageTooLarge(l)
	}
	if topic.Kind != MessagesTopic && len(bytes.TrimSpace(payload)) == 0 {
		payload = []byte("{}")
	}
	var err error
	switch topic.Kind {
	case MessagesTopic:
		var body MessageOnTopic
		req.RequestID, err = decodeStrict(payload, &body)
		req.Command = &SendMessage{Conversation: topic.Conversation, MessageRequest: body.MessageRequest, Meta: body.Meta}
	case TypingTopic:
		var body TypingOnTopic
		req.RequestID, err = decodeStrict(payload, &body)
		req.Command = &Typing{Conversation: topic.Conversation, State: body.State, Meta: body.Meta}
	case ReadTopic:
		var body ReadOnTopic
		req.RequestID, err = decodeStrict(payload, &body)
		req.Command = &MarkAsRead{Conversation: topic.Conversation, Seq: body.Seq, Meta: body.Meta}
	default:
		req.RequestID, err = decodeStrict(payload, req.Command)
	}
	return err
}

// MessageOnTopic is the payload of conversations/<uuid>/messages.
type MessageOnTopic struct {
	MessageRequest
	Meta
}

// TypingOnTopic is the payload of conversations/<uuid>/typing; empty means the same as {}.
type TypingOnTopic struct {
	State TypingState `json:"state,omitempty" enum:"started,paused,finished" doc:"Absent: started."`
	Meta
}

// ReadOnTopic is the payload of conversations/<uuid>/read; empty means the same as {}.
type ReadOnTopic struct {
	Seq *int64 `json:"seq,omitempty" doc:"1 to the last event; 0: everything but event 1 is unread; absent: the last event."`
	Meta
}

// rawMessage makes the message of a raw publish (protocol.md section 2).
func rawMessage(c ConversationID, pub *Publish) *SendMessage {
	part := Part{MimeType: pub.ContentType}
	text := utf8.Valid(pub.Payload)
	if part.MimeType == "" {
		part.MimeType = "application/octet-stream"
		if text {
			part.MimeType = "text/plain"
		}
	}
	if text && bytes.IndexByte(pub.Payload, 0) < 0 {
		part.Body = string(pub.Payload)
	} else {
		part.Body, part.Encoding = base64.StdEncoding.EncodeToString(pub.Payload), "base64"
	}
	m := &SendMessage{Conversation: c}
	m.Parts = []Part{part}
	m.ClientID = correlationKey(pub.Correlation)
	return m
}

// correlationKey makes an idempotency key of Correlation Data, which may be any bytes: of text that could be an id
// itself, the others in base64, and those too long for that by their digest.
func correlationKey(b []byte) string {
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 && utf8.RuneCount(b) <= maxClientID {
		return string(b)
	}
	if base64.RawURLEncoding.EncodedLen(len(b)) > maxClientID {
		sum := sha256.Sum256(b)
		b = sum[:]
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxRequestID is the most bytes of a requestId. A longer one is not even echoed.
const maxRequestID = 128

// Check reports what is wrong with a command's parameters alone, without looking at any state. Transports call it
// before they hand a command over.
func Check(c Command, l Limits) error {
	if len(c.Common().RequestID) > maxRequestID {
		return Errorf(InvalidRequest, "requestId is at most %d bytes long", maxRequestID)
	}
	return c.check(l)
}

// List is a JSON value that may be written as one element or as an array of them.
type List[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *List[T]) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if bytes.Equal(b, []byte("null")) {
		*l = nil
		return nil
	}
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
