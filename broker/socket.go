package broker

import (
	"io"
	"net"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// socket is a Conn as mochi sees it. Its writes are queued, so they never block.
type socket Conn

var _ net.Conn = (*socket)(nil)

// Read implements net.Conn. It gives nothing more once the connection is leaving, but goes on to read until the peer has
// closed its side, so that the peer can read what was written.
func (s *socket) Read(p []byte) (int, error) {
	c := (*Conn)(s)
	for {
		if err := c.mayRead(); err != nil {
			return 0, err
		}
		n, err := c.read(p)
		c.mu.Lock()
		leaving := c.leaving
		c.mu.Unlock()
		switch {
		case leaving && err != nil:
			return 0, io.EOF
		case leaving:
			continue
		case n > 0:
			c.last = p[n-1]
		}
		return n, err
	}
}

// mayRead waits while too much is queued: who sends without reading is made to wait.
func (c *Conn) mayRead() error {
	c.mu.Lock()
	if c.released {
		c.mu.Unlock()
		return net.ErrClosed
	}
	if c.leaving || len(c.control) <= maxQueued {
		c.mu.Unlock()
		return nil
	}
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	drained := c.drained
	c.mu.Unlock()
	select {
	case <-drained:
	case <-c.ctx.Done():
	}
	return nil
}

// Write implements net.Conn. mochi writes whole packets.
func (s *socket) Write(p []byte) (int, error) {
	c := (*Conn)(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := p[0] >> 4
	if kind == packets.Disconnect && c.version < 5 {
		return len(p), nil // MQTT 3.1.1 has none from the server
	}
	if err := c.queueLocked(p); err != nil {
		return 0, err
	}
	switch kind {
	case packets.Connack:
		c.greeted = accepted(p)
		c.greeting = c.greeted
		c.kick()
	case packets.Disconnect:
		c.parted = true
	}
	return len(p), nil
}

// accepted tells whether a CONNACK lets the client in.
func accepted(connack []byte) bool {
	i := 1
	for connack[i]&0x80 != 0 {
		i++
	}
	return connack[i+2] == packets.CodeSuccess.Code
}

// Close implements net.Conn. The socket is closed by the Conn, which has the better manners; here only reading ends.
func (s *socket) Close() error {
	c := (*Conn)(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.released && !c.leaving {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed socket
	}
	c.released = true
	return nil
}

func (s *socket) LocalAddr() net.Addr  { return s.raw.LocalAddr() }
func (s *socket) RemoteAddr() net.Addr { return s.raw.RemoteAddr() }

// SetDeadline implements net.Conn. mochi means the keep alive; writes have deadlines of their own. It counts in whole seconds:
// one and a half times an odd keep alive (MQTT 5, section 3.1.2.10) is half a second more.
func (s *socket) SetDeadline(t time.Time) error {
	if !t.IsZero() {
		t = t.Add(time.Second / 2)
	}
	return s.SetReadDeadline(t)
}

// SetReadDeadline implements net.Conn. At the end of a connection the Conn sets the deadlines.
func (s *socket) SetReadDeadline(t time.Time) error {
	c := (*Conn)(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving || c.released || c.silent {
		return nil
	}
	return c.raw.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }
