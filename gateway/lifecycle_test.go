package gateway_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

func TestDrainAnswersWhatWasTaken(t *testing.T) {
	// A deployment must lose nothing that was taken, and take nothing that it cannot finish.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, cold := w.converse(1, 2), w.cold(1, 2)
		alice, bob := w.connect(1), w.subscriber(2)
		hold := w.store.holdCommits()
		var taken []*answer
		for range 1000 {
			taken = append(taken, alice.send(c, "taken"), alice.send(cold, "taken"))
		}
		taken = append(taken, w.start(w.user(1), add(c, w.user(3).User)), w.start(w.user(1), &domain.GetMe{}))
		w.settle()
		drained := make(chan error, 1)
		go func() { drained <- w.g.Drain(context.WithoutCancel(t.Context())) }()
		w.settle()
		late := []*answer{alice.send(c, "late"), w.start(w.user(1), &domain.GetMe{}), w.start(w.user(1), add(c, 3))}
		w.settle()
		for _, a := range late {
			if a.code() != domain.Unavailable {
				t.Errorf("what came late ended as %q", a.code())
			}
		}
		if _, err := w.dial(w.user(2), device("late")); domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("a late login ended as %v", err)
		}
		select {
		case err := <-drained:
			t.Fatalf("drained while commands were under way: %v", err)
		default:
		}
		hold.open()
		if err := <-drained; err != nil {
			t.Fatal(err)
		}
		w.settle()
		for i, a := range taken {
			if a.code() != "" {
				t.Fatalf("command %d ended as %q", i, a.code())
			}
		}
		if n := len(bob.texts(c)) + len(bob.texts(cold)); n != 2000 {
			t.Errorf("%d messages were delivered", n)
		}
	})
}

func TestDrainGivesUpWhenToldSo(t *testing.T) {
	// An operator's patience is shorter than a store's outage.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		hold := w.store.holdCommits()
		sent := w.start(w.user(1), message(c, "hello", ""))
		w.settle()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		if err := w.g.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("drained as %v", err)
		}
		hold.open()
		w.settle()
		if sent.code() != "" {
			t.Errorf("ended as %q", sent.code())
		}
	})
}

func TestCloseAnswersEverything(t *testing.T) {
	// Whoever waits for an answer gets one before the store behind it is closed.
	for _, busy := range []string{"commit", "head", "question", "duplicate", "resync"} {
		t.Run(busy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c, cold := w.converse(1, 2), w.cold(1, 2)
				alice := w.connect(1)
				w.do(1, message(c, "known", "a"))
				hold := newGate()
				var answers []*answer
				switch busy {
				case "commit":
					w.store.set(func() {
						w.store.beforeCommit = func(ctx context.Context, _ commit) error { return hold.wait(ctx) }
					})
					for range 1000 {
						answers = append(answers, alice.send(c, "hello"))
					}
					answers = append(answers, alice.submit(domain.Request{
						Command: add(c, w.user(3).User), Name: "addParticipants",
					}))
				case "head":
					w.store.set(func() {
						w.store.onHeads = func(ctx context.Context, _ domain.Needs) error { return hold.wait(ctx) }
					})
					for range 1000 {
						answers = append(answers, alice.send(cold, "hello"))
					}
				case "question":
					w.store.set(func() {
						w.store.onHeads = func(ctx context.Context, _ domain.Needs) error { return hold.wait(ctx) }
					})
					for range 10 {
						answers = append(answers, alice.submit(domain.Request{Command: &domain.GetMe{}, Name: "getMe"}))
					}
				case "duplicate":
					w.store.set(func() {
						w.store.onEvents = func(ctx context.Context, _ domain.ConversationID) error { return hold.wait(ctx) }
					})
					for range 10 {
						answers = append(answers, alice.sendAs(c, "again", "a"))
					}
				case "resync":
					w.store.down()
					answers = append(answers, alice.send(c, "hello"))
					w.pass(10 * time.Second)
				}
				w.settle()
				w.g.Close()
				for i, a := range answers {
					if a.code() == "pending" || a.code() == "" {
						t.Fatalf("command %d of %d ended as %q", i, len(answers), a.code())
					}
				}
				w.g.Close()
				if a := alice.send(c, "late"); a.code() != domain.Unavailable {
					t.Errorf("a late message ended as %q", a.code())
				}
				w.store.heal()
			})
		})
	}
}

func TestCommandsAndCloseMayMeet(t *testing.T) {
	// Transports do not stop at the same instant; whatever comes is answered once, and nothing stays behind.
	for range 30 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			c, cold := w.converse(1, 2), w.cold(1, 2)
			alice := w.connect(1)
			done := make(chan struct{})
			var answers []*answer
			go func() {
				defer close(done)
				for i := range 300 {
					switch i % 4 {
					case 0:
						answers = append(answers, alice.send(c, "hello"))
					case 1:
						answers = append(answers, alice.send(cold, "hello"))
					case 2:
						answers = append(answers, alice.submit(domain.Request{Command: &domain.GetMe{}, Name: "getMe"}))
					case 3:
						answers = append(answers, alice.submit(domain.Request{
							Command: &domain.CreateConversation{}, Name: "createConversation",
						}))
					}
				}
			}()
			w.g.Close()
			<-done
			for _, a := range answers {
				<-a.done
				if a.code() != "" && a.code() != domain.Unavailable {
					t.Errorf("ended as %v", a.err)
				}
			}
		})
	}
}

func TestACallerThatStopsWaitingIsLetGo(t *testing.T) {
	// An HTTP request whose client went away must not hold anything.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		hold := w.store.holdCommits()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := w.g.Do(ctx, w.user(1), message(c, "hello", "")); domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("ended as %v", err)
		}
		if waited := time.Since(begin); waited != time.Second {
			t.Errorf("waited %v", waited)
		}
		hold.open()
		w.settle()
		if w.store.last(c) != 2 {
			t.Error("what was taken was not finished")
		}
	})
}

func TestAGatewayNeedsItsParts(t *testing.T) {
	// A forgotten part must be noticed at the start, not at the first message.
	store := newMemory(t)
	whole := gateway.Options{Logs: []gateway.Log{store}, History: store, Authenticator: &door{store: store}}
	for name, without := range map[string]func(*gateway.Options){
		"Logs":          func(o *gateway.Options) { o.Logs = nil },
		"History":       func(o *gateway.Options) { o.History = nil },
		"Authenticator": func(o *gateway.Options) { o.Authenticator = nil },
	} {
		o := whole
		without(&o)
		if g, err := gateway.New(o); err == nil {
			g.Close()
			t.Errorf("a gateway without %s starts", name)
		}
	}
	g, err := gateway.New(whole)
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
}

func TestQuestionsAreLimited(t *testing.T) {
	// Each holds a goroutine and soon a connection to the store.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice := w.connect(1)
		hold := newGate()
		w.store.set(func() {
			w.store.onHeads = func(ctx context.Context, _ domain.Needs) error {
				select {
				case <-hold.opened:
					return nil
				case <-ctx.Done():
					return errGone()
				}
			}
		})
		var answers []*answer
		for range 10000 {
			answers = append(answers, alice.submit(domain.Request{Command: &domain.GetMe{}, Name: "getMe"}))
		}
		refused := 0
		for _, a := range answers {
			if a.answered() {
				refused++
			}
		}
		if refused < 1000 {
			t.Errorf("%d of 10000 questions are being answered at a time", 10000-refused)
		}
		hold.open()
		w.settle()
		for _, a := range answers {
			if code := a.code(); code != "" && code != domain.Unavailable {
				t.Fatalf("ended as %q", code)
			}
		}
	})
}
