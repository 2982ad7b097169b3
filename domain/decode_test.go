package domain_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

const replies = "users/alice@chat.acme/replies"

func messagesTopic() string {
	return domain.Topic{Kind: domain.MessagesTopic, Conversation: conversationID(1)}.String()
}

func rawTopic() string {
	return domain.Topic{Kind: domain.RawTopic, Conversation: conversationID(1)}.String()
}

// publish decodes what alice publishes with MQTT 5 and QoS 1.
func publish(topic, payload string) domain.Request {
	return domain.DecodePublish(user(alice),
		&domain.Publish{Topic: topic, Payload: []byte(payload), Version: 5, QoS: 1}, domain.DefaultLimits())
}

func sent(t *testing.T, payload string) *domain.SendMessage {
	t.Helper()
	req := publish(messagesTopic(), payload)
	if req.Err != nil {
		t.Fatalf("%s: %v", clipped(payload), req.Err)
	}
	return req.Command.(*domain.SendMessage)
}

func clipped(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// refused checks the number of a refusal and what its detail says.
func refused(t *testing.T, what string, req domain.Request, number int, detail string) {
	t.Helper()
	e := domain.AsError(req.Err)
	switch {
	case e == nil:
		t.Errorf("%s: accepted, want number %d", what, number)
	case e.Number != number || !strings.Contains(e.Detail, detail):
		t.Errorf("%s: number %d, %q; want %d and %q", what, e.Number, e.Detail, number, detail)
	case req.Command != nil:
		t.Errorf("%s: refused, and still a command: %+v", what, req.Command)
	}
}

func TestMessageDecodesInFull(t *testing.T) {
	// The names of fields are the contract with every client.
	got := sent(t, `{
		"id": "m-1", "text": "hé", "payload": [{"a": 1}, {}],
		"parts": [{"mimeType": "text/plain", "body": "b"}, {"mimeType": "image/jpeg", "body": "AAECAw==", "encoding": "base64"},
			{"mimeType": "video/mp4", "url": "https://example.org/v", "size": 31337}],
		"messageType": -2, "attributes": {"b": {"c": [null]}},
		"mentions": {"all": true, "users": ["bob@chat.acme"]}, "notification": {"text": "n", "sound": "ping.aiff"},
		"options": {"transient": false, "receipt": true, "will": false, "priority": "low", "push": {"d": 1}},
		"requestId": "r-1" }`)
	want := &domain.SendMessage{
		Conversation: conversationID(1),
		MessageRequest: domain.MessageRequest{
			ClientID: "m-1",
			Content: domain.Content{
				Text: "hé", Payload: []domain.RawObject{domain.RawObject(`{"a":1}`), domain.RawObject(`{}`)},
				Parts: []domain.Part{
					{MimeType: "text/plain", Body: "b"},
					{MimeType: "image/jpeg", Body: "AAECAw==", Encoding: "base64"},
					{MimeType: "video/mp4", URL: "https://example.org/v", Size: 31337},
				},
				MessageType: -2, Attributes: domain.RawObject(`{"b":{"c":[null]}}`),
				Mentions:     &domain.Mentions{All: new(true), Users: []domain.Username{"bob@chat.acme"}},
				Notification: &domain.Notification{Text: "n", Sound: "ping.aiff"},
			},
			Options: &domain.Options{Receipt: true, Priority: "low", Push: domain.RawObject(`{"d":1}`)},
		},
		Meta: domain.Meta{RequestID: "r-1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A command says the same with the conversation in it.
	req := publish("commands/sendMessage", `{"conversation":"`+conversationID(1).String()+`","text":"hi"}`)
	if req.Err != nil || req.Command.(*domain.SendMessage).Text != "hi" || req.Name != "sendMessage" {
		t.Errorf("by command: %+v", req)
	}
}

func TestMessageLimits(t *testing.T) {
	// Limits are exact, counted in the unit that protocol.md names: a client that checks before it sends must be right.
	text := func(n int, r string) string { return strings.Repeat(r, n) }
	body := func(n int) string { return fmt.Sprintf(`{"parts":[{"mimeType":"a/b","body":"%s"}]}`, text(n, "x")) }
	binary := func(n int) string {
		return fmt.Sprintf(`{"parts":[{"mimeType":"a/b","encoding":"base64","body":"%s"}]}`,
			base64.StdEncoding.EncodeToString(make([]byte, n)))
	}
	parts := func(n int) string {
		return `{"parts":[` + strings.TrimSuffix(text(n, `{"mimeType":"a/b","body":"x"},`), ",") + `]}`
	}
	padded := func(n int) string {
		const frame = `{"payload":[{"a":""}]}`
		return `{"payload":[{"a":"` + text(n-len(frame), "x") + `"}]}`
	}
	mime := func(s string) string { return `{"parts":[{"mimeType":"` + s + `","body":"x"}]}` }
	for _, tc := range []struct {
		name    string
		payload string
		number  int
		detail  string
	}{
		{"text of 5000 characters", `{"text":"` + text(5000, "x") + `"}`, 0, ""},
		{"text of 5001 characters", `{"text":"` + text(5001, "x") + `"}`, 23, "text"},
		{"text of 5000 wide characters", `{"text":"` + text(5000, "語") + `"}`, 0, ""},
		{"text of 5001 wide characters", `{"text":"` + text(5001, "語") + `"}`, 23, "text"},
		{"text of 5000 escaped emoji", `{"text":"` + text(5000, `\ud83d\ude00`) + `"}`, 0, ""},
		{"text of 5000 emoji", `{"text":"` + text(5000, "😀") + `"}`, 0, ""},
		{"text of 5001 emoji", `{"text":"` + text(5001, "😀") + `"}`, 23, "text"},
		{"16 parts", parts(16), 0, ""},
		{"17 parts", parts(17), 23, "parts"},
		{"a part of 32 KiB", body(32 << 10), 0, ""},
		{"a part of 32 KiB and a byte", body(32<<10 + 1), 23, "parts[0].body"},
		{"a binary part of 32 KiB", binary(32 << 10), 0, ""},
		{"a binary part of 32 KiB and a byte", binary(32<<10 + 1), 23, "parts[0].body"},
		{"a message of 64 KiB", padded(64 << 10), 0, ""},
		{"a message of 64 KiB and a byte", padded(64<<10 + 1), 23, "message"},
		{"an id of 64 characters", `{"text":"x","id":"` + text(64, "é") + `"}`, 0, ""},
		{"an id of 65 characters", `{"text":"x","id":"` + text(65, "é") + `"}`, 1, "id"},
		{"NUL in an id", `{"text":"x","id":"a\u0000b"}`, 1, "id"},
		{"a request id of 128 bytes", `{"text":"x","requestId":"` + text(128, "x") + `"}`, 0, ""},
		{"a request id of 129 bytes", `{"text":"x","requestId":"` + text(129, "x") + `"}`, 1, "requestId"},
		{"no content", `{}`, 1, "at least one"},
		{"empty content", `{"text":"","payload":[],"parts":[],"attributes":null}`, 1, "at least one"},
		{"a type alone", `{"messageType":1}`, 1, "at least one"},
		{"a mention alone", `{"mentions":{"all":true}}`, 1, "at least one"},
		{"a part alone", mime("text/plain"), 0, ""},
		{"attributes alone", `{"attributes":{"a":1}}`, 0, ""},
		{"payload alone", `{"payload":[{"a":1}]}`, 0, ""},
		{"a part with body and url", `{"parts":[{"mimeType":"a/b","body":"x","url":"y"}]}`, 1, "parts[0]"},
		{"a part of negative size", `{"parts":[{"mimeType":"a/b","url":"y","size":-1}]}`, 1, "parts[0].size"},
		{"a part in hexadecimal", `{"parts":[{"mimeType":"a/b","body":"ff","encoding":"hex"}]}`, 1, "parts[0].encoding"},
		{"a part that is not base64", `{"parts":[{"mimeType":"a/b"},{"mimeType":"a/b","body":"***","encoding":"base64"}]}`, 1, "parts[1].body"},
		{"a part of base64 without its padding", `{"parts":[{"mimeType":"a/b","body":"AA","encoding":"base64"}]}`, 1, "parts[0].body"},
		{"MIME with suffix and parameter", mime(`application/vnd.acme.v1+json; charset=\"utf-8\"`), 0, ""},
		{"MIME in capitals", mime("Text/Plain"), 0, ""},
		{"MIME without a subtype", mime("text"), 1, "parts[0].mimeType"},
		{"MIME with an empty subtype", mime("text/"), 1, "parts[0].mimeType"},
		{"MIME with an empty type", mime("/plain"), 1, "parts[0].mimeType"},
		{"MIME with two subtypes", mime("text/plain/x"), 1, "parts[0].mimeType"},
		{"MIME with a space", mime("text/ plain"), 1, "parts[0].mimeType"},
		{"MIME with a newline", mime(`text/plain\n`), 1, "parts[0].mimeType"},
		{"MIME with NUL in a parameter", mime(`text/plain;a=\u0000`), 1, "parts[0].mimeType"},
		{"MIME with a newline in a parameter", mime(`text/plain;a=\r\nb`), 1, "parts[0].mimeType"},
		{"MIME of 255 characters", mime("text/plain;" + text(244, "x")), 0, ""},
		{"MIME of 256 characters", mime("text/plain;" + text(245, "x")), 1, "parts[0].mimeType"},
		{"MIME absent", `{"parts":[{"body":"x"}]}`, 1, "parts[0].mimeType"},
		{"payload of a number", `{"payload":[{},5]}`, 1, "payload[1]: "},
		{"payload of a string", `{"payload":["x"]}`, 1, "payload"},
		{"payload of a list", `{"payload":[[]]}`, 1, "payload"},
		{"payload of null", `{"payload":[{},null]}`, 1, "payload[1]"},
		{"payload that is no list", `{"payload":{"a":1}}`, 1, "payload"},
		{"attributes that are no object", `{"attributes":[]}`, 1, "attributes"},
		{"push that is no object", `{"text":"x","options":{"push":1}}`, 1, "options.push: "},
		{"a priority that does not exist", `{"text":"x","options":{"priority":"urgent"}}`, 1, "options.priority"},
		{"a mention of no user name", `{"text":"x","mentions":{"users":["bob"]}}`, 1, "mentions.users"},
		{"objects 64 deep", `{"attributes":` + text(64, `{"a":`) + `1` + text(64, `}`) + `}`, 0, ""},
		{"objects 65 deep", `{"attributes":` + text(65, `{"a":`) + `1` + text(65, `}`) + `}`, 1, "attributes: nested"},
		{"lists 5000 deep", `{"attributes":{"a":` + text(5000, `[`) + text(5000, `]`) + `}}`, 1, "attributes: nested"},
		{"a list 65 deep in a payload", `{"payload":[{},{"a":` + text(64, `[`) + text(64, `]`) + `}]}`, 1, "payload[1]: nested"},
		{"a huge number", `{"text":"x","messageType":1e400}`, 1, "messageType"},
		{"a fraction", `{"text":"x","messageType":1.5}`, 1, "messageType"},
		{"a huge number inside", `{"attributes":{"a":1e400}}`, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := publish(messagesTopic(), tc.payload)
			if tc.number == 0 {
				if req.Err != nil {
					t.Errorf("%v", req.Err)
				}
				return
			}
			refused(t, "message", req, tc.number, tc.detail)
			if tc.number == 23 && domain.CodeOf(req.Err) != domain.MessageTooLarge {
				t.Errorf("code %s", domain.CodeOf(req.Err))
			}
		})
	}
}

func TestSizeIsCheckedWithoutThePacketToo(t *testing.T) {
	// Over HTTP, and in Decide, there is no packet whose length could be taken.
	c := &domain.SendMessage{Conversation: conversationID(1)}
	for range 3 {
		c.Parts = append(c.Parts, domain.Part{MimeType: "a/b", Body: strings.Repeat("x", 22<<10)})
	}
	if err := domain.Check(c, domain.DefaultLimits()); domain.CodeOf(err) != domain.MessageTooLarge {
		t.Errorf("parts: %v", err)
	}
	c.Parts = nil
	c.Attributes = domain.RawObject(`{"a":"` + strings.Repeat("x", 64<<10) + `"}`)
	if err := domain.Check(c, domain.DefaultLimits()); domain.CodeOf(err) != domain.MessageTooLarge {
		t.Errorf("attributes: %v", err)
	}
}

func TestRequestsAreDecodedStrictly(t *testing.T) {
	// A client that misspells a field must hear of it instead of wondering why it has no effect; and what two parsers
	// read in two ways (a name given twice, or in other letter case) is not let in. The detail says where to look.
	conv := conversationID(1).String()
	message := messagesTopic()
	for _, tc := range []struct {
		name    string
		topic   string
		payload string
		detail  string
	}{
		{"an unknown field", message, `{"text":"x","txet":"y"}`, `"txet"`},
		{"an unknown field of a part", message, `{"parts":[{"mimeType":"a/b","data":"y"}]}`, `"data"`},
		{"an unknown option", message, `{"text":"x","options":{"ttl":1}}`, `"ttl"`},
		{"the conversation, which the topic names", message, `{"text":"x","conversation":"` + conv + `"}`, `"conversation"`},
		{"other letter case", message, `{"Text":"x"}`, `"Text"`},
		{"other letter case below", message, `{"parts":[{"mimetype":"a/b"}]}`, `"mimetype"`},
		{"other letter case beyond ASCII", message, `{"text":"x","optionſ":{}}`, `"optionſ"`},
		{"a field given twice", message, `{"text":"x","text":"y"}`, `"text"`},
		{"a field given twice in two spellings", message, `{"text":"x","\u0074ext":"y"}`, `"text"`},
		{"a field given twice below", message, `{"parts":[{"mimeType":"a/b","mimeType":"a/c"}]}`, `"mimeType"`},
		{"something after it", message, `{"text":"x"} {}`, "follows"},
		{"a brace after it", message, `{"text":"x"}}`, "follows"},
		{"rubbish after it", message, `{"text":"x"}x`, "follows"},
		{"half of it", message, `{"text":"x"`, "ends too early"},
		{"nothing", message, ``, "not a JSON object"},
		{"null", message, `null`, "not a JSON object"},
		{"a list", message, `[{"text":"x"}]`, "not a JSON object"},
		{"a string", message, `"x"`, "not a JSON object"},
		{"a comment", message, `{/**/"text":"x"}`, "not JSON"},
		{"single quotes", message, `{'text':'x'}`, "not JSON"},
		{"a trailing comma", message, `{"text":"x",}`, "not JSON"},
		{"a byte order mark", message, "\ufeff{\"text\":\"x\"}", "not a JSON object"},
		{"broken UTF-8", message, "{\"text\":\"\xff\"}", "UTF-8"},
		{"a number for text", message, `{"text":5}`, "text"},
		{"a string for parts", message, `{"parts":"x"}`, "parts"},
		{"a string for a size", message, `{"parts":[{"mimeType":"a/b","size":"1"}]}`, "parts[0].size: "},
		{"a number for a MIME type", message, `{"parts":[{"mimeType":1}]}`, "parts[0].mimeType: "},
		{"a string for an option", message, `{"text":"x","options":{"receipt":"yes"}}`, "options.receipt: "},
		{"a number for a request id", message, `{"text":"x","requestId":7}`, "requestId"},
		{"no UUID", "commands/getConversation", `{"uuid":"abc"}`, "uuid: "},
		{"a number for a UUID", "commands/getConversation", `{"uuid":5}`, "uuid"},
		{"no UUID in a list", "commands/getConversations", `{"uuids":["` + conv + `","abc"]}`, "uuids[1]: "},
		{"a number in a list of UUIDs", "commands/getConversations", `{"uuids":[5]}`, "uuids"},
		{"an object for a UUID", "commands/getConversations", `{"uuids":{}}`, "uuids"},
		{"a string for a user id", "commands/getUser", `{"userId":"5"}`, "userId"},
		{"a fraction for a user id", "commands/getUser", `{"userId":1.5}`, "userId"},
		{"a user id beyond 64 bits", "commands/getUser", `{"userId":9223372036854775808}`, "userId"},
		{"an object in a list of participants", "commands/addParticipants", `{"uuid":"` + conv + `","participants":[{"userId":1},{"username":{}}]}`, "participants[1].username: "},
		{"a string in a list of user ids", "commands/getUsers", `{"userId":[1,"5"]}`, "userId[1]: "},
		{"an unknown field of a command", "commands/getMe", `{"user":1}`, `"user"`},
		{"a string for a flag", "commands/createConversation", `{"direct":"true"}`, "direct"},
		{"custom data that is no object", "commands/createConversation", `{"customData":"x"}`, "customData"},
		{"an unknown permission", "commands/createConversation", `{"permissions":{"canFly":true}}`, `"canFly"`},
		{"a misspelled permission below", "commands/addParticipants", `{"uuid":"` + conv + `","participants":[{"userId":1,"permissions":{"canwrite":true}}]}`, `"canwrite"`},
		{"a word for a participant", "commands/addParticipants", `{"uuid":"` + conv + `","participants":["bob@chat.acme",true]}`, "participants[1]: "},
		{"a fraction for a participant", "commands/addParticipants", `{"uuid":"` + conv + `","participants":[1.5]}`, "participants[0]: "},
		{"a list for a participant", "commands/removeParticipants", `{"uuid":"` + conv + `","participants":[[1]]}`, "participants[0]: "},
		{"one participant without a list", "commands/addParticipants", `{"uuid":"` + conv + `","participants":"bob@chat.acme"}`, "participants: "},
		{"an unknown field of a participant", "commands/addParticipants", `{"uuid":"` + conv + `","participants":[{"userId":1,"x":2}]}`, `"x"`},
		{"another object's field in a participant", "commands/removeParticipants", `{"uuid":"` + conv + `","participants":[{"userId":1,"uuid":"x"}]}`, `"uuid"`},
		{"other letter case in a participant", "commands/createConversation", `{"participants":[{"userid":1}]}`, `"userid"`},
		{"a string for a count", "commands/retransmitEvents", `{"conversation":"` + conv + `","count":"5"}`, "count"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			refused(t, tc.payload, publish(tc.topic, tc.payload), 1, tc.detail)
		})
	}
}

func TestDetailsAreShortAndWhole(t *testing.T) {
	// A detail quotes what a client sent; it must not repeat all of it, nor cut a character in two.
	for _, payload := range []string{
		`{"` + strings.Repeat("語", 500) + `":1}`, `{"text":"x","mentions":{"users":["` + strings.Repeat("x語", 500) + `"]}}`,
		`{"attributes":"` + strings.Repeat("語", 500) + `"}`,
	} {
		e := domain.AsError(publish(messagesTopic(), payload).Err)
		if e == nil || len(e.Detail) > 200 || !utf8.ValidString(e.Detail) || strings.ContainsRune(e.Detail, utf8.RuneError) {
			t.Errorf("%s: %+v", clipped(payload), e)
		}
	}
	e := domain.AsError(publish("commands/"+strings.Repeat("é", 200), "{}").Err)
	if e == nil || len(e.Detail) > 200 || !utf8.ValidString(e.Detail) {
		t.Errorf("%+v", e)
	}
}

func TestLongListsOfNonsenseAreRefusedQuickly(t *testing.T) {
	// To say which element is wrong, each is tried: not when there are thousands.
	payload := `{"payload":[` + strings.Repeat(`{},`, 20_000) + `5]}`
	refused(t, "a long list", publish(messagesTopic(), payload), 1, "payload: ")
}

func TestWhatLooksOddAndIsFine(t *testing.T) {
	// Being strict must not turn away correct JSON.
	for name, payload := range map[string]string{
		"white space around":                    " \t\r\n{ \"text\" : \"x\" } \r\n",
		"null for absent":                       `{"text":"x","payload":null,"parts":null,"attributes":null,"mentions":null,"options":null,"id":null,"requestId":null}`,
		"an escaped name":                       `{"te\u0078t":"x"}`,
		"names of ours inside attributes":       `{"attributes":{"text":1,"Text":2,"TEXT":3}}`,
		"names twice inside attributes":         `{"attributes":{"a":1,"a":2}}`,
		"names of ours inside payload and push": `{"payload":[{"Parts":[{"MimeType":1}]}],"options":{"push":{"PUSH":{"x":[{}]}}}}`,
		"the same name at different places":     `{"text":"x","notification":{"text":"x"},"parts":[{"mimeType":"a/b"},{"mimeType":"a/b"}]}`,
		"braces and quotes in strings":          `{"text":"}{][\\\",\"text\":","attributes":{"}":"{\\"}}`,
		"half a surrogate pair":                 `{"text":"\ud800"}`,
	} {
		if req := publish(messagesTopic(), payload); req.Err != nil {
			t.Errorf("%s: %v", name, req.Err)
		}
	}
	for name, payload := range map[string]string{"nothing": "", "white space": " \n", "an object": "{}"} {
		if req := publish("commands/getMe", payload); req.Err != nil || !req.WantsReply {
			t.Errorf("getMe with %s: %+v", name, req)
		}
	}
}

func TestListsTakeOneOrMany(t *testing.T) {
	for payload, want := range map[string]*domain.GetUsers{
		`{"userId":1}`:                               {UserIDs: domain.List[domain.UserID]{1}},
		`{"userId":[1,2]}`:                           {UserIDs: domain.List[domain.UserID]{1, 2}},
		`{"userIds":[1],"userId":null}`:              {UserIDsToo: domain.List[domain.UserID]{1}},
		`{"username":"a@b.c","usernames":["d@e.f"]}`: {Usernames: domain.List[domain.Username]{"a@b.c"}, UsernamesToo: domain.List[domain.Username]{"d@e.f"}},
		`{"userId":[1],"username":null}`:             {UserIDs: domain.List[domain.UserID]{1}},
	} {
		req := publish("commands/getUsers", payload)
		if req.Err != nil {
			t.Errorf("%s: %v", payload, req.Err)
			continue
		}
		if diff := cmp.Diff(want, req.Command.(*domain.GetUsers), same()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", payload, diff)
		}
	}
	refused(t, "null alone", publish("commands/getUsers", `{"userId":null}`), 1, "1 to 50")
	refused(t, "null alone", publish("commands/getConversations", `{"uuids":null}`), 1, "1 to 30")
}

func TestRequestIDIsFoundInBrokenRequests(t *testing.T) {
	// Without it a client cannot tell which of its requests failed.
	for name, payload := range map[string]string{
		"an unknown field":      `{"x":1,"requestId":"r-1"}`,
		"a wrong type before":   `{"text":5,"requestId":"r-1"}`,
		"a wrong type after":    `{"requestId":"r-1","text":5}`,
		"half of it":            `{"requestId":"r-1","text":"abc`,
		"a syntax error behind": `{"requestId":"r-1","text":}`,
		"trailing data":         `{"requestId":"r-1","text":"x"}}`,
		"broken UTF-8":          "{\"requestId\":\"r-1\",\"text\":\"\xff\"}",
		"invalid content":       `{"requestId":"r-1"}`,
		"too much":              `{"requestId":"r-1","text":"` + strings.Repeat("x", 70<<10) + `"}`,
		"after nested things":   `{"parts":[{"requestId":"no"}],"attributes":{"requestId":"no"},"requestId":"r-1"}`,
	} {
		req := publish(messagesTopic(), payload)
		if req.Err == nil || req.RequestID != "r-1" || !req.WantsReply || req.Name != "sendMessage" {
			t.Errorf("%s: request id %q, reply due %t, name %q, %v", name, req.RequestID, req.WantsReply, req.Name, req.Err)
		}
	}
	req := publish("commands/fly", `{"requestId":"r-1","height":5}`)
	if domain.CodeOf(req.Err) != domain.UnknownCommand || req.RequestID != "r-1" || !req.WantsReply {
		t.Errorf("an unknown command: %+v", req)
	}
	for name, payload := range map[string]string{
		"a number": `{"requestId":5}`, "too long": `{"requestId":"` + strings.Repeat("x", 129) + `"}`, "not an object": `["requestId"]`,
		"nowhere": `{"x":1}`, "broken before": `{"x":,"requestId":"r-1"}`, "broken UTF-8 in it": "{\"requestId\":\"\xff\"}",
	} {
		if req := publish(messagesTopic(), payload); req.Err == nil || req.RequestID != "" || req.WantsReply {
			t.Errorf("%s: request id %q, reply due %t", name, req.RequestID, req.WantsReply)
		}
	}
}

func TestRepliesGoOnlyToTheirOwnUser(t *testing.T) {
	// A Response Topic comes from the client: another user's would make Parley write into that user's inbox of replies.
	for _, tc := range []struct {
		p     domain.Principal
		topic string
		ok    bool
	}{
		{user(alice), replies, true},
		{user(alice), replies + "/a/b-1", true},
		{user(alice), "users/bob@chat.acme/replies", false},
		{user(alice), "users/alice@chat.acme/inbox", false},
		{user(alice), "users/alice@chat.acme/repliesx", false},
		{user(alice), replies + "/", false},
		{user(alice), replies + "/#", false},
		{user(alice), replies + "/+/a", false},
		{user(alice), messagesTopic(), false},
		{user(alice), "somewhere", false},
		{service(), replies, false},
		{service(), "users/service/billing@acme/replies/x", true},
		{service(), "users/service/billing@rival/replies", false},
		{user(alice), "users/service/billing@acme/replies", false},
		{service().OnBehalfOf(person(alice)), "users/service/billing@acme/replies", false},
		{service().OnBehalfOf(person(alice)), replies, false},
	} {
		for topic, payload := range map[string]string{
			"commands/getMe": `{"requestId":"r-1"}`, messagesTopic(): `{"requestId":"r-1","text":"x"}`,
		} {
			req := domain.DecodePublish(tc.p, &domain.Publish{
				Topic: topic, Payload: []byte(payload),
				Version: 5, QoS: 1, ResponseTopic: tc.topic, Correlation: []byte{0, 1},
			}, domain.DefaultLimits())
			switch {
			case tc.ok && (req.Err != nil || req.ReplyTo != tc.topic || !req.WantsReply):
				t.Errorf("%s: %+v", tc.topic, req)
			case !tc.ok && (domain.CodeOf(req.Err) != domain.AccessDenied || req.ReplyTo != "" || req.Command != nil):
				t.Errorf("%s: %+v", tc.topic, req)
			case req.Name == "" || req.RequestID != "r-1" || !bytes.Equal(req.Correlation, []byte{0, 1}):
				t.Errorf("%s: name %q, request id %q, correlation %x", tc.topic, req.Name, req.RequestID, req.Correlation)
			}
		}
	}
}

func TestWhenAReplyIsDue(t *testing.T) {
	// protocol.md section 2: with a Response Topic, a requestId, or to a command.
	for _, tc := range []struct {
		name    string
		pub     domain.Publish
		reply   bool
		unheard bool
	}{
		{"message", domain.Publish{Topic: messagesTopic(), Payload: []byte(`{"text":"x"}`), Version: 5, QoS: 1}, false, false},
		{"message with request id", domain.Publish{Topic: messagesTopic(), Payload: []byte(`{"text":"x","requestId":"r"}`), Version: 4, QoS: 1}, true, true},
		{"message with Response Topic", domain.Publish{Topic: messagesTopic(), Payload: []byte(`{"text":"x"}`), Version: 5, QoS: 2, ResponseTopic: replies}, true, false},
		{"raw", domain.Publish{Topic: rawTopic(), Payload: []byte(`{"requestId":"r"}`), Version: 5, QoS: 0}, false, true},
		{"raw with Response Topic", domain.Publish{Topic: rawTopic(), Payload: []byte(`x`), Version: 5, QoS: 1, ResponseTopic: replies}, true, false},
		{"command", domain.Publish{Topic: "commands/getMe", Version: 4, QoS: 1}, true, true},
	} {
		req := domain.DecodePublish(user(alice), &tc.pub, domain.DefaultLimits())
		if req.Err != nil || req.WantsReply != tc.reply || req.Unheard != tc.unheard || req.Topic != tc.pub.Topic {
			t.Errorf("%s: %+v", tc.name, req)
		}
	}
}

func TestWhereNobodyPublishes(t *testing.T) {
	conv := "conversations/" + conversationID(1).String()
	for _, topic := range []string{
		conv + "/events", conv + "/signals", "users/alice@chat.acme/inbox", "users/alice@chat.acme/status", replies, replies + "/x",
		conv, conv + "/", conv + "/message", conv + "/messages/", "conversations/x/messages", "commands", "commands/", "commands/a/b",
		"$SYS/x", "", "/", "x",
	} {
		if req := publish(topic, `{"text":"x"}`); domain.CodeOf(req.Err) != domain.AccessDenied || req.Command != nil {
			t.Errorf("%q: %+v", topic, req)
		}
	}
	req := domain.DecodePublish(user(alice), &domain.Publish{Topic: messagesTopic(), Payload: []byte(`{"text":"x"}`), Retain: true, Version: 5, QoS: 1}, domain.DefaultLimits())
	refused(t, "a retained message", req, 1, "retained")
}

func TestRawMessages(t *testing.T) {
	// Devices send what they have: bytes, with or without MQTT 5 properties.
	uuid := []byte{0xff, 0x8b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
	for _, tc := range []struct {
		name  string
		pub   domain.Publish
		part  domain.Part
		id    string
		error int
	}{
		{"text", domain.Publish{Payload: []byte("21.5 °C")}, domain.Part{MimeType: "text/plain", Body: "21.5 °C"}, "", 0},
		{"nothing", domain.Publish{}, domain.Part{MimeType: "text/plain"}, "", 0},
		{"bytes", domain.Publish{Payload: []byte{0xff, 0}}, domain.Part{MimeType: "application/octet-stream", Body: "/wA=", Encoding: "base64"}, "", 0},
		{"valid UTF-8 with NUL", domain.Publish{Payload: []byte("a\x00")}, domain.Part{MimeType: "text/plain", Body: "YQA=", Encoding: "base64"}, "", 0},
		{"text of a type", domain.Publish{Payload: []byte(`{"a":1}`), ContentType: "application/json"}, domain.Part{MimeType: "application/json", Body: `{"a":1}`}, "", 0},
		{"bytes of a type", domain.Publish{Payload: []byte{0xff, 0xd8}, ContentType: "image/jpeg"}, domain.Part{MimeType: "image/jpeg", Body: "/9g=", Encoding: "base64"}, "", 0},
		{"bytes that say they are text", domain.Publish{Payload: []byte{0xff}, ContentType: "text/plain"}, domain.Part{MimeType: "text/plain", Body: "/w==", Encoding: "base64"}, "", 0},
		{"no MIME type", domain.Publish{Payload: []byte("x"), ContentType: "json"}, domain.Part{}, "", 1},
		{"an id", domain.Publish{Payload: []byte("x"), Correlation: []byte("m-1")}, domain.Part{MimeType: "text/plain", Body: "x"}, "m-1", 0},
		{"a binary id", domain.Publish{Payload: []byte("x"), Correlation: uuid}, domain.Part{MimeType: "text/plain", Body: "x"}, "_4sBAgMEBQYHCAkKCwwNDg", 0},
		{"an id with NUL", domain.Publish{Payload: []byte("x"), Correlation: []byte("a\x00")}, domain.Part{MimeType: "text/plain", Body: "x"}, "YQA", 0},
		{"32 KiB of text", domain.Publish{Payload: bytes.Repeat([]byte("x"), 32<<10)}, domain.Part{MimeType: "text/plain", Body: strings.Repeat("x", 32<<10)}, "", 0},
		{"more than 32 KiB of text", domain.Publish{Payload: bytes.Repeat([]byte("x"), 32<<10+1)}, domain.Part{}, "", 23},
		{"32 KiB of bytes", domain.Publish{Payload: make([]byte, 32<<10)}, domain.Part{MimeType: "text/plain", Body: base64.StdEncoding.EncodeToString(make([]byte, 32<<10)), Encoding: "base64"}, "", 0},
		{"more than 32 KiB of bytes", domain.Publish{Payload: make([]byte, 32<<10+1)}, domain.Part{}, "", 23},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.pub.Topic, tc.pub.Version, tc.pub.QoS = rawTopic(), 5, 1
			req := domain.DecodePublish(user(alice), &tc.pub, domain.DefaultLimits())
			if number(req.Err) != tc.error {
				t.Fatalf("%v, want number %d", req.Err, tc.error)
			}
			if tc.error != 0 {
				return
			}
			want := &domain.SendMessage{Conversation: conversationID(1)}
			want.Parts, want.ClientID = []domain.Part{tc.part}, tc.id
			if diff := cmp.Diff(want, req.Command.(*domain.SendMessage)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnyCorrelationDataIsAKey(t *testing.T) {
	// MQTT does not limit Correlation Data to the 64 characters of an id: a longer one is a key all the same, equal for
	// the same bytes and different for others.
	id := func(correlation []byte) string {
		t.Helper()
		req := domain.DecodePublish(user(alice), &domain.Publish{
			Topic: rawTopic(), Payload: []byte("x"), Correlation: correlation, Version: 5, QoS: 1,
		}, domain.DefaultLimits())
		if req.Err != nil {
			t.Fatalf("%d bytes: %v", len(correlation), req.Err)
		}
		return req.Command.(*domain.SendMessage).ClientID
	}
	seen := make(map[string]int)
	for n := 1; n <= 300; n++ {
		text, binary := bytes.Repeat([]byte("x"), n), bytes.Repeat([]byte{0xfe}, n)
		for _, c := range [][]byte{text, binary} {
			k := id(c)
			if other, taken := seen[k]; taken {
				t.Errorf("%d and %d bytes have one key %q", n, other, k)
			}
			seen[k] = n
			if id(c) != k || k == "" {
				t.Errorf("%d bytes: key %q, then another", n, k)
			}
		}
	}
	if k := id(bytes.Repeat([]byte("é"), 64)); k != strings.Repeat("é", 64) {
		t.Errorf("64 characters became %q", k)
	}
}

func TestDecodeObjectIsAsStrictAsCommands(t *testing.T) {
	// Administration over HTTP reads its bodies by the same rules.
	for payload, detail := range map[string]string{
		`{"username":"a@b.c","displayName":"A","customData":{"Username":1,"x":1,"x":2}}`: "",
		`{"Username":"a@b.c"}`:                    `"Username"`,
		`{"username":"a@b.c","username":"b@b.c"}`: `"username"`,
		`{"username":5}`:                          "username",
		`{"customData":[]}`:                       "customData",
		`{"customData":` + strings.Repeat(`{"a":`, 65) + `1` + strings.Repeat(`}`, 65) + `}`: "customData",
	} {
		var r domain.UserRequest
		err := domain.DecodeObject([]byte(payload), &r)
		switch {
		case detail == "" && err != nil:
			t.Errorf("%s: %v", payload, err)
		case detail != "" && (err == nil || !strings.Contains(err.Error(), detail)):
			t.Errorf("%s: %v, want %s", clipped(payload), err, detail)
		}
	}
}

func TestCommandsReadBackWhatTheyWrite(t *testing.T) {
	// The Go client writes commands with the same types.
	for name, col := range columns() {
		b, err := json.Marshal(col.command)
		if err != nil {
			t.Fatal(err)
		}
		req := publish("commands/"+name, string(b))
		if req.Err != nil {
			t.Errorf("%s: %v", b, req.Err)
			continue
		}
		if diff := cmp.Diff(col.command, req.Command, same()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
