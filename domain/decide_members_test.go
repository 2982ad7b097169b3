package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

func flagsOf(change func(*domain.PermissionsPatch)) *domain.PermissionsPatch {
	p := &domain.PermissionsPatch{}
	change(p)
	return p
}

// wantNumber runs a command that must be refused with the number; 0: that must not be refused.
func wantNumber(t *testing.T, what string, s *store, p domain.Principal, c domain.Command, want int) domain.Decision {
	t.Helper()
	d, err := s.decide(t, p, c)
	if number(err) != want {
		t.Errorf("%s: %v, want number %d", what, err, want)
	}
	return d
}

func TestWhoJoinsGetsTheDefaults(t *testing.T) {
	// Nobody decides about a newcomer in person: what joiners may do is what the conversation says, whatever they had when
	// they took part before.
	conv := room()
	conv.PublicJoin, conv.Distinct, conv.UniqueKey = true, true, "distinct:2:x"
	conv.Permissions = domain.Permissions{CanRead: true, CanEditAll: true}
	s := newStore(conv)
	d := wantNumber(t, "join", s, user(dave), &domain.JoinConversation{UUID: conv.ID, Meta: domain.Meta{RequestID: "r"}}, 0)
	me := domain.Participant{UserID: dave, Username: "dave@chat.acme-child", Permissions: conv.Permissions, JoinedSeq: 8}
	got, ok := d.Conversation.Participant(dave)
	if !ok || got != me || len(d.Conversation.Participants) != 3 {
		t.Errorf("dave takes part as %+v", got)
	}
	if d.Conversation.Distinct || d.Conversation.UniqueKey != "" || d.Conversation.Version != 4 || d.Conversation.LastUpdate != now {
		t.Errorf("the conversation is %+v", d.Conversation)
	}
	want := &domain.Event{
		Type: domain.EventEditConversation, Conversation: conv.ID, Seq: 8, Time: now, Action: "joinConversation", RequestID: "r",
		Initiator: user(dave).Initiator(), Sender: domain.SenderID(dave), ConversationData: d.Conversation,
		Participants: []domain.Participant{me},
	}
	if diff := cmp.Diff([]*domain.Event{want}, d.Events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	full := s.heads(user(dave), &domain.JoinConversation{UUID: conv.ID})
	full.Limits.Participants = 2
	if _, err := domain.Decide(full, user(dave), &domain.JoinConversation{UUID: conv.ID}); number(err) != 1 {
		t.Errorf("joining a full conversation: %v", err)
	}
	wantNumber(t, "a user that is deleted", s, user(ghost), &domain.JoinConversation{UUID: conv.ID}, 3)
}

func TestWhoLeavesIsInTheEvent(t *testing.T) {
	conv := room()
	conv.Distinct, conv.UniqueKey = true, "distinct:2:x"
	s := newStore(conv)
	d := wantNumber(t, "bob leaves", s, user(bob), &domain.LeaveConversation{UUID: conv.ID}, 0)
	if len(d.Conversation.Participants) != 1 || d.Conversation.Distinct || d.Conversation.UniqueKey != "" {
		t.Errorf("the conversation is %+v", d.Conversation)
	}
	if e := d.Events[0]; e.Action != "leaveConversation" || len(e.Participants) != 1 || e.Participants[0].UserID != bob {
		t.Errorf("the event is %+v", e)
	}
}

func TestAConversationKeepsAnOwner(t *testing.T) {
	// Without one nobody could manage it any more. Several owners may be taken out until one is left; who is alone may go as
	// well. But nobody is held: the last owner may leave, and backends still manage what is left.
	demote := func(id domain.UserID) domain.Command {
		return &domain.EditParticipants{UUID: conversationID(1), Participants: []domain.EditedParticipant{{
			UserRef: domain.UserRef{UserID: id}, Permissions: flagsOf(func(p *domain.PermissionsPatch) { p.IsOwner = ptr(false) }),
		}}}
	}
	leave := &domain.LeaveConversation{UUID: conversationID(1)}
	drop := &domain.RemoveParticipants{UUID: conversationID(1), Participants: refs(alice)}
	for name, c := range map[string]domain.Command{"leave": leave, "remove": drop, "demote": demote(alice)} {
		one, two := room(), room()
		two.Participants[1].Permissions = domain.EveryPermission()
		last := 12
		if c == domain.Command(leave) {
			last = 0
		} else {
			wantNumber(t, name+" the last owner, by a service", newStore(one), service(), c, 12)
		}
		wantNumber(t, name+" the last owner", newStore(one), user(alice), c, last)
		wantNumber(t, name+" one of two", newStore(two), user(alice), c, 0)
		alone := room()
		alone.Participants = alone.Participants[:1]
		want := 0
		if name == "demote" {
			want = 12
		}
		wantNumber(t, name+" who is alone", newStore(alone), user(alice), c, want)
	}
	ownerless := room()
	ownerless.Participants[0].Permissions = domain.DefaultPermissions()
	wantNumber(t, "leave a conversation that has none", newStore(ownerless), user(alice), leave, 0)
	both := &domain.EditParticipants{UUID: conversationID(1), Participants: []domain.EditedParticipant{
		{UserRef: domain.UserRef{UserID: alice}, Permissions: flagsOf(func(p *domain.PermissionsPatch) { p.IsOwner = ptr(false) })},
		{UserRef: domain.UserRef{UserID: bob}, Permissions: flagsOf(func(p *domain.PermissionsPatch) { p.IsOwner = ptr(true) })},
	}}
	d := wantNumber(t, "hand over", newStore(room()), user(alice), both, 0)
	if a, b := d.Conversation.Participants[0], d.Conversation.Participants[1]; a.Permissions.IsOwner || !a.Permissions.CanEditAll || !b.Permissions.IsOwner {
		t.Errorf("handed over: %+v %+v", a, b)
	}
}

func TestPermissionsAreEditedAllOrNone(t *testing.T) {
	conv := room()
	conv.Participants = append(conv.Participants, participant(dave, domain.DefaultPermissions()))
	conv.Distinct, conv.UniqueKey = true, "distinct:3:x"
	s := newStore(conv)
	edit := func(list ...domain.EditedParticipant) *domain.EditParticipants {
		return &domain.EditParticipants{UUID: conv.ID, Participants: list}
	}
	silence := flagsOf(func(p *domain.PermissionsPatch) { p.CanWrite = ptr(false) })
	promote := flagsOf(func(p *domain.PermissionsPatch) { p.IsOwner = ptr(true) })
	as := func(id domain.UserID, p *domain.PermissionsPatch) domain.EditedParticipant {
		return domain.EditedParticipant{UserRef: domain.UserRef{UserID: id}, Permissions: p}
	}
	d := wantNumber(t, "silence two", s, user(alice), edit(as(bob, silence), as(dave, silence), as(bob, flagsOf(func(p *domain.PermissionsPatch) {
		p.CanEditAll = ptr(true)
	}))), 0)
	quiet := domain.DefaultPermissions()
	quiet.CanWrite = false
	moderator := quiet
	moderator.CanEditAll = true
	want := []domain.Participant{participant(bob, moderator), participant(dave, quiet)}
	if diff := cmp.Diff(want, d.Events[0].Participants); diff != "" {
		t.Errorf("concerned (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(append([]domain.Participant{conv.Participants[0]}, want...), d.Conversation.Participants); diff != "" {
		t.Errorf("participants (-want +got):\n%s", diff)
	}
	if d.Events[0].Action != "editParticipants" || d.Conversation.Distinct || d.Conversation.UniqueKey != "" {
		t.Errorf("%+v, %+v", d.Events[0], d.Conversation)
	}

	for name, c := range map[string]struct {
		command *domain.EditParticipants
		number  int
	}{
		"a stranger among them":     {edit(as(bob, silence), as(eve, silence)), 19},
		"nobody among them":         {edit(as(bob, silence), as(404, silence)), 25},
		"another tree's among them": {edit(as(bob, silence), as(mallory, silence)), 25},
		"nobody":                    {edit(), 1},
		"no permissions":            {edit(as(bob, nil)), 1},
		"no name":                   {edit(domain.EditedParticipant{Permissions: silence}), 1},
		"nowhere":                   {&domain.EditParticipants{Participants: []domain.EditedParticipant{as(bob, silence)}}, 1},
		"too many": {edit(func() (list []domain.EditedParticipant) {
			for i := range 1001 {
				list = append(list, as(domain.UserID(i+1), silence))
			}
			return list
		}()...), 1},
	} {
		wantNumber(t, name, s, user(alice), c.command, c.number)
	}

	// A manager that is no owner leaves owners alone, and makes none.
	conv.Participants[1].Permissions.CanManageParticipants = true
	wantNumber(t, "a manager silences", s, user(bob), edit(as(dave, silence)), 0)
	wantNumber(t, "a manager silences an owner", s, user(bob), edit(as(dave, silence), as(alice, silence)), 12)
	wantNumber(t, "a manager makes an owner", s, user(bob), edit(as(dave, promote)), 12)
	wantNumber(t, "an owner makes an owner", s, user(alice), edit(as(dave, promote)), 0)
}

func TestADirectConversationStaysTheOneOfItsPair(t *testing.T) {
	// What the two may do can change; that there is one conversation between them cannot.
	conv := room()
	conv.Direct, conv.Distinct, conv.UniqueKey = true, true, "direct:1:2"
	d := wantNumber(t, "silence", newStore(conv), user(alice), &domain.EditParticipants{
		UUID: conv.ID, Participants: []domain.EditedParticipant{{
			UserRef: domain.UserRef{UserID: bob}, Permissions: flagsOf(func(p *domain.PermissionsPatch) { p.CanWrite = ptr(false) }),
		}},
	}, 0)
	if d.Conversation.UniqueKey != "direct:1:2" {
		t.Errorf("its key is %q", d.Conversation.UniqueKey)
	}
}

func TestWhoWasNeverAllowedToReadReadsNothingAfterLeaving(t *testing.T) {
	// Leaving must not be a way around a permission that was taken away.
	conv := room()
	read := &domain.RetransmitEvents{Conversation: conv.ID, From: ptr(int64(1)), Count: ptr(int64(100))}
	for name, c := range map[string]struct {
		past []domain.Interval
		to   domain.Seq
	}{
		"never":         {[]domain.Interval{{From: 1, To: -1}}, 0},
		"for a while":   {[]domain.Interval{{From: 1, To: 4}}, 4},
		"and not again": {[]domain.Interval{{From: 1, To: 4}, {From: 6, To: -1}}, 4},
	} {
		s := newStore(conv)
		s.past[eve] = map[domain.ConversationID][]domain.Interval{conv.ID: c.past}
		d, err := s.decide(t, user(eve), read)
		if c.to == 0 {
			if number(err) != 12 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || d.Page.To != c.to {
			t.Errorf("%s: %+v, %v", name, d.Page, err)
		}
	}
}
