// Command layer plays the features of Layer's guide to sending messages: distinct conversations, participants that anybody may add,
// messages of several parts, rich content, notifications, receipts per recipient, and senders that are services. docs/coming-from/layer.md
// has a table of all of them.
//
// Start a gateway, and play it there (in an account of its own, which it leaves behind):
//
//	PARLEY_ADMIN_KEY=secret bin/parley serve
//	PARLEY_ADMIN_KEY=secret go run ./examples/layer
//
// ▶ is sent, ◀ is received, and ✓ is a claim that was checked against an answer.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"github.com/parley-im/parley/examples/walk"
)

func main() {
	if err := walk.Run(context.Background(), os.Args[1:], os.Stdout, "layer", tell); err != nil {
		fmt.Fprintln(os.Stderr, "layer:", err)
		os.Exit(1)
	}
}

// story is what one section hands to the next.
type story struct {
	*walk.Stage
	backend *walk.Backend
	users   map[string]walk.User
	// tokens are access tokens by short name.
	tokens map[string]string
	// ann speaks MQTT 5, ben 3.1.1; chris comes later.
	ann, ben *walk.Client
	// pair is the distinct conversation of Ann and Ben, trio that of three.
	pair, trio string
}

// created is the answer to createConversation.
type created struct {
	Conversation walk.Conversation
	Existing     bool
}

func tell(s *walk.Stage) {
	t := &story{Stage: s, users: make(map[string]walk.User), tokens: make(map[string]string)}
	t.prepare()
	t.distinct()
	t.participants()
	t.parts()
	t.richContent()
	t.notification()
	t.receipts()
	t.services()
}

func (t *story) name(short string) string { return short + "@web." + t.Account }

func (t *story) refs(shorts ...string) []walk.M {
	list := make([]walk.M, len(shorts))
	for i, short := range shorts {
		list[i] = walk.M{"username": t.name(short)}
	}
	return list
}

// both takes the next event of the conversation at Ann and at Ben.
func (t *story) both(conversation, kind string) (ann, ben walk.Event) {
	return t.ann.Event(conversation, kind), t.ben.Event(conversation, kind)
}

func (t *story) prepare() {
	t.Section("Users", `
Your backend knows the users; it makes them, and gets access tokens for them, which take the place of identity tokens.`)
	var service struct{ Key string }
	t.Operator().Call("POST", "/v1/services", walk.M{"account": t.Account, "name": "Reminders"}, &service)
	t.backend = t.Backend("backend", service.Key)
	for _, short := range []string{"ann", "ben", "chris"} {
		var made struct{ User walk.User }
		t.backend.Call("POST", "/v1/users", walk.M{"username": t.name(short)}, &made)
		t.users[short] = made.User
		var tokens walk.Tokens
		t.backend.Call("POST", "/v1/users/"+t.name(short)+"/tokens", walk.M{}, &tokens)
		t.tokens[short] = tokens.AccessToken
	}
	t.ann, t.ben = t.connect("ann", 5), t.connect("ben", 3)
}

// connect connects a user with the token that the backend has got.
func (t *story) connect(short string, version int) *walk.Client {
	c := t.Connect(walk.Login{Name: short, Username: t.name(short), Password: t.tokens[short], Version: version})
	c.Listen()
	return c
}

// distinct makes the one conversation of a set of users.
func (t *story) distinct() {
	t.Section("Distinct conversations", `
One conversation per set of participants, whoever creates it and however often. The caller takes part without being named.`)
	topic := walk.M{"topic": "weekend"}
	var made, again created
	t.ann.Command("createConversation", walk.M{"distinct": true, "participants": t.refs("ben"), "customData": topic}, &made)
	t.pair = made.Conversation.UUID
	t.Check(!made.Existing && made.Conversation.Distinct && len(made.Conversation.Participants) == 2, "a new conversation of two")
	t.both(t.pair, "createConversation")

	t.ben.Command("createConversation", walk.M{"distinct": true, "participants": t.refs("ann")}, &again)
	t.Check(again.Existing && again.Conversation.UUID == t.pair && again.Conversation.CustomData["topic"] == "weekend",
		"Ben's is the same, with Ann's metadata")
	r := t.ben.Refused("createConversation", walk.M{
		"distinct": true, "participants": t.refs("ann"), "customData": walk.M{"topic": "work"},
	}, "distinct-conflict")
	t.Check(r.Number == 108 && r.Conversation != nil && r.Conversation.UUID == t.pair, "other metadata: 108, with the existing conversation")

	t.Say("Not distinct: another conversation of the same two.")
	t.ann.Command("createConversation", walk.M{"participants": t.refs("ben"), "customData": walk.M{"topic": "work"}}, &made)
	t.Check(made.Conversation.UUID != t.pair, "it is another one")
	t.both(made.Conversation.UUID, "createConversation")
}

// participants changes who takes part in an open conversation.
func (t *story) participants() {
	t.Section("Add and remove participants", `
Nobody owns a Layer conversation: that is the policy open. Whoever changes the participants of a distinct conversation ends its
distinctness.`)
	var made created
	t.ann.Command("createConversation", walk.M{"distinct": true, "policy": "open", "participants": t.refs("ben", "chris")}, &made)
	t.trio = made.Conversation.UUID
	t.both(t.trio, "createConversation")
	t.Say("Ben, who did not create it, removes Chris and adds him again.")
	t.ben.Command("removeParticipants", walk.M{"uuid": t.trio, "participants": t.refs("chris")}, nil)
	_, ev := t.both(t.trio, "editConversation")
	t.Check(!ev.ConversationData.Distinct, "the conversation is distinct no more")
	t.ben.Command("addParticipants", walk.M{"uuid": t.trio, "participants": t.refs("chris")}, nil)
	_, ev = t.both(t.trio, "editConversation")
	t.Check(!ev.ConversationData.Distinct && len(ev.ConversationData.Participants) == 3, "with the same three, it stays so")
	var again created
	t.ann.Command("createConversation", walk.M{"distinct": true, "policy": "open", "participants": t.refs("ben", "chris")}, &again)
	t.both(again.Conversation.UUID, "createConversation")
	t.Check(!again.Existing && again.Conversation.UUID != t.trio, "a distinct one of these three is a new one now")

	t.Say("Anybody changes the metadata, which is replaced as a whole.")
	t.ben.Command("editConversation", walk.M{"uuid": t.trio, "customData": walk.M{"background": "blue"}}, nil)
	ev, _ = t.both(t.trio, "editConversation")
	t.Check(ev.ConversationData.CustomData["background"] == "blue", "Ann sees Ben's change")
}

func messages(conversation string) string { return "conversations/" + conversation + "/messages" }

// parts sends messages of one and several parts.
func (t *story) parts() {
	t.Section("Message parts", `
A message has up to 16 parts, in order, each with a MIME type: text as it is, other bytes as base64.`)
	image := []byte{0xff, 0xd8, 0xff, 0xe0, 0, 1, 2, 3}
	place, _ := json.Marshal(walk.M{"lat": 25.43567, "lon": 123.54383}) // a map of numbers always encodes
	ack := t.ann.Publish(messages(t.pair), walk.M{"parts": []walk.M{
		{"mimeType": "text/plain", "body": "Hi! How are you"},
		{"mimeType": "image/jpeg", "body": base64.StdEncoding.EncodeToString(image), "encoding": "base64"},
		{"mimeType": "text/location", "body": string(place)},
	}})
	t.Check(ack.Properties["seq"] == "2", "confirmed: stored as event %s", ack.Properties["seq"])
	_, ev := t.both(t.pair, "sendMessage")
	t.Check(len(ev.Message.Parts) == 3, "Ben got %d parts, in order", len(ev.Message.Parts))
	for _, part := range ev.Message.Parts {
		switch part.MimeType {
		case "text/plain":
			t.Check(part.Body == "Hi! How are you", "a text")
		case "image/jpeg":
			got, err := base64.StdEncoding.DecodeString(part.Body)
			t.Check(err == nil && part.Encoding == "base64" && string(got) == string(image), "an image, byte for byte")
		case "text/location":
			var got walk.M
			t.Check(json.Unmarshal([]byte(part.Body), &got) == nil && got["lat"] == 25.43567, "a place at latitude %v", got["lat"])
		default:
			t.Check(false, "nobody sent %s", part.MimeType)
		}
	}
	t.ann.PublishRefused(messages(t.pair), walk.M{"parts": []walk.M{{"mimeType": "text", "body": "?"}}}, "invalid-request", 0x99)
	t.ben.PublishRefused(messages(t.pair), walk.M{"parts": []walk.M{{"mimeType": "text", "body": "?"}}}, "invalid-request", 0x99)

	t.Say("A part alone needs no JSON at all: the raw topic.")
	t.ben.Publish("conversations/"+t.pair+"/raw", []byte("Fine, and you?"))
	ev, _ = t.both(t.pair, "sendMessage")
	t.Check(ev.Message.Parts[0].MimeType == "text/plain" && ev.Message.Parts[0].Body == "Fine, and you?", "text is text/plain")
	t.ben.Publish("conversations/"+t.pair+"/raw", image)
	ev, _ = t.both(t.pair, "sendMessage")
	t.Check(ev.Message.Parts[0].MimeType == "application/octet-stream" && ev.Message.Parts[0].Encoding == "base64", "bytes are bytes")

	t.Say("A part may also stand elsewhere, under a URL of yours.")
	t.ann.Publish(messages(t.pair), walk.M{"parts": []walk.M{
		{"mimeType": "video/mp4", "url": "https://files.example/beach.mp4", "size": 31337},
	}})
	_, ev = t.both(t.pair, "sendMessage")
	t.Check(ev.Message.Parts[0].URL == "https://files.example/beach.mp4" && ev.Message.Parts[0].Size == 31337, "a link, with its size")
}

// richContent sends what is too large for a message.
func (t *story) richContent() {
	t.Section("Rich content", `
What is too large for a message is uploaded to the gateway first; the part names it. Readers get a URL that is good for a day.`)
	film := bytes.Repeat([]byte{0xff, 0xfb, 0x90, 0x64}, 50_000)
	app := t.Backend("ann", t.tokens["ann"])
	var made struct{ Content walk.Content }
	app.Call("POST", "/v1/content", walk.M{"mimeType": "video/mp4", "size": len(film)}, &made)
	app.Upload(made.Content.UploadURL, "video/mp4", film, &made)
	t.Check(made.Content.Complete && made.Content.Received == int64(len(film)), "%d bytes have come", made.Content.Received)
	t.ann.Publish(messages(t.pair), walk.M{"parts": []walk.M{{"mimeType": "video/mp4", "content": made.Content.ID}}})
	_, ev := t.both(t.pair, "sendMessage")
	part := ev.Message.Parts[0]
	t.Check(part.Content == made.Content.ID && part.Size == int64(len(film)), "Ben gets the part with its size, %d bytes", part.Size)
	got := t.Backend("ben", "").Download(part.URL)
	t.Check(bytes.Equal(got, film), "and the same %d bytes", len(got))

	t.Say("A URL that has expired is replaced.")
	t.Backend("ben", t.tokens["ben"]).Call("GET", "/v1/content/"+part.Content, nil, &made)
	got = t.Backend("ben", "").Download(made.Content.URL)
	t.Check(bytes.Equal(got, film), "the fresh one is good as well")
	t.Backend("chris", t.tokens["chris"]).Refused("GET", "/v1/content/"+part.Content, nil, "not-found")
}

// notification sends a message with what a phone shows.
func (t *story) notification() {
	t.Section("Notification", `
What a locked phone shows is the sender's choice.`)
	t.ann.Publish(messages(t.pair), walk.M{
		"text": "Ping", "notification": walk.M{"text": "Your device is now a machine that goes Ping", "sound": "ping.aiff"},
	})
	_, ev := t.both(t.pair, "sendMessage")
	t.Check(ev.Message.Notification.Sound == "ping.aiff", "it comes with the message, sound %s", ev.Message.Notification.Sound)
}

// receipts shows the status per recipient and in sum.
func (t *story) receipts() {
	t.Section("Receipt status", `
sent, delivered or read for each recipient; none, some or all in sum, the sender left out. Chris has not been online so far.`)
	t.ann.Publish(messages(t.trio), walk.M{"text": "Can you see me now?"})
	_, ev := t.both(t.trio, "sendMessage")
	by := func(short string) func(walk.Signal) bool {
		return func(s walk.Signal) bool { return s.UserID == t.users[short].UserID && s.Seq >= ev.Seq }
	}
	t.ann.Signal(t.trio, "delivered", by("ben"))
	t.status(ev.Message, "some", "none", walk.M{"ben": "delivered", "chris": "sent"})

	t.Say("Ben reads it. Then Chris comes, fetches what he missed, and reads it too.")
	t.ben.Command("markAsRead", walk.M{"conversation": t.trio, "seq": ev.Seq}, nil)
	t.ann.Signal(t.trio, "read", by("ben"))
	t.status(ev.Message, "some", "some", walk.M{"ben": "read", "chris": "sent"})
	chris := t.connect("chris", 5)
	var missed struct{ Events []walk.Event }
	chris.Command("retransmitEvents", walk.M{"conversation": t.trio, "from": ev.Seq, "count": 100}, &missed)
	t.Check(missed.Events[0].Message.Text == "Can you see me now?", "Chris sees it")
	chris.Publish("conversations/"+t.trio+"/read", walk.M{"seq": ev.Seq})
	t.ann.Signal(t.trio, "read", by("chris"))
	t.status(ev.Message, "all", "all", walk.M{"ben": "read", "chris": "read"})
	chris.Leave()
}

func (t *story) status(m walk.Message, delivery, read string, want walk.M) {
	var r walk.Receipts
	t.ann.Command("getReceipts", walk.M{"conversation": m.Conversation, "message": m.UUID}, &r)
	t.Check(r.DeliveryStatus == delivery && r.ReadStatus == read, "delivered to %s, read by %s", r.DeliveryStatus, r.ReadStatus)
	for short, status := range want {
		t.Check(r.RecipientStatus[strconv.FormatInt(t.users[short].UserID, 10)] == status, "%s: %s", short, status)
	}
}

// services posts as a backend.
func (t *story) services() {
	t.Section("Services as senders", `
A backend posts under its own name; participants see that it is a service.`)
	t.backend.Call("POST", messagesRoute(t.pair), walk.M{"text": "Your trip is tomorrow."}, nil)
	_, ev := t.both(t.pair, "sendMessage")
	t.Check(ev.Message.Sender.Service == "Reminders" && ev.Message.Sender.UserID == 0, "sent by the service %s", ev.Message.Sender.Service)
	t.backend.Call("POST", messagesRoute(t.pair), walk.M{"text": "Thanks", "as": t.name("ben")}, nil)
	_, ev = t.both(t.pair, "sendMessage")
	t.Check(ev.Message.Sender.Username == t.name("ben"), "and, as the backend says, on Ben's behalf")

	t.Say("What is sent with a delay can be cancelled until then.")
	var later struct{ Scheduled walk.Scheduled }
	t.backend.Call("POST", messagesRoute(t.pair), walk.M{"text": "Your trip was yesterday.", "delay": 172800}, &later)
	t.Check(later.Scheduled.State == "pending", "it is %s", later.Scheduled.State)
	t.backend.Call("DELETE", "/v1/scheduled/"+later.Scheduled.UUID, nil, nil)
	t.backend.Call("GET", "/v1/scheduled/"+later.Scheduled.UUID, nil, &later)
	t.Check(later.Scheduled.State == "cancelled", "and then %s", later.Scheduled.State)
	t.backend.Call("POST", messagesRoute(t.pair), walk.M{"text": "Your taxi is here.", "delay": 1}, nil)
	_, ev = t.both(t.pair, "sendMessage")
	t.Check(ev.Message.Text == "Your taxi is here.", "a second later it comes")

	t.Say("An announcement belongs to no conversation: each of the users has it for itself.")
	t.backend.Call("POST", "/v1/announcements", walk.M{"to": []string{t.name("ann"), t.name("chris")}, "text": "We are moving."}, nil)
	told := t.ann.Notice("announcement").Announcement
	t.Check(told.Text == "We are moving." && told.Sender.Service == "Reminders", "Ann is told by %s", told.Sender.Service)
	t.ann.Command("markAnnouncementsRead", walk.M{"announcements": told.UUID}, nil)
	chris := t.connect("chris", 5)
	t.Check(chris.Notice("announcement").Announcement.UUID == told.UUID, "Chris, who was away, when he comes")
	chris.Leave()
}

func messagesRoute(conversation string) string {
	return "/v1/conversations/" + conversation + "/messages"
}
