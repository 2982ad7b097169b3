package broker_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/broker"
	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/hooks"
)

// The tests of this file turn round what mochi v2.7.9 was found to do with hostile or careless input.

func TestATruncatedSubscribeEndsOnlyItsOwnConnection(t *testing.T) {
	// The library indexes beyond the packet and panics; without a recover that is the end of the process.
	r := newRig(t, nil)
	other := r.connect(t, hi{device: "other"})
	c := r.connect(t, hi{device: "attacker"})
	s := r.seat(t, alice, "attacker")
	c.raw(0x82, 6, 0, 1, 0, 0, 1, 'a')
	if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x80 {
		t.Errorf("told %s", show(pk))
	}
	c.ended()
	other.ping()
	if n := r.metric(t, "parley_mqtt_panics_recovered_total"); n != 1 {
		t.Errorf("%v panics counted", n)
	}
	eventually(t, "the session has left once, without grace", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.left == 1 && !s.graceful
	})
	r.connect(t, hi{device: "attacker"}).ping()
}

func TestSocketsThatSayNothingAreClosed(t *testing.T) {
	// Each costs memory, and nothing else ever ends them.
	r := newRig(t, nil, limits(func(l *broker.Limits) { l.ConnectTimeout = 2 * time.Second })) // enough for a login on a busy machine
	connected := r.connect(t, hi{device: "phone"})
	silent := r.dial(t, 0)
	slow := r.dial(t, 0)
	go func() {
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for _, b := range encoded(t, 4, packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Connect},
			Connect:     packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: strings.Repeat("x", 200)},
		}) {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			<-pace.C
		}
	}()
	ws := dialWS(t, r, "", "mqtt")
	for _, conn := range []net.Conn{silent, slow, ws} {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("still open: %v", err)
		}
	}
	connected.ping() // it is older than those
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestAPacketLargerThanAllowedEndsTheConnectionBeforeItIsRead(t *testing.T) {
	// Six bytes can claim 256 MB.
	r := newRig(t, nil, limits(func(l *broker.Limits) { l.PacketSize = 64 << 10 }))
	before := &client{Conn: r.dial(t, 0), tb: t, version: 5}
	before.raw(0x10, 0xff, 0xff, 0xff, 0x7f, 0)
	if _, err := before.Read(make([]byte, 1)); err == nil {
		t.Error("a CONNECT of 256 MB is being read")
	}
	c := r.connect(t, hi{device: "phone"})
	c.raw(0x32, 0xff, 0xff, 0xff, 0x7f, 0)
	if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x95 {
		t.Errorf("told %s", show(pk))
	}
}

func TestMalformedPacketsAreAnsweredWithTheirReason(t *testing.T) {
	// mochi closes the socket without a word when a packet cannot be decoded.
	for name, test := range map[string]struct {
		bytes []byte
		want  byte
	}{
		"flags of SUBSCRIBE": {[]byte{0x80, 2, 0, 1}, 0x81},
		"topic too long":     {[]byte{0x30, 4, 0, 200, 'a', 'b'}, 0x81},
		"QoS 3":              {[]byte{0x36, 4, 0, 1, 'a', 0}, 0x82},
		"AUTH":               {[]byte{0xf0, 2, 0x18, 0}, 0x82},
		"a server's packet":  {[]byte{0x90, 4, 0, 1, 0, 0}, 0x82},
		"second CONNECT":     {[]byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0, 0}, 0x82},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			c := r.connect(t, hi{device: "phone"})
			c.raw(test.bytes...)
			if pk := c.expect(packets.Disconnect); pk.ReasonCode != test.want {
				t.Errorf("told %s", show(pk))
			}
			c.ended()
			old := r.connect(t, hi{device: "old phone", version: 4})
			old.raw(test.bytes...)
			old.ended()
		})
	}
}

func TestDeepAndManyFiltersAreRefusedWithoutWork(t *testing.T) {
	// mochi's topic index needs seconds, under its lock, for one filter of 20,000 levels.
	r := newRig(t, nil)
	c := r.connect(t, hi{device: "phone"})
	start := time.Now()
	if codes := c.subscribe(strings.Repeat("/", 20_000)).ReasonCodes; codes[0] != 0x8f {
		t.Errorf("20,000 levels: %#x", codes)
	}
	if took := time.Since(start); took > patience/2 {
		t.Errorf("20,000 levels took %v", took)
	}
	filters := make([]string, 3000)
	for i := range filters {
		filters[i] = fmt.Sprint("users/alice@chat.acme/replies/", i)
	}
	codes := c.subscribe(filters...).ReasonCodes
	if len(codes) != 3000 || codes[255] != 1 || codes[256] != 0x97 {
		t.Errorf("%d codes, %#x", len(codes), codes[250:260])
	}
	if s := r.seat(t, alice, "phone"); len(s.filters) != 256 {
		t.Errorf("%d filters were passed on", len(s.filters))
	}
	deep := pub(strings.Repeat("/", 20_000), "", 1, 1)
	c.send(deep)
	if pk := c.expect(packets.Puback); pk.ReasonCode != 0x87 {
		t.Errorf("deep topic: %s", show(pk))
	}
}

func TestTopicAliasesAreRefused(t *testing.T) {
	// mochi resolves an alias after the access check, which sees an empty topic.
	r := newRig(t, nil)
	for name, topic := range map[string]string{"unknown": "", "new": hallway} {
		t.Run(name, func(t *testing.T) {
			c := r.connect(t, hi{device: "phone"})
			pk := pub(topic, `{"text":"x"}`, 1, 1)
			pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = 1, true
			c.send(pk)
			if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x94 {
				t.Errorf("told %s", show(pk))
			}
		})
	}
}

func TestEveryPublishToAWrongTopicIsAnswered(t *testing.T) {
	// mochi leaves some of them without an acknowledgement, and clients repeat them for ever.
	r := newRig(t, nil)
	for _, topic := range []string{
		"$SYS/x", "$share", "$share/g/x", "x", "/", "conversations", events, "users/" + alice + "/inbox",
		strings.Repeat("x", 60_000), "conversations/0190B6C4-0000-7000-8000-000000000001/messages",
	} {
		for _, version := range []byte{4, 5} {
			for _, qos := range []byte{1, 2} {
				c := r.connect(t, hi{device: "phone", version: version})
				c.send(pub(topic, "{}", qos, 3))
				pk := c.recv()
				want := map[byte]byte{4: 0, 5: 0x87}[version]
				if pk.FixedHeader.Type != map[byte]byte{1: packets.Puback, 2: packets.Pubrec}[qos] || pk.ReasonCode != want || pk.PacketID != 3 {
					t.Errorf("%.40q, version %d, QoS %d: %s", topic, version, qos, show(pk))
				}
				c.ping()
			}
		}
	}
	for _, topic := range []string{"", "a/+", "#"} { // these are no topic names at all
		for _, version := range []byte{4, 5} {
			c := r.connect(t, hi{device: "phone", version: version})
			c.send(pub(topic, "{}", 1, 3))
			if version == 5 {
				if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x82 {
					t.Errorf("%q: %s", topic, show(pk))
				}
			}
			c.ended()
		}
	}
}

func TestFiltersAreJudgedByTheirFormAndByTheSession(t *testing.T) {
	// mochi takes malformed filters, and any letter case of $share, as shared subscriptions.
	r := newRig(t, nil)
	for filter, want := range map[string]byte{
		events: 1, "conversations/+/events": 1, "users/" + alice + "/inbox": 1, "users/" + alice + "/replies/#": 1,
		"#": 0x87, "+/+/events": 0x87, "$SYS/#": 0x87, "users/" + bob + "/inbox": 0x87, "plain": 0x87,
		"$share/g/conversations/+/events": 0x87, "$SHARE/g/" + events: 0x87,
		"a#": 0x8f, "a+/b": 0x8f, "#/a": 0x8f, "": 0x8f, "$share//x": 0x8f, "$share/g": 0x8f, "$share/g/": 0x8f, "$share/+/x": 0x8f,
	} {
		for _, version := range []byte{4, 5} {
			c := r.connect(t, hi{device: "phone", version: version})
			code := c.subscribe(filter).ReasonCodes[0]
			if version == 4 && want >= 0x80 {
				if code != 0x80 {
					t.Errorf("%q in 3.1.1: %#x", filter, code)
				}
			} else if code != want {
				t.Errorf("%q: %#x, want %#x", filter, code, want)
			}
		}
	}
	service := r.connect(t, hi{user: "service/crm@acme", device: "crm"})
	if code := service.subscribe("$share/g/conversations/+/events").ReasonCodes[0]; code != 1 {
		t.Errorf("service: %#x", code)
	}
}

func TestSubscriptionOptionsReachTheSession(t *testing.T) {
	// QoS 2 is granted as 1; No Local and the identifier are the session's business.
	r := newRig(t, nil)
	c := r.connect(t, hi{device: "phone"})
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 5,
		Filters:    packets.Subscriptions{{Filter: events, Qos: 2, NoLocal: true}, {Filter: "conversations/+/signals", Qos: 0}},
		Properties: packets.Properties{SubscriptionIdentifier: []int{77}},
	}
	c.send(pk)
	if ack := c.expect(packets.Suback); string(ack.ReasonCodes) != "\x01\x00" || ack.PacketID != 5 {
		t.Errorf("SUBACK %s", show(ack))
	}
	s := r.seat(t, alice, "phone")
	if got, want := s.filters[events], (domain.SubscribeOptions{QoS: 1, NoLocal: true, Identifier: 77}); got != want {
		t.Errorf("options %+v", got)
	}
	c.send(packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, PacketID: 6,
		Filters: packets.Subscriptions{{Filter: events}, {Filter: events}, {Filter: "a#"}},
	})
	if ack := c.expect(packets.Unsuback); string(ack.ReasonCodes) != "\x00\x11\x8f" || ack.PacketID != 6 {
		t.Errorf("UNSUBACK %s", show(ack))
	}
	for name, change := range map[string]func(*packets.Packet){
		"identifier 0":            func(pk *packets.Packet) { pk.Properties.SubscriptionIdentifier = nil },
		"retain handling 3":       func(pk *packets.Packet) { pk.Filters[0].RetainHandling = 3 },
		"no local and shared":     func(pk *packets.Packet) { pk.Filters[0].Filter = "$share/g/x" },
		"no filters":              func(pk *packets.Packet) { pk.Filters = nil },
		"two identifiers":         func(pk *packets.Packet) { pk.Properties.SubscriptionIdentifier = []int{1, 2} },
		"a property of others":    nil,
		"a packet without its id": nil,
	} {
		t.Run(name, func(t *testing.T) {
			c := r.connect(t, hi{device: "phone"})
			bad := pk
			bad.Filters = append(packets.Subscriptions(nil), pk.Filters...)
			var wire []byte
			switch name {
			case "a packet without its id":
				wire = []byte{0x82, 7, 0, 0, 0, 0, 1, 'a', 0}
			case "a property of others":
				wire = []byte{0x82, 9, 0, 1, 2, 0x01, 1, 0, 1, 'a', 0}
			case "identifier 0":
				wire = []byte{0x82, 9, 0, 1, 2, 0x0b, 0, 0, 1, 'a', 0}
			default:
				change(&bad)
				wire = encoded(t, 5, bad)
			}
			c.raw(wire...)
			if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x82 && pk.ReasonCode != 0x81 {
				t.Errorf("told %s", show(pk))
			}
		})
	}
}

func TestTheSocketLimitsHold(t *testing.T) {
	// MaximumClients of mochi counts logins, not sockets.
	for name, l := range map[string]func(*broker.Limits){
		"total":   func(l *broker.Limits) { l.Connections = 2 },
		"address": func(l *broker.Limits) { l.PerAddress = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, limits(l))
			first := r.connect(t, hi{device: "1"})
			r.connect(t, hi{device: "2"})
			third := &client{Conn: r.dial(t, 0), tb: t}
			if _, err := third.Read(make([]byte, 1)); err == nil {
				t.Error("a third socket stays")
			}
			if n := r.metric(t, "parley_mqtt_sockets_refused_total", "reason", name); n != 1 {
				t.Errorf("%v refusals counted", n)
			}
			if n := r.metric(t, "parley_mqtt_connections", "listener", "tcp"); n != 2 {
				t.Errorf("%v sockets counted", n)
			}
			_ = first.Close()
			eventually(t, "the place is free again", func() bool { return r.metric(t, "parley_mqtt_connections") == 1 })
			r.connect(t, hi{device: "3"}).ping()
		})
	}
}

func TestKeepAliveIsBoundedAnnouncedAndEnforced(t *testing.T) {
	// mochi computes 1.5 times the keep alive in 16 bits: 43691 s became 0 s. And 0 means for ever.
	r := newRig(t, nil)
	for asked, want := range map[uint16]uint16{0: 1200, 1: 0, 30: 0, 60: 0, 1200: 0, 1201: 1200, 43691: 1200, 43692: 1200, 65535: 1200} {
		_, ack := r.try(t, hi{device: "phone", keepAlive: asked})
		if ack.Properties.ServerKeepAlive != want || ack.Properties.ServerKeepAliveFlag != (want != 0) {
			t.Errorf("asked for %d: announced %d", asked, ack.Properties.ServerKeepAlive)
		}
	}
	short := newRig(t, nil, func(_ *broker.Options, o *hooks.Options) { o.KeepAliveMax = 1 })
	for _, version := range []byte{4, 5} {
		c := short.connect(t, hi{device: fmt.Sprint(version), version: version, keepAlive: 600})
		s := short.seat(t, alice, fmt.Sprint(version))
		if version == 5 {
			if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x8d {
				t.Errorf("told %s", show(pk))
			}
		}
		c.ended()
		eventually(t, "the session has left without grace", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.left == 1 && !s.graceful
		})
	}
	web := over(t, dialWS(t, short, "", "mqtt"), 5, "web")
	if pk := web.expect(packets.Disconnect); pk.ReasonCode != 0x8d {
		t.Errorf("over WebSocket told %s", show(pk))
	}
}

func TestTheContentsOfPacketsStayOutOfTheLog(t *testing.T) {
	// mochi logs whole packets, also at levels that are on in production.
	r := newRig(t, nil)
	c := r.connect(t, hi{device: "phone"})
	c.send(message("a secret", 1, 1))
	c.expect(packets.Puback)
	pk := pub("a/+", "a secret", 1, 2)
	pk.Properties.User = []packets.UserProperty{{Key: "k", Val: "a secret"}}
	c.send(pk)
	c.expect(packets.Disconnect)
	c.ended()
	r.try(t, hi{device: "phone", password: "a secret"})
	c = r.connect(t, hi{device: "phone"})
	c.raw(append([]byte{0x10, 13}, encoded(t, 5, pk)...)...)
	c.expect(packets.Disconnect)
	if err := r.server.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := r.log.String(); strings.Contains(text, "secret") || !strings.Contains(text, "mochi") {
		t.Error(text)
	}
}
