package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/parley-im/parley/app"
	"github.com/parley-im/parley/persistence/pgtest"
)

func TestAcknowledgedMessagesSurviveKill9(t *testing.T) {
	// An acknowledgement means committed: a client that has one forgets the message, so nobody else may.
	onBothStores(t, func(t *testing.T, s store) {
		const kills = 4
		url := s.empty(t)
		gw := spawn(t, url)
		w := newWorld(t, gw.gateway)
		users := w.users(t, "ann", "ben", "cat")
		c := w.conversation(t, users...)
		l := drive(t, gw.gateway, c, users, 3)
		for range kills {
			l.more(t, 20+rand.Int64N(150))
			gw.signal(t, syscall.SIGKILL)
			if code := gw.exit(t); code != -1 {
				t.Fatalf("killed, and exit code %d", code)
			}
			gw = spawn(t, url)
			l.current.Store(gw.gateway)
		}
		l.more(t, 50)
		l.stop(t)
		w.gateway = gw.gateway
		w.service = gw.api(w.service.token)
		l.check(t, w.log(t, c))
		if l.broken.Load() == 0 {
			t.Error("nothing was under way when the gateway was killed; the test proves nothing")
		}
		// What was acknowledged is not just in the history: it is also known by its id.
		l.mu.Lock()
		defer l.mu.Unlock()
		d := w.connect(t, users[1], 5)
		for id, seq := range l.seqs {
			if seq == 0 || id[0] != '1' {
				continue
			}
			if a := d.say(t, c, map[string]any{"id": id, "text": id}); a.user["duplicate"] != "1" || a.seq() != seq {
				t.Errorf("message %s, acknowledged as %d, repeated after the kill: %v", id, seq, a.user)
			}
			break
		}
	})
}

func TestPostgresKilledUnderLoadLosesAndRepeatsNothing(t *testing.T) {
	// Databases are restarted, by operators and by accident. Clients must be told to wait, and those who only listen
	// must see one unbroken sequence.
	t.Parallel()
	server := pgtest.New(t)
	g := start(t, server.NewDatabase(t))
	w := newWorld(t, g)
	users := w.users(t, "ann", "ben", "eve")
	c := w.conversation(t, users...)
	listeners := []*device{w.connect(t, users[2], 4), w.connect(t, users[2], 5), w.connect(t, users[2], 5, withWindow(2))}
	for _, d := range listeners {
		d.subscribe(t, 1, "conversations/+/events")
	}
	l := drive(t, g, c, users[:2], 4)
	for round := range 3 {
		l.more(t, 60)
		if err := server.Kill9(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "readiness ends without a store", func() error {
			res, err := g.api("").do(t.Context(), "GET", "/readyz", nil)
			if err == nil && res.status != 503 {
				err = fmt.Errorf("%w: %d", errNotYet, res.status)
			}
			return err
		})
		if res := g.api("").any(t, "GET", "/livez", nil); res.status != 200 {
			t.Errorf("/livez says %d without a store", res.status)
		}
		if p := w.service.refused(t, "GET", "/v1/conversations/"+c, nil); p.Number != 30 || p.Status != 503 {
			t.Errorf("HTTP without a store: %+v", p)
		}
		hello := w.refuse(t, users[0], 5, named("newcomer"))
		if hello.reason != 0x88 {
			t.Errorf("CONNACK without a store: 0x%02x %s", hello.reason, hello.text)
		}
		if hello := w.refuse(t, users[0], 4, named("newcomer")); hello.reason != 3 {
			t.Errorf("CONNACK of 3.1.1 without a store: 0x%02x", hello.reason)
		}
		if round == 1 { // long enough for the gateway to lose patience; the other times it just waits
			eventually(t, "publishers hear that the store is gone", func() error {
				if l.refused.Load() == 0 {
					return errNotYet
				}
				return nil
			})
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "readiness comes back", func() error {
			_, err := g.api("").try(t.Context(), "GET", "/readyz", nil)
			return err
		})
	}
	l.more(t, 60)
	l.stop(t)
	log := w.log(t, c)
	l.check(t, log)
	for _, d := range listeners {
		for i, ev := range d.hearUpTo(t, c, 2, int64(len(log))) {
			if want := log[i+1]; ev.Message == nil || ev.Message.UUID != want.Message.UUID || ev.Message.ID != want.Message.ID {
				t.Fatalf("event %d was heard as %s, stored is %s", ev.Seq, ev.raw, mustJSON(t, want))
			}
		}
		d.heardAll(t)
	}
	if l.broken.Load() == 0 {
		t.Error("clients of 3.1.1 were not disconnected, though nobody could tell them that the store was gone")
	}
}

func TestGatewaysStartedAtOnceOnAFreshPostgresAllComeUp(t *testing.T) {
	// A deployment starts several at the same moment, and the very first time they all want to create the schema.
	t.Parallel()
	url := store{"postgres"}.empty(t)
	const n = 3
	gateways := make([]*gateway, n)
	var starting errgroup.Group
	for i := range n {
		starting.Go(func() error {
			g, err := begin(t.Context(), testConfig(url), app.Options{})
			gateways[i] = g
			return err
		})
	}
	err := starting.Wait()
	for _, g := range gateways {
		if g != nil {
			defer func() {
				if err := g.stop(); err != nil {
					t.Error(err)
				}
			}()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	// They are one: accounts, logins, conversations and idempotency keys made on one hold on the others.
	w := newWorld(t, gateways[0])
	users := w.users(t, "alice", "bob")
	c := w.conversation(t, users...)
	token := w.token(t, users[0])
	var first int64
	for i, g := range gateways {
		d := g.connect(t, users[0], 5, withPassword(token))
		a := d.say(t, c, map[string]any{"id": "the same", "text": "hello"})
		if i == 0 {
			first = a.seq()
		} else if a.seq() != first || a.user["duplicate"] != "1" {
			t.Errorf("gateway %d stores a message again: %v", i, a.user)
		}
		if a := d.say(t, c, text(fmt.Sprint("from gateway ", i))); a.seq() != int64(i)+3 {
			t.Errorf("gateway %d gives the number %d, want %d", i, a.seq(), i+3)
		}
	}
	w.log(t, c)
}

func TestConcurrentWritersOnTwoGatewaysShareOneSequence(t *testing.T) {
	// Two nodes on one store are how an operator updates without an outage; the log must not notice.
	t.Parallel()
	url := store{"postgres"}.empty(t)
	one, two := start(t, url), start(t, url)
	w := newWorld(t, one)
	users := w.users(t, "ann", "ben")
	c := w.conversation(t, users...)
	loads := []*load{drive(t, one, c, users[:1], 3), drive(t, two, c, users[1:], 3)}
	loads[1].stop(t)
	loads[1] = drive(t, two, c, []user{users[1], users[1]}[:1], 3) // the same ids again: all duplicates, then new ones
	for _, l := range loads {
		l.more(t, 80)
	}
	for _, l := range loads {
		l.stop(t)
	}
	log := w.log(t, c)
	for i, l := range loads {
		prefix := users[i].Name
		var own []event
		for _, ev := range log {
			if ev.Initiator.Username == prefix {
				own = append(own, ev)
			}
		}
		l.check(t, own)
	}
}

func TestGatewayComesBackAtOnceAfterKill9(t *testing.T) {
	// A lock, a half-written file or a schema half made must not keep a killed gateway from starting again.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		for i := range 3 {
			gw := spawn(t, url)
			w := newWorld(t, gw.gateway)
			u := w.user(t, fmt.Sprint("user", i))
			w.conversation(t, u)
			gw.signal(t, syscall.SIGKILL)
			gw.exit(t)
		}
		gw := spawn(t, url)
		var found struct{ Users []user }
		gw.api(adminKey).ok(t, "GET", "/v1/users?q=user", nil).into(t, &found)
		if len(found.Users) != 3 {
			t.Errorf("%d users of 3 are left", len(found.Users))
		}
	})
}

func TestPipelinedAcknowledgementsTellTheTruthAfterKill9(t *testing.T) {
	// With many messages under way at once, each acknowledgement's number must be the one that the message has.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		gw := spawn(t, url)
		w := newWorld(t, gw.gateway)
		users := w.users(t, "ann")
		c := w.conversation(t, users...)
		r := w.rawConnect(t, users[0], 5)
		var (
			mu    sync.Mutex
			acked = make(map[string]string) // number by text
			slots = make(chan struct{}, 60)
			ended = make(chan error, 1)
		)
		go func() {
			for {
				p, err := r.tryRead()
				if err != nil {
					ended <- err
					return
				}
				if p.kind == typePuback && p.reason == 0 {
					mu.Lock()
					acked[fmt.Sprint(p.id)] = p.props.user["seq"]
					mu.Unlock()
				}
				<-slots
			}
		}()
		killAt := uint16(400 + rand.IntN(400))
		for id := uint16(1); ; id++ {
			if id == killAt {
				gw.signal(t, syscall.SIGKILL)
			}
			select {
			case slots <- struct{}{}:
			case err := <-ended:
				t.Logf("killed after %d publishes: %v", id, err)
				gw.exit(t)
				gw = spawn(t, url)
				w.gateway, w.service = gw.gateway, gw.api(w.service.token)
				stored := make(map[string]string)
				for _, ev := range w.log(t, c) {
					if ev.Message != nil {
						stored[ev.Message.Text] = fmt.Sprint(ev.Seq)
					}
				}
				for text, seq := range acked {
					if stored[text] != seq {
						t.Errorf("message %s was acknowledged as %s, stored is %q", text, seq, stored[text])
					}
				}
				if len(acked) == 0 {
					t.Error("nothing was acknowledged")
				}
				return
			case <-time.After(patience):
				t.Fatal("no acknowledgement")
			}
			payload, err := json.Marshal(text(fmt.Sprint(id)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.conn.Write(r.publishPacket(messagesTopic(c), payload, 1, id)); err != nil && errors.Is(err, syscall.EINVAL) {
				t.Fatal(err)
			}
		}
	})
}
