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
		bob.heardAll(t)
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
