package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// errPanic is the end of a connection whose goroutine panicked.
var errPanic = errors.New("panic")

// start runs a connection in a goroutine of its own, which owns the socket from then on. open makes the stream.
func (s *Server) start(r *raw, l *listener, open func() (stream, error)) {
	c := &Conn{server: s, raw: r, listener: l.name}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if !s.join(c) {
		c.cut()
		return
	}
	go func() {
		defer s.connections.Done()
		defer s.forget(c)
		defer c.joinAhead()
		defer c.cut()
		c.live(open)
	}()
}

// live is the life of a connection.
func (c *Conn) live(open func() (stream, error)) {
	if err := c.open(open); err != nil {
		if !errors.Is(err, net.ErrClosed) {
			c.server.metrics.refused.WithLabelValues("handshake").Inc()
		}
		return
	}
	err := c.establish()
	c.server.log.Debug("connection ends", "listener", c.listener, "remote", c.raw.RemoteAddr().String(), "error", err)
	c.Close(c.farewellFor(err))
	c.settle(err)
	c.await()
	if errors.Is(err, io.EOF) || isTimeout(err) {
		return // there is nobody to listen
	}
	// Until the peer has closed its side, or the deadline has come: a socket that is closed with something unread
	// takes with it what the peer has not read yet.
	_, _ = io.Copy(io.Discard, c.raw)
}

func (c *Conn) open(open func() (stream, error)) (err error) {
	defer func() {
		if c.caught(recover()) {
			err = errPanic
		}
	}()
	st, err := open()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving {
		return net.ErrClosed
	}
	c.stream = st
	return nil
}

// establish hands the connection to mochi and gives the error that it ended with. A panic, which one malformed packet
// can cause, ends this connection only.
func (c *Conn) establish() (err error) {
	defer func() {
		if c.caught(recover()) {
			err = errPanic
		}
	}()
	return c.server.mochi.EstablishConnection(c.listener, (*socket)(c))
}

// caught counts and logs a panic, if it was one. What panicked is not logged by value: it might hold a payload.
func (c *Conn) caught(panicked any) bool {
	if panicked == nil {
		return false
	}
	c.server.metrics.panics.Inc()
	what := "not an error"
	if err, ok := panicked.(error); ok {
		what = err.Error()
	}
	c.server.log.Error("panic in a connection", "listener", c.listener, "panic", what, "stack", string(debug.Stack()))
	return true
}

// farewellFor says what a client of MQTT 5 is to be told about the error that ended its connection: nothing, if the
// error is that it has gone.
func (c *Conn) farewellFor(err error) domain.Farewell {
	var code packets.Code
	switch {
	case errors.Is(err, errPanic):
		return domain.Farewell{Reason: packets.ErrUnspecifiedError.Code, Text: string(domain.Internal)}
	case errors.As(err, &code) && code.Code >= packets.ErrUnspecifiedError.Code:
		return domain.Farewell{Reason: code.Code, Text: code.Reason}
	case isTimeout(err):
		return domain.Farewell{Reason: packets.ErrKeepAliveTimeout.Code, Text: packets.ErrKeepAliveTimeout.Reason}
	}
	return domain.Farewell{}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// settle tells the hooks that the connection is over, and removes what mochi may have left of it: it does neither when
// it panicked, or when the connection was lost between login and CONNACK.
func (c *Conn) settle(err error) {
	c.mu.Lock()
	cl := c.client
	c.mu.Unlock()
	if cl == nil {
		return
	}
	cl.Stop(err)
	for _, h := range c.server.hooks {
		if h.Provides(mqtt.OnDisconnect) {
			c.dismiss(h, cl, err)
		}
	}
	clients := c.server.mochi.Clients
	if present, ok := clients.Get(cl.ID); ok && present == cl {
		c.server.mochi.UnsubscribeClient(cl)
		clients.Delete(cl.ID)
	}
}

func (c *Conn) dismiss(h mqtt.Hook, cl *mqtt.Client, err error) {
	defer func() { c.caught(recover()) }()
	h.OnDisconnect(cl, err, true)
}

// await waits until nothing is written any more.
func (c *Conn) await() {
	c.mu.Lock()
	if !c.running && !c.flushing {
		c.mu.Unlock()
		return
	}
	over := make(chan struct{})
	c.over = over
	c.mu.Unlock()
	<-over
}

// binder tells a Conn which client it belongs to, and what that client can take. It is the first hook.
type binder struct{ mqtt.HookBase }

func (*binder) ID() string { return "connection" }

func (*binder) Provides(b byte) bool { return b == mqtt.OnConnect }

func (*binder) OnConnect(cl *mqtt.Client, _ packets.Packet) error {
	c := ConnOf(cl)
	if c == nil {
		return errNoConn
	}
	props := cl.Properties.Props
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client, c.version, c.largest = cl, cl.Properties.ProtocolVersion, int(props.MaximumPacketSize)
	switch {
	case c.version < 5:
		c.window.limit = legacyWindow
	case props.ReceiveMaximum == 0: // absent: any number
		c.window.limit = maxWindow
	default:
		c.window.limit = min(int(props.ReceiveMaximum), maxWindow)
	}
	return nil
}

var errNoConn = errors.New("broker: not a connection of this server")
