package broker_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

func TestEveryRefusalIsAnsweredByVersionAndQoSAsTheTableSays(t *testing.T) {
	// mochi acknowledges most refusals of MQTT 3.1.1 as success and delivers the message, and answers QoS 2 with a PUBACK. It
	// decides, after an upgrade too, whether what it is told still means what it should.
	outcomes := []error{nil, errors.New("not one of ours")}
	for _, code := range domain.Codes() {
		outcomes = append(outcomes, domain.Errorf(code, "why"))
	}
	for _, version := range []byte{4, 5} {
		for _, qos := range []byte{0, 1, 2} {
			for _, outcome := range outcomes {
				code := domain.CodeOf(outcome)
				t.Run(fmt.Sprintf("version %d/QoS %d/%s", version, qos, code), func(t *testing.T) {
					r := newRig(t, &hall{decide: func(_ *seat, _ domain.Request, done func(domain.Receipt, error)) { done(domain.Receipt{}, outcome) }})
					watcher := r.connect(t, hi{user: bob, device: "watcher"})
					watcher.subscribe("conversations/+/events")
					c := r.connect(t, hi{version: version, device: "phone"})
					c.send(message("x", qos, uint16(min(qos, 1))*7))
					_ = c.trySend(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
					pk := c.recv()
					switch {
					case qos == 0:
						if pk.FixedHeader.Type != packets.Pingresp {
							t.Errorf("QoS 0 is answered with %s", show(pk))
						}
						return
					case version == 4 && code == domain.Unavailable:
						if pk.FixedHeader.Type != 0 && pk.FixedHeader.Type != packets.Pingresp {
							t.Errorf("what was not stored is answered with %s", show(pk))
						}
						c.ended()
						return
					}
					want := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: 7}
					if qos == 2 {
						want.FixedHeader.Type = packets.Pubrec
					}
					detail := ""
					if version == 5 && outcome != nil {
						want.ReasonCode, want.Properties.ReasonString = code.Info().Reason, string(code)
						detail = domain.AsError(outcome).Detail
					}
					if show(pk) != show(packets.Packet{FixedHeader: want.FixedHeader, PacketID: 7, ReasonCode: want.ReasonCode, Properties: packets.Properties{
						ReasonString: want.Properties.ReasonString, User: pk.Properties.User,
					}}) || property(pk, "detail") != detail {
						t.Errorf("got %s, want %s and detail %q", show(pk), show(want), detail)
					}
					c.expect(packets.Pingresp)
					if qos == 2 {
						c.send(ackOf(packets.Pubrel, 7))
						known := version == 4 || outcome == nil
						if comp := c.expect(packets.Pubcomp); (comp.ReasonCode == 0) != known {
							t.Errorf("PUBREL is answered with %s", show(comp))
						}
					}
					watcher.ping() // and nothing was delivered behind the session's back
				})
			}
		}
	}
}

func TestAcksBeforeAnUnavailableOneAreSentAndThoseAfterAreNot(t *testing.T) {
	// The client of 3.1.1 repeats on its next connection what it has no acknowledgement for, so the order stays.
	k := newClerk()
	r := newRig(t, &hall{decide: k.decide})
	c := r.connect(t, hi{version: 4, device: "phone"})
	for i := range 3 {
		c.send(message("x", 1, uint16(i+1)))
	}
	k.await(t, 3)
	k.finish(2, nil)
	k.finish(1, domain.Errorf(domain.Unavailable, "no store"))
	k.finish(0, nil)
	if pk := c.expect(packets.Puback); pk.PacketID != 1 {
		t.Error(show(pk))
	}
	c.ended()
}

func TestAReceiptIsToldInFull(t *testing.T) {
	// protocol.md section 2: conversation, seq, message, and duplicate when it was known.
	id, _ := domain.ParseConversationID("0190b6c4-0000-7000-8000-000000000001")
	var next domain.Receipt
	r := newRig(t, &hall{decide: func(_ *seat, _ domain.Request, done func(domain.Receipt, error)) { done(next, nil) }})
	c := r.connect(t, hi{device: "phone"})
	for want, receipt := range map[string]domain.Receipt{
		"[]":                                   {},
		"[{conversation " + id.String() + "}]": {Conversation: id},
		"[{conversation " + id.String() + "} {seq 5}]": {Conversation: id, Seq: 5},
		"[{conversation " + id.String() + "} {seq 5} {message " + domain.NewMessageID(id, 5).String() + "} {duplicate 1}]": {
			Conversation: id, Seq: 5, Message: domain.NewMessageID(id, 5), Duplicate: true,
		},
	} {
		next = receipt
		c.send(message("x", 1, 1))
		if pk := c.expect(packets.Puback); fmt.Sprint(pk.Properties.User) != want {
			t.Errorf("got %v, want %s", pk.Properties.User, want)
		}
	}
}
