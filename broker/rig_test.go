package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
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
type client struct {
	net.Conn
	tb      testing.TB
	r       *bufio.Reader
	version byte
}

// hi is what a client says in its CONNECT.
type hi struct {
	version   byte
	user      string
	device    string
	password  string
	keepAlive uint16
	durable   bool
	props     packets.Properties
	change    func(*packets.Packet)
	readBuf   int
}

const (
	alice = "alice@chat.acme"
	bob   = "bob@chat.acme"
)

func (r *rig) dial(tb testing.TB, readBuf int) net.Conn {
	tb.Helper()
	conn, err := net.DialTimeout("tcp", r.addr, patience)
	if err != nil {
		tb.Fatal(err)
	}
	if readBuf > 0 {
		if err := conn.(*net.TCPConn).SetReadBuffer(readBuf); err != nil {
			tb.Fatal(err)
		}
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// connect logs in, and fails the test if that is refused.
func (r *rig) connect(tb testing.TB, o hi) *client {
	tb.Helper()
	c, ack := r.try(tb, o)
	if ack.FixedHeader.Type != packets.Connack || ack.ReasonCode != 0 {
		tb.Fatalf("CONNACK: %s", show(ack))
	}
	return c
}

// try sends a CONNECT and gives the answer.
func (r *rig) try(tb testing.TB, o hi) (*client, packets.Packet) {
	tb.Helper()
	c := r.open(tb, o)
	return c, c.recv()
}

// open sends a CONNECT.
func (r *rig) open(tb testing.TB, o hi) *client {
	tb.Helper()
	if o.version == 0 {
		o.version = 5
	}
	if o.user == "" {
		o.user = alice
	}
	if o.password == "" {
		o.password = "good"
	}
	conn := r.dial(tb, o.readBuf)
	c := &client{Conn: conn, tb: tb, r: bufio.NewReader(conn), version: o.version}
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connect}, Properties: o.props,
		Connect: packets.ConnectParams{
			ProtocolName: []byte("MQTT"), Clean: !o.durable, ClientIdentifier: o.device, Keepalive: o.keepAlive,
			UsernameFlag: true, Username: []byte(o.user), PasswordFlag: true, Password: []byte(o.password),
		},
	}
	if o.change != nil {
		o.change(&pk)
	}
	c.send(pk)
	return c
}

func (c *client) send(pk packets.Packet) {
	c.tb.Helper()
	if err := c.trySend(pk); err != nil {
		c.tb.Fatal(err)
	}
}

func (c *client) trySend(pk packets.Packet) error {
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.Write(encoded(c.tb, c.version, pk))
	return err
}

// encoded gives a packet's bytes.
func encoded(tb testing.TB, version byte, pk packets.Packet) []byte {
	tb.Helper()
	if pk.ProtocolVersion == 0 {
		pk.ProtocolVersion = version
	}
	pk.Mods.AllowResponseInfo = true
	var b bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connect:
		err = pk.ConnectEncode(&b)
	case packets.Publish:
		err = pk.PublishEncode(&b)
	case packets.Puback, packets.Pubrec, packets.Pubcomp:
		err = pk.PubackEncode(&b)
	case packets.Pubrel:
		pk.FixedHeader.Qos = 1
		err = pk.PubackEncode(&b)
	case packets.Subscribe:
		pk.FixedHeader.Qos = 1
		err = pk.SubscribeEncode(&b)
	case packets.Unsubscribe:
		pk.FixedHeader.Qos = 1
		err = pk.UnsubscribeEncode(&b)
	case packets.Pingreq:
		err = pk.PingreqEncode(&b)
	case packets.Disconnect:
		err = pk.DisconnectEncode(&b)
	case packets.Auth:
		err = pk.AuthEncode(&b)
	default:
		err = fmt.Errorf("type %d", pk.FixedHeader.Type)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func (c *client) raw(b ...byte) {
	c.tb.Helper()
	if _, err := c.Write(b); err != nil {
		c.tb.Fatal(err)
	}
}

// recv gives the next packet, or one without a type when the connection has ended.
func (c *client) recv() packets.Packet {
	c.tb.Helper()
	pk, err := c.tryRecv(patience)
	switch {
	case errors.Is(err, io.EOF):
		return packets.Packet{}
	case err != nil:
		c.tb.Fatalf("receive: %v", err)
	}
	return pk
}

// quiet fails the test if anything comes, the end of the connection included.
func (c *client) quiet() {
	c.tb.Helper()
	var timeout net.Error
	if pk, err := c.tryRecv(silence); !errors.As(err, &timeout) || !timeout.Timeout() {
		c.tb.Fatalf("expected nothing, got %s (%v)", show(pk), err)
	}
}

// ended fails the test unless nothing but the end of the connection comes.
func (c *client) ended() {
	c.tb.Helper()
	if pk, err := c.tryRecv(patience); err == nil || errors.Is(err, errGarbage) {
		c.tb.Fatalf("expected the end, got %s (%v)", show(pk), err)
	}
	_ = c.Close()
}

var errGarbage = errors.New("not a packet")

func (c *client) tryRecv(timeout time.Duration) (packets.Packet, error) {
	_ = c.SetReadDeadline(time.Now().Add(timeout))
	pk := packets.Packet{ProtocolVersion: c.version}
	b, err := c.r.ReadByte()
	if err != nil {
		return pk, err
	}
	fh := packets.FixedHeader{Type: b >> 4, Dup: b&8 > 0, Qos: b >> 1 & 3, Retain: b&1 > 0}
	if fh.Remaining, _, err = packets.DecodeLength(c.r); err != nil {
		return pk, errors.Join(errGarbage, err)
	}
	pk.FixedHeader = fh
	buf := make([]byte, fh.Remaining)
	if _, err := io.ReadFull(c.r, buf); err != nil {
		return pk, err
	}
	switch fh.Type {
	case packets.Connack:
		err = pk.ConnackDecode(buf)
	case packets.Publish:
		err = pk.PublishDecode(buf)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		err = pk.PubackDecode(buf)
	case packets.Suback:
		err = pk.SubackDecode(buf)
	case packets.Unsuback:
		err = pk.UnsubackDecode(buf)
	case packets.Pingresp:
	case packets.Disconnect:
		if c.version < 5 {
			err = errors.New("a DISCONNECT from a server of MQTT 3.1.1")
		} else if err = pk.DisconnectDecode(buf); fh.Remaining == 1 {
			pk.ReasonCode = buf[0]
		}
	default:
		err = fmt.Errorf("type %d", fh.Type)
	}
	if err != nil {
		return pk, errors.Join(errGarbage, err)
	}
	return pk, nil
}

// expect gives the next packet, which must be of the type.
func (c *client) expect(kind byte) packets.Packet {
	c.tb.Helper()
	pk := c.recv()
	if pk.FixedHeader.Type != kind {
		c.tb.Fatalf("expected %s, got %s", packets.PacketNames[kind], show(pk))
	}
	return pk
}

func (c *client) subscribe(filters ...string) packets.Packet {
	c.tb.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f, Qos: 1})
	}
	c.send(pk)
	return c.expect(packets.Suback)
}

// ping makes a round trip through the server.
func (c *client) ping() {
	c.tb.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.expect(packets.Pingresp)
}

const (
	hallway = "conversations/0190b6c4-0000-7000-8000-000000000001/messages"
	events  = "conversations/0190b6c4-0000-7000-8000-000000000001/events"
)

func pub(topic, payload string, qos byte, id uint16) packets.Packet {
	return packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos},
		TopicName:   topic, Payload: []byte(payload), PacketID: id,
	}
}

func message(text string, qos byte, id uint16) packets.Packet {
	return pub(hallway, fmt.Sprintf(`{"text":%q}`, text), qos, id)
}

func ackOf(kind byte, id uint16) packets.Packet {
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, PacketID: id}
}

func property(pk packets.Packet, key string) string {
	for _, p := range pk.Properties.User {
		if p.Key == key {
			return p.Val
		}
	}
	return ""
}

func show(pk packets.Packet) string {
	if pk.FixedHeader.Type == 0 {
		return "the end of the connection"
	}
	return fmt.Sprintf("%s id=%d reason=%#02x %q codes=%x topic=%q user=%v", packets.PacketNames[pk.FixedHeader.Type], pk.PacketID,
		pk.ReasonCode, pk.Properties.ReasonString, pk.ReasonCodes, pk.TopicName, pk.Properties.User)
}

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
