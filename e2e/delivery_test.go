package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// trySay sends a message that must be acknowledged with success.
func (d *device) trySay(ctx context.Context, conversation string, message map[string]any) (ack, error) {
	payload, err := json.Marshal(message)
	if err != nil {
		return ack{}, err
	}
	a, err := d.tryPublish(ctx, publishing{topic: messagesTopic(conversation), qos: 1, payload: payload})
	if err == nil && a.reason != 0 {
		err = fmt.Errorf("PUBACK 0x%02x %s", a.reason, a.text)
	}
	return a, err
}

func TestEveryListenerHearsEverythingInOrder(t *testing.T) {
	// The first promise of the gateway: many write at the same time, and all see one sequence without a gap, whatever
	// their version, QoS, window and transport.
	inWorlds(t, func(t *testing.T, w *world) {
		const senders, each, conversations = 4, 25, 2
		users := w.users(t, "ann", "ben", "cat", "dan", "eve")
		ids := make([]string, conversations)
		for i := range ids {
			ids[i] = w.conversation(t, users...)
		}
		var listeners []*device
		listen := func(version, qos byte, options ...dialOption) {
			d := w.connect(t, users[4], version, options...)
			d.subscribe(t, qos, "conversations/+/events")
			listeners = append(listeners, d)
		}
		listen(4, 1)
		listen(4, 0)
		listen(5, 0)
		listen(5, 1)
		listen(5, 1, withWindow(1))
		listen(5, 1, withWindow(2))
		listen(5, 1, withWindow(20), over("ws"))
		listen(4, 1, over("ws"))

		var sending errgroup.Group
		for i := range senders {
			d := w.connect(t, users[i], 4+byte(i%2))
			sending.Go(func() error {
				for n := range each {
					for _, c := range ids {
						if _, err := d.trySay(t.Context(), c, map[string]any{"text": fmt.Sprintf("%s %d", users[i].Name, n)}); err != nil {
							return err
						}
					}
				}
				return nil
			})
		}
		// A latecomer begins with some event and misses none from there on.
		late := w.connect(t, users[3], 5)
		late.subscribe(t, 1, "conversations/+/events")
		if err := sending.Wait(); err != nil {
			t.Fatal(err)
		}
		const last = 1 + senders*each
		for _, c := range ids {
			stored := w.log(t, c)
			if len(stored) != last {
				t.Fatalf("%d events are stored, want %d", len(stored), last)
			}
			next := make(map[string]int)
			for _, d := range listeners {
				for i, ev := range d.hearUpTo(t, c, 2, last) {
					if want := stored[i+1]; ev.Message.UUID != want.Message.UUID || ev.Message.Text != want.Message.Text {
						t.Errorf("event %d was heard as %s, stored is %s", ev.Seq, ev.raw, mustJSON(t, want))
					}
				}
			}
			for _, ev := range stored[1:] {
				who := ev.Initiator.Username
				if want := fmt.Sprintf("%s %d", who, next[who]); ev.Message.Text != want {
					t.Errorf("%q is stored where %q was due: one sender's order is not kept", ev.Message.Text, want)
				}
				next[who]++
			}
			for from := int64(0); from < last; {
				ev := late.hear(t, c)
				if from > 0 && ev.Seq != from+1 {
					t.Errorf("the latecomer hears %d after %d", ev.Seq, from)
				}
				from = ev.Seq
			}
		}
		for _, d := range listeners {
			d.heardAll(t)
		}
	})
}

func TestWindowIsFilledAndNeverExceeded(t *testing.T) {
	// A small device announces how much it can hold. More would drown it, less would slow it down for nothing.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "sender", "device")
		for _, tt := range []struct {
			version byte
			asked   uint16
			window  int
		}{{5, 1, 1}, {5, 2, 2}, {5, 20, 20}, {4, 0, 64}} {
			c := w.conversation(t, users...)
			r := w.rawConnect(t, users[1], tt.version, withWindow(tt.asked))
			r.subscribe(t, filter{eventsTopic(c), 1})
			sender := w.rawConnect(t, users[0], 5)
			const n = 80
			for id := uint16(1); id <= n; id++ {
				sender.write(t, sender.publishPacket(messagesTopic(c), mustJSON(t, text(fmt.Sprint(id))), 1, id))
				if id%40 == 0 {
					for sender.expect(t, typePuback).id != id {
					}
				}
			}
			next := int64(2)
			var open []uint16
			receive := func() {
				t.Helper()
				ev, p := r.event(t)
				if ev.Seq != next || p.qos() != 1 || p.flags&8 != 0 {
					t.Fatalf("window %d: got %+v where event %d was due", tt.window, p, next)
				}
				if slices.Contains(open, p.id) {
					t.Fatalf("window %d: packet id %d is in use twice", tt.window, p.id)
				}
				next++
				open = append(open, p.id)
			}
			for range tt.window {
				receive()
			}
			r.ping(t) // nothing comes before the PINGRESP
			for len(open) > 0 {
				r.write(t, ackPacket(typePuback, open[0]))
				open = open[1:]
				if next <= n+1 {
					receive()
				}
				if next == int64(n)/2 {
					r.ping(t)
				}
			}
			r.ping(t)
			if next != n+2 {
				t.Errorf("window %d: ended before event %d", tt.window, next)
			}
			_ = r.conn.Close()
		}
	})
}

func TestStoppedReaderSlowsOnlyItself(t *testing.T) {
	// One phone in a tunnel must not hold up a conversation of a thousand, nor cost the gateway its memory; and when it
	// is out of the tunnel it has missed nothing.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "sender", "reader", "sleeper")
		c := w.conversation(t, users...)
		sender, reader := w.online(t, users[0], version), w.online(t, users[1], version)
		// The one owes acknowledgements, the other's socket is full.
		silent, stuck := w.rawConnect(t, users[2], version), w.rawConnect(t, users[2], version)
		silent.subscribe(t, filter{eventsTopic(c), 1})
		if err := stuck.conn.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
			t.Fatal(err)
		}
		stuck.subscribe(t, filter{eventsTopic(c), 0})
		const n = 300
		message := map[string]any{"parts": []any{map[string]any{"mimeType": "text/plain", "body": strings.Repeat("x", 2<<10)}}}
		var slowest time.Duration
		for i := range int64(n) {
			began := time.Now()
			if _, err := sender.trySay(t.Context(), c, message); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			reader.hearUpTo(t, c, i+2, i+2)
			slowest = max(slowest, time.Since(began))
		}
		if slowest > patience/2 { // a socket that takes nothing is given up after as long as patience
			t.Errorf("while others did not read, a message took %v to arrive", slowest)
		}
		for next := int64(2); next <= n+1; next++ {
			ev, p := silent.event(t)
			if ev.Seq != next {
				t.Fatalf("event %d came where %d was due", ev.Seq, next)
			}
			silent.write(t, ackPacket(typePuback, p.id))
		}
		silent.ping(t)
		_ = stuck.conn.(*net.TCPConn).SetReadBuffer(1 << 20) // a narrow window would take its time
		for next := int64(2); next <= n+1; next++ {
			if ev, _ := stuck.event(t); ev.Seq != next {
				t.Fatalf("event %d came where %d was due", ev.Seq, next)
			}
		}
	})
}

func TestReaderThatPausesLosesNothing(t *testing.T) {
	// A phone in a tunnel takes nothing for a while; its connection survives that, and what waits for it is complete. Only
	// its keep alive, or a pause that nobody would wait for, ends it.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "sender", "reader")
		c := w.conversation(t, users...)
		readers := make([]*raw, 2)
		for qos := range readers {
			readers[qos] = w.rawConnect(t, users[1], 5)
			if err := readers[qos].conn.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
				t.Fatal(err)
			}
			readers[qos].subscribe(t, filter{eventsTopic(c), byte(qos)})
		}
		// More than all buffers between here and there take.
		const n = 400
		payload := mustJSON(t, map[string]any{"parts": []any{map[string]any{"mimeType": "text/plain", "body": strings.Repeat("x", 16<<10)}}})
		sender := w.rawConnect(t, users[0], 5)
		for id := uint16(1); id <= n; id++ {
			sender.write(t, sender.publishPacket(messagesTopic(c), payload, 1, id))
			if id%40 == 0 {
				for sender.expect(t, typePuback).id != id {
				}
			}
		}
		<-time.After(12 * time.Second) // the pause is what is tested
		for qos, r := range readers {
			_ = r.conn.(*net.TCPConn).SetReadBuffer(1 << 20) // a narrow window would take its time
			for next := int64(2); next <= n+1; next++ {
				p, err := r.tryRead()
				if err != nil {
					t.Errorf("QoS %d: the connection ended before event %d: %v", qos, next, err)
					break
				}
				var ev event
				if err := json.Unmarshal(p.payload, &ev); err != nil || ev.Seq != next {
					t.Fatalf("QoS %d: event %d came where %d was due", qos, ev.Seq, next)
				}
				if qos == 1 {
					r.write(t, ackPacket(typePuback, p.id))
				}
			}
		}
	})
}

func TestMembershipDecidesWhoHears(t *testing.T) {
	// Who is added hears everything from the event that says so; who is removed hears that as the last.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob", "carol")
		c := w.conversation(t, users[0], users[2])
		alice, bob, carol := w.online(t, users[0], version), w.online(t, users[1], version), w.online(t, users[2], version)
		const rounds = 8
		var both errgroup.Group
		both.Go(func() error { // talks all the while
			for n := range rounds * 6 {
				if _, err := carol.trySay(t.Context(), c, text(fmt.Sprint(n))); err != nil {
					return err
				}
			}
			return nil
		})
		both.Go(func() error {
			for range rounds {
				for _, command := range []string{"addParticipants", "removeParticipants"} {
					r, err := alice.tryCommand(t.Context(), command, map[string]any{"uuid": c, "participants": refs(users[1])})
					if err != nil || r.Error != nil {
						return fmt.Errorf("%s: %+v %w", command, r.Error, err)
					}
				}
			}
			return nil
		})
		if err := both.Wait(); err != nil {
			t.Fatal(err)
		}
		log := w.log(t, c)
		alice.hearUpTo(t, c, 1+1, int64(len(log)))
		member := false
		heard := 0
		for _, ev := range log {
			added := ev.Action == "addParticipants"
			removed := ev.Action == "removeParticipants"
			member = member || added
			if member {
				got := bob.hear(t, c)
				if got.Seq != ev.Seq {
					t.Fatalf("bob hears %s where event %d was due", got.raw, ev.Seq)
				}
				heard++
			}
			member = member && !removed
		}
		next := w.conversation(t, users[1])
		bob.hear(t, next)
		if rest := bob.events.rest(); len(rest) > 0 {
			t.Errorf("after %d events bob hears %s", heard, rest[0].payload)
		}
		for range rounds {
			bob.notice(t, "conversationAdded")
			bob.notice(t, "conversationRemoved")
		}
	})
}

func TestNoLocalLeavesOutOnlyTheSendingDevice(t *testing.T) {
	// A client that shows its own message at once does not want it again; the user's other devices do.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		r, other := w.rawConnect(t, users[0], 5), w.rawConnect(t, users[0], 5)
		r.subscribe(t, filter{"conversations/+/events", 1 | noLocal})
		other.subscribe(t, filter{"conversations/+/events", 1 | noLocal})
		r.write(t, r.publishPacket(messagesTopic(c), mustJSON(t, text("mine")), 1, 9))
		if p := r.expect(t, typePuback); p.reason != 0 {
			t.Fatalf("PUBACK 0x%02x", p.reason)
		}
		w.as(t, users[1]).ok(t, "POST", "/v1/conversations/"+c+"/messages", text("bob's"))
		w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+c+"/messages", text("mine, over HTTP"))
		for who, want := range map[*raw][]int64{r: {3, 4}, other: {2, 3, 4}} {
			for _, seq := range want {
				ev, p := who.event(t)
				if ev.Seq != seq {
					t.Errorf("event %d came where %d was due", ev.Seq, seq)
				}
				who.write(t, ackPacket(typePuback, p.id))
			}
			who.ping(t)
		}
	})
}

func TestLiveSessionStartsWithTheNextEvent(t *testing.T) {
	// A live-only session asks for the past by retransmitEvents and must get it nowhere else, or it would be there twice.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		alice := w.online(t, users[0], version)
		for range 5 {
			alice.say(t, c, text("the past"))
		}
		bob := w.online(t, users[1], version)
		alice.say(t, c, text("the present"))
		if ev := bob.hear(t, c); ev.Seq != 7 {
			t.Errorf("the first event is %s", ev.raw)
		}
		bob.cut()
		alice.say(t, c, text("missed"))
		again := w.online(t, users[1], version, named(bob.id))
		if again.hello.present {
			t.Error("Session Present for a clean session")
		}
		alice.say(t, c, text("the present"))
		if ev := again.hear(t, c); ev.Seq != 9 {
			t.Errorf("the first event is %s", ev.raw)
		}
		var page struct{ Events []event }
		again.command(t, "retransmitEvents", map[string]any{"conversation": c, "from": 8, "to": 8}).into(t, &page)
		if len(page.Events) != 1 || page.Events[0].Message.Text != "missed" {
			t.Errorf("retransmitted: %+v", page.Events)
		}
	})
}

func TestSubscriptionIdentifiersComeWithDeliveries(t *testing.T) {
	// Libraries route by them; one that is missing is a message that nobody handles.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice")
		c := w.conversation(t, users...)
		r := w.rawConnect(t, users[0], 5)
		body := append([]byte{0, 1, 2, 0x0b, 17}, append(str(nil, "conversations/+/events"), 1)...)
		r.write(t, frame(typeSubscribe<<4|2, body))
		if p := r.expect(t, typeSuback); p.codes[0] != 1 {
			t.Fatalf("SUBACK % x", p.codes)
		}
		r.write(t, r.publishPacket(messagesTopic(c), mustJSON(t, text("hi")), 0, 0))
		if p := r.expect(t, typePublish); p.props.numbers[0x0b] != 17 {
			t.Errorf("the delivery has identifier %d", p.props.numbers[0x0b])
		}
	})
}

func TestOversizeEventIsLeftOutForTheClientThatCannotTakeIt(t *testing.T) {
	// MQTT 5 (3.1.2.11.4): a packet that a client does not take is dropped as if it had been delivered, and the rest goes on.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "small")
		c := w.conversation(t, users...)
		r := w.rawConnect(t, users[1], 5, func(d *dialing) { d.largest = 2048 })
		r.subscribe(t, filter{eventsTopic(c), 1})
		alice := w.connect(t, users[0], 5)
		for _, s := range []string{"one", strings.Repeat("x", 4000), "three"} {
			alice.say(t, c, text(s))
		}
		for _, want := range []string{"one", "three"} {
			ev, p := r.event(t)
			if ev.Message == nil || ev.Message.Text != want {
				t.Errorf("got %s, want %s", p.payload, want)
			}
			r.write(t, ackPacket(typePuback, p.id))
		}
		r.ping(t)
	})
}
