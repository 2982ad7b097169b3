package broker_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/broker"
	"github.com/parley-im/parley/domain"
)

// clerk decides on requests when a test tells it to.
// await waits for n requests.
func TestPacketIdsOfBothDirectionsAreApart(t *testing.T) {
	// mochi keeps them in one map: a client's own publish wiped out the delivery with the same id.
	for _, version := range []byte{4, 5} {
		r := newRig(t, nil)
		c := r.connect(t, hi{device: "phone", version: version})
		s := r.seat(t, alice, "phone")
		for i := range 3 {
			s.put(domain.Delivery{Publication: publication(events, fmt.Sprint(i)), QoS: 1})
		}
		for i := range 3 {
			if pk := c.expect(packets.Publish); pk.PacketID != uint16(i+1) || pk.FixedHeader.Dup {
				t.Errorf("%s", show(pk))
			}
		}
		for i := range 3 {
			c.send(message("x", 1, uint16(i+1)))
			c.expect(packets.Puback)
		}
		if codes := c.subscribe(events).ReasonCodes; codes[0] != 1 {
			t.Errorf("SUBACK %x", codes)
		}
		c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, PacketID: 2, Filters: packets.Subscriptions{{Filter: events}}})
		if pk := c.expect(packets.Unsuback); version == 5 && pk.ReasonCodes[0] != 0 {
			t.Errorf("UNSUBACK %x", pk.ReasonCodes)
		}
		for _, id := range []uint16{3, 3, 500, 1, 2} { // in any order, twice, and one that nobody has
			c.send(ackOf(packets.Puback, id))
		}
		eventually(t, "three deliveries are done", func() bool { _, done, _ := s.count(); return done == 3 })
		if string(s.done[0].Publication.Payload) != "2" {
			t.Errorf("done first: %s", s.done[0].Publication.Payload)
		}
	}
}

func TestAnyReasonCodeOfAPubackFreesThePlace(t *testing.T) {
	// [MQTT-4.4.0-2]: there is no other way to refuse a delivery, and it is not repeated.
	r := newRig(t, nil)
	c := r.connect(t, hi{device: "phone", props: packets.Properties{ReceiveMaximum: 1}})
	s := r.seat(t, alice, "phone")
	s.put(domain.Delivery{Publication: publication(events, "1"), QoS: 1}, domain.Delivery{Publication: publication(events, "2"), QoS: 1})
	refused := ackOf(packets.Puback, c.expect(packets.Publish).PacketID)
	c.quiet()
	refused.ReasonCode = 0x97
	c.send(refused)
	if pk := c.expect(packets.Publish); string(pk.Payload) != "2" {
		t.Error(show(pk))
	}
}

func TestReceiveMaximumOfTheClientIsKeptAndNothingIsLost(t *testing.T) {
	// With 1 mochi delivered 2 of 100 and then nothing more; with 5 ten, out of order.
	for _, limit := range []uint16{1, 5, 20} {
		r := newRig(t, nil)
		c := r.connect(t, hi{device: "phone", props: packets.Properties{ReceiveMaximum: limit}})
		s := r.seat(t, alice, "phone")
		const n = 300
		for i := range n {
			s.put(domain.Delivery{Publication: publication(events, fmt.Sprint(i)), QoS: 1})
		}
		var open []uint16
		for i := range n {
			pk := c.expect(packets.Publish)
			if string(pk.Payload) != fmt.Sprint(i) {
				t.Fatalf("delivery %d is %s", i, pk.Payload)
			}
			if open = append(open, pk.PacketID); len(open) > int(limit) {
				t.Fatalf("%d unacknowledged", len(open))
			}
			if len(open) == int(limit) || i == n-1 {
				if i == int(limit)-1 {
					c.quiet()
				}
				rand.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
				for _, id := range open {
					c.send(ackOf(packets.Puback, id))
				}
				open = nil
			}
		}
		eventually(t, "all are done", func() bool { _, done, _ := s.count(); return done == n })
	}
}

func TestAFullWindowDoesNotHoldBackQoS0(t *testing.T) {
	// Only QoS 1 has a window (MQTT 5, section 4.9); the source decides about the order.
	r := newRig(t, nil)
	c := r.connect(t, hi{device: "phone", version: 4})
	s := r.seat(t, alice, "phone")
	for i := range 64 {
		s.put(domain.Delivery{Publication: publication(events, fmt.Sprint(i)), QoS: 1})
	}
	for range 64 {
		c.expect(packets.Publish)
	}
	s.put(domain.Delivery{Publication: publication(events, "signal")})
	if pk := c.expect(packets.Publish); string(pk.Payload) != "signal" {
		t.Error(show(pk))
	}
}

func TestADeliveryTooLargeForTheClientIsSkipped(t *testing.T) {
	// [MQTT-3.1.2-24]. In mochi it stayed in flight, and the client could never log in again.
	r := newRig(t, nil)
	c := r.connect(t, hi{device: "phone", props: packets.Properties{MaximumPacketSize: 200}})
	s := r.seat(t, alice, "phone")
	fits := 200 - 3 - 2 - len(events) - 2 - 1 // fixed header, topic, packet id, no properties
	for _, size := range []int{10, 300, fits + 1, fits} {
		s.put(domain.Delivery{Publication: publication(events, strings.Repeat("x", size)), QoS: 1})
	}
	for _, want := range []int{10, fits} {
		if pk := c.expect(packets.Publish); len(pk.Payload) != want {
			t.Errorf("%d bytes", len(pk.Payload))
		}
	}
	c.ping()
	if _, _, skipped := s.count(); skipped != 2 {
		t.Errorf("%d skipped", skipped)
	}
	// An acknowledgement that would be too large goes without its properties.
	r.decide = func(_ *seat, _ domain.Request, done func(domain.Receipt, error)) {
		done(domain.Receipt{}, domain.Errorf(domain.AccessDenied, "%s", strings.Repeat("x", 300)))
	}
	c.send(message("x", 1, 1))
	if pk := c.expect(packets.Puback); pk.ReasonCode != 0x87 || property(pk, "detail") != "" {
		t.Error(show(pk))
	}
}

func TestPropertiesOfDeliveriesArrive(t *testing.T) {
	// Those that differ from one receiver to the next: identifiers; and those of replies: correlation.
	r := newRig(t, nil)
	for _, version := range []byte{4, 5} {
		c := r.connect(t, hi{device: "phone", version: version})
		s := r.seat(t, alice, "phone")
		p := publication("users/"+alice+"/replies", "r")
		p.Correlation = bytes.Repeat([]byte("c"), 200)
		s.put(domain.Delivery{Publication: p, QoS: 1, Identifiers: []int{1, 268_435_455}, Retain: true})
		pk := c.expect(packets.Publish)
		got := fmt.Sprintf("%v %d %s %t", pk.Properties.SubscriptionIdentifier, len(pk.Properties.CorrelationData), pk.Payload, pk.FixedHeader.Retain)
		want := map[byte]string{4: "[] 0 r true", 5: "[1 268435455] 200 r true"}[version]
		if got != want {
			t.Errorf("version %d: %s", version, got)
		}
	}
}

// stuck logs in a client that never reads, and gives it so much that its socket is full.
func stuck(t *testing.T, r *rig, version byte) *seat {
	t.Helper()
	device := fmt.Sprint("stuck", version)
	r.connect(t, hi{device: device, version: version, readBuf: 4096})
	s := r.seat(t, alice, device)
	for range 64 {
		s.put(domain.Delivery{Publication: publication(events, strings.Repeat("x", 256<<10))})
	}
	return s
}

func TestAClientThatDoesNotReadSlowsNobodyAndIsDisconnected(t *testing.T) {
	// In mochi its lock is held while its socket is full, and whoever publishes to it waits for that lock.
	const given = 2 * time.Second // whoever waited for such a client would wait that long
	r := newRig(t, nil, limits(func(l *broker.Limits) { l.WriteTimeout = given }))
	r.decide = func(s *seat, req domain.Request, done func(domain.Receipt, error)) {
		r.hall.mu.Lock()
		for _, other := range r.hall.seats {
			r.hall.mu.Unlock()
			other.put(domain.Delivery{Publication: publication(events, "live"), QoS: 1})
			r.hall.mu.Lock()
		}
		r.hall.mu.Unlock()
		done(s.hall.receipt(req), nil)
	}
	slow := []*seat{stuck(t, r, 4), stuck(t, r, 5)}
	reader := r.connect(t, hi{device: "reader"})
	writer := r.connect(t, hi{device: "writer", user: bob})
	worst := time.Duration(0)
	for i := range 50 {
		start := time.Now()
		writer.send(message("x", 1, uint16(i+1)))
		for range 2 { // the acknowledgement, and its own copy
			if pk := writer.recv(); pk.FixedHeader.Type == packets.Publish {
				writer.send(ackOf(packets.Puback, pk.PacketID))
			}
		}
		reader.send(ackOf(packets.Puback, reader.expect(packets.Publish).PacketID))
		worst = max(worst, time.Since(start))
	}
	if worst > given/2 {
		t.Errorf("somebody waited %v for a client that does not read", worst)
	}
	for _, s := range slow {
		eventually(t, "the slow one is gone", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.left == 1 })
	}
	if n := r.metric(t, "parley_mqtt_slow_disconnects_total"); n != 2 {
		t.Errorf("%v slow clients counted", n)
	}
}

func TestAClientThatSendsWithoutReadingIsReadNoFurther(t *testing.T) {
	// Answers may be larger than what they answer, and would pile up without end.
	detail := strings.Repeat("x", 8<<10)
	r := newRig(t, &hall{decide: func(_ *seat, _ domain.Request, done func(domain.Receipt, error)) {
		done(domain.Receipt{}, domain.Errorf(domain.AccessDenied, "%s", detail))
	}}, limits(func(l *broker.Limits) { l.WriteTimeout = 300 * time.Millisecond }))
	c := r.connect(t, hi{device: "phone", readBuf: 4096})
	s := r.seat(t, alice, "phone")
	for c.trySend(message("x", 1, 1)) == nil {
		if n, _, _ := s.count(); n > 10_000 {
			t.Fatalf("%d publishes were taken", n)
		}
	}
	if n := r.metric(t, "parley_mqtt_slow_disconnects_total"); n != 1 {
		t.Errorf("%v slow clients counted", n)
	}
}

func TestPingsAreAnsweredWhileTheSourceWaits(t *testing.T) {
	// A store that does not answer must not make all clients time out.
	r := newRig(t, nil)
	c := r.connect(t, hi{device: "phone"})
	s := r.seat(t, alice, "phone")
	held := &held{seat: s, reached: make(chan struct{}, 1)}
	s.conn.Attach(held)
	<-held.reached
	for range 10 {
		c.ping()
	}
	c.send(message("x", 1, 1))
	c.expect(packets.Puback)
	s.conn.Close(domain.TakenOver())
	if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x8e {
		t.Error(show(pk))
	}
}
