package domain

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// RawObject is a JSON object that Parley carries without looking inside. Null and absent are the nil value.
type RawObject json.RawMessage

// MarshalJSON implements json.Marshaler.
func (o RawObject) MarshalJSON() ([]byte, error) {
	if len(o) == 0 {
		return []byte("null"), nil
	}
	return o, nil
}

// UnmarshalJSON implements json.Unmarshaler; it takes objects and null only.
func (o *RawObject) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	switch {
	case bytes.Equal(b, []byte("null")):
		*o = nil
		return nil
	case len(b) == 0 || b[0] != '{':
		return Errorf(InvalidRequest, "expected a JSON object, got %s", clip(string(b)))
	}
	depth, spaced := shape(b)
	if depth > maxDepth {
		return Errorf(InvalidRequest, "nested deeper than %d levels", maxDepth)
	}
	if !spaced {
		*o = bytes.Clone(b)
		return nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return err
	}
	*o = compact.Bytes()
	return nil
}

// maxDepth is how deep the objects and lists of a RawObject may be nested, itself included. Without it an object could
// be as deep as a JSON parser takes, and the event that contains it deeper: nobody could read the event any more.
const maxDepth = 64

// shape tells how deep valid JSON is nested, and whether there is white space between its parts.
func shape(b []byte) (deepest int, spaced bool) {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		case ' ', '\t', '\r', '\n':
			spaced = true
		}
	}
	return deepest, spaced
}

// Equal reports whether two objects mean the same: member order and spelling of numbers and strings aside, with
// null, absent and {} being one.
func (o RawObject) Equal(p RawObject) bool {
	return canonical(o) == canonical(p)
}

// OrNone gives the one form of an object that says nothing.
func (o RawObject) OrNone() RawObject {
	if o.Equal(nil) {
		return nil
	}
	return o
}

func canonical(o RawObject) string {
	if len(o) == 0 {
		return "{}"
	}
	d := json.NewDecoder(bytes.NewReader(o))
	d.UseNumber() // a float64 would make different large numbers one
	var v any
	if d.Decode(&v) != nil {
		return string(o)
	}
	b, err := json.Marshal(plainNumbers(v))
	if err != nil {
		return string(o)
	}
	return string(b)
}

// plainNumbers replaces the numbers in a JSON value by the one spelling that each has: an integer without zeros at its
// end, and an exponent.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = plainNumbers(v[name])
		}
	case []any:
		for i := range v {
			v[i] = plainNumbers(v[i])
		}
	case json.Number:
		return plainNumber(v)
	}
	return v
}

func plainNumber(n json.Number) json.Number {
	digits, exponent, _ := strings.Cut(strings.ToLower(n.String()), "e")
	digits, negative := strings.CutPrefix(digits, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	digits = strings.TrimLeft(whole+fraction, "0")
	significant := strings.TrimRight(digits, "0")
	if significant == "" {
		return "0"
	}
	e := int64(0)
	if exponent != "" {
		var err error
		if e, err = strconv.ParseInt(exponent, 10, 32); err != nil {
			return n // beyond all use: its spelling stands for it
		}
	}
	e += int64(len(digits) - len(significant) - len(fraction))
	if negative {
		significant = "-" + significant
	}
	return json.Number(significant + "e" + strconv.FormatInt(e, 10))
}

// Part is one piece of a message: inline text, inline binary in base64, or a reference to content elsewhere.
type Part struct {
	MimeType string `json:"mimeType" doc:"Of the form type/subtype."`
	Body     string `json:"body,omitempty"`
	Encoding string `json:"encoding,omitempty" enum:"base64" doc:"base64, or absent for text."`
	URL      string `json:"url,omitempty" doc:"Where the content is, if not inline."`
	Size     int64  `json:"size,omitempty" doc:"Bytes of the content elsewhere."`
	// Content names what was uploaded; readers see it with a URL that expires, and get a new one for it.
	Content    ContentID `json:"content,omitempty" doc:"Id of uploaded content, instead of a url."`
	URLExpires int64     `json:"urlExpires,omitempty" doc:"Until when url is good, in milliseconds since 1970; ignored in requests."`
}

// Mentions are those whom a message wants to notice it. What was left out stays so: a message comes back as it was sent.
type Mentions struct {
	All   *bool      `json:"all,omitempty" doc:"Everybody in the conversation."`
	Users []Username `json:"users,omitzero"`
}

// everybody reports whether all participants are mentioned.
func (m *Mentions) everybody() bool { return m.All != nil && *m.All }

// Notification is what a push about the message shows.
type Notification struct {
	Text  string `json:"text,omitempty"`
	Sound string `json:"sound,omitempty"`
}

// Options say how a message is to be handled.
type Options struct {
	Transient bool      `json:"transient,omitempty" doc:"To those online only; neither stored nor numbered."`
	Receipt   bool      `json:"receipt,omitempty" doc:"The sender wants to hear of delivery and reading."`
	Will      bool      `json:"will,omitempty" doc:"Not sent now but, as a willMessage signal, when the session is lost: the same as setWill."`
	Priority  string    `json:"priority,omitempty" enum:"high,normal,low"`
	Push      RawObject `json:"push,omitempty" doc:"For the push service; the message shows it as push."`
}

// Content is what a message says, the same in requests and events.
type Content struct {
	Text         string        `json:"text,omitempty" doc:"Up to 5000 characters."`
	Payload      []RawObject   `json:"payload,omitempty" doc:"JSON objects of the application."`
	Parts        []Part        `json:"parts,omitempty"`
	MessageType  int           `json:"messageType,omitempty" doc:"-1 text, -2 image, -3 audio, -4 video, -5 location, -6 file; positive: the application's."`
	Attributes   RawObject     `json:"attributes,omitempty"`
	Mentions     *Mentions     `json:"mentions,omitempty"`
	Notification *Notification `json:"notification,omitempty"`
}

// MessageRequest is a message as a client sends it (protocol.md section 4).
type MessageRequest struct {
	ClientID string `json:"id,omitempty" maxLength:"64" doc:"The client's own id of the message and its idempotency key, 1 to 64 characters."`
	Content
	Options *Options `json:"options,omitempty"`
}

// Message is a message as events and results show it.
type Message struct {
	ID           MessageID      `json:"uuid,omitzero" doc:"Absent: the message is not stored."`
	Conversation ConversationID `json:"conversation"`
	Seq          Seq            `json:"seq,omitempty" doc:"Number of the message's sendMessage event; absent: the message is not stored."`
	ClientID     string         `json:"id,omitempty" doc:"The client's own id of the message."`
	Sender       *Initiator     `json:"sender,omitempty"`
	Time         int64          `json:"time,omitempty" doc:"Milliseconds since 1970."`
	Content
	Receipt    bool      `json:"receipt,omitempty"`
	Priority   string    `json:"priority,omitempty"`
	Push       RawObject `json:"push,omitempty" doc:"What the sender gave in options.push."`
	EditedTime int64     `json:"editedTime,omitempty" doc:"Milliseconds since 1970."`
	EditCount  int       `json:"editCount,omitempty"`
	Removed    bool      `json:"removed,omitempty"`
}

// Limits bound what clients may send (configuration limits.*). The zero value allows nothing.
type Limits struct {
	MessageBytes int // a whole message as JSON
	PartBytes    int // one inline part body; of base64 what it stands for
	TextChars    int // Unicode code points of text
	Parts        int
	Participants int // of one conversation
	Watched      int // users that one user has subscribed to
	// ContentURL is what the URLs of external content begin with, up to their path; empty: there is none.
	ContentURL string
}

// DefaultLimits are those of protocol.md section 4.
func DefaultLimits() Limits {
	return Limits{MessageBytes: 64 << 10, PartBytes: 32 << 10, TextChars: 5000, Parts: 16, Participants: 1000, Watched: 1000}
}

// The most characters of an id, and bytes of a MIME type; the last of the built-in types of messages.
const (
	maxClientID      = 64
	maxMimeType      = 255
	leastMessageType = -6
)

var mimePattern = regexp.MustCompile(`^[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}([ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?$`)

func errMessageTooLarge(l Limits) *Error {
	return Errorf(MessageTooLarge, "the message is larger than %d bytes", l.MessageBytes)
}

// check reports what is wrong with a message, its size included.
func (m *MessageRequest) check(l Limits) error {
	if utf8.RuneCountInString(m.ClientID) > maxClientID {
		return Errorf(InvalidRequest, "id is at most %d characters long", maxClientID)
	}
	if strings.ContainsRune(m.ClientID, 0) {
		return Errorf(InvalidRequest, "id must not contain NUL")
	}
	if m.Options != nil {
		switch m.Options.Priority {
		case "", "high", "normal", "low":
		default:
			return Errorf(InvalidRequest, "options.priority is one of high, normal, low")
		}
	}
	if err := m.Content.check(l); err != nil {
		return err
	}
	if m.leastSize() > l.MessageBytes {
		return errMessageTooLarge(l)
	}
	return nil
}

// leastSize gives the bytes that the message has as JSON, less what the names of its fields and the escapes in its
// texts take: over MQTT the payload itself is measured, elsewhere this is.
func (m *MessageRequest) leastSize() int {
	n := len(m.ClientID) + len(m.Text) + len(m.Attributes)
	for _, o := range m.Payload {
		n += len(o)
	}
	for i := range m.Parts {
		n += len(m.Parts[i].MimeType) + len(m.Parts[i].Body) + len(m.Parts[i].URL)
	}
	if m.Mentions != nil {
		for _, u := range m.Mentions.Users {
			n += len(u)
		}
	}
	if m.Notification != nil {
		n += len(m.Notification.Text) + len(m.Notification.Sound)
	}
	if m.Options != nil {
		n += len(m.Options.Push)
	}
	return n
}

func (c *Content) check(l Limits) error {
	if c.Text == "" && len(c.Payload) == 0 && len(c.Parts) == 0 && len(c.Attributes) == 0 {
		return Errorf(InvalidRequest, "a message needs at least one of text, payload, parts and attributes")
	}
	// Bytes bound code points from above: most texts need no counting.
	if len(c.Text) > l.TextChars && utf8.RuneCountInString(c.Text) > l.TextChars {
		return Errorf(MessageTooLarge, "text is longer than %d characters", l.TextChars)
	}
	if c.MessageType < leastMessageType {
		return Errorf(InvalidRequest, "messageType is %d to -1 for what is built in, or a positive number of the application's", leastMessageType)
	}
	for i, o := range c.Payload {
		if len(o) == 0 {
			return Errorf(InvalidRequest, "payload[%d] is not a JSON object", i)
		}
	}
	if len(c.Parts) > l.Parts {
		return Errorf(MessageTooLarge, "more than %d parts", l.Parts)
	}
	for i := range c.Parts {
		if err := c.Parts[i].check(i, l); err != nil {
			return err
		}
	}
	if c.Mentions != nil {
		for _, u := range c.Mentions.Users {
			if _, err := ParseUsername(string(u)); err != nil {
				return Errorf(InvalidRequest, "mentions.users: %q is not a user name", clip(string(u)))
			}
		}
	}
	return nil
}

func (p *Part) check(i int, l Limits) error {
	switch {
	case !validMimeType(p.MimeType):
		return Errorf(InvalidRequest, "parts[%d].mimeType must have the form type/subtype", i)
	case p.bodyBytes() > l.PartBytes:
		return Errorf(MessageTooLarge, "parts[%d].body is longer than %d bytes", i, l.PartBytes)
	case p.Body != "" && p.URL != "":
		return Errorf(InvalidRequest, "parts[%d] has both body and url", i)
	case p.Size < 0:
		return Errorf(InvalidRequest, "parts[%d].size is negative", i)
	case p.Encoding != "" && p.Encoding != "base64":
		return Errorf(InvalidRequest, "parts[%d].encoding is base64 or absent", i)
	}
	if p.Encoding == "base64" {
		if _, err := base64.StdEncoding.DecodeString(p.Body); err != nil {
			return Errorf(InvalidRequest, "parts[%d].body is not base64", i)
		}
	}
	return p.checkExternal(i)
}

// bodyBytes gives the size of the inline content; of base64 what it stands for, for content may be as large there as
// it is as text or in a raw publish.
func (p *Part) bodyBytes() int {
	if p.Encoding != "base64" {
		return len(p.Body)
	}
	padding := len(p.Body) - len(strings.TrimRight(p.Body, "="))
	return base64.StdEncoding.DecodedLen(len(p.Body)) - padding
}

// clip shortens a client's text for use in a detail.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
