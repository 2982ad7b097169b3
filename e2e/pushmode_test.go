package e2e_test

import (
	"fmt"
	"sync"
	"testing"
)

// pushing asks for the push mode.
var pushing = tagged("sync", "push")

// awaitDelivered waits until the store knows that events up to a number have reached the user.
func (w *world) awaitDelivered(tb testing.TB, conversation string, u user, seq int64) {
	tb.Helper()
	eventually(tb, "delivery", func() error {
		var got struct {
			Conversation struct {
				Participants []struct{ UserID, LastDelivered int64 }
			}
		}
		w.service.ok(tb, "GET", "/v1/conversations/"+conversation, nil).into(tb, &got)
		for _, p := range got.Conversation.Participants {
			if p.UserID == u.ID && p.LastDelivered == seq {
				return nil
			}
		}
		return fmt.Errorf("%+v, want %d for %d", got.Conversation.Participants, seq, u.ID)
	})
}

// quiet checks that nothing of the conversation is on its way to the device: the next event is the one sent now.
func (d *device) quiet(tb testing.TB, by api, conversation string) int64 {
	tb.Helper()
	next := d.gateway.say(tb, by, conversation)
	if ev := d.hear(tb, conversation); ev.Seq != next {
		tb.Fatalf("%s: event %d came where only %d was due", d.user.Name, ev.Seq, next)
	}
	return next
}

// say posts a message over HTTP and gives its number.
func (g *gateway) say(tb testing.TB, by api, conversation string) int64 {
	tb.Helper()
	var made struct{ Message message }
	by.ok(tb, "POST", "/v1/conversations/"+conversation+"/messages", text("one more")).into(tb, &made)
	return made.Message.Seq
}

func TestPushModeSendsTheNewestMissedMessages(t *testing.T) {
	// A client without a store of its own wants to show the end of each conversation when it comes, and not all of it. What
	// it is promised are 20 messages, and no hole behind the first.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice := w.as(t, users[0])
		long, short, exact := w.conversation(t, users...), w.conversation(t, users...), w.conversation(t, users...)
		w.sayVia(t, alice, long, 30) // 31
		var last struct{ Message message }
		alice.ok(t, "POST", "/v1/conversations/"+long+"/messages", text("removed soon")).into(t, &last) // 32
		path := "/v1/conversations/" + long + "/messages/" + last.Message.UUID
		alice.ok(t, "PATCH", path, text("edited before")) // 33
		alice.ok(t, "DELETE", path, nil)                  // 34
		w.sayVia(t, alice, long, 1)                       // 35
		w.sayVia(t, alice, short, 3)                      // 4
		w.sayVia(t, alice, exact, 20)                     // 21

		pulls := w.connect(t, users[1], version)
		pulls.subscribe(t, 1, allEvents)
		pulls.quiet(t, alice, short) // 5
		w.awaitDelivered(t, short, users[1], 5)
		pulls.leave()
		w.sayVia(t, alice, short, 2) // 7

		d := w.connect(t, users[1], version, pushing)
		d.subscribe(t, 1, allEvents)
		// The 20 newest that are left are 35 and 13 to 31.
		d.hearUpTo(t, long, 13, 35)
		d.hearUpTo(t, short, 6, 7)
		d.hearUpTo(t, exact, 1, 21) // 20 messages are not too many, so there is no hole at all
		d.quiet(t, alice, long)
		w.awaitDelivered(t, long, users[1], 36)
		w.awaitDelivered(t, short, users[1], 7)
		w.awaitDelivered(t, exact, users[1], 21)
		d.heardAll(t)
		d.unsubscribe(t, allEvents)
		d.subscribe(t, 1, allEvents)
		last36 := d.quiet(t, alice, long)
		w.awaitDelivered(t, long, users[1], last36)
		d.leave()

		// What one device has got, another one has not missed.
		other := w.connect(t, users[1], otherVersion(version), pushing)
		other.subscribe(t, 1, allEvents)
		other.quiet(t, alice, long)
		other.quiet(t, alice, short)
		other.quiet(t, alice, exact)
	})
}

func TestPushModeCoversWhatIsSubscribedTo(t *testing.T) {
	// Subscribing in steps must neither lose nor repeat anything.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice := w.as(t, users[0])
		var list []string
		for range 3 {
			c := w.conversation(t, users...)
			w.sayVia(t, alice, c, 2)
			list = append(list, c)
		}
		d := w.connect(t, users[1], version, pushing)
		d.subscribe(t, 1, users[1].inbox())
		d.subscribe(t, 0, eventsTopic(list[0]))
		d.hearUpTo(t, list[0], 1, 3)
		d.subscribe(t, 1, eventsTopic(list[1]), allEvents)
		d.hearUpTo(t, list[1], 1, 3)
		d.hearUpTo(t, list[2], 1, 3)
		d.subscribe(t, 1, eventsTopic(list[2]))
		for _, c := range list {
			d.quiet(t, alice, c)
		}
		// What it joins later is live.
		c := w.conversation(t, users...)
		d.hearUpTo(t, c, 1, 1)
		d.quiet(t, alice, c)
		d.heardAll(t)
	})
}

func TestPushModeGoesLiveWithoutAGap(t *testing.T) {
	// Clients come while others talk. What is said at that moment must come once, and in its place.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		const rounds, talkers = 12, 3
		users := w.users(t, "alice", "bob")
		alice := w.as(t, users[0])
		c := w.conversation(t, users...)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range talkers {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := alice.try(t.Context(), "POST", "/v1/conversations/"+c+"/messages", text("and on")); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		defer wg.Wait()
		defer close(stop)
		for round := range rounds {
			d := w.connect(t, users[1], version, pushing, named("phone"))
			d.subscribe(t, 1, allEvents)
			first := d.hear(t, c).Seq
			d.hearUpTo(t, c, first+1, first+40)
			if round%2 == 0 {
				d.cut()
			} else {
				d.leave()
			}
		}
	})
}

func TestPushModeShowsNobodyWhatTheyMayNotSee(t *testing.T) {
	// A replay must not be a way around leaving, a lost permission or an uber conversation.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice := w.as(t, users[0])
		bob := []map[string]any{users[1].ref()}
		members := func(method, conversation string, list []map[string]any) {
			t.Helper()
			alice.ok(t, method, "/v1/conversations/"+conversation+"/participants", map[string]any{"participants": list})
		}
		uber := w.conversationWith(t, map[string]any{"uber": true}, users...)
		w.sayVia(t, alice, uber, 2)  // 3
		members("DELETE", uber, bob) // 4
		w.sayVia(t, alice, uber, 2)  // 6
		members("POST", uber, bob)   // 7
		w.sayVia(t, alice, uber, 2)  // 9
		left := w.conversation(t, users...)
		w.sayVia(t, alice, left, 2)
		members("DELETE", left, bob)
		blind := w.conversation(t, users...)
		w.sayVia(t, alice, blind, 2)
		no := users[1].ref()
		no["permissions"] = map[string]any{"canRead": false}
		members("PATCH", blind, []map[string]any{no})
		removed := w.conversation(t, users...)
		w.sayVia(t, alice, removed, 2)
		alice.ok(t, "DELETE", "/v1/conversations/"+removed, nil)
		last := w.conversation(t, users...)

		d := w.connect(t, users[1], version, pushing)
		d.subscribe(t, 1, allEvents)
		d.hearUpTo(t, uber, 1, 4)
		d.hearUpTo(t, uber, 7, 9)
		d.hearUpTo(t, last, 1, 1)
		d.quiet(t, alice, last)
		d.heardAll(t)
	})
}

func TestDurableSessionInPushModeJumps(t *testing.T) {
	// A phone that comes back from a month in a drawer would rather show the end than fetch it all; in the next connection it
	// may ask for everything again, from where it is then.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice := w.as(t, users[0])
		far, near := w.conversation(t, users...), w.conversation(t, users...)
		stay := func(d *dialing) { d.durable = true }
		d := w.connect(t, users[1], version, named("phone"), stay, pushing)
		d.subscribe(t, 1, allEvents)
		d.quiet(t, alice, far) // 2: its position was the end
		w.awaitDelivered(t, far, users[1], 2)
		d.leave()
		w.sayVia(t, alice, far, 50)  // 52
		w.sayVia(t, alice, near, 20) // 21

		d = w.connect(t, users[1], version, named("phone"), stay, pushing)
		if !d.hello.present {
			t.Fatal("the session is gone")
		}
		d.hearUpTo(t, far, 33, 52)
		d.hearUpTo(t, near, 2, 21)
		d.quiet(t, alice, far) // 53
		d.quiet(t, alice, near)
		w.awaitDelivered(t, far, users[1], 53)
		w.awaitDelivered(t, near, users[1], 22)
		d.leave()
		w.sayVia(t, alice, far, 30) // 83

		d = w.connect(t, users[1], version, named("phone"), stay)
		d.hearUpTo(t, far, 54, 83)
		d.quiet(t, alice, far)
		d.heardAll(t)
	})
}

func TestSyncIsPushOrPull(t *testing.T) {
	// Who misspells it would wait for messages that do not come.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		alice := w.user(t, "alice")
		for _, value := range []string{"Push", "both", "1"} {
			hello := w.refuse(t, alice, version, tagged("sync", value))
			if version == 5 && (hello.reason != 0x99 || hello.text != "invalid-request") {
				t.Errorf("%s: CONNACK 0x%02x %s", value, hello.reason, hello.text)
			}
		}
		w.connect(t, alice, version, tagged("sync", "pull"))
		service := login("service/Billing@"+w.account, w.service.token)
		w.refuse(t, alice, version, service, pushing)
		w.connect(t, alice, version, service, tagged("sync", "pull"))
	})
}
