package domain

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
)

// UserID is a user's number: positive, stable for the life of the store, never given to anybody else.
type UserID int64

// AccountID is the store's number of an account.
type AccountID int64

// ServiceID is the store's number of a service.
type ServiceID int64

// SenderID identifies who made an event within the idempotency key (conversation, sender, client id): a user's
// number, or a service's number negated. The admin key is 0.
type SenderID int64

// Seq is a position in a conversation's log: 1 for its createConversation event, then without a gap. 0 is "before
// the first event" or "none".
type Seq int64

// ConversationID is a conversation's UUID (RFC 9562, version 7 where Parley made it). The zero value is "none".
// Its byte order is the lock order of the store.
type ConversationID [16]byte

// MessageID is a message's UUID. It is derived from the conversation and the sequence number of the message's
// sendMessage event (see [NewMessageID]), so it needs neither a column nor an index.
type MessageID [16]byte

var errUUID = errors.New("not a UUID of the form 8-4-4-4-12 hexadecimal digits")

// ParseConversationID reads the canonical text form of a UUID, in either letter case.
func ParseConversationID(s string) (ConversationID, error) {
	id, err := parseUUID(s)
	return ConversationID(id), err
}

// String gives the canonical lower-case text form.
func (id ConversationID) String() string { return uuidString(id) }

// IsZero reports whether id is "none".
func (id ConversationID) IsZero() bool { return id == ConversationID{} }

// MarshalText implements encoding.TextMarshaler.
func (id ConversationID) MarshalText() ([]byte, error) { return uuidText(id), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ConversationID) UnmarshalText(b []byte) error {
	v, err := parseUUID(string(b))
	*id = v
	return err
}

// NewMessageID derives the UUID of the message whose sendMessage event has the given number in the conversation.
// Of its 122 free bits 48 hold the number and 74 a digest of the conversation; it is a version 8 UUID (RFC 9562,
// section 5.8). The mapping is injective within a conversation and reversible by [MessageID.Seq].
func NewMessageID(c ConversationID, seq Seq) MessageID {
	sum := sha256.Sum256(c[:])
	var id MessageID
	// Layout: 6 bytes seq | version nibble + 12 bits | variant + 62 bits, the last two from the digest.
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(seq))
	copy(id[:6], n[2:])
	copy(id[6:], sum[:10])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// Seq gives the number of the message's sendMessage event, and false when the id is not one of a message of
// conversation c.
func (id MessageID) Seq(c ConversationID) (Seq, bool) {
	var n [8]byte
	copy(n[2:], id[:6])
	seq := Seq(binary.BigEndian.Uint64(n[:]))
	return seq, seq > 0 && NewMessageID(c, seq) == id
}

// ParseMessageID reads the canonical text form of a UUID, in either letter case.
func ParseMessageID(s string) (MessageID, error) {
	id, err := parseUUID(s)
	return MessageID(id), err
}

// String gives the canonical lower-case text form.
func (id MessageID) String() string { return uuidString(id) }

// IsZero reports whether id is "none".
func (id MessageID) IsZero() bool { return id == MessageID{} }

// MarshalText implements encoding.TextMarshaler.
func (id MessageID) MarshalText() ([]byte, error) { return uuidText(id), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *MessageID) UnmarshalText(b []byte) error {
	v, err := parseUUID(string(b))
	*id = v
	return err
}

// AnnouncementID is an announcement's UUID (RFC 9562, version 7).
type AnnouncementID [16]byte

// ParseAnnouncementID reads the canonical text form of a UUID, in either letter case.
func ParseAnnouncementID(s string) (AnnouncementID, error) {
	id, err := parseUUID(s)
	return AnnouncementID(id), err
}

// String gives the canonical lower-case text form.
func (id AnnouncementID) String() string { return uuidString(id) }

// IsZero reports whether id is "none".
func (id AnnouncementID) IsZero() bool { return id == AnnouncementID{} }

// MarshalText implements encoding.TextMarshaler.
func (id AnnouncementID) MarshalText() ([]byte, error) { return uuidText(id), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *AnnouncementID) UnmarshalText(b []byte) error {
	v, err := parseUUID(string(b))
	*id = v
	return err
}

// ScheduledID is the UUID of something that is to be sent later.
type ScheduledID [16]byte

// ParseScheduledID reads the canonical text form of a UUID, in either letter case.
func ParseScheduledID(s string) (ScheduledID, error) {
	id, err := parseUUID(s)
	return ScheduledID(id), err
}

// String gives the canonical lower-case text form.
func (id ScheduledID) String() string { return uuidString(id) }

// IsZero reports whether id is "none".
func (id ScheduledID) IsZero() bool { return id == ScheduledID{} }

// MarshalText implements encoding.TextMarshaler.
func (id ScheduledID) MarshalText() ([]byte, error) { return uuidText(id), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ScheduledID) UnmarshalText(b []byte) error {
	v, err := parseUUID(string(b))
	*id = v
	return err
}

// String gives the decimal form.
func (id UserID) String() string { return strconv.FormatInt(int64(id), 10) }

func parseUUID(s string) ([16]byte, error) {
	var id [16]byte
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return [16]byte{}, errUUID
	}
	pos := 0
	for _, group := range [...]string{s[0:8], s[9:13], s[14:18], s[19:23], s[24:36]} {
		n, err := hex.Decode(id[pos:], []byte(group))
		if err != nil {
			return [16]byte{}, errUUID
		}
		pos += n
	}
	return id, nil
}

func uuidString(id [16]byte) string { return string(uuidText(id)) }

func uuidText(id [16]byte) []byte {
	dst := hex.AppendEncode(make([]byte, 0, 36), id[0:4])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[4:6])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[6:8])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, id[8:10])
	dst = append(dst, '-')
	return hex.AppendEncode(dst, id[10:16])
}
