package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/broker"
	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/hooks"
)

// patience is how long a test waits for what must happen, silence how long for what must not.
const (
	patience = 10 * time.Second
	silence  = 150 * time.Millisecond
)

// hall is the smallest gateway that the tests can do with: whoever has a good password is let in, every publish is
// decided by decide, and what is put on a session is delivered.
type hall struct {
	// connect, decide and subscribe replace what the hall does by itself.
	connect   func(hello domain.Hello) error
	decide    func(s *seat, req domain.Request, done func(domain.Receipt, error))
	subscribe func(s *seat, sub domain.Subscription) error

	mu    sync.Mutex
	users map[domain.Username]domain.UserID
	seats map[string]*seat // the last one, by user and device
	left  []*seat
	seq   domain.Seq
}

// seat is a session.
type seat struct {
	hall      *hall
	cl        *mqtt.Client
	conn      *broker.Conn
	hello     domain.Hello
	principal domain.Principal

	mu       sync.Mutex
	filters  map[string]domain.SubscribeOptions
	queue    []domain.Delivery
	done     []domain.Delivery
	skipped  []domain.Delivery
	requests []domain.Request
	left     int
	graceful bool
	expiry   string // as changed by the DISCONNECT
}

func (h *hall) login(_ context.Context, cl *mqtt.Client, hello domain.Hello) (hooks.Session, domain.Welcome, error) {
	if h.connect != nil {
		if err := h.connect(hello); err != nil {
			return nil, domain.Welcome{}, err
		}
	}
	if hello.Password != "good" {
		return nil, domain.Welcome{}, domain.Errorf(domain.NotAuthenticated, "wrong user name or password")
	}
	s := &seat{hall: h, cl: cl, conn: broker.ConnOf(cl), hello: hello, filters: map[string]domain.SubscribeOptions{}}
	if name, _, ok := domain.ServiceLogin(hello.Username); ok {
		s.principal = domain.Principal{Service: 9, ServiceName: name, Root: 1, Account: 1}
	} else {
		u, err := domain.ParseUsername(hello.Username)
		if err != nil {
			return nil, domain.Welcome{}, domain.Errorf(domain.NotAuthenticated, "wrong user name or password")
		}
		h.mu.Lock()
		if h.users == nil {
			h.users, h.seats = map[domain.Username]domain.UserID{}, map[string]*seat{}
		}
		if h.users[u] == 0 {
			h.users[u] = domain.UserID(len(h.users) + 1)
		}
		s.principal = domain.Principal{User: h.users[u], Username: u, Device: hello.Device, Root: 1, Account: 1}
		old := h.seats[s.key()]
		h.seats[s.key()] = s
		h.mu.Unlock()
		if old != nil {
			old.conn.Close(domain.TakenOver())
		}
	}
	s.conn.Attach(s)
	return s, domain.Welcome{Principal: s.principal, ServerTime: 1234}, nil
}

func (s *seat) key() string { return string(s.principal.Username) + "/" + s.hello.Device }

// seat gives the session of a device, which must have logged in.
func (h *hall) seat(tb testing.TB, user, device string) *seat {
	tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.seats[user+"/"+device]
	if s == nil {
		tb.Fatalf("%s/%s has not logged in", user, device)
	}
	return s
}

func (s *seat) Submit(req domain.Request, done func(domain.Receipt, error)) {
	s.mu.Lock()
	s.requests = append(s.requests, req)
	s.mu.Unlock()
	switch {
	case s.hall.decide != nil:
		s.hall.decide(s, req, done)
	case req.Err != nil:
		done(domain.Receipt{}, req.Err)
	default:
		done(s.hall.receipt(req), nil)
	}
}

// receipt commits a request.
func (h *hall) receipt(req domain.Request) domain.Receipt {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	m, ok := req.Command.(*domain.SendMessage)
	if !ok {
		return domain.Receipt{}
	}
	return domain.Receipt{Conversation: m.Conversation, Seq: h.seq, Message: domain.NewMessageID(m.Conversation, h.seq)}
}

func (s *seat) Subscribe(_ context.Context, subs []domain.Subscription) []error {
	errs := make([]error, len(subs))
	for i, sub := range subs {
		f, ok := domain.ParseFilter(sub.Filter)
		switch {
		case s.hall.subscribe != nil:
			errs[i] = s.hall.subscribe(s, sub)
		case !ok || !f.Allowed(s.principal):
			errs[i] = domain.Errorf(domain.AccessDenied, "you may not subscribe to that")
		}
		if errs[i] == nil {
			s.mu.Lock()
			s.filters[sub.Filter] = sub.Options
			s.mu.Unlock()
		}
	}
	return errs
}

func (s *seat) Unsubscribe(_ context.Context, filters []string) []bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := make([]bool, len(filters))
	for i, f := range filters {
		_, had[i] = s.filters[f]
		delete(s.filters, f)
	}
	return had
}

func (s *seat) Expire(after uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expiry = fmt.Sprint(after)
}

func (s *seat) Leave(graceful bool) {
	s.mu.Lock()
	s.left++
	s.graceful = graceful
	s.mu.Unlock()
	s.hall.mu.Lock()
	defer s.hall.mu.Unlock()
	s.hall.left = append(s.hall.left, s)
}

// put queues deliveries and wakes the connection.
func (s *seat) put(ds ...domain.Delivery) {
	s.mu.Lock()
	s.queue = append(s.queue, ds...)
	s.mu.Unlock()
	s.conn.Wake()
}

func (s *seat) Next(_ context.Context, dst []domain.Delivery, window int) ([]domain.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for ; n < len(s.queue) && len(dst) < cap(dst); n++ {
		if s.queue[n].QoS > 0 {
			if window == 0 {
				break
			}
			window--
		}
		dst = append(dst, s.queue[n])
	}
	s.queue = s.queue[n:]
	return dst, nil
}

func (s *seat) Done(d domain.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, d)
}

func (s *seat) Skipped(d domain.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skipped = append(s.skipped, d)
}

func (s *seat) count() (requests, done, skipped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests), len(s.done), len(s.skipped)
}

// publication gives something to deliver.
func publication(topic, payload string) *domain.Publication {
	return &domain.Publication{Topic: topic, Payload: []byte(payload), Accepted: time.Now()}
}

// rig is a running server with its hall.
type rig struct {
	*hall
	server *broker.Server
	reg    *prometheus.Registry
	log    *bytes.Buffer
	addr   string
	// cutShort: the test has closed the server without waiting.
	cutShort bool
}

// option changes what a rig is made with.
type option func(*broker.Options, *hooks.Options)

func limits(f func(*broker.Limits)) option {
	return func(o *broker.Options, _ *hooks.Options) { f(&o.Limits) }
}

func newRig(tb testing.TB, h *hall, opts ...option) *rig {
	tb.Helper()
	if h == nil {
		h = new(hall)
	}
	r := &rig{hall: h, reg: prometheus.NewRegistry(), log: new(bytes.Buffer)}
	log := slog.New(slog.NewTextHandler(&locked{w: r.log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	bo := broker.Options{TCP: "127.0.0.1:0", WS: "127.0.0.1:0", Logger: log, Registerer: r.reg}
	ho := hooks.Options{Connect: h.login, Logger: log, Registerer: r.reg}
	for _, o := range opts {
		o(&bo, &ho)
	}
	var err error
	if r.server, err = broker.New(bo); err != nil {
		tb.Fatal(err)
	}
	ho.Wire = r.server
	if err := r.server.Use(hooks.New(ho)); err != nil {
		tb.Fatal(err)
	}
	r.server.Serve()
	if a := r.server.Addrs()["tcp"]; a != nil {
		r.addr = a.String()
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.server.Close(ctx); err != nil && !r.cutShort {
			tb.Error("close: ", err)
		}
	})
	return r
}

// metric gives the sum of a family's values, of those with the label values (name, value, …).
func (r *rig) metric(tb testing.TB, name string, labels ...string) float64 {
	tb.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			match := 0
			for _, l := range m.GetLabel() {
				for i := 0; i+1 < len(labels); i += 2 {
					if l.GetName() == labels[i] && l.GetValue() == labels[i+1] {
						match++
					}
				}
			}
			if match == len(labels)/2 {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// eventually waits until the condition holds.
func eventually(tb testing.TB, what string, f func() bool) {
	tb.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !f(); <-tick.C {
		if time.Now().After(deadline) {
			tb.Fatalf("never: %s", what)
		}
	}
}

// client speaks MQTT packet by packet.
// hi is what a client says in its CONNECT.
// connect logs in, and fails the test if that is refused.
// try sends a CONNECT and gives the answer.
// open sends a CONNECT.
// encoded gives a packet's bytes.
// recv gives the next packet, or one without a type when the connection has ended.
// quiet fails the test if anything comes, the end of the connection included.
// ended fails the test unless nothing but the end of the connection comes.
// expect gives the next packet, which must be of the type.
// ping makes a round trip through the server.
// held is a source that waits until its connection ends.
type held struct {
	*seat
	reached chan struct{}
}

func (h *held) Next(ctx context.Context, dst []domain.Delivery, _ int) ([]domain.Delivery, error) {
	h.reached <- struct{}{}
	<-ctx.Done()
	return dst, ctx.Err()
}
