package gateway_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

func TestAckOnlyAfterCommit(t *testing.T) {
	// A publisher forgets what was acknowledged: an acknowledgement of what is not durable loses a message for good.
	for _, delay := range []time.Duration{0, time.Millisecond, time.Second, 4 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c := w.converse(1, 2)
				alice, bob := w.connect(1), w.subscriber(2)
				hold := w.store.holdCommits()
				sent := alice.send(c, "hello")
				added := w.start(w.user(1), add(c, w.user(3).User))
				w.settle()
				w.pass(delay)
				if sent.answered() || added.answered() || len(bob.seqs(c)) > 0 {
					t.Errorf("answered or delivered while the store was still at it: %v %v %v",
						sent.code(), added.code(), bob.seqs(c))
				}
				hold.open()
				w.settle()
				if sent.code() != "" || sent.receipt.Seq != 2 || added.code() != "" || added.receipt.Seq != 3 {
					t.Errorf("after the commit: %v %+v, %v %+v", sent.code(), sent.receipt, added.code(), added.receipt)
				}
				bob.wantSeqs(c, span(2, 3))
			})
		})
	}
}

func TestAckTellsTheMessage(t *testing.T) {
	// The acknowledgement is the only thing that a client without a reply learns: number and id must be the event's.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		r := w.do(1, message(c, "hello", "a"))
		want := domain.NewMessageID(c, 2)
		if r.Conversation != c || r.Seq != 2 || r.Message != want || r.Duplicate {
			t.Errorf("receipt %+v", r)
		}
		if m := r.Result.Message; m == nil || m.Seq != 2 || m.ID != want || m.Text != "hello" {
			t.Errorf("result %+v", m)
		}
	})
}

func TestPipelinedMessagesKeepTheirOrder(t *testing.T) {
	// A client that does not wait for acknowledgements relies on the order in which it wrote.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2, window(2, 3))
		want := texts("m", 1000)
		var mu sync.Mutex
		var acks []domain.Seq
		for i, text := range want {
			alice.session.Submit(domain.Request{Command: message(c, text, ""), Name: "sendMessage"},
				func(r domain.Receipt, err error) {
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Error(err)
					}
					acks = append(acks, r.Seq)
				})
			if i == 500 { // what follows is decided on a stale head
				w.store.elsewhere(w.user(1), add(c, w.user(3).User))
			}
		}
		w.settle()
		if got := w.store.texts(c); !slices.Equal(got, want) {
			t.Errorf("the log has another order than the client wrote")
		}
		if !slices.IsSorted(acks) || len(acks) != len(want) {
			t.Errorf("%d acknowledgements, in order: %t", len(acks), slices.IsSorted(acks))
		}
		if got := bob.texts(c); !slices.Equal(got, want) {
			t.Errorf("the reader got another order than the client wrote, or not all: %d", len(got))
		}
	})
}

func TestOrderHoldsWhileTheHeadIsRead(t *testing.T) {
	// The first message in a cold conversation waits for its head; those that come after must not overtake it.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cold(1, 2)
		alice, bob := w.connect(1), w.subscriber(2)
		hold := newGate()
		w.store.set(func() { w.store.onHeads = func(ctx context.Context, _ domain.Needs) error { return hold.wait(ctx) } })
		want := texts("m", 600)
		var answers []*answer
		for i, text := range want {
			if i == 300 {
				w.settle()
				hold.open()
			}
			answers = append(answers, alice.send(c, text))
		}
		w.settle()
		for i, a := range answers {
			if a.code() != "" || a.receipt.Seq != domain.Seq(i+2) {
				t.Fatalf("message %d: %v, number %d", i, a.code(), a.receipt.Seq)
			}
		}
		if got := bob.texts(c); !slices.Equal(got, want) {
			t.Errorf("the reader got %d messages, in order of writing: %t", len(got), slices.IsSorted(got))
		}
		if _, _, heads, _, _ := w.store.tally(); heads != 1 {
			t.Errorf("the head was read %d times", heads)
		}
	})
}

func TestOrderHoldsWhenTheHeadMovesDuringADecision(t *testing.T) {
	// All messages of a batch must be decided on the same head: otherwise the earlier is stale, is decided again and
	// lands behind the later.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.CommitDeadline = time.Millisecond })
		c := w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2)
		// A change is committed and given up, so that a look at the store will bring the new head from the side.
		look := newGate()
		w.store.failAfterCommit(1000)
		w.store.set(func() { w.store.onHeads = func(ctx context.Context, _ domain.Needs) error { return look.wait(ctx) } })
		added := w.start(w.user(1), add(c, w.user(3).User))
		w.pass(time.Second)
		if added.code() != domain.Unavailable {
			t.Fatalf("the change ended as %q", added.code())
		}
		w.store.set(func() { w.store.afterCommit = nil })
		// Deciding the first message lets the look proceed and waits for its effect.
		calls := 0
		first := &hooked{Command: message(c, "first", ""), common: func() {
			if calls++; calls == 2 {
				look.open()
				<-bob.wakes
				bob.Wake()
			}
		}}
		bob.hangUp() // nobody else takes the wake-up
		w.settle()
		bob = w.subscriber(2, idle)
		hold := w.store.holdCommits()
		other := w.converseHeld(hold)
		one := alice.submit(domain.Request{Command: first, Name: "sendMessage"})
		two := alice.send(c, "second")
		hold.open()
		w.settle()
		<-other.done
		if one.code() != "" || two.code() != "" {
			t.Fatalf("%v %v", one.err, two.err)
		}
		if got := w.store.texts(c); !slices.Equal(got, []string{"first", "second"}) {
			t.Errorf("the log has %v", got)
		}
	})
}

// converseHeld starts a command that the held store will not finish, so that what follows gathers in one batch.
func (w *world) converseHeld(hold *gate) *answer {
	a := w.start(w.user(9), &domain.CreateConversation{})
	<-hold.arrived
	return a
}

// hooked is a command whose decision can be watched, or go wrong: common is called whenever somebody looks at it.
type hooked struct {
	domain.Command
	common func()
}

// Common implements domain.Command.
func (h *hooked) Common() *domain.Meta {
	h.common()
	return h.Command.Common()
}

func TestTwinsGetOneAcceptance(t *testing.T) {
	// A client that sends again what it holds for lost must not make it appear twice, even within one batch.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2)
		hold := w.store.holdCommits()
		busy := w.converseHeld(hold)
		answers := []*answer{
			alice.sendAs(c, "one", "a"), alice.sendAs(c, "one again", "a"), bob.sendAs(c, "mine", "a"),
			alice.sendAs(c, "two", "b"), alice.sendAs(c, "one once more", "a"),
		}
		hold.open()
		w.settle()
		<-busy.done
		want := []domain.Seq{2, 2, 3, 4, 2}
		for i, a := range answers {
			if a.code() != "" || a.receipt.Seq != want[i] || a.receipt.Message != domain.NewMessageID(c, want[i]) {
				t.Errorf("answer %d: %v %+v", i, a.code(), a.receipt)
			}
			if again := i == 1 || i == 4; a.receipt.Duplicate != again {
				t.Errorf("answer %d: duplicate %t", i, a.receipt.Duplicate)
			}
			if m := a.receipt.Result.Message; m == nil || m.Seq != want[i] || m.Text != w.store.texts(c)[want[i]-2] {
				t.Errorf("answer %d shows %+v", i, m)
			}
		}
		if got := bob.texts(c); !slices.Equal(got, []string{"one", "mine", "two"}) {
			t.Errorf("delivered %v", got)
		}
	})
}

func TestARepeatedMessageGetsItsFirstAcceptance(t *testing.T) {
	// The repetition may come much later, with other content, and twice in a batch.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2)
		w.do(1, message(c, "one", "a"))
		w.do(1, message(c, "two", "b"))
		for range 20 {
			hold := w.store.holdCommits()
			busy := w.converseHeld(hold)
			var answers []*answer
			for range 10 {
				answers = append(answers, alice.sendAs(c, "other words", "a"))
			}
			hold.open()
			w.settle()
			<-busy.done
			for i, a := range answers {
				if a.code() != "" || a.receipt.Seq != 2 || !a.receipt.Duplicate || a.receipt.Result.Message.Text != "one" {
					t.Errorf("answer %d: %v %+v", i, a.code(), a.receipt)
				}
			}
		}
		if got := bob.texts(c); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("delivered %v", got)
		}
	})
}

func TestAStaleDecisionIsMadeAgain(t *testing.T) {
	// A permission may end between the decision in memory and the write: what was no longer allowed must not be stored.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		alice, bob := w.connect(1), w.connect(2)
		carol := w.subscriber(3)
		hold := w.store.holdCommits()
		sent := []*answer{bob.send(c, "too late"), alice.send(c, "fine")}
		w.settle()
		w.store.elsewhere(w.user(1), remove(c, 2))
		hold.open()
		w.settle()
		if sent[0].code() != domain.AccessDenied || sent[1].code() != "" {
			t.Errorf("answers %q %q", sent[0].code(), sent[1].code())
		}
		if got := w.store.texts(c); !slices.Equal(got, []string{"fine"}) {
			t.Errorf("stored %v", got)
		}
		carol.wantSeqs(c, span(2, 3))
		if after := bob.send(c, "still"); func() bool { w.settle(); return after.code() != domain.AccessDenied }() {
			t.Errorf("a later message ended as %q", after.code())
		}
	})
}

func TestStaleMessagesReadTheHeadOnce(t *testing.T) {
	// A full batch on a stale head must not read the head five hundred times while everybody waits.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice := w.connect(1)
		w.user(3)
		_, _, before, _, _ := w.store.tally()
		hold, again := w.store.holdCommits(), newGate()
		busy := w.converseHeld(hold)
		var answers []*answer
		for _, text := range texts("m", 400) {
			answers = append(answers, alice.send(c, text))
		}
		w.store.set(func() { w.store.beforeCommit = func(ctx context.Context, _ commit) error { return again.wait(ctx) } })
		hold.open()
		w.settle() // they make one batch, decided on the present head
		w.store.elsewhere(w.user(1), add(c, 3))
		again.open()
		w.settle()
		<-busy.done
		for i, a := range answers {
			if a.code() != "" || a.receipt.Seq != domain.Seq(i+3) {
				t.Fatalf("message %d: %v %+v", i, a.err, a.receipt)
			}
		}
		if _, _, after, _, _ := w.store.tally(); after-before > 2 {
			t.Errorf("the head was read %d times", after-before)
		}
	})
}

func TestAConversationThatKeepsChangingIsGivenUp(t *testing.T) {
	// Deciding again must end at some time, or one conversation stops its committer.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		alice := w.connect(1)
		next := domain.UserID(100)
		w.store.set(func() {
			w.store.beforeCommit = func(_ context.Context, batch commit) error {
				if len(batch.drafts) > 0 && batch.drafts[0].Event.Conversation == c {
					next++
					w.store.elsewhere(w.user(1), add(c, w.user(next).User))
				}
				return nil
			}
		})
		sent := alice.send(c, "never")
		w.settle()
		if sent.code() != domain.Unavailable {
			t.Errorf("ended as %q", sent.code())
		}
		if got := w.store.texts(c); len(got) > 0 {
			t.Errorf("stored %v", got)
		}
	})
}

func TestAFullQueueRefuses(t *testing.T) {
	// What cannot be served soon is refused at once; memory stays bounded, and nothing is dropped in silence.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		alice := w.connect(1)
		hold := w.store.holdCommits()
		var answers []*answer
		for _, text := range texts("m", 10000) {
			answers = append(answers, alice.send(c, text))
		}
		w.settle()
		refused := 0
		for _, a := range answers {
			if a.answered() {
				refused++
				if a.code() != domain.Unavailable {
					t.Errorf("ended as %q", a.code())
				}
			}
		}
		if refused < 10000-4096-2*512 || refused > 10000-4096 {
			t.Errorf("%d of 10000 were refused", refused)
		}
		hold.open()
		w.settle()
		for i, a := range answers {
			if !a.answered() {
				t.Fatalf("message %d was never answered", i)
			}
		}
		if got := len(w.store.texts(c)); got != 10000-refused {
			t.Errorf("%d were not refused, %d are stored", 10000-refused, got)
		}
	})
}

func TestWaitingForHeadsIsBounded(t *testing.T) {
	// Messages to cold conversations wait for a read. A store that reads slowly must not fill the memory.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.cold(1)
		alice := w.connect(1)
		hold := newGate()
		w.store.set(func() { w.store.onHeads = func(ctx context.Context, _ domain.Needs) error { return hold.wait(ctx) } })
		refused := 0
		for _, text := range texts("m", 20000) {
			if a := alice.send(c, text); a.answered() {
				refused++
				if a.code() != domain.Unavailable {
					t.Errorf("ended as %q", a.code())
				}
			}
		}
		if refused < 10000 {
			t.Errorf("%d of 20000 messages wait for one head", 20000-refused)
		}
		hold.open()
		w.settle()
	})
}

func TestAMissingConversationLeavesNoTrace(t *testing.T) {
	// Whoever writes to made-up conversations must not fill the memory with them.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice := w.connect(1)
		before := w.gauge("parley_active_conversations")
		for i := range 100 {
			a := alice.send(domain.ConversationID{1, byte(i)}, "hello")
			w.settle()
			if a.code() != domain.ConversationNotFound {
				t.Errorf("ended as %q", a.code())
			}
		}
		if after := w.gauge("parley_active_conversations"); after != before {
			t.Errorf("%v conversations in memory, before %v", after, before)
		}
	})
}
