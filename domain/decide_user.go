package domain

// The most users and conversations of one request (protocol.md section 6).
const (
	maxUsers         = 50
	maxConversations = 30
)

// GetMe asks for the caller's own record.
type GetMe struct {
	Meta
}

// Name implements [Command].
func (*GetMe) Name() string { return "getMe" }

// Kind implements [Command].
func (*GetMe) Kind() Kind { return Read }

// Needs implements [Command].
func (*GetMe) Needs(Principal) Needs { return Needs{Self: true} }

func (*GetMe) check(Limits) error { return nil }

func (*GetMe) decide(h *Heads, p Principal) (Decision, error) {
	if h.Self == nil || !p.IsUser() {
		return Decision{}, Errorf(UserNotFound, "only a user has a record of its own")
	}
	return Decision{Result: Result{User: h.Self.shown()}}, nil
}

// GetUser asks for one user of the account tree.
type GetUser struct {
	UserRef
	Meta
}

// Name implements [Command].
func (*GetUser) Name() string { return "getUser" }

// Kind implements [Command].
func (*GetUser) Kind() Kind { return Read }

// Needs implements [Command].
func (c *GetUser) Needs(Principal) Needs { return Needs{Users: []UserRef{c.UserRef}} }

func (c *GetUser) check(Limits) error { return c.Check() }

func (c *GetUser) decide(h *Heads, p Principal) (Decision, error) {
	u, err := h.find(c.UserRef, p)
	if err != nil {
		return Decision{}, err
	}
	return Decision{Result: Result{User: &u}}, nil
}

// GetUsers asks for up to 50 users of the account tree, all by name or all by number.
type GetUsers struct {
	Usernames List[Username] `json:"username,omitempty"`
	UserIDs   List[UserID]   `json:"userId,omitempty"`
	// The plural spellings mean the same.
	UsernamesToo List[Username] `json:"usernames,omitempty"`
	UserIDsToo   List[UserID]   `json:"userIds,omitempty"`
	Meta
}

// Name implements [Command].
func (*GetUsers) Name() string { return "getUsers" }

// Kind implements [Command].
func (*GetUsers) Kind() Kind { return Read }

// Needs implements [Command].
func (c *GetUsers) Needs(Principal) Needs { return Needs{Users: c.refs()} }

func (c *GetUsers) refs() []UserRef {
	var refs []UserRef
	for _, names := range [...]List[Username]{c.Usernames, c.UsernamesToo} {
		for _, n := range names {
			refs = append(refs, UserRef{Username: n})
		}
	}
	for _, ids := range [...]List[UserID]{c.UserIDs, c.UserIDsToo} {
		for _, id := range ids {
			refs = append(refs, UserRef{UserID: id})
		}
	}
	return refs
}

func (c *GetUsers) check(Limits) error {
	refs := c.refs()
	if len(refs) == 0 || len(refs) > maxUsers {
		return Errorf(InvalidRequest, "ask for 1 to %d users", maxUsers)
	}
	for _, r := range refs {
		if err := r.Check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *GetUsers) decide(h *Heads, p Principal) (Decision, error) {
	users := []User{}
	seen := make(map[UserID]bool)
	for _, r := range c.refs() {
		u, err := h.find(r, p)
		if err != nil {
			return Decision{}, err
		}
		if !seen[u.ID] {
			seen[u.ID] = true
			users = append(users, u)
		}
	}
	return Decision{Result: Result{Users: users}}, nil
}
