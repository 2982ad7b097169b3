package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

// withWill adds a Will to the CONNECT, with a delay in seconds (MQTT 5).
func withWill(topic string, payload []byte, delay uint32) dialOption {
	return func(d *dialing) { d.will, d.willDelay = &publishing{topic: topic, payload: payload, qos: 1}, delay }
}

// willSignal is a Will that becomes a willMessage.
func willSignal(tb testing.TB, conversation, s string, delay uint32) dialOption {
	tb.Helper()
	return withWill(messagesTopic(conversation), mustJSON(tb, map[string]any{"text": s, "options": map[string]any{"will": true}}), delay)
}

func kept(seconds uint32) dialOption { return func(d *dialing) { d.durable, d.expiry = true, seconds } }

// listener connects a device that gets the events and signals of its user's conversations.
func (w *world) listener(tb testing.TB, u user, version byte) *device {
	tb.Helper()
	d := w.connect(tb, u, version)
	d.subscribe(tb, 1, allEvents)
	d.subscribe(tb, 0, allSignals)
	return d
}

// inherits waits for the next willMessage and checks what it says.
func (d *device) inherits(tb testing.TB, conversation string, from *device, want string) {
	tb.Helper()
	d.inheritsWithin(tb, patience, conversation, from, want)
}

func (d *device) inheritsWithin(tb testing.TB, within time.Duration, conversation string, from *device, want string) {
	tb.Helper()
	var s signal
	end := time.Now().Add(within)
	for {
		_, err := d.other.take(tb.Context(), func(m received) bool {
			var x signal
			if json.Unmarshal(m.payload, &x) != nil || x.Type != "willMessage" {
				return false
			}
			s, s.received = x, m
			return true
		})
		if err == nil {
			break
		}
		if !errors.Is(err, context.DeadlineExceeded) || time.Now().After(end) {
			tb.Fatalf("the will %q of %s did not come: %v", want, from.user.Name, err)
		}
	}
	m := s.Message
	if m == nil || m.Text != want || m.UUID != "" || m.Seq != 0 || m.Sender.Username != from.user.Name || m.Sender.Device != "" ||
		s.Conversation != conversation || s.Seq != 0 || s.Initiator.Device != from.id || s.Initiator.UserID != from.user.ID || s.received.qos != 0 {
		tb.Errorf("the will %q of %s came as %s", want, from.id, s.received.payload)
	}
}

// noWills checks that no will has come that nobody took.
func (d *device) noWills(tb testing.TB) {
	tb.Helper()
	for _, m := range d.other.rest() {
		var s signal
		if json.Unmarshal(m.payload, &s) == nil && s.Type == "willMessage" {
			tb.Errorf("%s was told %s", d.user.Name, m.payload)
		}
	}
}

// set sets the device's will by command.
func (d *device) setWill(tb testing.TB, conversation, s string) {
	tb.Helper()
	d.subscribe(tb, 1, d.user.replies())
	if r := d.command(tb, "setWill", map[string]any{"conversation": conversation, "text": s}); r.Error != nil || string(r.Result) != "{}" {
		tb.Fatalf("setWill: %+v", r)
	}
}

func TestAWillIsToldOnceTheConnectionIsLost(t *testing.T) {
	// "Tom is offline and cannot receive messages": of use only if it is true, and said once.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "tom", "jerry")
		c := w.conversation(t, users...)
		jerry := w.listener(t, users[1], version)

		phone, pad := w.connect(t, users[0], version), w.connect(t, users[0], version)
		phone.setWill(t, c, "not this one")
		phone.setWill(t, c, "the phone is gone")
		pad.setWill(t, c, "the pad is gone")
		phone.cut()
		jerry.inherits(t, c, phone, "the phone is gone")
		pad.cut()
		jerry.inherits(t, c, pad, "the pad is gone")

		// A message with options.will is the same, and its acknowledgement carries no number.
		phone = w.connect(t, users[0], version)
		phone.subscribe(t, 1, users[0].replies())
		ack := phone.say(t, c, map[string]any{"text": "by a message", "options": map[string]any{"will": true}, "requestId": "r"})
		if version == 5 && (ack.user["seq"] != "" || ack.user["message"] != "") {
			t.Errorf("PUBACK %+v", ack)
		}
		var sent struct{ Message message }
		if r := phone.reply(t, "r"); r.Error != nil {
			t.Errorf("%+v", r)
		} else if r.into(t, &sent); sent.Message.Text != "by a message" || sent.Message.Seq != 0 {
			t.Errorf("the reply shows %+v", sent.Message)
		}
		phone.cut()
		jerry.inherits(t, c, phone, "by a message")

		// What is cleared, or left with a goodbye, is not sent. Nor is anything of a connection that has no will.
		phone, pad = w.connect(t, users[0], version), w.connect(t, users[0], version)
		phone.setWill(t, c, "cleared")
		if r := phone.command(t, "clearWill", nil); r.Error != nil {
			t.Errorf("clearWill: %+v", r)
		}
		pad.setWill(t, c, "goodbye")
		phone.cut()
		pad.leave()
		w.connect(t, users[0], version, named(pad.id)).cut()
		last := w.connect(t, users[0], version, willSignal(t, c, "last", 0))
		last.cut()
		jerry.inherits(t, c, last, "last")
		jerry.noWills(t)
		if n := len(w.log(t, c)); n != 1 {
			t.Errorf("%d events are stored", n)
		}
		if u := w.callers(t, users[1])[0].unreadOf(t, c); u.Unread != 0 {
			t.Errorf("unread: %+v", u)
		}
	})
}

func TestTheWillOfAConnectIsPublishedAsItsTopicSays(t *testing.T) {
	// MQTT devices have known wills for twenty years: one on a topic is a publish to that topic.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "tom", "jerry")
		c := w.conversation(t, users...)
		jerry := w.listener(t, users[1], version)
		at := func(topic, payload string) *device {
			d := w.connect(t, users[0], version, withWill(topic, []byte(payload), 0))
			d.cut()
			return d
		}
		tom := at(messagesTopic(c), `{"id":"w","text":"kept","options":{"receipt":true}}`)
		if ev := jerry.hear(t, c); ev.Seq != 2 || ev.Message.Text != "kept" || !ev.Message.Receipt || ev.Initiator.Device != tom.id {
			t.Errorf("event %s", ev.raw)
		}
		at(messagesTopic(c), `{"id":"w","text":"kept"}`) // the same message once more
		at(rawTopic(c), "21.5 °C")
		if ev := jerry.hear(t, c); ev.Seq != 3 || ev.Message.Parts[0].MimeType != "text/plain" || ev.Message.Parts[0].Body != "21.5 °C" {
			t.Errorf("event %s", ev.raw)
		}
		at(messagesTopic(c), `{"text":"for now","options":{"transient":true}}`)
		if s := jerry.signal(t, c, "transientMessage"); s.Message.Text != "for now" {
			t.Errorf("signal %s", s.received.payload)
		}
		at("conversations/"+c+"/typing", `{"state":"finished"}`)
		if s := jerry.signal(t, c, "typing"); s.State != "finished" {
			t.Errorf("signal %s", s.received.payload)
		}
		pad := w.online(t, users[0], version)
		at("commands/editConversation", `{"uuid":"`+c+`","title":"gone","requestId":"r"}`)
		if ev := jerry.hear(t, c); ev.Type != "editConversation" || ev.Seq != 4 {
			t.Errorf("event %s", ev.raw)
		}
		if r := pad.reply(t, "r"); r.Error != nil || r.Command != "editConversation" {
			t.Errorf("reply %+v", r)
		}
		if version == 5 {
			r := w.rawConnect(t, users[0], 5, func(d *dialing) {
				d.will = &publishing{
					topic: rawTopic(c), payload: []byte(`{"t":1}`), qos: 2, contentType: "application/json", correlation: []byte("key"),
					responseTo: users[0].replies() + "/wills",
				}
			})
			_ = r.conn.Close()
			if ev := jerry.hear(t, c); ev.Message.Parts[0].MimeType != "application/json" || ev.Message.ID != "key" {
				t.Errorf("event %s", ev.raw)
			}
			m, err := pad.replies.take(t.Context(), func(m received) bool { return m.topic == users[0].replies()+"/wills" })
			if err != nil || string(m.correlation) != "key" {
				t.Errorf("reply %+v, %v", m, err)
			}
		}
		jerry.noWills(t)
	})
}

func TestOnlyAnOrderlyDisconnectKeepsAWillBack(t *testing.T) {
	// MQTT 5, section 3.14: reason 0x00 and nothing else. Libraries leave out what may be left out of the packet.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "tom", "jerry")
		c := w.conversation(t, users...)
		jerry := w.listener(t, users[1], version)
		for name, tc := range map[string]struct {
			packets []byte
			sent    bool
		}{
			"DISCONNECT":                      {[]byte{0xe0, 0}, false},
			"DISCONNECT 0x00":                 {[]byte{0xe0, 1, 0}, false},
			"DISCONNECT 0x00 and length":      {[]byte{0xe0, 2, 0, 0}, false},
			"DISCONNECT 0x04":                 {[]byte{0xe0, 1, 4}, true},
			"DISCONNECT 0x04 and length":      {[]byte{0xe0, 2, 4, 0}, true},
			"DISCONNECT 0x80":                 {[]byte{0xe0, 1, 0x80}, true},
			"DISCONNECT 0x00 with an expiry":  {[]byte{0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9}, true}, // there was none: a protocol error
			"a packet that only servers send": {[]byte{0x90, 3, 0, 1, 0}, true},
			"nonsense":                        {[]byte{0xff, 0xff, 0xff, 0xff, 0xff}, true},
			"a keep alive that runs out":      {nil, true},
		} {
			if version == 4 && len(tc.packets) > 2 && tc.packets[0] == 0xe0 {
				continue // it has no reasons
			}
			t.Run(name, func(t *testing.T) {
				d := dialing{keepAlive: 30, username: users[0].Name, password: users[0].password, id: "raw-" + name, will: &publishing{
					topic: messagesTopic(c), payload: mustJSON(t, map[string]any{"text": name, "options": map[string]any{"will": true}}), qos: 1,
				}}
				r := w.rawDial(t, version)
				r.write(t, r.connectPacket(d))
				r.expect(t, typeConnack)
				from := &device{user: users[0], id: d.id}
				if tc.packets != nil {
					r.write(t, tc.packets)
				}
				if !tc.sent {
					// The gateway is done with a connection when it closes it.
					if p, err := r.tryRead(); err == nil {
						t.Errorf("packet %+v", p)
					}
					return
				}
				jerry.inheritsWithin(t, 2*patience, c, from, name)
			})
		}
		// What was held back would have come by now: whatever is due is sent in its order.
		last := w.connect(t, users[0], version, willSignal(t, c, "last", 0))
		last.cut()
		jerry.inherits(t, c, last, "last")
		jerry.noWills(t)
	})
}

func TestWillsAreRefusedLikePublishes(t *testing.T) {
	// Nobody may leave behind what it may not say.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "tom", "jerry", "stranger")
		c := w.conversation(t, users[:2]...)
		hi := mustJSON(t, text("hi"))
		refusal := func(code byte) byte {
			if version == 4 {
				return 5
			}
			return code
		}
		for name, tc := range map[string]struct {
			user    user
			topic   string
			payload []byte
			reason  byte
			code    string
		}{
			"a stranger":            {users[2], messagesTopic(c), hi, 0x87, "access-denied"},
			"a stranger's signal":   {users[2], messagesTopic(c), mustJSON(t, map[string]any{"text": "x", "options": map[string]any{"will": true}}), 0x87, "access-denied"},
			"no such conversation":  {users[0], messagesTopic("0198f3c2-7b1e-7d3a-9c55-3d1f1f0a2b4c"), hi, 0x83, "conversation-not-found"},
			"an empty message":      {users[0], messagesTopic(c), []byte("{}"), 0x99, "invalid-request"},
			"a will in a will":      {users[0], "commands/setWill", mustJSON(t, map[string]any{"conversation": c, "text": "x"}), 0x99, "invalid-request"},
			"somebody else's inbox": {users[0], users[1].inbox(), hi, 0x87, "access-denied"},
		} {
			if h := w.refuse(t, tc.user, version, withWill(tc.topic, tc.payload, 0)); h.reason != refusal(tc.reason) || version == 5 && h.text != tc.code {
				t.Errorf("%s: CONNACK 0x%02x %s", name, h.reason, h.text)
			}
		}
		stranger := w.online(t, users[2], version)
		for name, params := range map[string]map[string]any{
			"access-denied":   {"conversation": c, "text": "x"},
			"invalid-request": {"conversation": c},
		} {
			if r := stranger.command(t, "setWill", params); r.Error == nil || r.Error.Code != name {
				t.Errorf("setWill %v: %+v", params, r)
			}
		}
		p := w.as(t, users[0]).refused(t, "POST", "/v1/conversations/"+c+"/messages", map[string]any{
			"text": "x", "options": map[string]any{"will": true},
		})
		if p.Code != "invalid-request" {
			t.Errorf("over HTTP: %+v", p)
		}
		if n := len(w.log(t, c)); n != 1 {
			t.Errorf("%d events are stored", n)
		}
	})
}

func TestWillsAreCheckedAgainWhenTheyAreSent(t *testing.T) {
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "jerry", "tom", "spike")
		c := w.conversation(t, users...)
		jerry := w.listener(t, users[0], version)
		mute, leaver := w.connect(t, users[1], version), w.connect(t, users[2], version)
		mute.setWill(t, c, "muted")
		leaver.setWill(t, c, "left")
		api := w.as(t, users[0])
		api.ok(t, "PATCH", "/v1/conversations/"+c+"/participants", map[string]any{
			"participants": []any{map[string]any{"username": users[1].Name, "permissions": map[string]any{"canWrite": false}}},
		})
		w.as(t, users[2]).ok(t, "POST", "/v1/conversations/"+c+"/leave", map[string]any{})
		mute.cut()
		leaver.cut()
		// Nor where the conversation itself is gone.
		gone := w.conversation(t, users...)
		orphan := w.connect(t, users[1], version)
		orphan.setWill(t, gone, "removed")
		api.ok(t, "DELETE", "/v1/conversations/"+gone, nil)
		orphan.cut()
		last := w.connect(t, users[0], version, willSignal(t, c, "last", 0))
		last.cut()
		jerry.inherits(t, c, last, "last")
		jerry.noWills(t)
	})
}

func TestDelayedWillsAreCancelledByTheReturnOfTheDevice(t *testing.T) {
	// A train in a tunnel.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "tom", "jerry")
		c := w.conversation(t, users...)
		jerry := w.listener(t, users[1], 5)
		const delay = 5 // long enough to come back in
		back := w.connect(t, users[0], 5, willSignal(t, c, "came back", delay), kept(100))
		away := w.connect(t, users[0], 5, willSignal(t, c, "stays away", delay), kept(100))
		short := w.connect(t, users[0], 5, willSignal(t, c, "short session", 100), kept(1))
		anew := w.connect(t, users[0], 5, willSignal(t, c, "begun anew", 100), kept(100))
		back.cut()
		if d := w.connect(t, users[0], 5, named(back.id), kept(100)); !d.hello.present {
			t.Error("the session did not go on")
		}
		begin := time.Now()
		away.cut() // after the other: when its will is told, the other's would have been
		short.cut()
		anew.cut()
		w.connect(t, users[0], 5, named(anew.id))
		jerry.inherits(t, c, anew, "begun anew")
		jerry.inherits(t, c, short, "short session")
		jerry.inherits(t, c, away, "stays away")
		if took := time.Since(begin); took < delay*time.Second {
			t.Errorf("a delay of %d s took %s", delay, took)
		}
		jerry.noWills(t)
	})
}

func TestWhatEndsASessionDecidesAboutItsWill(t *testing.T) {
	// To be replaced by oneself, or to log out, is no loss; to be cut off by oneself without having noticed is.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "tom", "jerry")
		c := w.conversation(t, users...)
		jerry := w.listener(t, users[1], version)
		var session struct{ AccessToken string }
		w.api("").ok(t, "POST", "/v1/login", map[string]any{"username": users[0].Name, "password": users[0].password}).into(t, &session)
		out := w.connect(t, users[0], version, withPassword(session.AccessToken), willSignal(t, c, "logged out", 0))
		w.api(session.AccessToken).ok(t, "POST", "/v1/logout", nil)
		out.over(t)
		old := w.online(t, users[0], version, tagged("tag", "mobile"), willSignal(t, c, "replaced", 0))
		w.connect(t, users[0], version, tagged("tag", "mobile"))
		old.notice(t, "conflict")
		old.over(t)
		half := w.connect(t, users[0], version, willSignal(t, c, "taken over", 0))
		w.connect(t, users[0], version, named(half.id))
		half.over(t)
		jerry.inherits(t, c, half, "taken over")
		bot := w.connect(t, user{Name: "service/Billing@" + w.account, password: w.service.token}, version, willSignal(t, c, "bot", 0))
		bot.cut()
		if s := jerry.signal(t, c, "willMessage"); s.Message.Text != "bot" || s.Initiator.Service != "Billing" {
			t.Errorf("signal %s", s.received.payload)
		}
		jerry.noWills(t)
	})
}

func TestWillsOutliveTheGateway(t *testing.T) {
	// The gateway may die with its clients, for instance of the same power cut. An orderly restart, to which all clients come
	// back, is no reason to speak of the dead.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		gw := spawn(t, url)
		w := newWorld(t, gw.gateway)
		users := w.users(t, "tom", "jerry")
		c := w.conversation(t, users...)
		restart := func(how syscall.Signal) *device {
			gw.signal(t, how)
			gw.exit(t)
			gw = spawn(t, url)
			w.gateway = gw.gateway
			return w.listener(t, users[1], 5)
		}
		back := w.connect(t, users[0], 4, willSignal(t, c, "back", 0))
		back.parted.Store(true)
		jerry := restart(syscall.SIGTERM)
		w.connect(t, users[0], 4, named(back.id))

		var lost []*device
		for i, version := range []byte{4, 5} {
			d := w.connect(t, users[0], version)
			d.setWill(t, c, fmt.Sprint("setWill ", i))
			lost = append(lost, d, w.connect(t, users[0], version, willSignal(t, c, fmt.Sprint("Will ", i), 0)))
		}
		well := w.connect(t, users[0], 5)
		well.setWill(t, c, "left in time")
		well.leave()
		delayed := w.connect(t, users[0], 5, willSignal(t, c, "delayed", 1), kept(1000))
		delayed.cut()
		jerry.inherits(t, c, delayed, "delayed")
		jerry = restart(syscall.SIGKILL)
		// One of the devices comes back; its connection was lost all the same.
		w.connect(t, users[0], 5, named(lost[2].id))
		told := []string{}
		for range lost {
			// On Postgres nobody knows before a minute is over that the gateway is dead.
			var s signal
			eventuallyWithin(t, 2*time.Minute, func(ctx context.Context) error {
				_, err := jerry.other.take(ctx, func(m received) bool {
					return json.Unmarshal(m.payload, &s) == nil && s.Type == "willMessage"
				})
				return err
			})
			told = append(told, s.Message.Text)
		}
		slices.Sort(told)
		if want := []string{"Will 0", "Will 1", "setWill 0", "setWill 1"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		jerry.noWills(t)
		// And not once more.
		jerry = restart(syscall.SIGKILL)
		last := w.connect(t, users[0], 5, willSignal(t, c, "last", 6), kept(1000))
		last.cut()
		jerry.inherits(t, c, last, "last")
		jerry.noWills(t)
	})
}

// eventuallyWithin calls f, which waits by itself, until it succeeds.
func eventuallyWithin(tb testing.TB, within time.Duration, f func(ctx context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), within)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			tb.Fatal(err)
		}
	}
}
