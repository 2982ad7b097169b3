package persistence

import (
	"encoding/hex"
	"fmt"

	"github.com/parley-im/parley/domain"
)

// The kinds of events in the column events.kind. kindSendMessage is named in the migrations as well.
const (
	kindCreateConversation = 1
	kindEditConversation   = 2
	kindRemoveConversation = 3
	kindSendMessage        = 4
	kindEditMessage        = 5
	kindRemoveMessage      = 6
)

// kindOf gives the number that stands for an event's type.
func kindOf(t domain.EventType) (int64, error) {
	switch t {
	case domain.EventCreateConversation:
		return kindCreateConversation, nil
	case domain.EventEditConversation:
		return kindEditConversation, nil
	case domain.EventRemoveConversation:
		return kindRemoveConversation, nil
	case domain.EventSendMessage:
		return kindSendMessage, nil
	case domain.EventEditMessage:
		return kindEditMessage, nil
	case domain.EventRemoveMessage:
		return kindRemoveMessage, nil
	default:
		return 0, fmt.Errorf("an event of type %q cannot be stored", t)
	}
}

// The bits of a column of permissions.
const (
	bitRead = 1 << iota
	bitWrite
	bitEdit
	bitRemove
	bitManageParticipants
	bitEditAll
	bitRemoveAll
	bitOwner
)

func packPermissions(p domain.Permissions) int64 {
	var n int64
	for _, f := range [...]struct {
		set bool
		bit int64
	}{
		{p.CanRead, bitRead},
		{p.CanWrite, bitWrite},
		{p.CanEdit, bitEdit},
		{p.CanRemove, bitRemove},
		{p.CanManageParticipants, bitManageParticipants},
		{p.CanEditAll, bitEditAll},
		{p.CanRemoveAll, bitRemoveAll},
		{p.IsOwner, bitOwner},
	} {
		if f.set {
			n |= f.bit
		}
	}
	return n
}

func unpackPermissions(n int64) domain.Permissions {
	return domain.Permissions{
		CanRead: n&bitRead != 0, CanWrite: n&bitWrite != 0, CanEdit: n&bitEdit != 0, CanRemove: n&bitRemove != 0,
		CanManageParticipants: n&bitManageParticipants != 0, CanEditAll: n&bitEditAll != 0,
		CanRemoveAll: n&bitRemoveAll != 0, IsOwner: n&bitOwner != 0,
	}
}

// uuid is a column of UUIDs as it is read: SQLite gives 16 bytes, the Postgres driver the text form.
type uuid [16]byte

// Scan implements sql.Scanner.
func (u *uuid) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok {
		return fmt.Errorf("a UUID cannot be read from a %T", src)
	}
	if len(b) == len(u) {
		copy(u[:], b)
		return nil
	}
	id, err := domain.ParseConversationID(string(b))
	if err != nil {
		return fmt.Errorf("column of UUIDs: %w", err)
	}
	*u = uuid(id)
	return nil
}

// digest is a column of SHA-256 digests as it is read.
type digest [32]byte

// Scan implements sql.Scanner.
func (d *digest) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok || len(b) != len(d) {
		return fmt.Errorf("a digest cannot be read from a %T", src)
	}
	copy(d[:], b)
	return nil
}

// object gives a column of JSON objects as the domain keeps it.
func object(b []byte) domain.RawObject {
	if len(b) == 0 {
		return nil
	}
	return domain.RawObject(b)
}

// orNull gives an object as it is written: NULL for none.
func orNull(o domain.RawObject) any {
	if len(o) == 0 {
		return nil
	}
	return []byte(o)
}

// textOrNull gives a text as it is written: NULL for none.
func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// hexID gives the form in which SQLite gets a list of ids.
func hexID(id domain.ConversationID) string { return hex.EncodeToString(id[:]) }
