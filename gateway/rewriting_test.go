package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
)

func edit(c domain.ConversationID, m domain.Seq, text string) *domain.EditMessage {
	return &domain.EditMessage{Conversation: c, Message: domain.NewMessageID(c, m), MessageEdit: domain.MessageEdit{Text: &text}}
}

func erase(c domain.ConversationID, m domain.Seq) *domain.RemoveMessage {
	return &domain.RemoveMessage{Conversation: c, Message: domain.NewMessageID(c, m)}
}

// reading says whether participants may read.
func reading(c domain.ConversationID, may bool, users ...domain.UserID) *domain.EditParticipants {
	e := &domain.EditParticipants{UUID: c}
	for _, u := range users {
		e.Participants = append(e.Participants, domain.EditedParticipant{
			UserRef: domain.UserRef{UserID: u}, Permissions: &domain.PermissionsPatch{CanRead: &may},
		})
	}
	return e
}

// says gives what a client was shown of messages: their texts, or "removed".
func says(c *client, id domain.ConversationID) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, ev := range c.events[id] {
		switch {
		case ev.Message == nil:
		case ev.Type == domain.EventRemoveMessage:
			list = append(list, fmt.Sprint("-", ev.Message.Seq))
		case ev.Message.Removed:
			list = append(list, "removed")
		default:
			list = append(list, ev.Message.Text)
		}
	}
	return list
}

func wantSays(t *testing.T, c *client, id domain.ConversationID, want ...string) {
	t.Helper()
	if got := says(c, id); !slices.Equal(got, want) {
		t.Errorf("%s is shown %q, want %q", c.principal.Username, got, want)
	}
}

// drain pulls until nothing comes.
func (c *client) drain() {
	for n := 1; n > 0; {
		n, _ = c.pull(4, 4)
	}
}

func TestWhatIsNotSentYetShowsWhatBecameOfIt(t *testing.T) {
	// A removed message must not go out to those who are slow, whether its event waits in the cache of the newest or was
	// read from the store ahead of its turn.
	for name, more := range map[string]int{"out of the cache": 0, "out of the store": 200} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c := w.converse(1, 2)
				bob := w.subscriber(2, idle)
				w.do(1, message(c, "first", "")) // 2
				w.do(1, message(c, "secret", ""))
				w.do(1, edit(c, 3, "other secret"))
				for range more {
					w.do(1, message(c, "more", ""))
				}
				if _, err := bob.pull(1, 1); err != nil { // reads a page, of which one is sent
					t.Fatal(err)
				}
				w.do(1, edit(c, 2, "too late"))
				w.do(1, erase(c, 3))
				bob.drain()
				last := domain.Seq(6 + more)
				bob.wantSeqs(c, span(2, last))
				want := []string{"first", "removed", "removed"}
				for range more {
					want = append(want, "more")
				}
				wantSays(t, bob, c, append(want, "too late", "-3")...)
			})
		})
	}
}

func TestWhatIsJustBeingReadShowsWhatBecameOfIt(t *testing.T) {
	// The page was read before the removal was committed, and arrives after it was announced.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		bob := w.subscriber(2, idle)
		w.do(1, message(c, "secret", "")) // 2
		for range 200 {
			w.do(1, message(c, "more", ""))
		}
		g := newGate()
		page := make(chan struct{})
		w.store.set(func() {
			w.store.afterEvents = func(ctx context.Context, _ domain.ConversationID) error { return g.wait(ctx) }
		})
		go func() {
			defer close(page)
			_, _ = bob.pull(4, 4)
		}()
		<-g.arrived
		w.store.set(func() { w.store.afterEvents = nil })
		w.do(1, erase(c, 2))
		g.open()
		<-page
		bob.drain()
		if got := says(bob, c); got[0] != "removed" || len(got) != 202 {
			t.Errorf("bob is shown %q and %d more", got[0], len(got)-1)
		}
	})
}

func TestEditsWithAnUnknownOutcomeAreAnnouncedOnce(t *testing.T) {
	// The commit happened, and nobody said so: given again it is found, and is not taken for a change of the participants.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		bob, carol := w.subscriber(2), w.subscriber(3)
		w.do(1, message(c, "hello", ""))
		w.store.elsewhere(w.user(1), remove(c, 3)) // 3
		w.store.failAfterCommit(1)
		a := w.start(w.user(1), edit(c, 2, "bye")) // 4
		w.pass(time.Second)
		if a.code() != "" || a.receipt.Seq != 4 || a.receipt.Result.Message.Text != "bye" {
			t.Fatalf("%v %+v", a.err, a.receipt)
		}
		w.do(1, message(c, "after", ""))
		bob.wantSeqs(c, span(2, 5))
		carol.wantSeqs(c, span(2, 3))
		wantSays(t, bob, c, "hello", "bye", "after")
	})
}

func TestARemovedConversationIsTheLastThatIsHeardOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		bob, slow := w.subscriber(2), w.subscriber(2, device("slow"), idle)
		billing := w.attach(service(1))
		billing.subscribe(allEvents, domain.SubscribeOptions{})
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		w.do(1, message(c, "last words", ""))
		w.do(1, &domain.RemoveConversation{UUID: c})
		if _, err := w.g.Do(t.Context(), w.user(1), message(c, "too late", "")); domain.CodeOf(err) != domain.ConversationRemoved {
			t.Errorf("a message ended as %v", err)
		}
		slow.drain()
		for _, cl := range []*client{bob, slow, billing} {
			cl.wantSeqs(c, span(2, 3))
		}
		if got := bob.types(); !slices.Equal(got, []string{"conversationRemoved"}) {
			t.Errorf("bob's inbox has %v", got)
		}
		late := w.connect(2, device("late"))
		for filter, want := range map[string]domain.Code{"conversations/" + c.String() + "/events": domain.ConversationRemoved, allEvents: ""} {
			if err := late.session.Subscribe(t.Context(), []domain.Subscription{{Filter: filter}})[0]; domain.CodeOf(err) != want {
				t.Errorf("subscribing to %s: %v", filter, err)
			}
		}
	})
}

func TestARemovalThatSeemedToFailIsAnnounced(t *testing.T) {
	// Its event does not say what the conversation became, as others do: it must be the last one all the same.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		alice, bob, carol := w.subscriber(1), w.subscriber(2), w.subscriber(3)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		w.store.elsewhere(w.user(1), remove(c, 3)) // 2
		w.store.failAfterCommit(1000)
		a := w.start(w.user(1), &domain.RemoveConversation{UUID: c}) // 3
		w.pass(20 * time.Second)
		if a.code() != domain.Unavailable {
			t.Fatalf("%v", a.err)
		}
		w.store.heal()
		w.pass(5 * time.Second)
		alice.wantSeqs(c, span(2, 3))
		bob.wantSeqs(c, span(2, 3))
		carol.wantSeqs(c, span(2, 2))
		if got := bob.types(); !slices.Equal(got, []string{"conversationRemoved"}) {
			t.Errorf("bob's inbox has %v", got)
		}
	})
}

func TestLosingTheRightToReadWithholdsWhatIsDue(t *testing.T) {
	// At once means that nothing of before is sent any more. Given back means from there on, without what was said meanwhile.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice, bob, slow := w.subscriber(1), w.subscriber(2), w.subscriber(2, device("slow"), idle)
		for range 200 {
			w.do(1, message(c, "before", "")) // 2 to 201
		}
		if _, err := slow.pull(2, 2); err != nil {
			t.Fatal(err)
		}
		w.do(1, reading(c, false, 2)) // 202
		late := w.subscriber(2, device("late"))
		w.do(1, message(c, "meanwhile", ""))                           // 203
		w.store.sentElsewhere(w.user(1), message(c, "elsewhere", "k")) // 204
		slow.drain()
		slow.wantSeqs(c, span(2, 3))
		w.do(1, reading(c, true, 2)) // 205
		w.do(1, message(c, "after", ""))
		slow.drain()
		alice.wantSeqs(c, span(2, 206))
		bob.wantSeqs(c, append(span(2, 202), 205, 206))
		slow.wantSeqs(c, append(span(2, 202), 205, 206))
		late.wantSeqs(c, span(205, 206))
	})
}

// sentElsewhere stores a message as another node would.
func (m *memory) sentElsewhere(p domain.Principal, c *domain.SendMessage) {
	h, err := m.Heads(context.Background(), p, c.Needs(p))
	if err != nil {
		m.t.Fatal(err)
	}
	h.Limits = domain.DefaultLimits()
	d, err := domain.Decide(h, p, c)
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.append([]domain.Draft{{Event: d.Events[0], Version: h.Conversation.Version}}); err != nil {
		m.t.Fatal(err)
	}
}

func TestWhoMayNotReadAnyMoreCatchesUpOnNothing(t *testing.T) {
	// The store was asked what the device missed just before the right was taken away.
	synctest.Test(t, func(t *testing.T) {
		w, kept := shelved(t)
		c := w.converse(1, 2)
		w.do(1, message(c, "missed", ""))
		kept.positions[c] = 1
		g := newGate()
		kept.hold(g)
		bob := w.connect(2)
		<-g.arrived
		w.do(1, reading(c, false, 2)) // 3
		g.open()
		w.settle()
		w.do(1, message(c, "not for bob", ""))
		if got := says(bob, c); len(got) > 0 {
			t.Errorf("bob is shown %q", got)
		}
	})
}
