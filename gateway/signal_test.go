package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

// allSignals is the filter that nearly every client uses.
const allSignals = "conversations/+/signals"

// signals gives the signals that the client got of a conversation, each as its type and what it says.
func (c *client) signals(of domain.ConversationID) []string {
	said := []string{}
	for _, n := range c.notices("conversations/" + of.String() + "/signals") {
		s := fmt.Sprint(n["type"])
		for _, field := range []string{"state", "seq"} {
			if v, ok := n[field]; ok {
				s += fmt.Sprint(" ", v)
			}
		}
		if m, ok := n["message"].(map[string]any); ok {
			s += fmt.Sprint(" ", m["text"])
		}
		said = append(said, s)
	}
	return said
}

func (c *client) wantSignals(of domain.ConversationID, want ...string) {
	c.w.t.Helper()
	if got := c.signals(of); !slices.Equal(got, want) {
		c.w.t.Errorf("%s got the signals %q, want %q", c.principal.Username, got, want)
	}
}

// typing makes a typing command.
func typing(c domain.ConversationID, state domain.TypingState) *domain.Typing {
	return &domain.Typing{Conversation: c, State: state}
}

// transient makes a message for those online only.
func transient(c domain.ConversationID, text string) *domain.SendMessage {
	m := message(c, text, "")
	m.Options = &domain.Options{Transient: true}
	return m
}

// read makes a command that marks a conversation as read.
func read(c domain.ConversationID, seq int64) *domain.MarkAsRead {
	return &domain.MarkAsRead{Conversation: c, Seq: &seq}
}

func TestTypingIsToldAtMostEveryTwoSeconds(t *testing.T) {
	// A client that tells of every key must not be heard of for every key; who types elsewhere must be heard.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, other := w.converse(1, 2, 3), w.cold(1, 2)
		bob := w.connect(2)
		bob.subscribe(allSignals, domain.SubscribeOptions{QoS: 1})
		for range 3 {
			w.do(1, typing(c, ""))
		}
		bob.wantSignals(c, "typing started")
		w.do(3, typing(c, "paused"))
		w.do(1, typing(other, ""))
		bob.wantSignals(c, "typing started", "typing paused")
		bob.wantSignals(other, "typing started")
		if d := bob.deliveries[0]; d.QoS != 0 || d.Seq != 0 {
			t.Errorf("a signal was delivered as %+v", d)
		}
		w.pass(1900 * time.Millisecond)
		w.do(1, typing(c, ""))
		w.pass(200 * time.Millisecond)
		bob.wantSignals(c, "typing started", "typing paused")
		w.do(1, typing(c, ""))
		bob.wantSignals(c, "typing started", "typing paused", "typing started")
		if last := w.store.last(c); last != 1 {
			t.Errorf("%d events are stored", last)
		}
	})
}

func TestTheLastStateOfTypingIsToldInTheEnd(t *testing.T) {
	// Who has finished must not seem to type for ever, only because it was quick.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		bob := w.connect(2)
		bob.subscribe(allSignals, domain.SubscribeOptions{})
		for _, state := range []domain.TypingState{"started", "paused", "finished"} {
			w.do(1, typing(c, state))
		}
		w.pass(1999 * time.Millisecond)
		bob.wantSignals(c, "typing started")
		w.pass(2 * time.Millisecond)
		bob.wantSignals(c, "typing started", "typing finished")
		w.do(1, typing(c, "started")) // within two seconds of that
		w.do(1, typing(c, "finished"))
		w.pass(time.Minute)
		bob.wantSignals(c, "typing started", "typing finished")

		w.do(3, typing(c, "started"))
		w.do(3, typing(c, "finished"))
		w.do(1, remove(c, 3))
		w.pass(time.Minute)
		bob.wantSignals(c, "typing started", "typing finished", "typing started")
	})
}

func TestSignalsAreForParticipantsWhoSubscribed(t *testing.T) {
	// A signal tells who is there and what they do: nobody else's business.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, other := w.converse(1, 2, 3), w.converse(2, 3)
		phone, tablet := w.connect(1, device("phone")), w.connect(1, device("tablet"))
		phone.subscribe(allSignals, domain.SubscribeOptions{NoLocal: true})
		tablet.subscribe(allSignals, domain.SubscribeOptions{})
		bob := w.connect(2)
		bob.subscribe(allSignals, domain.SubscribeOptions{Identifier: 7})
		bob.subscribe("conversations/"+c.String()+"/signals", domain.SubscribeOptions{Identifier: 9})
		carol, stranger := w.subscriber(3), w.connect(4)
		stranger.subscribe(allSignals, domain.SubscribeOptions{})
		if a := phone.submit(domain.Request{Command: transient(c, "hello"), Name: "sendMessage"}); a.code() != "" {
			t.Errorf("refused: %v", a.err)
		}
		w.settle()
		phone.wantSignals(c)
		tablet.wantSignals(c, "transientMessage hello")
		bob.wantSignals(c, "transientMessage hello")
		if ids := bob.deliveries[0].Identifiers; !slices.Equal(ids, []int{7, 9}) {
			t.Errorf("delivered with the identifiers %v", ids)
		}
		carol.wantSignals(c)
		stranger.wantSignals(c)
		bob.wantSignals(other)
		w.do(1, remove(c, 2))
		w.do(1, transient(c, "again"))
		bob.wantSignals(c, "transientMessage hello")
		for _, command := range []domain.Command{transient(c, "no"), typing(c, "")} {
			if _, err := w.g.Do(t.Context(), w.user(2), command); domain.CodeOf(err) != domain.AccessDenied {
				t.Errorf("%s by somebody removed: %v", command.Name(), err)
			}
		}
	})
}

func TestTransientMessagesLeaveNoTrace(t *testing.T) {
	// They are neither stored nor numbered, also when the conversation is not in memory yet.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cold(1, 2)
		bob := w.subscriber(2)
		bob.subscribe(allSignals, domain.SubscribeOptions{})
		m := transient(c, "one")
		m.ClientID = "k"
		for range 2 {
			r := w.do(1, m)
			if r.Seq != 0 || r.Duplicate || r.Result.Message == nil || r.Result.Message.Text != "one" || !r.Result.Message.ID.IsZero() {
				t.Errorf("answered with %+v", r)
			}
		}
		bob.wantSignals(c, "transientMessage one", "transientMessage one")
		stored := w.do(1, message(c, "two", "k"))
		if stored.Seq != 2 || stored.Duplicate {
			t.Errorf("the message after them: %+v", stored)
		}
		bob.wantSeqs(c, span(2, 2))
		if appends, changes, _, _, _ := w.store.tally(); appends != 1 || changes != 1 {
			t.Errorf("%d appends, %d changes", appends, changes)
		}
		for _, body := range bob.notices("conversations/" + c.String() + "/signals") {
			m := body["message"].(map[string]any)
			if _, has := m["uuid"]; has || m["seq"] != nil || body["seq"] != nil {
				t.Errorf("told as %v", body)
			}
		}
	})
}

func TestTransientMessagesAreThrottledAlone(t *testing.T) {
	// Too fast a sender is told so; what it sends for the log, and what others send, goes on.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.TransientRate = 10 })
		c := w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2)
		bob.subscribe(allSignals, domain.SubscribeOptions{})
		alice.subscribe(alice.replies(), domain.SubscribeOptions{})
		passed, stored := 0, 0
		for n := range 50 {
			a := alice.submit(domain.Request{Command: transient(c, "x"), Name: "sendMessage", RequestID: fmt.Sprint(n), WantsReply: true})
			switch a.code() {
			case "":
				passed++
			case domain.RateLimited:
			default:
				t.Fatalf("%v", a.err)
			}
			if a := alice.send(c, "kept"); n%10 == 0 {
				<-a.done
				stored++
			}
		}
		w.settle()
		if passed != 20 || len(bob.signals(c)) != 20 {
			t.Errorf("%d passed, %d arrived, of an allowance of 20", passed, len(bob.signals(c)))
		}
		if got := len(bob.seqs(c)); got != 50 {
			t.Errorf("%d messages arrived", got)
		}
		refused := 0
		for _, r := range alice.notices(alice.replies()) {
			if e, ok := r["error"].(map[string]any); ok && e["code"] == "rate-limited" {
				refused++
			}
		}
		if refused != 30 {
			t.Errorf("the sender was told %d times", refused)
		}
		w.do(2, transient(c, "mine"))
		w.pass(time.Second)
		if _, err := w.g.Do(t.Context(), w.user(1), transient(c, "later")); err != nil {
			t.Errorf("a second later: %v", err)
		}
	})
}

func TestFloodsOfSignalsHurtNobody(t *testing.T) {
	// Whoever reads slowly misses signals, and nothing else: not its events, its replies or its session.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		bob := w.subscriber(2, idle)
		bob.subscribe(allSignals, domain.SubscribeOptions{})
		bob.subscribe(bob.replies(), domain.SubscribeOptions{})
		big := strings.Repeat("x", 4000)
		for n := range 500 {
			w.do(1, transient(c, big))
			if n%10 == 0 {
				w.do(1, message(c, "kept", ""))
				bob.submit(domain.Request{Command: &domain.GetMe{}, Name: "getMe", RequestID: fmt.Sprint(n), WantsReply: true})
			}
		}
		w.settle()
		for {
			n, err := bob.pull(8, 8)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			// What is sequenced comes first.
			if len(bob.signals(c)) > 0 && len(bob.seqs(c)) < 50 {
				t.Fatalf("signals before %d events", 50-len(bob.seqs(c)))
			}
		}
		bob.wantSeqs(c, span(2, 51))
		if got := len(bob.notices(bob.replies())); got != 50 {
			t.Errorf("%d replies", got)
		}
		if got := len(bob.signals(c)); got == 0 || got*4000 > 512<<10 {
			t.Errorf("%d signals waited", got)
		}
		if len(bob.goodbyes()) != 0 {
			t.Errorf("the session was ended: %v", bob.goodbyes())
		}
		for range 300 {
			w.do(1, transient(c, "x"))
		}
		before := len(bob.signals(c))
		for n := 1; n > 0; {
			n, _ = bob.pull(64, 64)
		}
		if got := len(bob.signals(c)) - before; got != 256 {
			t.Errorf("%d small signals waited, want 256", got)
		}
	})
}

func TestReadMarksDoNotSplitTransactions(t *testing.T) {
	// Readers mark what writers write: were their commands committed in the order in which they mingle, each would pay a
	// flush to the disk.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		w.do(1, message(c, "first", ""))
		appends, changes, _, _, _ := w.store.tally()
		held := w.store.holdCommits()
		first := w.start(w.user(1), message(c, "holds the committer", ""))
		<-held.arrived
		var answers []*answer
		for range 20 {
			answers = append(answers, w.start(w.user(1), message(c, "more", "")), w.start(w.user(2), read(c, 2)))
			w.settle()
		}
		held.open()
		w.settle()
		for _, a := range append(answers, first) {
			if a.code() != "" {
				t.Errorf("%s: %v", a.command.Name(), a.err)
			}
		}
		nowAppends, nowChanges, _, _, _ := w.store.tally()
		if nowAppends-appends != 2 || nowChanges-changes != 1 {
			t.Errorf("%d transactions of messages and %d of marks", nowAppends-appends, nowChanges-changes)
		}
		// A change that was given after a mark finds it done.
		held = w.store.holdCommits()
		first = w.start(w.user(1), message(c, "holds the committer", ""))
		<-held.arrived
		mark := w.start(w.user(2), read(c, 3))
		w.settle()
		gone := w.start(w.user(1), remove(c, 2))
		w.settle()
		held.open()
		w.settle()
		if first.code() != "" || mark.code() != "" || gone.code() != "" {
			t.Errorf("%v, %v, %v", first.err, mark.err, gone.err)
		}
	})
}

func TestReadingIsToldToTheOthersAndToOnesOtherDevices(t *testing.T) {
	// The others see that they were read; the tablet stops ringing for what was read on the phone.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		for _, text := range texts("m", 4) {
			w.do(1, message(c, text, "")) // 2 to 5
		}
		alice := w.connect(1)
		alice.subscribe(allSignals, domain.SubscribeOptions{})
		phone, tablet := w.connect(2, device("phone")), w.connect(2, device("tablet"))
		phone.subscribe(phone.inbox(), domain.SubscribeOptions{})
		tablet.subscribe(tablet.inbox(), domain.SubscribeOptions{})
		w.settle()
		counts := func(c *client) []string {
			var list []string
			for _, n := range c.notices(c.inbox()) {
				list = append(list, fmt.Sprint(n["type"], " ", n["unread"], " of ", n["lastSeq"], ", read ", n["lastRead"]))
			}
			return list
		}
		want := func(who *client, notices ...string) {
			t.Helper()
			if got := counts(who); !slices.Equal(got, notices) {
				t.Errorf("%s has %q, want %q", who.session.Principal().Device, got, notices)
			}
		}
		if a := phone.submit(domain.Request{Command: read(c, 3), Name: "markAsRead"}); true {
			<-a.done
			if a.err != nil || a.receipt.Conversation != c || a.receipt.Seq != 0 {
				t.Errorf("answered %+v, %v", a.receipt, a.err)
			}
		}
		w.settle()
		want(phone, "unread 4 of 5, read 0")
		want(tablet, "unread 4 of 5, read 0", "unread 2 of 5, read 3")
		w.do(2, &domain.MarkAsRead{Conversation: c}) // over HTTP: from no device
		want(phone, "unread 4 of 5, read 0", "unread 0 of 5, read 5")
		want(tablet, "unread 4 of 5, read 0", "unread 2 of 5, read 3", "unread 0 of 5, read 5")
		w.do(2, read(c, 0))
		want(phone, "unread 4 of 5, read 0", "unread 0 of 5, read 5", "unread 4 of 5, read 1")
		alice.wantSignals(c, "read 3", "read 5", "read 1")
		if m := tablet.notices(tablet.inbox())[1]["lastMessage"].(map[string]any); m["text"] != "m003" {
			t.Errorf("the last message is %v", m)
		}
		if _, err := w.g.Do(t.Context(), w.user(2), read(c, 6)); domain.CodeOf(err) != domain.SequenceOutOfRange {
			t.Errorf("beyond the last event: %v", err)
		}
	})
}

func TestMarksOutliveAnUnknownOutcome(t *testing.T) {
	// A mark is given again until the store says that it has it; the client hears of one success.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		w.do(1, message(c, "x", ""))
		alice := w.connect(1)
		alice.subscribe(allSignals, domain.SubscribeOptions{})
		w.store.failAfterCommit(2)
		w.do(2, read(c, 2))
		w.pass(time.Second)
		alice.wantSignals(c, "read 2")
		up := w.store.down()
		a := w.start(w.user(2), read(c, 1))
		w.pass(time.Minute)
		up()
		if a.code() != domain.Unavailable {
			t.Errorf("with the store away: %q", a.code())
		}
	})
}

func TestDevicesAreToldOnceWhatIsUnread(t *testing.T) {
	// Whoever comes back sees at a glance where something waits: where, and not again and again.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for n := range 60 {
			c := w.converse(1, 2)
			if n%12 != 0 {
				w.do(1, message(c, "x", ""))
			}
		}
		bob := w.connect(2)
		w.settle()
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{QoS: 1})
		w.settle()
		if n := len(bob.unread()); n != 50 || len(bob.types()) > 0 {
			t.Errorf("%d notices, and %v", n, bob.types())
		}
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{QoS: 1})
		w.settle()
		if n := len(bob.unread()); n != 50 {
			t.Errorf("%d notices after another SUBSCRIBE", n)
		}
	})
}

func TestADeviceThatGoesOnIsToldWhatIsUnread(t *testing.T) {
	// It does not subscribe again.
	synctest.Test(t, func(t *testing.T) {
		kept := &shelf{positions: make(map[domain.ConversationID]domain.Seq)}
		w := newWorld(t, func(o *gateway.Options) { o.Sessions = kept })
		kept.store = w.store
		c := w.converse(1, 2)
		durable := func(_ *client, h *domain.Hello) { h.Expiry = 3600 }
		bob := w.connect(2, durable)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{QoS: 1})
		bob.hangUp()
		w.settle()
		w.do(1, message(c, "while away", ""))
		bob = w.connect(2, durable)
		w.settle()
		if n := len(bob.unread()); n != 1 {
			t.Errorf("told %d times", n)
		}
	})
}

func TestCountingWaitsForTheStore(t *testing.T) {
	// A notice that is due is late when the store is away, and not lost. Nor does it keep the gateway from ending.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		w.do(1, message(c, "x", ""))
		bob := w.connect(2)
		w.store.set(func() {
			w.store.onHeads = func(context.Context, domain.Needs) error { return errGone() }
		})
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		w.pass(10 * time.Second)
		if n := len(bob.unread()); n != 0 {
			t.Errorf("%d notices with the store away", n)
		}
		w.store.heal()
		w.pass(2 * time.Second)
		if n := len(bob.unread()); n != 1 {
			t.Errorf("told %d times", n)
		}
		w.store.down()
		carol := w.connect(2, device("other"))
		carol.subscribe(carol.inbox(), domain.SubscribeOptions{})
		w.settle()
		w.g.Close()
	})
}

func TestManyMarksOfOneUserAreCountedOnce(t *testing.T) {
	// A device that scrolls marks faster than is counted: the others need the last count, whatever the way to it.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		for _, text := range texts("m", 30) {
			w.do(1, message(c, text, ""))
		}
		phone, tablet := w.connect(2, device("phone")), w.connect(2, device("tablet"))
		tablet.subscribe(tablet.inbox(), domain.SubscribeOptions{})
		w.settle()
		held := newGate()
		w.store.set(func() {
			w.store.onHeads = func(ctx context.Context, n domain.Needs) error {
				if n.Unread == nil {
					return nil
				}
				return held.wait(ctx)
			}
		})
		var marking sync.WaitGroup
		for seq := range int64(30) {
			a := phone.submit(domain.Request{Command: read(c, seq+2), Name: "markAsRead"})
			marking.Go(func() { <-a.done })
		}
		marking.Wait()
		held.open()
		w.settle()
		got := tablet.notices(tablet.inbox())
		if last := got[len(got)-1]; len(got) > 3 || last["unread"] != 0.0 || last["lastRead"] != 31.0 {
			t.Errorf("%d notices, the last %v", len(got), last)
		}
	})
}
