package gateway

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
)

// Authenticator proves who a device is; [Accounts] is the one there is. A zero expiry means that the login does not
// end by itself.
type Authenticator interface {
	Authenticate(ctx context.Context, hello domain.Hello) (p domain.Principal, expires time.Time, err error)
}

// Options are what a gateway needs and may be told. Logs, History and Authenticator are required; the zero value of
// the rest is a sensible default.
type Options struct {
	// Logs are the store's committers: one shard each.
	Logs          []Log
	History       History
	Authenticator Authenticator
	// Logins makes and ends logins; nil: the commands that do so are refused.
	Logins Logins
	// Presence keeps when users were last seen and who subscribed to whom; nil: nobody is told of others.
	Presence Presences
	// Grace is how long users stay online when their last device has gone (default 60 s).
	Grace time.Duration
	// Sessions keeps durable sessions; nil: every session ends with its connection.
	Sessions Sessions

	Limits domain.Limits
	// MessageRate and CommandRate are per second and user, with bursts of twice that; 0: unlimited.
	MessageRate float64
	CommandRate float64
	// Links make the URLs of external content, and Contents keeps it; nil: there is none.
	Links    domain.Links
	Contents Contents
	// TransientRate is the same for messages to those online only.
	TransientRate float64
	// MaxSubscriptions is per session (default 1000).
	MaxSubscriptions int
	// MaxSessions is in total, MaxUserSessions per user; 0: unlimited.
	MaxSessions     int
	MaxUserSessions int
	// MaxMarked is the size up to which participants of a conversation are told of deliveries (default 100).
	MaxMarked int
	// MaxDirectBytes is how many bytes of replies and notices may wait for one session (default 1 MiB), MaxWaitingBytes
	// for all together (default 256 MiB).
	MaxDirectBytes  int
	MaxWaitingBytes int64
	// MaxQueue is how many commands may wait for a committer (default 4096).
	MaxQueue int
	// CacheBytes bounds the memory for heads and recent events (default 64 MiB).
	CacheBytes int
	// CommitTimeout bounds one attempt to commit (default 5 s), CommitDeadline all attempts for a command (default 5 s).
	CommitTimeout  time.Duration
	CommitDeadline time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Gateway is the heart of Parley: commands go in, committed events come out to the sessions concerned. Make one with
// [New], which starts it, and end it with [Gateway.Close].
type Gateway struct {
	history History
	// sessions is nil where every session ends with its connection.
	sessions Sessions
	flusher  flusher
	partings partings
	readers  readers
	// node names this gateway at the store; openings makes the times at which sessions began unique here.
	node     string
	openings atomic.Int64
	// endings counts calls of EndSessions.
	endings atomic.Int64
	auth    Authenticator
	logins  Logins
	hub     *hub
	shards  []*shard
	// presence is who of the connected users is there.
	presence *presence
	// links and contents are nil where there is no external content.
	links    domain.Links
	contents Contents
	limits   domain.Limits
	logger   *slog.Logger
	metrics  *gatewayMetrics
	now      func() time.Time

	messageRate, commandRate      float64
	transientRate                 float64
	throttle                      throttle
	reminders                     reminders
	maxSubscriptions, maxSessions int
	maxUserSessions, maxMarked    int
	maxQueue                      int
	maxWaiting                    int64
	waiting                       atomic.Int64 // bytes of replies and notices that wait for sessions
	maxDirect, maxDirectBytes     int
	commitTimeout, commitDeadline time.Duration

	// lagging and returning bound the reads of sessions that are behind: of those that have fallen behind a little, and of
	// those that come back with much to read, for which the others must not wait. arriving bounds how many of these ask the
	// store what they missed.
	lagging, returning, arriving *lane

	rounds   atomic.Uint64
	reads    atomic.Int64 // commands being answered from the store
	headless atomic.Int64 // commands waiting for the head of their conversation
	doubts   doubts
	draining atomic.Bool
	// underway counts commands that were taken and not answered.
	underway   sync.WaitGroup
	admission  sync.RWMutex // held for reading while a command is admitted, for writing to stop that
	running    context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup
	workers    sync.WaitGroup
}

// maxReads bounds the commands being answered from the store at a time, loadsAtOnce those of them that read.
const (
	maxReads       = 8192
	maxDirectQueue = 4096
)

// New makes and starts a gateway.
func New(o Options) (*Gateway, error) {
	if len(o.Logs) == 0 || o.History == nil || o.Authenticator == nil {
		return nil, errors.New("gateway: Logs, History and Authenticator are required")
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gateway{
		history: o.History, sessions: o.Sessions, node: newKey(), maxMarked: either(o.MaxMarked, 100),
		maxUserSessions: o.MaxUserSessions, maxQueue: either(o.MaxQueue, 4096),
		maxWaiting: either(o.MaxWaitingBytes, 256<<20), auth: o.Authenticator, logins: o.Logins, links: o.Links, contents: o.Contents, limits: o.Limits, logger: o.Logger, now: o.Now,
		messageRate: o.MessageRate, commandRate: o.CommandRate, transientRate: o.TransientRate,
		maxSubscriptions: either(o.MaxSubscriptions, 1000), maxSessions: o.MaxSessions,
		maxDirect: maxDirectQueue, maxDirectBytes: either(o.MaxDirectBytes, 1<<20),
		commitTimeout: either(o.CommitTimeout, 5*time.Second), commitDeadline: either(o.CommitDeadline, 5*time.Second),
		running: ctx, cancel: cancel, lagging: newLane(), returning: newLane(), arriving: newShortLane(),
	}
	if g.limits == (domain.Limits{}) {
		g.limits = domain.DefaultLimits()
	}
	if g.logger == nil {
		g.logger = slog.New(slog.DiscardHandler)
	}
	if g.now == nil {
		g.now = time.Now
	}
	g.hub = newHub(either(o.CacheBytes, 64<<20))
	g.presence = newPresence(g, o.Presence, either(o.Grace, time.Minute))
	metrics, err := newGatewayMetrics(o.Registerer, g)
	if err != nil {
		cancel()
		return nil, err
	}
	g.metrics = metrics
	for _, log := range o.Logs {
		s := newShard(g, log)
		g.shards = append(g.shards, s)
		g.workers.Go(s.commit)
		g.workers.Go(s.deliver)
	}
	if g.sessions != nil {
		g.workers.Go(g.keepSessions)
	}
	g.workers.Go(g.presence.keep)
	return g, nil
}

func either[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// Drain stops taking commands (they are refused as unavailable) and waits until those taken are committed, announced
// and acknowledged, or ctx ends.
func (g *Gateway) Drain(ctx context.Context) error {
	g.admission.Lock()
	g.draining.Store(true)
	g.admission.Unlock()
	idle := make(chan struct{})
	go func() {
		g.underway.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the gateway. What was not drained before is refused. It may be called more than once.
func (g *Gateway) Close() {
	g.admission.Lock()
	g.draining.Store(true)
	g.admission.Unlock()
	g.cancel()
	g.throttle.close()
	for _, s := range g.shards {
		s.close()
	}
	g.underway.Wait() // from here on nobody starts work in the background
	g.workers.Wait()
	g.background.Wait()
}

// Connect logs a device in and makes its session, which displaces an older one of the same client id or tag. Errors
// are refusals: not-authenticated, unavailable, rate-limited, and [domain.SessionConflict] for a reconnect that met a
// live session of its tag.
func (g *Gateway) Connect(ctx context.Context, hello domain.Hello, sink Sink) (*Session, domain.Welcome, error) {
	if g.draining.Load() {
		return nil, domain.Welcome{}, domain.Errorf(domain.Unavailable, "the gateway is shutting down")
	}
	if g.maxSessions > 0 && g.hub.count() >= g.maxSessions {
		return nil, domain.Welcome{}, g.full() // before a password costs anything
	}
	endings := g.endings.Load()
	p, expires, err := g.auth.Authenticate(ctx, hello)
	if err != nil {
		return nil, domain.Welcome{}, err
	}
	p.Device = hello.Device
	kept := hello
	kept.Password, kept.Will = "", nil // nothing of a session needs them any more
	s := &Session{g: g, principal: p, hello: kept, sink: sink, beginning: make(chan struct{})}
	displaced, err := g.hub.enter(s)
	if err != nil {
		return nil, domain.Welcome{}, err
	}
	g.metrics.sessions.Inc()
	g.presence.came(p.User)
	for _, old := range displaced {
		g.displace(old, s)
	}
	present, err := g.goOn(ctx, s, displaced)
	if err == nil && g.endings.Load() != endings {
		// Somebody's logins were ended before the session could be found: perhaps this one.
		_, _, err = g.auth.Authenticate(ctx, hello)
	}
	if err != nil {
		s.Leave(true)
		return nil, domain.Welcome{}, err
	}
	if !expires.IsZero() {
		s.mu.Lock()
		s.expiry = time.AfterFunc(expires.Sub(g.now()), func() { sink.Close(domain.TokenExpired()) })
		s.mu.Unlock()
	}
	return s, domain.Welcome{Principal: p, Present: present, ServerTime: domain.Millis(g.now())}, nil
}

// full refuses a session because there are as many as there may be.
func (g *Gateway) full() error {
	g.metrics.limited.WithLabelValues(limitSessions).Inc()
	return domain.Errorf(domain.RateLimited, "too many sessions")
}

func (g *Gateway) displace(old, by *Session) {
	var notice *domain.Notice
	if old.hello.Tag != "" && old.hello.Tag == by.hello.Tag {
		notice = &domain.Notice{Type: domain.NoticeConflict, Time: domain.Millis(g.now()), Tag: old.hello.Tag}
	}
	old.end(domain.TakenOver(), notice)
}

// EndSessions ends the sessions of a user or a service, for instance because it was deleted; with who.Login only those that
// were opened with a token of it, with byToken only those that were opened with any token. A session that is just being
// opened is ended too.
func (g *Gateway) EndSessions(who domain.Principal, byToken bool, why domain.Farewell) {
	g.endings.Add(1)
	sessions := g.hub.of(who.User)
	if who.User == 0 {
		sessions = g.hub.servicesOf(who.Root)
	}
	for _, s := range sessions {
		if s.principal.Service != who.Service || byToken && !s.principal.ByToken() ||
			who.Login != [16]byte{} && s.principal.Login != who.Login {
			continue
		}
		if byToken {
			s.endAfterReplies(why) // one of them may have asked for it
			continue
		}
		s.sink.Close(why)
	}
}

// Do runs a command for whoever is not a session, and waits for its result. Its errors are refusals. A user's commands count
// as those of its sessions do.
func (g *Gateway) Do(ctx context.Context, p domain.Principal, c domain.Command) (domain.Receipt, error) {
	if p.IsUser() && !g.hub.allowanceOf(g, p.User).allow(c) {
		err := errTooMany()
		g.metrics.command(c.Name(), err)
		return domain.Receipt{}, err
	}
	type outcome struct {
		receipt domain.Receipt
		err     error
	}
	done := make(chan outcome, 1)
	g.run(p, c, g.now(), func(r domain.Receipt, err error) { done <- outcome{r, err} })
	select {
	case o := <-done:
		return o.receipt, o.err
	case <-ctx.Done():
		return domain.Receipt{}, domain.Because(domain.Unavailable, ctx.Err(), "the answer was not waited for")
	}
}

// run starts a command: done is called once, from any goroutine.
func (g *Gateway) run(p domain.Principal, c domain.Command, accepted time.Time, done func(domain.Receipt, error)) {
	g.admission.RLock()
	if g.draining.Load() {
		g.admission.RUnlock()
		done(domain.Receipt{}, domain.Errorf(domain.Unavailable, "the gateway is shutting down"))
		return
	}
	g.underway.Add(1)
	g.admission.RUnlock()
	name := c.Name()
	finish := func(r domain.Receipt, err error) {
		g.metrics.command(name, err)
		r.Result = r.Result.Linked(g.links)
		done(r, err)
		g.underway.Done()
	}
	if err := domain.Check(c, g.limits); err != nil {
		finish(domain.Receipt{}, err)
		return
	}
	if c.Kind() == domain.Read || c.Kind() == domain.Logins {
		if g.reads.Add(1) > maxReads {
			g.reads.Add(-1)
			finish(domain.Receipt{}, domain.Errorf(domain.Unavailable, "too many questions at a time"))
			return
		}
		go func() {
			defer g.reads.Add(-1)
			if c.Kind() == domain.Logins {
				g.underway.Add(1) // until its sessions are ended, too
				defer g.underway.Done()
				result, after, err := g.logIns(p, c)
				finish(domain.Receipt{Result: &result}, err)
				after()
				return
			}
			result, err := g.read(p, c)
			finish(domain.Receipt{Result: &result}, err)
		}()
		return
	}
	if c.Kind() == domain.Immediate {
		result, err := g.immediate(p, c)
		finish(domain.Receipt{Result: &result}, err)
		return
	}
	it := &item{
		principal: p, command: c, accepted: accepted, size: weightOf(c), done: finish, key: newKey(),
	}
	needs := c.Needs(p)
	id, creates := needs.Conversation, needs.Conversation.IsZero()
	if creates && needs.Self {
		it.shard = g.shards[int(uint64(p.User)%uint64(len(g.shards)))]
		g.submit(it)
		return
	}
	if creates {
		it.newID = domain.ConversationID(uuid.Must(uuid.NewV7()))
		id = it.newID
	}
	it.stream, it.shard = g.hub.stream(id), g.shardOf(id)
	g.enqueue(it, creates)
}

// weightOf approximates how many bytes a command adds to a batch.
func weightOf(c domain.Command) int {
	var said domain.Content
	switch c := c.(type) {
	case *domain.SendMessage:
		said = c.Content
	case *domain.EditMessage:
		said = domain.Content{Payload: c.Payload, Parts: c.Parts, Attributes: c.Attributes}
		if c.Text != nil {
			said.Text = *c.Text
		}
	}
	n := 256 + len(said.Text) + len(said.Attributes)
	for _, p := range said.Payload {
		n += len(p)
	}
	for i := range said.Parts {
		n += len(said.Parts[i].Body)
	}
	return n
}

func (g *Gateway) shardOf(id domain.ConversationID) *shard {
	// The last bytes of a UUID are random in every version that is used.
	return g.shards[(int(id[14])<<8|int(id[15]))%len(g.shards)]
}

// enqueue passes an item to its committer; if the conversation's head is not at hand, after it was read. Items of one
// conversation keep their order meanwhile.
func (g *Gateway) enqueue(it *item, creates bool) {
	st := it.stream
	st.mu.Lock()
	if creates {
		st.born = true
	}
	if st.head == nil && !creates || st.loading {
		if g.headless.Add(1) > int64(g.maxQueue) {
			g.headless.Add(-1)
			st.mu.Unlock()
			g.refuse(it)
			return
		}
		st.waiting = append(st.waiting, it)
		load := !st.loading
		st.loading = true
		st.mu.Unlock()
		if load {
			g.background.Go(func() { g.load(st) })
		}
		return
	}
	st.mu.Unlock()
	g.submit(it)
}

func (g *Gateway) submit(it *item) {
	switch {
	case it.command.Kind() == domain.Signalling:
		g.tellOnline(it)
	case !it.shard.submit(it):
		g.refuse(it)
	}
}

func (g *Gateway) refuse(it *item) {
	it.err = domain.Errorf(domain.Unavailable, "too many commands are waiting")
	g.answer(it)
}

// load reads a conversation's head and then lets those that wait for it go on.
func (g *Gateway) load(st *stream) {
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	head, err := g.head(ctx, st.id)
	cancel()
	if err == nil {
		st.announcing.Lock()
		if st.open(head) {
			g.hub.settle(st, head)
		}
		st.announcing.Unlock()
		g.hub.weigh(st, st.holds())
	}
	for {
		st.mu.Lock()
		waiting := st.waiting
		st.waiting = nil
		if len(waiting) == 0 {
			st.loading = false
			st.mu.Unlock()
			return
		}
		st.mu.Unlock()
		g.headless.Add(-int64(len(waiting)))
		for _, it := range waiting {
			if err != nil {
				it.err = err
				g.answer(it)
				continue
			}
			g.submit(it)
		}
	}
}

// read answers a command that changes nothing.
func (g *Gateway) read(p domain.Principal, c domain.Command) (result domain.Result, err error) {
	defer g.contain(c.Name(), &err)
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	defer cancel()
	heads, err := g.history.Heads(ctx, p, c.Needs(p))
	if err != nil {
		return domain.Result{}, err
	}
	heads.Now, heads.Limits = domain.Millis(g.now()), g.limits
	decision, err := domain.Decide(heads, p, c)
	if err != nil {
		return domain.Result{}, err
	}
	if page := decision.Page; page != nil {
		events, err := g.history.Events(ctx, page.Conversation, page.From-1, page.To)
		if err != nil {
			return domain.Result{}, err
		}
		decision.Result.Events = make([]*domain.Event, 0, len(events))
		for _, ev := range events {
			if page.Shows(ev.Seq) {
				decision.Result.Events = append(decision.Result.Events, ev)
			}
		}
	}
	return decision.Result, nil
}

// immediate answers a command that does not need the store.
func (g *Gateway) immediate(p domain.Principal, c domain.Command) (domain.Result, error) {
	d, err := g.decide(&domain.Heads{Now: domain.Millis(g.now()), Limits: g.limits}, p, c)
	if err != nil {
		return domain.Result{}, err
	}
	if d.Status != nil {
		g.presence.set(p, *d.Status)
	}
	g.notify(p, d.Notices)
	return d.Result, nil
}

// head reads the present state of a conversation. A conversation that does not exist is an error.
func (g *Gateway) head(ctx context.Context, id domain.ConversationID) (head *domain.Conversation, err error) {
	defer g.contain("reading a head", &err)
	heads, err := g.history.Heads(ctx, domain.Principal{Admin: true}, domain.Needs{Conversation: id})
	switch {
	case err != nil:
		return nil, err
	case heads.Conversation == nil:
		return nil, domain.Errorf(domain.ConversationNotFound, "no such conversation")
	}
	return heads.Conversation, nil
}

// page reads a stretch of a log: the events after one number up to another.
func (g *Gateway) page(
	ctx context.Context, id domain.ConversationID, after, upto domain.Seq,
) (events []*domain.Event, err error) {
	defer g.contain("reading events", &err)
	return g.history.Events(ctx, id, after, upto)
}

// decide runs the rules; a defect in them fails the one command that hits it.
func (g *Gateway) decide(h *domain.Heads, p domain.Principal, c domain.Command) (d domain.Decision, err error) {
	defer g.contain(c.Name(), &err)
	return domain.Decide(h, p, c)
}

// contain makes an internal error of a panic in the function that defers it.
func (g *Gateway) contain(doing string, err *error) {
	if v := recover(); v != nil {
		g.metrics.panics.Inc()
		g.logger.Error("a panic", slog.String("in", doing), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		*err = domain.Errorf(domain.Internal, "something went wrong inside Parley")
	}
}
