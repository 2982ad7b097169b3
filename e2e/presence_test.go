package e2e_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"

	"github.com/parley-im/parley/configs"
)

// person is a user as others see it, or as it sees itself.
type person struct {
	UserID                int64           `json:"userId"`
	Username              string          `json:"username"`
	DisplayName           string          `json:"displayName"`
	CustomData            json.RawMessage `json:"customData"`
	Deleted               bool            `json:"deleted"`
	PrivateCustomData     json.RawMessage `json:"privateCustomData"`
	ConversationsList     *[]string       `json:"conversationsList"`
	LeaveConversationList *[]string       `json:"leaveConversationList"`
	Notifications         *[]string       `json:"notifications"`
}

// telling is an inbox event about a user, or the status of one.
type telling struct {
	Type     string   `json:"type"`
	UserID   int64    `json:"userId"`
	State    string   `json:"state"`
	Online   *bool    `json:"online"`
	LastSeen int64    `json:"lastSeen"`
	User     *person  `json:"user"`
	Users    []person `json:"users"`
}

func (u user) status() string { return "users/" + u.Name + "/status" }

// told waits for an inbox event of the type, whatever came before it.
func (d *device) told(tb testing.TB, kind string) telling {
	tb.Helper()
	var found telling
	_, err := d.inbox.take(tb.Context(), func(m received) bool {
		var x telling
		if json.Unmarshal(m.payload, &x) != nil || x.Type != kind {
			return false
		}
		found = x
		return true
	})
	if err != nil {
		tb.Fatalf("%s: no %s in the inbox: %v", d.user.Name, kind, err)
	}
	return found
}

// sees waits until a user's status topic gives a state, and tells whether that came as a retained message.
func (d *device) sees(tb testing.TB, u user, state string) (s telling, retained bool) {
	tb.Helper()
	_, err := d.other.take(tb.Context(), func(m received) bool {
		var x telling
		if m.topic != u.status() || json.Unmarshal(m.payload, &x) != nil || x.State != state {
			return false
		}
		s, retained = x, m.retained
		return true
	})
	if err != nil {
		tb.Fatalf("%s does not see %s %s: %v", d.user.Name, u.Name, state, err)
	}
	if s.UserID != u.ID || s.Online == nil || *s.Online != (state == "available" || state == "away" || state == "busy") {
		tb.Errorf("the status is %+v", s)
	}
	return s, retained
}

// run runs a command that must succeed.
func (d *device) run(tb testing.TB, v any, name string, params map[string]any) {
	tb.Helper()
	r := d.command(tb, name, params)
	if r.Error != nil {
		tb.Fatalf("%s: %s is refused: %+v", d.user.Name, name, *r.Error)
	}
	reflect.ValueOf(v).Elem().SetZero() // what is absent in the answer is so in v
	r.into(tb, v)
}

// ask runs a command that must be refused, and gives the number.
func (d *device) ask(tb testing.TB, name string, params map[string]any) int {
	tb.Helper()
	r := d.command(tb, name, params)
	if r.Error == nil {
		tb.Fatalf("%s: %s is not refused: %s", d.user.Name, name, r.Result)
	}
	return r.Error.Number
}

func TestPresenceIsSeenAtOnceAndFollowed(t *testing.T) {
	// Whoever opens a chat sees whether the other is there, and sees the other come and go.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := users[0], users[1], users[2]
		phone, tablet := w.online(t, alice, version), w.online(t, alice, version)
		watcher, follower := w.online(t, bob, version), w.online(t, carol, version)
		watcher.run(t, &struct{}{}, "subscribe", map[string]any{"users": []int64{alice.ID}})
		follower.subscribe(t, 1, alice.status())
		if s, retained := follower.sees(t, alice, "offline"); !retained || s.LastSeen != 0 {
			t.Errorf("of who was never seen: %+v, retained: %t", s, retained)
		}
		var set struct{ Status telling }
		phone.run(t, &set, "setStatus", map[string]any{"online": true})
		if s := set.Status; s.UserID != alice.ID || s.State != "available" || s.Online == nil || !*s.Online || s.LastSeen == 0 {
			t.Errorf("the answer is %+v", s)
		}
		if _, retained := follower.sees(t, alice, "available"); retained {
			t.Error("a change came as a retained message")
		}
		for _, d := range []*device{watcher, tablet} {
			if s := d.told(t, "setStatus"); s.UserID != alice.ID || s.State != "available" || s.Online == nil || !*s.Online || s.LastSeen == 0 {
				t.Errorf("%s is told %+v", d.user.Name, s)
			}
		}
		late := w.online(t, bob, version)
		late.subscribe(t, 0, alice.status())
		if _, retained := late.sees(t, alice, "available"); !retained {
			t.Error("the present value did not come as a retained message")
		}
		phone.run(t, &set, "setStatus", map[string]any{"state": "busy"})
		follower.sees(t, alice, "busy")
		phone.run(t, &set, "setStatus", map[string]any{"online": false})
		follower.sees(t, alice, "offline")
		for {
			if s := tablet.told(t, "setStatus"); s.State == "invisible" {
				break
			}
		}
		for {
			if s := watcher.told(t, "setStatus"); s.State == "offline" {
				break
			} else if s.State == "invisible" {
				t.Fatal("bob is told that alice is invisible")
			}
		}
		for _, r := range phone.inbox.rest() {
			t.Errorf("the device that set the status is told %s", r.payload)
		}
		for _, wrong := range []map[string]any{{}, {"state": "offline"}, {"online": true, "state": "busy"}, {"state": "Busy"}} {
			if n := phone.ask(t, "setStatus", wrong); n != 1 {
				t.Errorf("setStatus %v: number %d", wrong, n)
			}
		}
	})
}

func TestRetainHandlingOfStatusIsRespected(t *testing.T) {
	// MQTT 5 clients say whether they want the present value, and whether they want to tell it from changes.
	inWorlds(t, func(t *testing.T, w *world) {
		alice, bob := w.user(t, "alice"), w.user(t, "bob")
		phone, d := w.online(t, alice, 5), w.online(t, bob, 5)
		subscribe := func(handling byte, asPublished bool) {
			t.Helper()
			_, err := d.v5.Subscribe(t.Context(), &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{
				{Topic: alice.status(), QoS: 1, RetainHandling: handling, RetainAsPublished: asPublished},
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		subscribe(2, true)
		phone.run(t, &struct{}{}, "setStatus", map[string]any{"state": "away"})
		if _, retained := d.sees(t, alice, "away"); !retained {
			t.Error("a change is not as it was published")
		}
		subscribe(1, false) // not a new one
		phone.run(t, &struct{}{}, "setStatus", map[string]any{"state": "busy"})
		if _, retained := d.sees(t, alice, "busy"); retained {
			t.Error("a change came as a retained message")
		}
		for _, r := range d.other.rest() {
			t.Errorf("a value came unasked: %s", r.payload)
		}
		subscribe(0, false)
		if _, retained := d.sees(t, alice, "busy"); !retained {
			t.Error("the present value did not come as a retained message")
		}
	})
}

func TestUsersGoOfflineAfterTheGraceTime(t *testing.T) {
	// However the last device went; and who only connects again is not back before it says so.
	onBothStores(t, func(t *testing.T, s store) {
		w := newWorld(t, start(t, s.empty(t), func(c *configs.Config) { c.Presence.Grace = 500 * time.Millisecond }))
		alice, bob := w.user(t, "alice"), w.user(t, "bob")
		follower := w.online(t, bob, 5)
		follower.subscribe(t, 1, alice.status())
		follower.sees(t, alice, "offline")
		for _, version := range []byte{4, 5} {
			phone, tablet := w.online(t, alice, version), w.online(t, alice, version)
			phone.run(t, &struct{}{}, "setStatus", map[string]any{"online": true})
			before, _ := follower.sees(t, alice, "available")
			phone.leave()
			tablet.cut()
			after, _ := follower.sees(t, alice, "offline")
			if after.LastSeen < before.LastSeen {
				t.Errorf("last seen at %d, after %d", after.LastSeen, before.LastSeen)
			}
			back := w.online(t, alice, version)
			late := w.online(t, bob, version)
			late.subscribe(t, 1, alice.status())
			if again, retained := late.sees(t, alice, "offline"); !retained || again.LastSeen != after.LastSeen {
				t.Errorf("then the status is %+v, retained: %t; it was %+v", again, retained, after)
			}
			back.leave()
		}
	})
}

func TestNobodyStaysOnlineAfterKill9(t *testing.T) {
	// A gateway that dies cannot say that its users are gone; the next one must.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		gw := spawn(t, url)
		w := newWorld(t, gw.gateway)
		alice, bob := w.user(t, "alice"), w.user(t, "bob")
		phone, follower := w.online(t, alice, 5), w.online(t, bob, 5)
		follower.subscribe(t, 1, alice.status())
		phone.run(t, &struct{}{}, "setStatus", map[string]any{"online": true})
		follower.sees(t, alice, "available")
		// What is told in the next round was written in the one before.
		phone.run(t, &struct{}{}, "setStatus", map[string]any{"state": "busy"})
		seen, _ := follower.sees(t, alice, "busy")
		follower.run(t, &struct{}{}, "subscribe", map[string]any{"users": []any{alice.Name}})
		gw.signal(t, syscall.SIGKILL)
		gw.exit(t)
		gw = spawn(t, url)
		w.gateway = gw.gateway
		follower = w.online(t, bob, 5)
		follower.subscribe(t, 1, alice.status())
		if s, retained := follower.sees(t, alice, "offline"); !retained || s.LastSeen == 0 || s.LastSeen < seen.LastSeen-60_000 {
			t.Errorf("after the kill the status is %+v", s)
		}
		var of struct{ Users []person }
		follower.run(t, &of, "getSubscriptions", nil)
		if len(of.Users) != 1 || of.Users[0].UserID != alice.ID {
			t.Errorf("after the kill bob has subscribed to %+v", of.Users)
		}
	})
}

func TestADurableDeviceSeesThePresentStatusWhenItReturns(t *testing.T) {
	byVersion(t, func(t *testing.T, w *world, version byte) {
		alice, bob := w.user(t, "alice"), w.user(t, "bob")
		phone := w.online(t, alice, version)
		durable := func(d *dialing) { d.durable = true }
		id := named(fmt.Sprint("durable-", version))
		d := w.online(t, bob, version, durable, id)
		d.subscribe(t, 1, alice.status())
		d.sees(t, alice, "offline")
		d.leave()
		phone.run(t, &struct{}{}, "setStatus", map[string]any{"state": "away"})
		d = w.connect(t, bob, version, durable, id)
		if !d.hello.present {
			t.Fatal("the session was not kept")
		}
		if _, retained := d.sees(t, alice, "away"); retained {
			t.Error("nobody subscribed, and a retained message came")
		}
	})
}

func TestSubscriptionsToUsersBelongToTheUser(t *testing.T) {
	// Not to the device: they hold on each, the others are told, and those subscribed to are not.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob", "carol", "dave")
		alice, bob, carol := users[0], users[1], users[2]
		phone, tablet, bobs := w.online(t, alice, version), w.online(t, alice, version), w.online(t, bob, version)
		names := func(list []person) []string {
			var all []string
			for _, p := range list {
				all = append(all, p.Username)
			}
			slices.Sort(all)
			return all
		}
		want := func(what string, list []person, users ...user) {
			t.Helper()
			var all []string
			for _, u := range users {
				all = append(all, u.Name)
			}
			if got := names(list); !slices.Equal(got, all) {
				t.Errorf("%s: %v, want %v", what, got, all)
			}
		}
		var got struct{ Users []person }
		phone.run(t, &got, "subscribe", map[string]any{"users": []any{bob.ID, carol.Name}})
		want("subscribe", got.Users, bob, carol)
		want("the other device", tablet.told(t, "subscribe").Users, bob, carol)
		tablet.run(t, &got, "getSubscriptions", nil)
		want("getSubscriptions", got.Users, bob, carol)
		tablet.run(t, &got, "unsubscribe", map[string]any{"users": []int64{carol.ID}})
		want("unsubscribe", got.Users, carol)
		want("the other device", phone.told(t, "unsubscribe").Users, carol)
		again := w.online(t, alice, 9-version)
		again.run(t, &got, "getSubscriptions", nil)
		want("on another device", got.Users, bob)
		again.run(t, &got, "unsubscribeFromAll", nil)
		want("unsubscribeFromAll", got.Users, bob)
		want("the other device", phone.told(t, "unsubscribe").Users, bob)
		phone.run(t, &got, "getSubscriptions", nil)
		want("none left", got.Users)
		for _, c := range []struct {
			name   string
			params map[string]any
			number int
		}{
			{"subscribe", map[string]any{"users": []int64{bob.ID, 1 << 50}}, 25},
			{"subscribe", map[string]any{"users": []string{"nobody@chat." + w.account}}, 25},
			{"unsubscribe", map[string]any{"users": []string{"nobody@chat." + w.account}}, 25},
			{"subscribe", map[string]any{}, 1},
			{"subscribe", map[string]any{"users": []any{}}, 1},
			{"subscribe", map[string]any{"user": bob.ID}, 1},
			{"unsubscribe", map[string]any{"users": make([]int64, 51)}, 1},
			{"getSubscriptions", map[string]any{"users": []any{}}, 1},
		} {
			if n := phone.ask(t, c.name, c.params); n != c.number {
				t.Errorf("%s %v: number %d, want %d", c.name, c.params, n, c.number)
			}
		}
		phone.run(t, &got, "getSubscriptions", nil)
		want("after the refusals", got.Users)
		for _, r := range bobs.inbox.rest() {
			t.Errorf("bob is told %s", r.payload)
		}
	})
}
