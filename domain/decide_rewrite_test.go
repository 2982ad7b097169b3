package domain_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

// chat gives a room with a message of bob's.
func chat() (*store, *domain.Conversation, domain.MessageID) {
	conv := room()
	s := newStore(conv)
	id := s.said(conv.ID, 2, bob, "hello")
	m := s.messages[id].Message
	m.ClientID, m.Attributes, m.Receipt = "m-1", domain.RawObject(`{"a":1}`), true
	m.Mentions, m.Push = &domain.Mentions{All: new(true)}, domain.RawObject(`{"p":1}`)
	m.Payload, m.Parts = []domain.RawObject{domain.RawObject(`{"b":2}`)}, []domain.Part{{MimeType: "text/plain", Body: "x"}}
	return s, conv, id
}

func TestAnEditedMessageReadsAsEdited(t *testing.T) {
	// What is given replaces, what is absent stays; the sendMessage event shows the present state from then on.
	s, conv, id := chat()
	old := s.messages[id]
	d := wantNumber(t, "edit", s, user(bob), &domain.EditMessage{
		Conversation: conv.ID, Message: id, Meta: domain.Meta{RequestID: "r"},
		MessageEdit: domain.MessageEdit{Text: ptr("bye"), Parts: []domain.Part{}, Attributes: domain.RawObject(`{}`)},
	}, 0)
	want := *old.Message
	want.Text, want.Parts, want.Attributes, want.EditedTime, want.EditCount = "bye", []domain.Part{}, nil, now, 1
	event := &domain.Event{
		Type: domain.EventEditMessage, Conversation: conv.ID, Seq: 8, Time: now, Action: "editMessage", RequestID: "r",
		Initiator: user(bob).Initiator(), Sender: domain.SenderID(bob), Message: &want,
	}
	if diff := cmp.Diff([]*domain.Event{event}, d.Events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	sent := *old
	sent.Message = &want
	if diff := cmp.Diff(&sent, d.Message); diff != "" {
		t.Errorf("the message (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(domain.Result{Message: &want}, d.Result); diff != "" || d.Conversation != nil {
		t.Errorf("result: %s, conversation %+v", diff, d.Conversation)
	}
	// Once more, counting on.
	s.messages[id] = d.Message
	d = wantNumber(t, "again", s, user(bob), &domain.EditMessage{
		Conversation: conv.ID, Message: id, MessageEdit: domain.MessageEdit{Payload: []domain.RawObject{domain.RawObject(`{"c":3}`)}},
	}, 0)
	if m := d.Message.Message; m.EditCount != 2 || m.Text != "bye" || string(m.Payload[0]) != `{"c":3}` {
		t.Errorf("edited again: %+v", m)
	}
}

func TestWhoChangesAnothersMessageGivesAReason(t *testing.T) {
	s, conv, id := chat()
	remove := func(r *domain.Reason) *domain.RemoveMessage {
		return &domain.RemoveMessage{Conversation: conv.ID, Message: id, Reason: r}
	}
	edit := func(r *domain.Reason) *domain.EditMessage {
		return &domain.EditMessage{Conversation: conv.ID, Message: id, MessageEdit: domain.MessageEdit{Text: ptr("***"), Reason: r}}
	}
	mine := &domain.Reason{Code: 7, Detail: "rude"}
	for name, c := range map[string]struct {
		p      domain.Principal
		given  *domain.Reason
		want   int // code of the reason; 0: none
		number int
	}{
		"the sender":                {user(bob), nil, 0, 0},
		"the sender by a backend":   {service().OnBehalfOf(person(bob)), nil, 0, 0},
		"a moderator":               {user(alice), nil, -1, 0},
		"a backend":                 {service(), nil, -2, 0},
		"a backend with its own":    {service(), mine, 7, 0},
		"the admin":                 {admin(), mine, 7, 0},
		"a moderator with its own":  {user(alice), mine, 0, 1},
		"the sender with one":       {user(bob), mine, 0, 1},
		"a backend with ours":       {service(), &domain.Reason{Code: -1}, 0, 1},
		"a backend without a code":  {service(), &domain.Reason{Detail: "x"}, 0, 1},
		"a backend with a long one": {service(), &domain.Reason{Code: 1, Detail: strings.Repeat("x", 1001)}, 0, 1},
	} {
		for _, command := range []domain.Command{edit(c.given), remove(c.given)} {
			d := wantNumber(t, name, s, c.p, command, c.number)
			if c.number != 0 {
				continue
			}
			r := d.Events[0].Reason
			if (r == nil) != (c.want == 0) || r != nil && (r.Code != c.want || r.Detail == "") {
				t.Errorf("%s: %s with reason %+v", name, command.Name(), r)
			}
		}
	}
}

func TestARemovedMessageIsATombstone(t *testing.T) {
	s, conv, id := chat()
	old := s.messages[id]
	d := wantNumber(t, "remove", s, user(bob), &domain.RemoveMessage{Conversation: conv.ID, Message: id, Meta: domain.Meta{RequestID: "r"}}, 0)
	event := &domain.Event{
		Type: domain.EventRemoveMessage, Conversation: conv.ID, Seq: 8, Time: now, Action: "removeMessage", RequestID: "r",
		Initiator: user(bob).Initiator(), Sender: domain.SenderID(bob),
		Message: &domain.Message{ID: id, Conversation: conv.ID, Seq: 2},
	}
	if diff := cmp.Diff([]*domain.Event{event}, d.Events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	sent := *old
	sent.Message = &domain.Message{
		ID: id, Conversation: conv.ID, Seq: 2, ClientID: "m-1", Sender: old.Message.Sender, Time: now, Receipt: true, Removed: true,
	}
	if diff := cmp.Diff(&sent, d.Message); diff != "" {
		t.Errorf("the message (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(domain.Result{}, d.Result); diff != "" {
		t.Errorf("result: %s", diff)
	}
	s.messages[id] = d.Message
	wantNumber(t, "remove again", s, user(bob), &domain.RemoveMessage{Conversation: conv.ID, Message: id}, 11)
	wantNumber(t, "edit what is removed", s, user(alice), &domain.EditMessage{
		Conversation: conv.ID, Message: id, MessageEdit: domain.MessageEdit{Text: ptr("x")},
	}, 11)
}

func TestMessagesThatCannotBeRewritten(t *testing.T) {
	s, conv, id := chat()
	whole := s.messages[id].Message
	edit := func(change func(*domain.EditMessage)) *domain.EditMessage {
		c := &domain.EditMessage{Conversation: conv.ID, Message: id}
		change(c)
		return c
	}
	texts := func(text string) *domain.EditMessage { return edit(func(c *domain.EditMessage) { c.Text = &text }) }
	other := conversationID(9)
	for name, c := range map[string]struct {
		command domain.Command
		number  int
	}{
		"nothing given":               {edit(func(*domain.EditMessage) {}), 1},
		"no conversation":             {&domain.EditMessage{Message: id, MessageEdit: domain.MessageEdit{Text: ptr("x")}}, 1},
		"no message":                  {&domain.EditMessage{Conversation: conv.ID, MessageEdit: domain.MessageEdit{Text: ptr("x")}}, 1},
		"remove nothing":              {&domain.RemoveMessage{Conversation: conv.ID}, 1},
		"too long":                    {texts(strings.Repeat("ü", 5001)), 23},
		"as long as can be":           {texts(strings.Repeat("ü", 5000)), 0},
		"payload without an object":   {edit(func(c *domain.EditMessage) { c.Payload = []domain.RawObject{nil} }), 1},
		"17 parts":                    {edit(func(c *domain.EditMessage) { c.Parts = make([]domain.Part, 17) }), 23},
		"an event that is no message": {&domain.RemoveMessage{Conversation: conv.ID, Message: domain.NewMessageID(conv.ID, 1)}, 10},
		"an event to come":            {&domain.RemoveMessage{Conversation: conv.ID, Message: domain.NewMessageID(conv.ID, 99)}, 10},
		"a message of another":        {&domain.RemoveMessage{Conversation: conv.ID, Message: domain.NewMessageID(other, 2)}, 10},
	} {
		wantNumber(t, name, s, user(bob), c.command, c.number)
	}
	empty := edit(func(c *domain.EditMessage) {
		c.Text, c.Payload, c.Parts, c.Attributes = ptr(""), []domain.RawObject{}, []domain.Part{}, domain.RawObject(`{}`)
	})
	wantNumber(t, "nothing left", s, user(bob), empty, 1)
	// The parts that stay count for the size of the whole.
	whole.Attributes = domain.RawObject(`{"a":"` + strings.Repeat("x", 60<<10) + `"}`)
	wantNumber(t, "too much together", s, user(bob), texts(strings.Repeat("ü", 5000)), 23)
}

func TestAnUberConversationHidesMessagesFromEditors(t *testing.T) {
	// To whoever may not know that a message exists, it does not exist.
	s, conv, id := chat()
	conv.Uber = true
	conv.Participants = append(conv.Participants, participant(carol, domain.EveryPermission()))
	s.joined(carol, conv.ID, 3)
	for _, c := range []domain.Command{
		&domain.RemoveMessage{Conversation: conv.ID, Message: id},
		&domain.EditMessage{Conversation: conv.ID, Message: id, MessageEdit: domain.MessageEdit{Text: ptr("x")}},
	} {
		wantNumber(t, c.Name()+" from before", s, user(carol), c, 10)
		wantNumber(t, c.Name(), s, user(alice), c, 0)
		wantNumber(t, c.Name()+" by a service", s, service(), c, 0)
	}
}

func TestEventsShowWhatBecameOfTheirMessage(t *testing.T) {
	// What is kept of the log in memory must read like the log itself, in whatever order it is told of changes.
	s, conv, id := chat()
	sent := s.messages[id]
	edit := func(text string) *domain.Event {
		d := wantNumber(t, "edit", s, user(bob), &domain.EditMessage{
			Conversation: conv.ID, Message: id, MessageEdit: domain.MessageEdit{Text: &text},
		}, 0)
		s.messages[id] = d.Message
		conv.LastSeq++
		return d.Events[0]
	}
	first, second := edit("first"), edit("second")
	removal := wantNumber(t, "remove", s, user(bob), &domain.RemoveMessage{Conversation: conv.ID, Message: id}, 0)
	gone := removal.Events[0]
	state := func(e *domain.Event, by ...*domain.Event) string {
		for _, b := range by {
			if now, ok := e.Amended(b); ok {
				if now == e || now.Seq != e.Seq || now.Type != e.Type || now.Initiator != e.Initiator {
					t.Errorf("%+v became %+v", e, now)
				}
				e = now
			}
		}
		if e.Message.Removed {
			if diff := cmp.Diff(removal.Message.Message.Content, e.Message.Content); diff != "" || e.Message.Push != nil {
				t.Errorf("something is left: %s", diff)
			}
			return "removed"
		}
		return e.Message.Text
	}
	for name, c := range map[string]struct{ got, want string }{
		"nothing happened":         {state(sent), "hello"},
		"edited":                   {state(sent, first), "first"},
		"edited twice":             {state(sent, first, second), "second"},
		"told of the second first": {state(sent, second, first), "second"},
		"the first edit":           {state(first, second), "second"},
		"the second edit":          {state(second, first), "second"},
		"removed":                  {state(sent, first, gone), "removed"},
		"an edit removed":          {state(first, gone), "removed"},
		"told of it first":         {state(sent, gone, first), "removed"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", name, c.got, c.want)
		}
	}
	// As the store has it: what was edited shows the removal.
	blank := *first
	m := *first.Message
	m.Content, m.Removed = domain.Content{}, true
	blank.Message = &m
	if got := state(sent, &blank); got != "removed" {
		t.Errorf("by an edit that was removed: %q", got)
	}
	if _, ok := gone.Amended(second); ok {
		t.Error("a removal was amended")
	}
	other := *second
	elsewhere := *second.Message
	elsewhere.ID = domain.NewMessageID(conv.ID, 3)
	other.Message = &elsewhere
	if _, ok := sent.Amended(&other); ok {
		t.Error("amended by what is about another message")
	}
	if _, ok := sent.Amended(&domain.Event{Type: domain.EventEditConversation, Seq: 99}); ok {
		t.Error("amended by what is about no message")
	}
}

func TestEditingIsNoWayToRead(t *testing.T) {
	// Ids of messages can be computed: whoever may edit all but read none could walk the log by editing it.
	s, conv, id := chat()
	for i := range conv.Participants {
		if p := &conv.Participants[i]; p.UserID == alice {
			p.Permissions = domain.Permissions{CanEditAll: true}
		}
	}
	d := wantNumber(t, "edit", s, user(alice), &domain.EditMessage{
		Conversation: conv.ID, Message: id, MessageEdit: domain.MessageEdit{Attributes: domain.RawObject(`{"b":2}`)},
	}, 0)
	if m := d.Result.Message; m.ID != id || m.Text != "" || len(m.Parts)+len(m.Payload) > 0 || m.Mentions != nil || string(m.Attributes) != `{"b":2}` {
		t.Errorf("the editor is shown %+v", m)
	}
	if m := d.Message.Message; m.Text != "hello" || string(m.Attributes) != `{"b":2}` {
		t.Errorf("the message reads %+v", m)
	}
}
