package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

func TestTheCONNACKAnnouncesWhatHolds(t *testing.T) {
	// MQTT 5 clients rely on it; of MQTT 3.1.1 there is only Session Present.
	r := newRig(t, nil)
	_, ack := r.try(t, hi{device: "phone", keepAlive: 60, props: packets.Properties{
		RequestResponseInfo: 1, SessionExpiryInterval: 3600, SessionExpiryIntervalFlag: true, TopicAliasMaximum: 10,
	}})
	p := ack.Properties
	got := fmt.Sprintln(ack.ReasonCode, ack.SessionPresent, property(ack, "userId"), property(ack, "username"), property(ack, "serverTime"),
		p.ResponseInfo, p.ReceiveMaximum, p.MaximumPacketSize, p.SessionExpiryInterval, p.TopicAliasMaximum, p.MaximumQosFlag,
		p.RetainAvailable, p.RetainAvailableFlag, p.WildcardSubAvailable, p.SubIDAvailable, p.SharedSubAvailable,
		p.ServerKeepAliveFlag, p.AssignedClientID)
	if want := "0 false 1 alice@chat.acme 1234 users/alice@chat.acme/replies 64 131072 3600 0 false 0 true 1 1 1 false \n"; got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	if _, ack := r.try(t, hi{device: "phone"}); ack.Properties.ResponseInfo != "" {
		t.Error("Response Information that nobody asked for")
	}
	_, ack = r.try(t, hi{user: "service/crm@acme", props: packets.Properties{RequestResponseInfo: 1}})
	if property(ack, "userId") != "" || property(ack, "username") != "service/crm@acme" || ack.Properties.ResponseInfo != "" {
		t.Errorf("service: %s", show(ack))
	}
}

func TestARefusedLoginSaysWhy(t *testing.T) {
	// mochi closes without CONNACK, or sends codes of MQTT 5 to MQTT 3.1.1.
	fail := func(code domain.Code) func(domain.Hello) error {
		return func(domain.Hello) error { return domain.Errorf(code, "because") }
	}
	for name, test := range map[string]struct {
		connect    func(domain.Hello) error
		hi         hi
		five, four byte
		text       string
	}{
		"password":       {nil, hi{password: "bad"}, 0x87, 5, "not-authenticated"},
		"access":         {fail(domain.AccessDenied), hi{}, 0x87, 5, "access-denied"},
		"store gone":     {fail(domain.Unavailable), hi{}, 0x88, 3, "unavailable"},
		"too many":       {fail(domain.RateLimited), hi{}, 0x9f, 3, "rate-limited"},
		"conflict":       {fail(domain.SessionConflict), hi{}, 0x8e, 5, "session-conflict"},
		"no error of us": {func(domain.Hello) error { return errors.New("secret") }, hi{}, 0x80, 5, "internal"},
		"panic":          {func(domain.Hello) error { panic("secret") }, hi{}, 0x80, 5, "internal"},
		"no user name": {nil, hi{change: func(pk *packets.Packet) {
			pk.Connect.UsernameFlag, pk.Connect.PasswordFlag, pk.Connect.Username, pk.Connect.Password = false, false, nil, nil
		}}, 0x87, 5, "not-authenticated"},
		"user name not UTF-8": {nil, hi{user: "alice\xff@chat.acme"}, 0x81, 5, "invalid-request"},
		"user name with NUL":  {nil, hi{user: "alice\x00@chat.acme"}, 0x81, 5, "invalid-request"},
		"long user name":      {nil, hi{user: strings.Repeat("x", 513)}, 0x86, 5, "invalid-request"},
		"long client id":      {nil, hi{device: strings.Repeat("x", 257)}, 0x85, 2, "invalid-request"},
		"options":             {nil, hi{user: alice + "?%zz"}, 0x99, 5, "invalid-request"},
		"tag":                 {nil, hi{user: alice + "?tag=" + strings.Repeat("x", 65)}, 0x99, 5, "invalid-request"},
		"reconnect":           {nil, hi{user: alice + "?reconnect=maybe"}, 0x99, 5, "invalid-request"},
		"will for nobody":     {nil, hi{change: will("users/bob@chat.acme/inbox", "{}")}, 0x87, 5, "access-denied"},
		"will of nonsense":    {nil, hi{change: will(hallway, "nonsense")}, 0x99, 5, "invalid-request"},
		"will for a wildcard": {nil, hi{change: will("conversations/+/messages", "{}")}, 0x87, 5, "access-denied"},
		"retained will": {nil, hi{change: func(pk *packets.Packet) {
			will(hallway, `{"text":"x"}`)(pk)
			pk.Connect.WillRetain = true
		}}, 0x99, 5, "invalid-request"},
		"will QoS 3": {nil, hi{change: func(pk *packets.Packet) {
			will(hallway, `{"text":"x"}`)(pk)
			pk.Connect.WillQos = 3
		}}, 0x81, 5, "invalid-request"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, &hall{connect: test.connect})
			for version, want := range map[byte]byte{4: test.four, 5: test.five} {
				o := test.hi
				if o.version = version; o.device == "" {
					o.device = "phone"
				}
				c, ack := r.try(t, o)
				if ack.FixedHeader.Type != packets.Connack || ack.ReasonCode != want || ack.SessionPresent {
					t.Errorf("version %d: %s", version, show(ack))
				}
				if version == 5 && (ack.Properties.ReasonString != test.text || strings.Contains(property(ack, "detail"), "secret")) {
					t.Errorf("explained by %s", show(ack))
				}
				c.ended()
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.seats) != 0 || len(r.left) != 0 {
				t.Errorf("%d sessions made, %d left", len(r.seats), len(r.left))
			}
		})
	}
}

// will adds a Will to a CONNECT.
func will(topic, payload string) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload, pk.Connect.WillQos = true, topic, []byte(payload), 1
	}
}

func TestCONNECTsThatOnlyOneVersionHasAreRefused(t *testing.T) {
	// Enhanced authentication is not there; MQTT 3.1 is another protocol; a password needs a name in 3.1.1.
	r := newRig(t, nil)
	_, ack := r.try(t, hi{device: "phone", props: packets.Properties{AuthenticationMethod: "SCRAM", AuthenticationData: []byte("x")}})
	if ack.ReasonCode != 0x8c {
		t.Error(show(ack))
	}
	for name, test := range map[string]struct {
		bytes []byte
		want  []byte
	}{
		"MQTT 3.1":                {append([]byte{0x10, 15, 0, 6}, "MQIsdp\x03\x02\x00\x0a\x00\x01x"...), []byte{0x20, 2, 0, 1}},
		"MQTT 6":                  {append([]byte{0x10, 13, 0, 4}, "MQTT\x06\x02\x00\x0a\x00\x01x"...), []byte{0x20, 2, 0, 1}},
		"no id, no clean session": {append([]byte{0x10, 12, 0, 4}, "MQTT\x04\x00\x00\x0a\x00\x00"...), []byte{0x20, 2, 0, 2}},
		"password without name":   {append([]byte{0x10, 16, 0, 4}, "MQTT\x04\x42\x00\x0a\x00\x01x\x00\x01p"...), []byte{0x20, 2, 0, 5}},
		"not a CONNECT":           {[]byte{0xc0, 0}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.dial(t, 0)
			if _, err := conn.Write(test.bytes); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			got := make([]byte, 4)
			n, _ := io.ReadFull(conn, got)
			if string(got[:n]) != string(test.want) {
				t.Errorf("% x", got[:n])
			}
		})
	}
}

func TestASessionWhoseCONNACKCannotBeSentLeavesAgain(t *testing.T) {
	// mochi tells nobody of connections that end between login and CONNACK, and keeps them among its clients.
	r := newRig(t, nil)
	c := r.open(t, hi{device: "phone", props: packets.Properties{MaximumPacketSize: 20}})
	c.ended()
	eventually(t, "the session has left", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.left) == 1 })
	eventually(t, "the socket is closed", func() bool { return r.metric(t, "parley_mqtt_connections") == 0 })
	if s := r.seat(t, alice, "phone"); s.left != 1 {
		t.Errorf("left %d times", s.left)
	}
}

func TestAClientNeedNotWaitForTheCONNACK(t *testing.T) {
	// MQTT 5, section 3.1.4: small devices send all they have at once.
	for _, version := range []byte{4, 5} {
		r := newRig(t, nil)
		c := r.open(t, hi{version: version, device: "phone", change: func(*packets.Packet) {}})
		c.raw(append(encoded(t, version, message("x", 1, 1)), encoded(t, version, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})...)...)
		c.expect(packets.Connack)
		c.expect(packets.Puback)
		c.ended()
	}
}

func TestTheSessionLearnsWhatTheCONNECTSaid(t *testing.T) {
	// Options come with the user name or, in MQTT 5, with user properties; a Will is kept on the side.
	r := newRig(t, nil)
	for name, test := range map[string]struct {
		hi   hi
		want domain.Hello
	}{
		"plain 3.1.1":   {hi{version: 4}, domain.Hello{Clean: true}},
		"durable 3.1.1": {hi{version: 4, durable: true}, domain.Hello{Expiry: 0xffffffff}},
		"query":         {hi{version: 4, user: alice + "?reconnect=1&tag=my%20phone&other=x"}, domain.Hello{Clean: true, Tag: "my phone", Reconnect: true}},
		"properties": {hi{version: 5, user: alice + "?tag=b", props: packets.Properties{
			User: []packets.UserProperty{{Key: "tag", Val: "a"}, {Key: "reconnect", Val: "0"}, {Key: "other", Val: "x"}},
		}}, domain.Hello{Clean: true, Tag: "a"}},
		"expiry": {hi{version: 5, durable: true, props: packets.Properties{SessionExpiryInterval: 77, SessionExpiryIntervalFlag: true}}, domain.Hello{Expiry: 77}},
	} {
		t.Run(name, func(t *testing.T) {
			test.hi.device = "phone"
			r.connect(t, test.hi)
			got := r.seat(t, alice, "phone").hello
			if got.Remote == "" || got.Will != nil {
				t.Errorf("%+v", got)
			}
			got.Remote = ""
			test.want.Username, test.want.Password, test.want.Device, test.want.Version = alice, "good", "phone", test.hi.version
			if got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestAWillIsKeptFromMochi(t *testing.T) {
	// There it is sent, and retained, past every check; and an empty one is refused.
	r := newRig(t, nil)
	for _, version := range []byte{4, 5} {
		c := r.connect(t, hi{version: version, device: "phone", change: will("commands/getMe", "")})
		s := r.seat(t, alice, "phone")
		if w := s.hello.Will; w == nil || w.Topic != "commands/getMe" || len(w.Payload) != 0 || w.QoS != 1 || w.Version != version {
			t.Errorf("will %+v", w)
		}
		if s.cl.Properties.Will.Flag != 0 || s.cl.Properties.Will.TopicName != "" {
			t.Error("mochi knows of it")
		}
		_ = c.Close()
		eventually(t, "the session has left without grace", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.left == 1 && !s.graceful
		})
		if n, _, _ := s.count(); n != 0 {
			t.Error("it was published")
		}
	}
}

func TestAClientWithoutIDGetsOne(t *testing.T) {
	// [MQTT-3.1.3-6], [MQTT-3.2.2-16].
	r := newRig(t, nil)
	_, ack := r.try(t, hi{})
	id := ack.Properties.AssignedClientID
	if id == "" || r.seat(t, alice, id) == nil {
		t.Errorf("assigned %q", id)
	}
	if _, ack := r.try(t, hi{version: 4}); ack.ReasonCode != 0 {
		t.Error(show(ack))
	}
	if _, ack := r.try(t, hi{device: "phone"}); ack.Properties.AssignedClientID != "" {
		t.Error("one was assigned to a client that has one")
	}
}

func TestTheFarewellOfAClientIsUnderstood(t *testing.T) {
	// Only a DISCONNECT with reason 0 is one (section 3.14.4); mochi does not decode a reason that nothing follows.
	for name, test := range map[string]struct {
		version  byte
		bytes    []byte
		graceful bool
		expiry   string
	}{
		"3.1.1":                  {4, []byte{0xe0, 0}, true, ""},
		"5":                      {5, []byte{0xe0, 0}, true, ""},
		"5 with reason 0":        {5, []byte{0xe0, 1, 0}, true, ""},
		"5 with properties":      {5, []byte{0xe0, 2, 0, 0}, true, ""},
		"5 with expiry":          {5, []byte{0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9}, true, "9"},
		"5 ends the session":     {5, []byte{0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0}, true, "0"},
		"5 with Will":            {5, []byte{0xe0, 1, 4}, false, ""},
		"5 with Will and length": {5, []byte{0xe0, 2, 4, 0}, false, ""},
		"5 with an error":        {5, []byte{0xe0, 1, 0x93}, false, ""},
		"just gone":              {5, nil, false, ""},
		"gone amid a packet":     {4, []byte{0x30, 100, 0}, false, ""},
		"malformed":              {5, []byte{0xe0, 3, 0, 9, 0}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			c := r.connect(t, hi{version: test.version, device: "phone", props: packets.Properties{SessionExpiryInterval: 60, SessionExpiryIntervalFlag: true}})
			s := r.seat(t, alice, "phone")
			c.raw(test.bytes...)
			if test.bytes != nil && name != "gone amid a packet" {
				for pk := c.recv(); pk.FixedHeader.Type == packets.Disconnect; pk = c.recv() {
				}
			}
			_ = c.Close()
			eventually(t, "the session has left", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.left > 0 })
			if err := r.server.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if s.left != 1 || s.graceful != test.graceful || s.expiry != test.expiry {
				t.Errorf("left %d times, graceful %t, expiry %q", s.left, s.graceful, s.expiry)
			}
		})
	}
	r := newRig(t, nil)
	c := r.connect(t, hi{device: "phone"})
	c.raw(0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9) // it had asked for no expiry: [MQTT-3.14.2-2]
	if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x82 {
		t.Error(show(pk))
	}
}

func TestDevicesOfDifferentUsersHaveNothingToDoWithEachOther(t *testing.T) {
	// In mochi, who knows a client id takes over its session, its queue and its subscriptions.
	r := newRig(t, nil)
	victim := r.connect(t, hi{device: "phone"})
	victim.subscribe(events)
	r.connect(t, hi{user: bob, device: "phone"})
	r.connect(t, hi{user: bob, device: "inline"})
	victim.ping()
	if s := r.seat(t, alice, "phone"); len(s.filters) != 1 {
		t.Error("the session has lost its subscriptions")
	}
}

func TestTheNewerSessionOfADeviceIsNeverDeaf(t *testing.T) {
	// In mochi 148 of 150 simultaneous, and half of the quick reconnects ended with a connection that hears nothing.
	for _, version := range []byte{4, 5} {
		r := newRig(t, nil)
		for round := range 50 {
			device := fmt.Sprint(version, "-", round)
			clients := make([]*client, 3)
			var wg sync.WaitGroup
			for i := range clients {
				wg.Go(func() {
					clients[i] = r.open(t, hi{version: version, device: device})
					_, _ = clients[i].tryRecv(patience)
				})
			}
			wg.Wait()
			// A quick reconnect: the last connection breaks, and the next one is there at once.
			last := r.connect(t, hi{version: version, device: device})
			if round%2 == 0 {
				_ = last.Close()
				last = r.connect(t, hi{version: version, device: device})
			}
			r.seat(t, alice, device).put(domain.Delivery{Publication: publication(events, "hello"), QoS: 1})
			if pk := last.expect(packets.Publish); string(pk.Payload) != "hello" {
				t.Fatal(show(pk))
			}
			for _, c := range clients { // none of the older ones lives on
				for {
					pk, err := c.tryRecv(patience)
					if isTimeout(err) {
						t.Fatal("an older connection is still open")
					}
					if err != nil {
						break
					}
					if pk.FixedHeader.Type != packets.Disconnect && pk.FixedHeader.Type != packets.Connack || pk.ReasonCode != 0x8e && pk.ReasonCode != 0 {
						t.Fatal(show(pk))
					}
				}
			}
			_ = last.Close()
		}
		eventually(t, "every session has left", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.metric(t, "parley_mqtt_connections") == 0
		})
		r.mu.Lock()
		for _, s := range r.left {
			if s.left != 1 {
				t.Errorf("a session has left %d times", s.left)
			}
		}
		if n := len(r.left); n != 50*4+25 {
			t.Errorf("%d sessions have left", n)
		}
		r.mu.Unlock()
	}
}

func TestAnEndedConnectionIsToldTheReasonAfterWhatWasQueued(t *testing.T) {
	// A DISCONNECT is the last packet of a client of MQTT 5; 3.1.1 has none from the server.
	for _, version := range []byte{4, 5} {
		r := newRig(t, nil)
		c := r.connect(t, hi{version: version, device: "phone"})
		s := r.seat(t, alice, "phone")
		c.send(message("x", 1, 1)) // never read by a client in a hurry
		c.expect(packets.Puback)
		s.conn.Close(domain.TokenExpired())
		s.conn.Close(domain.ShuttingDown())
		s.conn.Wake()
		if version == 5 {
			if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x87 || pk.Properties.ReasonString != "token-expired" {
				t.Error(show(pk))
			}
		}
		c.ended()
		s.put(domain.Delivery{Publication: publication(events, "late"), QoS: 1})
		eventually(t, "the session has left", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.left == 1 })
	}
}

func TestADisconnectFitsTheClient(t *testing.T) {
	// [MQTT-3.14.2-3]: the reason string is left out where the packet would be too large.
	r := newRig(t, nil)
	c := r.connect(t, hi{device: "phone", props: packets.Properties{MaximumPacketSize: 100}})
	r.seat(t, alice, "phone").conn.Close(domain.Farewell{Reason: 0x98, Text: strings.Repeat("x", 100)})
	if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x98 || pk.Properties.ReasonString != "" {
		t.Error(show(pk))
	}
}

func TestCloseEndsEverythingInTime(t *testing.T) {
	// mochi's hangs while one silent socket is open, and can dead-lock with a connection that is just coming.
	for _, orderly := range []bool{true, false} {
		r := newRig(t, nil)
		r.dial(t, 0)
		dialWS(t, r, "", "mqtt")
		ready, err := net.Dial("tcp", r.server.Addrs()["ws"].String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ready.Close() }()
		five, four := r.connect(t, hi{device: "5"}), r.connect(t, hi{device: "4", version: 4})
		stuck(t, r, 5)
		k := newClerk()
		r.decide = k.decide
		full := r.connect(t, hi{device: "full", version: 4})
		for i := range 65 {
			full.send(message("x", 1, uint16(i+1)))
		}
		k.await(t, 64)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 { // who keeps coming
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if conn, err := net.Dial("tcp", r.addr); err == nil {
						_, _ = conn.Write([]byte{0x10})
						_ = conn.Close()
					}
				}
			})
		}
		if orderly {
			r.server.StopAccepting()
			if _, err := net.Dial("tcp", r.addr); err == nil {
				t.Error("still accepting")
			}
			five.ping()
			r.server.DisconnectAll(domain.ShuttingDown())
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := r.server.Close(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("took %v", took)
		}
		if pk := five.expect(packets.Disconnect); pk.ReasonCode != 0x8b {
			t.Error(show(pk))
		}
		four.ended()
		close(stop)
		wg.Wait()
		r.server.StopAccepting()
		r.server.DisconnectAll(domain.ShuttingDown())
		if err := r.server.Close(ctx); err != nil {
			t.Error(err)
		}
		r.server.Serve()
		r.mu.Lock()
		for _, s := range r.seats {
			if s.left != 1 {
				t.Errorf("%s has left %d times", s.key(), s.left)
			}
		}
		r.mu.Unlock()
	}
}

func TestCloseGivesUpWhenItsContextEnds(t *testing.T) {
	// A hook that never returns must not keep the process from ending.
	block := make(chan struct{})
	entered := make(chan struct{})
	r := newRig(t, &hall{subscribe: func(*seat, domain.Subscription) error {
		close(entered)
		<-block
		return nil
	}})
	c := r.connect(t, hi{device: "phone"})
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1, Filters: packets.Subscriptions{{Filter: events}}})
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.server.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if pk, err := c.tryRecv(patience); err == nil && pk.FixedHeader.Type != packets.Disconnect {
		t.Error(show(pk))
	}
	close(block)
	if err := r.server.Close(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("the second call: %v", err)
	}
	r.cutShort = true
}
