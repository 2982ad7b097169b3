package domain

import (
	"encoding/json"
	"slices"
)

// Named is a user in a list: its number, or its full name as a text.
type Named struct {
	Ref UserRef `json:"-"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *Named) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		return json.Unmarshal(b, &n.Ref.Username)
	}
	return json.Unmarshal(b, &n.Ref.UserID)
}

// MarshalJSON implements json.Marshaler.
func (n Named) MarshalJSON() ([]byte, error) {
	if n.Ref.Username != "" {
		return json.Marshal(n.Ref.Username)
	}
	return json.Marshal(n.Ref.UserID)
}

// UserList is the parameter of [Subscribe] and [Unsubscribe].
type UserList struct {
	Users List[Named] `json:"users" doc:"Numbers of users, or their full names; at most 50."`
}

func (l *UserList) refs() []UserRef {
	refs := make([]UserRef, len(l.Users))
	for i, n := range l.Users {
		refs[i] = n.Ref
	}
	return refs
}

func (l *UserList) check(Limits) error {
	if len(l.Users) == 0 || len(l.Users) > maxUsers {
		return Errorf(InvalidRequest, "users: name 1 to %d", maxUsers)
	}
	for _, n := range l.Users {
		if err := n.Ref.Check(); err != nil {
			return err
		}
	}
	return nil
}

// named gives the users that the list names, each once.
func (l *UserList) named(h *Heads, p Principal) ([]User, error) {
	users := make([]User, 0, len(l.Users))
	for _, n := range l.Users {
		u, err := h.find(n.Ref, p)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(users, func(o User) bool { return o.ID == u.ID }) {
			users = append(users, u)
		}
	}
	return users, nil
}

// brief leaves out what may be large: a list of many users must fit into a packet.
func brief(users []User) []User {
	list := make([]User, len(users))
	for i := range users {
		list[i] = *users[i].Public()
		list[i].CustomData = nil
	}
	return list
}

// watching makes the decision that changes whom p watches; users are those that the command was about.
func (h *Heads) watching(p Principal, w *Watch, told EventType, users []User) Decision {
	users = brief(users)
	return Decision{
		Watch: w, Result: Result{Users: users},
		Notices: []Told{{
			Notice: Notice{Type: told, Time: h.Now, Users: users}, To: []UserID{p.User}, OthersOnly: true,
		}},
	}
}

func ids(users []User) []UserID {
	list := make([]UserID, len(users))
	for i := range users {
		list[i] = users[i].ID
	}
	return list
}

// Subscribe lets the caller's inbox tell of changes of users: of their presence and of their records. They are not told.
type Subscribe struct {
	UserList
	Meta
}

// Name implements [Command].
func (*Subscribe) Name() string { return "subscribe" }

// Kind implements [Command].
func (*Subscribe) Kind() Kind { return Change }

// Needs implements [Command].
func (c *Subscribe) Needs(Principal) Needs { return Needs{Self: true, Watched: true, Users: c.refs()} }

func (c *Subscribe) decide(h *Heads, p Principal) (Decision, error) {
	if _, err := h.self(p); err != nil {
		return Decision{}, err
	}
	users, err := c.named(h, p)
	if err != nil {
		return Decision{}, err
	}
	w := &Watch{User: p.User}
	for _, u := range users {
		if !slices.ContainsFunc(h.Watched, func(o User) bool { return o.ID == u.ID }) {
			w.Add = append(w.Add, u.ID)
		}
	}
	if most := h.Limits.Watched; len(w.Add) > 0 && len(h.Watched)+len(w.Add) > most {
		return Decision{}, Errorf(InvalidRequest, "a user subscribes to at most %d others, and has %d", most, len(h.Watched))
	}
	return h.watching(p, w, NoticeSubscribe, users), nil
}

// Unsubscribe ends what Subscribe began, for some users. Those that the caller had not subscribed to are no error.
type Unsubscribe struct {
	UserList
	Meta
}

// Name implements [Command].
func (*Unsubscribe) Name() string { return "unsubscribe" }

// Kind implements [Command].
func (*Unsubscribe) Kind() Kind { return Change }

// Needs implements [Command].
func (c *Unsubscribe) Needs(Principal) Needs { return Needs{Self: true, Users: c.refs()} }

func (c *Unsubscribe) decide(h *Heads, p Principal) (Decision, error) {
	if _, err := h.self(p); err != nil {
		return Decision{}, err
	}
	users, err := c.named(h, p)
	if err != nil {
		return Decision{}, err
	}
	return h.watching(p, &Watch{User: p.User, Remove: ids(users)}, NoticeUnsubscribe, users), nil
}

// UnsubscribeFromAll ends what Subscribe began, for all users.
type UnsubscribeFromAll struct {
	Meta
}

// Name implements [Command].
func (*UnsubscribeFromAll) Name() string { return "unsubscribeFromAll" }

// Kind implements [Command].
func (*UnsubscribeFromAll) Kind() Kind { return Change }

// Needs implements [Command].
func (*UnsubscribeFromAll) Needs(Principal) Needs { return Needs{Self: true, Watched: true} }

func (*UnsubscribeFromAll) check(Limits) error { return nil }

func (*UnsubscribeFromAll) decide(h *Heads, p Principal) (Decision, error) {
	if _, err := h.self(p); err != nil {
		return Decision{}, err
	}
	return h.watching(p, &Watch{User: p.User, Remove: ids(h.Watched)}, NoticeUnsubscribe, h.Watched), nil
}

// GetSubscriptions asks for the users that the caller has subscribed to.
type GetSubscriptions struct {
	Meta
}

// Name implements [Command].
func (*GetSubscriptions) Name() string { return "getSubscriptions" }

// Kind implements [Command].
func (*GetSubscriptions) Kind() Kind { return Read }

// Needs implements [Command].
func (*GetSubscriptions) Needs(Principal) Needs { return Needs{Watched: true} }

func (*GetSubscriptions) check(Limits) error { return nil }

func (*GetSubscriptions) decide(h *Heads, p Principal) (Decision, error) {
	if !p.IsUser() {
		return Decision{}, Errorf(AccessDenied, "only a user may do that, for itself")
	}
	return Decision{Result: Result{Users: brief(h.Watched)}}, nil
}
