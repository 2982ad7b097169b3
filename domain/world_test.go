package domain_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/parley-im/parley/domain"
)

// The people of the tests. Accounts 1 and 11 are one tree, account 2 is another.
const (
	alice   = domain.UserID(1) // owner of the conversations that are made here
	bob     = domain.UserID(2) // participant
	carol   = domain.UserID(3) // former participant
	dave    = domain.UserID(4) // of a child account, takes no part
	eve     = domain.UserID(5) // stranger of the same tree
	mallory = domain.UserID(6) // of another tree
	ghost   = domain.UserID(7) // deleted
)

const now = int64(1_700_000_000_000)

func directory() []domain.User {
	return []domain.User{
		{ID: alice, Username: "alice@chat.acme", Root: 1, Account: 1},
		{ID: bob, Username: "bob@chat.acme", Root: 1, Account: 1},
		{ID: carol, Username: "carol@chat.acme", Root: 1, Account: 1},
		{ID: dave, Username: "dave@chat.acme-child", Root: 1, Account: 11},
		{ID: eve, Username: "eve@desk.acme", Root: 1, Account: 1},
		{ID: mallory, Username: "mallory@chat.rival", Root: 2, Account: 2},
		{ID: ghost, Username: "ghost@chat.acme", Root: 1, Account: 1, Deleted: true},
	}
}

func person(id domain.UserID) domain.User {
	all := directory()
	return all[slices.IndexFunc(all, func(u domain.User) bool { return u.ID == id })]
}

func user(id domain.UserID) domain.Principal { return person(id).Principal("phone") }

func service() domain.Principal {
	return domain.Principal{Service: 100, ServiceName: "billing", AccountName: "acme", Root: 1, Account: 1}
}

func foreignService() domain.Principal {
	return domain.Principal{Service: 200, ServiceName: "spy", AccountName: "rival", Root: 2, Account: 2}
}

func admin() domain.Principal { return domain.Principal{Admin: true} }

func conversationID(n byte) domain.ConversationID {
	return domain.ConversationID{0x01, 0x8b, 0xcf, 0xe5, 0x68, n, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, n}
}

func participant(id domain.UserID, p domain.Permissions) domain.Participant {
	return domain.Participant{UserID: id, Username: person(id).Username, Permissions: p, JoinedSeq: 1}
}

// room gives a regular conversation of alice (owner) and bob, in which carol took part from event 3 to 5.
func room() *domain.Conversation {
	return &domain.Conversation{
		ID: conversationID(1), Title: "room", Policy: domain.Managed, CreatedTime: now - 1000, LastUpdate: now - 500,
		LastSeq: 7, Permissions: domain.DefaultPermissions(), Root: 1, Account: 1, Version: 3,
		Participants: []domain.Participant{
			participant(alice, domain.EveryPermission()), participant(bob, domain.DefaultPermissions()),
		},
	}
}

// ptr gives a pointer to a value of its own.
func ptr[T any](v T) *T { return &v }

// store is the least that a store does for a decision: it looks up what a command needs, and keeps what came of it.
type store struct {
	users         []domain.User
	conversations map[domain.ConversationID]*domain.Conversation
	past          map[domain.UserID]map[domain.ConversationID][]domain.Interval
	messages      map[domain.MessageID]*domain.Event
	watched       map[domain.UserID][]domain.UserID
	announcements []domain.Announcement // in their order
	made          byte
}

func newStore(convs ...*domain.Conversation) *store {
	s := &store{
		users:         directory(),
		conversations: make(map[domain.ConversationID]*domain.Conversation),
		past:          make(map[domain.UserID]map[domain.ConversationID][]domain.Interval),
		messages:      make(map[domain.MessageID]*domain.Event),
		made:          100,
	}
	for _, c := range convs {
		s.conversations[c.ID] = c
		for _, p := range c.Participants {
			s.joined(p.UserID, c.ID, p.JoinedSeq)
		}
	}
	return s
}

func (s *store) joined(u domain.UserID, c domain.ConversationID, seq domain.Seq) {
	if s.past[u] == nil {
		s.past[u] = make(map[domain.ConversationID][]domain.Interval)
	}
	s.past[u][c] = append(s.past[u][c], domain.Interval{From: seq})
}

func (s *store) left(u domain.UserID, c domain.ConversationID, seq domain.Seq) {
	s.past[u][c][len(s.past[u][c])-1].To = seq
}

// announced tells users of tree 1 something; n is its id.
func (s *store) announced(n byte, to ...domain.UserID) {
	sender := service().Initiator()
	s.announcements = append(s.announcements, domain.Announcement{
		ID: domain.AnnouncementID{n}, ClientID: fmt.Sprint("a-", n), Sender: &sender, Time: now, Content: domain.Content{Text: "hello"},
		Priority: "high", Push: domain.RawObject(`{"badge":1}`), Expires: now + 1, Number: int64(n), By: service().Sender(), Root: 1, Recipients: to,
	})
}

// said puts a message of a user into a conversation, at the number.
func (s *store) said(c domain.ConversationID, seq domain.Seq, u domain.UserID, text string) domain.MessageID {
	e := &domain.Event{
		Type: domain.EventSendMessage, Time: now, Initiator: user(u).Initiator(), Action: "sendMessage", Sender: domain.SenderID(u),
		Message: &domain.Message{
			Sender: &domain.Initiator{UserID: u, Username: person(u).Username}, Time: now, Content: domain.Content{Text: text},
		},
	}
	e.At(c, seq)
	s.messages[e.Message.ID] = e
	return e.Message.ID
}

// heads gives what a decision on the command may look at.
func (s *store) heads(p domain.Principal, c domain.Command) *domain.Heads {
	n := c.Needs(p)
	h := &domain.Heads{
		Now: now, NewID: conversationID(s.made + 1), Limits: domain.DefaultLimits(),
		Conversation: s.conversations[n.Conversation],
	}
	for _, id := range n.Conversations {
		if conv := s.conversations[id]; conv != nil {
			h.Conversations = append(h.Conversations, conv)
		}
	}
	for _, u := range s.users {
		if slices.ContainsFunc(n.Users, func(r domain.UserRef) bool { return r.Is(u) }) {
			h.Users = append(h.Users, u)
		}
		if n.Self && u.ID == p.User {
			u.Own = &domain.Own{}
			h.Self = &u
		}
		if n.Watched && slices.Contains(s.watched[p.User], u.ID) {
			h.Watched = append(h.Watched, u)
		}
	}
	slices.Reverse(h.Users) // in no order
	if q := n.Announcements; q != nil {
		h.Announcements = s.announcementsOf(p.User, *q)
	}
	if i := slices.IndexFunc(s.announcements, func(a domain.Announcement) bool { return a.ID == n.Announcement }); i >= 0 {
		h.Announcement = &s.announcements[i]
	}
	if n.Message > 0 {
		h.Message = s.messages[domain.NewMessageID(n.Conversation, n.Message)]
	}
	if n.Alone && h.Conversation != nil {
		alone := *h.Conversation
		alone.Participants = slices.DeleteFunc(slices.Clone(alone.Participants), func(q domain.Participant) bool { return q.UserID != p.User })
		h.Conversation = &alone
	}
	if n.List != nil {
		s.list(h, *n.List)
	}
	if n.Past && p.IsUser() {
		h.Past = make(map[domain.ConversationID][]domain.Interval)
		for _, id := range append([]domain.ConversationID{n.Conversation}, n.Conversations...) {
			if past := s.past[p.User][id]; past != nil {
				h.Past[id] = past
			}
		}
	}
	return h
}

// list gives a page of conversations.
func (s *store) list(h *domain.Heads, q domain.ConversationQuery) {
	for _, id := range slices.SortedFunc(maps.Keys(s.conversations), func(a, b domain.ConversationID) int { return bytes.Compare(a[:], b[:]) }) {
		c := s.conversations[id]
		_, part := c.Participant(q.Member)
		switch {
		case c.Removed, bytes.Compare(id[:], q.After[:]) <= 0, len(h.Listed) == q.Limit, q.Public && !c.PublicJoin:
		case q.Member != 0 && !part, q.Member == 0 && q.Root != 0 && c.Root != q.Root:
		case q.Account != 0 && c.Account != q.Account && c.Account != q.Root:
		default:
			h.Listed = append(h.Listed, id)
			if q.Whole {
				h.Conversations = append(h.Conversations, c)
			}
		}
	}
}

// decide decides, once more when a unique key was found taken, as stores do.
func (s *store) decide(t testing.TB, p domain.Principal, c domain.Command) (domain.Decision, error) {
	t.Helper()
	h := s.heads(p, c)
	d, err := decide(t, h, p, c)
	if err != nil || d.Conversation == nil || d.Conversation.UniqueKey == "" {
		return d, err
	}
	for _, other := range s.conversations {
		if other.UniqueKey == d.Conversation.UniqueKey && other.ID != d.Conversation.ID {
			h.Existing = other
			return decide(t, h, p, c)
		}
	}
	return d, nil
}

// decide is Decide, and checks on every call what has to hold for all of them: the arguments are as they were, the same
// question has the same answer, a refusal is an *Error of the catalogue and comes with nothing else.
func decide(t testing.TB, h *domain.Heads, p domain.Principal, c domain.Command) (domain.Decision, error) {
	t.Helper()
	heads, command := deepCopy(h), deepCopy(c)
	d, err := domain.Decide(h, p, c)
	before := deepCopy(d)
	again, errAgain := domain.Decide(h, p, c)
	if diff := cmp.Diff(heads, h); diff != "" {
		t.Fatalf("%s changed the state that it was shown (-before +after):\n%s", c.Name(), diff)
	}
	if diff := cmp.Diff(command, c); diff != "" {
		t.Fatalf("%s changed the command (-before +after):\n%s", c.Name(), diff)
	}
	if diff := cmp.Diff(d, again); diff != "" {
		t.Fatalf("%s answers differently the second time (-first +second):\n%s", c.Name(), diff)
	}
	if diff := cmp.Diff(before, d); diff != "" {
		t.Fatalf("the second %s changed the answer of the first (-before +after):\n%s", c.Name(), diff)
	}
	if domain.CodeOf(err) != domain.CodeOf(errAgain) || number(err) != number(errAgain) {
		t.Fatalf("%s answers %v, then %v", c.Name(), err, errAgain)
	}
	if err == nil {
		return d, nil
	}
	var refusal *domain.Error
	if !errors.As(err, &refusal) || refusal.Detail == "" || refusal.Code == domain.Internal ||
		!slices.Contains(domain.Codes(), refusal.Code) {
		t.Fatalf("%s is refused with %#v, which is no refusal of the catalogue with a detail", c.Name(), err)
	}
	if diff := cmp.Diff(domain.Decision{}, d); diff != "" {
		t.Fatalf("%s is refused and decides something all the same:\n%s", c.Name(), diff)
	}
	return d, err
}

// number gives the number of a refusal, 0 for none.
func number(err error) int {
	if e := domain.AsError(err); e != nil {
		return e.Number
	}
	return 0
}

// same compares what was decoded: nil and empty lists are one, JSON objects are compared by meaning.
func same() cmp.Options {
	return cmp.Options{
		cmp.FilterPath(func(p cmp.Path) bool { return p.Last().Type() != reflect.TypeFor[domain.RawObject]() }, cmpopts.EquateEmpty()),
		cmp.Comparer(func(a, b domain.RawObject) bool { return (len(a) == 0) == (len(b) == 0) && a.Equal(b) }),
	}
}

// deepCopy copies v with all that it refers to. It knows the kinds of which the domain's values are made.
func deepCopy[T any](v T) T {
	return copyValue(reflect.ValueOf(&v).Elem()).Interface().(T)
}

func copyValue(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			c.Set(reflect.New(v.Type().Elem()))
			c.Elem().Set(copyValue(v.Elem()))
		}
	case reflect.Interface:
		if !v.IsNil() {
			c.Set(copyValue(v.Elem()))
		}
	case reflect.Slice:
		if !v.IsNil() {
			c.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				c.Index(i).Set(copyValue(v.Index(i)))
			}
		}
	case reflect.Map:
		if !v.IsNil() {
			c.Set(reflect.MakeMap(v.Type()))
			for _, k := range v.MapKeys() {
				c.SetMapIndex(k, copyValue(v.MapIndex(k)))
			}
		}
	case reflect.Struct:
		c.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				c.Field(i).Set(copyValue(v.Field(i)))
			}
		}
	default:
		c.Set(v)
	}
	return c
}

func TestDeepCopySharesNothing(t *testing.T) {
	// The purity tests compare with such copies: a copy that shared memory would hide every change.
	conv := room()
	conv.CustomData = domain.RawObject(`{"a":1}`)
	c := deepCopy(conv)
	if diff := cmp.Diff(conv, c); diff != "" {
		t.Fatalf("the copy differs:\n%s", diff)
	}
	c.Participants[0].LastRead, c.CustomData[2] = 99, 'b'
	if conv.Participants[0].LastRead == 99 || conv.CustomData[2] == 'b' {
		t.Fatal("the copy shares memory with the original")
	}
}
