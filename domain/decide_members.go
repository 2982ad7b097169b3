package domain

import "slices"

// JoinConversation lets the caller take part in a public conversation of its account tree.
type JoinConversation struct {
	UUID ConversationID `json:"uuid"`
	Meta
}

// Name implements [Command].
func (*JoinConversation) Name() string { return "joinConversation" }

// Kind implements [Command].
func (*JoinConversation) Kind() Kind { return Change }

// Needs implements [Command].
func (c *JoinConversation) Needs(p Principal) Needs {
	return Needs{Conversation: c.UUID, Users: []UserRef{{UserID: p.User}}}
}

func (c *JoinConversation) check(Limits) error { return errNoUUID(c.UUID) }

func (c *JoinConversation) decide(h *Heads, p Principal) (Decision, error) {
	old, err := h.live(p)
	if err != nil {
		return Decision{}, err
	}
	_, in := old.Participant(p.User)
	switch {
	case !p.IsUser():
		return Decision{}, Errorf(AccessDenied, "only a user joins a conversation")
	case old.Direct:
		return Decision{}, Errorf(DirectNoJoin, "nobody joins a direct conversation")
	case in:
		return Decision{}, Errorf(AlreadyParticipant, "you take part already")
	case !old.PublicJoin:
		return Decision{}, Errorf(JoinNotAvailable, "the conversation is not open for joining")
	case len(old.Participants) >= h.Limits.Participants:
		return Decision{}, Errorf(InvalidRequest, "more than %d participants", h.Limits.Participants)
	}
	u, err := h.find(UserRef{UserID: p.User}, p)
	if err != nil || u.Deleted {
		return Decision{}, Errorf(NotAuthenticated, "the user no longer exists")
	}
	me := Participant{UserID: u.ID, Username: u.Username, Permissions: old.Permissions, JoinedSeq: old.LastSeq + 1}
	conv := old.clone()
	conv.Participants = append(conv.Participants, me)
	return h.membership(conv, p, c, []Participant{me}), nil
}

// LeaveConversation ends the caller's part in a conversation.
type LeaveConversation struct {
	UUID ConversationID `json:"uuid"`
	Meta
}

// Name implements [Command].
func (*LeaveConversation) Name() string { return "leaveConversation" }

// Kind implements [Command].
func (*LeaveConversation) Kind() Kind { return Change }

// Needs implements [Command].
func (c *LeaveConversation) Needs(Principal) Needs { return Needs{Conversation: c.UUID} }

func (c *LeaveConversation) check(Limits) error { return errNoUUID(c.UUID) }

func (c *LeaveConversation) decide(h *Heads, p Principal) (Decision, error) {
	old, err := h.live(p)
	if err != nil {
		return Decision{}, err
	}
	me, in := old.Participant(p.User)
	switch {
	case !p.IsUser():
		return Decision{}, Errorf(AccessDenied, "only a user leaves a conversation")
	case old.Direct:
		return Decision{}, Errorf(DirectNoLeave, "nobody leaves a direct conversation")
	case !in:
		return Decision{}, Errorf(NotParticipant, "you take no part in this conversation")
	}
	conv := old.clone()
	conv.Participants = slices.DeleteFunc(conv.Participants, func(q Participant) bool { return q.UserID == p.User })
	return h.membership(conv, p, c, []Participant{me}), nil
}

// EditedParticipant names a participant, with the permissions that change.
type EditedParticipant struct {
	UserRef
	Permissions *PermissionsPatch `json:"permissions" doc:"What is absent stays as it is."`
}

// EditParticipants changes what participants may do: for all of them or for none.
type EditParticipants struct {
	UUID         ConversationID      `json:"uuid"`
	Participants []EditedParticipant `json:"participants"`
	Meta
}

// Name implements [Command].
func (*EditParticipants) Name() string { return "editParticipants" }

// Kind implements [Command].
func (*EditParticipants) Kind() Kind { return Change }

// Needs implements [Command].
func (c *EditParticipants) Needs(Principal) Needs {
	refs := make([]UserRef, len(c.Participants))
	for i, ep := range c.Participants {
		refs[i] = ep.UserRef
	}
	return Needs{Conversation: c.UUID, Users: refs}
}

func (c *EditParticipants) check(l Limits) error {
	switch {
	case c.UUID.IsZero():
		return errNoUUID(c.UUID)
	case len(c.Participants) == 0:
		return Errorf(InvalidRequest, "participants is empty")
	case len(c.Participants) > l.Participants:
		return Errorf(InvalidRequest, "more than %d participants", l.Participants)
	}
	for _, ep := range c.Participants {
		if err := ep.Check(); err != nil {
			return err
		}
		if ep.Permissions == nil {
			return Errorf(InvalidRequest, "permissions of a participant are missing")
		}
	}
	return nil
}

func (c *EditParticipants) decide(h *Heads, p Principal) (Decision, error) {
	old, err := h.live(p)
	if err != nil {
		return Decision{}, err
	}
	mine, part := rights(old, p)
	if !part || !mine.CanManageParticipants {
		return Decision{}, Errorf(AccessDenied, "you may not manage the participants of this conversation")
	}
	conv := old.clone()
	var edited []int
	for _, ep := range c.Participants {
		u, err := h.find(ep.UserRef, p)
		if err != nil {
			return Decision{}, err
		}
		i := slices.IndexFunc(conv.Participants, func(q Participant) bool { return q.UserID == u.ID })
		if i < 0 {
			return Decision{}, Errorf(NotParticipant, "%s takes no part", u.Username)
		}
		now := ep.Permissions.Over(conv.Participants[i].Permissions)
		if (now.IsOwner || conv.Participants[i].Permissions.IsOwner) && !mine.IsOwner {
			return Decision{}, Errorf(AccessDenied, "only an owner makes owners and changes their permissions")
		}
		conv.Participants[i].Permissions = now
		if !slices.Contains(edited, i) {
			edited = append(edited, i)
		}
	}
	if disowned(old, conv) {
		return Decision{}, Errorf(AccessDenied, "a conversation keeps at least one owner")
	}
	concerned := make([]Participant, len(edited))
	for n, i := range edited {
		concerned[n] = conv.Participants[i]
	}
	return h.membership(conv, p, c, concerned), nil
}

// disowned reports whether a change would leave participants behind without the owner that they had.
func disowned(before, after *Conversation) bool {
	return before.owners() > 0 && after.owners() == 0 && len(after.Participants) > 0
}

// errNoUUID refuses a command that names no conversation.
func errNoUUID(id ConversationID) error {
	if id.IsZero() {
		return Errorf(InvalidRequest, "uuid is missing")
	}
	return nil
}
