// Command leanmessage plays the advanced features of LeanCloud's guide to LeanMessage: one device per tag, message types and
// attributes, mentions, receipts, unread messages, recalling and editing, sending again without fear, and catching up.
// docs/coming-from/leancloud.md has a table of all of them.
//
// Start a gateway, and play it there (in an account of its own, which it leaves behind):
//
//	PARLEY_ADMIN_KEY=secret bin/parley serve
//	PARLEY_ADMIN_KEY=secret go run ./examples/leanmessage
//
// ▶ is sent, ◀ is received, and ✓ is a claim that was checked against an answer.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/parley-im/parley/examples/walk"
)

func main() {
	if err := walk.Run(context.Background(), os.Args[1:], os.Stdout, "leanmessage", tell); err != nil {
		fmt.Fprintln(os.Stderr, "leanmessage:", err)
		os.Exit(1)
	}
}

// story is what one section hands to the next.
type story struct {
	*walk.Stage
	backend *walk.Backend
	users   map[string]walk.User
	// tom speaks MQTT 5, jerry 3.1.1.
	tom, jerry *walk.Client
	// chat is Tom's and Jerry's conversation.
	chat string
}

func tell(s *walk.Stage) {
	t := &story{Stage: s, users: make(map[string]walk.User)}
	t.prepare()
	t.oneDevicePerTag()
	t.conversation()
	t.messageTypes()
	t.mentions()
	t.transient()
	t.receipts()
	t.unread()
	t.recallAndEdit()
	t.mute()
	t.wills()
	t.undelivered()
	t.synchronize()
}

func (t *story) name(short string) string { return short + "@im." + t.Account }

func (t *story) messages() string { return "conversations/" + t.chat + "/messages" }

// both takes the next event at Tom and at Jerry.
func (t *story) both(kind string) (tom, jerry walk.Event) {
	return t.tom.Event(t.chat, kind), t.jerry.Event(t.chat, kind)
}

func (t *story) prepare() {
	t.Section("Users", `
A clientId that anybody may claim becomes a user that the backend has made.`)
	var service struct{ Key string }
	t.Operator().Call("POST", "/v1/services", walk.M{"account": t.Account, "name": "Backend"}, &service)
	t.backend = t.Backend("backend", service.Key)
	for _, short := range []string{"tom", "jerry", "spike"} {
		var made struct{ User walk.User }
		t.backend.Call("POST", "/v1/users", walk.M{"username": t.name(short), "password": short + "'s password"}, &made)
		t.users[short] = made.User
	}
}

func (t *story) login(short, device string, version int) walk.Login {
	return walk.Login{Name: device, Username: t.name(short), Password: short + "'s password", Version: version}
}

// oneDevicePerTag is single device sign-on.
func (t *story) oneDevicePerTag() {
	t.Section("One device per tag", `
A user has at most one live session per tag, and any number without one.`)
	phone := t.login("tom", "old phone", 5)
	phone.Options = map[string]string{"tag": "Mobile"}
	old := t.Connect(phone)
	old.Subscribe("users/" + t.name("tom") + "/inbox")

	t.Say("Tom logs in on a new phone, with MQTT 3.1.1, where options stand behind the user name. The old one is told, and ended.")
	phone = t.login("tom", "new phone", 3)
	phone.Options = map[string]string{"tag": "Mobile"}
	fresh := t.Connect(phone)
	n := old.Notice("conflict")
	t.Check(n.Tag == "Mobile", "the conflict is about the tag %s", n.Tag)
	old.Ended()

	t.Say("The old phone's library reconnects by itself. A login that says so gives way to the newer session.")
	phone = t.login("tom", "old phone", 5)
	phone.Options = map[string]string{"tag": "Mobile", "reconnect": "1"}
	t.Refuse(phone, 0x8e)
	fresh.Leave()
}

// conversation makes the conversation of Tom and Jerry.
func (t *story) conversation() {
	t.Section("Conversation", `
A unique conversation is called distinct: the same members get the same conversation.`)
	t.tom = t.Connect(t.login("tom", "tom", 5))
	t.tom.Listen()
	t.jerry = t.Connect(t.login("jerry", "jerry", 3))
	t.jerry.Listen()
	create := walk.M{"distinct": true, "title": "Tom & Jerry", "participants": []walk.M{{"username": t.name("jerry")}}}
	var made struct {
		Conversation walk.Conversation
		Existing     bool
	}
	t.tom.Command("createConversation", create, &made)
	t.chat = made.Conversation.UUID
	t.both("createConversation")
	t.tom.Command("createConversation", create, &made)
	t.Check(made.Existing && made.Conversation.UUID == t.chat, "created again, it is the same conversation")
}

// messageTypes sends the built-in types and one of the application's own.
func (t *story) messageTypes() {
	t.Section("Message types and attributes", `
The built-in types have LeanMessage's numbers, -1 to -6; those above zero are the application's. There is nothing to register.`)
	for _, m := range []struct {
		what    string
		message walk.M
	}{
		{"a text with attributes", walk.M{"messageType": -1, "text": "Hello", "attributes": walk.M{"mood": "happy", "level": 3}}},
		{"an image elsewhere, with where it was taken", walk.M{
			"messageType": -2, "text": "Look!", "attributes": walk.M{"place": walk.M{"latitude": 31.3753285, "longitude": 120.9664658}},
			"parts": []walk.M{{"mimeType": "image/png", "url": "https://files.example/logo.png", "size": 11824}},
		}},
		{"a sound", walk.M{"messageType": -3, "attributes": walk.M{"duration": 3.5}, "parts": []walk.M{
			{"mimeType": "audio/mp4", "url": "https://files.example/meow.m4a", "size": 4096},
		}}},
		{"a film", walk.M{"messageType": -4, "parts": []walk.M{
			{"mimeType": "video/mp4", "url": "https://files.example/chase.mp4", "size": 31337},
		}}},
		{"a place", walk.M{"messageType": -5, "attributes": walk.M{"latitude": 31.3753285, "longitude": 120.9664658}}},
		{"a small file, inside of the message", walk.M{"messageType": -6, "text": "notes.txt", "parts": []walk.M{
			{"mimeType": "text/plain", "body": "Mind the cat."},
		}}},
		{"an OperationMessage of the application's own", walk.M{
			"messageType": 1, "attributes": walk.M{"op": "rename", "args": []any{"a", 1.0, nil, true, walk.M{"deep": walk.M{}}}},
		}},
	} {
		t.Say("Tom sends " + m.what + ".")
		t.tom.Publish(t.messages(), m.message)
		_, ev := t.both("sendMessage")
		t.Check(ev.Message.MessageType == m.message["messageType"], "Jerry got type %d", ev.Message.MessageType)
		if want, ok := m.message["attributes"].(walk.M); ok {
			t.Check(walk.Same(ev.Message.Attributes, want), "the attributes are what Tom sent")
		}
		if want, ok := m.message["parts"].([]walk.M); ok {
			got := ev.Message.Parts[0]
			t.Check(got.MimeType == want[0]["mimeType"] && (got.URL == want[0]["url"] || got.Body == want[0]["body"]),
				"the part is %s", got.MimeType)
		}
	}
}

// mentions mentions one and all.
func (t *story) mentions() {
	t.Section("Mentions", `
Who is mentioned stands beside the text, so that names on the screen may change.`)
	t.tom.Publish(t.messages(), walk.M{"text": "@Jerry come back early", "mentions": walk.M{"users": []string{t.name("jerry")}}})
	_, ev := t.both("sendMessage")
	t.Check(len(ev.Message.Mentions.Users) == 1 && ev.Message.Mentions.Users[0] == t.name("jerry"), "Jerry is mentioned")
	t.tom.Publish(t.messages(), walk.M{"text": "@all dinner", "mentions": walk.M{"all": true}})
	_, ev = t.both("sendMessage")
	t.Check(ev.Message.Mentions.All, "everybody is mentioned")
	t.tom.PublishRefused(t.messages(), walk.M{"text": "@Spike", "mentions": walk.M{"users": []string{t.name("spike")}}}, "not-participant", 0x83)
	u := t.jerry.Unread(t.chat)
	t.Check(u.Unread == 9 && u.Mentioned, "Jerry has %d unread messages, and was mentioned", u.Unread)
	t.Check(u.LastMessage.Text == "@all dinner", "the last of them is %q", u.LastMessage.Text)
}
