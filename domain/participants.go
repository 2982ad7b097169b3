package domain

import (
	"bytes"
	"encoding/json"
)

// NewParticipants are users who shall take part. In JSON an element is an object or, in short, a number or a full name.
type NewParticipants []NewParticipant

// UnmarshalJSON implements json.Unmarshaler.
func (l *NewParticipants) UnmarshalJSON(b []byte) (err error) {
	*l, err = elements(b, func(p *NewParticipant) *UserRef { return &p.UserRef })
	return err
}

// UserRefs are references to users. In JSON an element is an object or, in short, a number or a full name.
type UserRefs []UserRef

// UnmarshalJSON implements json.Unmarshaler.
func (l *UserRefs) UnmarshalJSON(b []byte) (err error) {
	*l, err = elements(b, func(r *UserRef) *UserRef { return r })
	return err
}

// elements decodes a list of objects; an element that is no object names a user, and nothing else.
func elements[T any](b []byte, user func(*T) *UserRef) ([]T, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil || raw == nil {
		return nil, err
	}
	list := make([]T, len(raw))
	for i, one := range raw {
		if one[0] != '{' {
			var n Named
			if err := json.Unmarshal(one, &n); err != nil {
				return nil, err
			}
			*user(&list[i]) = n.Ref
			continue
		}
		d := json.NewDecoder(bytes.NewReader(one))
		d.DisallowUnknownFields() // which the decoder around does not pass on
		if err := d.Decode(&list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}
