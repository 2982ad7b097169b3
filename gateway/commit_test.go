package gateway_test

import (
	"context"
	"errors"
	"fmt"
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
		first := &hooked{SendMessage: message(c, "first", ""), common: func() {
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

// hooked is a message whose decision can be watched, or go wrong: common is called whenever somebody looks at it.
type hooked struct {
	*domain.SendMessage
	common func()
}

// Common implements domain.Command.
func (h *hooked) Common() *domain.Meta {
	h.common()
	return h.SendMessage.Common()
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

func TestAPoisonCommandFailsAlone(t *testing.T) {
	// One message that the store chokes on must not take those down that happen to share its batch.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, d := w.converse(1, 2), w.converse(1, 2)
		alice, bob := w.connect(1), w.subscriber(2)
		hold := w.store.holdCommits()
		busy := w.converseHeld(hold)
		var answers []*answer
		for i, text := range texts("m", 100) {
			if i == 37 || i == 80 {
				text = "poison"
			}
			answers = append(answers, alice.send([]domain.ConversationID{c, d}[i%2], text))
		}
		for i := range 5 {
			title := ""
			if i == 3 {
				title = "poison"
			}
			answers = append(answers, w.start(w.user(1), &domain.CreateConversation{Title: title}))
			w.settle()
		}
		hold.open()
		w.settle()
		<-busy.done
		for i, a := range answers {
			want := domain.Code("")
			if i == 37 || i == 80 || i == 103 {
				want = domain.Internal
			}
			if a.code() != want {
				t.Errorf("command %d ended as %q, want %q", i, a.code(), want)
			}
		}
		for _, conv := range []domain.ConversationID{c, d} {
			if got := w.store.texts(conv); len(got) != 49 || !slices.IsSorted(got) {
				t.Errorf("stored %d, in order: %t", len(got), slices.IsSorted(got))
			}
			bob.wantSeqs(conv, span(2, 50))
		}
	})
}

func TestAPanicInADecisionFailsAlone(t *testing.T) {
	// A defect that one command hits must neither end the gateway nor fail the commands of others.
	for _, place := range []string{"append", "change"} {
		t.Run(place, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c := w.converse(1, 2)
				alice, bob := w.connect(1), w.subscriber(2)
				hold := w.store.holdCommits()
				busy := w.converseHeld(hold)
				calls := 0
				explode := func() {
					if calls++; calls == 2 { // the first look is made when the command is taken
						panic("a defect")
					}
				}
				var bad, before, after *answer
				if place == "append" {
					before = alice.send(c, "before")
					bad = alice.submit(domain.Request{
						Command: &hooked{SendMessage: message(c, "boom", ""), common: explode}, Name: "sendMessage",
					})
					after = alice.send(c, "after")
				} else {
					before = alice.submit(domain.Request{Command: add(c, w.user(3).User), Name: "addParticipants"})
					bad = alice.submit(domain.Request{
						Command: &hookedChange{AddParticipants: add(c, w.user(4).User), common: explode}, Name: "addParticipants",
					})
					after = alice.submit(domain.Request{Command: add(c, w.user(5).User), Name: "addParticipants"})
				}
				hold.open()
				w.settle()
				<-busy.done
				if before.code() != "" || bad.code() != domain.Internal || after.code() != "" {
					t.Errorf("before %v, the culprit %v, after %v", before.err, bad.err, after.err)
				}
				bob.wantSeqs(c, span(2, 3))
			})
		})
	}
}

type hookedChange struct {
	*domain.AddParticipants
	common func()
}

// Common implements domain.Command.
func (h *hookedChange) Common() *domain.Meta {
	h.common()
	return h.AddParticipants.Common()
}

func TestAPanicInAReadIsContained(t *testing.T) {
	// Questions are answered in goroutines of their own, where a panic would end the process.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.user(1)
		w.store.set(func() { w.store.onHeads = func(context.Context, domain.Needs) error { panic("a defect") } })
		if _, err := w.g.Do(t.Context(), w.user(1), &domain.GetMe{}); domain.CodeOf(err) != domain.Internal {
			t.Errorf("ended as %v", err)
		}
		w.store.heal()
		if r := w.do(1, &domain.GetMe{}); r.Result.User == nil || r.Result.User.ID != 1 {
			t.Errorf("afterwards: %+v", r.Result)
		}
	})
}

func TestAPanicInTheStoreIsContained(t *testing.T) {
	// Drivers have defects, too. Nothing is acknowledged, the next command works.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, d := w.converse(1), w.cold(1)
		alice := w.connect(1)
		w.store.set(func() {
			w.store.beforeCommit = func(context.Context, commit) error { panic("a defect") }
			w.store.onHeads = func(context.Context, domain.Needs) error { panic("a defect") }
		})
		warm, cold := alice.send(c, "lost"), alice.send(d, "lost")
		w.settle()
		if warm.code() != domain.Internal || cold.code() != domain.Internal {
			t.Errorf("ended as %q, %q", warm.code(), cold.code())
		}
		w.store.heal()
		warm, cold = alice.send(c, "kept"), alice.send(d, "kept")
		w.settle()
		if warm.code() != "" || cold.code() != "" {
			t.Errorf("afterwards: %v, %v", warm.err, cold.err)
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

func TestCommitErrorsDoNotReachClients(t *testing.T) {
	// The text of a driver's error is nobody's business outside.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		_, err := w.g.Do(t.Context(), w.user(1), message(c, "poison", ""))
		if refusal := domain.AsError(err); refusal.Code != domain.Internal || refusal.Detail == errPoison.Error() {
			t.Errorf("the client sees %+v", refusal)
		}
		if !errors.Is(err, errPoison) {
			t.Errorf("the log does not see the cause: %v", err)
		}
	})
}

// trap is a sink with a defect.
type trap struct{}

func (trap) Wake()                 { panic("a defect") }
func (trap) Close(domain.Farewell) {}

func TestADefectInAnnouncingEndsNothing(t *testing.T) {
	// A gateway with thousands of sessions must not end because of one that it cannot tell something.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice := w.subscriber(1)
		bob := w.user(2)
		broken, _, err := w.g.Connect(t.Context(), domain.Hello{Username: string(bob.Username), Device: "broken"}, trap{})
		if err != nil {
			t.Fatal(err)
		}
		inbox := domain.Topic{Kind: domain.InboxTopic, User: bob.Username}
		if err := broken.Subscribe(t.Context(), []domain.Subscription{{Filter: inbox.String()}})[0]; err != nil {
			t.Fatal(err)
		}
		w.converse(1, 2)
		w.settle()
		if w.gauge("parley_gateway_panics_total") == 0 {
			t.Fatal("there was no panic")
		}
		w.do(1, message(c, "still here", ""))
		w.settle()
		alice.wantSeqs(c, []domain.Seq{2})
	})
}
