package domain

import "slices"

// MaxUserData is the most bytes of a user's customData, and of its privateCustomData.
const MaxUserData = 64 << 10

// self gives the caller's own record for what changes it.
func (h *Heads) self(p Principal) (*User, error) {
	switch {
	case !p.IsUser():
		return nil, Errorf(AccessDenied, "only a user may do that, for itself")
	case h.Self == nil || h.Self.Deleted:
		return nil, Errorf(NotAuthenticated, "the user was deleted")
	}
	return h.Self.clone(), nil
}

// clone copies u so far that a decision may change the copy.
func (u User) clone() *User {
	own := Own{}
	if u.Own != nil {
		own = *u.Own
	}
	u.Own = &own
	return &u
}

// shown gives the caller's own record as an answer: clients walk through lists without asking first, so an empty one is
// [] and not null.
func (u User) shown() *User {
	s := u.clone()
	s.ConversationsList = append([]ConversationID{}, s.ConversationsList...)
	s.LeaveConversationList = append([]ConversationID{}, s.LeaveConversationList...)
	s.Notifications = append([]string{}, s.Notifications...)
	return s
}

// Public gives what others see of u.
func (u User) Public() *User {
	u.Own = nil
	return &u
}

// ToldOwn gives the notice by which a user's own devices learn what its record, as [Heads.Self] has it, has become. The
// lists of conversations, which may be long, are left to getMe.
func (u User) ToldOwn(now int64) Told {
	s := u.shown()
	s.ConversationsList, s.LeaveConversationList = nil, nil
	return Told{Notice: Notice{Type: NoticeEditUser, Time: now, User: s}, To: []UserID{u.ID}}
}

// ToldWatchers gives the notice by which those who subscribed to the user learn the same.
func (u User) ToldWatchers(now int64) Told {
	return Told{Notice: Notice{Type: NoticeEditUser, Time: now, User: u.Public()}, Watchers: u.ID}
}

// EditUser changes the caller's own data. What is absent or null stays, {} clears.
type EditUser struct {
	CustomData        *RawObject `json:"customData,omitempty" doc:"Replaces the whole; {} clears it."`
	PrivateCustomData *RawObject `json:"privateCustomData,omitempty" doc:"For the user alone. Replaces the whole; {} clears it."`
	Meta
}

// Name implements [Command].
func (*EditUser) Name() string { return "editUser" }

// Kind implements [Command].
func (*EditUser) Kind() Kind { return Change }

// Needs implements [Command].
func (*EditUser) Needs(Principal) Needs { return Needs{Self: true} }

func (c *EditUser) check(Limits) error {
	if c.CustomData != nil && len(*c.CustomData) > MaxUserData {
		return Errorf(InvalidRequest, "customData is larger than %d bytes", MaxUserData)
	}
	if c.PrivateCustomData != nil && len(*c.PrivateCustomData) > MaxUserData {
		return Errorf(InvalidRequest, "privateCustomData is larger than %d bytes", MaxUserData)
	}
	return nil
}

func (c *EditUser) decide(h *Heads, p Principal) (Decision, error) {
	u, err := h.self(p)
	if err != nil {
		return Decision{}, err
	}
	if c.CustomData == nil && c.PrivateCustomData == nil {
		return Decision{Result: Result{User: u.shown()}}, nil
	}
	if c.CustomData != nil {
		u.CustomData = c.CustomData.OrNone()
	}
	if c.PrivateCustomData != nil {
		u.PrivateCustomData = c.PrivateCustomData.OrNone()
	}
	// Also when nothing differs: it may be the repetition of a command whose outcome was unknown.
	d := Decision{Self: u, Result: Result{User: u.shown()}, Notices: []Told{u.ToldOwn(h.Now)}}
	if c.CustomData != nil {
		d.Notices = append(d.Notices, u.ToldWatchers(h.Now))
	}
	return d, nil
}

// ManagePushNotifications replaces the list of events that the caller wants to be pushed.
type ManagePushNotifications struct {
	Events []EventType `json:"events" doc:"Any of sendMessage, editMessage, createConversation; [] for none."`
	Meta
}

// Name implements [Command].
func (*ManagePushNotifications) Name() string { return "managePushNotifications" }

// Kind implements [Command].
func (*ManagePushNotifications) Kind() Kind { return Change }

// Needs implements [Command].
func (*ManagePushNotifications) Needs(Principal) Needs { return Needs{Self: true} }

func (c *ManagePushNotifications) check(Limits) error {
	if c.Events == nil {
		return Errorf(InvalidRequest, "events are missing; [] for none")
	}
	for _, e := range c.Events {
		switch e {
		case EventSendMessage, EventEditMessage, EventCreateConversation:
		default:
			return Errorf(UnknownPushEvent, "%q cannot be pushed", clip(string(e)))
		}
	}
	return nil
}

func (c *ManagePushNotifications) decide(h *Heads, p Principal) (Decision, error) {
	u, err := h.self(p)
	if err != nil {
		return Decision{}, err
	}
	u.Notifications = []string{}
	for _, e := range c.Events {
		if !slices.Contains(u.Notifications, string(e)) {
			u.Notifications = append(u.Notifications, string(e))
		}
	}
	return Decision{Self: u, Result: Result{User: u.shown()}, Notices: []Told{u.ToldOwn(h.Now)}}, nil
}
