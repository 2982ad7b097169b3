package domain

import "slices"

// The most characters of a title and bytes of a conversation's customData.
const (
	maxTitle      = 1000
	maxCustomData = 64 << 10
)

// NewParticipant names a user who shall take part.
type NewParticipant struct {
	UserRef
	Permissions *PermissionsPatch `json:"permissions,omitempty" doc:"What is absent follows the conversation's defaults."`
}

// CreateConversation creates a conversation, or finds the existing one of a direct or distinct kind.
type CreateConversation struct {
	Title        string            `json:"title,omitempty"`
	Direct       bool              `json:"direct,omitempty"`
	Distinct     bool              `json:"distinct,omitempty"`
	Uber         bool              `json:"uber,omitempty"`
	PublicJoin   bool              `json:"publicJoin,omitempty"`
	Policy       Policy            `json:"policy,omitempty" enum:"managed,open"`
	Participants NewParticipants   `json:"participants,omitempty" doc:"Each an object, or in short a number or a full name."`
	Permissions  *PermissionsPatch `json:"permissions,omitempty" doc:"What newcomers get."`
	CustomData   RawObject         `json:"customData,omitempty"`
	Meta
}

// Name implements [Command].
func (*CreateConversation) Name() string { return "createConversation" }

// Kind implements [Command].
func (*CreateConversation) Kind() Kind { return Change }

// Needs implements [Command].
func (c *CreateConversation) Needs(p Principal) Needs {
	refs := make([]UserRef, 0, len(c.Participants)+1)
	for _, np := range c.Participants {
		refs = append(refs, np.UserRef)
	}
	if p.IsUser() {
		refs = append(refs, UserRef{UserID: p.User})
	}
	return Needs{Users: refs}
}

func (c *CreateConversation) check(l Limits) error {
	if err := checkTitle(c.Title); err != nil {
		return err
	}
	if err := checkProperties(c.CustomData, c.Policy); err != nil {
		return err
	}
	switch {
	case len(c.Participants) > l.Participants:
		return Errorf(InvalidRequest, "more than %d participants", l.Participants)
	case c.Direct && (c.PublicJoin || c.Uber):
		return Errorf(DirectNotPublicOrUber, "a direct conversation is neither public nor uber")
	}
	for _, np := range c.Participants {
		if err := np.Check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *CreateConversation) decide(h *Heads, p Principal) (Decision, error) {
	conv := &Conversation{
		ID: h.NewID, Title: c.Title, Direct: c.Direct, Distinct: c.Distinct, Uber: c.Uber, PublicJoin: c.PublicJoin,
		Policy: c.Policy, CreatedTime: h.Now, LastUpdate: h.Now, LastSeq: 1, CustomData: c.CustomData,
		Permissions: c.Permissions.Over(DefaultPermissions()), Participants: []Participant{}, // [] and not null
		Root: p.Root, Account: p.Account, Version: 1,
	}
	if conv.Policy == "" {
		conv.Policy = Managed
	}
	if err := c.join(conv, h, p); err != nil {
		return Decision{}, err
	}
	if c.Direct && len(conv.Participants) != 2 {
		return Decision{}, Errorf(DirectNeedsTwo, "a direct conversation takes exactly two users")
	}
	if len(conv.Participants) == 0 && (conv.Distinct || conv.Root == 0) {
		return Decision{}, Errorf(InvalidRequest, "the conversation needs participants")
	}
	if len(conv.Participants) > h.Limits.Participants {
		return Decision{}, Errorf(InvalidRequest, "more than %d participants", h.Limits.Participants)
	}
	conv.UniqueKey = c.uniqueKey(conv)
	existing := false
	if old := h.Existing; old != nil && conv.UniqueKey != "" && old.UniqueKey == conv.UniqueKey {
		if conv.Distinct && !conv.Direct && !c.CustomData.Equal(nil) && !c.CustomData.Equal(old.CustomData) {
			e := Errorf(DistinctConflict, "the conversation of these participants has other customData")
			e.Conversation = old
			return Decision{}, e
		}
		existing = true
		return Decision{Result: Result{Conversation: old, Existing: &existing}}, nil
	}
	e := h.event(EventCreateConversation, p, c)
	e.At(conv.ID, 1)
	e.ConversationData = conv
	return Decision{
		Events: []*Event{e}, Conversation: conv, Result: Result{Conversation: conv, Existing: &existing},
	}, nil
}

// join fills in the participants: a calling user first, as owner, then the others, each once.
func (c *CreateConversation) join(conv *Conversation, h *Heads, p Principal) error {
	if p.IsUser() {
		me, err := h.find(UserRef{UserID: p.User}, p)
		if err != nil || me.Deleted {
			return Errorf(NotAuthenticated, "the user no longer exists")
		}
		conv.Participants = append(conv.Participants, Participant{
			UserID: me.ID, Username: me.Username, Permissions: EveryPermission(), JoinedSeq: 1,
		})
	}
	for _, np := range c.Participants {
		u, err := h.newcomer(np.UserRef, conv, p)
		if err != nil {
			return err
		}
		if _, ok := conv.Participant(u.ID); ok {
			continue
		}
		conv.Participants = append(conv.Participants, Participant{
			UserID: u.ID, Username: u.Username, Permissions: np.Permissions.Over(conv.Permissions), JoinedSeq: 1,
		})
	}
	return nil
}

// newcomer finds a user who may be brought into conv. The first one decides the tree where p has none.
func (h *Heads) newcomer(r UserRef, conv *Conversation, p Principal) (User, error) {
	u, err := h.find(r, p)
	if err != nil {
		return User{}, err
	}
	if conv.Root == 0 {
		conv.Root, conv.Account = u.Root, u.Account
	}
	if u.Deleted || u.Root != conv.Root {
		return User{}, Errorf(UserNotFound, "no user %q", clip(string(u.Username)))
	}
	return u, nil
}

func (c *CreateConversation) uniqueKey(conv *Conversation) string {
	switch {
	case c.Direct:
		return directKey(conv.Participants[0].UserID, conv.Participants[1].UserID)
	case c.Distinct:
		ids := make([]UserID, len(conv.Participants))
		for i := range conv.Participants {
			ids[i] = conv.Participants[i].UserID
		}
		return distinctKey(ids)
	}
	return ""
}

// GetConversation asks for one conversation.
type GetConversation struct {
	UUID ConversationID `json:"uuid"`
	Meta
}

// Name implements [Command].
func (*GetConversation) Name() string { return "getConversation" }

// Kind implements [Command].
func (*GetConversation) Kind() Kind { return Read }

// Needs implements [Command].
func (c *GetConversation) Needs(Principal) Needs { return Needs{Conversation: c.UUID, Past: true} }

func (c *GetConversation) check(Limits) error {
	if c.UUID.IsZero() {
		return Errorf(InvalidRequest, "uuid is missing")
	}
	return nil
}

func (c *GetConversation) decide(h *Heads, p Principal) (Decision, error) {
	conv, err := h.look(h.Conversation, p)
	if err != nil {
		return Decision{}, err
	}
	return Decision{Result: Result{Conversation: conv}}, nil
}

// GetConversations asks for up to 30 conversations.
type GetConversations struct {
	UUIDs List[ConversationID] `json:"uuids,omitempty"`
	// The singular spelling means the same.
	UUIDsToo List[ConversationID] `json:"uuid,omitempty"`
	Meta
}

// Name implements [Command].
func (*GetConversations) Name() string { return "getConversations" }

// Kind implements [Command].
func (*GetConversations) Kind() Kind { return Read }

// Needs implements [Command].
func (c *GetConversations) Needs(Principal) Needs { return Needs{Conversations: c.ids(), Past: true} }

func (c *GetConversations) ids() []ConversationID {
	return append(slices.Clone([]ConversationID(c.UUIDs)), c.UUIDsToo...)
}

func (c *GetConversations) check(Limits) error {
	if n := len(c.ids()); n == 0 || n > maxConversations {
		return Errorf(InvalidRequest, "ask for 1 to %d conversations", maxConversations)
	}
	if slices.ContainsFunc(c.ids(), ConversationID.IsZero) {
		return Errorf(InvalidRequest, "one of the uuids is missing")
	}
	return nil
}

func (c *GetConversations) decide(h *Heads, p Principal) (Decision, error) {
	found := []*Conversation{}
	for _, id := range c.ids() {
		var there *Conversation
		if i := slices.IndexFunc(h.Conversations, func(conv *Conversation) bool { return conv.ID == id }); i >= 0 {
			there = h.Conversations[i]
		}
		conv, err := h.look(there, p)
		if err != nil {
			return Decision{}, err
		}
		if !slices.Contains(found, conv) {
			found = append(found, conv)
		}
	}
	return Decision{Result: Result{Conversations: found}}, nil
}

// look gives a conversation that p may look at: as present or former participant, because it is public, or as a
// backend.
func (h *Heads) look(conv *Conversation, p Principal) (*Conversation, error) {
	if conv == nil || !p.Sees(conv.Root) {
		return nil, Errorf(ConversationNotFound, "no such conversation")
	}
	_, part := rights(conv, p)
	if !part && !conv.PublicJoin && len(h.Past[conv.ID]) == 0 {
		return nil, Errorf(AccessDenied, "you take no part in this conversation")
	}
	if conv.Removed && !p.IsBackend() {
		return nil, Errorf(ConversationRemoved, "the conversation was removed")
	}
	return conv, nil
}

// AddParticipants brings users into a conversation: all of them or none.
type AddParticipants struct {
	UUID         ConversationID  `json:"uuid"`
	Participants NewParticipants `json:"participants" doc:"Each an object, or in short a number or a full name."`
	Meta
}

// Name implements [Command].
func (*AddParticipants) Name() string { return "addParticipants" }

// Kind implements [Command].
func (*AddParticipants) Kind() Kind { return Change }

// Needs implements [Command].
func (c *AddParticipants) Needs(Principal) Needs {
	refs := make([]UserRef, len(c.Participants))
	for i, np := range c.Participants {
		refs[i] = np.UserRef
	}
	return Needs{Conversation: c.UUID, Users: refs}
}

func (c *AddParticipants) check(l Limits) error {
	switch {
	case c.UUID.IsZero():
		return Errorf(InvalidRequest, "uuid is missing")
	case len(c.Participants) == 0:
		return Errorf(InvalidRequest, "participants is empty")
	case len(c.Participants) > l.Participants:
		return Errorf(InvalidRequest, "more than %d participants", l.Participants)
	}
	for _, np := range c.Participants {
		if err := np.Check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *AddParticipants) decide(h *Heads, p Principal) (Decision, error) {
	old, mine, err := h.managed(p, DirectNoAdd)
	if err != nil {
		return Decision{}, err
	}
	conv := old.clone()
	var added []Participant
	for _, np := range c.Participants {
		u, err := h.newcomer(np.UserRef, conv, p)
		if err != nil {
			return Decision{}, err
		}
		if _, in := old.Participant(u.ID); in {
			return Decision{}, Errorf(AlreadyParticipant, "%s takes part already", u.Username)
		}
		if _, twice := conv.Participant(u.ID); twice {
			continue
		}
		part := Participant{
			UserID: u.ID, Username: u.Username, Permissions: np.Permissions.Over(conv.Permissions),
			JoinedSeq: old.LastSeq + 1,
		}
		if part.Permissions.IsOwner && !mine.IsOwner {
			return Decision{}, Errorf(AccessDenied, "only an owner makes owners")
		}
		if !mine.CanManageParticipants && part.Permissions.exceeds(conv.Permissions) {
			return Decision{}, Errorf(AccessDenied, "only who manages participants gives more than the conversation's defaults")
		}
		conv.Participants = append(conv.Participants, part)
		added = append(added, part)
	}
	if len(conv.Participants) > h.Limits.Participants {
		return Decision{}, Errorf(InvalidRequest, "more than %d participants", h.Limits.Participants)
	}
	return h.membership(conv, p, c, added), nil
}

// RemoveParticipants takes users out of a conversation: all of them or none.
type RemoveParticipants struct {
	UUID         ConversationID `json:"uuid"`
	Participants UserRefs       `json:"participants" doc:"Each an object, or in short a number or a full name."`
	Meta
}

// Name implements [Command].
func (*RemoveParticipants) Name() string { return "removeParticipants" }

// Kind implements [Command].
func (*RemoveParticipants) Kind() Kind { return Change }

// Needs implements [Command].
func (c *RemoveParticipants) Needs(Principal) Needs {
	return Needs{Conversation: c.UUID, Users: c.Participants}
}

func (c *RemoveParticipants) check(l Limits) error {
	switch {
	case c.UUID.IsZero():
		return Errorf(InvalidRequest, "uuid is missing")
	case len(c.Participants) == 0:
		return Errorf(InvalidRequest, "participants is empty")
	case len(c.Participants) > l.Participants:
		return Errorf(InvalidRequest, "more than %d participants", l.Participants)
	}
	for _, r := range c.Participants {
		if err := r.Check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *RemoveParticipants) decide(h *Heads, p Principal) (Decision, error) {
	old, mine, err := h.managed(p, DirectNoRemove)
	if err != nil {
		return Decision{}, err
	}
	conv := old.clone()
	var removed []Participant
	for _, r := range c.Participants {
		u, err := h.find(r, p)
		if err != nil {
			return Decision{}, err
		}
		part, in := old.Participant(u.ID)
		if !in {
			return Decision{}, Errorf(NotParticipant, "%s takes no part", u.Username)
		}
		if part.Permissions.IsOwner && !mine.IsOwner {
			return Decision{}, Errorf(AccessDenied, "only an owner removes owners")
		}
		i := slices.IndexFunc(conv.Participants, func(q Participant) bool { return q.UserID == u.ID })
		if i < 0 {
			continue // named twice
		}
		conv.Participants = slices.Delete(conv.Participants, i, i+1)
		removed = append(removed, part)
	}
	if disowned(old, conv) {
		return Decision{}, Errorf(AccessDenied, "the last owner cannot be removed while others remain")
	}
	return h.membership(conv, p, c, removed), nil
}

// managed gives the conversation whose participants p may change, and p's rights in it. refusal is the code for a
// direct conversation, whose participants never change.
func (h *Heads) managed(p Principal, refusal Code) (*Conversation, Permissions, error) {
	conv, err := h.live(p)
	if err != nil {
		return nil, Permissions{}, err
	}
	mine, part := rights(conv, p)
	switch {
	case !part:
		return nil, mine, Errorf(AccessDenied, "you take no part in this conversation")
	case conv.Direct:
		return nil, mine, Errorf(refusal, "the participants of a direct conversation never change")
	case !mine.CanManageParticipants && conv.Policy != Open:
		return nil, mine, Errorf(AccessDenied, "you may not manage the participants of this conversation")
	}
	return conv, mine, nil
}

// membership completes a decision that changed conv's participants: a distinct conversation ceases to be one. Of a direct
// one only what the two may do can change.
func (h *Heads) membership(conv *Conversation, p Principal, c Command, concerned []Participant) Decision {
	if conv.Distinct = false; !conv.Direct {
		conv.UniqueKey = ""
	}
	return h.edited(conv, p, c, concerned)
}

// edited completes a decision that changed conv, with its editConversation event.
func (h *Heads) edited(conv *Conversation, p Principal, c Command, concerned []Participant) Decision {
	conv.LastSeq++
	conv.Version++
	conv.LastUpdate = h.Now
	e := h.event(EventEditConversation, p, c)
	e.At(conv.ID, conv.LastSeq)
	e.ConversationData, e.Participants = conv, concerned
	return Decision{Events: []*Event{e}, Conversation: conv, Result: Result{Conversation: conv}}
}
