package gateway_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

var (
	modelRuns = flag.Int("model.runs", 12, "how many random histories TestRandomHistories plays")
	modelSeed = flag.Uint64("model.seed", 1, "seed of the first random history")
)

func TestRandomHistories(t *testing.T) {
	// Whatever people do at the same time, and however the store fails: every session receives exactly what it is
	// entitled to, in order, and what was acknowledged is stored once.
	for i := range *modelRuns {
		seed := *modelSeed + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playHistory(t, seed) })
		})
	}
}

// history is a game in rounds. Within a round everything happens at once. Between two rounds nothing moves: there the
// model looks at what must hold.
type history struct {
	*world
	random        *rand.Rand
	users         []domain.UserID
	conversations []domain.ConversationID
	sessions      []*tracked
	// looked is how far the logs were at the last look.
	looked map[domain.ConversationID]domain.Seq

	mu   sync.Mutex
	sent []*answer
}

// tracked is a session with what the model knows of it.
type tracked struct {
	*client
	service bool
	// follows says which conversations the session is subscribed to.
	all     bool
	special map[domain.ConversationID]bool
	// busy is set in a round in which the session's subscriptions change, or it comes or goes: what it gets then
	// depends on the instant.
	busy bool
	gone bool
	// checked is how many events of a conversation were checked, since the log's length at the last look.
	checked map[domain.ConversationID]int
	since   map[domain.ConversationID]domain.Seq
}

func (s *tracked) follows(c domain.ConversationID) bool { return s.all || s.special[c] }

func playHistory(t *testing.T, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, func(o *gateway.Options) {
		o.CacheBytes = []int{1, 3000, 20_000, 1 << 20}[random.IntN(4)]
		for range random.IntN(3) {
			o.Logs = append(o.Logs, o.Logs[0])
		}
		o.CommitDeadline = 2 * time.Second
		o.CommitTimeout = time.Second
	})
	h := &history{world: w, random: random}
	for u := range domain.UserID(6) {
		h.users = append(h.users, u+1)
		w.user(u + 1)
	}
	for i := range 5 {
		members := []domain.UserID{1, 2}
		for _, u := range h.users[2:] {
			if random.IntN(2) == 0 {
				members = append(members, u)
			}
		}
		if i%2 == 0 {
			h.conversations = append(h.conversations, w.converse(members...))
		} else {
			h.conversations = append(h.conversations, w.cold(members...))
		}
	}
	w.settle()
	h.look()
	for range 8 {
		h.join()
	}
	for range 12 {
		h.round()
		h.check()
	}
}

// join connects a session. The model counts from here.
func (h *history) join() *tracked {
	s := &tracked{
		special: make(map[domain.ConversationID]bool),
		checked: make(map[domain.ConversationID]int), since: make(map[domain.ConversationID]domain.Seq),
	}
	windows := []int{1, 2, 3, 64}
	delays := []time.Duration{0, 0, time.Millisecond, 20 * time.Millisecond}
	delay := delays[h.random.IntN(len(delays))]
	options := []option{
		device(fmt.Sprint("d", h.random.IntN(3))), window(windows[h.random.IntN(4)], []int{1, 7, 64}[h.random.IntN(3)]),
	}
	if delay > 0 {
		options = append(options, slow(func() time.Duration { return delay }))
	}
	p := h.user(h.users[h.random.IntN(len(h.users))])
	if h.random.IntN(8) == 0 {
		p, s.service = service(1), true
	}
	s.client = h.attach(p, options...)
	// Not how far the logs are now: what is committed may still be on its way to the sessions.
	maps.Copy(s.since, h.looked)
	if s.all = h.random.IntN(4) > 0; s.all {
		s.subscribe(allEvents, domain.SubscribeOptions{QoS: byte(h.random.IntN(2))})
	}
	h.sessions = append(h.sessions, s)
	return s
}

// round lets many things happen at once and waits until all is quiet.
func (h *history) round() {
	var acting sync.WaitGroup
	for _, s := range h.sessions {
		s.busy = false
	}
	h.misbehave()
	for range 4 + h.random.IntN(4) {
		u, seed := h.users[h.random.IntN(len(h.users))], h.random.Uint64()
		acting.Go(func() { h.write(h.user(u), rand.New(rand.NewPCG(seed, 1))) })
	}
	for range h.random.IntN(4) {
		seed := h.random.Uint64()
		acting.Go(func() { h.govern(rand.New(rand.NewPCG(seed, 2))) })
	}
	for range h.random.IntN(3) {
		switch s := h.sessions[h.random.IntN(len(h.sessions))]; h.random.IntN(4) {
		case 0:
			s.busy = true
			acting.Go(s.hangUp)
		case 1:
			h.join().busy = true
		default:
			s.busy = true
			h.resubscribe(s)
		}
	}
	acting.Wait()
	h.pass(3 * time.Second)
	h.store.heal()
	h.pass(10 * time.Second)
}

// misbehave sets a fault of the store for the first part of the round.
func (h *history) misbehave() {
	m, random := h.store, rand.New(rand.NewPCG(h.random.Uint64(), 3))
	chance := func(n int) bool {
		m.faults.Lock()
		defer m.faults.Unlock()
		return random.IntN(n) == 0
	}
	slowly := func(context.Context, commit) error {
		<-time.After(time.Millisecond)
		return nil
	}
	switch h.random.IntN(6) {
	case 0: // an outage, longer than the deadline
		m.down()
	case 1: // connections break at random
		m.set(func() {
			m.beforeCommit = func(context.Context, commit) error {
				if chance(4) {
					return errGone()
				}
				return nil
			}
			m.afterCommit = func(context.Context, commit) error {
				if chance(3) {
					return errGone()
				}
				return nil
			}
			m.onHeads = func(context.Context, domain.Needs) error {
				if chance(5) {
					return errGone()
				}
				return nil
			}
			m.onEvents = func(context.Context, domain.ConversationID) error {
				if chance(3) {
					return errGone()
				}
				return nil
			}
		})
	case 2: // every outcome is unknown for longer than the deadline
		m.set(func() { m.afterCommit = func(context.Context, commit) error { return errGone() } })
	case 3, 4: // batches gather
		m.set(func() { m.beforeCommit = slowly })
	}
}

// write sends messages as the user, pipelined; a refusal for want of the store is sometimes tried again.
func (h *history) write(p domain.Principal, random *rand.Rand) {
	c := h.conversations[random.IntN(len(h.conversations))]
	for range 1 + random.IntN(60) {
		if random.IntN(10) == 0 {
			c = h.conversations[random.IntN(len(h.conversations))]
		}
		id := ""
		if random.IntN(2) == 0 {
			id = fmt.Sprint("m", random.IntN(400))
		}
		text := fmt.Sprint(p.User, " ", random.Uint64())
		if random.IntN(100) == 0 {
			text = "poison"
		}
		h.note(h.start(p, message(c, text, id)))
		if random.IntN(20) == 0 {
			<-time.After(time.Millisecond)
		}
	}
}

// govern changes participants. Users 1 and 2 stay, 1 as owner.
func (h *history) govern(random *rand.Rand) {
	c := h.conversations[random.IntN(len(h.conversations))]
	for range 1 + random.IntN(3) {
		u := domain.UserID(3 + random.IntN(4))
		var command domain.Command = add(c, u)
		if random.IntN(2) == 0 {
			command = remove(c, u)
		}
		h.note(h.start(h.user(1), command))
		if random.IntN(2) == 0 {
			<-time.After(time.Millisecond)
		}
	}
}

func (h *history) note(a *answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent = append(h.sent, a)
}

func (h *history) resubscribe(s *tracked) {
	ctx := context.WithoutCancel(h.t.Context())
	o := domain.SubscribeOptions{QoS: byte(h.random.IntN(2))}
	switch c := h.conversations[h.random.IntN(len(h.conversations))]; {
	case h.random.IntN(2) == 0 && s.all:
		s.session.Unsubscribe(ctx, []string{allEvents})
		s.all = false
	case h.random.IntN(2) == 0:
		s.all = s.session.Subscribe(ctx, []domain.Subscription{{Filter: allEvents, Options: o}})[0] == nil || s.all
	case s.special[c]:
		s.session.Unsubscribe(ctx, []string{"conversations/" + c.String() + "/events"})
		s.special[c] = false
	default:
		s.special[c] = s.session.Subscribe(ctx, []domain.Subscription{
			{Filter: "conversations/" + c.String() + "/events", Options: o},
		})[0] == nil
	}
}

// check compares what everybody has got with the log, while nothing moves.
func (h *history) check() {
	t := h.t
	t.Helper()
	h.checkAnswers()
	for _, s := range h.sessions {
		select {
		case <-s.ended:
			s.gone = true
		default:
		}
		for _, c := range h.conversations {
			h.checkSession(s, c)
		}
	}
	h.sessions = slices.DeleteFunc(h.sessions, func(s *tracked) bool { return s.gone })
	h.look()
	if len(h.sessions) == 0 {
		h.join()
	}
	if lagging := h.gauge("parley_delivery_lagging_sessions"); lagging != 0 {
		t.Errorf("%v sessions lag though all is quiet", lagging)
	}
	if queued := h.gauge("parley_commit_queue_commands"); queued != 0 {
		t.Errorf("%v commands are queued though all is quiet", queued)
	}
}

func (h *history) look() {
	h.looked = make(map[domain.ConversationID]domain.Seq)
	for _, c := range h.conversations {
		h.looked[c] = h.store.last(c)
	}
}

func (h *history) checkSession(s *tracked, c domain.ConversationID) {
	last := h.store.last(c)
	var want []domain.Seq
	for seq := s.since[c] + 1; seq <= last; seq++ {
		if s.service || slices.ContainsFunc(h.store.memberships(c, s.principal.User), func(in domain.Interval) bool {
			return seq >= in.From && (in.To == 0 || seq <= in.To)
		}) {
			want = append(want, seq)
		}
	}
	got := s.seqs(c)[s.checked[c]:]
	s.checked[c] += len(got)
	s.since[c] = last
	for i, seq := range got {
		if !slices.Contains(want, seq) || i > 0 && got[i-1] >= seq {
			h.t.Errorf("%s%s got %v of what it may see, %v", s.principal.Username, s.principal.ServiceName, got, want)
			return
		}
	}
	if s.busy || s.gone {
		return
	}
	if !s.follows(c) {
		want = nil
	}
	if !slices.Equal(got, want) {
		h.t.Errorf("%s%s got %v, want %v", s.principal.Username, s.principal.ServiceName, got, want)
	}
}

// checkAnswers checks that everything was answered, and that the log agrees with the answers.
func (h *history) checkAnswers() {
	t := h.t
	t.Helper()
	count := make(map[domain.ConversationID]map[string]int)
	logs := make(map[domain.ConversationID][]*domain.Event)
	for _, c := range h.conversations {
		logs[c], count[c] = h.store.events(c), make(map[string]int)
		for _, ev := range logs[c] {
			if ev.Message != nil {
				count[c][ev.Message.Text]++
			}
		}
	}
	for _, a := range h.sent {
		m, isMessage := a.command.(*domain.SendMessage)
		switch {
		case !a.answered():
			t.Fatalf("%s was never answered", a.command.Name())
		case a.err == nil && isMessage:
			ev := logs[m.Conversation][a.receipt.Seq-1]
			if ev.Message == nil || !a.receipt.Duplicate && ev.Message.Text != m.Text ||
				a.receipt.Duplicate && m.ClientID != "" && ev.Message.ClientID != m.ClientID {
				t.Errorf("%q was acknowledged with %+v, there the log has %+v", m.Text, a.receipt, ev)
			}
			if n := count[m.Conversation][m.Text]; n > 1 || n == 0 && !a.receipt.Duplicate {
				t.Errorf("%q is stored %d times", m.Text, n)
			}
		case isMessage && domain.CodeOf(a.err) != domain.Unavailable && count[m.Conversation][m.Text] > 0:
			t.Errorf("%q was refused as %v and stored", m.Text, a.err)
		case isMessage && m.Text == "poison" && a.err == nil:
			t.Error("poison was acknowledged")
		}
	}
	h.sent = nil
}
