package e2e_test

import (
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"
)

func TestDeviceThatReturnsGetsEachEventOnceAndInOrder(t *testing.T) {
	// A phone that was in a drawer for a week while the gateway was updated twice, and crashed once, must show the same
	// history as everybody else, also when it takes one event at a time.
	onBothStores(t, func(t *testing.T, s store) {
		for _, version := range []byte{4, 5} {
			t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
				t.Parallel()
				url := s.empty(t)
				g := start(t, url)
				w := newWorld(t, g)
				users := w.users(t, "alice", "bob")
				const conversations, each = 12, 9
				list := make([]string, conversations)
				for i := range list {
					list[i] = w.conversation(t, users...)
				}
				// say posts to every conversation, whatever gateway there is now.
				say := func(g *gateway) {
					w.gateway = g
					a := w.api(w.service.token)
					var made struct{ AccessToken string }
					a.ok(t, "POST", "/v1/users/"+users[0].Name+"/tokens", map[string]any{}).into(t, &made)
					for range each {
						for _, c := range list {
							w.sayVia(t, g.api(made.AccessToken), c, 1)
						}
					}
				}
				p := g.phone(t, users[1], lasting(version, "phone"))
				p.follow(t, 1, allEvents)
				p.goodbye(t)

				say(g)
				if err := g.stop(); err != nil {
					t.Fatal(err)
				}
				g = start(t, url)
				say(g)
				if err := g.stop(); err != nil {
					t.Fatal(err)
				}
				killed := spawn(t, url)
				say(killed.gateway)
				killed.signal(t, syscall.SIGKILL)
				killed.exit(t)
				g = start(t, url)

				// MQTT 3.1.1 cannot ask for a window of 1; it acknowledges one at a time all the same.
				p = g.phone(t, users[1], lasting(version, "phone", window(1)))
				if !p.Present {
					t.Fatal("the session is gone")
				}
				next := make(map[string]int64)
				for range conversations * each * 3 {
					ev := p.event(t)
					if want := max(next[ev.Conversation], 2); ev.Seq != want {
						t.Fatalf("event %d of %s came where %d was due", ev.Seq, ev.Conversation, want)
					}
					next[ev.Conversation] = ev.Seq + 1
					p.ackAll(t)
				}
				if got := slices.Collect(maps.Values(next)); len(got) != conversations || slices.Max(got) != slices.Min(got) {
					t.Fatalf("next would come %v", next)
				}
				p.settled(t)
				w.gateway = g
				w.service = g.api(w.service.token)
				live := w.connect(t, users[0], 5)
				live.say(t, list[3], text("live"))
				p.want(t, list[3], 3*each+2, 3*each+2)
			})
		}
	})
}

func TestReturningLibraryClientsGetWhatTheyMissed(t *testing.T) {
	// The clients in the field are libraries, with stores and packet ids of their own.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		as := w.as(t, users[0])
		stay := func(d *dialing) { d.durable = true }
		d := w.connect(t, users[1], version, named("phone"), stay)
		if d.hello.present {
			t.Error("a session is present before there was one")
		}
		d.subscribe(t, 1, allEvents)
		last := int64(1)
		for round := range 3 {
			until := w.sayVia(t, as, c, 3)
			d.hearUpTo(t, c, last+1, until)
			d.leave()
			last = w.sayVia(t, as, c, 100)
			d = w.connect(t, users[1], version, named("phone"), stay)
			if !d.hello.present {
				t.Fatalf("round %d: the session is gone", round)
			}
			// The library may have left before it had acknowledged the last one.
			ev := d.hear(t, c)
			if ev.Seq == until {
				ev = d.hear(t, c)
			}
			if ev.Seq != until+1 {
				t.Fatalf("event %d came where %d was due", ev.Seq, until+1)
			}
			d.hearUpTo(t, c, until+2, last)
		}
		if rest := d.events.rest(); len(rest) > 0 {
			t.Errorf("%d events too many", len(rest))
		}
	})
}

func TestLiveTrafficJoinsWhileCatchingUp(t *testing.T) {
	// The seam between the log and what happens now is where messages get lost in other systems, or come twice.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		var list []string
		for range 8 {
			list = append(list, w.conversation(t, users...))
		}
		p := w.phone(t, users[1], lasting(version, "phone"))
		p.follow(t, 1, allEvents)
		p.goodbye(t)
		as := w.as(t, users[0])
		for _, c := range list {
			w.sayVia(t, as, c, 30)
		}
		stop, stopped := make(chan struct{}), make(chan error, 1)
		var said int
		go func() {
			defer close(stopped)
			for {
				for _, c := range list {
					if _, err := as.try(t.Context(), "POST", "/v1/conversations/"+c+"/messages", text("live")); err != nil {
						stopped <- err
						return
					}
				}
				said++
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		// Several times, so that the seam is met at different moments.
		next := make(map[string]int64)
		for _, c := range list {
			next[c] = 2
		}
		take := func(p *phone) {
			ev := p.event(t)
			if ev.Seq != next[ev.Conversation] {
				t.Fatalf("event %d of %s came where %d was due", ev.Seq, ev.Conversation, next[ev.Conversation])
			}
			next[ev.Conversation]++
			p.ackAll(t)
		}
		for range 20 {
			p := w.phone(t, users[1], lasting(version, "phone"))
			for range 40 {
				take(p)
			}
			p.goodbye(t)
		}
		close(stop)
		if err := <-stopped; err != nil {
			t.Fatal(err)
		}
		p = w.phone(t, users[1], lasting(version, "phone"))
		for _, c := range list {
			for next[c] < int64(32+said) {
				take(p)
			}
		}
		p.settled(t)
	})
}

func TestUnacknowledgedEventsComeAgainAndOnlyThose(t *testing.T) {
	// What a phone has shown must not come again, and what it may not have shown must.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		as := w.as(t, users[0])
		p := w.phone(t, users[1], lasting(version, "phone"))
		p.follow(t, 1, allEvents)
		w.sayVia(t, as, c, 10)
		p.want(t, c, 2, 6)
		p.hold(t, c, 7, 11)
		p.settled(t) // the acknowledgements have arrived
		p.Cut()
		p = w.phone(t, users[1], lasting(otherVersion(version), "phone"))
		p.hold(t, c, 7, 11)
		// Acknowledgements in any order count as far as there is no hole.
		if err := p.Ack(p.held[0], p.held[1], p.held[3]); err != nil {
			t.Fatal(err)
		}
		p.goodbye(t)
		p = w.phone(t, users[1], lasting(version, "phone"))
		p.want(t, c, 9, 11)
		p.goodbye(t)
		p = w.phone(t, users[1], lasting(version, "phone"))
		w.sayVia(t, as, c, 1)
		p.want(t, c, 12, 12)
		p.settled(t)
	})
}

func TestQoS0SessionIsDurableToo(t *testing.T) {
	// Without acknowledgements a device has what was written to its socket; what happened while it was away it has not.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		as := w.as(t, users[0])
		p := w.phone(t, users[1], lasting(version, "phone"))
		p.follow(t, 0, allEvents)
		w.sayVia(t, as, c, 3)
		p.hold(t, c, 2, 4)
		p.goodbye(t)
		w.sayVia(t, as, c, 200)
		p = w.phone(t, users[1], lasting(version, "phone"))
		p.hold(t, c, 5, 204)
		p.goodbye(t)
		p = w.phone(t, users[1], lasting(version, "phone"))
		w.sayVia(t, as, c, 1)
		p.hold(t, c, 205, 205)
		p.settled(t)
	})
}

func TestPositionsArePerDevice(t *testing.T) {
	// A tablet that was off must not miss what the phone has read.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		as := w.as(t, users[0])
		devices := []string{"phone", "tablet", "watch"}
		for _, d := range devices {
			p := w.phone(t, users[1], lasting(version, d))
			p.follow(t, 1, allEvents)
			p.goodbye(t)
		}
		w.sayVia(t, as, c, 30)
		for i, d := range devices {
			p := w.phone(t, users[1], lasting(version, d))
			p.want(t, c, 2, int64(2+10*i))
			p.goodbye(t)
		}
		for i, d := range devices {
			p := w.phone(t, users[1], lasting(version, d))
			p.want(t, c, int64(3+10*i), 31)
			p.settled(t)
		}
		// The same client id of another user is another device.
		stranger := w.phone(t, users[0], lasting(version, "phone"))
		if stranger.Present {
			t.Error("alice's phone finds the session of bob's")
		}
	})
}

func TestSubscriptionsAreKept(t *testing.T) {
	// A device that finds its session does not subscribe again, so what it had subscribed to, and how, must be there.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c, other := w.conversation(t, users...), w.conversation(t, users...)
		as := w.as(t, users[0])
		p := w.phone(t, users[1], lasting(version, "phone"))
		p.follow(t, 1, eventsTopic(c), users[1].inbox())
		p.goodbye(t)
		w.sayVia(t, as, other, 2)
		w.sayVia(t, as, c, 2)
		p = w.phone(t, users[1], lasting(otherVersion(version), "phone"))
		p.want(t, c, 2, 3)
		w.conversation(t, users...)
		if got := p.read(t); got.Topic != users[1].inbox() {
			t.Errorf("%+v came where the inbox was due", got)
		}
		// What it subscribes to now begins now.
		p.follow(t, 1, allEvents)
		w.sayVia(t, as, other, 1)
		p.want(t, other, 4, 4)
		p.goodbye(t)
		w.sayVia(t, as, other, 1)
		p = w.phone(t, users[1], lasting(version, "phone"))
		p.want(t, other, 5, 5)
		p.settled(t)
	})
}
