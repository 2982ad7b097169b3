package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

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
	// Endings tells whose logins were ended, on other nodes too; nil: only those that this one is told of end sessions.
	Endings Endings
	// Presence keeps when users were last seen and who subscribed to whom; nil: nobody is told of others.
	Presence Presences
	// Grace is how long users stay online when their last device has gone (default 60 s).
	Grace time.Duration
	// Sessions keeps durable sessions; nil: every session ends with its connection.
	Sessions Sessions
	// Missed serves sessions in push mode; nil: there is none.
	Missed Missed
	// Wills keeps the wills of sessions; nil: none are taken.
	Wills Wills

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
	missed   Missed
	// wills is nil where none are taken; willsDue has a token when some may be due.
	wills    Wills
	willsDue chan struct{}
	flusher  flusher
	partings partings
	readers  readers
	pages    pages
	// node names this gateway at the store; openings makes the times at which sessions began unique here.
	node     string
	openings atomic.Int64
	// endings counts calls of EndSessions.
	endings atomic.Int64
	auth    Authenticator
	logins  Logins
	proofs  Endings
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
	// those that come back with much to read, for which the others must not wait. arriving bounds how many connections begin
	// and end.
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
		history: o.History, sessions: o.Sessions, missed: o.Missed, node: newKey(),
		wills: o.Wills, willsDue: make(chan struct{}, 1), maxMarked: either(o.MaxMarked, 100),
		maxUserSessions: o.MaxUserSessions, maxQueue: either(o.MaxQueue, 4096),
		maxWaiting: either(o.MaxWaitingBytes, 256<<20), auth: o.Authenticator, logins: o.Logins, proofs: o.Endings, links: o.Links, contents: o.Contents, limits: o.Limits, logger: o.Logger, now: o.Now,
		messageRate: o.MessageRate, commandRate: o.CommandRate, transientRate: o.TransientRate,
		maxSubscriptions: either(o.MaxSubscriptions, 1000), maxSessions: o.MaxSessions,
		maxDirect: maxDirectQueue, maxDirectBytes: either(o.MaxDirectBytes, 1<<20),
		commitTimeout: either(o.CommitTimeout, 5*time.Second), commitDeadline: either(o.CommitDeadline, 5*time.Second),
		running: ctx, cancel: cancel, lagging: newLane(1), returning: newLane(10), arriving: newLane(0),
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
	if o.Endings != nil {
		g.workers.Go(func() { g.watchEndings(o.Endings) })
	}
	if g.wills != nil {
		g.workers.Go(g.executeWills)
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
	turn, err := g.arriving.take(ctx)
	if err != nil {
		return nil, domain.Welcome{}, err
	}
	endings := g.endings.Load()
	p, expires, err := g.auth.Authenticate(ctx, hello)
	turn.end()
	if err != nil {
		return nil, domain.Welcome{}, err
	}
	p.Device = hello.Device
	if hello.Will != nil {
		if err := g.admitWill(ctx, p, hello.Will); err != nil {
			return nil, domain.Welcome{}, err // before anybody is displaced
		}
	}
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
		if old.principal.Device == p.Device {
			old.awaitGoodbye()
		}
		g.displace(old, s)
	}
	present, err := g.goOn(ctx, s, displaced)
	if err == nil && hello.Will != nil {
		err = s.keepWill(ctx, hello.Will)
	}
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
		if old.principal.Device != by.principal.Device {
			old.disinherit() // its user has gone on elsewhere: that is no loss
		}
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
		s.disinherit() // a logout of sorts
		if byToken {
			s.endAfterReplies(why) // one of them may have asked for it
			continue
		}
		s.sink.Close(why)
	}
}
