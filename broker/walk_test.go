package broker_test

import (
	"fmt"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

func TestASessionWalksThroughConnectPublishSubscribeAndDelivery(t *testing.T) {
	// The whole way in and out, in both versions, before anything is looked at closely.
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			r := newRig(t, nil)
			c := r.connect(t, hi{version: version, device: "phone"})
			c.send(message("hello", 1, 7))
			ack := c.expect(packets.Puback)
			if ack.PacketID != 7 || ack.ReasonCode != 0 {
				t.Errorf("ack: %s", show(ack))
			}
			if version == 5 && (property(ack, "seq") != "1" || property(ack, "conversation") == "" || property(ack, "message") == "") {
				t.Errorf("ack without its receipt: %s", show(ack))
			}
			if codes := c.subscribe(events, "conversations/+/events").ReasonCodes; string(codes) != "\x01\x01" {
				t.Errorf("SUBACK %x", codes)
			}
			s := r.seat(t, alice, "phone")
			for i := range 200 {
				s.put(domain.Delivery{Publication: publication(events, fmt.Sprint(i)), QoS: byte(i % 2)})
			}
			for i := range 200 {
				pk := c.expect(packets.Publish)
				if string(pk.Payload) != fmt.Sprint(i) || pk.TopicName != events || pk.FixedHeader.Qos != byte(i%2) {
					t.Fatalf("delivery %d: %s %q", i, show(pk), pk.Payload)
				}
				if pk.FixedHeader.Qos == 1 {
					c.send(ackOf(packets.Puback, pk.PacketID))
				}
			}
			eventually(t, "all deliveries are done", func() bool { _, done, _ := s.count(); return done == 200 })
			c.ping()
			c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
			c.ended()
			eventually(t, "the session has left", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.left == 1 && s.graceful })
		})
	}
}
