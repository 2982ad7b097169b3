package domain

import (
	"strings"
	"unicode/utf8"
)

// ConversationEdit changes what describes a conversation; what is absent or null stays as it is.
type ConversationEdit struct {
	Title       *string           `json:"title,omitempty" doc:"Empty: none."`
	PublicJoin  *bool             `json:"publicJoin,omitempty"`
	Policy      Policy            `json:"policy,omitempty" enum:"managed,open" doc:"For owners."`
	CustomData  RawObject         `json:"customData,omitempty" doc:"Replaces the whole; {} clears it."`
	Permissions *PermissionsPatch `json:"permissions,omitempty" doc:"What newcomers get; what is absent stays as it is."`
}

// EditConversation changes a conversation, for its owners, or in an open one for all participants.
type EditConversation struct {
	UUID ConversationID `json:"uuid"`
	ConversationEdit
	Meta
}

// Name implements [Command].
func (*EditConversation) Name() string { return "editConversation" }

// Kind implements [Command].
func (*EditConversation) Kind() Kind { return Change }

// Needs implements [Command].
func (c *EditConversation) Needs(Principal) Needs { return Needs{Conversation: c.UUID} }

func (c *EditConversation) check(Limits) error {
	switch {
	case c.UUID.IsZero():
		return errNoUUID(c.UUID)
	case c.Title == nil && c.PublicJoin == nil && c.Policy == "" && c.CustomData == nil && c.Permissions == nil:
		return Errorf(InvalidRequest, "nothing is to be changed: give title, publicJoin, policy, customData or permissions")
	}
	if c.Title != nil {
		if err := checkTitle(*c.Title); err != nil {
			return err
		}
	}
	return checkProperties(c.CustomData, c.Policy)
}

func (c *EditConversation) decide(h *Heads, p Principal) (Decision, error) {
	old, err := h.live(p)
	if err != nil {
		return Decision{}, err
	}
	mine, part := rights(old, p)
	conv := old.clone()
	conv.Permissions = c.Permissions.Over(old.Permissions)
	switch {
	case !part || !mine.IsOwner && old.Policy != Open:
		return Decision{}, Errorf(AccessDenied, "you may not edit this conversation")
	case c.Policy != "" && !mine.IsOwner:
		return Decision{}, Errorf(AccessDenied, "only an owner changes the policy")
	case conv.Permissions.exceeds(old.Permissions) && conv.Permissions.exceeds(mine):
		return Decision{}, Errorf(AccessDenied, "only an owner gives newcomers more than itself has")
	case conv.Direct && c.PublicJoin != nil && *c.PublicJoin:
		return Decision{}, Errorf(DirectNotPublicOrUber, "a direct conversation is neither public nor uber")
	}
	if c.Title != nil {
		conv.Title = *c.Title
	}
	if c.PublicJoin != nil {
		conv.PublicJoin = *c.PublicJoin
	}
	if c.Policy != "" {
		conv.Policy = c.Policy
	}
	if c.CustomData != nil {
		conv.CustomData = c.CustomData
	}
	return h.edited(conv, p, c, nil), nil
}

// checkTitle reports what is wrong with a title.
func checkTitle(title string) error {
	switch {
	case utf8.RuneCountInString(title) > maxTitle:
		return Errorf(InvalidRequest, "title is longer than %d characters", maxTitle)
	case strings.ContainsRune(title, 0):
		return Errorf(InvalidRequest, "title must not contain NUL")
	}
	return nil
}

// checkProperties reports what is wrong with customData and policy.
func checkProperties(customData RawObject, policy Policy) error {
	switch {
	case len(customData) > maxCustomData:
		return Errorf(InvalidRequest, "customData is larger than %d bytes", maxCustomData)
	case policy != "" && policy != Managed && policy != Open:
		return Errorf(InvalidRequest, "policy is managed or open")
	}
	return nil
}

// RemoveConversation removes a conversation for all. Its log ends with that event.
type RemoveConversation struct {
	UUID ConversationID `json:"uuid"`
	Meta
}

// Name implements [Command].
func (*RemoveConversation) Name() string { return "removeConversation" }

// Kind implements [Command].
func (*RemoveConversation) Kind() Kind { return Change }

// Needs implements [Command].
func (c *RemoveConversation) Needs(Principal) Needs { return Needs{Conversation: c.UUID} }

func (c *RemoveConversation) check(Limits) error { return errNoUUID(c.UUID) }

func (c *RemoveConversation) decide(h *Heads, p Principal) (Decision, error) {
	old, err := h.live(p)
	if err != nil {
		return Decision{}, err
	}
	if mine, part := rights(old, p); !part || !mine.IsOwner {
		return Decision{}, Errorf(AccessDenied, "only an owner removes a conversation")
	}
	conv := old.clone()
	// The next one of the same users is a new one.
	conv.Removed, conv.UniqueKey = true, ""
	conv.LastSeq++
	conv.Version++
	conv.LastUpdate = h.Now
	e := h.event(EventRemoveConversation, p, c)
	e.At(conv.ID, conv.LastSeq)
	return Decision{Events: []*Event{e}, Conversation: conv}, nil
}

// MuteConversation says whether the caller wants pushes about a conversation. Nobody else is told.
type MuteConversation struct {
	UUID  ConversationID `json:"uuid"`
	Muted *bool          `json:"muted"`
	Meta
}

// Name implements [Command].
func (*MuteConversation) Name() string { return "muteConversation" }

// Kind implements [Command].
func (*MuteConversation) Kind() Kind { return Change }

// Needs implements [Command].
func (c *MuteConversation) Needs(Principal) Needs { return Needs{Conversation: c.UUID} }

func (c *MuteConversation) check(Limits) error {
	if c.Muted == nil {
		return Errorf(InvalidRequest, "muted is missing: true or false")
	}
	return errNoUUID(c.UUID)
}

func (c *MuteConversation) decide(h *Heads, p Principal) (Decision, error) {
	conv, err := h.live(p)
	if err != nil {
		return Decision{}, err
	}
	if _, part := conv.Participant(p.User); !part || !p.IsUser() {
		return Decision{}, Errorf(AccessDenied, "you take no part in this conversation")
	}
	return Decision{
		Mute: &Mute{Conversation: conv.ID, User: p.User, Muted: *c.Muted}, Result: Result{Conversation: conv},
	}, nil
}
