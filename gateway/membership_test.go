package gateway_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
)

func TestANewcomerSeesFromItsJoiningOn(t *testing.T) {
	// What was said before is asked for, not pushed; what is said after must not be missed.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		bob, carol := w.subscriber(2), w.subscriber(3)
		w.do(1, message(c, "before", ""))
		w.do(1, add(c, 3))
		w.do(1, message(c, "after", ""))
		carol.wantSeqs(c, span(3, 4))
		bob.wantSeqs(c, span(2, 4))
		if ev := carol.events[c][0]; ev.Type != domain.EventEditConversation || ev.Action != "addParticipants" ||
			len(ev.Participants) != 1 || ev.Participants[0].UserID != 3 || len(ev.ConversationData.Participants) != 3 {
			t.Errorf("the joining event reads %+v", ev)
		}
	})
}

func TestTheRemovingEventIsTheLast(t *testing.T) {
	// Who was removed must learn it, and nothing more.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		bob, carol := w.subscriber(2), w.subscriber(3, idle)
		billing := w.attach(service(1))
		billing.subscribe(allEvents, domain.SubscribeOptions{})
		w.do(1, message(c, "before", ""))
		w.do(1, remove(c, 2, 3))
		w.do(1, message(c, "after", ""))
		for n := 1; n > 0; {
			n, _ = carol.pull(1, 1)
		}
		bob.wantSeqs(c, span(2, 3))
		carol.wantSeqs(c, span(2, 3))
		billing.wantSeqs(c, span(2, 4))
		if ev := bob.events[c][1]; ev.Action != "removeParticipants" || len(ev.Participants) != 2 {
			t.Errorf("the removing event reads %+v", ev)
		}
	})
}

func TestWhoComesAndGoesSeesItsTimesOnly(t *testing.T) {
	// Also when a slow session has several such times ahead of it.
	for _, options := range [][]option{nil, {idle}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			c := w.converse(1, 2)
			bob := w.subscriber(2, options...)
			for range 3 {
				w.do(1, message(c, "seen", ""))
				w.do(1, remove(c, 2))
				w.do(1, message(c, "unseen", ""))
				w.do(1, add(c, 2))
			}
			w.do(1, message(c, "seen", ""))
			if bob.window < 0 {
				for n := 1; n > 0; {
					n, _ = bob.pull(2, 2)
				}
			}
			bob.wantSeqs(c, []domain.Seq{2, 3, 5, 6, 7, 9, 10, 11, 13, 14})
		})
	}
}

func TestWhoMayNotReadIsNotTold(t *testing.T) {
	// canRead is a permission like any other, and a participant without it gets no events.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		no := false
		carol := w.subscriber(w.user(3).User)
		r := w.do(1, &domain.CreateConversation{Participants: []domain.NewParticipant{{
			UserRef: domain.UserRef{UserID: 3}, Permissions: &domain.PermissionsPatch{CanRead: &no},
		}}})
		w.do(1, message(r.Conversation, "secret", ""))
		carol.wantSeqs(r.Conversation, nil)
		if err := carol.session.Subscribe(t.Context(), []domain.Subscription{
			{Filter: "conversations/" + r.Conversation.String() + "/events"},
		})[0]; domain.CodeOf(err) != domain.AccessDenied {
			t.Errorf("subscribing ended as %v", err)
		}
	})
}

func TestMembershipIsNoticedInTheInbox(t *testing.T) {
	// A client learns of conversations by its inbox, whether or not it follows their events.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bob, carol, laptop := w.connect(2), w.connect(3), w.connect(2, device("laptop"))
		for _, cl := range []*client{bob, carol} {
			cl.subscribe(cl.inbox(), domain.SubscribeOptions{QoS: 1})
		}
		c := w.converse(1, 2)
		w.settle()
		w.do(1, message(c, "no matter for the inbox", ""))
		w.do(1, add(c, 3))
		w.do(1, remove(c, 2))
		w.do(1, add(c, 2))
		if got := bob.types(); !slices.Equal(got, []string{"conversationAdded", "conversationRemoved", "conversationAdded"}) {
			t.Errorf("bob's inbox has %v", got)
		}
		if got := carol.types(); !slices.Equal(got, []string{"conversationAdded"}) {
			t.Errorf("carol's inbox has %v", got)
		}
		added := bob.notices(bob.inbox())[0]
		data, _ := added["conversationData"].(map[string]any)
		if added["conversation"] != c.String() || data["uuid"] != c.String() {
			t.Errorf("the notice reads %v", added)
		}
		if len(laptop.direct) > 0 {
			t.Errorf("a session without subscription got %v", laptop.direct)
		}
	})
}

// lagging makes delivery stand still at the given session's next wake-up, while commits go on: two more batches fit
// on the way. A real sink never blocks; here it stands for a delivery that takes its time.
func lagging(c *client) (release func()) {
	g := newGate()
	c.mu.Lock()
	c.onWake = func() { _ = g.wait(context.Background()) }
	c.mu.Unlock()
	return g.open
}

func TestEventsGoToThoseOfTheirTime(t *testing.T) {
	// Commits overtake delivery. A message is for the participants at its place in the log, not for those of now.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		other, c := w.converse(1), w.converse(1, 2)
		alice, bob, carol := w.subscriber(1), w.subscriber(2), w.subscriber(3)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		release := lagging(alice)
		a := w.start(w.user(1), message(other, "delivery stands still", ""))
		w.settle()
		b := w.start(w.user(1), message(c, "for bob", ""))
		w.settle()
		d := w.start(w.user(1), remove(c, 2))
		w.settle()
		e := w.start(w.user(1), add(c, 3))
		w.settle()
		if last := w.store.last(c); last < 3 || len(bob.seqs(c)) > 0 {
			t.Fatalf("%d events are committed, %v delivered", last, bob.seqs(c))
		}
		release()
		w.settle()
		w.do(1, message(c, "for carol", ""))
		for _, a := range []*answer{a, b, d, e} {
			if a.code() != "" {
				t.Errorf("%v", a.err)
			}
		}
		bob.wantSeqs(c, span(2, 3))
		carol.wantSeqs(c, span(4, 5))
		alice.wantSeqs(c, span(2, 5))
		if got := bob.types(); !slices.Equal(got, []string{"conversationRemoved"}) {
			t.Errorf("bob's inbox has %v", got)
		}
	})
}

func TestANewcomerSeesNothingOlderThatIsStillOnItsWay(t *testing.T) {
	// The same for joining: what was committed before must not reach who joined before it was delivered.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		other, c := w.converse(1), w.converse(1, 2)
		alice, carol := w.subscriber(1), w.subscriber(3)
		release := lagging(alice)
		w.start(w.user(1), message(other, "delivery stands still", ""))
		w.settle()
		w.start(w.user(1), message(c, "not for carol", ""))
		w.settle()
		w.start(w.user(1), add(c, 3))
		w.settle()
		if w.store.last(c) != 3 || len(carol.seqs(c)) > 0 {
			t.Fatalf("%d events are committed, %v delivered", w.store.last(c), carol.seqs(c))
		}
		release()
		w.settle()
		w.do(1, message(c, "for carol", ""))
		carol.wantSeqs(c, span(3, 4))
	})
}

func TestChangesElsewhereAreFollowed(t *testing.T) {
	// Another node may change the participants: the next message here shows it, and the gap before it is filled.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		alice, bob, carol, dave := w.subscriber(1), w.subscriber(2), w.subscriber(3), w.subscriber(4)
		for _, cl := range []*client{bob, dave} {
			cl.subscribe(cl.inbox(), domain.SubscribeOptions{})
		}
		w.do(1, message(c, "two", ""))
		w.store.elsewhere(w.user(1), remove(c, 2)) // 3
		w.store.elsewhere(w.user(1), add(c, 4))    // 4
		w.do(1, message(c, "five", ""))
		w.do(1, message(c, "six", ""))
		alice.wantSeqs(c, span(2, 6))
		carol.wantSeqs(c, span(2, 6))
		bob.wantSeqs(c, span(2, 3))
		dave.wantSeqs(c, span(4, 6))
		if got := bob.types(); !slices.Equal(got, []string{"conversationRemoved"}) {
			t.Errorf("bob's inbox has %v", got)
		}
		if got := dave.types(); !slices.Equal(got, []string{"conversationAdded"}) {
			t.Errorf("dave's inbox has %v", got)
		}
	})
}

func TestChangesElsewhereBeforeAChangeHereAreFollowed(t *testing.T) {
	// What happens here is not the first thing that happens after somebody was removed elsewhere: that event is the
	// last for it all the same.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		alice, bob := w.subscriber(1), w.subscriber(2)
		w.user(4)
		w.user(5)
		w.store.elsewhere(w.user(1), remove(c, 2)) // 2
		w.store.elsewhere(w.user(1), add(c, 4))    // 3
		w.do(1, add(c, 5))
		alice.wantSeqs(c, span(2, 4))
		bob.wantSeqs(c, span(2, 2))
	})
}

func TestWhoComesAndGoesElsewhereSeesItsTimesOnly(t *testing.T) {
	// Removed and added again, or the other way round, before this node looks: the state at the end does not show it.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		alice, bob, carol, dave := w.subscriber(1), w.subscriber(2), w.subscriber(3), w.subscriber(4)
		billing := w.attach(service(1))
		billing.subscribe(allEvents, domain.SubscribeOptions{})
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		dave.subscribe(dave.inbox(), domain.SubscribeOptions{})
		w.do(1, message(c, "two", ""))
		w.store.elsewhere(w.user(1), remove(c, 2)) // 3
		w.store.elsewhere(w.user(1), add(c, 4))    // 4
		w.store.elsewhere(w.user(1), add(c, 2))    // 5
		w.store.elsewhere(w.user(1), remove(c, 4)) // 6
		w.do(1, message(c, "seven", ""))
		for _, all := range []*client{alice, carol, billing} {
			all.wantSeqs(c, span(2, 7))
		}
		bob.wantSeqs(c, []domain.Seq{2, 3, 5, 6, 7})
		dave.wantSeqs(c, span(4, 6))
		if got := bob.types(); !slices.Equal(got, []string{"conversationRemoved", "conversationAdded"}) {
			t.Errorf("bob's inbox has %v", got)
		}
		if got := dave.types(); !slices.Equal(got, []string{"conversationAdded", "conversationRemoved"}) {
			t.Errorf("dave's inbox has %v", got)
		}
	})
}

func TestChangesElsewhereAreFollowedOnceTheStoreAnswers(t *testing.T) {
	// The log says who took part; while it cannot be read nobody is told wrong things, and afterwards everybody is told.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2, 3)
		alice, bob := w.subscriber(1), w.subscriber(2)
		w.store.elsewhere(w.user(1), remove(c, 2)) // 2
		w.store.set(func() {
			w.store.onEvents = func(context.Context, domain.ConversationID) error { return errGone() }
		})
		sent := []*answer{w.start(w.user(1), message(c, "three", ""))}
		w.settle()
		sent = append(sent, w.start(w.user(1), message(c, "four", "")))
		w.settle()
		for _, a := range sent {
			if a.code() != "" {
				t.Errorf("committed, and ended as %v", a.err)
			}
		}
		if got := bob.seqs(c); len(got) > 1 {
			t.Errorf("bob got %v", got)
		}
		w.store.heal()
		w.pass(5 * time.Second)
		w.do(1, message(c, "five", ""))
		alice.wantSeqs(c, span(2, 5))
		bob.wantSeqs(c, span(2, 2))
	})
}

func TestAMessageDuringTheCreationIsInOrder(t *testing.T) {
	// The creation's answer may be long in coming while others see the conversation in the store already and write.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice, bob := w.subscriber(1), w.subscriber(2)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		hold := newGate()
		w.store.set(func() { w.store.afterCommit = func(ctx context.Context, _ commit) error { return hold.wait(ctx) } })
		created := w.start(w.user(1), &domain.CreateConversation{
			Participants: []domain.NewParticipant{{UserRef: domain.UserRef{UserID: 2}}},
		})
		<-hold.arrived
		var c domain.ConversationID
		w.store.mu.Lock()
		for id := range w.store.records {
			c = id
		}
		w.store.mu.Unlock()
		sent := bob.send(c, "found it")
		w.settle()
		hold.open()
		w.settle()
		if created.code() != "" || sent.code() != "" || sent.receipt.Seq != 2 {
			t.Fatalf("%v, %v %+v", created.err, sent.err, sent.receipt)
		}
		alice.wantSeqs(c, span(1, 2))
		bob.wantSeqs(c, span(1, 2))
		if got := bob.types(); !slices.Equal(got, []string{"conversationAdded"}) {
			t.Errorf("bob's inbox has %v", got)
		}
	})
}

func TestAnExistingConversationIsGivenOnce(t *testing.T) {
	// Two who open a direct conversation at the same time meet in one, and are told of one.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alice := w.subscriber(1)
		w.user(2)
		alice.subscribe(alice.inbox(), domain.SubscribeOptions{})
		direct := func(with domain.UserID) *domain.CreateConversation {
			return &domain.CreateConversation{Direct: true, Participants: []domain.NewParticipant{
				{UserRef: domain.UserRef{UserID: with}},
			}}
		}
		one, two := w.start(w.user(1), direct(2)), w.start(w.user(2), direct(1))
		w.settle()
		if one.code() != "" || two.code() != "" || one.receipt.Conversation != two.receipt.Conversation {
			t.Fatalf("%v %+v, %v %+v", one.err, one.receipt, two.err, two.receipt)
		}
		if one.receipt.Duplicate == two.receipt.Duplicate || *one.receipt.Result.Existing == *two.receipt.Result.Existing {
			t.Errorf("both or neither is the first: %+v %+v", one.receipt, two.receipt)
		}
		alice.wantSeqs(one.receipt.Conversation, span(1, 1))
		if got := alice.types(); !slices.Equal(got, []string{"conversationAdded"}) {
			t.Errorf("alice's inbox has %v", got)
		}
	})
}

func TestWhoCameSinceTheLastEventIsToldOfTheNext(t *testing.T) {
	// Nobody looks for the conversations of a user who comes. They have to notice, also when what happens next is that the
	// user has to go, or that others change.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, d, e := w.converse(1, 2, 3), w.converse(1, 2, 3), w.converse(1, 2, 3)
		for _, id := range []domain.ConversationID{c, d, e} {
			w.do(1, message(id, "before they came", ""))
		}
		bob, carol := w.subscriber(2), w.subscriber(3)
		bob.subscribe(bob.inbox(), domain.SubscribeOptions{})
		w.do(1, remove(c, 2))
		w.do(1, message(c, "without bob", ""))
		w.do(1, message(d, "for both", ""))
		w.do(1, remove(e, 3))
		w.do(1, message(e, "without carol", ""))
		bob.wantSeqs(c, span(3, 3))
		bob.wantSeqs(d, span(3, 3))
		bob.wantSeqs(e, span(3, 4))
		carol.wantSeqs(c, span(3, 4))
		carol.wantSeqs(d, span(3, 3))
		carol.wantSeqs(e, span(3, 3))
		if got := bob.types(); !slices.Equal(got, []string{"conversationRemoved"}) {
			t.Errorf("the inbox has %v", got)
		}
		// And the same for who goes and comes back, while another device stays.
		desk := w.subscriber(2, device("desk"))
		bob.hangUp()
		w.settle()
		again := w.subscriber(2)
		w.do(1, message(d, "for all", ""))
		desk.wantSeqs(d, span(4, 4))
		again.wantSeqs(d, span(4, 4))
		bob.wantSeqs(d, span(3, 3))
		desk.hangUp()
		again.hangUp()
		w.settle()
		w.do(1, message(d, "for carol", ""))
		back := w.subscriber(2)
		w.do(1, message(d, "for bob again", ""))
		back.wantSeqs(d, span(6, 6))
		carol.wantSeqs(d, span(3, 6))
	})
}
