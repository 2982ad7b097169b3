package domain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

// kind is a kind of conversation of the matrix.
type kind string

const (
	regular  kind = "regular"
	direct   kind = "direct"
	distinct kind = "distinct"
	uber     kind = "uber"
	public   kind = "publicJoin"
	open     kind = "open"
	removed  kind = "removed"
	missing  kind = "missing"
)

func kinds() []kind {
	return []kind{regular, direct, distinct, uber, public, open, removed, missing}
}

// of gives a conversation of the kind, nil for missing.
func (k kind) of(bobs domain.Permissions) *domain.Conversation {
	c := room()
	c.Participants[1].Permissions = bobs
	switch k {
	case regular:
	case direct:
		c.Direct, c.UniqueKey = true, "direct:1:2"
	case distinct:
		c.Distinct, c.UniqueKey = true, "distinct:2:x"
	case uber:
		c.Uber = true
	case public:
		c.PublicJoin = true
	case open:
		c.Policy = domain.Open
	case removed:
		c.Removed = true
	case missing:
		return nil
	}
	return c
}

// role is who asks in the matrix.
type role string

const (
	owner          role = "owner"
	taker          role = "participant"
	former         role = "former participant"
	stranger       role = "stranger of the same tree"
	outsider       role = "user of another tree"
	backend        role = "service of the tree"
	foreignBackend role = "service of another tree"
	administrator  role = "admin"
	departed       role = "deleted user"
	nobody         role = "nobody"
)

func roles() []role {
	return []role{owner, taker, former, stranger, outsider, backend, foreignBackend, administrator, departed, nobody}
}

func (r role) principal() domain.Principal {
	switch r {
	case owner:
		return user(alice)
	case taker:
		return user(bob)
	case former:
		return user(carol)
	case stranger:
		return user(eve)
	case outsider:
		return user(mallory)
	case backend:
		return service()
	case foreignBackend:
		return foreignService()
	case administrator:
		return admin()
	case departed:
		return user(ghost)
	case nobody:
	}
	return domain.Principal{}
}

// knows reports whether the role may know of what is in the tree of the conversation.
func (r role) knows() bool { return r != outsider && r != foreignBackend && r != nobody }

// flagged is a participant's permissions with a name.
type flagged struct {
	name string
	domain.Permissions
}

// flags gives the sets of permissions of the matrix: the defaults with each flag turned over, none, and all.
func flags() []flagged {
	d := domain.DefaultPermissions
	sets := []flagged{{"defaults", d()}, {"none", domain.Permissions{}}, {"all", domain.EveryPermission()}}
	for _, f := range []struct {
		name string
		flag func(*domain.Permissions) *bool
	}{
		{"canRead", func(p *domain.Permissions) *bool { return &p.CanRead }},
		{"canWrite", func(p *domain.Permissions) *bool { return &p.CanWrite }},
		{"canEdit", func(p *domain.Permissions) *bool { return &p.CanEdit }},
		{"canRemove", func(p *domain.Permissions) *bool { return &p.CanRemove }},
		{"canManageParticipants", func(p *domain.Permissions) *bool { return &p.CanManageParticipants }},
		{"canEditAll", func(p *domain.Permissions) *bool { return &p.CanEditAll }},
		{"canRemoveAll", func(p *domain.Permissions) *bool { return &p.CanRemoveAll }},
		{"isOwner", func(p *domain.Permissions) *bool { return &p.IsOwner }},
	} {
		turned := d()
		*f.flag(&turned) = !*f.flag(&turned)
		sets = append(sets, flagged{f.name + " turned over", turned})
		alone := domain.Permissions{}
		*f.flag(&alone) = true
		sets = append(sets, flagged{f.name + " alone", alone})
	}
	return sets
}

// question is a cell of the matrix: who asks in which kind of conversation, with bob's permissions.
type question struct {
	kind kind
	role role
	bobs domain.Permissions
}

// can reports whether the asking participant has the right, which an owner always has.
func (q question) can(flag func(domain.Permissions) bool) bool {
	return q.role == owner || q.role == taker && (flag(q.bobs) || q.bobs.IsOwner)
}

// withoutConversation gives the number with which everything is refused that is about a conversation which the asker
// may not know of or must be logged in for; 0: nothing of that kind.
func (q question) withoutConversation() int {
	switch {
	case q.role == nobody:
		return 3
	case !q.role.knows(), q.kind == missing:
		return 8
	}
	return 0
}

// forParticipants is the answer to what changes the participants; directNumber is that of a direct conversation.
func (q question) forParticipants(directNumber int) int {
	if n := q.withoutConversation(); n != 0 {
		return n
	}
	switch {
	case q.kind == removed:
		return 16
	case q.role == former, q.role == stranger:
		return 12
	case q.kind == direct:
		return directNumber
	case q.role == backend, q.role == administrator, q.kind == open:
		return 0
	case q.can(func(p domain.Permissions) bool { return p.CanManageParticipants }):
		return 0
	}
	return 12
}

func (q question) forReaders() int {
	if n := q.withoutConversation(); n != 0 {
		return n
	}
	switch {
	case q.role == stranger && q.kind != public:
		return 12
	case q.kind == removed && q.role != backend && q.role != administrator:
		return 16
	}
	return 0
}

// column is a command of the matrix: how it is asked, and the number with which protocol.md refuses it (0: not at all).
type column struct {
	command domain.Command
	number  func(q question) int
}

// answer is number, but for users who were deleted: they are strangers, and what a user does in its own name is refused.
func (c column) answer(name string, q question) int {
	if q.role != departed {
		return c.number(q)
	}
	q.role = stranger
	n := c.number(q)
	if n == 0 && slices.Contains([]string{
		"editUser", "managePushNotifications", "markAnnouncementsRead", "subscribe", "unsubscribe", "unsubscribeFromAll", "createConversation", "joinConversation",
	}, name) {
		return 3
	}
	return n
}

func columns() map[string]column {
	id := conversationID(1)
	return map[string]column{
		"getMe": {&domain.GetMe{}, func(q question) int {
			switch q.role {
			case nobody:
				return 3
			case backend, foreignBackend, administrator:
				return 25 // a backend is no user
			case owner, taker, former, stranger, outsider, departed:
			}
			return 0
		}},
		"getUser": {
			&domain.GetUser{UserRef: domain.UserRef{UserID: dave}},
			func(q question) int { return userNumber(q.role) },
		},
		"getUsers": {
			&domain.GetUsers{Usernames: domain.List[domain.Username]{person(bob).Username, person(ghost).Username}},
			func(q question) int { return userNumber(q.role) },
		},
		"editUser":                {&domain.EditUser{CustomData: ptr(domain.RawObject(`{"a":1}`))}, question.forUsers},
		"setStatus":               {&domain.SetStatus{Online: ptr(true)}, question.forUsers},
		"subscribe":               {&domain.Subscribe{UserList: named(alice)}, question.forUsersOfTheTree},
		"unsubscribe":             {&domain.Unsubscribe{UserList: named(alice)}, question.forUsersOfTheTree},
		"unsubscribeFromAll":      {&domain.UnsubscribeFromAll{}, question.forUsers},
		"getSubscriptions":        {&domain.GetSubscriptions{}, question.forUsers},
		"managePushNotifications": {&domain.ManagePushNotifications{Events: []domain.EventType{"editMessage"}}, question.forUsers},
		"issueTokens":             {&domain.IssueTokens{}, question.forUsers},
		"revokeTokens":            {&domain.RevokeTokens{}, question.forUsers},
		"createConversation": {
			&domain.CreateConversation{Participants: []domain.NewParticipant{{UserRef: domain.UserRef{UserID: dave}}}},
			func(q question) int { return userNumber(q.role) },
		},
		"getConversation":  {&domain.GetConversation{UUID: id}, question.forReaders},
		"getConversations": {&domain.GetConversations{UUIDs: domain.List[domain.ConversationID]{id, id}}, question.forReaders},
		"addParticipants": {
			&domain.AddParticipants{UUID: id, Participants: []domain.NewParticipant{{UserRef: domain.UserRef{UserID: dave}}}},
			func(q question) int { return q.forParticipants(37) },
		},
		"removeParticipants": {
			&domain.RemoveParticipants{UUID: id, Participants: []domain.UserRef{{Username: person(bob).Username}}},
			func(q question) int { return q.forParticipants(38) },
		},
		"sendMessage": {
			&domain.SendMessage{Conversation: id, MessageRequest: domain.MessageRequest{Content: domain.Content{Text: "hi"}}},
			question.forWriters,
		},
		"setWill": {
			&domain.SetWill{Conversation: id, MessageRequest: domain.MessageRequest{Content: domain.Content{Text: "gone"}}},
			func(q question) int {
				if n := q.forWriters(); n != 0 || q.role != backend && q.role != administrator {
					return n
				}
				return 1 // over HTTP nobody has a session
			},
		},
		"clearWill": {&domain.ClearWill{}, func(q question) int {
			switch q.role {
			case nobody:
				return 3
			case backend, foreignBackend, administrator:
				return 1
			case owner, taker, former, stranger, outsider, departed:
			}
			return 0
		}},
		"typing": {&domain.Typing{Conversation: id}, question.forWriters},
		"markAsRead": {&domain.MarkAsRead{Conversation: id, Seq: ptr(int64(2))}, func(q question) int {
			if n := q.withoutConversation(); n != 0 {
				return n
			}
			switch {
			case q.kind == removed:
				return 16
			case q.can(func(p domain.Permissions) bool { return p.CanRead }):
				return 0
			}
			return 12 // a backend does not read
		}},
		"getUnread": {&domain.GetUnread{}, question.forUsers},
		"announce": {announcement("hello", alice, bob), func(q question) int {
			switch q.role {
			case nobody:
				return 3
			case backend, administrator:
				return 0
			case foreignBackend:
				return 25
			case owner, taker, former, stranger, outsider, departed:
			}
			return 12
		}},
		"getAnnouncements":      {&domain.GetAnnouncements{}, question.forUsers},
		"markAnnouncementsRead": {&domain.MarkAnnouncementsRead{}, question.forUsers},
		// It exists, in the tree of everybody but the outsiders.
		"removeAnnouncement": {&domain.RemoveAnnouncement{Announcement: domain.AnnouncementID{1}}, func(q question) int {
			switch q.role {
			case nobody:
				return 3
			case backend, administrator:
				return 0
			case foreignBackend:
				return 110
			case owner, taker, former, stranger, outsider, departed:
			}
			return 12
		}},
		// It has owners of its own; here nobody has any.
		"getContent": {&domain.GetContent{Content: "00000000000000000000000000000001"}, func(q question) int {
			if q.role == nobody {
				return 3
			}
			return 110
		}},
		"getReceipts": {&domain.GetReceipts{Conversation: id, Message: domain.NewMessageID(id, 2)}, func(q question) int {
			if n := q.withoutConversation(); n != 0 {
				return n
			}
			switch {
			case q.role == backend, q.role == administrator:
				return 0
			case q.role == stranger && q.kind != public:
				return 12
			case q.kind == removed:
				return 16
			case q.role == former && q.kind == uber:
				return 10 // it was sent before
			case q.role == former, q.can(func(p domain.Permissions) bool { return p.CanRead }):
				return 0
			}
			return 12
		}},
		"retransmitEvents": {
			&domain.RetransmitEvents{Conversation: id, From: ptr(int64(1)), Count: ptr(int64(3))},
			func(q question) int {
				if n := q.withoutConversation(); n != 0 {
					return n
				}
				reads := q.role == former || q.can(func(p domain.Permissions) bool { return p.CanRead })
				switch {
				case q.role == backend, q.role == administrator:
					return 0
				case reads && q.kind == removed:
					return 16
				case reads:
					return 0
				}
				return 12
			},
		},
		"getPublicConversations": {&domain.GetPublicConversations{}, func(q question) int {
			if q.role == nobody {
				return 3
			}
			return 0
		}},
		"joinConversation": {&domain.JoinConversation{UUID: id}, func(q question) int {
			if n := q.changing(); n != 0 {
				return n
			}
			switch {
			case q.role == backend, q.role == administrator:
				return 12
			case q.kind == direct:
				return 39
			case q.role == owner, q.role == taker:
				return 13
			case q.kind != public:
				return 15
			}
			return 0
		}},
		"leaveConversation": {&domain.LeaveConversation{UUID: id}, func(q question) int {
			if n := q.changing(); n != 0 {
				return n
			}
			switch {
			case q.role == backend, q.role == administrator:
				return 12
			case q.kind == direct:
				return 40
			case q.role == former, q.role == stranger:
				return 19
			}
			return 0
		}},
		"editConversation": {&domain.EditConversation{UUID: id, ConversationEdit: domain.ConversationEdit{Title: ptr("new")}}, func(q question) int {
			part := q.role == owner || q.role == taker
			return q.owning(part && q.kind == open)
		}},
		"removeConversation": {&domain.RemoveConversation{UUID: id}, func(q question) int { return q.owning(false) }},
		"editParticipants": {
			&domain.EditParticipants{UUID: id, Participants: []domain.EditedParticipant{
				{UserRef: domain.UserRef{UserID: bob}, Permissions: &domain.PermissionsPatch{CanWrite: ptr(false)}},
			}},
			func(q question) int {
				if n := q.changing(); n != 0 {
					return n
				}
				switch {
				case q.role == backend, q.role == administrator, q.role == owner:
					return 0
				case q.can(func(p domain.Permissions) bool { return p.CanManageParticipants }):
					return 0
				}
				return 12
			},
		},
		"muteConversation": {&domain.MuteConversation{UUID: id, Muted: ptr(true)}, func(q question) int {
			if n := q.changing(); n != 0 {
				return n
			}
			if q.role == owner || q.role == taker {
				return 0
			}
			return 12
		}},
		"editMessage": {
			&domain.EditMessage{Conversation: id, Message: domain.NewMessageID(id, 2), MessageEdit: domain.MessageEdit{Text: ptr("new")}},
			func(q question) int {
				return q.rewriting(func(p domain.Permissions) bool { return p.CanEdit }, func(p domain.Permissions) bool { return p.CanEditAll })
			},
		},
		"removeMessage": {
			&domain.RemoveMessage{Conversation: id, Message: domain.NewMessageID(id, 2)},
			func(q question) int {
				return q.rewriting(func(p domain.Permissions) bool { return p.CanRemove }, func(p domain.Permissions) bool { return p.CanRemoveAll })
			},
		},
	}
}

// forWriters is the answer to what those who may write do.
func (q question) forWriters() int {
	if n := q.withoutConversation(); n != 0 {
		return n
	}
	switch {
	case q.kind == removed:
		return 16
	case q.role == backend, q.role == administrator:
		return 0
	case q.can(func(p domain.Permissions) bool { return p.CanWrite }):
		return 0
	}
	return 12
}

// forUsers is the answer to what users do about themselves, wherever they are.
func (q question) forUsers() int {
	switch q.role {
	case nobody:
		return 3
	case backend, foreignBackend, administrator:
		return 12
	case owner, taker, former, stranger, outsider, departed:
	}
	return 0
}

// forUsersOfTheTree is forUsers for what names users of the first tree.
func (q question) forUsersOfTheTree() int {
	if n := q.forUsers(); n != 0 {
		return n
	}
	return userNumber(q.role)
}

// changing is what refuses every change of a conversation.
func (q question) changing() int {
	if n := q.withoutConversation(); n != 0 {
		return n
	}
	if q.kind == removed {
		return 16
	}
	return 0
}

// owning is the answer to what only owners and backends may do; others: who asks may as well.
func (q question) owning(others bool) int {
	if n := q.changing(); n != 0 {
		return n
	}
	if others || q.role == backend || q.role == administrator || q.can(func(p domain.Permissions) bool { return p.IsOwner }) {
		return 0
	}
	return 12
}

// rewriting is the answer to what changes bob's message.
func (q question) rewriting(own, all func(domain.Permissions) bool) int {
	if n := q.changing(); n != 0 {
		return n
	}
	switch {
	case q.role == backend, q.role == administrator, q.role == owner:
		return 0
	case q.role == taker && (q.can(own) || q.can(all)):
		return 0
	}
	return 12
}

// userNumber is the answer to what names users of the first tree.
func userNumber(r role) int {
	switch r {
	case nobody:
		return 3
	case outsider, foreignBackend:
		return 25
	case owner, taker, former, stranger, departed, backend, administrator:
	}
	return 0
}

func TestMatrixHasAColumnForEveryCommand(t *testing.T) {
	// A command without a column would be one that nobody checked for who may use it.
	for _, name := range domain.CommandNames() {
		c, ok := columns()[name]
		if !ok {
			t.Errorf("%s has no column in the matrix", name)
		} else if c.command.Name() != name {
			t.Errorf("the column of %s holds a %s", name, c.command.Name())
		}
	}
	if len(columns()) != len(domain.CommandNames()) {
		t.Error("the matrix has columns of commands that do not exist")
	}
}

func TestWhoMayDoWhatWhere(t *testing.T) {
	// This is the heart of the access rules: every command, by everybody, with each permission, in each kind of
	// conversation. A cell that changes is a right that somebody got or lost.
	for name, col := range columns() {
		t.Run(name, func(t *testing.T) {
			cells := 0
			for _, k := range kinds() {
				for _, r := range roles() {
					for _, f := range flags() {
						q := question{kind: k, role: r, bobs: f.Permissions}
						s := newStore()
						if c := k.of(f.Permissions); c != nil {
							s = newStore(c)
							s.joined(carol, c.ID, 3)
							s.left(carol, c.ID, 5)
						}
						s.said(conversationID(1), 2, bob, "hello")
						s.announced(1, bob)
						_, err := s.decide(t, r.principal(), col.command)
						if want := col.answer(name, q); number(err) != want {
							t.Errorf("%s by %s (bob: %s) in a %s conversation: number %d (%v), want %d",
								name, r, f.name, k, number(err), err, want)
						}
						cells++
					}
				}
			}
			if cells < 8*10*19 {
				t.Errorf("only %d cells", cells)
			}
		})
	}
}

func TestNobodyActsWithoutLogin(t *testing.T) {
	// A principal that a defect left empty must not become an admin of sorts.
	for _, p := range []domain.Principal{{}, {Root: 1, Account: 1}, {Username: "alice@chat.acme", Root: 1}, {ServiceName: "billing", Root: 1}} {
		for name, col := range columns() {
			if _, err := newStore(room()).decide(t, p, col.command); domain.CodeOf(err) != domain.NotAuthenticated {
				t.Errorf("%s by %+v: %v", name, p, err)
			}
		}
	}
	// A user without a tree sees nothing, not everything.
	lost := domain.Principal{User: alice, Username: "alice@chat.acme"}
	treeless := room()
	treeless.Root = 0
	for _, conv := range []*domain.Conversation{room(), treeless} {
		_, err := newStore(conv).decide(t, lost, &domain.GetConversation{UUID: conv.ID})
		if domain.CodeOf(err) != domain.ConversationNotFound {
			t.Errorf("a user without a tree: %v", err)
		}
	}
}

func TestOtherTreesAnswerLikeEmptyOnes(t *testing.T) {
	// To whoever may not know that a thing exists it does not exist: not even the wording may tell the difference.
	for name, col := range columns() {
		for _, r := range []role{outsider, foreignBackend} {
			full := newStore(room())
			full.announced(1, bob)
			_, there := full.decide(t, r.principal(), col.command)
			empty := newStore()
			empty.users = slices.DeleteFunc(empty.users, func(u domain.User) bool { return u.Root == 1 })
			_, gone := empty.decide(t, r.principal(), col.command)
			if diff := cmp.Diff(domain.AsError(gone), domain.AsError(there), cmp.AllowUnexported(domain.Error{})); diff != "" {
				t.Errorf("%s by %s tells that something is there:\n%s", name, r, diff)
			}
		}
	}
}

func TestParametersAreCheckedBeforeAnythingIsLookedUp(t *testing.T) {
	// Decide checks parameters itself: a transport that forgets to must not get around the limits.
	id := conversationID(1)
	many := func(n int) (refs []domain.UserRef, parts []domain.NewParticipant, ids []domain.UserID, convs []domain.ConversationID) {
		for i := range n {
			refs = append(refs, domain.UserRef{UserID: domain.UserID(i + 1)})
			parts = append(parts, domain.NewParticipant{UserRef: refs[i]})
			ids = append(ids, refs[i].UserID)
			convs = append(convs, domain.ConversationID{1, byte(i)})
		}
		return refs, parts, ids, convs
	}
	refs, parts, _, _ := many(1001)
	_, _, ids, _ := many(51)
	_, _, _, convs := many(31)
	long := make([]rune, 1001)
	for i := range long {
		long[i] = 'é'
	}
	// At the limits themselves nothing is wrong yet.
	for name, c := range map[string]domain.Command{
		"50 users":              &domain.GetUsers{UserIDs: ids[:50]},
		"30 conversations":      &domain.GetConversations{UUIDs: convs[:30]},
		"1000 participants":     &domain.CreateConversation{Participants: parts[:1000]},
		"1000 to add":           &domain.AddParticipants{UUID: id, Participants: parts[:1000]},
		"1000 to remove":        &domain.RemoveParticipants{UUID: id, Participants: refs[:1000]},
		"a title of 1000":       &domain.CreateConversation{Title: string(long[:1000])},
		"64 KiB of custom data": &domain.CreateConversation{CustomData: domain.RawObject(fmt.Sprintf(`{"a":"%065528d"}`, 1))},
		"a request id of 128":   &domain.GetMe{Meta: domain.Meta{RequestID: strings.Repeat("x", 128)}},
	} {
		if err := domain.Check(c, domain.DefaultLimits()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, tc := range []struct {
		name    string
		command domain.Command
		number  int
	}{
		{"no user", &domain.GetUser{}, 1},
		{"a user named twice over", &domain.GetUser{UserRef: domain.UserRef{UserID: 1, Username: "alice@chat.acme"}}, 1},
		{"a negative user", &domain.GetUser{UserRef: domain.UserRef{UserID: -1}}, 1},
		{"a name that cannot exist", &domain.GetUser{UserRef: domain.UserRef{Username: "Alice"}}, 25},
		{"no users", &domain.GetUsers{}, 1},
		{"51 users", &domain.GetUsers{UserIDs: ids}, 1},
		{"51 users in two lists", &domain.GetUsers{UserIDs: ids[:50], Usernames: domain.List[domain.Username]{"a@b.c"}}, 1},
		{"user 0 among others", &domain.GetUsers{UserIDs: domain.List[domain.UserID]{1, 0}}, 1},
		{"no conversation", &domain.GetConversation{}, 1},
		{"no conversations", &domain.GetConversations{}, 1},
		{"31 conversations", &domain.GetConversations{UUIDs: convs}, 1},
		{"31 conversations in two lists", &domain.GetConversations{UUIDs: convs[:30], UUIDsToo: convs[30:]}, 1},
		{"the zero conversation", &domain.GetConversations{UUIDs: domain.List[domain.ConversationID]{{}}}, 1},
		{"a title of 1001 characters", &domain.CreateConversation{Title: string(long)}, 1},
		{"NUL in a title", &domain.CreateConversation{Title: "a\x00b"}, 1},
		{"a policy that does not exist", &domain.CreateConversation{Policy: "closed"}, 1},
		{"1001 participants", &domain.CreateConversation{Participants: parts}, 1},
		{"huge custom data", &domain.CreateConversation{CustomData: domain.RawObject(fmt.Sprintf(`{"a":"%065529d"}`, 1))}, 1},
		{"direct and public", &domain.CreateConversation{Direct: true, PublicJoin: true}, 34},
		{"direct and uber", &domain.CreateConversation{Direct: true, Uber: true}, 34},
		{"a participant without a name", &domain.CreateConversation{Participants: []domain.NewParticipant{{}}}, 1},
		{"add to nothing", &domain.AddParticipants{Participants: parts[:1]}, 1},
		{"add nobody", &domain.AddParticipants{UUID: id}, 1},
		{"add 1001", &domain.AddParticipants{UUID: id, Participants: parts}, 1},
		{"add a participant without a name", &domain.AddParticipants{UUID: id, Participants: []domain.NewParticipant{{}}}, 1},
		{"remove from nothing", &domain.RemoveParticipants{Participants: refs[:1]}, 1},
		{"remove nobody", &domain.RemoveParticipants{UUID: id}, 1},
		{"remove 1001", &domain.RemoveParticipants{UUID: id, Participants: refs}, 1},
		{"remove a participant without a name", &domain.RemoveParticipants{UUID: id, Participants: []domain.UserRef{{}}}, 1},
		{"send to nothing", &domain.SendMessage{MessageRequest: domain.MessageRequest{Content: domain.Content{Text: "hi"}}}, 1},
		{"send nothing", &domain.SendMessage{Conversation: id}, 1},
		{"leave nothing behind", &domain.SetWill{Conversation: id}, 1},
		{"leave something behind nowhere", &domain.SetWill{MessageRequest: domain.MessageRequest{Content: domain.Content{Text: "hi"}}}, 1},
		{"leave content behind", &domain.SetWill{Conversation: id, MessageRequest: domain.MessageRequest{
			Content: domain.Content{Parts: []domain.Part{{MimeType: "image/png", Content: "00000000000000000000000000000001"}}},
		}}, 1},
		{"type nowhere", &domain.Typing{}, 1},
		{"type in a state that does not exist", &domain.Typing{Conversation: id, State: "thinking"}, 1},
		{"mark nothing as read", &domain.MarkAsRead{}, 1},
		{"mark as read before the first", &domain.MarkAsRead{Conversation: id, Seq: ptr(int64(-1))}, 24},
		{"receipts of nothing", &domain.GetReceipts{Message: domain.NewMessageID(id, 2)}, 1},
		{"receipts of no message", &domain.GetReceipts{Conversation: id}, 1},
		{"retransmit nothing", &domain.RetransmitEvents{From: ptr(int64(1)), To: ptr(int64(1))}, 1},
		{"a long request id", &domain.GetMe{Meta: domain.Meta{RequestID: string(make([]byte, 129))}}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := domain.Check(tc.command, domain.DefaultLimits()); number(err) != tc.number {
				t.Errorf("Check: %v, want number %d", err, tc.number)
			}
			if _, err := newStore(room()).decide(t, user(alice), tc.command); number(err) != tc.number {
				t.Errorf("Decide: %v, want number %d", err, tc.number)
			}
		})
	}
}
