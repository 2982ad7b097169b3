package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

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
