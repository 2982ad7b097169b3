package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// listener accepts sockets of one kind. Towards http.Server it is a net.Listener of sockets that have passed the gate.
type listener struct {
	net.Listener
	name   string
	server *Server
	open   prometheus.Gauge
	in     prometheus.Counter
	out    prometheus.Counter
}

func (s *Server) listen(name, address string) error {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return fmt.Errorf("broker: listen for %s: %w", name, err)
	}
	l := &listener{
		Listener: ln, name: name, server: s,
		open: s.metrics.connections.WithLabelValues(name),
		in:   s.metrics.received.WithLabelValues(name), out: s.metrics.sent.WithLabelValues(name),
	}
	s.listeners = append(s.listeners, l)
	if name == "ws" {
		s.web = s.newWebServer(l)
	}
	return nil
}

// serve accepts until the listener is closed.
func (l *listener) serve() {
	if l.name == "ws" {
		_ = l.server.web.Serve(l) // always http.ErrServerClosed or that of the closed listener
		return
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		r, ok := conn.(*raw)
		if !ok {
			continue
		}
		if l.name == "tls" {
			l.server.start(r, l, func() (stream, error) { return handshake(r, l.server.tls) })
		} else {
			l.server.start(r, l, func() (stream, error) { return r, nil })
		}
	}
}

// Accept implements net.Listener. It fails only when the listener was closed: a lack of file descriptors, say, passes.
// Every socket that it gives is a *raw and has the deadline for its CONNECT set.
func (l *listener) Accept() (net.Conn, error) {
	for pause := time.Duration(0); ; {
		conn, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil:
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.server.log.Error("cannot accept a connection", "listener", l.name, "error", err)
			<-time.After(pause)
			continue
		}
		pause = 0
		leave, refusal := l.server.gate.enter(conn.RemoteAddr())
		if leave == nil {
			l.server.metrics.refused.WithLabelValues(refusal).Inc()
			_ = conn.Close()
			continue
		}
		l.open.Inc()
		r := &raw{
			Conn: conn, patience: l.server.limits.WriteTimeout, in: l.in, out: l.out,
			leave: func() { leave(); l.open.Dec() },
		}
		_ = conn.SetReadDeadline(time.Now().Add(l.server.limits.ConnectTimeout)) // a dead socket shows when it is read
		return r, nil
	}
}

// secure is a TLS connection.
type secure struct {
	*tls.Conn
	raw *raw
}

// handshake runs under the deadline that Accept has set.
func handshake(r *raw, config *tls.Config) (stream, error) {
	conn := tls.Server(r, config)
	if err := conn.HandshakeContext(context.Background()); err != nil {
		return nil, err
	}
	return &secure{conn, r}, nil
}

func (s *secure) hangUp() {
	_ = s.CloseWrite() // a peer that is gone need not be told
	s.raw.hangUp()
}
