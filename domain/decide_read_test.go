package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

func TestTypingIsToldAndNotStored(t *testing.T) {
	// A signal that left a trace in the log would be counted, caught up with and numbered.
	for state, want := range map[domain.TypingState]domain.TypingState{
		"": "started", "started": "started", "paused": "paused", "finished": "finished",
	} {
		d, err := newStore(room()).decide(t, user(bob), &domain.Typing{Conversation: conversationID(1), State: state})
		if err != nil {
			t.Fatal(err)
		}
		by := user(bob).Initiator()
		if diff := cmp.Diff(domain.Decision{Signals: []*domain.Signal{{
			Type: domain.SignalTyping, Conversation: conversationID(1), Time: now, Initiator: &by, State: want,
		}}}, d); diff != "" {
			t.Errorf("%q (-want +got):\n%s", state, diff)
		}
	}
}

func TestTopicsOfSignalsAreCommands(t *testing.T) {
	// Empty payloads mean the usual thing; the conversation is in the topic and nowhere else.
	id := conversationID(1)
	topic := "conversations/" + id.String()
	for _, tc := range []struct {
		topic, payload string
		want           domain.Command
		number         int
	}{
		{"/typing", "", &domain.Typing{Conversation: id}, 0},
		{"/typing", " {} ", &domain.Typing{Conversation: id}, 0},
		{"/typing", `{"state":"paused","requestId":"r"}`, &domain.Typing{Conversation: id, State: "paused", Meta: domain.Meta{RequestID: "r"}}, 0},
		{"/typing", `{"state":"asleep"}`, nil, 1},
		{"/typing", `{"conversation":"` + id.String() + `"}`, nil, 1},
		{"/typing", `"started"`, nil, 1},
		{"/read", "", &domain.MarkAsRead{Conversation: id}, 0},
		{"/read", "{}", &domain.MarkAsRead{Conversation: id}, 0},
		{"/read", `{"seq":0}`, &domain.MarkAsRead{Conversation: id, Seq: ptr(int64(0))}, 0},
		{"/read", `{"seq":7,"requestId":"r"}`, &domain.MarkAsRead{Conversation: id, Seq: ptr(int64(7)), Meta: domain.Meta{RequestID: "r"}}, 0},
		{"/read", `{"seq":-1}`, nil, 24},
		{"/read", `{"seq":"7"}`, nil, 1},
		{"/read", `7`, nil, 1},
	} {
		req := domain.DecodePublish(user(bob), &domain.Publish{Topic: topic + tc.topic, Payload: []byte(tc.payload), Version: 5, QoS: 1}, domain.DefaultLimits())
		if number(req.Err) != tc.number {
			t.Errorf("%s %q: %v, want number %d", tc.topic, tc.payload, req.Err, tc.number)
		}
		if diff := cmp.Diff(tc.want, req.Command); diff != "" {
			t.Errorf("%s %q (-want +got):\n%s", tc.topic, tc.payload, diff)
		}
	}
}

func TestReadMarksGoBothWays(t *testing.T) {
	// Clients let people mark as unread what they want to come back to.
	id := conversationID(1)
	conv := room() // its last event is 7
	conv.Participants[1].LastRead = 5
	for _, tc := range []struct {
		seq    *int64
		want   domain.Seq
		number int
	}{
		{nil, 7, 0},
		{ptr(int64(7)), 7, 0},
		{ptr(int64(3)), 3, 0},
		{ptr(int64(1)), 1, 0},
		{ptr(int64(0)), 1, 0},
		{ptr(int64(8)), 0, 24},
		{ptr(int64(1) << 62), 0, 24},
	} {
		d, err := newStore(conv).decide(t, user(bob), &domain.MarkAsRead{Conversation: id, Seq: tc.seq})
		if number(err) != tc.number {
			t.Errorf("%v: %v, want number %d", tc.seq, err, tc.number)
		}
		if err != nil {
			continue
		}
		by := user(bob).Initiator()
		if diff := cmp.Diff(domain.Decision{
			Read: &domain.Mark{Conversation: id, User: bob, Seq: tc.want, Time: now},
			Signals: []*domain.Signal{{
				Type: domain.SignalRead, Conversation: id, Time: now, Initiator: &by, Seq: tc.want, UserID: bob,
			}},
		}, d); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tc.seq, diff)
		}
	}
}

func TestTransientMessagesAreOnlyTold(t *testing.T) {
	// What is for those online only has neither number nor uuid, and no key that a later message could collide with.
	c := &domain.SendMessage{Conversation: conversationID(1), MessageRequest: domain.MessageRequest{
		ClientID: "m", Content: domain.Content{Text: "here?"}, Options: &domain.Options{Transient: true, Receipt: true},
	}}
	if c.Kind() != domain.Signalling {
		t.Errorf("a transient message is of kind %d", c.Kind())
	}
	d, err := newStore(room()).decide(t, user(bob), c)
	if err != nil {
		t.Fatal(err)
	}
	by := user(bob).Initiator()
	sender := by
	sender.Device = ""
	m := &domain.Message{
		Conversation: conversationID(1), ClientID: "m", Sender: &sender, Time: now, Content: domain.Content{Text: "here?"}, Receipt: true,
	}
	if diff := cmp.Diff(domain.Decision{
		Signals: []*domain.Signal{{Type: domain.SignalTransientMessage, Conversation: conversationID(1), Time: now, Initiator: &by, Message: m}},
		Result:  domain.Result{Message: m},
	}, d); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMentionsAreOfOthersOnce(t *testing.T) {
	// The ids are what unread mentions are found by: one too many is a bell that rings for nothing.
	for _, tc := range []struct {
		p        domain.Principal
		mentions domain.Mentions
		want     []domain.UserID
	}{
		{user(bob), domain.Mentions{}, nil},
		{user(bob), domain.Mentions{Users: []domain.Username{"alice@chat.acme"}}, []domain.UserID{alice}},
		{user(bob), domain.Mentions{Users: []domain.Username{"bob@chat.acme"}}, nil},
		{user(bob), domain.Mentions{Users: []domain.Username{"alice@chat.acme", "bob@chat.acme", "alice@chat.acme"}}, []domain.UserID{alice}},
		{user(bob), domain.Mentions{All: new(true), Users: []domain.Username{"alice@chat.acme"}}, []domain.UserID{0}},
		{service(), domain.Mentions{Users: []domain.Username{"bob@chat.acme", "alice@chat.acme"}}, []domain.UserID{bob, alice}},
	} {
		c := &domain.SendMessage{Conversation: conversationID(1)}
		c.Text, c.Mentions = "hi", &tc.mentions
		d, err := newStore(room()).decide(t, tc.p, c)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, d.Events[0].Mentioned); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tc.mentions, diff)
		}
	}
	c := &domain.SendMessage{Conversation: conversationID(1)}
	c.Text, c.Mentions = "hi", &domain.Mentions{All: new(true), Users: []domain.Username{"eve@desk.acme"}}
	if _, err := newStore(room()).decide(t, user(bob), c); number(err) != 19 {
		t.Errorf("everybody and a stranger: %v", err)
	}
}

func TestReceiptsFollowTheMarks(t *testing.T) {
	// What was read was delivered; the sender's own devices are nobody's business; a mark that went back takes read away.
	id := conversationID(1)
	message := domain.NewMessageID(id, 4)
	for _, tc := range []struct {
		name            string
		recipients      []domain.Recipient
		status          map[domain.UserID]domain.RecipientStatus
		read, delivered domain.Summary
		readAt          int64
	}{
		{"nobody", nil, map[domain.UserID]domain.RecipientStatus{}, "none", "none", 0},
		{"the sender alone", []domain.Recipient{{User: bob, LastRead: 9}}, map[domain.UserID]domain.RecipientStatus{}, "none", "none", 0},
		{"sent", []domain.Recipient{{User: alice, LastRead: 3, LastDelivered: 3, ReadAt: 5}}, map[domain.UserID]domain.RecipientStatus{alice: "sent"}, "none", "none", 5},
		{"delivered", []domain.Recipient{{User: alice, LastRead: 3, LastDelivered: 4}}, map[domain.UserID]domain.RecipientStatus{alice: "delivered"}, "none", "all", 0},
		{"read", []domain.Recipient{{User: alice, LastRead: 4, LastDelivered: 2, ReadAt: 7}}, map[domain.UserID]domain.RecipientStatus{alice: "read"}, "all", "all", 7},
		{
			"mixed",
			[]domain.Recipient{{User: alice, LastRead: 4, ReadAt: 7}, {User: bob}, {User: carol, LastDelivered: 4}, {User: eve}},
			map[domain.UserID]domain.RecipientStatus{alice: "read", carol: "delivered", eve: "sent"},
			"some", "some", 0,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(room())
			s.said(id, 4, bob, "hello")
			c := &domain.GetReceipts{Conversation: id, Message: message}
			h := s.heads(user(alice), c)
			h.Recipients = tc.recipients
			d, err := decide(t, h, user(alice), c)
			if err != nil {
				t.Fatal(err)
			}
			want := &domain.Receipts{RecipientStatus: tc.status, ReadStatus: tc.read, DeliveryStatus: tc.delivered, LastReadAt: tc.readAt}
			if diff := cmp.Diff(want, d.Result.Receipts); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReceiptsAreOfMessagesThatOneMaySee(t *testing.T) {
	id := conversationID(1)
	s := newStore(room())
	s.joined(carol, id, 3)
	s.left(carol, id, 5)
	early, late := s.said(id, 4, bob, "hello"), s.said(id, 6, bob, "bye")
	gone := s.said(id, 2, bob, "")
	s.messages[gone].Message.Removed = true
	for _, tc := range []struct {
		p       domain.Principal
		message domain.MessageID
		number  int
	}{
		{user(alice), early, 0},
		{service(), late, 0},
		{user(carol), early, 0},
		{user(carol), late, 10},
		{user(alice), gone, 11},
		{user(alice), domain.NewMessageID(id, 3), 10},
		{user(alice), domain.NewMessageID(conversationID(2), 4), 10},
		{user(alice), domain.MessageID{1}, 10},
	} {
		if _, err := s.decide(t, tc.p, &domain.GetReceipts{Conversation: id, Message: tc.message}); number(err) != tc.number {
			t.Errorf("%s by %s: %v, want number %d", tc.message, tc.p.Username, err, tc.number)
		}
	}
}

func TestUnreadIsNeverNull(t *testing.T) {
	c := &domain.GetUnread{}
	d, err := decide(t, newStore().heads(user(alice), c), user(alice), c)
	if err != nil || d.Result.Unread == nil {
		t.Errorf("%+v, %v", d.Result, err)
	}
}
