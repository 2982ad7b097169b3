package domain

// Needs says what a decision looks at: the gateway reads it, or locks it for a [Change].
type Needs struct {
	// Conversation is the one conversation that the command is about; a Change locks its head.
	Conversation ConversationID
	// Conversations are further conversations to read; never locked.
	Conversations []ConversationID
	// Users are users of the directory to look up, within what the principal may see.
	Users []UserRef
	// Alone leaves out all participants of the conversations above but the principal: what is decided on them must not
	// change the conversation.
	Alone bool
	// Past asks for the membership intervals of the principal (a user) in the conversations above.
	Past bool
	// Self asks for the principal's own record with its private part. A Change that names no Conversation and asks for
	// it is about the principal alone: the store locks the record, and the gateway keeps the order of a user's changes.
	Self bool
	// Watched asks for the users that the principal has subscribed to.
	Watched bool
	// Message asks for the sendMessage event of this number in Conversation; 0: none.
	Message Seq
	// Recipients asks for those who took part in Conversation when Message was sent.
	Recipients bool
	// Unread asks for what the principal has not read; nil: nothing.
	Unread *UnreadQuery
	// List asks for a page of conversations; nil: none.
	List *ConversationQuery
	// External is external content to look up.
	External []ContentID
	// Settings asks for what the account of the principal (a user) lets it do.
	Settings bool
	// Announcements asks for a page of the principal's announcements; nil: none.
	Announcements *AnnouncementQuery
	// Announcement asks for one announcement with its recipients, expired or removed ones included; zero: none.
	Announcement AnnouncementID
}

// Heads is the state that a decision may look at, and what purity forbids it to make itself.
type Heads struct {
	// Now is the time of the decision, in milliseconds since 1970; NewID an identifier nobody has used.
	Now    int64
	NewID  ConversationID
	Limits Limits

	// Conversation is nil when there is none of that id.
	Conversation *Conversation
	// Conversations are those of Needs.Conversations that exist, in no order.
	Conversations []*Conversation
	// Past holds, per conversation, the intervals of the principal's membership in ascending order.
	Past map[ConversationID][]Interval
	// Users are those of Needs.Users that exist, in no order, deleted ones included.
	Users []User
	// Self is the principal's own record.
	Self *User
	// Watched are the users that the principal has subscribed to, in the order of their numbers, deleted ones included.
	Watched []User
	// Message is the sendMessage event asked for; nil: there is none.
	Message *Event
	// Recipients are those who took part when Message was sent, in the order of their numbers.
	Recipients []Recipient
	// Unread is what the principal has not read, the conversations with the newest messages first.
	Unread []Unread
	// Listed are the conversations of Needs.List, in its order. Where whole ones are asked for they are in Conversations.
	Listed []ConversationID
	// External is the external content of Needs.External that exists, in no order. Again is set where the message to be
	// sent is known to be stored already.
	External []ExternalContent
	Again    bool
	// Settings are those in effect for the principal's account.
	Settings AccountSettings
	// Announcements are those of Needs.Announcements, the newest first; some may have expired.
	Announcements []Announcement
	// Announcement is that of Needs.Announcement; nil: there is none.
	Announcement *Announcement
	// Existing is the conversation that holds the unique key which an earlier run of this decision wanted: the
	// store found it taken and runs the decision again.
	Existing *Conversation
}

// Decision is what a command leads to. Nothing of it has happened yet.
type Decision struct {
	// Events are appended to the log of the conversation. Those of a Change carry their numbers.
	Events []*Event
	// Conversation is the state after the events; nil: unchanged. Its Version is the new one.
	Conversation *Conversation
	// Message is a sendMessage event of the log as it shall read from now on; nil: none is rewritten.
	Message *Event
	// Self is the principal's own record as it shall read: custom data, private custom data and notifications are
	// written, the rest is not. nil: unchanged. Needs.Self must have been asked for.
	Self *User
	// Watch changes whom a user has subscribed to; nil: nothing does. Needs.Self must have been asked for.
	Watch *Watch
	// Status is the principal's presence from now on, as its own devices see it; nil: unchanged. It is of an Immediate.
	Status *Status
	// Notices are sent to inboxes after the commit, before the command is answered.
	Notices []Told
	// Read is how far the principal has read from now on; nil: as before.
	Read *Mark
	// Signals are told to those who follow the conversation's signals, after everything else is committed.
	Signals []*Signal
	// Mute is whether a participant wants pushes; nil: that stays as it is.
	Mute *Mute
	// Announcement is stored for its recipients; nil: nothing is announced. Where the store finds one of the same sender and
	// client id it stores nothing, puts that into the Result as a duplicate, and takes the Notices away.
	Announcement *Announcement
	// AnnouncementsRead marks announcements as read by the principal; nil: none.
	AnnouncementsRead *AnnouncementMark
	// AnnouncementRemoved is one as it shall read for whoever made it; for its recipients it is gone. nil: none is.
	AnnouncementRemoved *Announcement
	// Page is a stretch of the log that the result shall show; nil: none.
	Page *Page
	// Will is the will of the caller's session from now on, one without a topic: none; nil: as before. Only commands of the
	// kind [Willing] want anything.
	Will *Will
	// Login is what shall be done with the caller's logins; only commands of the kind [Logins] want anything.
	Login LoginStep
	// Result is what the caller gets.
	Result Result
}

// Mute says whether a participant wants no pushes about a conversation.
type Mute struct {
	Conversation ConversationID
	User         UserID
	Muted        bool
}

// Page is a stretch of a conversation's log, From and To included.
type Page struct {
	Conversation ConversationID
	From, To     Seq
	// Only, if not nil, are the intervals whose events may be shown.
	Only []Interval
}

// Shows reports whether the page may show the event of the number.
func (p Page) Shows(seq Seq) bool {
	if seq < p.From || seq > p.To {
		return false
	}
	if p.Only == nil {
		return true
	}
	for _, i := range p.Only {
		if seq >= i.From && (i.To == 0 || seq <= i.To) {
			return true
		}
	}
	return false
}

// Result is what a command answers; which fields are set is the command's matter (protocol.md section 6).
type Result struct {
	User          *User           `json:"user,omitempty"`
	Users         []User          `json:"users,omitzero"`
	Status        *Status         `json:"status,omitempty"`
	Conversation  *Conversation   `json:"conversation,omitempty"`
	Existing      *bool           `json:"existing,omitempty"`
	Conversations []*Conversation `json:"conversations,omitzero"`
	// UUIDs are a page of conversations.
	UUIDs []ConversationID `json:"uuids,omitzero"`
	// NextCursor asks for the page after this one; empty: there is none.
	NextCursor string   `json:"nextCursor,omitempty"`
	Message    *Message `json:"message,omitempty"`
	// Duplicate: the message is the first acceptance of one that was sent again.
	Duplicate bool             `json:"duplicate,omitempty" doc:"The message had been accepted before, and is given as it was then."`
	Events    []*Event         `json:"events,omitzero"`
	From      Seq              `json:"from,omitempty"`
	To        Seq              `json:"to,omitempty"`
	Unread    []Unread         `json:"unread,omitzero"`
	External  *ExternalContent `json:"content,omitempty"`
	// Announcement is the one made, Announcements are a page of one's own.
	Announcement  *Announcement  `json:"announcement,omitempty"`
	Announcements []Announcement `json:"announcements,omitzero"`
	*Receipts
	*Tokens
}

// Decide applies the rules of Parley to a command: it either gives what shall happen, or an *Error that says why
// nothing does. It is pure: the same arguments give the same answer, and it changes none of them.
func Decide(h *Heads, p Principal, c Command) (Decision, error) {
	if !p.IsUser() && !p.IsBackend() {
		return Decision{}, Errorf(NotAuthenticated, "log in first")
	}
	if err := Check(c, h.Limits); err != nil {
		return Decision{}, err
	}
	return c.decide(h, p)
}

// visible gives the conversation of a command, or the refusal where p may not know of it or it is gone.
func (h *Heads) visible(p Principal) (*Conversation, error) {
	c := h.Conversation
	if c == nil || !p.Sees(c.Root) {
		return nil, Errorf(ConversationNotFound, "no such conversation")
	}
	return c, nil
}

// live is visible for what changes something: a removed conversation refuses.
func (h *Heads) live(p Principal) (*Conversation, error) {
	c, err := h.visible(p)
	if err != nil {
		return nil, err
	}
	if c.Removed {
		return nil, Errorf(ConversationRemoved, "the conversation was removed")
	}
	return c, nil
}

// rights gives what p may do in c. A backend has every right.
func rights(c *Conversation, p Principal) (Permissions, bool) {
	if p.IsBackend() {
		return EveryPermission(), true
	}
	part, ok := c.Participant(p.User)
	if !ok {
		return Permissions{}, false
	}
	return part.Permissions.effective(), true
}

// event starts an event of the command.
func (h *Heads) event(t EventType, p Principal, c Command) *Event {
	return &Event{
		Type: t, Time: h.Now, Initiator: p.Initiator(), Action: c.Name(), RequestID: c.Common().RequestID,
		Sender: p.Sender(),
	}
}

// find gives the user that a reference names, if p may know of it.
func (h *Heads) find(r UserRef, p Principal) (User, error) {
	for i := range h.Users {
		if r.Is(h.Users[i]) && p.Sees(h.Users[i].Root) {
			u := h.Users[i]
			u.Own = nil // what only the user itself may see comes from Heads.Self alone
			return u, nil
		}
	}
	if r.Username != "" {
		return User{}, Errorf(UserNotFound, "no user %q", clip(string(r.Username)))
	}
	return User{}, Errorf(UserNotFound, "no user %d", r.UserID)
}
