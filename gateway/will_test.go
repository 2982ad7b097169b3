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

// heir is a world whose gateway keeps wills, with a conversation of users 1 and 2, in which 2 listens.
type heir struct {
	*world
	wills *probate
	c     domain.ConversationID
	bob   *client
}

func newHeir(t *testing.T, options ...func(*gateway.Options)) *heir {
	t.Helper()
	h := &heir{}
	h.world = newWorld(t, func(o *gateway.Options) {
		store := o.History.(*memory)
		ledger := newLedger(store)
		h.wills = &probate{store: store}
		ledger.wills = h.wills
		o.Sessions, o.Wills = ledger, h.wills
		for _, option := range options {
			option(o)
		}
	})
	h.c = h.converse(1, 2)
	h.bob = h.subscriber(2)
	h.bob.subscribe(allSignals, domain.SubscribeOptions{})
	return h
}

// again gives the same world with another gateway on the same store.
func (h *heir) again(t *testing.T) *heir {
	t.Helper()
	store, ledger := h.store, newLedger(h.store)
	ledger.wills = h.wills
	n := &heir{wills: h.wills, c: h.c}
	n.world = newWorld(t, func(o *gateway.Options) {
		o.Logs, o.History, o.Presence, o.Authenticator = []gateway.Log{store}, store, store, &door{store: store}
		o.Sessions, o.Wills = ledger, h.wills
	})
	n.store = store
	n.bob = n.subscriber(2)
	n.bob.subscribe(allSignals, domain.SubscribeOptions{})
	return n
}

// setWill makes a command that sets a will.
func setWill(c domain.ConversationID, text string) *domain.SetWill {
	s := &domain.SetWill{Conversation: c}
	s.Text = text
	return s
}

// hand hands a command over, waits for its answer and gives its code.
func (c *client) hand(cmd domain.Command) domain.Code {
	c.w.t.Helper()
	a := c.submit(domain.Request{Command: cmd, Name: cmd.Name()})
	<-a.done
	return a.code()
}

// withWill adds the Will of a CONNECT: a signal, unless the topic says something else.
func (h *heir) withWill(text string, delay uint32) option {
	topic := domain.Topic{Kind: domain.MessagesTopic, Conversation: h.c}.String()
	return willTo(topic, `{"text":"`+text+`","options":{"will":true}}`, delay)
}

func willTo(topic, payload string, delay uint32) option {
	return func(_ *client, h *domain.Hello) {
		h.Will = &domain.Will{Publish: domain.Publish{Topic: topic, Payload: []byte(payload), Version: 5, QoS: 1}, Delay: delay}
	}
}

// durable makes a session that outlives its connection; anew: without what there was before.
func durable(seconds uint32) option {
	return func(_ *client, h *domain.Hello) { h.Expiry = seconds }
}

func anew(_ *client, h *domain.Hello) { h.Clean = true }

func (h *heir) want(what string, signals ...string) {
	h.t.Helper()
	h.settle()
	if got := h.bob.signals(h.c); !slices.Equal(got, signals) {
		h.t.Errorf("%s: bob was told %q, want %q", what, got, signals)
	}
}

func TestWillsAreSentWhenConnectionsAreLost(t *testing.T) {
	// A will that is sent while its device is well, or not sent when it is lost, is worse than none.
	for name, tc := range map[string]struct {
		end  func(h *heir, c *client)
		sent bool
	}{
		"lost":           {func(_ *heir, c *client) { c.hangUp() }, true},
		"said goodbye":   {func(_ *heir, c *client) { c.session.Leave(true) }, false},
		"too slow":       {func(_ *heir, c *client) { c.Close(domain.TooSlow()) }, true},
		"cleared":        {func(_ *heir, c *client) { c.hand(&domain.ClearWill{}); c.hangUp() }, false},
		"logged out":     {func(h *heir, _ *client) { h.g.EndSessions(h.user(1), false, domain.NotWelcome()) }, false},
		"taken over":     {func(h *heir, _ *client) { h.connect(1) }, true},
		"replaced":       {func(h *heir, _ *client) { h.connect(1, device("pad"), tag("mobile")) }, false},
		"tag taken over": {func(h *heir, _ *client) { h.connect(1, tag("mobile")) }, true},
	} {
		for _, way := range []string{"setWill", "sendMessage", "CONNECT"} {
			t.Run(name+" by "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHeir(t)
					var alice *client
					switch way {
					case "setWill":
						alice = h.connect(1, tag("mobile"))
						if code := alice.hand(setWill(h.c, "first")); code != "" {
							t.Fatal(code)
						}
						alice.hand(setWill(h.c, "gone"))
					case "sendMessage":
						alice = h.connect(1, tag("mobile"), h.withWill("first", 0))
						m := message(h.c, "gone", "")
						m.Options = &domain.Options{Will: true}
						if code := alice.hand(m); code != "" {
							t.Fatal(code)
						}
					case "CONNECT":
						alice = h.connect(1, tag("mobile"), h.withWill("gone", 0))
					}
					h.want("before")
					tc.end(h, alice)
					h.pass(20 * time.Millisecond) // openings are that much ahead at most
					if tc.sent {
						h.want("after", "willMessage gone")
					} else {
						h.want("after")
					}
					h.pass(time.Hour)
					if n := len(h.bob.signals(h.c)); n > 1 || tc.sent != (n == 1) {
						t.Errorf("%d signals an hour later", n)
					}
					if n := h.wills.kept(); n != 0 {
						t.Errorf("%d wills are left", n)
					}
					if texts := h.store.texts(h.c); len(texts) > 0 {
						t.Errorf("%q are in the log", texts)
					}
				})
			})
		}
	}
}

func TestTheWillOfAConnectIsWhatItsTopicSays(t *testing.T) {
	// A device that leaves a message wants it read later as well.
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		conversation := "conversations/" + h.c.String()
		pad := h.connect(1, device("pad"))
		pad.subscribe(pad.replies(), domain.SubscribeOptions{})
		for i, w := range []option{
			willTo(conversation+"/messages", `{"text":"a message"}`, 0),
			willTo(conversation+"/raw", `a part`, 0),
			willTo(conversation+"/messages", `{"text":"for now","options":{"transient":true}}`, 0),
			willTo(conversation+"/typing", `{"state":"finished"}`, 0),
			willTo("commands/getMe", `{"requestId":"r"}`, 0),
		} {
			h.connect(1, device(fmt.Sprint(i)), w).hangUp()
			h.settle()
		}
		h.want("signals", "transientMessage for now", "typing finished")
		if texts := h.store.texts(h.c); !slices.Equal(texts, []string{"a message", ""}) {
			t.Errorf("in the log are %q", texts)
		}
		h.bob.wantSeqs(h.c, span(2, 3))
		if replies := pad.notices(pad.replies()); len(replies) != 1 || replies[0]["requestId"] != "r" {
			t.Errorf("replies %v", replies)
		}
	})
}

func TestDelayedWillsWaitForTheDevice(t *testing.T) {
	// A tunnel is no loss. The delay counts from the end of the connection, to the second.
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		// It does not come back.
		h.connect(1, durable(3600), h.withWill("gone", 60)).hangUp()
		h.pass(60*time.Second - time.Millisecond)
		h.want("just before")
		h.pass(time.Millisecond)
		h.want("when the delay is over", "willMessage gone")
		// Nor in a session that ends earlier.
		h.connect(1, device("watch"), durable(20), h.withWill("with the session", 60)).hangUp()
		h.pass(20*time.Second - time.Millisecond)
		h.want("just before the session ends", "willMessage gone")
		h.pass(time.Millisecond)
		h.want("when the session ends", "willMessage gone", "willMessage with the session")
		// A session that ends with its connection.
		h.connect(1, device("lamp"), h.withWill("at once", 60)).hangUp()
		h.want("without a session", "willMessage gone", "willMessage with the session", "willMessage at once")
		// A DISCONNECT that shortens the session, and a will.
		c := h.connect(1, device("tv"), durable(3600), h.withWill("sooner", 60))
		c.session.Expire(10)
		c.hangUp()
		h.pass(10 * time.Second)
		h.want("a shortened session", "willMessage gone", "willMessage with the session", "willMessage at once", "willMessage sooner")
	})
}

func TestReturningDevicesCancelTheirWills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		h.connect(1, durable(3600), h.withWill("1", 60)).hangUp()
		h.pass(59 * time.Second)
		h.connect(1, durable(3600)).hangUp()
		h.pass(time.Hour / 2)
		h.want("the session went on")
		// Taken over before anybody noticed.
		h.connect(1, durable(3600), h.withWill("2", 60))
		h.connect(1, durable(3600), h.withWill("3", 60))
		h.pass(time.Hour / 2)
		h.want("the session was taken over")
		// The device wants nothing of its session any more: that has ended.
		h.connect(1, durable(3600), anew)
		h.pass(20 * time.Millisecond)
		h.want("the session was begun anew", "willMessage 3")
		if n := h.wills.kept(); n != 0 {
			t.Errorf("%d wills are left", n)
		}
		if n := h.outcome("cancelled"); n != 2 {
			t.Errorf("%v wills were cancelled", n)
		}
	})
}

// outcome gives how many wills ended in a way.
func (h *heir) outcome(which string) float64 {
	h.t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "parley_wills_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == which {
				return m.GetCounter().GetValue()
			}
		}
	}
	h.t.Fatalf("no wills are counted as %s", which)
	return 0
}

func TestWillsAreRefusedByWhatIsSoWhenTheyAreDue(t *testing.T) {
	// The right to write is taken away because of what somebody would say, also by dying.
	for name, change := range map[string]func(h *heir){
		"removed": func(h *heir) { h.do(1, remove(h.c, 2)) },
		"muted": func(h *heir) {
			h.do(1, &domain.EditParticipants{UUID: h.c, Participants: []domain.EditedParticipant{
				{UserRef: domain.UserRef{UserID: 2}, Permissions: &domain.PermissionsPatch{CanWrite: new(bool)}},
			}})
		},
		"conversation removed": func(h *heir) { h.do(1, &domain.RemoveConversation{UUID: h.c}) },
		"deleted": func(h *heir) {
			h.store.mu.Lock()
			defer h.store.mu.Unlock()
			delete(h.store.users, 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHeir(t)
				alice := h.connect(1)
				alice.subscribe(allSignals, domain.SubscribeOptions{})
				message := domain.Topic{Kind: domain.MessagesTopic, Conversation: h.c}.String()
				lost := []*client{
					h.connect(2, device("1"), h.withWill("gone", 0)), h.connect(2, device("2"), willTo(message, `{"text":"gone"}`, 0)),
				}
				change(h)
				for _, c := range lost {
					c.hangUp()
				}
				h.settle()
				if got := alice.signals(h.c); len(got) > 0 || len(h.store.texts(h.c)) > 0 {
					t.Errorf("%q was told, %q is in the log", got, h.store.texts(h.c))
				}
				if refused, sent := h.outcome("refused"), h.outcome("sent"); refused != 2 || sent != 0 || h.wills.kept() != 0 {
					t.Errorf("%v wills were refused, %v sent, %d are left", refused, sent, h.wills.kept())
				}
			})
		})
	}
}

func TestWillsThatMayNotBeSetAreRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t, func(o *gateway.Options) { o.MessageRate = 2 })
		h.user(3)
		old := h.connect(3, h.withoutWill())
		conversation := "conversations/" + h.c.String()
		for name, tc := range map[string]struct {
			will option
			code domain.Code
		}{
			"a stranger's":  {h.withWill("x", 0), domain.AccessDenied},
			"no topic":      {willTo("nowhere", "x", 0), domain.AccessDenied},
			"nonsense":      {willTo(conversation+"/messages", "x", 0), domain.InvalidRequest},
			"another will":  {willTo("commands/setWill", `{"conversation":"`+h.c.String()+`","text":"x"}`, 0), domain.InvalidRequest},
			"a past number": {willTo("commands/retransmitEvents", `{"conversation":"`+h.c.String()+`","from":1,"to":9}`, 0), domain.AccessDenied},
		} {
			if _, err := h.dial(h.user(3), tc.will); domain.CodeOf(err) != tc.code {
				t.Errorf("%s: %v, want %s", name, err, tc.code)
			}
		}
		if code := old.hand(setWill(h.c, "x")); code != domain.AccessDenied {
			t.Errorf("setWill of a stranger: %q", code)
		}
		if len(old.goodbyes()) > 0 {
			t.Error("a login that was refused for its Will has ended the session before")
		}
		// Over HTTP there is no session.
		for _, c := range []domain.Command{setWill(h.c, "x"), &domain.ClearWill{}} {
			if _, err := h.g.Do(t.Context(), h.user(1), c); domain.CodeOf(err) != domain.InvalidRequest {
				t.Errorf("%s over HTTP: %v", c.Name(), err)
			}
		}
		// Coming and going is no way around the limits.
		h.pass(10 * time.Second)
		var refused int
		for i := range 10 {
			if c, err := h.dial(h.user(1), device(fmt.Sprint(i)), h.withWill("spam", 0)); err == nil {
				c.hangUp()
			} else if domain.CodeOf(err) == domain.RateLimited {
				refused++
			}
		}
		if refused != 6 {
			t.Errorf("%d of 10 wills at once were refused", refused)
		}
		alice := h.connect(2, device("x"))
		for range 4 {
			alice.hand(setWill(h.c, "spam"))
		}
		if code := alice.hand(setWill(h.c, "spam")); code != domain.RateLimited {
			t.Errorf("a fifth will: %q", code)
		}
		h.settle()
		if n := h.wills.kept(); n != 1 {
			t.Errorf("%d wills are left", n)
		}
	})
}

// withoutWill is an option that changes nothing.
func (h *heir) withoutWill() option { return func(*client, *domain.Hello) {} }

func TestSessionsOfAUserHaveWillsOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		phone, pad := h.connect(1), h.connect(1, device("pad"))
		phone.hand(setWill(h.c, "phone"))
		pad.hand(setWill(h.c, "pad"))
		pad.hand(&domain.ClearWill{})
		pad.hand(setWill(h.c, "pad again"))
		phone.hangUp()
		h.want("one is lost", "willMessage phone")
		pad.hangUp()
		h.want("both are lost", "willMessage phone", "willMessage pad again")
		// Neither has a will in its next connection.
		h.connect(1).hangUp()
		h.want("once more", "willMessage phone", "willMessage pad again")
	})
}

func TestWillsAreInTheStoreBeforeTheyAreAcknowledged(t *testing.T) {
	// Else a crash of the gateway would lose what was promised.
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		alice := h.connect(1)
		held := newGate()
		h.wills.set(func() { h.wills.held = held })
		set := alice.submit(domain.Request{Command: setWill(h.c, "1"), Name: "setWill"})
		again := alice.submit(domain.Request{Command: setWill(h.c, "2"), Name: "setWill"})
		clearing := alice.submit(domain.Request{Command: &domain.ClearWill{}, Name: "clearWill"})
		last := alice.submit(domain.Request{Command: setWill(h.c, "3"), Name: "setWill"})
		h.settle()
		for _, a := range []*answer{set, again, clearing, last} {
			if a.answered() {
				t.Fatal("acknowledged before it was kept")
			}
		}
		// The connection ends with all of them under way: the last one counts, in the order in which they were given.
		alice.hangUp()
		h.want("while the store is busy")
		held.open()
		h.want("after", "willMessage 3")
		for _, a := range []*answer{set, again, clearing, last} {
			if a.code() != "" {
				t.Errorf("%q", a.code())
			}
		}
		if n := h.wills.kept(); n != 0 {
			t.Errorf("%d wills are left", n)
		}

		h.wills.set(func() { h.wills.away = true })
		pad := h.connect(1, device("pad"))
		if code := pad.hand(setWill(h.c, "4")); code != domain.Unavailable {
			t.Errorf("without a store: %q", code)
		}
		if _, err := h.dial(h.user(1), device("tv"), h.withWill("5", 0)); domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("a login without a store: %v", err)
		}
	})
}

func TestAGoodbyeMayBeHeardAfterTheNextLogin(t *testing.T) {
	// A client that disconnects and connects again at once does so on two connections, which do not wait for each other.
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		old := h.connect(1, h.withWill("goodbye", 0))
		time.AfterFunc(100*time.Millisecond, func() { old.session.Leave(true) })
		begin := time.Now()
		next := h.connect(1, h.withWill("taken over", 0))
		if took := time.Since(begin); took != 100*time.Millisecond {
			t.Errorf("the login took %s", took)
		}
		h.pass(time.Minute)
		h.want("after a goodbye")
		begin = time.Now()
		h.connect(1)
		if took := time.Since(begin); took != 250*time.Millisecond {
			t.Errorf("taking over took %s", took)
		}
		h.pass(time.Minute)
		h.want("taken over", "willMessage taken over")
		begin = time.Now()
		h.connect(1)
		if took := time.Since(begin); took != 0 || len(next.goodbyes()) != 1 {
			t.Errorf("without a will, taking over took %s", took)
		}
	})
}

func TestWillsOutlastTheStoresAbsence(t *testing.T) {
	// The store may be away just when a device is lost, and nobody knows what became of the last write.
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		alice, carol := h.connect(1, h.withWill("1", 0)), h.connect(1, device("pad"))
		h.wills.set(func() { h.wills.lost = 1 })
		if code := carol.hand(setWill(h.c, "2")); code != domain.Unavailable {
			t.Errorf("an unknown outcome: %q", code)
		}
		h.wills.set(func() { h.wills.away = true })
		alice.hangUp()
		carol.hangUp()
		h.pass(time.Minute)
		h.want("without the store")
		h.wills.set(func() { h.wills.away, h.wills.lost = false, 1 })
		h.pass(2 * time.Second)
		got := h.bob.signals(h.c)
		slices.Sort(got)
		if !slices.Equal(got, []string{"willMessage 1", "willMessage 2"}) {
			t.Errorf("told %q", got)
		}
	})
}

func TestSessionsWithoutWillsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		for i := range 10 {
			c := h.connect(1, device(fmt.Sprint(i)), durable(uint32(i%2*100)))
			h.settle()
			if i%3 == 0 {
				c.hand(&domain.ClearWill{})
			}
			c.hangUp()
		}
		h.settle()
		h.wills.mu.Lock()
		defer h.wills.mu.Unlock()
		if h.wills.calls != 0 || h.wills.asked > 1 {
			t.Errorf("the store was told %d times, and asked %d times", h.wills.calls, h.wills.asked)
		}
	})
}

func TestAShutdownIsNobodysLoss(t *testing.T) {
	// Everybody is back after a moment: the wills of all of them would be told to nobody, or be lies.
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		connected := []*client{
			h.bob, h.connect(1, h.withWill("back", 0)),
			h.connect(1, device("pad"), durable(3600), h.withWill("back anew", 0)),
			h.connect(1, device("watch"), h.withWill("not back", 0)),
			h.attach(service(1), device("bot"), h.withWill("bot", 0)),
		}
		h.connect(1, device("tv"), h.withWill("off", 0)).session.Leave(true)
		if err := h.g.Drain(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		for _, c := range connected {
			c.Close(domain.ShuttingDown())
		}
		h.settle()
		h.g.Close()

		n := h.again(t)
		n.connect(1)
		n.connect(1, device("pad"), durable(3600), anew)
		n.attach(service(1), device("bot"))
		n.pass(29 * time.Second)
		n.want("before the time is over")
		n.pass(2 * time.Second)
		n.want("when it is over", "willMessage not back")
		n.pass(time.Hour)
		if got := n.bob.signals(n.c); len(got) != 1 || n.wills.kept() != 0 {
			t.Errorf("told %q, %d wills are left", got, n.wills.kept())
		}
		if cancelled := n.outcome("cancelled"); cancelled != 3 {
			t.Errorf("%v wills were cancelled", cancelled)
		}
	})
}

func TestWillsOfADeadGatewayWaitForItsSuccessorsClients(t *testing.T) {
	// After a crash all come back at once; whoever is to be told must be there.
	synctest.Test(t, func(t *testing.T) {
		h := newHeir(t)
		for i := range 200 {
			h.connect(1, device(fmt.Sprint(i)), h.withWill(fmt.Sprintf("%03d", i), uint32(i%2*60)), durable(3600))
		}
		h.settle()
		h.g.Close() // and nothing is said of its sessions
		h.wills.lose(domain.Millis(time.Now()))
		n := h.again(t)
		n.connect(1, device("own"), n.withWill("own", 0)).hangUp()
		n.want("at once", "willMessage own")
		n.pass(4900 * time.Millisecond)
		n.want("before the others are back", "willMessage own")
		n.pass(200 * time.Millisecond)
		if got := len(n.bob.signals(n.c)); got != 101 {
			t.Errorf("%d wills were told", got)
		}
		n.pass(time.Minute)
		got := n.bob.signals(n.c)
		slices.Sort(got)
		if len(slices.Compact(got)) != 201 || n.outcome("sent") != 201 {
			t.Errorf("%d different wills were told, %v sent", len(slices.Compact(got)), n.outcome("sent"))
		}
	})
}
