package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

// farewell is a message for when the session is lost.
func farewell() domain.MessageRequest {
	return domain.MessageRequest{
		ClientID: "w", Content: domain.Content{
			Text: "gone", Attributes: domain.RawObject(`{"a":1}`), Mentions: &domain.Mentions{Users: []domain.Username{person(alice).Username}},
		},
		Options: &domain.Options{Receipt: true},
	}
}

// fired gives what a will comes to when it is carried out.
func fired(t *testing.T, p domain.Principal, w *domain.Will, s *store) (domain.Decision, error) {
	t.Helper()
	req := domain.DecodeWill(p, w, domain.DefaultLimits())
	if req.Err != nil {
		t.Fatal(req.Err)
	}
	return s.decide(t, p, req.Command)
}

func TestAWillIsToldWhenItsTimeHasCome(t *testing.T) {
	// What is sent is what was set, however it was set; until then nobody is told anything.
	request := farewell()
	asked := request
	asked.Options = &domain.Options{Receipt: true, Will: true}
	for name, c := range map[string]domain.Command{
		"setWill":     &domain.SetWill{Conversation: conversationID(1), MessageRequest: request},
		"sendMessage": &domain.SendMessage{Conversation: conversationID(1), MessageRequest: asked},
	} {
		if c.Kind() != domain.Willing {
			t.Errorf("%s is of kind %d", name, c.Kind())
		}
		d, err := newStore(room()).decide(t, user(bob), c)
		if err != nil {
			t.Fatal(err)
		}
		if d.Will == nil || d.Will.Delay != 0 || len(d.Events)+len(d.Signals) > 0 {
			t.Fatalf("%s: %+v", name, d)
		}
		if m := d.Result.Message; name == "setWill" && m != nil || name == "sendMessage" && (m == nil || m.Seq != 0 || m.Text != "gone") {
			t.Errorf("%s answers with %+v", name, m)
		}
		told, err := fired(t, user(bob), d.Will, newStore(room()))
		if err != nil {
			t.Fatal(err)
		}
		by := user(bob).Initiator()
		sender := by
		sender.Device = ""
		m := &domain.Message{
			Conversation: conversationID(1), ClientID: "w", Sender: &sender, Time: now, Content: request.Content, Receipt: true,
		}
		if diff := cmp.Diff(domain.Decision{Signals: []*domain.Signal{
			{Type: domain.SignalWillMessage, Conversation: conversationID(1), Time: now, Initiator: &by, Message: m},
		}}, told); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAWillIsCheckedAgain(t *testing.T) {
	// Between setting a will and its end everything may have changed.
	d, err := newStore(room()).decide(t, user(bob), &domain.SetWill{Conversation: conversationID(1), MessageRequest: farewell()})
	if err != nil {
		t.Fatal(err)
	}
	mute, left, gone, unmentioned := room(), room(), room(), room()
	mute.Participants[1].Permissions.CanWrite = false
	left.Participants = left.Participants[:1]
	gone.Removed = true
	unmentioned.Participants = unmentioned.Participants[1:]
	for name, tc := range map[string]struct {
		conversation *domain.Conversation
		number       int
	}{
		"without canWrite": {mute, 12}, "who has left": {left, 12}, "in a removed conversation": {gone, 16},
		"that mentions who has left": {unmentioned, 19},
	} {
		told, err := fired(t, user(bob), d.Will, newStore(tc.conversation))
		if number(err) != tc.number || len(told.Signals) > 0 {
			t.Errorf("%s: %v, %d signals; want number %d", name, err, len(told.Signals), tc.number)
		}
	}
}

func TestTheWillOfAConnectIsACommandLikeAnyOther(t *testing.T) {
	// Devices know nothing but topics and payloads; what these mean must not depend on when they are sent.
	id := conversationID(1)
	topic := "conversations/" + id.String()
	text := domain.Content{Text: "x"}
	for _, tc := range []struct {
		topic, payload string
		want           domain.Command
		kind           domain.Kind
		number         int
	}{
		{topic + "/messages", `{"text":"x"}`, &domain.SendMessage{Conversation: id, MessageRequest: domain.MessageRequest{Content: text}}, domain.Append, 0},
		{topic + "/messages", `{"text":"x","options":{"will":true}}`, &domain.WillMessage{SendMessage: domain.SendMessage{
			Conversation: id, MessageRequest: domain.MessageRequest{Content: text, Options: &domain.Options{Will: true}},
		}}, domain.Signalling, 0},
		{"commands/sendMessage", `{"conversation":"` + id.String() + `","text":"x","options":{"will":true,"transient":true}}`, &domain.WillMessage{SendMessage: domain.SendMessage{
			Conversation: id, MessageRequest: domain.MessageRequest{Content: text, Options: &domain.Options{Will: true, Transient: true}},
		}}, domain.Signalling, 0},
		{topic + "/raw", "x", &domain.SendMessage{Conversation: id, MessageRequest: domain.MessageRequest{
			Content: domain.Content{Parts: []domain.Part{{MimeType: "text/plain", Body: "x"}}},
		}}, domain.Append, 0},
		{topic + "/typing", `{"state":"finished"}`, &domain.Typing{Conversation: id, State: "finished"}, domain.Signalling, 0},
		{"commands/setStatus", `{"state":"away"}`, &domain.SetStatus{State: ptr(domain.State("away"))}, domain.Immediate, 0},
		{"commands/setWill", `{"conversation":"` + id.String() + `","text":"x"}`, nil, 0, 1},
		{"commands/clearWill", "", nil, 0, 1},
		{topic + "/messages", `{"parts":[{"mimeType":"image/png","content":"00000000000000000000000000000001"}]}`, nil, 0, 1},
		{topic + "/messages", `{}`, nil, 0, 1},
		{topic + "/events", `{}`, nil, 0, 12},
	} {
		w := &domain.Will{Publish: domain.Publish{Topic: tc.topic, Payload: []byte(tc.payload), Version: 4, QoS: 1}}
		req := domain.DecodeWill(user(bob), w, domain.DefaultLimits())
		if number(req.Err) != tc.number {
			t.Errorf("%s %s: %v, want number %d", tc.topic, tc.payload, req.Err, tc.number)
		}
		if diff := cmp.Diff(tc.want, req.Command); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", tc.topic, tc.payload, diff)
		} else if req.Command != nil && req.Command.Kind() != tc.kind {
			t.Errorf("%s %s is of kind %d", tc.topic, tc.payload, req.Command.Kind())
		}
	}
}

func TestAWillNeedsASession(t *testing.T) {
	// Over HTTP nothing is there that could be lost.
	p := user(bob)
	p.Device = ""
	for _, c := range []domain.Command{
		&domain.SetWill{Conversation: conversationID(1), MessageRequest: farewell()}, &domain.ClearWill{},
		&domain.SendMessage{Conversation: conversationID(1), MessageRequest: domain.MessageRequest{
			Content: domain.Content{Text: "x"}, Options: &domain.Options{Will: true},
		}},
	} {
		if _, err := newStore(room()).decide(t, p, c); number(err) != 1 {
			t.Errorf("%s: %v", c.Name(), err)
		}
	}
	d, err := newStore().decide(t, user(bob), &domain.ClearWill{})
	if err != nil || d.Will == nil || d.Will.Topic != "" {
		t.Errorf("clearWill: %+v, %v", d, err)
	}
}
