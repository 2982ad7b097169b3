package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestAcknowledgementTellsThePlaceOfTheMessage(t *testing.T) {
	// A client that knows the number of its message from the acknowledgement needs to ask nothing else.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		alice, bob := w.online(t, users[0], version), w.online(t, users[1], version)
		bob.subscribe(t, 1, eventsTopic(c)) // twice, by both filters: still one delivery
		for seq := int64(2); seq <= 4; seq++ {
			a := alice.say(t, c, map[string]any{"id": fmt.Sprint("m", seq), "text": "hello"})
			ev := bob.hear(t, c)
			if ev.Seq != seq || ev.Type != "sendMessage" || ev.Action != "sendMessage" || ev.Message.Text != "hello" {
				t.Errorf("event %s where number %d was due", ev.raw, seq)
			}
			if m := ev.Message; m.Seq != seq || m.Conversation != c || m.ID != fmt.Sprint("m", seq) || m.Time != ev.Time || m.UUID == "" {
				t.Errorf("message %+v in %s", m, ev.raw)
			}
			if ev.Initiator != (initiator{UserID: users[0].ID, Username: users[0].Name, Device: alice.id}) {
				t.Errorf("initiator %+v", ev.Initiator)
			}
			if ev.Message.Sender != (initiator{UserID: users[0].ID, Username: users[0].Name}) {
				t.Errorf("sender %+v", ev.Message.Sender)
			}
			if version == 5 {
				want := map[string]string{"conversation": c, "seq": fmt.Sprint(seq), "message": ev.Message.UUID}
				if got := string(mustJSON(t, a.user)); got != string(mustJSON(t, want)) {
					t.Errorf("PUBACK says %s, want %v", got, want)
				}
			}
		}
		again := alice.say(t, c, map[string]any{"id": "m2", "text": "hello"})
		if version == 5 && (again.user["duplicate"] != "1" || again.seq() != 2) {
			t.Errorf("PUBACK of a repetition says %v", again.user)
		}
		alice.say(t, c, text("last"))
		if ev := bob.hear(t, c); ev.Seq != 5 {
			t.Errorf("after a repetition event %d follows 4", ev.Seq)
		}
		if n := len(bob.events.rest()); n > 0 {
			t.Errorf("%d deliveries too many", n)
		}
	})
}

func TestEveryQoSPublishesOnce(t *testing.T) {
	// Devices use the QoS that their library makes easy; each must work, and QoS 2 must not store twice.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		alice, bob := w.online(t, users[0], version), w.online(t, users[1], version)
		for qos := range byte(3) {
			a := alice.publish(t, publishing{topic: messagesTopic(c), qos: qos, payload: mustJSON(t, text(fmt.Sprint("QoS ", qos)))})
			if a.reason != 0 {
				t.Errorf("QoS %d: 0x%02x %s", qos, a.reason, a.text)
			}
			if ev := bob.hear(t, c); ev.Message.Text != fmt.Sprint("QoS ", qos) {
				t.Errorf("QoS %d arrives as %s", qos, ev.raw)
			}
		}

		r := w.rawConnect(t, users[0], version)
		first := r.publishPacket(messagesTopic(c), mustJSON(t, text("exactly once")), 2, 7)
		r.write(t, first)
		rec := r.expect(t, typePubrec)
		if version == 5 && (rec.props.user["seq"] != "5" || rec.props.user["conversation"] != c || rec.props.user["message"] == "") {
			t.Errorf("PUBREC says %v", rec.props.user)
		}
		first[0] |= 8 // DUP
		r.write(t, first)
		if rec := r.expect(t, typePubrec); rec.id != 7 || rec.reason >= 0x80 {
			t.Errorf("PUBREC of the repetition: %+v", rec)
		}
		r.write(t, ackPacket(typePubrel, 7))
		if comp := r.expect(t, typePubcomp); comp.id != 7 || comp.reason != 0 {
			t.Errorf("PUBCOMP: %+v", comp)
		}
		// The id is free again, and a new message under it is a new one.
		r.write(t, r.publishPacket(messagesTopic(c), mustJSON(t, text("another")), 2, 7))
		r.expect(t, typePubrec)
		r.write(t, ackPacket(typePubrel, 7))
		r.expect(t, typePubcomp)
		if got := bob.hearUpTo(t, c, 5, 6); got[0].Message.Text != "exactly once" || got[1].Message.Text != "another" {
			t.Errorf("QoS 2 stored %s and %s", got[0].raw, got[1].raw)
		}
		if n := len(w.log(t, c)); n != 6 {
			t.Errorf("the log has %d events, want 6", n)
		}
	})
}

func TestAcknowledgementsComeInOrder(t *testing.T) {
	// Clients match acknowledgements to publishes by order where ids are reused (MQTT-4.6.0-2), refusals among them.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice")
		c := w.conversation(t, users...)
		r := w.rawConnect(t, users[0], version)
		var batch []byte
		for id := uint16(1); id <= 40; id++ {
			payload := mustJSON(t, text(fmt.Sprint(id)))
			if id%4 == 0 {
				payload = []byte("not JSON")
			}
			batch = append(batch, r.publishPacket(messagesTopic(c), payload, 1, id)...)
		}
		r.write(t, batch)
		seq := 2
		for id := uint16(1); id <= 40; id++ {
			p := r.expect(t, typePuback)
			if p.id != id {
				t.Fatalf("PUBACK %d where %d was due", p.id, id)
			}
			if version == 4 {
				continue
			}
			if id%4 == 0 {
				if p.reason != 0x99 {
					t.Errorf("PUBACK 0x%02x to nonsense", p.reason)
				}
				continue
			}
			if p.props.user["seq"] != fmt.Sprint(seq) {
				t.Errorf("message %d has number %s, want %d", id, p.props.user["seq"], seq)
			}
			seq++
		}
		list := w.log(t, c)
		if len(list) != 31 {
			t.Fatalf("%d events, want 31", len(list))
		}
		for i, want := 1, 1; i < len(list); want++ {
			if want%4 == 0 {
				continue
			}
			if list[i].Message.Text != fmt.Sprint(want) {
				t.Errorf("event %d is %s, want message %d", i+1, list[i].Message.Text, want)
			}
			i++
		}
	})
}

func TestRawMessageKeepsItsBytesAndType(t *testing.T) {
	// Devices without JSON send what they have; receivers must get the same bytes and know what they are.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "sensor", "bob")
		c := w.conversation(t, users...)
		sensor, bob := w.online(t, users[0], version), w.online(t, users[1], version)
		binary := []byte{0xff, 0, 0x80, '\n', 1}
		for i, tt := range []struct {
			contentType string
			payload     []byte
			want        part
		}{
			{"", []byte("21.5 °C"), part{MimeType: "text/plain", Body: "21.5 °C", Encoding: ""}},
			{"", binary, part{MimeType: "application/octet-stream", Body: base64.StdEncoding.EncodeToString(binary), Encoding: "base64"}},
			{"application/json", []byte(`{"t":21.5}`), part{MimeType: "application/json", Body: `{"t":21.5}`, Encoding: ""}},
			{"text/csv; charset=utf-8", []byte("a,b"), part{MimeType: "text/csv; charset=utf-8", Body: "a,b", Encoding: ""}},
			{"image/png", binary, part{MimeType: "image/png", Body: base64.StdEncoding.EncodeToString(binary), Encoding: "base64"}},
		} {
			if version == 4 && tt.contentType != "" {
				continue
			}
			a := sensor.publish(t, publishing{topic: rawTopic(c), qos: 1, payload: tt.payload, contentType: tt.contentType})
			if a.reason != 0 {
				t.Fatalf("case %d: 0x%02x %s", i, a.reason, a.text)
			}
			ev := bob.hear(t, c)
			if len(ev.Message.Parts) != 1 || ev.Message.Parts[0] != tt.want {
				t.Errorf("case %d arrives as %s, want %+v", i, ev.raw, tt.want)
			}
		}
		if version == 4 {
			return
		}

		// Correlation Data is the idempotency key.
		p := publishing{topic: rawTopic(c), qos: 1, payload: []byte("once"), correlation: []byte("reading-1")}
		first, again := sensor.publish(t, p), sensor.publish(t, p)
		if again.user["duplicate"] != "1" || again.seq() != first.seq() || again.user["message"] != first.user["message"] {
			t.Errorf("first %v, again %v", first.user, again.user)
		}
		if ev := bob.hear(t, c); ev.Message.ID != "reading-1" {
			t.Errorf("the message's id is %q", ev.Message.ID)
		}
		p.correlation = []byte{0xff, 0xfe, 0}
		first, again = sensor.publish(t, p), sensor.publish(t, p)
		if first.reason != 0 || again.user["duplicate"] != "1" || again.seq() != first.seq() {
			t.Errorf("binary key: first %+v, again %+v", first, again)
		}
		for _, bad := range []string{"nonsense", "a/b/c", "text/"} {
			if a := sensor.publish(t, publishing{topic: rawTopic(c), qos: 1, payload: []byte("x"), contentType: bad}); a.reason != 0x99 {
				t.Errorf("content type %q: 0x%02x %s", bad, a.reason, a.text)
			}
		}
	})
}

func TestSubscriptionToOneConversationHearsNoOther(t *testing.T) {
	// A screen that shows one conversation is not to pay for all the others; unsubscribing ends it.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		one, other := w.conversation(t, users...), w.conversation(t, users...)
		bob := w.connect(t, users[1], version)
		bob.subscribe(t, 1, eventsTopic(one))
		alice := w.online(t, users[0], version)
		alice.say(t, other, text("unheard"))
		alice.say(t, one, text("heard"))
		if ev := bob.hear(t, one); ev.Seq != 2 || ev.Message.Text != "heard" {
			t.Errorf("heard %s", ev.raw)
		}
		bob.subscribe(t, 0, eventsTopic(one)) // replaces the subscription
		alice.say(t, one, text("with QoS 0"))
		if ev := bob.hear(t, one); ev.Seq != 3 || ev.received.qos != 0 {
			t.Errorf("heard %s with QoS %d", ev.raw, ev.received.qos)
		}
		bob.unsubscribe(t, eventsTopic(one))
		bob.subscribe(t, 1, eventsTopic(other))
		alice.say(t, one, text("unheard"))
		alice.say(t, other, text("heard"))
		if ev := bob.hear(t, other); ev.Seq != 3 {
			t.Errorf("heard %s", ev.raw)
		}
		if rest := bob.events.rest(); len(rest) > 0 {
			t.Errorf("also heard %s: %s", rest[0].topic, rest[0].payload)
		}
	})
}

func TestRepliesComeWhereTheyWereAskedFor(t *testing.T) {
	// A client matches replies by request id, by topic or by correlation data, as its library likes it.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		alice := w.user(t, "alice")
		d := w.connect(t, alice, version)
		d.subscribe(t, 1, alice.replies())
		d.publish(t, publishing{topic: "commands/getMe", qos: 1, payload: []byte(`{"requestId":"one"}`)})
		r := d.reply(t, "one")
		if r.Command != "getMe" || r.received.topic != alice.replies() || r.received.qos != 1 {
			t.Errorf("reply %+v", r)
		}
		// Without a request id, with an empty payload, at QoS 0: a command is answered all the same.
		for _, p := range []publishing{
			{topic: "commands/getMe", qos: 1, payload: []byte(`{}`)},
			{topic: "commands/getMe", qos: 0},
			{topic: "commands/getMe", qos: 2, payload: []byte(` `)},
		} {
			d.publish(t, p)
			var me struct{ User user }
			d.reply(t, "").into(t, &me)
			if me.User.ID != alice.ID {
				t.Errorf("getMe says %+v", me.User)
			}
		}
		d.publish(t, publishing{topic: "commands/frobnicate", qos: 0, payload: []byte(`{"requestId":"odd"}`)})
		if r := d.reply(t, "odd"); r.Error == nil || r.Error.Number != 2 || r.Error.Code != "unknown-command" {
			t.Errorf("reply to an unknown command: %+v", r)
		}
		if version == 4 {
			return
		}

		below := alice.replies() + "/screen/7"
		d.publish(t, publishing{
			topic: "commands/getMe", qos: 1, payload: []byte(`{"requestId":"unheard"}`), responseTo: below, correlation: []byte("x"),
		})
		d.subscribe(t, 1, alice.replies()+"/#")
		correlation := []byte{0, 0xff, 'c'}
		a := d.publish(t, publishing{
			topic: "commands/getMe", qos: 1, payload: []byte(`{"requestId":"two"}`), responseTo: below, correlation: correlation,
		})
		if a.reason != 0 {
			t.Errorf("PUBACK 0x%02x %s", a.reason, a.text)
		}
		r = d.reply(t, "two")
		if r.received.topic != below || string(r.received.correlation) != string(correlation) {
			t.Errorf("reply to %s with correlation %q", r.received.topic, r.received.correlation)
		}
		for _, m := range d.replies.rest() {
			t.Errorf("also got %s: %s", m.topic, m.payload)
		}
		exact := w.connect(t, alice, version)
		exact.subscribe(t, 1, below)
		exact.publish(t, publishing{topic: "commands/getMe", qos: 1, payload: []byte(`{"requestId":"elsewhere"}`)})
		exact.publish(t, publishing{topic: "commands/getMe", qos: 1, payload: []byte(`{"requestId":"three"}`), responseTo: below})
		exact.reply(t, "three")
		if rest := exact.replies.rest(); len(rest) > 0 {
			t.Errorf("a subscription below replies got %s", rest[0].topic)
		}
	})
}

func TestMessageThatAsksIsAnsweredToo(t *testing.T) {
	// In 3.1.1 the acknowledgement says nothing: the reply is how such a client learns the number of its message.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		alice := w.online(t, users[0], version)
		for qos := range byte(3) {
			id := fmt.Sprint("r", qos)
			alice.publish(t, publishing{topic: messagesTopic(c), qos: qos, payload: mustJSON(t, map[string]any{"text": "hi", "requestId": id})})
			r := alice.reply(t, id)
			var result struct{ Message message }
			r.into(t, &result)
			if r.Command != "sendMessage" || result.Message.Seq != int64(qos)+2 || result.Message.Conversation != c || result.Message.UUID == "" {
				t.Errorf("reply %+v with %s", r, r.Result)
			}
		}
		alice.publish(t, publishing{topic: messagesTopic(c), qos: 1, payload: []byte(`{"requestId":"bad"}`)})
		if r := alice.reply(t, "bad"); r.Error == nil || r.Error.Code != "invalid-request" || r.Error.Number != 1 {
			t.Errorf("reply to an empty message: %+v", r)
		}
		if version == 4 {
			return
		}
		to := users[0].replies() + "/sent"
		alice.publish(t, publishing{topic: messagesTopic(c), qos: 1, payload: mustJSON(t, text("hi")), responseTo: to, correlation: []byte("1")})
		r := alice.reply(t, "")
		if r.received.topic != to || string(r.received.correlation) != "1" || r.Error != nil {
			t.Errorf("reply %+v on %s", r, r.received.topic)
		}
		alice.publish(t, publishing{topic: rawTopic(c), qos: 1, payload: []byte("hi"), responseTo: to})
		if r := alice.reply(t, ""); r.received.topic != to || r.Command != "sendMessage" || r.Error != nil {
			t.Errorf("reply to raw %+v on %s", r, r.received.topic)
		}
	})
}

func TestForeignResponseTopicIsRefused(t *testing.T) {
	// Else anybody could make the gateway write into the topics of others.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "mallory", "victim")
		c := w.conversation(t, users...)
		victim, mallory := w.online(t, users[1], 5), w.online(t, users[0], 5)
		for _, to := range []string{
			users[1].replies(), users[1].replies() + "/x", users[1].inbox(), users[0].inbox(), eventsTopic(c), "elsewhere",
			"users/" + users[0].Name, users[0].replies() + "x", users[0].replies() + "/",
		} {
			for _, p := range []publishing{
				{topic: "commands/getMe", payload: []byte(`{"requestId":"evil"}`)},
				{topic: messagesTopic(c), payload: mustJSON(t, text("evil"))},
				{topic: rawTopic(c), payload: []byte("evil")},
			} {
				p.qos, p.responseTo = 1, to
				if a := mallory.publish(t, p); a.reason != 0x87 || a.text != "access-denied" {
					t.Errorf("Response Topic %s on %s: 0x%02x %s", to, p.topic, a.reason, a.text)
				}
			}
		}
		if n := len(w.log(t, c)); n != 1 {
			t.Errorf("%d events were stored", n-1)
		}
		victim.command(t, "getMe", nil)
		for _, b := range []*box{victim.replies, victim.inbox, victim.events} {
			for _, m := range b.rest() {
				if strings.Contains(string(m.payload), "evil") {
					t.Errorf("the victim got %s: %s", m.topic, m.payload)
				}
			}
		}
	})
}

func TestInboxTellsOfMembership(t *testing.T) {
	// A client that was offline in a conversation's list must learn that it is now in it, and when no longer.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := w.online(t, users[0], version), w.online(t, users[1], version), w.online(t, users[2], version)
		var made struct{ Conversation conversation }
		alice.command(t, "createConversation", map[string]any{"title": "Lunch", "participants": refs(users[1])}).into(t, &made)
		c := made.Conversation.UUID
		for _, d := range []*device{alice, bob} {
			n := d.notice(t, "conversationAdded")
			if n.ConversationData == nil || n.ConversationData.UUID != c || n.ConversationData.Title != "Lunch" {
				t.Errorf("%s: %s", d.user.Name, n.received.payload)
			}
			if ev := d.hear(t, c); ev.Type != "createConversation" || ev.Seq != 1 || len(ev.ConversationData.Participants) != 2 {
				t.Errorf("%s: %s", d.user.Name, ev.raw)
			}
		}
		alice.command(t, "addParticipants", map[string]any{"uuid": c, "participants": refs(users[2])}).into(t, &struct{}{})
		if n := carol.notice(t, "conversationAdded"); n.ConversationData == nil || n.ConversationData.UUID != c {
			t.Errorf("carol: %s", n.received.payload)
		}
		for _, d := range []*device{alice, bob, carol} {
			ev := d.hear(t, c)
			if ev.Type != "editConversation" || ev.Action != "addParticipants" || ev.Seq != 2 ||
				len(ev.Participants) != 1 || ev.Participants[0].UserID != users[2].ID || ev.Participants[0].JoinedSeq != 2 {
				t.Errorf("%s: %s", d.user.Name, ev.raw)
			}
		}
		alice.command(t, "removeParticipants", map[string]any{"uuid": c, "participants": refs(users[1])}).into(t, &struct{}{})
		if n := bob.notice(t, "conversationRemoved"); n.Conversation != c {
			t.Errorf("bob: %s", n.received.payload)
		}
		for _, d := range []*device{alice, bob, carol} {
			if ev := d.hear(t, c); ev.Action != "removeParticipants" || ev.Seq != 3 || len(ev.Participants) != 1 || ev.Participants[0].UserID != users[1].ID {
				t.Errorf("%s: %s", d.user.Name, ev.raw)
			}
		}
		alice.say(t, c, text("without bob"))
		carol.hear(t, c)
		next := w.conversation(t, users[1])
		bob.hear(t, next)
		if rest := bob.events.rest(); len(rest) > 0 {
			t.Errorf("bob still hears: %s", rest[0].payload)
		}
		for _, d := range []*device{alice, carol} {
			for _, m := range d.inbox.unasked() {
				t.Errorf("%s got in the inbox: %s", d.user.Name, m.payload)
			}
		}
	})
}

func TestSubscriptionsBeyondOnesOwnAreRefused(t *testing.T) {
	// What is not in the table of topics does not exist, and what is others' is theirs.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "mallory", "victim", "friend")
		other := newWorld(t, w.gateway)
		stranger := other.user(t, "stranger")
		theirs := w.conversation(t, users[1], users[2])
		abroad := other.conversation(t, stranger)
		mine := w.conversation(t, users[0])
		d := w.connect(t, users[0], version)
		victim := users[1]
		for _, f := range []string{
			"#", "+", "+/+", "$SYS/#", "conversations/#", "conversations/+/+", "conversations/" + mine + "/#",
			"conversations/" + mine + "/+", "conversations/" + mine, messagesTopic(mine), rawTopic(mine), "conversations/+/messages",
			eventsTopic(theirs), eventsTopic(abroad), "conversations/" + theirs + "/signals",
			eventsTopic("00000000-0000-0000-0000-000000000000"), eventsTopic("01890000-0000-7000-8000-000000000000"),
			eventsTopic("nonsense"), eventsTopic(strings.ToUpper(mine)),
			victim.inbox(), victim.replies(), victim.replies() + "/#", stranger.inbox(), "users/+/inbox", "users/#", "users/+/replies",
			"users/" + users[0].Name + "/+", "users/" + users[0].Name + "/#", "users/" + users[0].Name, "commands/#", "commands/getMe",
			"devices/1/state", "$share/group/" + eventsTopic(mine), "$share/group/conversations/+/events",
			"$share/group/" + users[0].inbox(), "conversations/+/events/", "/conversations/+/events", " ",
		} {
			codes, err := d.trySubscribe(t.Context(), 1, f)
			if err != nil {
				t.Fatalf("%q: %v", f, err)
			}
			if version == 4 && codes[0] != 0x80 || version == 5 && codes[0] < 0x80 {
				t.Errorf("%q: SUBACK 0x%02x", f, codes[0])
			}
			if version == 5 && !strings.Contains(f, "00000000") && !strings.Contains(f, "01890000") && f != eventsTopic(abroad) &&
				f != "conversations/"+theirs+"/signals" && codes[0] != 0x87 {
				t.Errorf("%q: SUBACK 0x%02x, want 0x87", f, codes[0])
			}
		}
		// A refused entry does not take the others down.
		codes, err := d.trySubscribe(t.Context(), 1, eventsTopic(theirs), eventsTopic(mine), victim.inbox(), users[0].inbox())
		if err != nil || codes[0] < 0x80 || codes[1] != 1 || codes[2] < 0x80 || codes[3] != 1 {
			t.Errorf("SUBACK % x, %v", codes, err)
		}
		w.as(t, victim).ok(t, "POST", "/v1/conversations/"+theirs+"/messages", text("secret"))
		w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+mine+"/messages", text("mine"))
		if ev := d.hear(t, mine); ev.Seq != 2 {
			t.Errorf("heard %s", ev.raw)
		}
		for _, b := range []*box{d.events, d.inbox, d.other, d.replies} {
			for _, m := range b.rest() {
				t.Errorf("mallory got %s: %s", m.topic, m.payload)
			}
		}
		if p := w.as(t, users[0]); len(p.token) == 0 { // the session lives on
			t.Error("no token")
		}
	})
}

func TestConversationOfOthersLooksLikeNone(t *testing.T) {
	// From another account tree nobody may learn which conversations exist.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		other := newWorld(t, w.gateway)
		abroad := other.conversation(t, other.user(t, "stranger"))
		nothing := "01890000-0000-7000-8000-000000000000"
		d := w.online(t, w.user(t, "alice"), version)
		look := func(id string) []any {
			var out []any
			codes, err := d.trySubscribe(t.Context(), 1, eventsTopic(id))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, codes)
			for name, params := range map[string]map[string]any{
				"getConversation":    {"uuid": id},
				"getConversations":   {"uuids": []string{id}},
				"addParticipants":    {"uuid": id, "participants": refs(d.user)},
				"removeParticipants": {"uuid": id, "participants": refs(d.user)},
				"sendMessage":        {"conversation": id, "text": "hello"},
				"retransmitEvents":   {"conversation": id, "from": 1, "count": 1},
			} {
				r := d.command(t, name, params)
				if r.Error == nil || r.Error.Number != 8 || r.Error.Code != "conversation-not-found" || r.Error.Status != 404 {
					t.Errorf("%s: %+v %s", name, r.Error, r.Result)
				}
			}
			a := d.publish(t, publishing{topic: messagesTopic(id), qos: 1, payload: mustJSON(t, text("hello"))})
			if version == 5 && a.reason != 0x83 {
				t.Errorf("PUBACK 0x%02x", a.reason)
			}
			out = append(out, a)
			for _, res := range []response{
				w.as(t, d.user).any(t, "GET", "/v1/conversations/"+id, nil),
				w.as(t, d.user).any(t, "POST", "/v1/conversations/"+id+"/messages", text("hello")),
				w.as(t, d.user).any(t, "GET", "/v1/conversations/"+id+"/events?from=1&count=1", nil),
				w.service.any(t, "GET", "/v1/conversations/"+id, nil),
			} {
				out = append(out, res.status, string(res.body))
			}
			return out
		}
		if a, b := look(abroad), look(nothing); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("a conversation of others looks like\n%v\nand none like\n%v", a, b)
		}
	})
}

func TestPublishesBeyondTheTableAreRefused(t *testing.T) {
	// There is no plain publish and subscribe behind the gateway's back.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "mallory", "victim")
		c := w.conversation(t, users...)
		mallory, victim := w.online(t, users[0], version), w.online(t, users[1], version)
		victim.subscribe(t, 1, eventsTopic(c))
		for _, topic := range []string{
			eventsTopic(c), "conversations/" + c + "/signals", users[1].inbox(), users[1].replies(), users[0].inbox(), users[0].replies(),
			"users/" + users[1].Name + "/status", "devices/1", "$SYS/broker", "commands", "commands/", "commands/getMe/now",
			"conversations/" + c, "conversations/" + c + "/messages/", messagesTopic(strings.ToUpper(c)), messagesTopic("x"), "/", "x",
		} {
			for _, qos := range []byte{1, 2} {
				a := mallory.publish(t, publishing{topic: topic, qos: qos, payload: []byte(`{"type":"forged","requestId":"forged"}`)})
				if version == 5 && (a.reason != 0x87 || a.text != "access-denied" || a.user["detail"] == "") {
					t.Errorf("%s at QoS %d: 0x%02x %s %v", topic, qos, a.reason, a.text, a.user)
				}
			}
			mallory.publish(t, publishing{topic: topic, qos: 0, payload: []byte(`{"type":"forged"}`)})
		}
		mallory.say(t, c, text("still connected"))
		if ev := victim.hear(t, c); ev.Seq != 2 {
			t.Errorf("the victim hears %s", ev.raw)
		}
		for _, b := range []*box{victim.events, victim.inbox, victim.replies, victim.other} {
			for _, m := range b.unasked() {
				t.Errorf("the victim got %s: %s", m.topic, m.payload)
			}
		}
	})
}

func TestRefusedPublishIsToldWhereNoAcknowledgementCan(t *testing.T) {
	// A 3.1.1 client that never hears of a refusal would believe that its message was sent; one that gets no
	// acknowledgement would send it for ever.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users[1])
		alice := w.online(t, users[0], version)
		for qos := range byte(3) {
			id := fmt.Sprint("r", qos)
			a := alice.publish(t, publishing{topic: messagesTopic(c), qos: qos, payload: mustJSON(t, map[string]any{"text": "hi", "requestId": id})})
			if version == 5 && qos > 0 {
				if a.reason != 0x87 || a.text != "access-denied" || a.user["detail"] == "" {
					t.Errorf("QoS %d: 0x%02x %s %v", qos, a.reason, a.text, a.user)
				}
				if r := alice.reply(t, id); r.Error == nil || r.Error.Number != 12 || r.Error.Status != 403 {
					t.Errorf("QoS %d: reply %+v", qos, r)
				}
				continue
			}
			n := alice.notice(t, "error")
			if n.Error == nil || n.Error.Code != "access-denied" || n.Error.Number != 12 || n.Error.Status != 403 || n.RequestID != id ||
				n.Topic != messagesTopic(c) {
				t.Errorf("QoS %d: %s", qos, n.received.payload)
			}
			r := alice.reply(t, id)
			var asEvent notice
			if err := json.Unmarshal(r.received.payload, &asEvent); err != nil || asEvent.Type != "error" || asEvent.Error.Number != 12 {
				t.Errorf("QoS %d: on the replies topic %s", qos, r.received.payload)
			}
		}
		// Without a request id too: nobody asked, but somebody must hear.
		alice.publish(t, publishing{topic: messagesTopic(c), qos: 0, payload: []byte("not JSON")})
		if n := alice.notice(t, "error"); n.Error.Code != "invalid-request" || n.Error.Number != 1 {
			t.Errorf("error event %s", n.received.payload)
		}
		alice.command(t, "getMe", nil).into(t, &struct{}{})
		if n := len(w.log(t, c)); n != 1 {
			t.Errorf("%d events were stored", n-1)
		}
	})
}

func TestRequestIDIsForTheInitiatorsDevicesOnly(t *testing.T) {
	// It tells a device which of its messages has come back; to others it would be noise, or a leak.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		sending, second, bob := w.online(t, users[0], version), w.online(t, users[0], version), w.online(t, users[1], version)
		service := w.connect(t, user{Name: "service/Billing@" + w.account, password: w.service.token}, version)
		service.subscribe(t, 1, "conversations/+/events")
		sending.say(t, c, map[string]any{"text": "hi", "requestId": "mine"})
		for d, want := range map[*device]string{sending: "mine", second: "mine", bob: "", service: ""} {
			ev := d.hear(t, c)
			if ev.RequestID != want || ev.Initiator.Device != sending.id {
				t.Errorf("%s (%s) hears %s", d.user.Name, d.id, ev.raw)
			}
		}
		var page struct{ Events []event }
		sending.command(t, "retransmitEvents", map[string]any{"conversation": c, "from": 2, "count": 1}).into(t, &page)
		if page.Events[0].RequestID != "" {
			t.Errorf("a retransmitted event has requestId %q", page.Events[0].RequestID)
		}
	})
}

func TestServiceHearsEveryConversationOfItsTree(t *testing.T) {
	// A backend that archives or moderates must see all of its account, and nothing of another.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		other := newWorld(t, w.gateway)
		stranger := other.user(t, "stranger")
		users := w.users(t, "alice", "bob")
		before := w.conversation(t, users...)
		service := w.connect(t, user{Name: "service/Billing@" + w.account, password: w.service.token}, version)
		service.subscribe(t, 1, "conversations/+/events")
		abroad := other.conversation(t, stranger)
		after := w.conversation(t, users[1])
		w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+before+"/messages", text("hello"))
		if ev := service.hear(t, before); ev.Seq != 2 {
			t.Errorf("heard %s", ev.raw)
		}
		if ev := service.hear(t, after); ev.Seq != 1 {
			t.Errorf("heard %s", ev.raw)
		}
		a := service.publish(t, publishing{topic: messagesTopic(before), qos: 1, payload: mustJSON(t, text("from the backend"))})
		if a.reason != 0 {
			t.Errorf("PUBACK 0x%02x %s", a.reason, a.text)
		}
		if ev := service.hear(t, before); ev.Seq != 3 || ev.Initiator.Service != "Billing" || ev.Message.Sender.Service != "Billing" {
			t.Errorf("heard %s", ev.raw)
		}
		for _, m := range service.events.rest() {
			t.Errorf("the service of %s heard %s (another account's: %t)", w.account, m.topic, m.topic == eventsTopic(abroad))
		}
	})
}

func TestDeliveryIsGrantedAtMostQoS1(t *testing.T) {
	// A library that asks for 2 gets what there is and is told so.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice")
		c := w.conversation(t, users...)
		d := w.connect(t, users[0], version)
		for asked, want := range []byte{0, 1, 1} {
			codes, err := d.trySubscribe(t.Context(), byte(asked), "conversations/+/events")
			if err != nil || codes[0] != want {
				t.Errorf("QoS %d: SUBACK % x, %v", asked, codes, err)
			}
			d.say(t, c, text("hi"))
			if ev := d.hear(t, c); ev.received.qos != want {
				t.Errorf("subscribed with QoS %d, delivered with %d", asked, ev.received.qos)
			}
		}
	})
}
