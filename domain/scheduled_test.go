package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

func TestScheduledCommandsComeBackAsTheyWere(t *testing.T) {
	// What is sent a month later must be what was asked for, to the last field; and it always has an id, so that another
	// attempt does no harm.
	id := domain.ScheduledID{1, 15: 2}
	message := &domain.SendMessage{Conversation: conversationID(1), Meta: domain.Meta{RequestID: "r"}}
	message.Content = domain.Content{
		Text: "<hello> & \u2028", Payload: []domain.RawObject{domain.RawObject(`{"a":1.50}`)}, MessageType: 7,
		Parts:      []domain.Part{{MimeType: "a/b", Content: "00000000000000000000000000000001", Size: 3}},
		Attributes: domain.RawObject(`{"b":null}`), Mentions: &domain.Mentions{All: ptr(true)},
		Notification: &domain.Notification{Text: "x", Sound: "y"},
	}
	message.Options = &domain.Options{Receipt: true, Priority: "high", Push: domain.RawObject(`{"c":1}`)}
	told := announcement("hello", bob)
	told.To = append(told.To, domain.Named{Ref: domain.UserRef{Username: "dave@chat.acme-child"}})
	told.Expires, told.ClientID = now, "own"
	for _, c := range []domain.Command{message, told} {
		n := domain.Scheduled{ID: id}
		if err := n.Schedule(c); err != nil {
			t.Fatal(err)
		}
		if c.Common().RequestID != "" {
			t.Error("the request id is kept")
		}
		got := domain.Scheduled{ID: id, Conversation: n.Conversation, Body: n.Body, ClientID: n.ClientID}
		again, err := got.Command()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Errorf("%s:\n%s", c.Name(), diff)
		}
		if diff := cmp.Diff(n, got); diff != "" {
			t.Errorf("%s is shown as:\n%s", c.Name(), diff)
		}
	}
	if message.ClientID != id.String() || told.ClientID != "own" {
		t.Errorf("ids %q, %q", message.ClientID, told.ClientID)
	}
	if err := new(domain.Scheduled).Schedule(&domain.GetMe{}); err == nil {
		t.Error("a question was scheduled")
	}
}

func TestScheduledIDsTellRequestsApart(t *testing.T) {
	seen := make(map[domain.ScheduledID]string)
	for _, of := range []struct {
		what   string
		p      domain.Principal
		c      domain.ConversationID
		client string
	}{
		{"one", service(), conversationID(1), "a"},
		{"another conversation", service(), conversationID(2), "a"},
		{"an announcement", service(), domain.ConversationID{}, "a"},
		{"another id", service(), conversationID(1), "b"},
		{"another service", foreignService(), conversationID(1), "a"},
		{"on behalf of a user", service().OnBehalfOf(person(alice)), conversationID(1), "a"},
		{"the admin key", admin(), conversationID(1), "a"},
		{"an announcement by the admin key", admin(), domain.ConversationID{}, "a"},
		{"the same for a tree", domain.Principal{Admin: true, Root: 1}, domain.ConversationID{}, "a"},
		{"the same for another tree", domain.Principal{Admin: true, Root: 2}, domain.ConversationID{}, "a"},
	} {
		id := domain.ScheduledIDOf(of.p, of.c, of.client)
		if other, twice := seen[id]; twice {
			t.Errorf("%s has the id of %s", of.what, other)
		}
		seen[id] = of.what
		if id != domain.ScheduledIDOf(of.p, of.c, of.client) || id.String()[14] != '8' {
			t.Errorf("%s: %s", of.what, id)
		}
		if back, err := domain.ParseScheduledID(id.String()); err != nil || back != id {
			t.Errorf("%s is read as %s, %v", id, back, err)
		}
	}
}
