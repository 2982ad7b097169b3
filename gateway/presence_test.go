package gateway_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

// statusOf gives the status topic of a user.
func (w *world) statusOf(id domain.UserID) string {
	return "users/" + string(w.user(id).Username) + "/status"
}

// setStatus has a device say how its user is.
func (c *client) setStatus(s domain.State) {
	c.w.t.Helper()
	if a := c.submit(domain.Request{Command: &domain.SetStatus{State: &s}}); a.code() != "" {
		c.w.t.Fatalf("setStatus: %v", a.err)
	}
}

// watch subscribes a user to others, as the command does.
func (w *world) watch(watcher domain.UserID, of ...domain.UserID) {
	w.t.Helper()
	c := &domain.Subscribe{}
	for _, id := range of {
		w.user(id)
		c.Users = append(c.Users, domain.Named{Ref: domain.UserRef{UserID: id}})
	}
	w.do(watcher, c)
}

// states gives the states that a topic told, with whether each came as a retained message.
func (c *client) states(topic string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := []string{}
	i := 0
	for _, d := range c.deliveries {
		if d.Seq != 0 {
			continue
		}
		body := c.direct[i].body
		if i++; d.Publication.Topic != topic || body["type"] != "setStatus" {
			continue
		}
		state := fmt.Sprint(body["state"])
		if d.Retain {
			state += " (retained)"
		}
		if (state == "available" || state == "away" || state == "busy") && body["online"] != true {
			state += " and not online"
		}
		got = append(got, state)
	}
	return got
}

// told gives the notices of a type that the client got in its inbox.
func (c *client) told(kind string) []map[string]any {
	return slices.DeleteFunc(c.notices(c.inbox()), func(n map[string]any) bool { return n["type"] != kind })
}

func (c *client) wantStates(topic string, want ...string) {
	c.w.t.Helper()
	if got := c.states(topic); !slices.Equal(got, append([]string{}, want...)) {
		c.w.t.Errorf("on %s %s heard %v, want %v", topic, c.principal.Username, got, want)
	}
}

func TestConnectingIsNotBeingThere(t *testing.T) {
	// A phone that fetches messages in a pocket does not make its user available: the user says so.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob := w.connect(2)
		status := w.statusOf(1)
		w.user(1)
		bob.subscribe(status, domain.SubscribeOptions{QoS: 1})
		alice := w.connect(1)
		w.pass(2 * time.Second)
		bob.wantStates(status, "offline (retained)")
		alice.setStatus(domain.Available)
		w.pass(2 * time.Second)
		bob.wantStates(status, "offline (retained)", "available")
	})
}

func TestStatusTopicGivesThePresentValueAtOnce(t *testing.T) {
	// And then every change, newest last; who looks invisible looks offline.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.connect(1), w.connect(2)
		status := w.statusOf(1)
		alice.setStatus(domain.Busy)
		w.pass(time.Second)
		bob.subscribe(status, domain.SubscribeOptions{QoS: 1, Identifier: 7})
		w.settle()
		bob.wantStates(status, "busy (retained)")
		for _, s := range []domain.State{domain.Away, domain.Invisible, domain.Invisible, domain.Available} {
			alice.setStatus(s)
			w.pass(2 * time.Second)
		}
		bob.wantStates(status, "busy (retained)", "away", "offline", "available")
		bob.mu.Lock()
		for _, d := range bob.deliveries {
			if d.QoS != 1 || !slices.Equal(d.Identifiers, []int{7}) {
				t.Errorf("a status came with QoS %d and identifiers %v", d.QoS, d.Identifiers)
			}
		}
		bob.mu.Unlock()
		if bob.session.Unsubscribe(t.Context(), []string{status})[0] != true {
			t.Error("there was no subscription to end")
		}
		alice.setStatus(domain.Away)
		w.pass(2 * time.Second)
		if n := len(bob.states(status)); n != 4 {
			t.Errorf("%d states came, one of them after unsubscribing", n)
		}
	})
}

func TestRetainHandlingIsRespected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.connect(1), w.connect(2)
		status := w.statusOf(1)
		alice.setStatus(domain.Available)
		w.pass(time.Second)
		bob.subscribe(status, domain.SubscribeOptions{RetainHandling: 2})
		w.settle()
		bob.wantStates(status)
		bob.subscribe(status, domain.SubscribeOptions{RetainHandling: 1}) // there is one already
		w.settle()
		bob.wantStates(status)
		bob.subscribe(status, domain.SubscribeOptions{})
		w.settle()
		bob.wantStates(status, "available (retained)")
		bob.session.Unsubscribe(t.Context(), []string{status})
		bob.subscribe(status, domain.SubscribeOptions{RetainHandling: 1, RetainAsPublished: true})
		alice.setStatus(domain.Busy)
		w.pass(2 * time.Second)
		bob.wantStates(status, "available (retained)", "available (retained)", "busy (retained)")
	})
}

func TestUsersGoOfflineWhenTheLastDeviceHasBeenGoneForTheGraceTime(t *testing.T) {
	// A lift or a tunnel is no absence; a phone that is gone for a minute is.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob := w.connect(2)
		status := w.statusOf(1)
		phone, tablet := w.connect(1, device("phone")), w.connect(1, device("tablet"))
		phone.setStatus(domain.Available)
		w.settle()
		bob.subscribe(status, domain.SubscribeOptions{})
		w.pass(time.Second)
		phone.hangUp() // the tablet is still there
		w.pass(5 * time.Minute)
		bob.wantStates(status, "available (retained)")
		tablet.hangUp()
		w.pass(59 * time.Second)
		phone = w.connect(1, device("phone"))
		w.pass(5 * time.Minute)
		bob.wantStates(status, "available (retained)")
		phone.hangUp()
		w.pass(30 * time.Second)
		w.connect(1, device("phone")).hangUp()
		w.settle()
		gone := domain.Millis(time.Now())
		w.pass(59 * time.Second) // the grace time begins anew
		bob.wantStates(status, "available (retained)")
		w.pass(3 * time.Second)
		bob.wantStates(status, "available (retained)", "offline")
		last := bob.notices(status)[1]
		if last["lastSeen"] != float64(gone) || last["online"] != false || last["userId"] != float64(1) {
			t.Errorf("the farewell is %v, the device went at %d", last, gone)
		}
		if n := w.gauge("parley_present_users"); n != 0 {
			t.Errorf("%v users are there", n)
		}
		w.connect(1) // merely connects
		w.pass(2 * time.Second)
		carol := w.connect(3)
		carol.subscribe(status, domain.SubscribeOptions{})
		w.settle()
		carol.wantStates(status, "offline (retained)")
		if seen := carol.notices(status)[0]["lastSeen"]; seen != float64(gone) {
			t.Errorf("lastSeen is %v, not %d", seen, gone)
		}
	})
}

func TestAStatusWithoutADeviceLastsTheGraceTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.Grace = 10 * time.Second })
		bob := w.connect(2)
		w.do(1, &domain.SetStatus{State: ptr(domain.Available)})
		bob.subscribe(w.statusOf(1), domain.SubscribeOptions{})
		w.pass(9 * time.Second)
		bob.wantStates(w.statusOf(1), "available (retained)")
		w.pass(3 * time.Second)
		bob.wantStates(w.statusOf(1), "available (retained)", "offline")
	})
}

func TestInvisibleLooksOfflineToOthersAlone(t *testing.T) {
	// Nothing may tell that somebody is there who does not want to be seen: neither a notice nor lastSeen.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		phone, tablet, bob := w.connect(1, device("phone")), w.connect(1, device("tablet")), w.connect(2)
		for _, cl := range []*client{phone, tablet, bob} {
			cl.subscribe(cl.inbox(), domain.SubscribeOptions{QoS: 1})
		}
		w.watch(2, 1)
		phone.setStatus(domain.Invisible)
		w.pass(2 * time.Second)
		bob.subscribe(w.statusOf(1), domain.SubscribeOptions{})
		w.settle()
		if first := bob.notices(w.statusOf(1))[0]; first["state"] != "offline" || first["lastSeen"] != nil {
			t.Errorf("of somebody who was never seen there is %v", first)
		}
		phone.setStatus(domain.Available)
		w.pass(time.Minute)
		hidden := domain.Millis(time.Now())
		phone.setStatus(domain.Invisible)
		w.pass(time.Minute)
		phone.setStatus(domain.Invisible)
		w.pass(time.Minute)
		phone.hangUp()
		tablet.setStatus(domain.Invisible)
		w.pass(time.Minute)
		tablet.hangUp()
		w.pass(2 * time.Minute)
		bob.wantStates(bob.inbox(), "available", "offline")
		bob.wantStates(w.statusOf(1), "offline (retained)", "available", "offline")
		if last := bob.told("setStatus")[1]; last["lastSeen"] != float64(hidden) || last["online"] != false {
			t.Errorf("the farewell is %v, invisible since %d", last, hidden)
		}
		tablet.wantStates(tablet.inbox(), "invisible", "available", "invisible", "invisible")
		phone.wantStates(phone.inbox())
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		if s := w.store.seen[1]; s.At != hidden || s.Here {
			t.Errorf("the store has %+v, invisible since %d", s, hidden)
		}
	})
}

func TestWatchersHearOfStatusAndRecord(t *testing.T) {
	// Whoever subscribed to a user by the command, on each of its devices, and nobody else; never the private part.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob, bobsTablet, carol := w.connect(1), w.connect(2), w.connect(2, device("tablet")), w.connect(3)
		for _, cl := range []*client{alice, bob, bobsTablet, carol} {
			cl.subscribe(cl.inbox(), domain.SubscribeOptions{QoS: 1})
		}
		bob.submit(domain.Request{Command: &domain.Subscribe{UserList: domain.UserList{
			Users: domain.List[domain.Named]{{Ref: domain.UserRef{UserID: 1}}},
		}}})
		w.settle()
		if got := alice.types(); len(got) != 0 {
			t.Errorf("the subscribed was told: %v", got)
		}
		if got := append(bob.types(), bobsTablet.types()...); !slices.Equal(got, []string{"subscribe"}) {
			t.Errorf("the own devices were told %v", got)
		}
		alice.setStatus(domain.Available)
		w.do(1, &domain.EditUser{CustomData: data(`{"mood":"fine"}`), PrivateCustomData: data(`{"secret":1}`)})
		w.do(1, &domain.EditUser{PrivateCustomData: data(`{"secret":2}`)})
		w.pass(2 * time.Second)
		for _, cl := range []*client{bob, bobsTablet} {
			got := cl.notices(cl.inbox())
			got = got[len(got)-2:]
			slices.SortFunc(got, func(a, b map[string]any) int { return len(fmt.Sprint(a["type"])) - len(fmt.Sprint(b["type"])) })
			u, _ := got[0]["user"].(map[string]any)
			if got[0]["type"] != "editUser" || fmt.Sprint(u["customData"]) != "map[mood:fine]" || u["privateCustomData"] != nil ||
				u["notifications"] != nil {
				t.Errorf("told is %v", got[0])
			}
			if got[1]["type"] != "setStatus" || got[1]["userId"] != float64(1) || got[1]["online"] != true || got[1]["state"] != "available" {
				t.Errorf("told is %v", got[1])
			}
		}
		if got := carol.types(); len(got) != 0 {
			t.Errorf("carol was told %v", got)
		}
		w.do(2, &domain.UnsubscribeFromAll{})
		n := len(bob.types())
		alice.setStatus(domain.Away)
		w.pass(2 * time.Second)
		if got := bob.types(); len(got) != n {
			t.Errorf("after unsubscribing bob was told %v", got[n:])
		}
	})
}

func TestARepeatedStatusIsToldAgain(t *testing.T) {
	// Clients of the system that this comes from say that they are there every few minutes, for those who have come since.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.connect(1), w.connect(2)
		w.watch(2, 1)
		alice.setStatus(domain.Available)
		w.pass(2 * time.Second)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		alice.setStatus(domain.Available)
		w.pass(2 * time.Second)
		bob.wantStates(bob.inbox(), "available")
	})
}

func TestStatusBeyondTheTreeDoesNotExist(t *testing.T) {
	// In the same words as of a user who was never there.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.addUser(50, 2)
		alice := w.connect(1)
		theirs := "users/" + string(w.store.addUser(50, 2).Username) + "/status"
		refusals := alice.session.Subscribe(t.Context(), []domain.Subscription{
			{Filter: theirs}, {Filter: "users/nobody@chat.acme/status"}, {Filter: w.statusOf(1)}, {Filter: "users/+/status"},
		})
		if domain.CodeOf(refusals[0]) != domain.UserNotFound || fmt.Sprint(refusals[0]) != fmt.Sprint(refusals[1]) ||
			refusals[2] != nil || domain.CodeOf(refusals[3]) != domain.AccessDenied {
			t.Errorf("refused with %v", refusals)
		}
		backend, err := w.dial(service(2))
		if err != nil {
			t.Fatal(err)
		}
		if got := backend.session.Subscribe(t.Context(), []domain.Subscription{{Filter: theirs}, {Filter: w.statusOf(1)}}); got[0] != nil ||
			domain.CodeOf(got[1]) != domain.UserNotFound {
			t.Errorf("the service of the other tree: %v", got)
		}
		up := w.store.down()
		if got := alice.session.Subscribe(t.Context(), []domain.Subscription{{Filter: w.statusOf(2)}}); domain.CodeOf(got[0]) != domain.Unavailable {
			t.Errorf("without the store: %v", got)
		}
		up()
	})
}

func TestAStormOfPresenceIsBounded(t *testing.T) {
	// Ten thousand people come to work at nine: whoever watches some of them gets the newest state of each, once a round,
	// and whoever does not read has no more waiting than that.
	synctest.Test(t, func(t *testing.T) {
		const crowd, flaps, watched, watchers = 10_000, 20, 50, 40
		w := newWorld(t)
		reader, sleeper := w.connect(90_001), w.connect(90_002, idle)
		all := []*client{reader, sleeper}
		for i := range watchers - 2 {
			all = append(all, w.connect(domain.UserID(90_003+i)))
		}
		var ids []domain.UserID
		for i := range watched {
			ids = append(ids, domain.UserID(1+i*97))
		}
		for _, cl := range all {
			cl.subscribe(cl.inbox(), domain.SubscribeOptions{QoS: 1})
			w.watch(cl.principal.User, ids...)
		}
		begin := time.Now()
		states := []domain.State{domain.Available, domain.Away, domain.Busy}
		for flap := range flaps {
			for id := domain.UserID(1); id <= crowd; id++ {
				p := w.user(id)
				p.Device = "phone"
				if _, err := w.g.Do(t.Context(), p, &domain.SetStatus{State: &states[flap%3]}); err != nil {
					t.Fatal(err)
				}
			}
			w.pass(100 * time.Millisecond)
		}
		w.pass(2 * time.Second)
		rounds := int(time.Since(begin)/time.Second) + 1
		w.store.mu.Lock()
		saves, seen := w.store.counts.seen, len(w.store.seen)
		w.store.mu.Unlock()
		if saves > rounds || seen != crowd {
			t.Errorf("%d users were written in %d transactions in %d rounds", seen, saves, rounds)
		}
		got := reader.states(reader.inbox())
		if len(got) < watched || len(got) > rounds*watched {
			t.Errorf("%d notices in %d rounds of %d who are watched", len(got), rounds, watched)
		}
		last := make(map[float64]string)
		for _, n := range reader.told("setStatus") {
			last[n["userId"].(float64)] = fmt.Sprint(n["state"])
		}
		if want := string(states[(flaps-1)%3]); len(last) != watched || slices.ContainsFunc(slices.Collect(maps.Values(last)), func(s string) bool { return s != want }) {
			t.Errorf("the last states are %v", last)
		}
		n, err := sleeper.pull(10_000, 10_000)
		if n != watched+1 || err != nil { // with the notice of its own subscribe
			t.Errorf("%d notices waited for the one who slept, %v", n, err)
		}
	})
}

func TestWithoutTheStorePresenceGoesOnAndCatchesUp(t *testing.T) {
	// Followers of the topic need no store; watchers hear the newest when it is back.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob, carol := w.connect(1), w.connect(2), w.connect(3)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		carol.subscribe(w.statusOf(1), domain.SubscribeOptions{})
		w.watch(2, 1)
		up := w.store.down()
		for _, s := range []domain.State{domain.Available, domain.Away, domain.Busy} {
			alice.setStatus(s)
			w.pass(2 * time.Second)
		}
		carol.wantStates(w.statusOf(1), "offline (retained)", "available", "away", "busy")
		bob.wantStates(bob.inbox())
		up()
		w.pass(2 * time.Second)
		bob.wantStates(bob.inbox(), "busy")
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		if s := w.store.seen[1]; !s.Here {
			t.Errorf("the store has %+v", s)
		}
	})
}

func TestAGatewayThatEndsTakesPresenceWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.connect(1).setStatus(domain.Available)
		w.connect(2).setStatus(domain.Invisible)
		w.pass(10 * time.Second)
		w.g.Close()
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		if s := w.store.seen[1]; s.Here || s.At != domain.Millis(time.Now()) {
			t.Errorf("the store has %+v", s)
		}
		if s, ok := w.store.seen[2]; ok {
			t.Errorf("of the invisible the store has %+v", s)
		}
	})
}

func TestADeletedUserIsOfflineAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.connect(1), w.connect(2)
		w.watch(2, 1)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		alice.setStatus(domain.Available)
		w.pass(2 * time.Second)
		u := w.store.addUser(1, 1)
		u.Deleted = true
		w.g.UserChanged(t.Context(), u)
		w.g.EndSessions(w.user(1), false, domain.NotWelcome())
		w.pass(2 * time.Second)
		bob.wantStates(bob.inbox(), "available", "offline")
		if got := bob.told("editUser"); len(got) != 1 || got[0]["user"].(map[string]any)["deleted"] != true {
			t.Errorf("bob was told %v", got)
		}
	})
}

func ptr[T any](v T) *T { return &v }

func TestLastSeenIsNoOlderThanTheFarewell(t *testing.T) {
	// Whoever asks while it is being written, or has asked just before, gets what the others were told.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.Grace = 10 * time.Second })
		alice, bob, carol := w.connect(1), w.connect(2), w.connect(3)
		status := w.statusOf(1)
		bob.subscribe(status, domain.SubscribeOptions{})
		alice.setStatus(domain.Available)
		w.pass(5 * time.Second)
		alice.hangUp()
		up := w.store.down()
		w.store.set(func() { w.store.onHeads, w.store.askable = nil, true })
		w.pass(15 * time.Second)
		carol.subscribe(status, domain.SubscribeOptions{})
		w.settle()
		up()
		told := bob.notices(status)
		if last, first := told[len(told)-1], carol.notices(status)[0]; last["state"] != "offline" || first["lastSeen"] != last["lastSeen"] {
			t.Errorf("carol is told %v, bob was told %v", first, last)
		}
	})
}
