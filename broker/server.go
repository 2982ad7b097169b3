package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
)

// Options say what a server listens on and what it allows.
type Options struct {
	// TCP, WS and TLS are addresses to listen on, as net.Listen takes them; empty: not at all.
	TCP, WS, TLS string
	// TLSConfig is needed for TLS; a ClientCAs pool in it asks for client certificates as its ClientAuth says.
	TLSConfig *tls.Config
	Limits    Limits
	// Logger gets everything that goes wrong and, at debug level, every connection; nil: nothing is logged. Contents
	// of packets never reach it.
	Logger *slog.Logger
	// Registerer gets the metrics; nil: they are counted but not registered.
	Registerer prometheus.Registerer
}

// Limits bound what one socket, one address and all together may take. A zero value means the default.
type Limits struct {
	// PacketSize is the largest packet that is read, in bytes; default 128 KiB.
	PacketSize int
	// ConnectTimeout is how long a socket may take to TLS handshake, WebSocket upgrade and CONNECT together;
	// default 10 s.
	ConnectTimeout time.Duration
	// WriteTimeout is how long a peer may read nothing at all while something is written to it; default 30 s,
	// which is a tunnel: what waits for the peer costs nothing, it is in the log.
	WriteTimeout time.Duration
	// Connections is how many sockets may be open in total, PerAddress how many from one address (IPv6: from one
	// /64 network); default: any number.
	Connections, PerAddress int
	// Origins are the patterns (path.Match on the host, or on scheme://host) of the web pages that may connect over
	// WebSocket, besides those of the same host.
	Origins []string
}

func (l Limits) withDefaults() Limits {
	if l.PacketSize <= 0 {
		l.PacketSize = 128 << 10
	}
	if l.ConnectTimeout <= 0 {
		l.ConnectTimeout = 10 * time.Second
	}
	if l.WriteTimeout <= 0 {
		l.WriteTimeout = 30 * time.Second
	}
	return l
}

// maxWindow bounds the unacknowledged deliveries of a client, whatever Receive Maximum it announced; legacyWindow is
// the bound for MQTT 3.1.1, which cannot announce one (protocol.md section 3).
const (
	maxWindow    = 1024
	legacyWindow = 64
)

// Server is an MQTT server. Its methods may be called from any goroutine, except where they say otherwise.
type Server struct {
	limits  Limits
	log     *slog.Logger
	mochi   *mqtt.Server
	hooks   []mqtt.Hook
	metrics *brokerMetrics
	gate    *gate
	scratch sync.Pool

	tls       *tls.Config
	listeners []*listener
	web       *http.Server

	// connections counts the goroutines of connections, acceptors those of listeners.
	connections, acceptors sync.WaitGroup

	mu sync.Mutex
	// conns are the open connections. served, stopped and ended say which of Serve, StopAccepting and DisconnectAll
	// were called.
	conns                  map[*Conn]struct{}
	served, stopped, ended bool

	closing sync.Once
	closed  chan struct{}
	failed  error
}

// New makes a server and binds its ports, but does not accept connections yet. Close releases the ports, also when
// Serve was never called.
func New(o Options) (*Server, error) {
	s := &Server{
		limits: o.Limits.withDefaults(), log: o.Logger, tls: o.TLSConfig,
		conns: make(map[*Conn]struct{}), closed: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.scratch.New = func() any { return newScratch() }
	s.gate = newGate(s.limits.Connections, s.limits.PerAddress)
	if o.TLS != "" && o.TLSConfig == nil {
		return nil, errors.New("broker: an address for TLS needs a TLS configuration")
	}
	var err error
	if s.metrics, err = newBrokerMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("broker: register metrics: %w", err)
	}
	for _, l := range []struct{ name, address string }{{"tcp", o.TCP}, {"tls", o.TLS}, {"ws", o.WS}} {
		if l.address == "" {
			continue
		}
		if err := s.listen(l.name, l.address); err != nil {
			for _, open := range s.listeners {
				_ = open.Close()
			}
			return nil, err
		}
	}
	s.mochi = mqtt.New(s.mochiOptions())
	return s, s.Use(new(binder))
}

// mochiOptions turns off what the gateway does itself, and keeps small what cannot be turned off.
func (s *Server) mochiOptions() *mqtt.Options {
	c := mqtt.NewDefaultServerCapabilities()
	c.MaximumClients = math.MaxInt64 // the gate counts sockets, earlier
	c.MaximumClientWritesPending = 1 // nothing goes through mochi's queue
	c.MaximumPacketSize = uint32(s.limits.PacketSize)
	c.MaximumInflight = maxWindow
	c.TopicAliasMaximum = 0
	c.MinimumProtocolVersion = 4
	c.MaximumSessionExpiryInterval = 0
	c.MaximumMessageExpiryInterval = 0
	c.Compatibilities.NoInheritedPropertiesOnAck = true
	return &mqtt.Options{
		Capabilities:             c,
		Logger:                   slog.New(&discreet{s.log.Handler()}),
		ClientNetReadBufferSize:  512, // per connection; a larger packet is read past it
		ClientNetWriteBufferSize: 1024,
		SysTopicResendInterval:   math.MaxInt32, // its loop never runs
	}
}

// Use adds a hook. It is for the time before Serve. OnDisconnect of the hook is called at the end of every connection
// for which OnConnect was called, in some cases twice: after a panic, for instance, mochi does not call it.
func (s *Server) Use(h mqtt.Hook) error {
	if err := s.mochi.AddHook(h, nil); err != nil {
		return fmt.Errorf("broker: add hook: %w", err)
	}
	s.hooks = append(s.hooks, h)
	return nil
}

// Serve starts to accept connections and returns. Calls after the first do nothing.
func (s *Server) Serve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served || s.stopped {
		return
	}
	s.served = true
	// mochi's own Serve is left out: its loop copies the map of clients twice a second, to look for expired sessions
	// and in-flight packets, and there are none.
	for _, l := range s.listeners {
		s.acceptors.Go(l.serve)
	}
}

// Addrs gives the addresses that are listened on, by listener: "tcp", "tls", "ws".
func (s *Server) Addrs() map[string]net.Addr {
	m := make(map[string]net.Addr, len(s.listeners))
	for _, l := range s.listeners {
		m[l.name] = l.Addr()
	}
	return m
}

// StopAccepting closes the ports. Connections that are open stay.
func (s *Server) StopAccepting() {
	s.mu.Lock()
	stopped := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if stopped {
		return
	}
	for _, l := range s.listeners {
		_ = l.Close() // what matters is that it is closed
	}
	if s.web != nil {
		_ = s.web.Close()
	}
	s.acceptors.Wait()
}

// DisconnectAll ends all connections, as [Conn.Close] does, and those that are only being established. It does not
// wait for them. It implies StopAccepting.
func (s *Server) DisconnectAll(why domain.Farewell) {
	s.StopAccepting()
	for _, c := range s.end() {
		c.Close(why)
	}
}

// end lets no more connections join, and gives those that are open.
func (s *Server) end() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	return slices.Collect(maps.Keys(s.conns))
}

// Close ends everything: it implies StopAccepting and DisconnectAll, and waits until the last connection has gone. When
// ctx ends first the sockets are closed without ceremony, and Close returns its error without waiting further. Calls
// after the first wait for its outcome.
func (s *Server) Close(ctx context.Context) error {
	s.closing.Do(func() {
		defer close(s.closed)
		s.failed = s.shutDown(ctx)
	})
	select {
	case <-s.closed:
		return s.failed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) shutDown(ctx context.Context) error {
	s.DisconnectAll(domain.ShuttingDown())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.connections.Wait()
		_ = s.mochi.Close() // it only ever returns nil
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	for _, c := range s.end() {
		c.cut()
	}
	return fmt.Errorf("broker: connections did not end in time: %w", ctx.Err())
}

// join adds a connection to those that DisconnectAll ends. It is false when it is too late for that.
func (s *Server) join(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.conns[c] = struct{}{}
	s.connections.Add(1)
	return true
}

func (s *Server) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}
