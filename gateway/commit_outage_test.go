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

func TestAnUnknownOutcomeIsFoundAgain(t *testing.T) {
	// The connection to the store may break between the commit and its answer: then nobody knows whether it happened.
	// Given again, it is found; it is acknowledged once, stored once, delivered once.
	for _, failures := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(failures), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c := w.converse(1, 2)
				alice, bob := w.connect(1), w.subscriber(2)
				w.store.failAfterCommit(failures)
				named, unnamed := alice.sendAs(c, "named", "a"), alice.send(c, "unnamed")
				w.pass(4 * time.Second)
				for i, a := range []*answer{named, unnamed} {
					if a.code() != "" || a.receipt.Seq != domain.Seq(i+2) {
						t.Errorf("answer %d: %v %+v", i, a.code(), a.receipt)
					}
				}
				bob.wantSeqs(c, span(2, 3))
				again := alice.sendAs(c, "named", "a")
				w.settle()
				if again.code() != "" || again.receipt.Seq != 2 || !again.receipt.Duplicate {
					t.Errorf("sent again: %v %+v", again.code(), again.receipt)
				}
				if got := w.store.texts(c); !slices.Equal(got, []string{"named", "unnamed"}) {
					t.Errorf("stored %v", got)
				}
			})
		})
	}
}

func TestAChangeOfUnknownOutcomeIsFoundAgain(t *testing.T) {
	// The same holds for changes: those who were added or removed must hear of it, once.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.subscriber(1), w.subscriber(2)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{QoS: 1})
		w.store.failAfterCommit(2)
		created := w.start(w.user(1), &domain.CreateConversation{
			Participants: []domain.NewParticipant{{UserRef: domain.UserRef{UserID: 2}}},
		})
		w.pass(2 * time.Second)
		if created.code() != "" || created.receipt.Seq != 1 {
			t.Fatalf("created: %v %+v", created.code(), created.receipt)
		}
		c := created.receipt.Conversation
		w.store.failAfterCommit(2)
		removed := w.start(w.user(1), remove(c, 2))
		w.pass(2 * time.Second)
		if removed.code() != "" || removed.receipt.Seq != 2 {
			t.Fatalf("removed: %v %+v", removed.code(), removed.receipt)
		}
		w.do(1, message(c, "alone", ""))
		alice.wantSeqs(c, span(1, 3))
		bob.wantSeqs(c, span(1, 2))
		if got := bob.types(); !slices.Equal(got, []string{"conversationAdded", "conversationRemoved"}) {
			t.Errorf("bob's inbox has %v", got)
		}
	})
}

func TestChangesOfUnknownOutcomeAreToldInOrder(t *testing.T) {
	// Several changes of one batch are found again together, with the state after the last: who took part in between
	// must be told as if nothing had happened.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice, bob, carol := w.subscriber(1), w.subscriber(2), w.subscriber(3)
		carol.subscribe(carol.inbox(), domain.SubscribeOptions{})
		hold := w.store.holdCommits()
		busy := w.converseHeld(hold)
		var answers []*answer
		for _, command := range []domain.Command{add(c, 3), remove(c, 2), remove(c, 3)} {
			answers = append(answers, alice.submit(domain.Request{Command: command, Name: command.Name()}))
		}
		failures := 0
		w.store.set(func() {
			w.store.afterCommit = func(_ context.Context, batch commit) error {
				if failures++; len(batch.changes) == 3 && failures < 5 {
					return errGone()
				}
				return nil
			}
		})
		hold.open()
		w.pass(4 * time.Second)
		<-busy.done
		for i, a := range answers {
			if a.code() != "" || a.receipt.Seq != domain.Seq(i+2) {
				t.Errorf("answer %d: %v %+v", i, a.code(), a.receipt)
			}
		}
		alice.wantSeqs(c, span(2, 4))
		bob.wantSeqs(c, span(2, 3))
		carol.wantSeqs(c, []domain.Seq{2, 3, 4})
		if got := carol.types(); !slices.Equal(got, []string{"conversationAdded", "conversationRemoved"}) {
			t.Errorf("carol's inbox has %v", got)
		}
	})
}

func TestAStoreThatIsGoneAcknowledgesNothing(t *testing.T) {
	// Everything that waits is answered in the end, so that clients can decide what to do; nothing is acknowledged.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2)
		up := w.store.down()
		var answers []*answer
		for _, text := range texts("m", 2000) {
			answers = append(answers, alice.send(c, text))
		}
		answers = append(answers, w.start(w.user(1), add(c, w.user(3).User)), w.start(w.user(1), &domain.CreateConversation{}))
		w.pass(4 * time.Second)
		for i, a := range answers {
			if a.answered() {
				t.Fatalf("command %d was answered %q before the deadline", i, a.code())
			}
		}
		w.pass(10 * time.Second)
		for i, a := range answers {
			if a.code() != domain.Unavailable {
				t.Fatalf("command %d ended as %q", i, a.code())
			}
		}
		up()
		w.pass(5 * time.Second)
		if got := w.store.texts(c); len(got) > 0 {
			t.Errorf("stored after all: %v", got)
		}
		w.do(1, message(c, "back", ""))
		if got := bob.texts(c); !slices.Equal(got, []string{"back"}) {
			t.Errorf("delivered %v", got)
		}
	})
}

func TestAStoreThatHangsDelaysAnswersBoundedly(t *testing.T) {
	// A store that does not even refuse costs an attempt's timeout; what waited too long must not cost one per batch.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		alice := w.connect(1)
		w.store.holdCommits()
		var answers []*answer
		for _, text := range texts("m", 4000) {
			answers = append(answers, alice.send(c, text))
		}
		w.pass(16 * time.Second) // the deadline, and two attempts
		pending := 0
		for _, a := range answers {
			if !a.answered() {
				pending++
			} else if a.code() != domain.Unavailable {
				t.Errorf("ended as %q", a.code())
			}
		}
		if pending > 0 {
			t.Errorf("%d of %d have no answer", pending, len(answers))
		}
		w.store.heal()
	})
}

func TestWhatWasCommittedInSpiteOfARefusalIsDelivered(t *testing.T) {
	// The gateway gave up and said unavailable, but the commit had happened. Readers must see it once the store is
	// back, without gap and without duplicate: it is in the log.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		alice, bob := w.subscriber(1), w.subscriber(2)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		w.store.failAfterCommit(1e6)
		sent := alice.sendAs(c, "lost?", "a")
		w.pass(20 * time.Second)
		if sent.code() != domain.Unavailable {
			t.Fatalf("ended as %q", sent.code())
		}
		w.store.heal()
		w.pass(2 * time.Second)
		alice.wantSeqs(c, span(2, 2))
		bob.wantSeqs(c, span(2, 2))
		if again := alice.sendAs(c, "lost?", "a"); func() bool { w.settle(); return !again.receipt.Duplicate || again.receipt.Seq != 2 }() {
			t.Errorf("sent again: %v %+v", again.err, again.receipt)
		}
		w.do(1, message(c, "next", ""))
		bob.wantSeqs(c, span(2, 3))
	})
}

func TestAChangeCommittedInSpiteOfARefusalIsDelivered(t *testing.T) {
	// The same for changes: those concerned are told by event and by notice.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice, bob, carol := w.subscriber(1), w.subscriber(2), w.subscriber(3)
		for _, cl := range []*client{bob, carol} {
			cl.subscribe(cl.inbox(), domain.SubscribeOptions{})
		}
		w.store.failAfterCommit(1e6)
		created := w.start(w.user(1), &domain.CreateConversation{
			Participants: []domain.NewParticipant{{UserRef: domain.UserRef{UserID: 2}}},
		})
		w.pass(20 * time.Second)
		added := w.start(w.user(1), add(c, 3))
		w.pass(20 * time.Second)
		if created.code() != domain.Unavailable || added.code() != domain.Unavailable {
			t.Fatalf("ended as %q, %q", created.code(), added.code())
		}
		w.store.heal()
		w.pass(2 * time.Second)
		for _, cl := range []*client{alice, bob, carol} {
			cl.wantSeqs(c, span(2, 2))
		}
		if got := carol.types(); !slices.Equal(got, []string{"conversationAdded"}) {
			t.Errorf("carol's inbox has %v", got)
		}
		if got := bob.types(); !slices.Equal(got, []string{"conversationAdded"}) {
			t.Errorf("bob's inbox has %v", got)
		}
		var born domain.ConversationID
		w.store.mu.Lock()
		for id := range w.store.records {
			if id != c {
				born = id
			}
		}
		w.store.mu.Unlock()
		alice.wantSeqs(born, span(1, 1))
		bob.wantSeqs(born, span(1, 1))
		w.do(1, message(born, "hello", ""))
		bob.wantSeqs(born, span(1, 2))
	})
}

func TestARemovalCommittedInSpiteOfARefusalIsDelivered(t *testing.T) {
	// Who was removed gets the removing event as its last, also when nobody knew for a while that it happened.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		alice, bob := w.subscriber(1), w.subscriber(2)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		w.store.failAfterCommit(1e6)
		sent := w.start(w.user(1), message(c, "before", ""))
		w.pass(20 * time.Second)
		removed := w.start(w.user(1), remove(c, 2))
		w.pass(20 * time.Second)
		if sent.code() != domain.Unavailable || removed.code() != domain.Unavailable {
			t.Fatalf("ended as %q, %q", sent.code(), removed.code())
		}
		w.store.heal()
		w.pass(2 * time.Second)
		w.do(1, message(c, "after", ""))
		alice.wantSeqs(c, span(2, 4))
		bob.wantSeqs(c, span(2, 3))
		if got := bob.types(); !slices.Equal(got, []string{"conversationRemoved"}) {
			t.Errorf("bob's inbox has %v", got)
		}
	})
}

func TestAMessageGivenUpAmidABatchLeavesNoGap(t *testing.T) {
	// When a batch is halved because of a poison command, one part may be given up and be committed all the same: it
	// then has its place between those that were announced.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.CommitDeadline = time.Second })
		c := w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2, idle)
		hold, look := w.store.holdCommits(), newGate()
		busy := w.converseHeld(hold)
		var answers []*answer
		for _, text := range []string{"one", "poison", "given up", "poison", "two", "three"} {
			answers = append(answers, alice.send(c, text))
		}
		w.store.set(func() {
			w.store.onHeads = func(ctx context.Context, _ domain.Needs) error { return look.wait(ctx) }
			w.store.afterCommit = func(_ context.Context, batch commit) error {
				if len(batch.drafts) == 1 && batch.drafts[0].Event.Message.Text == "given up" {
					<-time.After(2 * time.Second)
					return errGone()
				}
				return nil
			}
		})
		hold.open()
		w.pass(4 * time.Second)
		<-busy.done
		for i, want := range []domain.Code{"", domain.Internal, domain.Unavailable, domain.Internal, "", ""} {
			if answers[i].code() != want {
				t.Errorf("message %d ended as %q, want %q", i, answers[i].code(), want)
			}
		}
		for n := 1; n > 0; {
			var err error
			if n, err = bob.pull(1, 1); err != nil {
				t.Fatal(err)
			}
		}
		bob.wantSeqs(c, span(2, 5))
		look.open()
		w.settle()
	})
}

func TestAnOutageCostsNoGoroutinePerMessage(t *testing.T) {
	// An outage of minutes under load must leave the gateway as it was, not with a poller per refused message.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		alice := w.connect(1)
		w.store.set(func() {
			w.store.beforeCommit = func(context.Context, commit) error { return errGone() }
			w.store.onHeads = func(context.Context, domain.Needs) error { return errGone() }
		})
		for _, text := range texts("m", 1000) {
			alice.send(c, text)
		}
		w.pass(20 * time.Second)
		looks := 0
		w.store.set(func() {
			w.store.onHeads = func(context.Context, domain.Needs) error {
				w.store.faults.Lock()
				defer w.store.faults.Unlock()
				looks++
				return errGone()
			}
		})
		w.pass(10 * time.Second)
		if looks > 50 {
			t.Errorf("the store that is gone was asked %d times in 10 s", looks)
		}
		w.store.heal()
	})
}
