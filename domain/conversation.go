package domain

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
)

// Policy says who manages a conversation.
type Policy string

// The policies of protocol.md section 6.
const (
	// Managed: those with the permission manage, owners edit.
	Managed Policy = "managed"
	// Open: every participant may edit the conversation and add or remove participants.
	Open Policy = "open"
)

// Permissions are a participant's rights in a conversation. An owner has every right, whatever the others say.
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

// DefaultPermissions are what a participant gets where nobody said otherwise.
func DefaultPermissions() Permissions {
	return Permissions{CanRead: true, CanWrite: true, CanEdit: true, CanRemove: true}
}

// EveryPermission is what owners have.
func EveryPermission() Permissions {
	return Permissions{true, true, true, true, true, true, true, true}
}

// effective gives the rights that count: an owner's are all.
func (p Permissions) effective() Permissions {
	if p.IsOwner {
		return EveryPermission()
	}
	return p
}

// Reads reports whether who has p may read: what happens is delivered to nobody else.
func (p Permissions) Reads() bool { return p.CanRead || p.IsOwner }

// exceeds reports whether p holds a right that q does not.
func (p Permissions) exceeds(q Permissions) bool {
	return p.CanRead && !q.CanRead || p.CanWrite && !q.CanWrite || p.CanEdit && !q.CanEdit || p.CanRemove && !q.CanRemove ||
		p.CanManageParticipants && !q.CanManageParticipants || p.CanEditAll && !q.CanEditAll ||
		p.CanRemoveAll && !q.CanRemoveAll || p.IsOwner && !q.IsOwner
}

// PermissionsPatch is the request form of permissions: what is absent keeps its default.
type PermissionsPatch struct {
	CanRead               *bool `json:"canRead,omitempty"`
	CanWrite              *bool `json:"canWrite,omitempty"`
	CanEdit               *bool `json:"canEdit,omitempty"`
	CanRemove             *bool `json:"canRemove,omitempty"`
	CanManageParticipants *bool `json:"canManageParticipants,omitempty"`
	CanEditAll            *bool `json:"canEditAll,omitempty"`
	CanRemoveAll          *bool `json:"canRemoveAll,omitempty"`
	IsOwner               *bool `json:"isOwner,omitempty"`
}

// Over lays the patch over p. A nil patch changes nothing.
func (d *PermissionsPatch) Over(p Permissions) Permissions {
	if d == nil {
		return p
	}
	for _, f := range []struct {
		to   *bool
		from *bool
	}{
		{&p.CanRead, d.CanRead},
		{&p.CanWrite, d.CanWrite},
		{&p.CanEdit, d.CanEdit},
		{&p.CanRemove, d.CanRemove},
		{&p.CanManageParticipants, d.CanManageParticipants},
		{&p.CanEditAll, d.CanEditAll},
		{&p.CanRemoveAll, d.CanRemoveAll},
		{&p.IsOwner, d.IsOwner},
	} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	return p
}

// Participant is a user's part in a conversation.
type Participant struct {
	UserID        UserID      `json:"userId"`
	Username      Username    `json:"username"`
	Permissions   Permissions `json:"permissions"`
	LastRead      Seq         `json:"lastRead" doc:"All events up to this one were read."`
	LastDelivered Seq         `json:"lastDelivered" doc:"All events up to this one reached a device."`
	JoinedSeq     Seq         `json:"joinedSeq" doc:"The event by which the user joined, the last time."`
}

// Interval is a stretch of a log during which a user took part and was allowed to read: from the event by which that
// began to the one by which it ended, both included. To is 0 while it lasts, and less than 0 where the user came without
// that permission: then there is nothing to read.
type Interval struct {
	From Seq
	To   Seq
}

// Conversation is the state that a conversation's log has led to: its head.
type Conversation struct {
	ID           ConversationID `json:"uuid"`
	Title        string         `json:"title,omitempty"`
	Direct       bool           `json:"direct" doc:"Between exactly two users, one per pair."`
	Distinct     bool           `json:"distinct" doc:"The only one of its set of participants, until that changes."`
	Uber         bool           `json:"uber" doc:"Events of the times when the reader was not a participant are withheld."`
	PublicJoin   bool           `json:"publicJoin" doc:"Users of the account tree may join."`
	Policy       Policy         `json:"policy" enum:"managed,open"`
	CreatedTime  int64          `json:"createdTime" doc:"Milliseconds since 1970."`
	LastUpdate   int64          `json:"lastUpdate" doc:"When the conversation or its participants last changed; milliseconds since 1970."`
	LastSeq      Seq            `json:"lastSeq" doc:"Number of the last event."`
	CustomData   RawObject      `json:"customData,omitempty"`
	Permissions  Permissions    `json:"permissions" doc:"What newcomers get."`
	Participants []Participant  `json:"participants"`
	Removed      bool           `json:"removed"`

	// Root is the main account of the tree that the conversation belongs to, Account the account of its creator.
	Root    AccountID `json:"-"`
	Account AccountID `json:"-"`
	// Version rises by one with every change of this state; a message decided on an older one is stale.
	Version int64 `json:"-"`
	// UniqueKey is what makes a direct or distinct conversation the only one; empty: nothing does.
	UniqueKey string `json:"-"`
}

// Participant gives the user's part, and whether it has one.
func (c *Conversation) Participant(id UserID) (Participant, bool) {
	for i := range c.Participants {
		if c.Participants[i].UserID == id {
			return c.Participants[i], true
		}
	}
	return Participant{}, false
}

// owners counts the owners.
func (c *Conversation) owners() int {
	n := 0
	for i := range c.Participants {
		if c.Participants[i].Permissions.IsOwner {
			n++
		}
	}
	return n
}

// clone copies c so far that a decision may change the copy.
func (c *Conversation) clone() *Conversation {
	d := *c
	d.Participants = slices.Clone(c.Participants)
	return &d
}

// directKey is the unique key of the direct conversation of two users.
func directKey(a, b UserID) string {
	return "direct:" + min(a, b).String() + ":" + max(a, b).String()
}

// distinctKey is the unique key of a distinct conversation: a digest of its set of users.
func distinctKey(ids []UserID) string {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	h := sha256.New()
	var b [8]byte
	for _, id := range ids {
		binary.BigEndian.PutUint64(b[:], uint64(id))
		h.Write(b[:])
	}
	return "distinct:" + strconv.Itoa(len(ids)) + ":" + hex.EncodeToString(h.Sum(nil))
}
