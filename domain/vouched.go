package domain

import "time"

// This file holds the words of identities that others vouch for.

// Vouched is what a token of another issuer says, verified.
type Vouched struct {
	Username    Username
	DisplayName string // for a user that is made
	Issued      int64  // milliseconds since 1970; 1: it does not say
	Expires     time.Time
	// Create: the user is to be made if it is not there.
	Create bool
}

// Attempt is a login by password, as a login service is asked about it.
type Attempt struct {
	Username, Password string
	// Device is the client id and Address that of the peer; empty over HTTP.
	Device, Address string
	// Protocol is mqtt or http.
	Protocol string
}

// Verdict is what a login service says about an attempt. The zero value lets nobody in.
type Verdict int

const (
	// Denied: the login is refused.
	Denied Verdict = iota
	// Allowed: it is who it says.
	Allowed
	// Ignored: the service does not know the user; its password in the store decides.
	Ignored
)

// String gives the verdict as it is on the wire.
func (v Verdict) String() string {
	switch v {
	case Allowed:
		return "allow"
	case Ignored:
		return "ignore"
	case Denied:
	}
	return "deny"
}

// Answer is what a login service answers.
type Answer struct {
	Result Verdict
	// DisplayName is for a user that is made; Create: it is to be made if it is not there.
	DisplayName string
	Create      bool
}
