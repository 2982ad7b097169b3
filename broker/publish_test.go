package broker_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

type clerk struct {
	mu      sync.Mutex
	waiting []func(domain.Receipt, error)
	arrived chan struct{}
}

func newClerk() *clerk { return &clerk{arrived: make(chan struct{}, 1<<16)} }

func (c *clerk) decide(_ *seat, _ domain.Request, done func(domain.Receipt, error)) {
	c.mu.Lock()
	c.waiting = append(c.waiting, done)
	c.mu.Unlock()
	c.arrived <- struct{}{}
}

func (c *clerk) await(tb testing.TB, n int) {
	tb.Helper()
	for range n {
		select {
		case <-c.arrived:
		case <-time.After(patience):
			tb.Fatal("a request has not arrived")
		}
	}
}

func (c *clerk) finish(i int, err error) {
	c.mu.Lock()
	done := c.waiting[i]
	c.mu.Unlock()
	done(domain.Receipt{}, err)
}

func (c *clerk) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

func TestAcksKeepTheOrderOfThePublishes(t *testing.T) {
	// [MQTT-4.6.0-2], [MQTT-4.6.0-3]; mochi leaves it to whoever defers an acknowledgement, refusals included.
	for _, version := range []byte{4, 5} {
		k := newClerk()
		r := newRig(t, &hall{decide: k.decide})
		c := r.connect(t, hi{device: "phone", version: version})
		const n = 60
		for i := range n {
			c.send(message("x", 1+byte(i%2), uint16(1000-i)))
		}
		k.await(t, n)
		order := rand.Perm(n - 1)
		for _, i := range order {
			var err error
			if i%3 == 0 {
				err = domain.Errorf(domain.AccessDenied, "no")
			}
			k.finish(i+1, err)
		}
		c.quiet() // the first one is still out
		k.finish(0, nil)
		for i := range n {
			pk := c.recv()
			if pk.PacketID != uint16(1000-i) || pk.FixedHeader.Type != []byte{packets.Puback, packets.Pubrec}[i%2] {
				t.Fatalf("version %d, ack %d: %s", version, i, show(pk))
			}
			if refused := pk.ReasonCode == 0x87; version == 5 && i > 0 && refused != ((i-1)%3 == 0) {
				t.Fatalf("ack %d: %s", i, show(pk))
			}
		}
	}
}

func TestAcksKeepTheirOrderWhenManyGoroutinesDecide(t *testing.T) {
	// Committers are several; none of them waits for another.
	r := newRig(t, &hall{decide: func(s *seat, req domain.Request, done func(domain.Receipt, error)) {
		go done(s.hall.receipt(req), nil)
	}})
	c := r.connect(t, hi{device: "phone", version: 4})
	const n = 5000
	go func() {
		for i := range n {
			if c.trySend(message("x", 1, uint16(i+1))) != nil {
				return
			}
		}
	}()
	for i := range n {
		if pk := c.expect(packets.Puback); pk.PacketID != uint16(i+1) {
			t.Fatalf("ack %d: %s", i, show(pk))
		}
	}
}

func TestNothingIsAcknowledgedBeforeItIsDecided(t *testing.T) {
	// An acknowledgement means committed.
	k := newClerk()
	r := newRig(t, &hall{decide: k.decide})
	c := r.connect(t, hi{device: "phone"})
	c.send(message("x", 1, 1))
	c.send(message("x", 2, 2))
	c.send(message("x", 0, 0))
	k.await(t, 3)
	c.quiet()
	c.ping() // and nobody waits for the store
}

func TestReceiveMaximumOfTheServerIsEnforcedInMQTT5(t *testing.T) {
	// mochi takes its quota after the hook: with deferred acknowledgements there was no limit.
	for _, qos := range []byte{1, 2} {
		k := newClerk()
		r := newRig(t, &hall{decide: k.decide})
		c, ack := r.try(t, hi{device: "phone"})
		if ack.Properties.ReceiveMaximum != 64 {
			t.Errorf("announced %d", ack.Properties.ReceiveMaximum)
		}
		for i := range 64 {
			c.send(message("x", qos, uint16(i+1)))
		}
		k.await(t, 64)
		c.ping()
		c.send(message("x", qos, 65))
		if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x93 {
			t.Errorf("told %s", show(pk))
		}
		if n := k.count(); n != 64 {
			t.Errorf("%d requests", n)
		}
	}
}

func TestAClientWithoutReceiveMaximumIsReadNoFurtherThanItsPlaces(t *testing.T) {
	// MQTT 3.1.1 knows no limit, and QoS 0 none in any version: the socket is the back-pressure, nothing is lost.
	for _, test := range []struct{ version, qos byte }{{4, 0}, {4, 1}, {4, 2}, {5, 0}} {
		k := newClerk()
		r := newRig(t, &hall{decide: k.decide})
		c := r.connect(t, hi{device: "phone", version: test.version})
		for i := range 100 {
			c.send(message("x", test.qos, uint16(i+1)*uint16(min(test.qos, 1))))
		}
		k.await(t, 64)
		c.quiet()
		if n := k.count(); n != 64 {
			t.Errorf("%+v: %d requests at a time", test, n)
		}
		for i := range 100 {
			if i >= 64 {
				k.await(t, 1)
			}
			k.finish(i, nil)
		}
		for i := range 100 * int(min(test.qos, 1)) {
			if pk := c.recv(); pk.PacketID != uint16(i+1) {
				t.Fatalf("%+v: %s", test, show(pk))
			}
		}
		c.ping()
	}
}

func TestABlockedClientThatGoesLeavesNothingBehind(t *testing.T) {
	// Its goroutine waits for a place that nobody will give it.
	k := newClerk()
	r := newRig(t, &hall{decide: k.decide})
	c := r.connect(t, hi{device: "phone", version: 4})
	for i := range 65 {
		c.send(message("x", 1, uint16(i+1)))
	}
	k.await(t, 64)
	s := r.seat(t, alice, "phone")
	s.conn.Close(domain.ShuttingDown())
	eventually(t, "the session has left", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.left == 1 })
}

func TestDuplicatesOfPendingPublishesAreNotSubmittedAgain(t *testing.T) {
	// A repetition on the same connection has its answer coming.
	k := newClerk()
	r := newRig(t, &hall{decide: k.decide})
	c := r.connect(t, hi{device: "phone", version: 4})
	again := message("x", 1, 1)
	again.FixedHeader.Dup = true
	c.send(message("x", 1, 1))
	c.send(again)
	c.send(message("x", 2, 2))
	c.send(message("x", 2, 2))
	c.ping()
	if n := k.count(); n != 2 {
		t.Errorf("%d requests", n)
	}
	k.finish(0, nil)
	k.finish(1, nil)
	c.expect(packets.Puback)
	c.expect(packets.Pubrec)
	c.quiet()
	c.send(again) // answered already: it is a new one, which the session has to recognise
	k.await(t, 3)
}

func TestQoS2CompletesExactly(t *testing.T) {
	// Section 4.3.3: PUBREC on commit, once more on repetition, PUBCOMP on PUBREL, and the id is free then.
	for _, version := range []byte{4, 5} {
		r := newRig(t, nil)
		c := r.connect(t, hi{device: "phone", version: version})
		s := r.seat(t, alice, "phone")
		c.send(message("x", 2, 9))
		if pk := c.expect(packets.Pubrec); pk.PacketID != 9 || version == 5 && property(pk, "seq") != "1" {
			t.Errorf("%s", show(pk))
		}
		again := message("x", 2, 9)
		again.FixedHeader.Dup = true
		c.send(again)
		c.expect(packets.Pubrec)
		if n, _, _ := s.count(); n != 1 {
			t.Errorf("submitted %d times", n)
		}
		c.send(ackOf(packets.Pubrel, 9))
		if pk := c.expect(packets.Pubcomp); pk.PacketID != 9 || pk.ReasonCode != 0 {
			t.Errorf("%s", show(pk))
		}
		c.send(ackOf(packets.Pubrel, 9)) // repeated because the PUBCOMP was lost, for all the client knows
		if pk := c.expect(packets.Pubcomp); version == 5 && pk.ReasonCode != 0x92 {
			t.Errorf("%s", show(pk))
		}
		c.send(message("y", 2, 9))
		c.expect(packets.Pubrec)
		if n, _, _ := s.count(); n != 2 {
			t.Errorf("submitted %d times", n)
		}
		// A refusal ends the exchange in MQTT 5; in 3.1.1 it looks like success and goes on.
		c.send(pub("nowhere", "", 2, 10))
		pk := c.expect(packets.Pubrec)
		c.send(ackOf(packets.Pubrel, 10))
		comp := c.expect(packets.Pubcomp)
		if version == 5 && (pk.ReasonCode != 0x87 || comp.ReasonCode != 0x92) {
			t.Errorf("%s %s", show(pk), show(comp))
		}
		c.send(ackOf(packets.Pubrec, 77)) // belongs to nothing
		if pk := c.expect(packets.Pubrel); pk.PacketID != 77 || version == 5 && pk.ReasonCode != 0x92 {
			t.Errorf("%s", show(pk))
		}
		c.send(ackOf(packets.Pubcomp, 77))
		c.ping()
	}
}

func TestProblemInformationIsLeftOutWhenNotWanted(t *testing.T) {
	// [MQTT-3.1.2-29]: reason strings and user properties are for CONNACK and DISCONNECT then.
	r := newRig(t, nil)
	c, ack := r.try(t, hi{device: "phone", props: packets.Properties{RequestProblemInfo: 0, RequestProblemInfoFlag: true}})
	if property(ack, "userId") == "" {
		t.Errorf("CONNACK %s", show(ack))
	}
	c.send(message("x", 1, 1))
	if pk := c.expect(packets.Puback); len(pk.Properties.User) != 0 {
		t.Error(show(pk))
	}
	c.send(pub("nowhere", "", 1, 2))
	if pk := c.expect(packets.Puback); pk.Properties.ReasonString != "" || len(pk.Properties.User) != 0 || pk.ReasonCode != 0x87 {
		t.Error(show(pk))
	}
}
