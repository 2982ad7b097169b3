package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"testing"
	"time"
)

// signal is what comes on a conversation's signals topic.
type signal struct {
	Type         string    `json:"type"`
	Conversation string    `json:"conversation"`
	Seq          int64     `json:"seq"`
	Time         int64     `json:"time"`
	UserID       int64     `json:"userId"`
	State        string    `json:"state"`
	Message      *message  `json:"message"`
	Initiator    initiator `json:"initiator"`

	received received
}

// unread is what a user has not read of a conversation.
type unread struct {
	Type         string   `json:"type"` // of the inbox event
	Conversation string   `json:"conversation"`
	Unread       int      `json:"unread"`
	More         bool     `json:"more"`
	Mentioned    bool     `json:"mentioned"`
	LastMessage  *message `json:"lastMessage"`
	LastSeq      int64    `json:"lastSeq"`
	LastRead     int64    `json:"lastRead"`
}

// receipts tell who has got and read a message.
type receipts struct {
	RecipientStatus map[string]string `json:"recipientStatus"`
	ReadStatus      string            `json:"readStatus"`
	DeliveryStatus  string            `json:"deliveryStatus"`
	LastDeliveredAt int64             `json:"lastDeliveredAt"`
	LastReadAt      int64             `json:"lastReadAt"`
}

const allSignals = "conversations/+/signals"

func typingTopic(conversation string) string { return "conversations/" + conversation + "/typing" }
func readTopic(conversation string) string   { return "conversations/" + conversation + "/read" }

// signal waits for a signal of the type in a conversation.
func (d *device) signal(tb testing.TB, conversation, kind string) signal {
	tb.Helper()
	var s signal
	_, err := d.other.take(tb.Context(), func(m received) bool {
		var x signal
		if m.topic != "conversations/"+conversation+"/signals" || json.Unmarshal(m.payload, &x) != nil || x.Type != kind {
			return false
		}
		s, s.received = x, m
		return true
	})
	if err != nil {
		tb.Fatalf("%s: no %s: %v", d.user.Name, kind, err)
	}
	if s.received.qos != 0 || s.Conversation != conversation || s.Time == 0 {
		tb.Errorf("signal %+v at QoS %d", s, s.received.qos)
	}
	return s
}

// unread waits for an inbox event about what is unread in a conversation.
func (d *device) unread(tb testing.TB, conversation string) unread {
	tb.Helper()
	var u unread
	_, err := d.inbox.take(tb.Context(), func(m received) bool {
		var x unread
		if json.Unmarshal(m.payload, &x) != nil || x.Type != "unread" || x.Conversation != conversation {
			return false
		}
		u = x
		return true
	})
	if err != nil {
		tb.Fatalf("%s: no unread of %s: %v", d.user.Name, conversation, err)
	}
	return u
}

// unreadOf asks what a user has not read of a conversation.
func (c caller) unreadOf(tb testing.TB, conversation string) unread {
	tb.Helper()
	var all struct{ Unread []unread }
	c.must(tb, &all, "getUnread", map[string]any{})
	for _, u := range all.Unread {
		if u.Conversation == conversation {
			return u
		}
	}
	tb.Fatalf("%s: %s is not among %+v", c.name, conversation, all.Unread)
	return unread{}
}

// receiptsOf asks who has got and read the message of a number.
func (c caller) receiptsOf(tb testing.TB, conversation, message string) receipts {
	tb.Helper()
	var r receipts
	c.must(tb, &r, "getReceipts", map[string]any{"conversation": conversation, "message": message})
	return r
}

func TestTypingReachesTheOthers(t *testing.T) {
	// The dots under the name: at once, from whatever client, and not from one that may not write.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob", "mute")
		alice, bob, mute := users[0], users[1], users[2]
		c := w.conversationWith(t, map[string]any{"participants": []any{
			bob.ref(), map[string]any{"username": mute.Name, "permissions": map[string]any{"canWrite": false}},
		}}, alice)
		watching := w.connect(t, bob, version)
		watching.subscribe(t, 0, allSignals)
		writing := w.connect(t, alice, version)
		writing.subscribe(t, 1, writing.user.replies())

		a := writing.publish(t, publishing{topic: typingTopic(c), qos: 1})
		if a.reason != 0 || version == 5 && (a.user["conversation"] != c || a.user["seq"] != "") {
			t.Errorf("PUBACK %+v", a)
		}
		s := watching.signal(t, c, "typing")
		if s.State != "started" || s.Initiator.Username != alice.Name || s.Initiator.UserID != alice.ID || s.Initiator.Device != writing.id {
			t.Errorf("typing %+v", s)
		}
		began := time.Now()
		writing.publish(t, publishing{topic: typingTopic(c), qos: 0, payload: []byte(`{}`)}) // no news
		if r := writing.command(t, "typing", map[string]any{"conversation": c, "state": "finished"}); r.Error != nil || string(r.Result) != "{}" {
			t.Errorf("the reply is %s %+v", r.Result, r.Error)
		}
		if s := watching.signal(t, c, "typing"); s.State != "finished" {
			t.Errorf("then %+v", s)
		}
		if waited := time.Since(began); waited < time.Second {
			t.Errorf("two signals within %v", waited)
		}
		silent := w.connect(t, mute, version)
		silent.subscribe(t, 1, mute.replies())
		for _, params := range []map[string]any{{"conversation": c}, {"conversation": c, "state": "thinking"}} {
			want := 12
			if params["state"] != nil {
				want = 1
			}
			if r := silent.command(t, "typing", params); r.Error == nil || r.Error.Number != want {
				t.Errorf("%v: %+v", params, r)
			}
		}
		if n := len(w.log(t, c)); n != 1 {
			t.Errorf("%d events are stored", n)
		}
	})
}

func TestTransientMessagesReachThoseOnlineOnly(t *testing.T) {
	// A dice roll, a cursor on a shared drawing: of use now or never.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		transient := func(s string) map[string]any {
			return map[string]any{"text": s, "options": map[string]any{"transient": true}}
		}
		early := w.connect(t, users[1], version)
		early.subscribe(t, 1, allEvents)
		early.subscribe(t, 0, "conversations/"+c+"/signals")
		alice := w.connect(t, users[0], version)
		if a := alice.say(t, c, transient("over MQTT")); version == 5 && (a.user["conversation"] != c || a.user["seq"] != "" || a.user["message"] != "") {
			t.Errorf("PUBACK %+v", a)
		}
		res := w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+c+"/messages", transient("over HTTP"))
		if res.status != 200 {
			t.Errorf("over HTTP: %d %s", res.status, res.body)
		}
		for _, text := range []string{"over MQTT", "over HTTP"} {
			s := early.signal(t, c, "transientMessage")
			if s.Message == nil || s.Message.Text != text || s.Message.UUID != "" || s.Message.Seq != 0 || s.Message.Sender.Username != users[0].Name {
				t.Errorf("%s: %s", text, s.received.payload)
			}
		}
		late := w.connect(t, users[1], version)
		late.subscribe(t, 0, allSignals)
		alice.say(t, c, transient("last"))
		if s := late.signal(t, c, "transientMessage"); s.Message.Text != "last" {
			t.Errorf("who came later got %s", s.received.payload)
		}
		alice.say(t, c, text("stored"))
		if ev := early.hear(t, c); ev.Seq != 2 || ev.Message.Text != "stored" {
			t.Errorf("event %+v", ev)
		}
		for _, by := range w.callers(t, users[1]) {
			if u := by.unreadOf(t, c); u.Unread != 1 || u.LastSeq != 2 {
				t.Errorf("%s: %+v", by.name, u)
			}
		}
		if n := len(w.log(t, c)); n != 2 {
			t.Errorf("%d events are stored", n)
		}
	})
}

func TestTooManyTransientMessagesAreRefusedAndHurtNobody(t *testing.T) {
	// A client that tells of every movement of a mouse is told to calm down; its messages and the others' go on.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		bob := w.connect(t, users[1], version)
		bob.subscribe(t, 1, allEvents)
		alice := w.rawConnect(t, users[0], version)
		alice.subscribe(t, filter{users[0].replies(), 0})
		// All at once: who waits for each answer is not too fast for every machine.
		const n, each = 300, 30
		var mouse []byte
		for i := range n {
			if i%each == 0 {
				mouse = append(mouse, alice.publishPacket(messagesTopic(c), mustJSON(t, text("kept")), 0, 0)...)
			}
			mouse = append(mouse, alice.publishPacket("commands/sendMessage", mustJSON(t, map[string]any{
				"conversation": c, "text": "x", "requestId": fmt.Sprint(i), "options": map[string]any{"transient": true},
			}), 0, 0)...)
		}
		alice.write(t, mouse)
		refused := 0
		for range n {
			var r reply
			mustDecode(t, alice.expect(t, typePublish).payload, &r)
			if r.Error != nil {
				if refused++; r.Error.Code != "rate-limited" || r.Error.Number != 32 {
					t.Fatalf("refused with %+v", r.Error)
				}
			}
		}
		if refused == 0 || refused > n-60 {
			t.Errorf("%d of %d refused", refused, n)
		}
		bob.hearUpTo(t, c, 2, 1+n/each)
	})
}

func TestReadingIsSeenEverywhere(t *testing.T) {
	// One mark per participant: the others see it, one's own devices follow it, and every way of asking tells the same.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob := users[0], users[1]
		c := w.conversation(t, users...)
		sender := w.connect(t, alice, version)
		sender.subscribe(t, 0, allSignals)
		for n := range 4 {
			sender.say(t, c, text(fmt.Sprint("message ", n))) // 2 to 5
		}
		phone, tablet := w.connect(t, bob, version), w.connect(t, bob, 9-version)
		for _, d := range []*device{phone, tablet} {
			d.subscribe(t, 1, bob.inbox())
			if u := d.unread(t, c); u.Unread != 4 || u.LastSeq != 5 || u.LastRead != 0 || u.LastMessage == nil || u.LastMessage.Text != "message 3" {
				t.Errorf("at login: %+v", u)
			}
		}
		callers := w.callers(t, bob)
		check := func(how string, read int64, left int) {
			t.Helper()
			if s := sender.signal(t, c, "read"); s.Seq != read || s.UserID != bob.ID || s.Initiator.Username != bob.Name {
				t.Errorf("%s: read %+v, want %d", how, s, read)
			}
			if u := tablet.unread(t, c); u.Unread != left || u.LastRead != read {
				t.Errorf("%s: the tablet is told %+v", how, u)
			}
			for _, by := range callers {
				if u := by.unreadOf(t, c); u.Unread != left || u.LastRead != read || u.LastSeq != 5 || u.More || u.Mentioned {
					t.Errorf("%s: %s says %+v", how, by.name, u)
				}
				var got struct{ Conversation conversation }
				by.must(t, &got, "getConversation", map[string]any{"uuid": c})
				if p := got.Conversation.Participants[1]; p.LastRead != read {
					t.Errorf("%s: %s says lastRead %d", how, by.name, p.LastRead)
				}
			}
		}
		if a := phone.publish(t, publishing{topic: readTopic(c), qos: 1, payload: []byte(`{"seq":3}`)}); a.reason != 0 {
			t.Errorf("PUBACK %+v", a)
		}
		check("a number", 3, 2)
		phone.publish(t, publishing{topic: readTopic(c), qos: 1})
		check("nothing", 5, 0)
		for i, by := range callers {
			var none map[string]any
			back := int64(4 - i%2)
			by.must(t, &none, "markAsRead", map[string]any{"conversation": c, "seq": back})
			if len(none) != 0 {
				t.Errorf("%s: answered %v", by.name, none)
			}
			check("backwards over "+by.name, back, int(5-back))
		}
		callers[0].must(t, new(map[string]any), "markAsRead", map[string]any{"conversation": c, "seq": 0})
		check("zero", 1, 4)
		callers[0].must(t, new(map[string]any), "markAsRead", map[string]any{"conversation": c})
		check("the last", 5, 0)
		if rest := sender.other.rest(); len(rest) != 0 {
			t.Errorf("%d more signals, such as %s", len(rest), rest[0].payload)
		}
		if n := len(w.log(t, c)); n != 5 {
			t.Errorf("reading stored %d events", n-5)
		}
	})
}

func TestUnreadCountsMessagesOfOthers(t *testing.T) {
	// What one wrote oneself, what is gone, and who came and went, is no reason to ring; a mention is one to ring louder.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := users[0], users[1], users[2]
		c, quiet := w.conversation(t, alice, bob), w.conversation(t, alice, bob)
		mention := func(m map[string]any) map[string]any { return map[string]any{"text": "you", "mentions": m} }
		a, b := w.as(t, alice), w.as(t, bob)
		path := "/v1/conversations/" + c
		say := func(by api, m map[string]any) string {
			t.Helper()
			var made struct{ Message message }
			by.ok(t, "POST", path+"/messages", m).into(t, &made)
			return made.Message.UUID
		}
		callers := w.callers(t, bob)
		check := func(why string, count int, mentioned bool, last string) {
			t.Helper()
			for _, by := range callers {
				u := by.unreadOf(t, c)
				if u.Unread != count || u.Mentioned != mentioned || (u.LastMessage == nil) != (last == "") || last != "" && u.LastMessage.Text != last {
					t.Errorf("%s over %s: %+v", why, by.name, u)
				}
				if u := by.unreadOf(t, quiet); u.Unread != 0 || u.LastSeq != 1 || u.LastMessage != nil {
					t.Errorf("%s: the other conversation: %+v", by.name, u)
				}
			}
		}
		check("nothing", 0, false, "")
		say(a, text("one"))
		say(b, text("mine"))
		check("one", 1, false, "mine")
		a.ok(t, "POST", path+"/participants", map[string]any{"participants": refs(carol)})
		check("somebody came", 1, false, "mine")
		say(b, mention(map[string]any{"all": true}))
		say(a, mention(map[string]any{"users": []string{carol.Name}}))
		check("others are mentioned", 2, false, "you")
		named := say(a, mention(map[string]any{"users": []string{carol.Name, bob.Name}}))
		check("named", 3, true, "you")
		all := say(a, mention(map[string]any{"all": true}))
		check("named and all", 4, true, "you")
		b.ok(t, "POST", path+"/read", map[string]any{"seq": len(w.log(t, c)) - 1})
		check("all", 1, true, "you")
		b.ok(t, "POST", path+"/read", map[string]any{"seq": 0})
		remover := w.connect(t, alice, 5)
		remover.subscribe(t, 1, alice.replies())
		for _, message := range []string{named, all} {
			if r := remover.command(t, "removeMessage", map[string]any{"conversation": c, "message": message}); r.Error != nil {
				t.Fatalf("removeMessage: %+v", r.Error)
			}
		}
		for _, by := range w.callers(t, alice) {
			if _, refused := by.run(t, "getReceipts", map[string]any{"conversation": c, "message": all}); refused == nil || refused.Number != 11 {
				t.Errorf("%s: receipts of what was removed: %+v", by.name, refused)
			}
		}
		check("removed", 2, false, "you")
		// Who came later has nothing to catch up with.
		for _, by := range w.callers(t, carol) {
			if u := by.unreadOf(t, c); u.Unread != 2 || !u.Mentioned {
				t.Errorf("the newcomer over %s: %+v", by.name, u)
			}
		}
		if p := a.refused(t, "POST", path+"/messages", mention(map[string]any{"users": []string{"nobody@chat." + w.account}})); p.Number != 19 {
			t.Errorf("mentioning a stranger: %+v", p)
		}
	})
}

func TestReceiptsFollowDeliveryAndReading(t *testing.T) {
	// One tick, two ticks, blue ticks: for each who took part when the message was sent, over every transport the same.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob", "carol", "dave")
		alice, bob, carol, dave := users[0], users[1], users[2], users[3]
		c := w.conversation(t, alice, bob, carol)
		callers := w.callers(t, alice)
		id := func(u user) string { return strconv.FormatInt(u.ID, 10) }
		a := w.as(t, alice)
		say := func(conversation string) string {
			t.Helper()
			var made struct{ Message message }
			a.ok(t, "POST", "/v1/conversations/"+conversation+"/messages", map[string]any{"text": "hello", "options": map[string]any{"receipt": true}}).into(t, &made)
			if !made.Message.Receipt {
				t.Errorf("the option is not shown: %+v", made.Message)
			}
			return made.Message.UUID
		}
		// Delivered marks are written about once a second.
		eventual := func(why, message string, status map[user]string, read, delivered string) {
			t.Helper()
			want := make(map[string]string)
			for u, s := range status {
				want[id(u)] = s
			}
			for _, by := range callers {
				eventually(t, why+" over "+by.name, func() error {
					r := by.receiptsOf(t, c, message)
					if !maps.Equal(r.RecipientStatus, want) || r.ReadStatus != read || r.DeliveryStatus != delivered || r.LastReadAt != 0 {
						return fmt.Errorf("%+v", r)
					}
					return nil
				})
			}
		}
		first := say(c)
		eventual("sent", first, map[user]string{bob: "sent", carol: "sent"}, "none", "none")
		phone := w.connect(t, bob, version)
		phone.subscribe(t, 1, allEvents)
		second := say(c)
		phone.hear(t, c)
		eventual("delivered", second, map[user]string{bob: "delivered", carol: "sent"}, "none", "some")
		w.as(t, carol).ok(t, "POST", "/v1/conversations/"+c+"/read", nil)
		eventual("read by one", second, map[user]string{bob: "delivered", carol: "read"}, "some", "all")
		phone.publish(t, publishing{topic: readTopic(c), qos: 1})
		eventual("read by all", first, map[user]string{bob: "read", carol: "read"}, "all", "all")
		phone.publish(t, publishing{topic: readTopic(c), qos: 1, payload: []byte(`{"seq":2}`)})
		eventual("marked as unread", second, map[user]string{bob: "delivered", carol: "read"}, "some", "all")
		eventual("up to the first", first, map[user]string{bob: "read", carol: "read"}, "all", "all")

		a.ok(t, "DELETE", "/v1/conversations/"+c+"/participants", map[string]any{"participants": refs(carol)})
		a.ok(t, "POST", "/v1/conversations/"+c+"/participants", map[string]any{"participants": refs(dave)})
		eventual("who left has read it", second, map[user]string{bob: "delivered", carol: "read"}, "some", "all")
		third := say(c)
		eventual("after somebody came and went", third, map[user]string{bob: "delivered", dave: "sent"}, "none", "some")

		// Between two, there are times.
		pair := w.conversation(t, alice, carol)
		said := say(pair)
		began := time.Now().UnixMilli() - 1000
		w.as(t, carol).ok(t, "POST", "/v1/conversations/"+pair+"/read", map[string]any{"seq": 2})
		for _, by := range callers {
			if r := by.receiptsOf(t, pair, said); r.RecipientStatus[id(carol)] != "read" || r.LastReadAt < began || r.LastDeliveredAt < began {
				t.Errorf("%s: between two %+v", by.name, r)
			}
		}
	})
}

func TestAReturningDeviceIsToldWhatIsUnread(t *testing.T) {
	// A durable session's subscription to the inbox is kept: it is told without asking, once.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		d := w.phone(t, users[1], lasting(version, "phone"))
		d.follow(t, 1, users[1].inbox())
		d.goodbye(t)
		a := w.as(t, users[0])
		a.ok(t, "POST", "/v1/conversations/"+c+"/messages", text("while away"))
		d = w.phone(t, users[1], lasting(version, "phone"))
		if !d.Present {
			t.Fatal("the session is gone")
		}
		var u unread
		got := d.readAny(t)
		if err := json.Unmarshal(got.Payload, &u); err != nil || u.Type != "unread" || u.Conversation != c || u.Unread != 1 || got.QoS != 1 {
			t.Errorf("told %s, %v", got.Payload, err)
		}
	})
}

func TestMarksSurviveARestart(t *testing.T) {
	// An acknowledged mark is stored, like everything that is acknowledged.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		g := start(t, url)
		w := newWorld(t, g)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+c+"/messages", text("x"))
		w.as(t, users[1]).ok(t, "POST", "/v1/conversations/"+c+"/read", map[string]any{"seq": 2})
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
		w.gateway = start(t, url)
		w.service.base, w.admin.base = w.gateway.api("").base, w.gateway.api("").base
		for _, by := range w.callers(t, users[1]) {
			if u := by.unreadOf(t, c); u.Unread != 0 || u.LastRead != 2 {
				t.Errorf("%s: %+v", by.name, u)
			}
		}
	})
}
