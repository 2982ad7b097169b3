package domain

import "encoding/json"

// EventType names an event, a signal or a notice; see protocol.md section 5.
type EventType string

// The types of protocol.md section 5: sequenced events, signals, inbox notices.
const (
	EventCreateConversation EventType = "createConversation"
	EventEditConversation   EventType = "editConversation"
	EventRemoveConversation EventType = "removeConversation"
	EventSendMessage        EventType = "sendMessage"
	EventEditMessage        EventType = "editMessage"
	EventRemoveMessage      EventType = "removeMessage"

	SignalTyping           EventType = "typing"
	SignalRead             EventType = "read"
	SignalDelivered        EventType = "delivered"
	SignalTransientMessage EventType = "transientMessage"
	SignalWillMessage      EventType = "willMessage"

	NoticeConversationAdded   EventType = "conversationAdded"
	NoticeConversationRemoved EventType = "conversationRemoved"
	NoticeEditUser            EventType = "editUser"
	NoticeUnread              EventType = "unread"
	NoticeSetStatus           EventType = "setStatus"
	NoticeSubscribe           EventType = "subscribe"
	NoticeUnsubscribe         EventType = "unsubscribe"
	NoticeConflict            EventType = "conflict"
	NoticeError               EventType = "error"
	NoticeEventSkipped        EventType = "eventSkipped"
	NoticeAnnouncement        EventType = "announcement"
	NoticeAnnouncementsRead   EventType = "announcementsRead"
	NoticeAnnouncementRemoved EventType = "announcementRemoved"
)

// EventTypes lists the types of sequenced events.
func EventTypes() []EventType {
	return []EventType{
		EventCreateConversation, EventEditConversation, EventRemoveConversation, EventSendMessage, EventEditMessage,
		EventRemoveMessage,
	}
}

// SignalTypes lists the types of signals.
func SignalTypes() []EventType {
	return []EventType{SignalTyping, SignalRead, SignalDelivered, SignalTransientMessage, SignalWillMessage}
}

// NoticeTypes lists the types of inbox notices.
func NoticeTypes() []EventType {
	return []EventType{
		NoticeConversationAdded, NoticeConversationRemoved, NoticeUnread, NoticeEditUser, NoticeSetStatus, NoticeSubscribe,
		NoticeUnsubscribe, NoticeConflict, NoticeError, NoticeEventSkipped, NoticeAnnouncement, NoticeAnnouncementsRead,
		NoticeAnnouncementRemoved,
	}
}

// Initiator is who caused an event: a user with a device, or a service.
type Initiator struct {
	UserID   UserID   `json:"userId,omitempty"`
	Username Username `json:"username,omitempty"`
	Device   string   `json:"device,omitempty" doc:"MQTT client id; absent for what came over HTTP."`
	Service  string   `json:"service,omitempty" doc:"Name of the backend, if it was one."`
}

// Reason says why somebody else changed a message.
type Reason struct {
	Code   int    `json:"code" doc:"Positive: the backend's; negative: built in."`
	Detail string `json:"detail,omitempty"`
}

// Event is one entry of a conversation's log (protocol.md section 5.1).
type Event struct {
	Type         EventType      `json:"type" enum:"createConversation,editConversation,removeConversation,sendMessage,editMessage,removeMessage"`
	Conversation ConversationID `json:"conversation"`
	Seq          Seq            `json:"seq" doc:"Position in the conversation's log, from 1 without a gap."`
	Time         int64          `json:"time" doc:"Milliseconds since 1970."`
	Initiator    Initiator      `json:"initiator"`
	Action       string         `json:"action" doc:"The command that caused the event."`
	// RequestID is shown to the initiator's own devices only, and never stored.
	RequestID string `json:"requestId,omitempty"`

	ConversationData *Conversation `json:"conversationData,omitempty"`
	Participants     []Participant `json:"participants,omitempty" doc:"The participants concerned."`
	Message          *Message      `json:"message,omitempty"`
	Reason           *Reason       `json:"reason,omitempty"`

	// Sender and ClientID are the event's part of the idempotency key; no ClientID: it has none.
	Sender   SenderID `json:"-"`
	ClientID string   `json:"-"`
	// Mentioned are the users whom a new message mentions, its sender left out; 0 stands for everybody.
	Mentioned []UserID `json:"-"`
}

// At places the event in its log: it sets Conversation and Seq, in the message of a sendMessage event as well.
// The event must not be shared yet.
func (e *Event) At(c ConversationID, seq Seq) {
	e.Conversation, e.Seq = c, seq
	if e.Message != nil && e.Type == EventSendMessage {
		e.Message.Conversation, e.Message.Seq, e.Message.ID = c, seq, NewMessageID(c, seq)
	}
}

// stored is the form in which the store keeps an event: what its columns (conversation, seq) do not say already.
type stored struct {
	Type             EventType      `json:"y"`
	Time             int64          `json:"t"`
	Initiator        Initiator      `json:"i"`
	Action           string         `json:"a,omitempty"`
	ConversationData *storedHead    `json:"c,omitempty"`
	Participants     []Participant  `json:"p,omitempty"`
	Message          *storedMessage `json:"m,omitempty"`
	Reason           *Reason        `json:"r,omitempty"`
}

type storedHead Conversation

type storedMessage struct {
	// Target is the number of the message that an editMessage or removeMessage event is about.
	Target     Seq        `json:"q,omitempty"`
	ClientID   string     `json:"k,omitempty"`
	Sender     *Initiator `json:"s,omitempty"`
	Time       int64      `json:"t,omitempty"`
	Content    *Content   `json:"c,omitempty"`
	Receipt    bool       `json:"r,omitempty"`
	Priority   string     `json:"p,omitempty"`
	Push       RawObject  `json:"u,omitempty"`
	EditedTime int64      `json:"e,omitempty"`
	EditCount  int        `json:"n,omitempty"`
	Removed    bool       `json:"x,omitempty"`
}

// MarshalStored gives the bytes that the store keeps for the event. Position and request id are left out: the
// first is in the row's key, the second is nobody else's business.
func (e *Event) MarshalStored() ([]byte, error) {
	s := stored{
		Type: e.Type, Time: e.Time, Initiator: e.Initiator, ConversationData: (*storedHead)(e.ConversationData),
		Participants: e.Participants, Reason: e.Reason,
	}
	if e.Action != string(e.Type) {
		s.Action = e.Action
	}
	if m := e.Message; m != nil {
		s.Message = &storedMessage{
			ClientID: m.ClientID, Receipt: m.Receipt, Priority: m.Priority,
			EditedTime: m.EditedTime, EditCount: m.EditCount, Removed: m.Removed,
		}
		if !m.Removed {
			s.Message.Content, s.Message.Push = &m.Content, m.Push
		}
		if e.Type != EventSendMessage {
			s.Message.Target, s.Message.Sender, s.Message.Time = m.Seq, m.Sender, m.Time
		}
	}
	return json.Marshal(s)
}

// UnmarshalStored restores an event from the bytes of [Event.MarshalStored] and its row's key.
func UnmarshalStored(c ConversationID, seq Seq, body []byte) (*Event, error) {
	var s stored
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, err
	}
	e := &Event{
		Type: s.Type, Time: s.Time, Initiator: s.Initiator, Action: s.Action,
		ConversationData: (*Conversation)(s.ConversationData), Participants: s.Participants, Reason: s.Reason,
	}
	if e.Action == "" {
		e.Action = string(e.Type)
	}
	if m := s.Message; m != nil {
		e.Message = &Message{
			ClientID: m.ClientID, Sender: m.Sender, Time: m.Time, Receipt: m.Receipt, Priority: m.Priority,
			EditedTime: m.EditedTime, EditCount: m.EditCount, Removed: m.Removed,
		}
		if !m.Removed {
			e.Message.Push = m.Push
			if m.Content != nil {
				e.Message.Content = *m.Content
			}
		}
		if e.Type == EventSendMessage {
			sender := s.Initiator
			sender.Device = ""
			e.Message.Sender, e.Message.Time = &sender, s.Time
		} else {
			e.Message.Conversation, e.Message.Seq, e.Message.ID = c, m.Target, NewMessageID(c, m.Target)
		}
	}
	e.At(c, seq)
	return e, nil
}

// Signal is what a conversation's participants are told without it being sequenced or stored (protocol.md section 5.2).
type Signal struct {
	Type         EventType      `json:"type"`
	Conversation ConversationID `json:"conversation"`
	Time         int64          `json:"time"`
	Initiator    *Initiator     `json:"initiator,omitempty"`
	// Seq and UserID are of the watermarks: all events up to Seq have reached the user.
	Seq    Seq    `json:"seq,omitempty"`
	UserID UserID `json:"userId,omitempty"`
	// State is of typing, Message of messages that are for those online only, and of wills.
	State   TypingState `json:"state,omitempty"`
	Message *Message    `json:"message,omitempty"`
}

// Notice is an inbox event (protocol.md section 5.3).
type Notice struct {
	Type             EventType       `json:"type"`
	Time             int64           `json:"time"`
	Conversation     *ConversationID `json:"conversation,omitempty"`
	ConversationData *Conversation   `json:"conversationData,omitempty"`
	// Unread belongs to unread, Status to setStatus.
	*Unread
	*Status
	Tag   string `json:"tag,omitempty"`
	User  *User  `json:"user,omitempty"`
	Users []User `json:"users,omitzero"`
	// Announcement belongs to announcement, Announcements to announcementRemoved and announcementsRead; without: all.
	Announcement  *Announcement    `json:"announcement,omitempty"`
	Announcements []AnnouncementID `json:"announcements,omitempty"`
	// Seq and Size, in bytes, are of an event that was too large for the device.
	Seq  Seq `json:"seq,omitempty"`
	Size int `json:"size,omitempty"`
	// Device, Topic, RequestID, Command and Error belong to error: the refusal of a publish that its
	// acknowledgement could not tell.
	Device    string `json:"device,omitempty"`
	Topic     string `json:"topic,omitempty"`
	RequestID string `json:"requestId,omitempty"`
	Command   string `json:"command,omitempty"`
	Error     *Error `json:"error,omitempty"`
}

// Reply answers a command (protocol.md section 6): with a result or an error.
type Reply struct {
	RequestID string  `json:"requestId,omitempty"`
	Command   string  `json:"command"`
	Result    *Result `json:"result,omitempty"`
	Error     *Error  `json:"error,omitempty"`
}
