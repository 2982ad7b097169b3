package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/parley-im/parley/e2e/chaos"
)

const allEvents = "conversations/+/events"

// phone is a client of which a test decides what it acknowledges and when, and how it goes.
type phone struct {
	*chaos.Client
	// held are the packet ids of what was read and is not acknowledged.
	held []uint16
}

// lasting is a login to a durable session of the device.
func lasting(version byte, device string, changes ...func(*chaos.Login)) chaos.Login {
	l := chaos.Login{Version: version, Device: device}
	if version == 5 {
		l.Expiry = chaos.Forever
	}
	for _, change := range changes {
		change(&l)
	}
	return l
}

func window(n uint16) func(*chaos.Login)  { return func(l *chaos.Login) { l.Window = n } }
func largest(n uint32) func(*chaos.Login) { return func(l *chaos.Login) { l.Largest = n } }

// phone connects a user's phone.
func (g *gateway) phone(tb testing.TB, u user, l chaos.Login) *phone {
	tb.Helper()
	return phoneAt(tb, g.addrs.MQTT, u, l)
}

func phoneAt(tb testing.TB, address string, u user, l chaos.Login) *phone {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	l.User, l.Password = u.Name, u.password
	client, err := chaos.Dial(ctx, address, l)
	if err != nil {
		tb.Fatalf("%s: %v", l.Device, err)
	}
	tb.Cleanup(client.Cut)
	return &phone{Client: client}
}

// follow subscribes.
func (p *phone) follow(tb testing.TB, qos byte, filters ...string) {
	tb.Helper()
	for i, f := range filters {
		if err := p.Subscribe(uint16(1000+i), f, qos); err != nil {
			tb.Fatal(err)
		}
		if got := p.read(tb); got.Kind != chaos.KindSuback || got.Reason != qos {
			tb.Fatalf("SUBACK to %s: %+v", f, got)
		}
	}
}

// read gives the next packet. It passes over what the inbox says of unread messages, which comes whenever it was counted.
func (p *phone) read(tb testing.TB) chaos.Packet {
	tb.Helper()
	for {
		got := p.readAny(tb)
		if got.Kind != chaos.KindPublish || !strings.HasSuffix(got.Topic, "/inbox") || !strings.Contains(string(got.Payload), `"type":"unread"`) {
			return got
		}
		if got.QoS > 0 {
			if err := p.Ack(got.ID); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// readAny is read with nothing left out.
func (p *phone) readAny(tb testing.TB) chaos.Packet {
	tb.Helper()
	p.SetReadDeadline(time.Now().Add(patience))
	got, err := p.Read()
	if err != nil {
		tb.Fatalf("reading: %v", err)
	}
	return got
}

// event reads the next event, and does not acknowledge it.
func (p *phone) event(tb testing.TB) event {
	tb.Helper()
	got := p.read(tb)
	if got.Kind != chaos.KindPublish {
		tb.Fatalf("a packet of type %d (0x%02x) where an event was due", got.Kind, got.Reason)
	}
	if got.QoS > 0 {
		p.held = append(p.held, got.ID)
	}
	var ev event
	mustDecode(tb, got.Payload, &ev)
	return ev
}

// want reads events of one conversation, which must have these numbers, and acknowledges them.
func (p *phone) want(tb testing.TB, conversation string, from, to int64) {
	tb.Helper()
	for ; from <= to; from += 32 { // MQTT 3.1.1 allows 64 on their way
		p.hold(tb, conversation, from, min(to, from+31))
		p.ackAll(tb)
	}
}

// hold is want without acknowledgement.
func (p *phone) hold(tb testing.TB, conversation string, from, to int64) {
	tb.Helper()
	for seq := from; seq <= to; seq++ {
		if ev := p.event(tb); ev.Conversation != conversation || ev.Seq != seq {
			tb.Fatalf("event %d of %s came where %d of %s was due", ev.Seq, ev.Conversation, seq, conversation)
		}
	}
}

func (p *phone) ackAll(tb testing.TB) {
	tb.Helper()
	if err := p.Ack(p.held...); err != nil {
		tb.Fatal(err)
	}
	p.held = nil
}

// goodbye ends the connection in good order: all that was acknowledged is known to the gateway when it returns.
func (p *phone) goodbye(tb testing.TB) {
	tb.Helper()
	if err := p.Leave(); err != nil {
		tb.Fatalf("leaving: %v", err)
	}
}

// settled makes a round trip, in which nothing may come but the answer.
func (p *phone) settled(tb testing.TB) {
	tb.Helper()
	if err := p.Ping(); err != nil {
		tb.Fatal(err)
	}
	if got := p.read(tb); got.Kind != chaos.KindPingresp {
		tb.Fatalf("a packet of type %d came: %s", got.Kind, got.Payload)
	}
}

// sayVia posts messages as a user over HTTP, and gives the number of the last one.
func (w *world) sayVia(tb testing.TB, a api, conversation string, n int) int64 {
	tb.Helper()
	var made struct{ Message message }
	for i := range n {
		a.ok(tb, "POST", "/v1/conversations/"+conversation+"/messages", text(fmt.Sprint("message ", i))).into(tb, &made)
	}
	return made.Message.Seq
}

// others gives the other version of MQTT.
func otherVersion(v byte) byte { return 9 - v }

func mustDecode(tb testing.TB, b []byte, v any) {
	tb.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		tb.Fatalf("%v in %s", err, b)
	}
}
