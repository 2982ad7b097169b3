package broker_test

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// seeds are packets of all kinds, and some of the malformed ones that broke something once.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	var all [][]byte
	for _, version := range []byte{4, 5} {
		for _, pk := range []packets.Packet{
			message("hello", 0, 0), message("hello", 1, 1), message("hello", 2, 2), pub("commands/getMe", `{"requestId":"1"}`, 1, 3),
			pub("nowhere", "x", 1, 4), ackOf(packets.Puback, 1), ackOf(packets.Pubrec, 1), ackOf(packets.Pubrel, 2), ackOf(packets.Pubcomp, 1),
			{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1, Filters: packets.Subscriptions{{Filter: events, Qos: 2}, {Filter: "#"}}},
			{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, PacketID: 1, Filters: packets.Subscriptions{{Filter: events}}},
			{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}},
			{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}},
			{FixedHeader: packets.FixedHeader{Type: packets.Connect}, Connect: packets.ConnectParams{ProtocolName: []byte("MQTT"), ClientIdentifier: "x", Clean: true}},
		} {
			all = append(all, encoded(f, version, pk))
		}
	}
	pk := message("hello", 1, 5)
	pk.Properties = packets.Properties{
		ContentType: "text/plain", ResponseTopic: "users/" + alice + "/replies/1", CorrelationData: []byte("c"), TopicAlias: 1, TopicAliasFlag: true,
		MessageExpiryInterval: 5, PayloadFormat: 1, PayloadFormatFlag: true, User: []packets.UserProperty{{Key: "k", Val: "v"}},
	}
	return append(all, encoded(f, 5, pk), []byte{0x82, 6, 0, 1, 0, 0, 1, 'a'}, []byte{0x32, 0xff, 0xff, 0xff, 0x7f, 0}, []byte{0xe0, 1, 4}, []byte{0xf0, 2, 0x18, 0})
}

func FuzzPackets(f *testing.F) {
	// Whatever a logged-in client sends, the process lives, its own connection ends in time, and nobody else notices.
	for i, seed := range seeds(f) {
		f.Add(seed, i%2 == 0)
		f.Add(append(slices.Clip(seed), seed...), i%2 == 1)
	}
	r := newRig(f, nil)
	bystander := r.connect(f, hi{user: bob, device: "bystander"})
	f.Fuzz(func(t *testing.T, data []byte, five bool) {
		version := byte(4)
		if five {
			version = 5
		}
		c := r.connect(t, hi{version: version, device: "fuzz"})
		r.seat(t, alice, "fuzz").put(domain.Delivery{Publication: publication(events, "x"), QoS: 1})
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(data); err == nil {
			if tcp, ok := c.Conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
		}
		if _, err := io.Copy(io.Discard, c.r); isTimeout(err) {
			t.Error("the connection did not end")
		}
		_ = c.Close()
		bystander.tb = t
		bystander.ping()
		if n := r.metric(t, "parley_mqtt_hook_panics_recovered_total"); n != 0 {
			t.Fatalf("%v panics in our own code: %s", n, r.log)
		}
	})
}

func FuzzConnect(f *testing.F) {
	// The same before the login, where nobody is known.
	for _, version := range []byte{4, 5} {
		for _, change := range []func(*packets.Packet){nil, will(hallway, `{"text":"x"}`), func(pk *packets.Packet) {
			pk.Connect.Username = []byte(alice + "?tag=a&reconnect=1")
			pk.Properties.User = []packets.UserProperty{{Key: "tag", Val: "x"}}
		}} {
			pk := packets.Packet{
				FixedHeader: packets.FixedHeader{Type: packets.Connect}, Connect: packets.ConnectParams{
					ProtocolName: []byte("MQTT"), ClientIdentifier: "fuzz", Clean: true, UsernameFlag: true, Username: []byte(alice),
					PasswordFlag: true, Password: []byte("good"),
				},
			}
			if change != nil {
				change(&pk)
			}
			f.Add(encoded(f, version, pk))
		}
	}
	r := newRig(f, nil)
	bystander := r.connect(f, hi{user: bob, device: "bystander"})
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := r.dial(t, 0)
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write(data); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
		}
		if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
			t.Error("the connection did not end")
		}
		_ = conn.Close()
		bystander.tb = t
		bystander.ping()
		if n := r.metric(t, "parley_mqtt_hook_panics_recovered_total"); n != 0 {
			t.Fatalf("%v panics in our own code: %s", n, r.log)
		}
	})
}
