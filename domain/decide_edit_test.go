package domain_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

func TestEditingChangesWhatIsGivenAndNothingElse(t *testing.T) {
	conv := room()
	conv.CustomData, conv.Distinct, conv.UniqueKey = domain.RawObject(`{"a":1,"b":2}`), true, "distinct:2:x"
	s := newStore(conv)
	for name, c := range map[string]struct {
		edit   domain.ConversationEdit
		expect func(*domain.Conversation)
	}{
		"title":       {domain.ConversationEdit{Title: ptr("new")}, func(c *domain.Conversation) { c.Title = "new" }},
		"no title":    {domain.ConversationEdit{Title: ptr("")}, func(c *domain.Conversation) { c.Title = "" }},
		"public":      {domain.ConversationEdit{PublicJoin: ptr(true)}, func(c *domain.Conversation) { c.PublicJoin = true }},
		"policy":      {domain.ConversationEdit{Policy: domain.Open}, func(c *domain.Conversation) { c.Policy = domain.Open }},
		"custom data": {domain.ConversationEdit{CustomData: domain.RawObject(`{"c":3}`)}, func(c *domain.Conversation) { c.CustomData = domain.RawObject(`{"c":3}`) }},
		"none":        {domain.ConversationEdit{CustomData: domain.RawObject(`{}`)}, func(c *domain.Conversation) { c.CustomData = domain.RawObject(`{}`) }},
		"defaults": {
			domain.ConversationEdit{Permissions: flagsOf(func(p *domain.PermissionsPatch) { p.CanWrite, p.CanEditAll = ptr(false), ptr(true) })},
			func(c *domain.Conversation) { c.Permissions.CanWrite, c.Permissions.CanEditAll = false, true },
		},
		"all": {
			domain.ConversationEdit{Title: ptr("t"), PublicJoin: ptr(false), Policy: domain.Managed, CustomData: domain.RawObject(`{"d":4}`)},
			func(c *domain.Conversation) { c.Title, c.CustomData = "t", domain.RawObject(`{"d":4}`) },
		},
	} {
		d := wantNumber(t, name, s, user(alice), &domain.EditConversation{UUID: conv.ID, ConversationEdit: c.edit, Meta: domain.Meta{RequestID: "r"}}, 0)
		want := deepCopy(conv)
		want.LastSeq, want.Version, want.LastUpdate = 8, 4, now
		c.expect(want)
		if diff := cmp.Diff(want, d.Conversation); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		event := &domain.Event{
			Type: domain.EventEditConversation, Conversation: conv.ID, Seq: 8, Time: now, Action: "editConversation", RequestID: "r",
			Initiator: user(alice).Initiator(), Sender: domain.SenderID(alice), ConversationData: want,
		}
		if diff := cmp.Diff([]*domain.Event{event}, d.Events); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", name, diff)
		}
	}
	for name, edit := range map[string]domain.ConversationEdit{
		"nothing": {}, "a title of 1001": {Title: ptr(strings.Repeat("é", 1001))}, "NUL": {Title: ptr("a\x00")},
		"no policy": {Policy: "closed"}, "huge": {CustomData: domain.RawObject(fmt.Sprintf(`{"a":"%065529d"}`, 1))},
	} {
		wantNumber(t, name, s, user(alice), &domain.EditConversation{UUID: conv.ID, ConversationEdit: edit}, 1)
	}
	wantNumber(t, "nowhere", s, user(alice), &domain.EditConversation{ConversationEdit: domain.ConversationEdit{Title: ptr("x")}}, 1)
}

func TestAnOpenConversationIsEditedByAllWithinBounds(t *testing.T) {
	// Everybody may describe it, but nobody gets more power by that: neither by the policy nor by what newcomers get.
	conv := room()
	conv.Policy = domain.Open
	s := newStore(conv)
	for name, c := range map[string]struct {
		edit   domain.ConversationEdit
		number int
	}{
		"title":          {domain.ConversationEdit{Title: ptr("x"), PublicJoin: ptr(true), CustomData: domain.RawObject(`{}`)}, 0},
		"fewer defaults": {domain.ConversationEdit{Permissions: flagsOf(func(p *domain.PermissionsPatch) { p.CanWrite = ptr(false) })}, 0},
		"more defaults":  {domain.ConversationEdit{Permissions: flagsOf(func(p *domain.PermissionsPatch) { p.CanRemoveAll = ptr(true) })}, 12},
		"owners for all": {domain.ConversationEdit{Permissions: flagsOf(func(p *domain.PermissionsPatch) { p.IsOwner = ptr(true) })}, 12},
		"policy":         {domain.ConversationEdit{Policy: domain.Managed}, 12},
	} {
		command := &domain.EditConversation{UUID: conv.ID, ConversationEdit: c.edit}
		wantNumber(t, name+" by a participant", s, user(bob), command, c.number)
		wantNumber(t, name+" by an owner", s, user(alice), command, 0)
		wantNumber(t, name+" by a service", s, service(), command, 0)
	}
}

func TestADirectConversationIsNotMadePublic(t *testing.T) {
	conv := room()
	conv.Direct, conv.UniqueKey = true, "direct:1:2"
	s := newStore(conv)
	edit := func(public bool) *domain.EditConversation {
		return &domain.EditConversation{UUID: conv.ID, ConversationEdit: domain.ConversationEdit{Title: ptr("us"), PublicJoin: &public}}
	}
	wantNumber(t, "public", s, user(alice), edit(true), 34)
	d := wantNumber(t, "not public", s, user(alice), edit(false), 0)
	if d.Conversation.UniqueKey == "" || d.Conversation.Title != "us" {
		t.Errorf("%+v", d.Conversation)
	}
}

func TestARemovedConversationEndsWithThatEvent(t *testing.T) {
	conv := room()
	conv.Direct, conv.UniqueKey = true, "direct:1:2"
	s := newStore(conv)
	d := wantNumber(t, "remove", s, user(alice), &domain.RemoveConversation{UUID: conv.ID, Meta: domain.Meta{RequestID: "r"}}, 0)
	want := deepCopy(conv)
	want.Removed, want.UniqueKey, want.LastSeq, want.Version, want.LastUpdate = true, "", 8, 4, now
	if diff := cmp.Diff(want, d.Conversation); diff != "" {
		t.Errorf("conversation (-want +got):\n%s", diff)
	}
	event := &domain.Event{
		Type: domain.EventRemoveConversation, Conversation: conv.ID, Seq: 8, Time: now, Action: "removeConversation", RequestID: "r",
		Initiator: user(alice).Initiator(), Sender: domain.SenderID(alice),
	}
	if diff := cmp.Diff([]*domain.Event{event}, d.Events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(domain.Result{}, d.Result); diff != "" {
		t.Errorf("result: %s", diff)
	}
	// From then on there is nothing to be had there, but for backends.
	s.conversations[conv.ID] = d.Conversation
	wantNumber(t, "again", s, user(alice), &domain.RemoveConversation{UUID: conv.ID}, 16)
	read := &domain.RetransmitEvents{Conversation: conv.ID, From: ptr(int64(8)), To: ptr(int64(8))}
	wantNumber(t, "read", s, user(alice), read, 16)
	wantNumber(t, "read as a service", s, service(), read, 0)
	made := wantNumber(t, "the next one of the pair", s, user(bob), &domain.CreateConversation{
		Direct: true, Participants: []domain.NewParticipant{{UserRef: domain.UserRef{UserID: alice}}},
	}, 0)
	if *made.Result.Existing || made.Conversation.ID == conv.ID {
		t.Errorf("the removed one came back: %+v", made.Result)
	}
}

func TestMutingIsOnesOwnAffair(t *testing.T) {
	// No event tells of it and no version changes: it must not cost others anything.
	conv := room()
	s := newStore(conv)
	for _, muted := range []bool{true, false} {
		d := wantNumber(t, "mute", s, user(bob), &domain.MuteConversation{UUID: conv.ID, Muted: &muted}, 0)
		want := domain.Decision{
			Mute: &domain.Mute{Conversation: conv.ID, User: bob, Muted: muted}, Result: domain.Result{Conversation: conv},
		}
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("decision (-want +got):\n%s", diff)
		}
	}
	wantNumber(t, "neither", s, user(bob), &domain.MuteConversation{UUID: conv.ID}, 1)
	wantNumber(t, "nowhere", s, user(bob), &domain.MuteConversation{Muted: ptr(true)}, 1)
}
