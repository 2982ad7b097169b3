package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

func TestASecondLoginOfADeviceTakesOver(t *testing.T) {
	// After a broken connection the device comes back before the old one is known to be dead.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		old, stranger := w.subscriber(2, device("phone"), idle), w.subscriber(1, device("phone"))
		laptop := w.subscriber(2, device("laptop"))
		old.subscribe(old.inbox(), domain.SubscribeOptions{})
		w.do(1, message(c, "for the old one", ""))
		fresh := w.subscriber(2, device("phone"))
		w.settle()
		if got := old.goodbyes(); !slices.Equal(got, []domain.Farewell{domain.TakenOver()}) {
			t.Errorf("the old one was told %v", got)
		}
		w.do(1, message(c, "for the new one", ""))
		old.session.Leave(false)
		w.do(1, message(c, "for the new one", ""))
		fresh.wantSeqs(c, span(3, 4))
		laptop.wantSeqs(c, span(2, 4))
		if len(stranger.goodbyes())+len(laptop.goodbyes())+len(fresh.goodbyes()) > 0 {
			t.Error("somebody else was ended")
		}
		if n := w.gauge("parley_sessions"); n != 3 {
			t.Errorf("%v sessions are counted", n)
		}
		if len(old.direct) > 0 {
			t.Errorf("a take-over by client id is no conflict of tags: %v", old.direct)
		}
	})
}

func TestAServicesSecondLoginTakesOver(t *testing.T) {
	// MQTT 5, section 3.1.4: one connection per client id, for backends as well.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		old, other := w.attach(service(1), device("a"), idle), w.attach(service(1), device("b"))
		foreign := w.attach(service(2), device("a"))
		fresh := w.attach(service(1), device("a"))
		w.settle()
		for _, cl := range []*client{old, other, fresh} {
			cl.subscribe(allEvents, domain.SubscribeOptions{})
		}
		w.do(1, message(c, "hello", ""))
		if got := old.goodbyes(); !slices.Equal(got, []domain.Farewell{domain.TakenOver()}) {
			t.Errorf("the old one was told %v", got)
		}
		if len(other.goodbyes())+len(foreign.goodbyes())+len(fresh.goodbyes()) > 0 {
			t.Error("somebody else was ended")
		}
		if old.woken > 0 {
			t.Error("the old one is still served")
		}
		fresh.wantSeqs(c, span(2, 2))
		other.wantSeqs(c, span(2, 2))
	})
}

func TestATagHasOneSession(t *testing.T) {
	// Protocol section 2: the older one learns of it in its inbox, and is then ended.
	for _, reads := range []bool{true, false} {
		t.Run(fmt.Sprint("inbox read ", reads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				options := []option{device("phone"), tag("mobile")}
				if !reads {
					options = append(options, idle)
				}
				old := w.connect(1, options...)
				old.subscribe(old.inbox(), domain.SubscribeOptions{QoS: 1})
				desktop, plain := w.connect(1, device("desk"), tag("desktop")), w.connect(1, device("plain"))
				bob := w.connect(2, device("bob"), tag("mobile"))
				begin := time.Now()
				w.connect(1, device("tablet"), tag("mobile"))
				w.settle()
				if !reads {
					if len(old.goodbyes()) > 0 {
						t.Error("ended before it could read why")
					}
					w.pass(2 * time.Second)
				}
				got := old.goodbyes()
				if len(got) == 0 || got[0] != domain.TakenOver() {
					t.Errorf("the old one was told %v", got)
				}
				if reads {
					if n := old.notices(old.inbox()); len(n) != 1 || n[0]["type"] != "conflict" || n[0]["tag"] != "mobile" {
						t.Errorf("its inbox has %v", n)
					}
					if !time.Now().Equal(begin) {
						t.Error("it was not ended at once")
					}
				}
				if len(desktop.goodbyes())+len(plain.goodbyes())+len(bob.goodbyes()) > 0 {
					t.Error("somebody else was ended")
				}
				w.pass(2 * time.Second)
			})
		})
	}
}

func TestATagsOldSessionIsEndedAtOnceIfItDoesNotListen(t *testing.T) {
	// Nobody to be told: nothing to wait for.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		old := w.connect(1, device("phone"), tag("mobile"))
		w.connect(1, device("tablet"), tag("mobile"))
		if got := old.goodbyes(); !slices.Equal(got, []domain.Farewell{domain.TakenOver()}) {
			t.Errorf("the old one was told %v", got)
		}
	})
}

func TestAReconnectGivesWay(t *testing.T) {
	// Two devices that reconnect by themselves would throw each other out for ever.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.connect(1, device("phone"), tag("mobile"), idle)
		w.user(1)
		if _, err := w.dial(w.user(1), device("tablet"), tag("mobile"), reconnect); domain.CodeOf(err) != domain.SessionConflict {
			t.Errorf("the reconnect ended as %v", err)
		}
		if len(first.goodbyes()) > 0 {
			t.Error("the live session was ended")
		}
		if _, err := w.dial(w.user(1), device("tablet"), tag("desktop"), reconnect); err != nil {
			t.Errorf("another tag: %v", err)
		}
		first.session.Leave(true)
		if _, err := w.dial(w.user(1), device("watch"), tag("mobile"), reconnect); err != nil {
			t.Errorf("after the live session had left: %v", err)
		}
		if n := w.gauge("parley_sessions"); n != 2 {
			t.Errorf("%v sessions are counted", n)
		}
	})
}

func TestATokenEndsItsSession(t *testing.T) {
	// A login is valid as long as its token, not as long as its connection.
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(time.Hour)
		w := newWorld(t, func(o *gateway.Options) { o.Authenticator.(*door).expires = end })
		stays, left := w.connect(1), w.connect(2, idle)
		left.session.Leave(true)
		w.pass(time.Hour - time.Millisecond)
		if len(stays.goodbyes()) > 0 {
			t.Error("ended too early")
		}
		w.pass(time.Millisecond)
		if got := stays.goodbyes(); !slices.Equal(got, []domain.Farewell{domain.TokenExpired()}) {
			t.Errorf("told %v", got)
		}
		if len(left.goodbyes()) > 0 {
			t.Error("a session that had left was ended")
		}
	})
}

func TestAUsersSessionsCanBeEnded(t *testing.T) {
	// A deleted user must not go on reading.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		phone, laptop, bob := w.connect(1, device("phone")), w.connect(1, device("laptop")), w.connect(2)
		w.g.EndSessions(w.user(1), false, domain.NotWelcome())
		w.g.EndSessions(domain.Principal{User: 99}, false, domain.NotWelcome())
		for _, cl := range []*client{phone, laptop} {
			if got := cl.goodbyes(); !slices.Equal(got, []domain.Farewell{domain.NotWelcome()}) {
				t.Errorf("told %v", got)
			}
		}
		if len(bob.goodbyes()) > 0 {
			t.Error("somebody else was ended")
		}
	})
}

func TestALoginsSessionsCanBeEnded(t *testing.T) {
	// Who logs out on one computer has logged out on that one.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) {
			o.Authenticator.(*door).login = func(h domain.Hello) [16]byte { return [16]byte{h.Device[0]} }
		})
		tab, second, phone, bob := w.connect(1, device("a1")), w.connect(1, device("a2")), w.connect(1, device("b")), w.connect(2, device("a"))
		w.g.EndSessions(domain.Principal{User: 1, Login: [16]byte{'a'}}, false, domain.NotWelcome())
		for _, cl := range []*client{tab, second} {
			if got := cl.goodbyes(); !slices.Equal(got, []domain.Farewell{domain.NotWelcome()}) {
				t.Errorf("told %v", got)
			}
		}
		if len(phone.goodbyes())+len(bob.goodbyes()) > 0 {
			t.Error("somebody else was ended")
		}
	})
}

func TestALoginThatIsEndedWhileItConnectsStaysOut(t *testing.T) {
	// Between the proof of who it is and the session there is a moment in which nobody would find it.
	synctest.Test(t, func(t *testing.T) {
		var d *door
		w := newWorld(t, func(o *gateway.Options) { d = o.Authenticator.(*door) })
		alice := w.user(1)
		d.login = func(domain.Hello) [16]byte {
			d.login = nil
			delete(d.store.users, 1) // of what is asked next, this one knows already
			w.g.EndSessions(alice, false, domain.NotWelcome())
			return [16]byte{}
		}
		if _, err := w.dial(alice); domain.CodeOf(err) != domain.NotAuthenticated {
			t.Errorf("let in with %v", err)
		}
		if n := w.gauge("parley_sessions"); n != 0 {
			t.Errorf("%v sessions are left", n)
		}
		w.connect(2)
	})
}

func TestSessionsAreLimited(t *testing.T) {
	// The operator's bound holds for all together, and a place becomes free when somebody leaves.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.MaxSessions = 2 })
		first := w.connect(1, idle)
		w.attach(service(1), idle)
		if _, err := w.dial(w.user(2)); domain.CodeOf(err) != domain.RateLimited {
			t.Errorf("the third ended as %v", err)
		}
		first.session.Leave(true)
		if _, err := w.dial(w.user(2)); err != nil {
			t.Errorf("after one had left: %v", err)
		}
	})
}

func TestAFailedLoginLeavesNothing(t *testing.T) {
	// Guessing passwords must not cost memory, nor disturb those who are in.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stays := w.connect(1)
		if _, err := w.dial(domain.Principal{User: 5, Username: "mallory@chat.acme"}); domain.CodeOf(err) != domain.NotAuthenticated {
			t.Errorf("ended as %v", err)
		}
		if len(stays.goodbyes()) > 0 || w.gauge("parley_sessions") != 1 {
			t.Errorf("%v sessions, farewells %v", w.gauge("parley_sessions"), stays.goodbyes())
		}
	})
}

func TestNothingComesAfterLeaving(t *testing.T) {
	// The connection is gone; what is pulled late would be acknowledged by nobody.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		bob := w.subscriber(2, idle)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		w.do(1, message(c, "waiting", ""))
		w.do(1, remove(c, 2))
		bob.session.Leave(true)
		bob.session.Leave(false)
		w.do(1, add(c, 2))
		w.do(1, message(c, "late", ""))
		if n, err := bob.pull(64, 64); n != 0 || err != nil {
			t.Errorf("pulled %d, %v", n, err)
		}
		if err := bob.session.Subscribe(t.Context(), []domain.Subscription{{Filter: allEvents}})[0]; domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("a late subscription ended as %v", err)
		}
		if n := w.gauge("parley_sessions"); n != 0 {
			t.Errorf("%v sessions are counted", n)
		}
	})
}

func TestAPublishOutlivesItsSession(t *testing.T) {
	// The client said goodbye right after its publish: that was taken, and its acknowledgement means committed.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2)
		hold := w.store.holdCommits()
		sent := alice.send(c, "goodbye")
		w.settle()
		alice.hangUp()
		w.settle()
		hold.open()
		w.settle()
		if sent.code() != "" {
			t.Errorf("ended as %q", sent.code())
		}
		bob.wantSeqs(c, span(2, 2))
	})
}

func TestSubscriptionsAreChecked(t *testing.T) {
	// What a filter may cover is decided here, whatever the transport lets through.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		mine, others := w.converse(1, 2), w.converse(2, 3)
		alice, billing := w.connect(1), w.attach(service(1))
		events := func(c domain.ConversationID) string { return "conversations/" + c.String() + "/events" }
		for _, try := range []struct {
			who    *client
			filter string
			want   domain.Code
		}{
			{alice, allEvents, ""},
			{alice, "conversations/+/signals", ""},
			{alice, events(mine), ""},
			{alice, events(others), domain.AccessDenied},
			{alice, events(domain.ConversationID{1}), domain.ConversationNotFound},
			{alice, alice.inbox(), ""},
			{alice, alice.replies() + "/#", ""},
			{alice, "users/u2@chat.acme/inbox", domain.AccessDenied},
			{alice, "users/u2@chat.acme/replies/#", domain.AccessDenied},
			{alice, "users/+/inbox", domain.AccessDenied},
			{alice, "$share/g/" + allEvents, domain.AccessDenied},
			{alice, "#", domain.AccessDenied},
			{alice, "conversations/#", domain.AccessDenied},
			{alice, "$SYS/#", domain.AccessDenied},
			{alice, "", domain.AccessDenied},
			{billing, allEvents, ""},
			{billing, events(others), ""},
			{billing, "users/u2@chat.acme/inbox", domain.AccessDenied},
		} {
			err := try.who.session.Subscribe(t.Context(), []domain.Subscription{{Filter: try.filter}})[0]
			if domain.CodeOf(err) != try.want {
				t.Errorf("%q ended as %v, want %q", try.filter, err, try.want)
			}
		}
	})
}

func TestOneRefusalDoesNotSpoilTheOthers(t *testing.T) {
	// A SUBACK has a code per filter.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		bob := w.connect(2)
		errs := bob.session.Subscribe(t.Context(), []domain.Subscription{{Filter: "#"}, {Filter: allEvents}, {Filter: "x"}})
		if len(errs) != 3 || errs[0] == nil || errs[1] != nil || errs[2] == nil {
			t.Errorf("refusals %v", errs)
		}
		w.do(1, message(c, "hello", ""))
		bob.wantSeqs(c, span(2, 2))
	})
}

func TestSubscriptionsAreLimited(t *testing.T) {
	// Each takes memory; replacing one does not.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.MaxSubscriptions = 2 })
		alice := w.connect(1)
		for i, want := range []domain.Code{"", "", domain.RateLimited, ""} {
			filter := []string{alice.inbox(), alice.replies(), allEvents, alice.inbox()}[i]
			err := alice.session.Subscribe(t.Context(), []domain.Subscription{{Filter: filter}})[0]
			if domain.CodeOf(err) != want {
				t.Errorf("%s ended as %v", filter, err)
			}
		}
	})
}

func TestRatesAreLimitedPerUser(t *testing.T) {
	// All devices of a user together, messages and commands apart, and others are not affected.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.MessageRate, o.CommandRate = 10, 5 })
		c := w.converse(3, 1, 2)
		phone, laptop, bob := w.connect(1, device("phone")), w.connect(1, device("laptop")), w.connect(2)
		count := func(n int, try func(i int) *answer) (passed int) {
			for i := range n {
				a := try(i)
				w.settle()
				switch a.code() {
				case "":
					passed++
				case domain.RateLimited:
				default:
					t.Fatalf("ended as %v", a.err)
				}
			}
			return passed
		}
		both := func(i int) *answer { return []*client{phone, laptop}[i%2].send(c, "hello") }
		ask := func(i int) *answer {
			return []*client{phone, laptop}[i%2].submit(domain.Request{Command: &domain.GetMe{}, Name: "getMe"})
		}
		if n := count(50, both); n != 20 {
			t.Errorf("%d messages passed at once, want 20", n)
		}
		if n := count(50, ask); n != 10 {
			t.Errorf("%d commands passed at once, want 10", n)
		}
		if _, err := w.g.Do(t.Context(), w.user(1), &domain.GetMe{}); domain.CodeOf(err) != domain.RateLimited {
			t.Errorf("what comes over HTTP ended as %v", err)
		}
		if n := count(15, func(int) *answer { return bob.send(c, "hello") }); n != 15 {
			t.Errorf("%d of another user's messages passed", n)
		}
		w.pass(time.Second)
		if n := count(50, both); n != 10 {
			t.Errorf("%d messages passed a second later, want 10", n)
		}
	})
}

func TestReconnectingDoesNotRenewTheAllowance(t *testing.T) {
	// Otherwise the limit is one per connection, and connections are cheap.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.CommandRate = 5 })
		passed := 0
		for range 10 {
			alice := w.connect(1, idle)
			for range 10 {
				a := alice.submit(domain.Request{Command: &domain.GetMe{}, Name: "getMe"})
				w.settle()
				if a.code() == "" {
					passed++
				}
			}
			alice.session.Leave(true)
		}
		if passed > 10 {
			t.Errorf("%d commands passed at once, want 10", passed)
		}
	})
}

func TestConnectingWhileEventsFlow(t *testing.T) {
	// A session gets events from some number on and then every one, however the connect falls among the commits.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice := w.connect(1)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					<-alice.send(c, "hello").done
				}
			}
		}()
		var clients []*client
		for i := range 60 {
			cl := w.connect(2, device(fmt.Sprint("d", i)), window(1+i%5, 3))
			cl.subscribe(allEvents, domain.SubscribeOptions{QoS: byte(i % 2)})
			clients = append(clients, cl)
			if i%3 == 2 {
				clients[i-1].hangUp()
				w.connect(2, device(fmt.Sprint("d", i-2)), idle) // takes over
			}
		}
		close(stop)
		<-stopped
		w.settle()
		last := w.store.last(c)
		for i, cl := range clients {
			got := cl.seqs(c)
			if len(got) > 0 && !slices.Equal(got, span(got[0], got[len(got)-1])) {
				t.Errorf("client %d got %v", i, got)
			}
			if stays := i%3 == 2; stays && len(got) > 0 && got[len(got)-1] != last {
				t.Errorf("client %d got up to %d of %d", i, got[len(got)-1], last)
			}
		}
	})
}

func TestASubscribeThatCannotBeCheckedIsUnavailable(t *testing.T) {
	// Neither granted nor denied: the client may try again.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		alice := w.connect(1)
		w.store.down()
		err := alice.session.Subscribe(context.WithoutCancel(t.Context()), []domain.Subscription{
			{Filter: "conversations/" + c.String() + "/events"},
		})[0]
		if domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("ended as %v", err)
		}
		w.store.heal()
	})
}
