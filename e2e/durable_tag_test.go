package e2e_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/parley-im/parley/configs"
	"github.com/parley-im/parley/e2e/chaos"
)

func TestTagAllowsOneLiveSession(t *testing.T) {
	// An application that wants one phone per user gives its phones a tag. The one that has to go must be told why, and one
	// that only reconnects must not throw out the newer one.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		as := w.as(t, users[0])
		first := w.connect(t, users[1], version, named("first"), tagged("tag", "mobile"), func(d *dialing) { d.durable = true })
		first.subscribe(t, 1, allEvents, users[1].inbox())
		desk := w.connect(t, users[1], version, named("desk"))
		other := w.connect(t, users[1], version, named("other"), tagged("tag", "tablet"))
		second := w.connect(t, users[1], version, named("second"), tagged("tag", "mobile"))
		second.subscribe(t, 1, allEvents)
		if n := first.notice(t, "conflict"); n.Tag != "mobile" {
			t.Errorf("the conflict is about the tag %q", n.Tag)
		}
		if f := first.over(t); version == 5 && f.reason != 0x8e {
			t.Errorf("DISCONNECT 0x%02x", f.reason)
		}
		hello := w.refuse(t, users[1], version, named("first"), tagged("tag", "mobile", "reconnect", "1"))
		want := byte(0x8e)
		if version == 4 {
			want = 5
		}
		if hello.reason != want {
			t.Errorf("a reconnect that meets a live session: CONNACK 0x%02x, want 0x%02x", hello.reason, want)
		}
		last := w.sayVia(t, as, c, 1)
		second.hearUpTo(t, c, last, last)
		for _, d := range []*device{desk, other} {
			d.subscribe(t, 1, allEvents) // a round trip: it lives
		}
		second.leave()
		// Nobody is there any more, so the reconnect is welcome; its session has waited.
		// With MQTT 3.1.1 it takes the gateway a moment to find out.
		eventually(t, "the reconnect", func() (err error) {
			first, err = w.attach(t.Context(), users[1], version, named("first"), tagged("tag", "mobile", "reconnect", "1"),
				func(d *dialing) { d.durable = true })
			return err
		})
		t.Cleanup(first.leave)
		if !first.hello.present {
			t.Error("the session of the older phone is gone")
		}
		first.hearUpTo(t, c, last, last)
	})
}

func TestSessionsPerUserAreLimited(t *testing.T) {
	// A user whose application leaks connections must not use up those of everybody else, and must be told.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t), func(c *configs.Config) { c.Limits.SessionsPerUser = 3 })
		w := newWorld(t, g)
		users := w.users(t, "alice", "bob")
		for _, device := range []string{"a", "b", "c"} {
			w.phone(t, users[0], lasting(5, device)).follow(t, 1, allEvents)
		}
		for version, want := range map[byte]byte{5: 0x97, 4: 3} {
			if got := w.phoneRefused(t, users[0], lasting(version, "d")); got != want {
				t.Errorf("version %d: CONNACK 0x%02x, want 0x%02x", version, got, want)
			}
		}
		if n := g.metric(t, "parley_limits_reached_total", `limit="sessions-per-user"`); n != 2 {
			t.Errorf("the limit is counted %v times, want 2", n)
		}
		p := w.phone(t, users[0], lasting(5, "b")) // takes the place of its predecessor
		if !p.Present {
			t.Error("the session is not present")
		}
		w.phone(t, users[1], lasting(5, "d"))
		eventually(t, "the sessions are counted", func() error {
			if n := g.metric(t, "parley_sessions"); n != 4 {
				return fmt.Errorf("%v sessions, want 4", n)
			}
			return nil
		})
	})
}

func TestDeliveredSignalsAreForConversationsThatAreNotTooLarge(t *testing.T) {
	// With n participants who receive, a message costs n signals to n participants: beyond a size nobody reads them.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t), func(c *configs.Config) { c.Limits.DeliveredSignals = 2 })
		w := newWorld(t, g)
		users := w.users(t, "alice", "bob", "carol")
		small, large := w.conversation(t, users[0], users[1]), w.conversation(t, users...)
		sender := w.phone(t, users[0], chaos.Login{Version: 5, Device: "desk", Clean: true})
		sender.follow(t, 0, "conversations/+/signals")
		p := w.phone(t, users[1], lasting(5, "phone"))
		p.follow(t, 1, allEvents)
		as := w.as(t, users[0])
		// The large one first: its marks are written with those of the small one, or before.
		w.sayVia(t, as, large, 1)
		p.want(t, large, 2, 2)
		w.sayVia(t, as, small, 1)
		p.want(t, small, 2, 2)
		var d struct {
			Type, Conversation string
			Seq                int64
		}
		mustDecode(t, sender.read(t).Payload, &d)
		if d.Type != "delivered" || d.Conversation != small || d.Seq != 2 {
			t.Errorf("the first signal is %+v", d)
		}
		sender.settled(t)
	})
}

func TestDeliveredSignalsComeAlsoWhereNothingHappenedLately(t *testing.T) {
	// The gateway is restarted while a phone is away: when it has caught up, the sender sees that all has arrived.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		g := start(t, url)
		w := newWorld(t, g)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		login := lasting(5, "phone")
		p := w.phone(t, users[1], login)
		p.follow(t, 1, allEvents)
		p.goodbye(t)
		last := w.sayVia(t, w.as(t, users[0]), c, 3)
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
		g = start(t, url)
		sender := g.phone(t, users[0], chaos.Login{Version: 5, Device: "desk", Clean: true})
		sender.follow(t, 0, "conversations/"+c+"/signals")
		p = g.phone(t, users[1], login)
		p.want(t, c, 2, last)
		var d struct {
			Type        string
			Seq, UserID int64
		}
		for d.Seq < last {
			mustDecode(t, sender.read(t).Payload, &d)
			if d.Type != "delivered" || d.UserID != users[1].ID {
				t.Fatalf("told %+v", d)
			}
		}
	})
}

func TestDeliveredSignalsAreCoalescedAndOnlyRise(t *testing.T) {
	// A sender wants to see that a message has arrived, and not to be sent as much as it has sent. A second device that is
	// behind must not make it look as if the messages were not delivered after all.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		as := w.as(t, users[0])
		tablet := w.phone(t, users[1], lasting(version, "tablet"))
		tablet.follow(t, 1, allEvents)
		tablet.goodbye(t)
		sender := w.phone(t, users[0], chaos.Login{Version: version, Device: "desk", Clean: true})
		sender.follow(t, 0, "conversations/"+c+"/signals")
		p := w.phone(t, users[1], lasting(version, "phone"))
		p.follow(t, 1, allEvents)
		last := w.sayVia(t, as, c, 100)
		p.want(t, c, 2, last)
		p.goodbye(t)
		type delivered struct {
			Type        string
			Seq, UserID int64
		}
		n, highest := 0, int64(0)
		next := func() delivered {
			got := sender.read(t)
			var d delivered
			if err := json.Unmarshal(got.Payload, &d); err != nil || d.Type != "delivered" || d.UserID != users[1].ID || got.QoS != 0 {
				t.Fatalf("%+v %s", got, got.Payload)
			}
			n++
			if d.Seq <= highest {
				t.Errorf("the mark goes from %d to %d", highest, d.Seq)
			}
			highest = d.Seq
			return d
		}
		for next().Seq < last {
		}
		if n > 20 {
			t.Errorf("%d signals for 100 messages", n)
		}
		tablet = w.phone(t, users[1], lasting(version, "tablet"))
		tablet.want(t, c, 2, 50)
		tablet.goodbye(t)
		tablet = w.phone(t, users[1], lasting(version, "tablet"))
		last = w.sayVia(t, as, c, 1)
		tablet.want(t, c, 51, last)
		for next().Seq < last {
		}
	})
}
