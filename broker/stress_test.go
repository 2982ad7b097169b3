package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// bursts is a source that wakes its connection once for each change from nothing to something, as late as it may: a wake-up
// that is lost leaves it waiting for ever.
type bursts struct {
	conn interface{ Wake() }

	mu       sync.Mutex
	due      int  // deliveries that wait
	next     int  // the number of the next one
	told     bool // the connection was woken and has not been told "nothing more" since
	idle     chan struct{}
	done     atomic.Int64
	failures int
}

func (b *bursts) add(n int) {
	b.mu.Lock()
	b.due += n
	wake := !b.told
	b.told = true
	b.mu.Unlock()
	if wake {
		b.conn.Wake()
	}
}

func (b *bursts) Next(_ context.Context, dst []domain.Delivery, window int) ([]domain.Delivery, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures > 0 && rand.IntN(20) == 0 {
		b.failures--
		return dst, errors.New("the store is away")
	}
	for b.due > 0 && len(dst) < cap(dst) && len(dst) < 1+rand.IntN(cap(dst)) {
		qos := byte(b.next % 2)
		if int(qos) > window {
			return dst, nil // the window says when to come back
		}
		window -= int(qos)
		dst = append(dst, domain.Delivery{Publication: publication(events, fmt.Sprint(b.next)), QoS: qos})
		b.next++
		b.due--
	}
	if len(dst) == 0 {
		b.told = false
		select {
		case b.idle <- struct{}{}:
		default:
		}
	}
	return dst, nil
}

func (b *bursts) Done(domain.Delivery)    { b.done.Add(1) }
func (b *bursts) Skipped(domain.Delivery) {}

func TestNoWakeUpIsLost(t *testing.T) {
	// The pump ends when there is nothing to send, at any time between two wake-ups, acknowledgements, pings and failures.
	r := newRig(t, nil)
	rounds := 1000
	if testing.Short() {
		rounds = 300
	}
	var wg sync.WaitGroup
	for i := range 6 {
		device := fmt.Sprint("phone", i)
		c := r.connect(t, hi{device: device, version: byte(4 + i%2), props: packets.Properties{ReceiveMaximum: uint16(1 + i*i)}})
		s := r.seat(t, alice, device)
		b := &bursts{conn: s.conn, failures: 2, idle: make(chan struct{}, 1)}
		s.conn.Attach(b)
		total := 0
		sizes := make([]int, rounds)
		for j := range sizes {
			sizes[j] = 1 + rand.IntN(3)
			total += sizes[j]
		}
		wg.Go(func() {
			for j, n := range sizes {
				b.add(n)
				if j%7 == 0 { // let the pump end
					select {
					case <-b.idle:
					case <-time.After(patience):
						t.Errorf("%s: never idle", device)
						return
					}
				}
			}
		})
		wg.Go(func() { // pings, on the same connection
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for b.done.Load() < int64(total) {
				<-tick.C
				if c.trySend(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}}) != nil {
					return
				}
			}
		})
		wg.Go(func() {
			for got := 0; got < total; {
				pk, err := c.tryRecv(patience)
				if err != nil {
					t.Errorf("%s after %d of %d: %v", device, got, total, err)
					b.done.Store(int64(total))
					return
				}
				if pk.FixedHeader.Type != packets.Publish {
					continue
				}
				if string(pk.Payload) != fmt.Sprint(got) {
					t.Errorf("%s: got %s, want %d", device, pk.Payload, got)
				}
				got++
				if pk.FixedHeader.Qos == 1 {
					if err := c.trySend(ackOf(packets.Puback, pk.PacketID)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// broken is a source that panics.
type broken struct{ *seat }

func (*broken) Next(context.Context, []domain.Delivery, int) ([]domain.Delivery, error) {
	panic(errors.New("broken"))
}

func TestASourceThatPanicsEndsOnlyItsOwnConnection(t *testing.T) {
	// It runs on a goroutine that nobody else guards.
	r := newRig(t, nil)
	other := r.connect(t, hi{device: "other"})
	c := r.connect(t, hi{device: "phone"})
	s := r.seat(t, alice, "phone")
	s.conn.Attach(&broken{s})
	c.ended()
	other.ping()
	eventually(t, "the session has left", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.left == 1 })
	if n := r.metric(t, "parley_mqtt_panics_recovered_total"); n != 1 {
		t.Errorf("%v panics counted", n)
	}
}

func TestConnectionsMayBeClosedAtAnyMoment(t *testing.T) {
	// Wakes, sends, acknowledgements and farewells from all sides, while the connection comes and goes.
	r := newRig(t, nil)
	r.decide = func(s *seat, req domain.Request, done func(domain.Receipt, error)) { go done(s.hall.receipt(req), nil) }
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 40 {
				device := fmt.Sprint("phone", i)
				c := r.open(t, hi{device: device, version: byte(4 + j%2)})
				if pk, err := c.tryRecv(patience); err != nil || pk.FixedHeader.Type != packets.Connack {
					_ = c.Close()
					continue
				}
				s := r.seat(t, alice, device)
				var inner sync.WaitGroup
				inner.Go(func() {
					for k := range 20 {
						s.put(domain.Delivery{Publication: publication(events, "x"), QoS: byte(k % 2)})
					}
				})
				inner.Go(func() {
					for k := range 20 {
						_ = c.trySend(message("x", byte(k%3), uint16(k+1)*uint16(min(k%3, 1))))
					}
				})
				inner.Go(func() {
					for range rand.IntN(20) {
						_, _ = c.tryRecv(time.Millisecond)
					}
					switch j % 4 {
					case 0:
						s.conn.Close(domain.TakenOver())
					case 1:
						_ = c.Close()
					case 2:
						_ = c.trySend(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
					case 3:
						_, _ = c.Write([]byte{0xff, 0xff})
					}
				})
				inner.Wait()
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	eventually(t, "all sockets are closed", func() bool { return r.metric(t, "parley_mqtt_connections") == 0 })
	eventually(t, "nothing is pending", func() bool { return r.metric(t, "parley_mqtt_pending_publishes") == 0 })
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.left {
		if s.left != 1 {
			t.Errorf("a session has left %d times", s.left)
		}
	}
	if n := r.metric(t, "parley_mqtt_connects_total", "result", "ok"); int(n) != len(r.left) {
		t.Errorf("%v logins, but %d sessions have left", n, len(r.left))
	}
}
