package gateway_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

func TestRandomHistoriesOfDurableSessions(t *testing.T) {
	// Whatever devices do, and whatever fails: each device receives every event that it is entitled to, in order, and one
	// that it acknowledged never again, but for what a crash of the gateway made it forget: at most a flush.
	for i := range *modelRuns {
		seed := *modelSeed + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playDurable(t, seed) })
		})
	}
}

// saga is a game in rounds, as history is: within a round everything happens at once, and then all is quiet.
type saga struct {
	t             *testing.T
	random        *rand.Rand
	store         *memory
	ledger        *ledger
	users         []domain.Principal
	conversations []domain.ConversationID
	phones        []*phone

	now atomic.Pointer[node]
	// well is since when the ledger has not failed.
	well time.Time
}

// node is a gateway with its wire to the store.
type node struct {
	g    *gateway.Gateway
	wire *wire
}

// phone is a durable device.
type phone struct {
	s      *saga
	user   domain.Principal
	device string
	qos    byte
	// start is the last event of each conversation when it subscribed.
	start map[domain.ConversationID]domain.Seq
	// unseen is how often its user had begun to read a conversation that it could not at the last check, and what had come.
	unseen map[domain.ConversationID][2]int

	mu    sync.Mutex
	links []*link
	// crashed: the gateway has crashed since the last link was opened.
	crashed bool
}

// link is a connection of a phone. Its fields are guarded by the phone's mu.
type link struct {
	p       *phone
	session *gateway.Session
	random  *rand.Rand
	window  int
	eager   atomic.Bool // acknowledges everything at once; else some time something

	wakes, ended, gone chan struct{}
	finish             func()

	// floor is what the store must have known when the link was opened.
	floor map[domain.ConversationID]domain.Seq
	got   []*taken
	open  []*taken // not acknowledged
	// rivalled: another connection of the phone is being opened. What is acknowledged from then on may be too late.
	rivalled bool
}

// taken is an event that arrived.
type taken struct {
	delivery domain.Delivery
	// acked is when its acknowledgement had been handled; certain: in time to count.
	acked   time.Time
	certain bool
}

func playDurable(t *testing.T, seed uint64) {
	t.Helper()
	s := &saga{t: t, random: rand.New(rand.NewPCG(seed, 9)), store: newMemory(t), well: time.Now()}
	s.ledger = newLedger(s.store)
	s.boot()
	defer func() { s.now.Load().g.Close() }()
	for u := range domain.UserID(5) {
		s.users = append(s.users, s.store.addUser(u+1, 1).Principal(""))
	}
	for range 4 {
		s.converse()
	}
	for _, u := range s.users {
		for d := range 1 + s.random.IntN(2) {
			p := &phone{
				s: s, user: u, device: fmt.Sprint("phone-", d), qos: byte(min(s.random.IntN(4), 1)),
				start: make(map[domain.ConversationID]domain.Seq), unseen: make(map[domain.ConversationID][2]int),
			}
			for _, c := range s.conversations {
				p.start[c] = s.store.last(c)
			}
			s.phones = append(s.phones, p)
			l := p.connect(rand.New(rand.NewPCG(seed, uint64(len(s.phones)))))
			err := l.session.Subscribe(t.Context(), []domain.Subscription{
				{Filter: allEvents, Options: domain.SubscribeOptions{QoS: p.qos}},
			})[0]
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	defer func() {
		for _, p := range s.phones {
			p.last().finish()
		}
		s.rest(time.Second)
	}()
	for range 10 {
		s.round()
		s.check()
		if t.Failed() {
			return
		}
	}
	for _, p := range s.phones {
		p.connect(s.random).eager.Store(true)
	}
	s.rest(15 * time.Second)
	s.check()
	// What was withheld comes when all may read again.
	for _, c := range s.conversations {
		for _, u := range s.users {
			if _, blind := s.store.standing(c, u.User); blind {
				if _, err := s.now.Load().g.Do(t.Context(), s.users[0], reading(c, true, u.User)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	s.rest(15 * time.Second)
	s.check()
	s.checkMarks()
}

// boot starts a gateway on the store.
func (s *saga) boot() {
	n := &node{wire: &wire{store: s.store, ledger: s.ledger}}
	o := gateway.Options{
		History: n.wire, Sessions: n.wire, Authenticator: &door{store: s.store},
		CacheBytes: []int{1, 3000, 1 << 20}[s.random.IntN(3)], CommitDeadline: 2 * time.Second, CommitTimeout: time.Second,
	}
	for range 1 + s.random.IntN(3) {
		o.Logs = append(o.Logs, n.wire)
	}
	var err error
	if n.g, err = gateway.New(o); err != nil {
		s.t.Fatal(err)
	}
	s.now.Store(n)
}

// crash ends the gateway without giving it the chance to write anything, and starts another.
func (s *saga) crash() {
	n := s.now.Load()
	n.wire.cut.Store(true)
	at := time.Now()
	for _, p := range s.phones {
		p.mu.Lock()
		p.crashed = true
		for _, c := range s.conversations {
			// What was acknowledged more than a flush ago is known, unless the store was away.
			since := at.Add(-1100 * time.Millisecond)
			want := p.position(c, since)
			if got := s.ledger.position(p.user.User, p.device, c); got < want && s.well.Before(since) {
				s.t.Errorf("%s %s had acknowledged up to %d of %s long before the crash, the store knows %d",
					p.user.Username, p.device, want, c, got)
			}
			p.forget(c)
		}
		links := slices.Clone(p.links)
		p.mu.Unlock()
		for _, l := range links {
			l.finish()
		}
	}
	n.g.Close()
	s.boot()
}

func (s *saga) rest(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// converse makes a conversation of the first user and some others.
func (s *saga) converse() {
	c := &domain.CreateConversation{}
	for _, u := range s.users[1:] {
		if s.random.IntN(3) > 0 {
			c.Participants = append(c.Participants, domain.NewParticipant{UserRef: domain.UserRef{UserID: u.User}})
		}
	}
	c.Uber = s.random.IntN(2) == 0
	r, err := s.now.Load().g.Do(s.t.Context(), s.users[0], c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.conversations = append(s.conversations, r.Conversation)
}

func (s *saga) dice() *rand.Rand { return rand.New(rand.NewPCG(s.random.Uint64(), 4)) }

func (s *saga) round() {
	if s.random.IntN(3) == 0 {
		s.converse()
	}
	var acting sync.WaitGroup
	s.misbehave()
	for range 3 {
		r := s.dice()
		acting.Go(func() { s.write(r) })
	}
	for range s.random.IntN(3) {
		r := s.dice()
		acting.Go(func() { s.govern(r) })
	}
	for _, p := range s.phones {
		r := s.dice()
		acting.Go(func() { p.act(r) })
	}
	if s.random.IntN(3) == 0 {
		pause := time.Duration(s.random.IntN(2500)) * time.Millisecond
		acting.Go(func() {
			<-time.After(pause)
			s.crash()
		})
	}
	healed := make(chan struct{})
	time.AfterFunc(3*time.Second, func() {
		s.ledger.set(nil, nil)
		s.store.heal()
		close(healed)
	})
	<-healed
	acting.Wait()
	s.rest(10 * time.Second)
	s.well = time.Now()
}

// misbehave sets faults of the store for the first part of the round.
func (s *saga) misbehave() {
	r := s.dice()
	var mu sync.Mutex
	often := func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if r.IntN(3) == 0 {
			return errGone()
		}
		return nil
	}
	never := func(context.Context) error { return errGone() }
	hangs := func(ctx context.Context) error {
		<-ctx.Done()
		return errGone()
	}
	fault := s.random.IntN(8)
	if fault < 5 {
		s.well = time.Now().Add(time.Hour) // until it is known
	}
	switch fault {
	case 0:
		s.ledger.set(often, often)
	case 1:
		s.ledger.set(never, nil)
	case 2:
		s.ledger.set(nil, never) // it happens, and nobody learns of it
	case 3:
		s.ledger.set(hangs, nil)
	case 4:
		s.ledger.set(never, nil)
		s.store.down()
	case 5:
		s.store.set(func() {
			s.store.onEvents = func(ctx context.Context, _ domain.ConversationID) error { return often(ctx) }
			s.store.onHeads = func(ctx context.Context, _ domain.Needs) error { return often(ctx) }
		})
	}
}

func (s *saga) write(r *rand.Rand) {
	for range r.IntN(60) {
		m := message(s.conversations[r.IntN(len(s.conversations))], "hello", fmt.Sprint(r.Uint64()))
		_, _ = s.now.Load().g.Do(context.WithoutCancel(s.t.Context()), s.users[0], m) // the log tells what became of it
		if r.IntN(4) == 0 {
			<-time.After(time.Duration(r.IntN(100)) * time.Millisecond)
		}
	}
}

func (s *saga) govern(r *rand.Rand) {
	for range 1 + r.IntN(4) {
		c, u := s.conversations[r.IntN(len(s.conversations))], s.users[1+r.IntN(len(s.users)-1)].User
		command := []domain.Command{add(c, u), remove(c, u), reading(c, false, u), reading(c, true, u)}[r.IntN(4)]
		_, _ = s.now.Load().g.Do(context.WithoutCancel(s.t.Context()), s.users[0], command)
		<-time.After(time.Duration(r.IntN(500)) * time.Millisecond)
	}
}

// act lets a phone do this and that.
func (p *phone) act(r *rand.Rand) {
	for range r.IntN(4) {
		<-time.After(time.Duration(r.IntN(800)) * time.Millisecond)
		l := p.last()
		switch r.IntN(4) {
		case 0:
			l.finish()
		case 1:
			l.finish()
			<-l.gone
			p.connect(r)
		case 2: // takes over, if it is still connected
			p.connect(r)
		default:
			l.eager.Store(!l.eager.Load())
			l.Wake()
		}
	}
}

func (p *phone) last() *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[len(p.links)-1]
}

// connect opens a link, as soon as the gateway lets it.
func (p *phone) connect(r *rand.Rand) *link {
	l := &link{
		p: p, random: rand.New(rand.NewPCG(r.Uint64(), 5)), window: []int{1, 2, 5, 64}[r.IntN(4)],
		wakes: make(chan struct{}, 1), ended: make(chan struct{}), gone: make(chan struct{}),
		floor: make(map[domain.ConversationID]domain.Seq),
	}
	l.finish = sync.OnceFunc(func() { close(l.ended) })
	l.eager.Store(r.IntN(3) > 0)
	hello := domain.Hello{Username: string(p.user.Username), Device: p.device, Version: 5, Expiry: 3600}
	for {
		p.mu.Lock()
		if n := len(p.links); n > 0 {
			p.links[n-1].rivalled = true
		}
		for _, c := range p.s.conversations {
			if p.crashed {
				l.floor[c] = p.s.ledger.position(p.user.User, p.device, c)
			} else {
				l.floor[c] = p.position(c, time.Now())
			}
		}
		before := p.s.now.Load()
		p.mu.Unlock()
		session, welcome, err := before.g.Connect(context.WithoutCancel(p.s.t.Context()), hello, l)
		if err != nil {
			<-time.After(time.Duration(20+r.IntN(100)) * time.Millisecond)
			continue
		}
		p.mu.Lock()
		if p.s.now.Load() != before {
			p.mu.Unlock() // too late
			session.Leave(false)
			continue
		}
		if welcome.Present != (len(p.links) > 0) {
			p.s.t.Errorf("the session is present: %v, at connection %d", welcome.Present, len(p.links)+1)
		}
		l.session, p.crashed = session, false
		p.links = append(p.links, l)
		p.mu.Unlock()
		go l.pump()
		return l
	}
}

// Wake implements gateway.Sink.
func (l *link) Wake() {
	select {
	case l.wakes <- struct{}{}:
	default:
	}
}

// Close implements gateway.Sink.
func (l *link) Close(domain.Farewell) { l.finish() }

func (l *link) pump() {
	defer close(l.gone)
	defer func() { l.session.Leave(false) }()
	var again <-chan time.Time
	for {
		select {
		case <-l.ended:
			return
		case <-l.wakes:
		case <-again:
		}
		again = nil
		for busy := true; busy; {
			n, err := l.pull()
			acked := l.acknowledge()
			if busy = n+acked > 0 && err == nil; !busy {
				again = time.After(time.Duration(10+l.random.IntN(90)) * time.Millisecond)
			}
			select {
			case <-l.ended:
				return
			default:
			}
		}
		l.p.mu.Lock()
		if len(l.open) == 0 && len(l.wakes) == 0 && l.eager.Load() {
			// Nothing is to be done; but for a store that failed.
			again = time.After(time.Second)
		}
		l.p.mu.Unlock()
	}
}

func (l *link) pull() (int, error) {
	l.p.mu.Lock()
	room := l.window - len(l.open)
	l.p.mu.Unlock()
	ds, err := l.session.Next(context.WithoutCancel(l.p.s.t.Context()), make([]domain.Delivery, 0, 1+l.random.IntN(20)), room)
	for _, d := range ds {
		x := &taken{delivery: d}
		l.p.mu.Lock()
		l.got = append(l.got, x)
		if d.QoS > 0 {
			l.open = append(l.open, x)
		}
		l.p.mu.Unlock()
		if d.QoS == 0 {
			l.done(x)
		}
	}
	return len(ds), err
}

// acknowledge acknowledges what is open, or some of it, in any order.
func (l *link) acknowledge() int {
	l.p.mu.Lock()
	list := slices.Clone(l.open)
	l.p.mu.Unlock()
	l.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	if !l.eager.Load() {
		list = list[:min(len(list), l.random.IntN(3))]
	}
	for _, x := range list {
		l.done(x)
		l.p.mu.Lock()
		l.open = slices.DeleteFunc(l.open, func(o *taken) bool { return o == x })
		l.p.mu.Unlock()
	}
	return len(list)
}

func (l *link) done(x *taken) {
	l.session.Done(x.delivery)
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	x.acked, x.certain = time.Now(), !l.rivalled
}

// reach gives the last event up to which the link has acknowledged everything that it got of a conversation. The caller
// holds mu.
func (l *link) reach(c domain.ConversationID, counts func(*taken) bool) (last domain.Seq) {
	for _, x := range l.got {
		if x.delivery.Conversation != c {
			continue
		}
		if x.acked.IsZero() || !counts(x) {
			break
		}
		last = x.delivery.Seq
	}
	return last
}

// position gives how far the phone had come in a conversation at a time, for certain. The caller holds mu.
func (p *phone) position(c domain.ConversationID, until time.Time) (last domain.Seq) {
	for _, l := range p.links {
		last = max(last, l.reach(c, func(x *taken) bool { return x.certain && !x.acked.After(until) }))
	}
	return last
}

// forget notes what a crash has made the gateway forget. The caller holds mu.
func (p *phone) forget(c domain.ConversationID) {
	known := p.s.ledger.position(p.user.User, p.device, c)
	for _, l := range p.links {
		for _, x := range l.got {
			if x.delivery.Conversation == c && x.delivery.Seq > known {
				x.certain = false
			}
		}
	}
}

// due gives what the phone is entitled to.
func (p *phone) due(c domain.ConversationID) (seqs []domain.Seq) {
	for _, in := range p.s.store.memberships(c, p.user.User) {
		to := in.To
		if to == 0 {
			to = p.s.store.last(c)
		}
		seqs = append(seqs, span(max(in.From, p.start[c]+1), to)...)
	}
	return seqs
}

// check compares what everybody has got with the logs, while nothing moves.
func (s *saga) check() {
	s.t.Helper()
	for _, p := range s.phones {
		for _, c := range s.conversations {
			p.check(c)
		}
	}
}

func (p *phone) check(c domain.ConversationID) {
	t := p.s.t
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	due := p.due(c)
	blind := p.checkBlind(c)
	// next gives the place of the first event after seq.
	next := func(seq domain.Seq) int {
		i, found := slices.BinarySearch(due, seq)
		if found {
			i++
		}
		return i
	}
	reached := domain.Seq(0)
	for n, l := range p.links {
		name := fmt.Sprintf("%s %s, connection %d, %s", p.user.Username, p.device, n+1, c)
		at := -1
		for _, x := range l.got {
			if x.delivery.Conversation != c {
				continue
			}
			seq := x.delivery.Seq
			i, entitled := slices.BinarySearch(due, seq)
			switch {
			case !entitled:
				t.Errorf("%s: event %d came, due are %v", name, seq, due)
				return
			case at >= 0 && i != at:
				t.Errorf("%s: event %d came where %d was due", name, seq, due[at])
				return
			case at < 0 && i > next(reached):
				t.Errorf("%s: event %d came first, %d was acknowledged, due are %v", name, seq, reached, due)
				return
			case at < 0 && i < next(l.floor[c]):
				t.Errorf("%s: event %d came again, though all up to %d was acknowledged", name, seq, l.floor[c])
				return
			}
			at = i + 1
		}
		reached = max(reached, l.reach(c, func(*taken) bool { return true }))
		if n < len(p.links)-1 {
			continue
		}
		select {
		case <-l.ended:
			continue
		default:
		}
		if at < 0 {
			at = next(reached)
		}
		if l.eager.Load() && (at < len(due) && !blind || len(l.open) > 0) {
			t.Errorf("%s: all is quiet, and %v have not come, %d are open", name, due[at:], len(l.open))
		}
	}
	if got := p.s.ledger.position(p.user.User, p.device, c); got > max(reached, p.start[c]) {
		t.Errorf("%s %s: the store's position in %s is %d, beyond %d", p.user.Username, p.device, c, got, reached)
	}
}

// checkBlind reports whether the phone's user may not read a conversation in which it takes part, and checks that nothing of
// it came if that was so at the last check already, but for the event that says so. The caller holds mu.
func (p *phone) checkBlind(c domain.ConversationID) (blind bool) {
	p.s.t.Helper()
	times, blind := p.s.store.standing(c, p.user.User)
	if !blind {
		delete(p.unseen, c)
		return false
	}
	got := 0
	for _, l := range p.links {
		for _, x := range l.got {
			if x.delivery.Conversation != c {
				continue
			}
			got++
			if before, was := p.unseen[c]; was && before[0] == len(times) && got > before[1] && x.delivery.Seq != times[len(times)-1].To {
				p.s.t.Errorf("%s %s: event %d of %s came without the permission to read", p.user.Username, p.device, x.delivery.Seq, c)
			}
		}
	}
	p.unseen[c] = [2]int{len(times), got}
	return true
}

// checkMarks checks, when everybody has everything, that the delivered marks say so.
func (s *saga) checkMarks() {
	s.t.Helper()
	want := make(map[place]domain.Seq)
	for _, p := range s.phones {
		for _, c := range s.conversations {
			if due := p.due(c); len(due) > 0 {
				at := place{p.user.User, c}
				want[at] = max(want[at], due[len(due)-1])
			}
		}
	}
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	if !maps.Equal(s.ledger.marks, want) {
		s.t.Errorf("the marks are %v, want %v", s.ledger.marks, want)
	}
}
