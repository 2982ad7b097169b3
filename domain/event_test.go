package domain_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/parley-im/parley/domain"
)

// anyJSON gives JSON objects as applications send them: with members in any order, names and values that Parley uses
// itself, escapes, large numbers, white space.
func anyJSON() *rapid.Generator[domain.RawObject] {
	name := rapid.SampledFrom([]string{
		`"a"`, `"text"`, `"y"`, `"m"`, `"uuid"`, `"x\u0000y"`, `"é"`, `"\u00e9"`, `"<b>&"`, `""`, `"\ud800"`, `"\\"`, `"\""`,
	})
	leaf := rapid.SampledFrom([]string{
		`1`, `-0`, `1.0`, `1e400`, `9007199254740993`, `true`, `null`, `"x"`, `"\u2028<>"`, `"\n"`, `{}`, `[]`, ` [ 1 , {"b" : [ ] } ] `, `"\ud83d"`,
	})
	return rapid.Custom(func(t *rapid.T) domain.RawObject {
		var b strings.Builder
		b.WriteByte('{')
		for i := range rapid.IntRange(0, 4).Draw(t, "members") {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(name.Draw(t, "name") + ":")
			if rapid.IntRange(0, 4).Draw(t, "nest") == 0 {
				b.WriteString(`{"n":[` + leaf.Draw(t, "below") + `]}`)
			} else {
				b.WriteString(leaf.Draw(t, "value"))
			}
		}
		b.WriteByte('}')
		return domain.RawObject(b.String())
	})
}

func orNone[T any](g *rapid.Generator[T]) *rapid.Generator[T] {
	var none T
	return rapid.OneOf(rapid.Just(none), g)
}

func anyText() *rapid.Generator[string] {
	return rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "x", "<script>&", "\u2028\x00\t\"\\", "語😀"}))
}

func anyInitiator() *rapid.Generator[domain.Initiator] {
	return rapid.SampledFrom([]domain.Initiator{
		user(alice).Initiator(), person(bob).Principal("").Initiator(), service().Initiator(), {UserID: 1, Username: "a@b.c", Device: "x\"<\u2028"},
	})
}

func anyContent() *rapid.Generator[domain.Content] {
	part := rapid.Custom(func(t *rapid.T) domain.Part {
		return domain.Part{
			MimeType: "a/b", Body: anyText().Draw(t, "body"), Encoding: rapid.SampledFrom([]string{"", "base64"}).Draw(t, "encoding"),
			URL: anyText().Draw(t, "url"), Size: rapid.Int64Min(0).Draw(t, "size"),
		}
	})
	return rapid.Custom(func(t *rapid.T) domain.Content {
		return domain.Content{
			Text: anyText().Draw(t, "text"), Payload: rapid.SliceOfN(anyJSON(), 0, 3).Draw(t, "payload"),
			Parts: rapid.SliceOfN(part, 0, 3).Draw(t, "parts"), MessageType: rapid.Int().Draw(t, "messageType"),
			Attributes: orNone(anyJSON()).Draw(t, "attributes"),
			Mentions: rapid.SampledFrom([]*domain.Mentions{
				nil, {}, {All: new(true)}, {All: new(false), Users: []domain.Username{}}, {Users: []domain.Username{"a@b.c", "d@e.f"}},
			}).Draw(t, "mentions"),
			Notification: rapid.SampledFrom([]*domain.Notification{nil, {}, {Text: "n", Sound: "s"}}).Draw(t, "notification"),
		}
	})
}

func anyHead() *rapid.Generator[*domain.Conversation] {
	return rapid.Custom(func(t *rapid.T) *domain.Conversation {
		c := room()
		c.Title, c.CustomData = anyText().Draw(t, "title"), orNone(anyJSON()).Draw(t, "customData")
		c.Direct, c.Distinct = rapid.Bool().Draw(t, "direct"), rapid.Bool().Draw(t, "distinct")
		c.Uber, c.PublicJoin = rapid.Bool().Draw(t, "uber"), rapid.Bool().Draw(t, "publicJoin")
		c.Removed = rapid.Bool().Draw(t, "removed")
		c.Participants[1].LastRead, c.Participants[1].LastDelivered = 3, 4
		c.Participants = c.Participants[:rapid.IntRange(0, 2).Draw(t, "participants")]
		// What is not shown is not in the event.
		c.Root, c.Account, c.Version, c.UniqueKey = 0, 0, 0, ""
		return c
	})
}

// anyEvent gives events as Decide makes them and as the store keeps them: of every type, messages also edited and
// removed.
func anyEvent() *rapid.Generator[*domain.Event] {
	return rapid.Custom(func(t *rapid.T) *domain.Event {
		e := &domain.Event{
			Type: rapid.SampledFrom([]domain.EventType{
				domain.EventCreateConversation, domain.EventEditConversation, domain.EventRemoveConversation,
				domain.EventSendMessage, domain.EventEditMessage, domain.EventRemoveMessage,
			}).Draw(t, "type"),
			Time: rapid.Int64Range(0, 1<<50).Draw(t, "time"), Initiator: anyInitiator().Draw(t, "initiator"),
		}
		e.Action = string(e.Type)
		conv, seq := conversationID(byte(rapid.IntRange(0, 255).Draw(t, "conversation"))), domain.Seq(rapid.Int64Range(2, 1<<40).Draw(t, "seq"))
		switch e.Type {
		case domain.EventCreateConversation:
			e.ConversationData = anyHead().Draw(t, "head")
		case domain.EventEditConversation:
			e.Action = rapid.SampledFrom([]string{
				"editConversation", "addParticipants", "removeParticipants", "editParticipants", "joinConversation", "leaveConversation",
			}).Draw(t, "action")
			e.ConversationData = anyHead().Draw(t, "head")
			e.Participants = room().Participants[:rapid.IntRange(0, 2).Draw(t, "concerned")]
		case domain.EventSendMessage:
			m := &domain.Message{
				ClientID: anyText().Draw(t, "id"), Time: e.Time, Content: anyContent().Draw(t, "content"),
				Receipt: rapid.Bool().Draw(t, "receipt"), Priority: rapid.SampledFrom([]string{"", "low", "normal", "high"}).Draw(t, "priority"),
				Push: orNone(anyJSON()).Draw(t, "push"),
			}
			sender := e.Initiator
			sender.Device = ""
			m.Sender = &sender
			if rapid.Bool().Draw(t, "edited") {
				m.EditedTime, m.EditCount = e.Time+1, rapid.IntRange(1, 9).Draw(t, "edits")
			}
			if rapid.Bool().Draw(t, "removed") {
				m.Content, m.Push, m.Removed = domain.Content{}, nil, true
			}
			e.Message = m
		case domain.EventEditMessage, domain.EventRemoveMessage:
			target := seq - 1
			e.Message = &domain.Message{ID: domain.NewMessageID(conv, target), Conversation: conv, Seq: target}
			if e.Type == domain.EventEditMessage {
				e.Message.Sender, e.Message.Time = &domain.Initiator{UserID: bob, Username: "bob@chat.acme"}, 5
				e.Message.Content, e.Message.EditedTime, e.Message.EditCount = anyContent().Draw(t, "content"), e.Time, 2
				e.Reason = rapid.SampledFrom([]*domain.Reason{nil, {Code: -1, Detail: "spam"}, {}}).Draw(t, "reason")
			}
		default: // removeConversation has nothing of its own
		}
		e.At(conv, seq)
		return e
	})
}

func TestStoredEventsReadBackAsWritten(t *testing.T) {
	// What is committed is all there is: a field that got lost here would be gone from history, for everybody.
	rapid.Check(t, func(rt *rapid.T) {
		e := anyEvent().Draw(rt, "event")
		b, err := e.MarshalStored()
		if err != nil {
			rt.Fatal(err)
		}
		got, err := domain.UnmarshalStored(e.Conversation, e.Seq, b)
		if err != nil {
			rt.Fatalf("%s: %v", b, err)
		}
		if diff := cmp.Diff(e, got, same()); diff != "" {
			rt.Fatalf("%s (-written +read):\n%s", b, diff)
		}
		again, err := got.MarshalStored()
		if err != nil || !bytes.Equal(b, again) {
			rt.Fatalf("stored again it is %s, was %s (%v)", again, b, err)
		}
	})
}

func TestStoredBytesLeaveOutWhatIsNobodysBusiness(t *testing.T) {
	// The request id is for the initiator's own devices; the position is in the row's key, and may be set later.
	e := &domain.Event{
		Type: domain.EventSendMessage, Time: now, Action: "sendMessage", RequestID: "secret-request",
		Initiator: user(alice).Initiator(), Sender: 1, ClientID: "made-up-by-the-gateway",
		Message: &domain.Message{Content: domain.Content{Text: "hi"}, Sender: &domain.Initiator{UserID: alice}},
	}
	e.At(conversationID(1), 77777)
	b, err := e.MarshalStored()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"secret-request", "made-up", "77777", conversationID(1).String()} {
		if strings.Contains(string(b), s) {
			t.Errorf("%s holds %s", b, s)
		}
	}
	if len(b) > 160 {
		t.Errorf("%d bytes for two characters: %s", len(b), b)
	}
}

func TestRemovedMessagesLeaveNothingBehind(t *testing.T) {
	// protocol.md section 4: a removed message has no content anywhere. Whoever forgets to clear a field is caught here.
	m := &domain.Message{
		ClientID: "m-1", Sender: &domain.Initiator{UserID: bob}, Time: now, Removed: true,
		Content: domain.Content{
			Text: "SECRET", Payload: []domain.RawObject{domain.RawObject(`{"SECRET":1}`)}, Attributes: domain.RawObject(`{"SECRET":1}`),
			Parts:    []domain.Part{{MimeType: "SECRET/a", Body: "SECRET", URL: "SECRET"}},
			Mentions: &domain.Mentions{Users: []domain.Username{"SECRET"}}, Notification: &domain.Notification{Text: "SECRET", Sound: "SECRET"},
			MessageType: 424242,
		},
		Push: domain.RawObject(`{"alert":"SECRET"}`),
	}
	for _, typ := range []domain.EventType{domain.EventSendMessage, domain.EventRemoveMessage, domain.EventEditMessage} {
		e := &domain.Event{Type: typ, Action: string(typ), Initiator: user(bob).Initiator(), Message: m}
		e.At(conversationID(1), 5)
		b, err := e.MarshalStored()
		if err != nil || strings.Contains(string(b), "SECRET") || strings.Contains(string(b), "424242") {
			t.Errorf("%s stores %s, %v", typ, b, err)
		}
		got, err := domain.UnmarshalStored(e.Conversation, e.Seq, b)
		if err != nil || !got.Message.Removed {
			t.Errorf("%s reads as %+v, %v", typ, got, err)
		}
	}
}

func TestApplicationsGetTheirJSONBack(t *testing.T) {
	// Unknown fields, numbers beyond a float and escapes survive the store and the event, equal in meaning.
	rapid.Check(t, func(rt *rapid.T) {
		o := anyJSON().Draw(rt, "object")
		c := &domain.SendMessage{Conversation: conversationID(1)}
		if err := json.Unmarshal([]byte(`{"attributes":`+string(o)+`,"payload":[`+string(o)+`]}`), &c.MessageRequest); err != nil {
			rt.Fatal(err)
		}
		d, err := newStore(room()).decide(t, user(bob), c)
		if err != nil {
			rt.Fatal(err)
		}
		e := d.Events[0]
		e.At(conversationID(1), 8)
		b, err := e.MarshalStored()
		if err != nil {
			rt.Fatal(err)
		}
		back, err := domain.UnmarshalStored(e.Conversation, e.Seq, b)
		if err != nil {
			rt.Fatal(err)
		}
		wire, err := json.Marshal(back)
		if err != nil {
			rt.Fatal(err)
		}
		var shown struct {
			Message struct {
				Attributes domain.RawObject
				Payload    []domain.RawObject
			}
		}
		if err := json.Unmarshal(wire, &shown); err != nil {
			rt.Fatalf("%s: %v", wire, err)
		}
		if !o.Equal(shown.Message.Attributes) || !o.Equal(shown.Message.Payload[0]) {
			rt.Fatalf("%s came back as %s and %s", o, shown.Message.Attributes, shown.Message.Payload[0])
		}
	})
}

func TestDeepestObjectsCanBeReadBack(t *testing.T) {
	// What was accepted must never be unreadable: that would stop the conversation for everybody.
	deep := domain.RawObject(strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 64))
	req := publish(messagesTopic(), `{"attributes":`+string(deep)+`}`)
	if req.Err != nil {
		t.Fatal(req.Err)
	}
	d, err := newStore(room()).decide(t, user(bob), req.Command)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Events[0].MarshalStored()
	if err != nil {
		t.Fatal(err)
	}
	e, err := domain.UnmarshalStored(conversationID(1), 8, b)
	if err != nil || !e.Message.Attributes.Equal(deep) {
		t.Fatalf("%v", err)
	}
}

func TestNoObjectIsNull(t *testing.T) {
	var o domain.RawObject
	if b, err := json.Marshal(o); err != nil || string(b) != "null" {
		t.Errorf("%s, %v", b, err)
	}
	o = domain.RawObject("{}")
	if err := json.Unmarshal([]byte("null"), &o); err != nil || o != nil {
		t.Errorf("%s, %v", o, err)
	}
}

func TestEventsOfTheFutureAreRead(t *testing.T) {
	// During an update of several nodes an older one reads what a newer one wrote: unknown fields are passed over.
	e, err := domain.UnmarshalStored(conversationID(1), 8, []byte(`{"y":"sendMessage","t":5,"i":{"userId":1,"new":2},"m":{"c":{"text":"x","new":[]},"new":1},"new":{}}`))
	if err != nil || e.Message.Text != "x" || e.Seq != 8 || e.Message.Seq != 8 {
		t.Errorf("%+v, %v", e, err)
	}
	for _, s := range []string{"", "null x", "[]", `{"y":5}`, `{"m":{"u":5}}`, "\x00"} {
		if e, err := domain.UnmarshalStored(conversationID(1), 8, []byte(s)); err == nil {
			t.Errorf("%q reads as %+v", s, e)
		}
	}
}

func FuzzUnmarshalStored(f *testing.F) {
	for i := range 20 {
		b, err := anyEvent().Example(i).MarshalStored()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"y":"editMessage","m":{"q":-1,"c":null,"x":true}}`))
	f.Add([]byte(`{"y":"sendMessage","m":{"c":{"text":"x"},"u":{"a":1},"x":true}}`))
	f.Add([]byte(`{"y":"createConversation","c":null,"p":[null]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := domain.UnmarshalStored(conversationID(1), 8, b)
		if err != nil {
			return
		}
		stored, err := e.MarshalStored()
		if err != nil {
			t.Fatalf("%s reads as %+v, which cannot be stored: %v", b, e, err)
		}
		again, err := domain.UnmarshalStored(conversationID(1), 8, stored)
		if err != nil {
			t.Fatalf("%s is stored as %s, which cannot be read: %v", b, stored, err)
		}
		if diff := cmp.Diff(e, again, same()); diff != "" {
			t.Fatalf("%s is stored as %s (-before +after):\n%s", b, stored, diff)
		}
		if _, err := json.Marshal(e); err != nil {
			t.Fatalf("%s cannot be shown: %v", b, err)
		}
	})
}

func FuzzDecodePublish(f *testing.F) {
	conv := conversationID(1).String()
	for _, s := range []struct{ topic, payload string }{
		{messagesTopic(), `{"id":"m","text":"hi","payload":[{"a":1}],"parts":[{"mimeType":"a/b","body":"AA==","encoding":"base64","size":1}]}`},
		{messagesTopic(), `{"messageType":-1,"attributes":{"a":{}},"mentions":{"all":true,"users":["a@b.c"]},"notification":{"text":"n","sound":"s"}}`},
		{messagesTopic(), `{"text":"x","options":{"receipt":true,"priority":"low","push":{}},"requestId":"r"}`},
		{messagesTopic(), `{"text":"\ud800","\u0069d":"x"} `},
		{messagesTopic(), `{"requestId":"r","attributes":{"a":[[[[1e9999,"\"}"]]]]}`},
		{rawTopic(), "\xff\x00"},
		{"commands/getMe", ``},
		{"commands/getUser", `{"userId":1}`},
		{"commands/getUsers", `{"username":["a@b.c"],"userIds":5,"userId":null}`},
		{"commands/createConversation", `{"title":"t","direct":true,"participants":[{"userId":1,"permissions":{"canWrite":false}}],"permissions":{"isOwner":null},"customData":{"a":1}}`},
		{"commands/getConversation", `{"uuid":"` + conv + `"}`},
		{"commands/getConversations", `{"uuids":["` + conv + `"],"uuid":"` + conv + `"}`},
		{"commands/addParticipants", `{"uuid":"` + conv + `","participants":[{"username":"a@b.c"}]}`},
		{"commands/removeParticipants", `{"uuid":"` + conv + `","participants":[{"userId":1}]}`},
		{"commands/sendMessage", `{"conversation":"` + conv + `","text":"x"}`},
		{"commands/retransmitEvents", `{"conversation":"` + conv + `","from":1,"count":100,"to":null}`},
		{"commands/x", `{"requestId":"r"}`},
	} {
		f.Add(s.topic, []byte(s.payload), "", "", []byte(nil), byte(5), false)
	}
	f.Add(rawTopic(), []byte("x"), "text/plain; charset=utf-8", replies, []byte("corr"), byte(5), false)
	f.Add(messagesTopic(), []byte(`{"text":"x"}`), "", "users/bob@chat.acme/replies", []byte{0xff}, byte(4), true)
	f.Fuzz(func(t *testing.T, topic string, payload []byte, contentType, response string, correlation []byte, version byte, retain bool) {
		pub := &domain.Publish{
			Topic: topic, Payload: payload, ContentType: contentType, ResponseTopic: response, Correlation: correlation,
			Version: version, QoS: 1, Retain: retain,
		}
		kept := deepCopy(pub)
		req := domain.DecodePublish(user(alice), pub, domain.DefaultLimits())
		if diff := cmp.Diff(kept, pub); diff != "" {
			t.Fatalf("the publish was changed:\n%s", diff)
		}
		if (req.Err == nil) != (req.Command != nil) {
			t.Fatalf("neither command nor refusal, or both: %+v", req)
		}
		if req.Err != nil {
			e := domain.AsError(req.Err)
			if e.Code == domain.Internal || e.Detail == "" || len(e.Detail) > 300 {
				t.Fatalf("refused with %+v", e)
			}
			return
		}
		if retain || response != "" && req.ReplyTo != response {
			t.Fatalf("accepted: %+v", req)
		}
		// What was accepted and is written down again is the same request.
		var written bytes.Buffer
		enc := json.NewEncoder(&written)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(req.Command); err != nil {
			t.Fatal(err)
		}
		roomy := domain.DefaultLimits()
		roomy.MessageBytes *= 8
		again := domain.DecodePublish(user(alice), &domain.Publish{
			Topic: "commands/" + req.Name, Payload: written.Bytes(), Version: 5, QoS: 1,
		}, roomy)
		if again.Err != nil {
			t.Fatalf("%s: %v", written.Bytes(), again.Err)
		}
		if diff := cmp.Diff(req.Command, again.Command, same()); diff != "" {
			t.Fatalf("%s (-first +second):\n%s", written.Bytes(), diff)
		}
	})
}

func TestMarshalStoredIsStable(t *testing.T) {
	// Rows written by an earlier version stay: their form may grow, and never change. This is one as version 1 writes it.
	e := &domain.Event{
		Type: domain.EventEditMessage, Time: 5, Action: "editMessage", Initiator: service().Initiator(),
		Message: &domain.Message{
			Sender: &domain.Initiator{UserID: 2, Username: "bob@chat.acme"}, Time: 4, Content: domain.Content{Text: "x"}, Seq: 3,
			EditedTime: 5, EditCount: 1, ClientID: "m",
		},
		Reason: &domain.Reason{Code: 7, Detail: "because"},
	}
	e.At(conversationID(1), 9)
	b, err := e.MarshalStored()
	want := `{"y":"editMessage","t":5,"i":{"service":"billing"},"m":{"q":3,"k":"m","s":{"userId":2,"username":"bob@chat.acme"},"t":4,` +
		`"c":{"text":"x"},"e":5,"n":1},"r":{"code":7,"detail":"because"}}`
	if err != nil || string(b) != want {
		t.Errorf("%s, want %s (%v)", b, want, err)
	}
}
