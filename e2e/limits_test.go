package e2e_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/parley-im/parley/configs"
)

// ends waits until the gateway closes the connection, and gives the reason of its DISCONNECT, 0 if there was none.
func (r *raw) ends(tb testing.TB) byte {
	tb.Helper()
	reason := byte(0)
	for {
		p, err := r.tryRead()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			tb.Fatal("still connected")
		}
		if err != nil {
			return reason
		}
		if p.kind == typeDisconnect || p.kind == typeConnack {
			reason = p.reason
		}
	}
}

func TestSilentSocketsAreClosed(t *testing.T) {
	// Sockets that never log in would otherwise use up what there is.
	onBothStores(t, func(t *testing.T, s store) {
		// Long enough for a login on a busy machine.
		g := start(t, s.empty(t), func(c *configs.Config) { c.Limits.ConnectTimeout = 3 * time.Second })
		w := newWorld(t, g)
		d := w.online(t, w.user(t, "alice"), 5)
		silent := g.rawDial(t, 5)
		slow := g.rawDial(t, 5)
		slow.write(t, slow.connectPacket(dialing{username: "a@b.c", password: "x", id: "slow"})[:5])
		silent.ends(t)
		slow.ends(t)
		d.command(t, "getMe", nil).into(t, &struct{}{}) // who is in, is in
	})
}

func TestTooManyConnectionsAreRefused(t *testing.T) {
	// One address, or everybody together, must not take all sockets; who is connected notices nothing.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t), func(c *configs.Config) { c.Limits.ConnectionsPerAddress = 4 })
		w := newWorld(t, g)
		alice := w.user(t, "alice")
		var inside []*device
		for range 4 {
			inside = append(inside, w.online(t, alice, 5))
		}
		if d, err := w.attach(t.Context(), alice, 5); err == nil {
			d.leave()
			t.Error("a fifth connection of one address was let in")
		}
		for _, d := range inside {
			d.command(t, "getMe", nil).into(t, &struct{}{})
		}
		inside[0].leave()
		eventually(t, "a place becomes free", func() error {
			d, err := w.attach(t.Context(), alice, 5)
			if err == nil {
				d.leave()
			}
			return err
		})

		full := start(t, s.empty(t), func(c *configs.Config) { c.Limits.Sessions = 2 })
		w = newWorld(t, full)
		alice = w.user(t, "alice")
		first := w.online(t, alice, 5)
		w.connect(t, alice, 4)
		if d, err := w.attach(t.Context(), alice, 5); err == nil {
			d.leave()
			t.Error("a third session was let in")
		}
		first.command(t, "getMe", nil).into(t, &struct{}{})
	})
}

func TestOversizePacketEndsTheConnection(t *testing.T) {
	// CONNACK announces the largest packet; who sends a larger one is cut off before it costs memory.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice")
		c := w.conversation(t, users...)
		r := w.rawConnect(t, users[0], version)
		r.write(t, append([]byte{typePublish<<4 | 2}, varint(nil, 128<<10+1)...))
		if reason := r.ends(t); version == 5 && reason != 0x95 {
			t.Errorf("DISCONNECT 0x%02x, want 0x95", reason)
		}
		// One that fits the packet but not the message is refused, and the session lives on.
		d := w.online(t, users[0], version)
		for _, qos := range []byte{1, 2} {
			a := d.publish(t, publishing{topic: rawTopic(c), qos: qos, payload: []byte(strings.Repeat("x", 100<<10))})
			if version == 5 && (a.reason != 0x95 || a.text != "message-too-large") {
				t.Errorf("QoS %d: 0x%02x %s", qos, a.reason, a.text)
			}
			if version == 4 {
				if n := d.notice(t, "error"); n.Error.Number != 23 || n.Error.Status != 413 {
					t.Errorf("error event %s", n.received.payload)
				}
			}
		}
		d.command(t, "getMe", nil).into(t, &struct{}{})
	})
}

func TestLimitsAreWhatTheConfigurationSays(t *testing.T) {
	// Operators change them, and the message must be judged by the same limits over MQTT and HTTP.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t), func(c *configs.Config) {
			c.Limits.TextLength, c.Limits.Parts, c.Limits.Participants, c.Limits.ReceiveMaximum = 10, 1, 3, 7
			c.Limits.MessageSize, c.Limits.PartSize = 2*configs.KiB, 100
		})
		w := newWorld(t, g)
		users := w.users(t, "ann", "ben", "cat", "dan")
		c := w.conversation(t, users[:3]...)
		piece := func(n int) map[string]any {
			return map[string]any{"mimeType": "text/plain", "body": strings.Repeat("x", n)}
		}
		for _, by := range w.callers(t, users[0]) {
			for why, params := range map[string]map[string]any{
				"text":    {"text": strings.Repeat("ü", 11)},
				"parts":   {"parts": []any{piece(1), piece(1)}},
				"part":    {"parts": []any{piece(101)}},
				"message": {"attributes": map[string]any{"x": strings.Repeat("x", 2<<10)}},
			} {
				params["conversation"] = c
				if _, refused := by.run(t, "sendMessage", params); refused == nil || refused.Number != 23 || refused.Status != 413 {
					t.Errorf("%s: too much %s: %+v", by.name, why, refused)
				}
			}
			by.must(t, &struct{}{}, "sendMessage", map[string]any{"conversation": c, "text": strings.Repeat("ü", 10)})
			by.must(t, &struct{}{}, "sendMessage", map[string]any{"conversation": c, "parts": []any{piece(100)}})
			if _, refused := by.run(t, "addParticipants", map[string]any{"uuid": c, "participants": refs(users[3])}); refused == nil {
				t.Errorf("%s: a fourth participant of three", by.name)
			}
			if _, refused := by.run(t, "createConversation", map[string]any{"participants": refs(users...)}); refused == nil {
				t.Errorf("%s: a conversation of four with three allowed", by.name)
			}
		}
		r := w.rawConnect(t, users[0], 5)
		if got := r.hello.props.numbers[0x21]; got != 7 {
			t.Errorf("Receive Maximum is announced as %d, want 7", got)
		}
	})
}

func TestClientIDMayBeLeftToTheGateway(t *testing.T) {
	// Browsers and scripts often have none; in MQTT 5 they are told which they got.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		alice := w.user(t, "alice")
		one, two := w.rawConnect(t, alice, version, named("")), w.rawConnect(t, alice, version, named(""))
		one.ping(t)
		two.ping(t) // neither took the other over
		if version == 5 {
			a, b := one.hello.props.texts[0x12], two.hello.props.texts[0x12]
			if a == "" || a == b {
				t.Errorf("Assigned Client Identifiers %q and %q", a, b)
			}
		}
	})
}

func TestStrangersAreRefused(t *testing.T) {
	// Without a name there is nobody to be.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		r := w.rawDial(t, version)
		body := append(str(nil, "MQTT"), version, 2, 0, 60)
		if version == 5 {
			body = append(body, 0)
		}
		r.write(t, frame(typeConnect<<4, str(body, "anonymous")))
		want := byte(0x87)
		if version == 4 {
			want = 5
		}
		if p := r.expect(t, typeConnack); p.reason != want {
			t.Errorf("CONNACK 0x%02x, want 0x%02x", p.reason, want)
		}
		r.ends(t)
		// What comes before CONNECT is not looked at.
		early := w.rawDial(t, version)
		early.write(t, early.publishPacket("x", nil, 0, 0))
		early.ends(t)
		// Nor is another protocol.
		other := w.rawDial(t, version)
		if _, err := io.WriteString(other.conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		other.ends(t)
	})
}

func TestForeignWillIsRefusedAtConnect(t *testing.T) {
	// A Will is a publish like any other: nobody may leave one where it may not write.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "mallory", "victim")
		for _, topic := range []string{users[1].inbox(), "nowhere", "$SYS/x", "conversations/nonsense/messages"} {
			r := w.rawDial(t, version)
			b := append(str(nil, "MQTT"), version, 0xc0|2|4, 0, 60)
			if version == 5 {
				b = append(b, 0)
			}
			b = str(b, "device")
			if version == 5 {
				b = append(b, 0)
			}
			b = str(str(b, topic), `{"text":"from beyond"}`)
			b = str(str(b, users[0].Name), users[0].password)
			r.write(t, frame(typeConnect<<4, b))
			want := byte(0x87)
			if version == 4 {
				want = 5
			}
			if p := r.expect(t, typeConnack); p.reason != want {
				t.Errorf("Will to %s: CONNACK 0x%02x, want 0x%02x", topic, p.reason, want)
			}
		}
	})
}

func TestClientThatIgnoresTheReceiveMaximumIsEnded(t *testing.T) {
	// MQTT 5 (3.3.4-9): otherwise the limit would limit only those who keep to it. Here nothing can be acknowledged for
	// good: QoS 2 publishes stay open until PUBREL.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice")
		c := w.conversation(t, users...)
		r := w.rawConnect(t, users[0], 5)
		for id := uint16(1); id <= 65; id++ {
			r.write(t, r.publishPacket(messagesTopic(c), mustJSON(t, text("hi")), 2, id))
		}
		if reason := r.ends(t); reason != 0x93 {
			t.Errorf("DISCONNECT 0x%02x, want 0x93", reason)
		}
	})
}

func TestStoppedReadersCostBoundedMemory(t *testing.T) {
	// A network outage stops thousands of readers at once, in the middle of the busiest hour.
	onBothStores(t, func(t *testing.T, s store) {
		gw := spawn(t, s.empty(t))
		w := newWorld(t, gw.gateway)
		users := w.users(t, "sender", "reader")
		c := w.conversation(t, users...)
		before := gw.metric(t, "process_resident_memory_bytes")
		const sleepers, messages, size = 40, 800, 30 << 10
		for i := range sleepers {
			r := w.rawConnect(t, users[1], 4+byte(i%2))
			r.subscribe(t, filter{eventsTopic(c), byte(i / 2 % 2)})
		}
		sender := w.rawConnect(t, users[0], 5)
		payload := mustJSON(t, map[string]any{"parts": []any{map[string]any{"mimeType": "text/plain", "body": strings.Repeat("x", size)}}})
		for id := uint16(1); id <= messages; id++ {
			sender.write(t, sender.publishPacket(messagesTopic(c), payload, 1, id))
			if id%32 == 0 {
				for sender.expect(t, typePuback).id != id {
				}
			}
		}
		after := gw.metric(t, "process_resident_memory_bytes")
		// All of it would be 24 MB for each of the sleepers. The cache of recent events may hold it once.
		if grown := after - before; grown > 300<<20 {
			t.Errorf("memory grew by %.0f MB", grown/(1<<20))
		}
		reader := w.online(t, users[1], 5)
		sender.write(t, sender.publishPacket(messagesTopic(c), mustJSON(t, text("still there?")), 1, 1))
		if ev := reader.hear(t, c); ev.Seq != messages+2 {
			t.Errorf("heard %s", ev.raw)
		}
		t.Logf("memory grew from %.0f to %.0f MB", before/(1<<20), after/(1<<20))
	})
}
