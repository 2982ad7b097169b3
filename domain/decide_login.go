package domain

// LoginStep says what a command wants done with the caller's logins. It is not carried out by the store's committers but by
// whoever keeps the logins: tokens need randomness and keys, which rules do not have.
type LoginStep int

const (
	// NoStep: nothing; what every command but those of this file wants.
	NoStep LoginStep = iota
	// IssueStep starts another login and gives its tokens.
	IssueStep
	// RevokeStep ends every login, and the sessions that were opened with tokens.
	RevokeStep
)

// IssueTokens starts another login of the caller, without its password: for a client that logged in by password over
// MQTT and does not want to keep it.
type IssueTokens struct {
	Meta
}

// Name implements [Command].
func (*IssueTokens) Name() string { return "issueTokens" }

// Kind implements [Command].
func (*IssueTokens) Kind() Kind { return Logins }

// Needs implements [Command].
func (*IssueTokens) Needs(Principal) Needs { return Needs{} }

func (*IssueTokens) check(Limits) error { return nil }

func (*IssueTokens) decide(_ *Heads, p Principal) (Decision, error) {
	switch {
	case !p.IsUser():
		return Decision{}, Errorf(AccessDenied, "a service issues tokens of users over HTTP, and has none itself")
	case p.External:
		// Its issuer says how long it is believed: tokens of ours would outlive that.
		return Decision{}, Errorf(AccessDenied, "who logs in by a token of another issuer gets its tokens there")
	}
	return Decision{Login: IssueStep}, nil
}

// RevokeTokens ends every login of the caller: its tokens are worthless from then on, and the sessions that were opened
// with them end, this one included.
type RevokeTokens struct {
	Meta
}

// Name implements [Command].
func (*RevokeTokens) Name() string { return "revokeTokens" }

// Kind implements [Command].
func (*RevokeTokens) Kind() Kind { return Logins }

// Needs implements [Command].
func (*RevokeTokens) Needs(Principal) Needs { return Needs{} }

func (*RevokeTokens) check(Limits) error { return nil }

func (*RevokeTokens) decide(_ *Heads, p Principal) (Decision, error) {
	if !p.IsUser() {
		return Decision{}, Errorf(AccessDenied, "a service revokes tokens of users over HTTP, and has none itself")
	}
	return Decision{Login: RevokeStep}, nil
}
