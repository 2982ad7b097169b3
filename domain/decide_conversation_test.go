package domain_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

func with(ids ...domain.UserID) []domain.NewParticipant {
	parts := make([]domain.NewParticipant, len(ids))
	for i, id := range ids {
		parts[i].UserID = id
	}
	return parts
}

func refs(ids ...domain.UserID) []domain.UserRef {
	r := make([]domain.UserRef, len(ids))
	for i, id := range ids {
		r[i].UserID = id
	}
	return r
}

func members(c *domain.Conversation) []domain.UserID {
	ids := []domain.UserID{}
	for _, p := range c.Participants {
		ids = append(ids, p.UserID)
	}
	return ids
}

func TestCreatorOwnsTheConversation(t *testing.T) {
	// The creator has every right, whatever the request says about it; the others get the conversation's defaults,
	// which the creation sets, unless they have their own.
	c := &domain.CreateConversation{
		Title: "team", PublicJoin: true, Policy: domain.Open, CustomData: domain.RawObject(`{"a":1}`),
		Permissions: &domain.PermissionsPatch{CanWrite: ptr(false)},
		Participants: []domain.NewParticipant{
			{UserRef: domain.UserRef{UserID: alice}, Permissions: &domain.PermissionsPatch{IsOwner: ptr(false), CanRead: ptr(false)}},
			{UserRef: domain.UserRef{Username: person(bob).Username}},
			{UserRef: domain.UserRef{UserID: dave}, Permissions: &domain.PermissionsPatch{CanWrite: ptr(true), CanEdit: ptr(false)}},
			{UserRef: domain.UserRef{UserID: bob}, Permissions: &domain.PermissionsPatch{IsOwner: ptr(true)}}, // named twice
		},
		Meta: domain.Meta{RequestID: "r"},
	}
	s := newStore()
	d, err := s.decide(t, user(alice), c)
	if err != nil {
		t.Fatal(err)
	}
	defaults := domain.DefaultPermissions()
	defaults.CanWrite = false
	daves := domain.DefaultPermissions()
	daves.CanEdit = false
	want := &domain.Conversation{
		ID: conversationID(101), Title: "team", PublicJoin: true, Policy: domain.Open, CreatedTime: now, LastUpdate: now,
		LastSeq: 1, CustomData: domain.RawObject(`{"a":1}`), Permissions: defaults,
		Participants: []domain.Participant{
			participant(alice, domain.EveryPermission()), participant(bob, defaults), participant(dave, daves),
		},
		Root: 1, Account: 1, Version: 1,
	}
	if diff := cmp.Diff(want, d.Conversation); diff != "" {
		t.Errorf("conversation (-want +got):\n%s", diff)
	}
	wantEvent := &domain.Event{
		Type: domain.EventCreateConversation, Conversation: want.ID, Seq: 1, Time: now, Action: "createConversation",
		Initiator: domain.Initiator{UserID: alice, Username: "alice@chat.acme", Device: "phone"}, RequestID: "r",
		ConversationData: want, Sender: domain.SenderID(alice),
	}
	if diff := cmp.Diff([]*domain.Event{wantEvent}, d.Events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(domain.Result{Conversation: want, Existing: ptr(false)}, d.Result); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

func TestManagedIsTheDefaultPolicy(t *testing.T) {
	// A client that does not ask for an open conversation must not get one.
	d, err := newStore().decide(t, user(alice), &domain.CreateConversation{})
	if err != nil || d.Conversation.Policy != domain.Managed {
		t.Errorf("policy %q, %v", d.Conversation.Policy, err)
	}
}

func TestBackendsCreateForOthers(t *testing.T) {
	// A backend takes no part itself. The admin key has no tree: the first participant decides it, and all must be of it.
	for _, tc := range []struct {
		name   string
		p      domain.Principal
		parts  []domain.NewParticipant
		number int
		root   domain.AccountID
		acct   domain.AccountID
	}{
		{"service", service(), with(bob, dave), 0, 1, 1},
		{"service, a user of another tree", service(), with(bob, mallory), 25, 0, 0},
		{"service, nobody", service(), nil, 0, 1, 1},
		{"admin", admin(), with(dave, bob), 0, 1, 11},
		{"admin, another tree", admin(), with(mallory), 0, 2, 2},
		{"admin, two trees", admin(), with(bob, mallory), 25, 0, 0},
		{"admin, nobody", admin(), nil, 1, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := newStore().decide(t, tc.p, &domain.CreateConversation{Participants: tc.parts})
			if number(err) != tc.number {
				t.Fatalf("%v, want number %d", err, tc.number)
			}
			if err != nil {
				return
			}
			if c := d.Conversation; c.Root != tc.root || c.Account != tc.acct || len(c.Participants) != len(tc.parts) {
				t.Errorf("root %d, account %d, participants %v", c.Root, c.Account, members(c))
			}
		})
	}
}

func TestEmptyConversationsAreManagedByServices(t *testing.T) {
	// A service makes a room before anybody is in it; whoever comes later takes part from there on.
	s := newStore()
	d, err := s.decide(t, service(), &domain.CreateConversation{Title: "news"})
	if err != nil || d.Conversation == nil || d.Conversation.Participants == nil || len(d.Conversation.Participants) != 0 {
		t.Fatalf("%+v, %v", d.Conversation, err)
	}
	s.conversations[d.Conversation.ID] = d.Conversation
	wantNumber(t, "a message into it", s, service(), &domain.SendMessage{
		Conversation: d.Conversation.ID, MessageRequest: domain.MessageRequest{Content: domain.Content{Text: "hi"}},
	}, 0)
	d = wantNumber(t, "somebody comes", s, service(), &domain.AddParticipants{UUID: d.Conversation.ID, Participants: with(bob)}, 0)
	if len(d.Conversation.Participants) != 1 || d.Conversation.Participants[0].JoinedSeq != 2 {
		t.Errorf("participants %v", d.Conversation.Participants)
	}
	// Without participants there is nothing that two would share.
	wantNumber(t, "distinct", s, service(), &domain.CreateConversation{Distinct: true}, 1)
	wantNumber(t, "direct", s, service(), &domain.CreateConversation{Direct: true}, 35)
}

func TestUsersWhoCannotBeBroughtIn(t *testing.T) {
	// All or nothing: one who is unknown, deleted or of another tree, and nothing happens.
	for _, bad := range []domain.UserRef{{UserID: 404}, {UserID: ghost}, {UserID: mallory}, {Username: "nobody@chat.acme"}} {
		parts := append(with(eve), domain.NewParticipant{UserRef: bad})
		for _, c := range []domain.Command{
			&domain.CreateConversation{Participants: parts},
			&domain.AddParticipants{UUID: conversationID(1), Participants: parts},
		} {
			if _, err := newStore(room()).decide(t, user(alice), c); number(err) != 25 {
				t.Errorf("%s with %+v: %v, want 25", c.Name(), bad, err)
			}
		}
	}
}

func TestDeletedUsersCreateNothing(t *testing.T) {
	// A session outlives the deletion of its user for a moment; what it does then must not bring the user back.
	_, err := newStore().decide(t, user(ghost), &domain.CreateConversation{Participants: with(bob)})
	if domain.CodeOf(err) != domain.NotAuthenticated {
		t.Errorf("%v", err)
	}
}

func TestDirectTakesExactlyTwoUsers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		p      domain.Principal
		parts  []domain.NewParticipant
		number int
	}{
		{"with one other", user(alice), with(bob), 0},
		{"with oneself named too", user(alice), with(alice, bob), 0},
		{"with one other, twice", user(alice), with(bob, bob), 0},
		{"alone", user(alice), nil, 35},
		{"with oneself", user(alice), with(alice), 35},
		{"with two others", user(alice), with(bob, dave), 35},
		{"by a service for two", service(), with(bob, dave), 0},
		{"by a service for one", service(), with(bob), 35},
		{"by a service for one, twice", service(), with(bob, bob), 35},
		{"with an unknown user", user(alice), with(404), 25},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := newStore().decide(t, tc.p, &domain.CreateConversation{Direct: true, Participants: tc.parts})
			if number(err) != tc.number {
				t.Errorf("%v, want number %d", err, tc.number)
			}
		})
	}
}

func TestOneDirectConversationPerPair(t *testing.T) {
	// Whoever of the two asks, and whatever else it asks for, gets the one that exists.
	s := newStore()
	first, err := s.decide(t, user(alice), &domain.CreateConversation{Direct: true, Participants: with(bob)})
	if err != nil {
		t.Fatal(err)
	}
	s.conversations[first.Conversation.ID] = first.Conversation
	s.made++
	for _, c := range []*domain.CreateConversation{
		{Direct: true, Participants: with(alice)},
		{Direct: true, Participants: with(bob, alice), Title: "other", CustomData: domain.RawObject(`{"other":true}`)},
		{Direct: true, Distinct: true, Participants: with(alice), CustomData: domain.RawObject(`{"other":true}`)},
	} {
		d, err := s.decide(t, user(bob), c)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(domain.Decision{Result: domain.Result{Conversation: first.Conversation, Existing: ptr(true)}}, d); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	// Another pair, or a conversation that is not direct, is another one.
	for _, c := range []*domain.CreateConversation{
		{Direct: true, Participants: with(dave)}, {Participants: with(bob)}, {Distinct: true, Participants: with(bob)},
	} {
		if d, err := s.decide(t, user(alice), c); err != nil || d.Conversation == nil || *d.Result.Existing {
			t.Errorf("%+v: %v, existing", c, err)
		}
	}
}

func TestDistinctIsFoundByItsSetOfUsers(t *testing.T) {
	// The same set finds the existing one; with other customData the caller learns which one is in its way.
	s := newStore()
	create := func(p domain.Principal, data string, ids ...domain.UserID) (domain.Decision, error) {
		return s.decide(t, p, &domain.CreateConversation{
			Distinct: true, Participants: with(ids...), CustomData: domain.RawObject(data),
		})
	}
	first, err := create(user(alice), `{"n":1,"m":[1,2]}`, bob, dave)
	if err != nil {
		t.Fatal(err)
	}
	s.conversations[first.Conversation.ID] = first.Conversation
	s.made++
	for _, tc := range []struct {
		name     string
		p        domain.Principal
		data     string
		ids      []domain.UserID
		number   int
		existing bool
	}{
		{"the same", user(alice), `{"n":1,"m":[1,2]}`, []domain.UserID{bob, dave}, 0, true},
		{"in another order, by another of them", user(dave), `{"m":[1,2],"n":1}`, []domain.UserID{bob, alice}, 0, true},
		{"no data", user(alice), ``, []domain.UserID{dave, bob}, 0, true},
		{"empty data", user(alice), `{}`, []domain.UserID{dave, bob}, 0, true},
		{"by a service", service(), ``, []domain.UserID{alice, dave, bob}, 0, true},
		{"numbers spelled differently", user(alice), `{"m":[1.0,20e-1],"n":1}`, []domain.UserID{dave, bob}, 0, true},
		{"other data", user(alice), `{"n":2}`, []domain.UserID{bob, dave}, 108, false},
		{"fewer users", user(alice), `{"n":2}`, []domain.UserID{bob}, 0, false},
		{"more users", user(alice), `{"n":2}`, []domain.UserID{bob, dave, eve}, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := create(tc.p, tc.data, tc.ids...)
			if number(err) != tc.number {
				t.Fatalf("%v, want number %d", err, tc.number)
			}
			if err != nil {
				if e := domain.AsError(err); e.Conversation == nil || e.Conversation.ID != first.Conversation.ID {
					t.Errorf("the refusal does not carry the existing conversation: %+v", e)
				}
				return
			}
			if *d.Result.Existing != tc.existing || (d.Result.Conversation.ID == first.Conversation.ID) != tc.existing {
				t.Errorf("existing %t, want %t", *d.Result.Existing, tc.existing)
			}
		})
	}
}

func TestNumbersBeyondFloatsAreNotTheSame(t *testing.T) {
	// Application ids of 64 bits differ in digits that a float64 does not hold: two such objects must not be one.
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{`{"id":9007199254740993}`, `{"id":9007199254740992}`, false},
		{`{"id":12345678901234567890123}`, `{"id":12345678901234567890124}`, false},
		{`{"n":1e400}`, `{"n":1e401}`, false},
		{`{"n":1e400,"m":0}`, `{"m":0,"n":10e399}`, true},
		{`{"n":1}`, `{"n":1.000}`, true},
		{`{"n":100}`, `{"n":1E+2}`, true},
		{`{"n":0.001}`, `{"n":1e-3}`, true},
		{`{"n":-0}`, `{"n":0.0e7}`, true},
		{`{"n":-1}`, `{"n":1}`, false},
		{`{"n":"1"}`, `{"n":1}`, false},
		{`{"n":1e99999999999999999999}`, `{"n":1e99999999999999999998}`, false},
		{`{"s":"\u0041"}`, `{"s":"A"}`, true},
		{`{"a":null}`, `{}`, false},
		{``, `{}`, true},
		{`{"a":{"b":[1,{"c":2}]}}`, `{"a":{"b":[1,{"c":2.0}]}}`, true},
		{`{"a":[1,2]}`, `{"a":[2,1]}`, false},
	} {
		a, b := domain.RawObject(tc.a), domain.RawObject(tc.b)
		if a.Equal(b) != tc.want || b.Equal(a) != tc.want {
			t.Errorf("%s equal %s: want %t", a, b, tc.want)
		}
	}
}

func TestAddingPeople(t *testing.T) {
	conv := room()
	conv.Distinct, conv.UniqueKey = true, "distinct:2:x"
	conv.Permissions.CanEdit = false
	c := &domain.AddParticipants{
		UUID: conv.ID,
		Participants: []domain.NewParticipant{
			{UserRef: domain.UserRef{UserID: carol}},
			{UserRef: domain.UserRef{Username: person(dave).Username}, Permissions: &domain.PermissionsPatch{IsOwner: ptr(true)}},
			{UserRef: domain.UserRef{UserID: dave}}, // named twice
		},
	}
	d, err := newStore(conv).decide(t, user(alice), c)
	if err != nil {
		t.Fatal(err)
	}
	carols := domain.Participant{UserID: carol, Username: "carol@chat.acme", Permissions: conv.Permissions, JoinedSeq: 8}
	daves := domain.Participant{UserID: dave, Username: "dave@chat.acme-child", Permissions: conv.Permissions, JoinedSeq: 8}
	daves.Permissions.IsOwner = true
	want := deepCopy(conv)
	want.Participants = append(want.Participants, carols, daves)
	want.LastSeq, want.Version, want.LastUpdate, want.Distinct, want.UniqueKey = 8, 4, now, false, ""
	if diff := cmp.Diff(want, d.Conversation); diff != "" {
		t.Errorf("conversation (-want +got):\n%s", diff)
	}
	e := d.Events[0]
	if e.Type != domain.EventEditConversation || e.Action != "addParticipants" || e.Seq != 8 {
		t.Errorf("event %s, action %s, seq %d", e.Type, e.Action, e.Seq)
	}
	if diff := cmp.Diff([]domain.Participant{carols, daves}, e.Participants); diff != "" {
		t.Errorf("participants concerned (-want +got):\n%s", diff)
	}
}

func TestRemovingPeople(t *testing.T) {
	conv := room()
	conv.Participants = append(conv.Participants, participant(ghost, domain.DefaultPermissions()))
	d, err := newStore(conv).decide(t, user(alice), &domain.RemoveParticipants{
		UUID: conv.ID, Participants: refs(ghost, bob, ghost), // a deleted one, and one named twice
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]domain.UserID{alice}, members(d.Conversation)); diff != "" {
		t.Errorf("participants (-want +got):\n%s", diff)
	}
	e := d.Events[0]
	if e.Type != domain.EventEditConversation || e.Action != "removeParticipants" || e.Seq != 8 || len(e.Participants) != 2 ||
		e.Participants[0].UserID != ghost || e.Participants[1].UserID != bob {
		t.Errorf("event %+v", e)
	}
}

func TestMembershipRefusals(t *testing.T) {
	manager := domain.DefaultPermissions()
	manager.CanManageParticipants = true
	id := conversationID(1)
	add := func(parts ...domain.NewParticipant) domain.Command {
		return &domain.AddParticipants{UUID: id, Participants: parts}
	}
	remove := func(ids ...domain.UserID) domain.Command {
		return &domain.RemoveParticipants{UUID: id, Participants: refs(ids...)}
	}
	asOwner := domain.NewParticipant{
		UserRef: domain.UserRef{UserID: dave}, Permissions: &domain.PermissionsPatch{IsOwner: ptr(true)},
	}
	for _, tc := range []struct {
		name    string
		p       domain.Principal
		command domain.Command
		number  int
	}{
		{"adding who is in", user(alice), add(with(dave, bob)...), 13},
		{"adding an owner without being one", user(bob), add(asOwner), 12},
		{"adding an owner by an owner", user(alice), add(asOwner), 0},
		{"adding an owner by a service", service(), add(asOwner), 0},
		{"removing who is not in", user(alice), remove(bob, dave), 19},
		{"removing who does not exist", user(alice), remove(404), 25},
		{"removing who is of another tree", user(alice), remove(mallory), 25},
		{"removing an owner without being one", user(bob), remove(alice), 12},
		{"removing oneself as a manager", user(bob), remove(bob), 0},
		{"removing the last owner", user(alice), remove(alice), 12},
		{"removing the last owner by a service", service(), remove(alice), 12},
		{"removing everybody", user(alice), remove(alice, bob), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conv := room()
			conv.Participants[1].Permissions = manager
			if _, err := newStore(conv).decide(t, tc.p, tc.command); number(err) != tc.number {
				t.Errorf("%v, want number %d", err, tc.number)
			}
		})
	}
}

func TestOpenConversationsHandOutNoMoreThanTheirDefaults(t *testing.T) {
	// In an open conversation everybody may add. Who could add with more rights than it has would add a second account
	// of its own as a manager, and have them all.
	conv := room()
	conv.Policy = domain.Open
	for _, tc := range []struct {
		name   string
		p      domain.Principal
		patch  *domain.PermissionsPatch
		number int
	}{
		{"the defaults", user(bob), nil, 0},
		{"less", user(bob), &domain.PermissionsPatch{CanWrite: ptr(false)}, 0},
		{"the defaults spelled out", user(bob), &domain.PermissionsPatch{CanWrite: ptr(true), CanEditAll: ptr(false)}, 0},
		{"managing", user(bob), &domain.PermissionsPatch{CanManageParticipants: ptr(true)}, 12},
		{"editing others' messages", user(bob), &domain.PermissionsPatch{CanEditAll: ptr(true)}, 12},
		{"removing others' messages", user(bob), &domain.PermissionsPatch{CanRemoveAll: ptr(true)}, 12},
		{"managing, by the owner", user(alice), &domain.PermissionsPatch{CanManageParticipants: ptr(true)}, 0},
		{"managing, by a service", service(), &domain.PermissionsPatch{CanManageParticipants: ptr(true)}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &domain.AddParticipants{
				UUID:         conv.ID,
				Participants: []domain.NewParticipant{{UserRef: domain.UserRef{UserID: dave}, Permissions: tc.patch}},
			}
			if _, err := newStore(conv).decide(t, tc.p, c); number(err) != tc.number {
				t.Errorf("%v, want number %d", err, tc.number)
			}
		})
	}
}

func crowd(n int) ([]domain.User, []domain.NewParticipant) {
	users, parts := make([]domain.User, n), make([]domain.NewParticipant, n)
	for i := range n {
		id := domain.UserID(1000 + i)
		users[i] = domain.User{ID: id, Username: domain.Username(fmt.Sprintf("user-%d@chat.acme", id)), Root: 1, Account: 1}
		parts[i].Username = users[i].Username
	}
	return users, parts
}

func TestAtMostAThousandParticipants(t *testing.T) {
	// The limit holds for the conversation, not only for one request.
	users, parts := crowd(1000)
	s := newStore(room())
	s.users = append(s.users, users...)
	for _, tc := range []struct {
		name   string
		p      domain.Principal
		c      domain.Command
		number int
	}{
		{"creator and 999 more", user(alice), &domain.CreateConversation{Participants: parts[:999]}, 0},
		{"creator and 1000 more", user(alice), &domain.CreateConversation{Participants: parts}, 1},
		{"1000 by a service", service(), &domain.CreateConversation{Participants: parts}, 0},
		{"998 to 2", user(alice), &domain.AddParticipants{UUID: conversationID(1), Participants: parts[:998]}, 0},
		{"999 to 2", user(alice), &domain.AddParticipants{UUID: conversationID(1), Participants: parts[:999]}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := s.heads(tc.p, tc.c)
			if _, err := domain.Decide(h, tc.p, tc.c); number(err) != tc.number {
				t.Errorf("%v, want number %d", err, tc.number)
			}
		})
	}
}

func TestLookingAtConversations(t *testing.T) {
	// getConversations gives each once, in the order asked for, and fails as a whole like the other lists do.
	one, two, other := room(), room(), room()
	two.ID = conversationID(2)
	other.ID, other.Participants = conversationID(3), []domain.Participant{participant(bob, domain.EveryPermission())}
	s := newStore(one, two, other)
	ask := func(ids ...domain.ConversationID) ([]*domain.Conversation, error) {
		d, err := s.decide(t, user(alice), &domain.GetConversations{UUIDs: ids[:1], UUIDsToo: ids[1:]})
		return d.Result.Conversations, err
	}
	got, err := ask(two.ID, one.ID, two.ID)
	if err != nil || len(got) != 2 || got[0].ID != two.ID || got[1].ID != one.ID {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ask(one.ID, other.ID); number(err) != 12 {
		t.Errorf("with one of strangers: %v", err)
	}
	if _, err := ask(one.ID, conversationID(9)); number(err) != 8 {
		t.Errorf("with one that is missing: %v", err)
	}
}

func TestEmptyListsAreLists(t *testing.T) {
	// Clients walk through lists without asking first; null in the place of an empty one breaks them.
	conv := room()
	conv.Participants = conv.Participants[:1]
	d, err := newStore(conv).decide(t, user(alice), &domain.RemoveParticipants{UUID: conv.ID, Participants: refs(alice)})
	if err != nil {
		t.Fatal(err)
	}
	emptied := jsonOf(t, d.Result)["conversation"].(map[string]any)
	if _, ok := emptied["participants"].([]any); !ok {
		t.Errorf("participants: %v", emptied["participants"])
	}
	d, err = newStore().decide(t, user(alice), &domain.GetMe{})
	if err != nil {
		t.Fatal(err)
	}
	me := jsonOf(t, d.Result)["user"].(map[string]any)
	for _, list := range []string{"conversationsList", "leaveConversationList", "notifications"} {
		if _, ok := me[list].([]any); !ok {
			t.Errorf("%s: %v", list, me[list])
		}
	}
}

func jsonOf(t *testing.T, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
