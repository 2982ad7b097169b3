package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/parley-im/parley/e2e/chaos"
)

func TestSessionIsPresentExactlyWhenThereIsOne(t *testing.T) {
	// A client trusts Session Present: told of a session that is not, it never subscribes again; not told of one that is, it
	// forgets what it has.
	v3 := func(clean bool) chaos.Login { return chaos.Login{Version: 4, Device: "phone", Clean: clean} }
	v5 := func(clean bool, expiry uint32) chaos.Login {
		return chaos.Login{Version: 5, Device: "phone", Clean: clean, Expiry: expiry}
	}
	keep := func(p *phone) error { return p.Leave() }
	cut := func(p *phone) error { p.Cut(); return nil }
	steps := map[string]struct {
		first  chaos.Login
		leave  func(p *phone) error
		second chaos.Login
		want   bool
	}{
		"3.1.1 asks for it":                           {v3(false), keep, v3(false), true},
		"3.1.1 that is cut off":                       {v3(false), cut, v3(false), true},
		"3.1.1 cleans":                                {v3(false), keep, v3(true), false},
		"3.1.1 was clean":                             {v3(true), keep, v3(false), false},
		"5 asks for it":                               {v5(true, chaos.Forever), keep, v5(false, chaos.Forever), true},
		"5 that is cut off":                           {v5(false, 600), cut, v5(false, 600), true},
		"5 does not ask for one to follow":            {v5(false, 600), keep, v5(false, 0), true},
		"5 starts clean":                              {v5(false, 600), keep, v5(true, 600), false},
		"5 has expiry 0":                              {v5(false, 0), keep, v5(false, 600), false},
		"5 has expiry 0 and is cut off":               {v5(false, 0), cut, v5(false, 600), false},
		"5 leaves with expiry 0":                      {v5(false, 600), func(p *phone) error { return p.LeaveFor(0) }, v5(false, 600), false},
		"5 leaves with a longer expiry":               {v5(false, 1), func(p *phone) error { return p.LeaveFor(600) }, v5(false, 600), true},
		"3.1.1 becomes 5":                             {v3(false), keep, v5(false, 600), true},
		"5 becomes 3.1.1":                             {v5(false, 600), keep, v3(false), true},
		"5 becomes 3.1.1 that cleans":                 {v5(false, 600), keep, v3(true), false},
		"3.1.1 becomes 5 that starts clean":           {v3(false), keep, v5(true, 600), false},
		"5 that takes over":                           {v5(false, 600), func(*phone) error { return nil }, v5(false, 600), true},
		"5 that takes over a session without expiry":  {v5(false, 0), func(*phone) error { return nil }, v5(false, 600), false},
		"3.1.1 that takes over one of 5":              {v5(false, 600), func(*phone) error { return nil }, v3(false), true},
		"5 that takes over and starts clean":          {v5(false, 600), func(*phone) error { return nil }, v5(true, 600), false},
		"5 that takes over a clean session of 3.1.1":  {v3(true), func(*phone) error { return nil }, v5(false, 600), false},
		"3.1.1 that cleans takes over one with state": {v3(false), func(*phone) error { return nil }, v3(true), false},
	}
	inWorlds(t, func(t *testing.T, w *world) {
		for name, step := range steps {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				users := w.users(t, fmt.Sprintf("alice%d", devices.Add(1)))
				c := w.conversation(t, users...)
				as := w.as(t, users[0])
				p := w.phone(t, users[0], step.first)
				if p.Present {
					t.Fatal("a session is present before there was one")
				}
				p.follow(t, 1, allEvents)
				w.sayVia(t, as, c, 1)
				p.want(t, c, 2, 2)
				p.settled(t)
				if err := step.leave(p); err != nil {
					t.Fatal(err)
				}
				w.sayVia(t, as, c, 1)
				p = w.phone(t, users[0], step.second)
				if p.Present != step.want {
					t.Fatalf("Session Present is %v, want %v", p.Present, step.want)
				}
				first := int64(3)
				if !step.want {
					p.follow(t, 1, allEvents)
					w.sayVia(t, as, c, 1)
					first = 4 // what happened before it subscribed is not its business
				}
				p.want(t, c, first, first)
				p.goodbye(t)
				// The second connection's own terms hold from then on.
				lasts := step.second.Version == 4 && !step.second.Clean || step.second.Expiry > 0
				if p = w.phone(t, users[0], v5(false, 600)); p.Present != lasts {
					t.Errorf("after the second connection Session Present is %v, want %v", p.Present, lasts)
				}
			})
		}
	})
}

func TestSessionExpiresToTheSecond(t *testing.T) {
	// A session that is kept too long costs the operator, one that is dropped too soon costs the user a message.
	onBothStores(t, func(t *testing.T, s store) {
		// Its own gateway, so that the tests around it do not delay the moments that count.
		w := newWorld(t, start(t, s.empty(t)))
		u := w.user(t, "alice")
		for seconds := range uint32(3) {
			if seconds == 0 {
				continue
			}
			for _, how := range []string{"leave", "cut", "leave with that expiry"} {
				t.Run(fmt.Sprintf("%s, %d s", how, seconds), func(t *testing.T) {
					t.Parallel()
					device := fmt.Sprint(how, seconds)
					open := func(expiry uint32) *phone {
						return w.phone(t, u, chaos.Login{Version: 5, Device: device, Expiry: expiry})
					}
					life := time.Duration(seconds) * time.Second
					asked := seconds
					if how == "leave with that expiry" {
						asked = 600
					}
					for _, early := range []bool{true, false} {
						p := open(asked)
						p.follow(t, 1, allEvents)
						switch how {
						case "cut":
							p.Cut()
						case "leave":
							p.goodbye(t)
						default:
							if err := p.LeaveFor(seconds); err != nil {
								t.Fatal(err)
							}
						}
						wait := life / 2
						if !early {
							wait = life + 200*time.Millisecond
						}
						ctx, cancel := context.WithTimeout(t.Context(), wait)
						<-ctx.Done() // the time itself is what the test waits for
						cancel()
						p = open(0)
						if p.Present != early {
							t.Errorf("%v after the end the session is present: %v", wait, p.Present)
						}
						p.goodbye(t)
					}
				})
			}
		}
	})
}

func TestExpiryGoesOnWhileTheGatewayIsDown(t *testing.T) {
	// Whether a session is over must not depend on whether the gateway was up to see it.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		g := start(t, url)
		w := newWorld(t, g)
		users := w.users(t, "alice")
		for device, expiry := range map[string]uint32{"short": 1, "long": 600} {
			p := w.phone(t, users[0], chaos.Login{Version: 5, Device: device, Expiry: expiry})
			p.follow(t, 1, allEvents)
		}
		if err := g.stop(); err != nil { // with both connected
			t.Fatal(err)
		}
		over := time.After(1200 * time.Millisecond)
		<-over
		g = start(t, url)
		for device, want := range map[string]bool{"short": false, "long": true} {
			if p := g.phone(t, users[0], chaos.Login{Version: 5, Device: device}); p.Present != want {
				t.Errorf("%s: Session Present is %v", device, p.Present)
			}
		}
	})
}
