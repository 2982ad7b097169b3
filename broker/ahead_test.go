package broker_test

import (
	"bufio"
	"context"
	"net"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/broker"
	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/hooks"
)

// doorman watches over logins that wait to be let in, and reports how each wait ended.
type doorman struct {
	waits chan error
	open  chan struct{}
}

func newDoorman() *doorman { return &doorman{make(chan error, 1), make(chan struct{})} }

func (d *doorman) at(h *hall) option {
	return func(_ *broker.Options, o *hooks.Options) {
		o.Connect = func(ctx context.Context, cl *mqtt.Client, hello domain.Hello) (hooks.Session, domain.Welcome, error) {
			stop := broker.ConnOf(cl).Watch()
			defer stop()
			select {
			case <-d.open:
			case <-ctx.Done():
				d.waits <- context.Cause(ctx)
				return nil, domain.Welcome{}, domain.Errorf(domain.Unavailable, "gone")
			}
			return h.login(ctx, cl, hello)
		}
	}
}

func TestALoginEndsWhenItsClientHasGone(t *testing.T) {
	// Clients give up and come back while logins wait in a queue: without this each attempt would keep its place, and
	// nobody who still waits would have a turn.
	for name, dial := range map[string]func(*testing.T, *rig) net.Conn{
		"TCP":       func(t *testing.T, r *rig) net.Conn { return r.dial(t, 0) },
		"WebSocket": func(t *testing.T, r *rig) net.Conn { return dialWS(t, r, "", "mqtt") },
	} {
		for _, version := range []byte{4, 5} {
			t.Run(name, func(t *testing.T) {
				d, h := newDoorman(), new(hall)
				r := newRig(t, h, d.at(h))
				conn := dial(t, r)
				c := &client{Conn: conn, tb: t, r: bufio.NewReader(conn), version: version}
				c.send(connectPacket(version))
				if err := conn.Close(); err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-d.waits:
					if err != context.Canceled { //nolint:errorlint // the cause itself: it was not the timeout
						t.Errorf("the login ended by %v", err)
					}
				case <-time.After(patience / 2): // the login's own timeout comes later
					t.Error("the login still waits for its client")
				}
			})
		}
	}
}

func TestWhatAClientSendsDuringItsLoginIsNotLost(t *testing.T) {
	// Clients may send packets before they have seen the CONNACK (MQTT 5, section 3.1.4).
	d, h := newDoorman(), new(hall)
	r := newRig(t, h, d.at(h))
	c := r.open(t, hi{device: "phone"})
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.quiet() // long enough that the connection is read ahead
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	close(d.open)
	c.expect(packets.Connack)
	c.expect(packets.Pingresp)
	c.expect(packets.Pingresp)
	c.ping()
}

func connectPacket(version byte) packets.Packet {
	return packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connect},
		Connect: packets.ConnectParams{
			ProtocolName: []byte("MQTT"), Clean: true, ClientIdentifier: "phone",
			UsernameFlag: true, Username: []byte(alice), PasswordFlag: true, Password: []byte("good"),
		},
		ProtocolVersion: version,
	}
}
