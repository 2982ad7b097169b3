package broker

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"

	"github.com/parley-im/parley/domain"
)

// Source is where a connection's deliveries come from: a session. Next is called from one goroutine at a time, the
// others from any, also after the connection has gone.
type Source interface {
	// Next appends to dst what is to be delivered next, as far as its capacity goes, of which at most window
	// deliveries have QoS 1; it may block until ctx ends. When it appends nothing there is nothing to send that the
	// window allows, and [Conn.Wake] has to be called when that changes for another reason than the window. Deliveries may
	// come together with an error: they are sent, and Next is called again after a while.
	Next(ctx context.Context, dst []domain.Delivery, window int) ([]domain.Delivery, error)
	// Done says that a delivery has arrived: it was acknowledged, or written if its QoS is 0.
	Done(d domain.Delivery)
	// Skipped says that a delivery was larger than the client takes, and was left out.
	Skipped(d domain.Delivery)
}

// How long the end of a connection may take: flushTime to write what is queued, lingerTime for the peer to read it and
// to close its side. A socket closed earlier could take unread bytes of both sides with it.
const (
	flushTime  = 2 * time.Second
	lingerTime = time.Second
)

// maxQueued is how many bytes of control packets may wait before nothing more is read from the client.
const maxQueued = 64 << 10

// stream is what MQTT runs on. hangUp says to the peer that nothing more will come; it may wait for the peer until the
// deadlines of the raw socket.
type stream interface {
	io.ReadWriter
	hangUp()
}

// Conn is one client connection: the outbound half of a session. Its methods may be called from any goroutine, at any
// time, and do not block.
type Conn struct {
	server   *Server
	raw      *raw
	listener string
	ctx      context.Context
	cancel   context.CancelFunc

	// last is the last byte received. It belongs to the reading goroutine.
	last byte
	// stream is set, under mu, before anything is read or written.
	stream stream
	// ahead is what was read during the login; it belongs to the reading goroutine.
	ahead *ahead

	// writing is held while something is written to the stream. It comes before mu in the lock order.
	writing sync.Mutex

	mu       sync.Mutex
	client   *mqtt.Client
	version  byte
	largest  int // the largest packet that the client takes, in bytes
	window   window
	source   Source
	control  []byte // whole packets that wait to be written
	farewell domain.Farewell
	retries  uint8 // failures of the source in a row

	// drained, if not nil, is closed when control has been taken; over when nothing is written any more.
	drained, over chan struct{}

	// greeted: the CONNACK is on its way, greeting: it is not written yet. woken: the source may have something. stalled: it may have something that
	// the window did not allow.
	greeted, greeting, woken, stalled bool
	// running: the pump runs. pulling: it is in Source.Next. flushing: another goroutine writes control meanwhile.
	running, pulling, flushing bool
	// released: mochi is done with the connection. leaving: nothing new is sent. parted: the last packet is on its way,
	// a DISCONNECT if there is one. silent: nothing will be written any more.
	released, leaving, parted, silent bool
}

// Attach connects the session whose deliveries are sent. It is for the time of the login; they are sent after the
// CONNACK.
func (c *Conn) Attach(src Source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source, c.woken = src, true
	c.kick()
}

// Wake says that the source has something to give. Calls in quick succession may count as one.
func (c *Conn) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken = true
	c.kick()
}

// Close ends the connection, after what is being written. A client of MQTT 5 is sent a DISCONNECT with the reason, if
// it is not 0; one of MQTT 3.1.1 sees that the connection is closed. Calls after the first do nothing.
func (c *Conn) Close(why domain.Farewell) {
	c.mu.Lock()
	if c.leaving {
		c.mu.Unlock()
		return
	}
	c.leaving, c.farewell = true, why
	opened := c.stream != nil
	if opened {
		c.kick()
	}
	c.mu.Unlock()
	c.cancel()
	if !opened {
		c.cut()
		return
	}
	c.raw.rush(flushTime)
}

// cut closes the socket without ceremony.
func (c *Conn) cut() {
	c.mu.Lock()
	c.leaving = true
	c.hush()
	c.mu.Unlock()
	c.cancel()
	_ = c.raw.Close()
}

// hush has nothing written any more. The caller holds mu.
func (c *Conn) hush() {
	c.silent, c.control = true, nil
	if c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
}

// queue appends a packet to those that wait to be written.
func (c *Conn) queue(packet []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queueLocked(packet)
}

func (c *Conn) queueLocked(packet []byte) error {
	if c.silent || c.parted {
		return net.ErrClosed
	}
	c.control = append(c.control, packet...)
	c.kick()
	return nil
}

// acked takes the acknowledgement of a delivery.
func (c *Conn) acked(id uint16) {
	c.mu.Lock()
	d, ok := c.window.remove(id)
	if ok && c.stalled {
		c.stalled, c.woken = false, true
		c.kick()
	}
	src := c.source
	c.mu.Unlock()
	if ok {
		src.Done(d)
	}
}
