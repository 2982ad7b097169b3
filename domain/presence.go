package domain

// State is what a user says about being there.
type State string

// The states of protocol.md section 6. Invisible is offline to everybody else; Offline cannot be chosen, it is the state
// of those who are not connected or have chosen none since they were.
const (
	Available State = "available"
	Away      State = "away"
	Busy      State = "busy"
	Invisible State = "invisible"
	Offline   State = "offline"
)

// Online reports whether others see a user in the state as being there.
func (s State) Online() bool { return s == Available || s == Away || s == Busy }

// Status is the presence of a user.
type Status struct {
	UserID UserID `json:"userId"`
	State  State  `json:"state" enum:"available,away,busy,invisible,offline"`
	Online bool   `json:"online" doc:"Whether the user is there: available, away or busy."`
	// LastSeen is, of a user who is online, when it last said so. 0: never.
	LastSeen int64 `json:"lastSeen,omitempty" doc:"When the user was last known to be there; milliseconds since 1970."`
}

// SetStatus says whether the caller is there. It holds until the next one, or until the last device of the user has been
// gone for the grace time.
type SetStatus struct {
	Online *bool  `json:"online,omitempty" doc:"true: available; false: invisible. Or state."`
	State  *State `json:"state,omitempty" enum:"available,away,busy,invisible" doc:"Or online."`
	Meta
}

// Name implements [Command].
func (*SetStatus) Name() string { return "setStatus" }

// Kind implements [Command].
func (*SetStatus) Kind() Kind { return Immediate }

// Needs implements [Command].
func (*SetStatus) Needs(Principal) Needs { return Needs{} }

func (c *SetStatus) check(Limits) error {
	if (c.Online == nil) == (c.State == nil) {
		return Errorf(InvalidRequest, "give exactly one of online and state")
	}
	if c.State != nil && !c.State.Online() && *c.State != Invisible {
		return Errorf(InvalidRequest, "state is available, away, busy or invisible")
	}
	return nil
}

func (c *SetStatus) decide(h *Heads, p Principal) (Decision, error) {
	if !p.IsUser() {
		return Decision{}, Errorf(AccessDenied, "only a user may do that, for itself")
	}
	s := Status{UserID: p.User, State: Invisible, LastSeen: h.Now}
	switch {
	case c.State != nil:
		s.State = *c.State
	case *c.Online:
		s.State = Available
	}
	s.Online = s.State.Online()
	return Decision{Status: &s, Result: Result{Status: &s}}, nil
}
