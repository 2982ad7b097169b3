package e2e_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/parley-im/parley/configs"
	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/e2e/chaos"
	"github.com/parley-im/parley/persistence"
)

// backlog fills the conversations with n messages each, straight into the store of a gateway that is down.
func backlog(tb testing.TB, url string, sender user, conversations []string, n int) {
	tb.Helper()
	store, err := persistence.Open(tb.Context(), persistence.Options{URL: url})
	if err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	}()
	log := store.Logs()[0]
	found, err := store.FindUsers(tb.Context(), []domain.UserRef{{UserID: domain.UserID(sender.ID)}})
	if err != nil || len(found) != 1 {
		tb.Fatal(found, err)
	}
	p := found[0].Principal("filler")
	var batch []domain.Draft
	flush := func() {
		placed, err := log.Append(tb.Context(), batch)
		if err != nil {
			tb.Fatal(err)
		}
		for _, pl := range placed {
			if pl.Status != domain.Stored {
				tb.Fatalf("a draft was not stored: %v", pl)
			}
		}
		batch = batch[:0]
	}
	for _, c := range conversations {
		id, err := domain.ParseConversationID(c)
		if err != nil {
			tb.Fatal(err)
		}
		heads, err := store.Heads(tb.Context(), domain.Principal{Admin: true}, domain.Needs{Conversation: id})
		if err != nil {
			tb.Fatal(err)
		}
		heads.Now, heads.Limits = domain.Millis(time.Now()), domain.DefaultLimits()
		for i := range n {
			text := fmt.Sprint("message ", i)
			decision, err := domain.Decide(heads, p, &domain.SendMessage{
				Conversation: id, MessageRequest: domain.MessageRequest{ClientID: fmt.Sprint("m", i), Content: domain.Content{Text: text}},
			})
			if err != nil {
				tb.Fatal(err)
			}
			batch = append(batch, domain.Draft{Event: decision.Events[0], Version: heads.Conversation.Version})
			if len(batch) == 4096 {
				flush()
			}
		}
	}
	flush()
}

// behindIn makes a device of bob's that is n events behind in each of so many conversations, on a gateway that has been
// started since.
func behindIn(t *testing.T, s store, conversations, n int) (w *world, alice, bob user, list []string) {
	t.Helper()
	url := s.empty(t)
	g := start(t, url)
	w = newWorld(t, g)
	users := w.users(t, "alice", "bob")
	as := w.as(t, users[0])
	var made struct{ Conversation conversation }
	for range conversations {
		as.ok(t, "POST", "/v1/conversations", map[string]any{"participants": refs(users[1])}).into(t, &made)
		list = append(list, made.Conversation.UUID)
	}
	p := w.phone(t, users[1], lasting(5, "phone"))
	p.follow(t, 1, allEvents)
	p.goodbye(t)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	backlog(t, url, users[0], list, n)
	t.Logf("%d events were stored in %v", conversations*n, time.Since(begin).Round(time.Millisecond))
	w.gateway = start(t, url)
	w.service, w.admin = w.api(w.service.token), w.api(w.admin.token)
	return w, users[0], users[1], list
}

// heap gives the memory in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// long tells whether this is the run that has time: `make chaos`.
func long() bool { return os.Getenv("CHAOS") != "" }

func TestCatchUpOfAnyBacklogNeedsBoundedMemory(t *testing.T) {
	// A device that is very far behind must cost the gateway no more memory than one that is a little behind, and must not
	// keep new messages from the others.
	for name, size := range map[string]struct{ conversations, each, most int }{
		"200,000 events in 500 conversations": {500, 400, 16 << 20},
		"5,000 conversations, one event each": {5000, 1, 16 << 20},
	} {
		if !long() {
			size.conversations /= 20
		}
		t.Run(name, func(t *testing.T) {
			for _, s := range []store{{"sqlite"}, {"postgres"}} { // one after the other, for the memory is measured
				t.Run(s.name, func(t *testing.T) {
					w, alice, bob, list := behindIn(t, s, size.conversations, size.each)
					listener := w.connect(t, alice, 5)
					listener.subscribe(t, 1, eventsTopic(list[0]))
					before := heap()
					begin := time.Now()
					p := w.phone(t, bob, lasting(5, "phone"))
					next := make(map[string]int64, len(list))
					total := size.conversations * size.each
					peak := before
					as := w.as(t, alice)
					for i := 0; i < total; i++ {
						ev := p.event(t)
						if want := max(next[ev.Conversation], 2); ev.Seq != want {
							t.Fatalf("event %d of %s came where %d was due", ev.Seq, ev.Conversation, want)
						}
						next[ev.Conversation] = ev.Seq + 1
						if len(p.held) >= 32 || !p.Buffered() {
							p.ackAll(t)
						}
						switch {
						case i == size.conversations*size.each/2 && size.each > 1:
							// Others do not notice.
							said := time.Now()
							w.sayVia(t, as, list[0], 1)
							listener.hear(t, list[0])
							t.Logf("a message took %v meanwhile", time.Since(said).Round(time.Microsecond))
							total++ // comes in its turn
						case i%(total/10+1) == 0:
							peak = max(peak, heap())
						}
					}
					p.ackAll(t)
					p.settled(t)
					t.Logf("%d events in %v, %.1f MiB more than before", total, time.Since(begin).Round(time.Millisecond),
						float64(peak-min(before, peak))/(1<<20))
					if peak > before+uint64(size.most) {
						t.Errorf("catching up took %d KiB", (peak-before)>>10)
					}
					for _, c := range list {
						if next[c] < int64(size.each+2) {
							t.Fatalf("of %s it has all before %d", c, next[c])
						}
					}
				})
			}
		})
	}
}

func TestConversationsTakeTurnsInCatchUp(t *testing.T) {
	// A device that is behind by thousands in one busy conversation must not wait for the end of that to hear from a friend.
	onBothStores(t, func(t *testing.T, s store) {
		w, _, bob, list := behindIn(t, s, 3, 300)
		p := w.phone(t, bob, lasting(5, "phone", window(8)))
		first := make(map[string]int)
		for i := range 900 {
			ev := p.event(t)
			if _, seen := first[ev.Conversation]; !seen {
				first[ev.Conversation] = i
			}
			p.ackAll(t)
		}
		for _, c := range list {
			if first[c] > 200 {
				t.Errorf("the first event of a conversation came after %d others", first[c])
			}
		}
	})
}

func TestSlowReadersLoseNothing(t *testing.T) {
	// On bad networks phones stop reading, or read next to nothing; they must get everything in the end, and nobody else
	// may notice.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol")
		c := w.conversation(t, users...)
		as := w.as(t, users[0])
		for name, weather := range map[string]chaos.Weather{
			"stopped": {Stalled: true}, "one byte per second": {Rate: 1},
		} {
			proxy, err := chaos.NewProxy(func() string { return w.addrs.MQTT })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(proxy.Close)
			for _, l := range []chaos.Login{lasting(4, name+"4"), lasting(5, name+"5"), lasting(5, name+"1", window(1))} {
				proxy.Set(chaos.Weather{})
				p := phoneAt(t, proxy.Addr(), users[1], l)
				p.follow(t, 1, allEvents)
				listener := w.phone(t, users[2], chaos.Login{Version: 5, Device: "listener", Clean: true})
				listener.follow(t, 1, allEvents)
				proxy.Set(weather)
				last := w.sayVia(t, as, c, 60)
				listener.want(t, c, last-59, last)
				listener.goodbye(t)
				proxy.Set(chaos.Weather{})
				for seq := last - 59; seq <= last-30; seq++ {
					p.want(t, c, seq, seq)
				}
				p.settled2(t)
				proxy.Cut() // and in the middle of it, the network is gone
				p = phoneAt(t, proxy.Addr(), users[1], l)
				if !p.Present {
					t.Fatal("the session is gone")
				}
				ev := p.event(t)
				if ev.Seq != last-29 {
					t.Fatalf("event %d came where %d was due", ev.Seq, last-29)
				}
				p.ackAll(t)
				for seq := last - 28; seq <= last; seq++ {
					p.want(t, c, seq, seq)
				}
				p.settled(t)
				p.goodbye(t)
			}
		}
	})
}

func TestReaderThatTakesNothingIsDisconnectedAndKeepsItsPlace(t *testing.T) {
	// A phone that fell into the sea must not hold a socket for ever; one that was only in a long tunnel goes on where it was.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t), func(c *configs.Config) { c.Limits.WriteTimeout = time.Second })
		w := newWorld(t, g)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		proxy, err := chaos.NewProxy(func() string { return w.addrs.MQTT })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(proxy.Close)
		p := phoneAt(t, proxy.Addr(), users[1], lasting(5, "phone", window(1000)))
		p.follow(t, 1, allEvents)
		as := w.as(t, users[0])
		w.sayVia(t, as, c, 3)
		p.want(t, c, 2, 4)
		proxy.Set(chaos.Weather{Stalled: true})
		const n = 400 // more than the buffers between here and there take
		sender := w.rawConnect(t, users[0], 5)
		payload := mustJSON(t, map[string]any{"parts": []any{map[string]any{"mimeType": "text/plain", "body": strings.Repeat("x", 30<<10)}}})
		for id := uint16(1); id <= n; id++ {
			sender.write(t, sender.publishPacket(messagesTopic(c), payload, 1, id))
			if id%40 == 0 {
				for sender.expect(t, typePuback).id != id {
				}
			}
		}
		eventually(t, "the phone is given up", func() error {
			if slow := g.metric(t, "parley_mqtt_slow_disconnects_total"); slow != 1 {
				return fmt.Errorf("%v disconnects", slow)
			}
			if sessions := g.metric(t, "parley_sessions"); sessions != 1 { // the sender's
				return fmt.Errorf("%v sessions", sessions)
			}
			return nil
		})
		proxy.Set(chaos.Weather{})
		p = phoneAt(t, proxy.Addr(), users[1], lasting(5, "phone"))
		if !p.Present {
			t.Error("the session is gone")
		}
		p.want(t, c, 5, n+4)
		p.settled(t)
	})
}

// settled2 waits until all that was acknowledged is known, whatever comes meanwhile.
func (p *phone) settled2(tb testing.TB) {
	tb.Helper()
	if err := p.Ping(); err != nil {
		tb.Fatal(err)
	}
	for p.read(tb).Kind != chaos.KindPingresp {
	}
}

func TestEventTooLargeForTheClientIsSkippedAndNamed(t *testing.T) {
	// MQTT forbids to send what the client cannot take. It must not stop what follows, and the client must be able to fetch
	// it by other means, so it must know.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		as := w.as(t, users[0])
		p := w.phone(t, users[1], lasting(5, "phone", largest(2000)))
		p.follow(t, 1, allEvents, users[1].inbox())
		p.goodbye(t)
		w.sayVia(t, as, c, 1)
		big := make([]byte, 4000)
		for i := range big {
			big[i] = 'x'
		}
		as.ok(t, "POST", "/v1/conversations/"+c+"/messages", text(string(big)))
		w.sayVia(t, as, c, 1)
		p = w.phone(t, users[1], lasting(5, "phone", largest(2000)))
		events, skipped := []int64(nil), []int64(nil)
		for len(events) < 2 || len(skipped) < 1 {
			got := p.read(t)
			var n struct {
				Type, Conversation string
				Seq                int64
			}
			mustDecode(t, got.Payload, &n)
			if got.Topic == users[1].inbox() {
				if n.Type == "eventSkipped" {
					skipped = append(skipped, n.Seq)
				}
			} else {
				events = append(events, n.Seq)
			}
			if got.QoS > 0 {
				p.held = append(p.held, got.ID)
			}
			p.ackAll(t)
		}
		same(t, "delivered", events, []int64{2, 4})
		same(t, "named in the inbox", skipped, []int64{3})
		p.goodbye(t)
		// It counts as acknowledged: a larger client on the same session does not get it any more.
		p = w.phone(t, users[1], lasting(5, "phone"))
		w.sayVia(t, as, c, 1)
		p.want(t, c, 5, 5)
	})
}
