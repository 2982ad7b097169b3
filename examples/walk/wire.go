package walk

import "encoding/json"

// User is a user as the gateway shows it; the last five only to itself.
type User struct {
	UserID      int64  `json:"userId"`
	Username    string `json:"username"`
	DisplayName string `json:"displayName"`
	CustomData  M      `json:"customData"`
	Deleted     bool   `json:"deleted"`

	PrivateCustomData     M        `json:"privateCustomData"`
	ConversationsList     []string `json:"conversationsList"`
	LeaveConversationList []string `json:"leaveConversationList"`
	MutedConversations    []string `json:"mutedConversations"`
	Notifications         []string `json:"notifications"`
}

// Tokens is the answer to a login.
type Tokens struct {
	AccessToken    string `json:"accessToken"`
	AccessExpires  int64  `json:"accessExpires"`
	RefreshToken   string `json:"refreshToken"`
	RefreshExpires int64  `json:"refreshExpires"`
	User           User   `json:"user"`
}

// Permissions is what a participant may do.
type Permissions struct {
	CanRead               bool `json:"canRead"`
	CanWrite              bool `json:"canWrite"`
	CanEdit               bool `json:"canEdit"`
	CanRemove             bool `json:"canRemove"`
	CanManageParticipants bool `json:"canManageParticipants"`
	CanEditAll            bool `json:"canEditAll"`
	CanRemoveAll          bool `json:"canRemoveAll"`
	IsOwner               bool `json:"isOwner"`
}

// Participant is a user in a conversation.
type Participant struct {
	UserID        int64       `json:"userId"`
	Username      string      `json:"username"`
	Permissions   Permissions `json:"permissions"`
	LastRead      int64       `json:"lastRead"`
	LastDelivered int64       `json:"lastDelivered"`
	JoinedSeq     int64       `json:"joinedSeq"`
}

// Conversation is a conversation as the gateway shows it.
type Conversation struct {
	UUID         string        `json:"uuid"`
	Title        string        `json:"title"`
	Direct       bool          `json:"direct"`
	Distinct     bool          `json:"distinct"`
	Uber         bool          `json:"uber"`
	PublicJoin   bool          `json:"publicJoin"`
	Policy       string        `json:"policy"`
	CreatedTime  int64         `json:"createdTime"`
	LastUpdate   int64         `json:"lastUpdate"`
	LastSeq      int64         `json:"lastSeq"`
	CustomData   M             `json:"customData"`
	Permissions  Permissions   `json:"permissions"`
	Participants []Participant `json:"participants"`
	Removed      bool          `json:"removed"`
}

// Participant gives the participant of a name, or one without a name.
func (c Conversation) Participant(username string) Participant {
	for _, p := range c.Participants {
		if p.Username == username {
			return p
		}
	}
	return Participant{}
}

// Initiator is who caused an event: a user, or a service.
type Initiator struct {
	UserID   int64  `json:"userId"`
	Username string `json:"username"`
	Device   string `json:"device"`
	Service  string `json:"service"`
}

// Part is a piece of a message.
type Part struct {
	MimeType string `json:"mimeType"`
	Body     string `json:"body"`
	Encoding string `json:"encoding"`
	URL      string `json:"url"`
	Size     int64  `json:"size"`
	Content  string `json:"content"`
}

// Content is what is too large for messages, and kept beside them.
type Content struct {
	ID        string `json:"id"`
	MimeType  string `json:"mimeType"`
	Size      int64  `json:"size"`
	Received  int64  `json:"received"`
	Complete  bool   `json:"complete"`
	URL       string `json:"url"`
	UploadURL string `json:"uploadUrl"`
}

// Message is a stored message.
type Message struct {
	UUID         string    `json:"uuid"`
	Conversation string    `json:"conversation"`
	Seq          int64     `json:"seq"`
	ID           string    `json:"id"`
	Sender       Initiator `json:"sender"`
	Time         int64     `json:"time"`
	Text         string    `json:"text"`
	Payload      []M       `json:"payload"`
	Parts        []Part    `json:"parts"`
	MessageType  int       `json:"messageType"`
	Attributes   M         `json:"attributes"`
	Mentions     struct {
		All   bool     `json:"all"`
		Users []string `json:"users"`
	} `json:"mentions"`
	Notification struct {
		Text  string `json:"text"`
		Sound string `json:"sound"`
	} `json:"notification"`
	Receipt    bool   `json:"receipt"`
	Priority   string `json:"priority"`
	EditedTime int64  `json:"editedTime"`
	EditCount  int    `json:"editCount"`
	Removed    bool   `json:"removed"`
}

// Event is a sequenced event of a conversation.
type Event struct {
	Type             string        `json:"type"`
	Conversation     string        `json:"conversation"`
	Seq              int64         `json:"seq"`
	Time             int64         `json:"time"`
	Initiator        Initiator     `json:"initiator"`
	Action           string        `json:"action"`
	RequestID        string        `json:"requestId"`
	ConversationData Conversation  `json:"conversationData"`
	Participants     []Participant `json:"participants"`
	Message          Message       `json:"message"`
	Reason           *struct {
		Code   int    `json:"code"`
		Detail string `json:"detail"`
	} `json:"reason"`
}

// Signal is what is told to those who are there, and not stored.
type Signal struct {
	Type         string    `json:"type"`
	Conversation string    `json:"conversation"`
	Time         int64     `json:"time"`
	Initiator    Initiator `json:"initiator"`
	State        string    `json:"state"`
	Seq          int64     `json:"seq"`
	UserID       int64     `json:"userId"`
	Message      Message   `json:"message"`
}

// Announcement is what a service tells users outside of conversations.
type Announcement struct {
	UUID   string    `json:"uuid"`
	Sender Initiator `json:"sender"`
	Text   string    `json:"text"`
	Read   bool      `json:"read"`
}

// Scheduled is what a service wants sent at a time.
type Scheduled struct {
	UUID  string `json:"uuid"`
	State string `json:"state"`
}

// Notice is what arrives in a user's inbox.
type Notice struct {
	Type             string          `json:"type"`
	Conversation     string          `json:"conversation"`
	ConversationData Conversation    `json:"conversationData"`
	Unread           int             `json:"unread"`
	Mentioned        bool            `json:"mentioned"`
	LastMessage      Message         `json:"lastMessage"`
	UserID           int64           `json:"userId"`
	State            string          `json:"state"`
	Online           bool            `json:"online"`
	LastSeen         int64           `json:"lastSeen"`
	User             User            `json:"user"`
	Users            json.RawMessage `json:"users"`
	Announcement     Announcement    `json:"announcement"`
	Tag              string          `json:"tag"`
	Topic            string          `json:"topic"`
	Error            *Refusal        `json:"error"`
}

// Unread is what a user has not read of a conversation.
type Unread struct {
	Conversation string  `json:"conversation"`
	Unread       int     `json:"unread"`
	Mentioned    bool    `json:"mentioned"`
	LastSeq      int64   `json:"lastSeq"`
	LastRead     int64   `json:"lastRead"`
	LastMessage  Message `json:"lastMessage"`
}

// Receipts is how far a message has come with its recipients, by user id.
type Receipts struct {
	RecipientStatus map[string]string `json:"recipientStatus"`
	ReadStatus      string            `json:"readStatus"`
	DeliveryStatus  string            `json:"deliveryStatus"`
	LastDeliveredAt int64             `json:"lastDeliveredAt"`
	LastReadAt      int64             `json:"lastReadAt"`
}

// Refusal is an error of docs/protocol.md section 7, in replies, notices and problem documents alike.
type Refusal struct {
	Code   string `json:"code"`
	Number int    `json:"number"`
	Detail string `json:"detail"`
	Status int    `json:"status"`

	// Conversation is the one that exists already, in a distinct-conflict.
	Conversation *Conversation `json:"conversation"`
}
