package gateway_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/parley-im/parley/domain"
)

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
						Command: &hooked{Command: message(c, "boom", ""), common: explode}, Name: "sendMessage",
					})
					after = alice.send(c, "after")
				} else {
					before = alice.submit(domain.Request{Command: add(c, w.user(3).User), Name: "addParticipants"})
					bad = alice.submit(domain.Request{
						Command: &hooked{Command: add(c, w.user(4).User), common: explode}, Name: "addParticipants",
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
