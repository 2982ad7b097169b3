package broker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// will adds a Will to a CONNECT.
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
		if took := time.Since(start); took > 7*time.Second { // three for who does not read, and the rest for the machine
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

func TestAGoodbyeIsHeardAlthoughNobodyListensAnyMore(t *testing.T) {
	// Clients close with deliveries unread, which makes the next write fail: often before their DISCONNECT was read. They would
	// count as lost, with all that follows from it.
	r := newRig(t, nil)
	for i := range 60 {
		device := fmt.Sprint("phone", i)
		c := r.connect(t, hi{version: 4 + byte(i%2), device: device})
		s := r.seat(t, alice, device)
		stop := make(chan struct{})
		var feeding sync.WaitGroup
		feeding.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.put(domain.Delivery{Publication: publication(events, "unread")})
				}
			}
		})
		c.recv()
		c.raw(0xe0, 0)
		_ = c.Close()
		eventually(t, "the session has left", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.left > 0 })
		close(stop)
		feeding.Wait()
		if s.mu.Lock(); !s.graceful {
			t.Errorf("the goodbye of %s was not heard", device)
		}
		s.mu.Unlock()
	}
}
