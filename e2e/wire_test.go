package e2e_test

import (
	"encoding/json"
	"testing"
)

// The types here spell out what docs/protocol.md says, independently of the gateway's own types.

type initiator struct {
	UserID   int64  `json:"userId"`
	Username string `json:"username"`
	Device   string `json:"device"`
	Service  string `json:"service"`
}

type permissions struct {
	CanRead               bool `json:"canRead"`
	CanWrite              bool `json:"canWrite"`
	CanEdit               bool `json:"canEdit"`
	CanRemove             bool `json:"canRemove"`
	CanManageParticipants bool `json:"canManageParticipants"`
	CanEditAll            bool `json:"canEditAll"`
	CanRemoveAll          bool `json:"canRemoveAll"`
	IsOwner               bool `json:"isOwner"`
}

type participant struct {
	UserID      int64       `json:"userId"`
	Username    string      `json:"username"`
	Permissions permissions `json:"permissions"`
	JoinedSeq   int64       `json:"joinedSeq"`
	LastRead    int64       `json:"lastRead"`
}

type conversation struct {
	UUID         string          `json:"uuid"`
	Title        string          `json:"title"`
	Direct       bool            `json:"direct"`
	Distinct     bool            `json:"distinct"`
	Uber         bool            `json:"uber"`
	PublicJoin   bool            `json:"publicJoin"`
	Policy       string          `json:"policy"`
	LastSeq      int64           `json:"lastSeq"`
	CustomData   json.RawMessage `json:"customData"`
	Participants []participant   `json:"participants"`
	Permissions  permissions     `json:"permissions"`
	Removed      bool            `json:"removed"`
}

func (c conversation) names() []string {
	list := make([]string, len(c.Participants))
	for i, p := range c.Participants {
		list[i] = p.Username
	}
	return list
}

type part struct {
	MimeType string `json:"mimeType"`
	Body     string `json:"body"`
	Encoding string `json:"encoding"`
	URL      string `json:"url"`
	Size     int64  `json:"size"`
	Content  string `json:"content"`
}

type message struct {
	UUID         string    `json:"uuid"`
	Conversation string    `json:"conversation"`
	Seq          int64     `json:"seq"`
	ID           string    `json:"id"`
	Text         string    `json:"text"`
	Parts        []part    `json:"parts"`
	Sender       initiator `json:"sender"`
	Time         int64     `json:"time"`
	Receipt      bool      `json:"receipt"`
	EditedTime   int64     `json:"editedTime"`
	EditCount    int       `json:"editCount"`
	Removed      bool      `json:"removed"`
}

type event struct {
	Type             string        `json:"type"`
	Conversation     string        `json:"conversation"`
	Seq              int64         `json:"seq"`
	Time             int64         `json:"time"`
	Initiator        initiator     `json:"initiator"`
	Action           string        `json:"action"`
	RequestID        string        `json:"requestId"`
	ConversationData *conversation `json:"conversationData"`
	Participants     []participant `json:"participants"`
	Message          *message      `json:"message"`
	Reason           *struct {
		Code   int
		Detail string
	}

	raw      []byte
	received received
}

type refusal struct {
	Code         string        `json:"code"`
	Number       int           `json:"number"`
	Detail       string        `json:"detail"`
	Status       int           `json:"status"`
	Conversation *conversation `json:"conversation"`
}

type notice struct {
	Type             string        `json:"type"`
	Conversation     string        `json:"conversation"`
	ConversationData *conversation `json:"conversationData"`
	Tag              string        `json:"tag"`
	Topic            string        `json:"topic"`
	RequestID        string        `json:"requestId"`
	Command          string        `json:"command"`
	Error            *refusal      `json:"error"`

	received received
}

type reply struct {
	RequestID string          `json:"requestId"`
	Command   string          `json:"command"`
	Result    json.RawMessage `json:"result"`
	Error     *refusal        `json:"error"`

	received received
}

// into decodes the result; a refusal fails the test.
func (r reply) into(tb testing.TB, v any) {
	tb.Helper()
	if r.Error != nil {
		tb.Fatalf("%s was refused: %+v", r.Command, *r.Error)
	}
	if err := json.Unmarshal(r.Result, v); err != nil {
		tb.Fatalf("result of %s: %v in %s", r.Command, err, r.Result)
	}
}

func mustJSON(tb testing.TB, v any) []byte {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
