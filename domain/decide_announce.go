package domain

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxRecipients is how many users one announcement is for at most, maxMarked how many announcements are marked at a time
	// by their ids.
	maxRecipients, maxMarked = 1000, 100
	// How many announcements a page has, by default and at most.
	pageAnnouncements, maxPageAnnouncements = 50, 100
	maxPageBytes                            = 512 << 10
	// MaxAhead is how long an announcement is kept at most, and how far ahead something may be scheduled.
	MaxAhead = 30 * 24 * time.Hour
)

// Announcement is what a service tells users outside of any conversation. Nobody answers it, and each recipient sees of the
// others nothing.
type Announcement struct {
	ID       AnnouncementID `json:"uuid"`
	ClientID string         `json:"id,omitempty" doc:"The service's own id of the announcement."`
	Sender   *Initiator     `json:"sender,omitempty"`
	Time     int64          `json:"time" doc:"Milliseconds since 1970."`
	Content
	Priority string    `json:"priority,omitempty"`
	Push     RawObject `json:"push,omitempty" doc:"What the sender gave in options.push."`
	Expires  int64     `json:"expires" doc:"Until when it is kept, in milliseconds since 1970."`
	Read     bool      `json:"read,omitempty" doc:"The user has marked it as read."`
	Removed  bool      `json:"removed,omitempty" doc:"It was removed: its content is gone, and its recipients see it no more."`

	// Number is the store's; later announcements have higher ones. Size is how many bytes it keeps.
	Number int64 `json:"-"`
	Size   int   `json:"-"`
	// By is who made it, for the idempotency key, Root its account tree, Recipients whom it is for.
	By         SenderID  `json:"-"`
	Root       AccountID `json:"-"`
	Recipients []UserID  `json:"-"`
}

// storedAnnouncement is what the store keeps of an announcement beside its columns.
type storedAnnouncement struct {
	ClientID string     `json:"k,omitempty"`
	Sender   *Initiator `json:"s,omitempty"`
	Content  Content    `json:"c"`
	Priority string     `json:"p,omitempty"`
	Push     RawObject  `json:"u,omitempty"`
	Removed  bool       `json:"x,omitempty"`
}

// MarshalStored gives the bytes that the store keeps of the announcement: what its columns (id, times) do not say already.
func (a *Announcement) MarshalStored() ([]byte, error) {
	return json.Marshal(storedAnnouncement{a.ClientID, a.Sender, a.Content, a.Priority, a.Push, a.Removed})
}

// Key is what tells the announcement apart from others of its sender: made stands in for a client id that is missing. The
// admin key, which is one sender for all account trees, has its ids once in each of them.
func (a *Announcement) Key(made string) string {
	switch {
	case a.ClientID == "":
		return made
	case a.By == 0:
		return strconv.FormatInt(int64(a.Root), 10) + " " + a.ClientID
	}
	return a.ClientID
}

// UnmarshalStored fills in what [Announcement.MarshalStored] gave.
func (a *Announcement) UnmarshalStored(b []byte) error {
	var s storedAnnouncement
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	a.ClientID, a.Sender, a.Content, a.Priority, a.Push, a.Removed = s.ClientID, s.Sender, s.Content, s.Priority, s.Push, s.Removed
	return nil
}

// AnnouncementQuery asks for a page of a user's announcements, the newest first.
type AnnouncementQuery struct {
	// Unread leaves out those marked as read.
	Unread bool
	// Before is the number of the last announcement of the page before; 0: begin with the newest.
	Before int64
	Limit  int
}

// AnnouncementMark says that a user has read announcements: those named, or all if there are none.
type AnnouncementMark struct {
	User UserID
	IDs  []AnnouncementID
	// Time is when, in milliseconds since 1970.
	Time int64
}

// AnnouncementRequest is an announcement as a service makes it (protocol.md section 6).
type AnnouncementRequest struct {
	To List[Named] `json:"to" doc:"Numbers of users, or their full names; at most 1000."`
	MessageRequest
	Expires int64 `json:"expires,omitempty" doc:"Until when it is kept, in milliseconds since 1970; at most 30 days ahead, which is the default."`
}

// Announce tells users something outside of any conversation: all of them or nobody.
type Announce struct {
	AnnouncementRequest
	Meta
	// Remaining leaves out users who are not there any more, as long as one is: it was checked before that all existed.
	Remaining bool `json:"-"`
}

// Name implements [Command].
func (*Announce) Name() string { return "announce" }

// Kind implements [Command].
func (*Announce) Kind() Kind { return Announcing }

// Needs implements [Command].
func (c *Announce) Needs(Principal) Needs {
	refs := make([]UserRef, len(c.To))
	for i, n := range c.To {
		refs[i] = n.Ref
	}
	return Needs{Users: refs}
}

func (c *Announce) check(l Limits) error {
	if len(c.To) == 0 || len(c.To) > maxRecipients {
		return Errorf(InvalidRequest, "to: name 1 to %d users", maxRecipients)
	}
	for _, n := range c.To {
		if err := n.Ref.Check(); err != nil {
			return err
		}
	}
	switch o := c.Options; {
	case c.Mentions != nil:
		return Errorf(InvalidRequest, "an announcement mentions nobody: to says whom it is for")
	case o != nil && (o.Transient || o.Will || o.Receipt):
		return Errorf(InvalidRequest, "of the options, announcements have priority and push")
	case c.Expires < 0:
		return Errorf(InvalidRequest, "expires is a time in milliseconds since 1970")
	}
	for i := range c.Parts {
		part := &c.Parts[i]
		if part.Content != "" || part.external() != "" && part.named(part.external(), l) {
			return Errorf(InvalidRequest, "parts[%d]: an announcement has no uploaded content: its parts have a body, or a url of elsewhere", i)
		}
	}
	return c.MessageRequest.check(l)
}

func (c *Announce) decide(h *Heads, p Principal) (Decision, error) {
	if !p.IsBackend() || p.User != 0 {
		return Decision{}, Errorf(AccessDenied, "only a service makes announcements")
	}
	latest := h.Now + MaxAhead.Milliseconds()
	expires := c.Expires
	switch {
	case expires == 0:
		expires = latest
	case expires <= h.Now:
		return Decision{}, Errorf(InvalidRequest, "expires is not in the future")
	case expires > latest:
		return Decision{}, Errorf(InvalidRequest, "expires is at most 30 days ahead")
	}
	to, root, err := c.recipients(h, p)
	if err != nil {
		return Decision{}, err
	}
	sender := p.Initiator()
	a := &Announcement{
		ID: AnnouncementID(h.NewID), ClientID: c.ClientID, Sender: &sender, Time: h.Now, Content: c.Content, Expires: expires,
		By: p.Sender(), Root: root, Recipients: to,
	}
	if o := c.Options; o != nil {
		a.Priority, a.Push = o.Priority, o.Push
	}
	return Decision{
		Announcement: a, Result: Result{Announcement: a},
		Notices: []Told{{Notice: Notice{Type: NoticeAnnouncement, Time: h.Now, Announcement: a}, To: to}},
	}, nil
}

// recipients gives those whom the announcement is for, each once, and their tree. The work grows with how many they are,
// and not with the square.
func (c *Announce) recipients(h *Heads, p Principal) (to []UserID, root AccountID, err error) {
	byName, byID := make(map[Username]*User, len(h.Users)), make(map[UserID]*User, len(h.Users))
	for i := range h.Users {
		u := &h.Users[i]
		byName[u.Username], byID[u.ID] = u, u
	}
	seen := make(map[UserID]bool, len(c.To))
	root = p.Root
	for _, n := range c.To {
		u := byID[n.Ref.UserID]
		if n.Ref.Username != "" {
			u = byName[n.Ref.Username]
		}
		if u != nil && root == 0 && !u.Deleted {
			root = u.Root // the first one decides the tree where p has none
		}
		switch {
		case u != nil && !u.Deleted && p.Sees(u.Root) && u.Root == root:
			if !seen[u.ID] {
				seen[u.ID] = true
				to = append(to, u.ID)
			}
		case c.Remaining:
		case n.Ref.Username != "":
			return nil, 0, Errorf(UserNotFound, "no user %q", clip(string(n.Ref.Username)))
		default:
			return nil, 0, Errorf(UserNotFound, "no user %d", n.Ref.UserID)
		}
	}
	if len(to) == 0 {
		return nil, 0, Errorf(UserNotFound, "none of the users exists any more")
	}
	return to, root, nil
}

// GetAnnouncements asks for a page of the caller's own announcements, the newest first.
type GetAnnouncements struct {
	Unread bool   `json:"unread,omitempty" doc:"Leave out those marked as read."`
	Cursor string `json:"cursor,omitempty" doc:"nextCursor of the page before."`
	Limit  int    `json:"limit,omitempty" doc:"1 to 100; 50 if absent."`
	Meta
}

// Name implements [Command].
func (*GetAnnouncements) Name() string { return "getAnnouncements" }

// Kind implements [Command].
func (*GetAnnouncements) Kind() Kind { return Read }

// Needs implements [Command].
func (c *GetAnnouncements) Needs(Principal) Needs {
	before, _ := announcementCursor(c.Cursor)
	return Needs{Announcements: &AnnouncementQuery{
		Unread: c.Unread, Before: before, Limit: orDefault(c.Limit, pageAnnouncements) + 1,
	}}
}

func (c *GetAnnouncements) check(Limits) error {
	if c.Limit < 0 || c.Limit > maxPageAnnouncements {
		return Errorf(InvalidRequest, "limit is 1 to %d", maxPageAnnouncements)
	}
	_, err := announcementCursor(c.Cursor)
	return err
}

func (c *GetAnnouncements) decide(h *Heads, p Principal) (Decision, error) {
	if !p.IsUser() {
		return Decision{}, Errorf(AccessDenied, "only a user has announcements")
	}
	page, next := FirstAnnouncements(h.Announcements, maxPageBytes), ""
	if limit := orDefault(c.Limit, pageAnnouncements); len(page) > limit {
		page = page[:limit]
	}
	if n := len(page); n < len(h.Announcements) {
		next = base64.RawURLEncoding.EncodeToString([]byte(announcementPrefix + strconv.FormatInt(page[n-1].Number, 10)))
	}
	return Decision{Result: Result{Announcements: Unexpired(page, h.Now), NextCursor: next}}, nil
}

// FirstAnnouncements gives as many of the first of a list as have at most so many bytes together, and one if there is one:
// more would not fit where an answer or a notice waits.
func FirstAnnouncements(list []Announcement, most int) []Announcement {
	for i := range list {
		if most -= list[i].Size; most < 0 && i > 0 {
			return list[:i]
		}
	}
	return list
}

// Unexpired gives those of the announcements that are not to be forgotten at the time; never nil.
func Unexpired(list []Announcement, now int64) []Announcement {
	return slices.DeleteFunc(append([]Announcement{}, list...), func(a Announcement) bool { return a.Expires <= now })
}

const announcementPrefix = "announcement:"

func announcementCursor(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	digits, ok := strings.CutPrefix(string(b), announcementPrefix)
	n, perr := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || perr != nil || n < 1 {
		return 0, Errorf(InvalidRequest, "the cursor is not one of ours")
	}
	return n, nil
}

// MarkAnnouncementsRead says that the caller has read announcements. Those that are not there any more are no error.
type MarkAnnouncementsRead struct {
	Announcements List[AnnouncementID] `json:"announcements,omitempty" doc:"UUIDs, at most 100; absent: all."`
	Meta
}

// Name implements [Command].
func (*MarkAnnouncementsRead) Name() string { return "markAnnouncementsRead" }

// Kind implements [Command].
func (*MarkAnnouncementsRead) Kind() Kind { return Change }

// Needs implements [Command].
func (*MarkAnnouncementsRead) Needs(Principal) Needs { return Needs{Self: true} }

func (c *MarkAnnouncementsRead) check(Limits) error {
	switch {
	case c.Announcements != nil && len(c.Announcements) == 0:
		return Errorf(InvalidRequest, "announcements is empty; leave it out for all")
	case len(c.Announcements) > maxMarked:
		return Errorf(InvalidRequest, "at most %d announcements at a time", maxMarked)
	case slices.ContainsFunc(c.Announcements, AnnouncementID.IsZero):
		return Errorf(InvalidRequest, "one of the announcements has no uuid")
	}
	return nil
}

func (c *MarkAnnouncementsRead) decide(h *Heads, p Principal) (Decision, error) {
	if _, err := h.self(p); err != nil {
		return Decision{}, err
	}
	read := slices.Clone([]AnnouncementID(c.Announcements))
	return Decision{
		AnnouncementsRead: &AnnouncementMark{User: p.User, IDs: read, Time: h.Now},
		Notices: []Told{{
			Notice: Notice{Type: NoticeAnnouncementsRead, Time: h.Now, Announcements: read}, To: []UserID{p.User}, OthersOnly: true,
		}},
	}, nil
}

// RemoveAnnouncement takes an announcement back: nothing of what it said remains, and its recipients see it no more. Its client
// id stays used. Removing it again changes nothing.
type RemoveAnnouncement struct {
	Announcement AnnouncementID `json:"announcement" doc:"Its UUID."`
	Meta
}

// Name implements [Command].
func (*RemoveAnnouncement) Name() string { return "removeAnnouncement" }

// Kind implements [Command].
func (*RemoveAnnouncement) Kind() Kind { return Announcing }

// Needs implements [Command].
func (c *RemoveAnnouncement) Needs(Principal) Needs { return Needs{Announcement: c.Announcement} }

func (c *RemoveAnnouncement) check(Limits) error {
	if c.Announcement.IsZero() {
		return Errorf(InvalidRequest, "announcement is missing")
	}
	return nil
}

func (c *RemoveAnnouncement) decide(h *Heads, p Principal) (Decision, error) {
	if !p.IsBackend() || p.User != 0 {
		return Decision{}, Errorf(AccessDenied, "only a service removes announcements")
	}
	if h.Announcement == nil || !p.Sees(h.Announcement.Root) || h.Announcement.Expires <= h.Now {
		return Decision{}, Errorf(NotFound, "no such announcement")
	}
	gone := *h.Announcement
	gone.Content, gone.Priority, gone.Push, gone.Removed = Content{}, "", nil, true
	// Also where it was removed before: perhaps by an attempt of which nobody heard.
	return Decision{
		AnnouncementRemoved: &gone,
		Notices: []Told{{
			Notice: Notice{Type: NoticeAnnouncementRemoved, Time: h.Now, Announcements: []AnnouncementID{gone.ID}}, To: gone.Recipients,
		}},
	}, nil
}
