package broker_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
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
		"too many":       {fail(domain.RateLimited), hi{}, 0x97, 3, "rate-limited"},
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
		"sync":                {nil, hi{user: alice + "?sync=both"}, 0x99, 5, "invalid-request"},
		"sync of a service":   {nil, hi{user: "service/Billing@acme?sync=push"}, 0x99, 5, "invalid-request"},
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
		"push": {hi{version: 4, user: alice + "?sync=push"}, domain.Hello{Clean: true, Push: true}},
		"pull": {hi{version: 5, user: alice + "?sync=push", props: packets.Properties{
			User: []packets.UserProperty{{Key: "sync", Val: "pull"}},
		}}, domain.Hello{Clean: true}},
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
