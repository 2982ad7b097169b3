package domain

import (
	"errors"
	"fmt"
)

// Code names a refusal. The texts are the contract of protocol.md section 7 and never change.
type Code string

// The catalogue. Each code's numbers and statuses are in [Code.Info].
const (
	InvalidRequest        Code = "invalid-request"
	UnknownCommand        Code = "unknown-command"
	NotAuthenticated      Code = "not-authenticated"
	ConversationNotFound  Code = "conversation-not-found"
	MessageNotFound       Code = "message-not-found"
	MessageRemoved        Code = "message-removed"
	AccessDenied          Code = "access-denied"
	AlreadyParticipant    Code = "already-participant"
	JoinNotAvailable      Code = "join-not-available"
	ConversationRemoved   Code = "conversation-removed"
	NotParticipant        Code = "not-participant"
	CountOutOfRange       Code = "count-out-of-range"
	MessageTooLarge       Code = "message-too-large"
	SequenceOutOfRange    Code = "sequence-out-of-range"
	UserNotFound          Code = "user-not-found"
	UnknownPushEvent      Code = "unknown-push-event"
	FromAfterTo           Code = "from-after-to"
	Unavailable           Code = "unavailable"
	RateLimited           Code = "rate-limited"
	DirectNotPublicOrUber Code = "direct-not-public-or-uber"
	DirectNeedsTwo        Code = "direct-needs-two"
	TooManyRangeArguments Code = "too-many-range-arguments"
	DirectNoAdd           Code = "direct-no-add"
	DirectNoRemove        Code = "direct-no-remove"
	DirectNoJoin          Code = "direct-no-join"
	DirectNoLeave         Code = "direct-no-leave"
	TooFewRangeArguments  Code = "too-few-range-arguments"
	DistinctConflict      Code = "distinct-conflict"
	Internal              Code = "internal"

	// The following are Parley's own, beyond the page's table: the administration over HTTP needs them.

	// SessionConflict refuses the login of a device that reconnects while another holds its tag.
	SessionConflict Code = "session-conflict"
	// AlreadyExists refuses to create a user, service or account whose name is taken.
	AlreadyExists Code = "already-exists"
	// NotFound answers for an account, application or service that is not there.
	NotFound Code = "not-found"
	// InUse refuses to delete an account or application that still has something in it.
	InUse Code = "in-use"
	// AlreadySent refuses to cancel what is sent, or being sent.
	AlreadySent Code = "already-sent"
)

// Info is what the outside sees of a code: the number of the systems that clients come from, the HTTP status and
// the MQTT 5 reason code.
type Info struct {
	Number int
	Status int
	Reason byte
}

// Codes lists the whole catalogue in the order of protocol.md section 7.
func Codes() []Code {
	return []Code{
		InvalidRequest, UnknownCommand, NotAuthenticated, ConversationNotFound, MessageNotFound, MessageRemoved,
		AccessDenied, AlreadyParticipant, JoinNotAvailable, ConversationRemoved, NotParticipant, CountOutOfRange,
		MessageTooLarge, SequenceOutOfRange, UserNotFound, UnknownPushEvent, FromAfterTo, Unavailable, RateLimited,
		DirectNotPublicOrUber, DirectNeedsTwo, TooManyRangeArguments, DirectNoAdd, DirectNoRemove, DirectNoJoin,
		DirectNoLeave, TooFewRangeArguments, DistinctConflict, SessionConflict, AlreadyExists, NotFound, InUse, AlreadySent, Internal,
	}
}

// Info gives a code's numbers. A code outside the catalogue counts as internal.
func (c Code) Info() Info {
	switch c {
	case InvalidRequest:
		return Info{1, 400, 0x99}
	case UnknownCommand:
		return Info{2, 404, 0x90}
	case NotAuthenticated:
		return Info{3, 401, 0x87}
	case ConversationNotFound:
		return Info{8, 404, 0x83}
	case MessageNotFound:
		return Info{10, 404, 0x83}
	case MessageRemoved:
		return Info{11, 410, 0x83}
	case AccessDenied:
		return Info{12, 403, 0x87}
	case AlreadyParticipant:
		return Info{13, 409, 0x83}
	case JoinNotAvailable:
		return Info{15, 403, 0x87}
	case ConversationRemoved:
		return Info{16, 410, 0x83}
	case NotParticipant:
		return Info{19, 409, 0x83}
	case CountOutOfRange: // 22 where the count is too large, see errCount
		return Info{21, 422, 0x99}
	case MessageTooLarge:
		return Info{23, 413, 0x95}
	case SequenceOutOfRange:
		return Info{24, 422, 0x99}
	case UserNotFound:
		return Info{25, 404, 0x83}
	case UnknownPushEvent:
		return Info{26, 422, 0x99}
	case FromAfterTo:
		return Info{28, 422, 0x99}
	case Unavailable:
		return Info{30, 503, 0x88}
	case RateLimited:
		return Info{32, 429, 0x97}
	case DirectNotPublicOrUber:
		return Info{34, 422, 0x99}
	case DirectNeedsTwo:
		return Info{35, 422, 0x99}
	case TooManyRangeArguments:
		return Info{36, 422, 0x99}
	case DirectNoAdd:
		return Info{37, 422, 0x83}
	case DirectNoRemove:
		return Info{38, 422, 0x83}
	case DirectNoJoin:
		return Info{39, 422, 0x83}
	case DirectNoLeave:
		return Info{40, 422, 0x83}
	case TooFewRangeArguments:
		return Info{41, 422, 0x99}
	case DistinctConflict:
		return Info{108, 409, 0x83}
	case SessionConflict:
		return Info{111, 409, 0x8e}
	case AlreadyExists:
		return Info{109, 409, 0x83}
	case NotFound:
		return Info{110, 404, 0x83}
	case InUse:
		return Info{112, 409, 0x83}
	case AlreadySent:
		return Info{113, 409, 0x83}
	case Internal:
		return Info{500, 500, 0x80}
	}
	return Info{500, 500, 0x80}
}

// Error is a refusal, in the form that every transport shows (protocol.md section 7).
type Error struct {
	Code   Code   `json:"code" doc:"Name of the refusal; stable, made for programs."`
	Number int    `json:"number" doc:"Number of the refusal in the systems that clients come from."`
	Detail string `json:"detail,omitempty" doc:"What was wrong, for people."`
	Status int    `json:"status" doc:"HTTP status of the refusal."`
	// Conversation is the existing conversation of a distinct-conflict.
	Conversation *Conversation `json:"conversation,omitempty" doc:"The existing conversation, with distinct-conflict."`

	cause error
}

// Errorf makes a refusal with a detail for people. The detail reaches clients, so it never carries what they may
// not know.
func Errorf(code Code, format string, args ...any) *Error {
	info := code.Info()
	return &Error{Code: code, Number: info.Number, Status: info.Status, Detail: fmt.Sprintf(format, args...)}
}

// Because makes a refusal that remembers its cause for the log; clients see only the code and the detail.
func Because(code Code, cause error, detail string) *Error {
	e := Errorf(code, "%s", detail)
	e.cause = cause
	return e
}

// Error implements error. It is for logs: it includes the cause.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.cause != nil {
		s += " (" + e.cause.Error() + ")"
	}
	return s
}

// Unwrap gives the cause, if any.
func (e *Error) Unwrap() error { return e.cause }

// AsError gives err's refusal. Anything that is not one becomes internal, and its text stays out of the client's
// sight. AsError(nil) is nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Because(Internal, err, "something went wrong inside Parley")
}

// CodeOf gives err's code: "" for nil, internal for what is not a refusal.
func CodeOf(err error) Code {
	if e := AsError(err); e != nil {
		return e.Code
	}
	return ""
}
