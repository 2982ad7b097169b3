package broker

import (
	"errors"
	"os"
	"time"
)

// lookAfter is how long a login may take before the connection is read ahead to see whether the client is still there.
// Most logins are over sooner, and cost nothing more.
const lookAfter = 50 * time.Millisecond

// ahead is one read of the stream that was begun while a login took its time.
type ahead struct {
	done chan struct{} // closed when n and err are set
	p    [1]byte
	n    int
	err  error
}

// Watch looks after the client while it is being logged in: nothing is read from it in the meantime, so that its going
// away would not be noticed. The connection's context ends when the client has gone. stop, which is to be called by the
// same goroutine, ends that; what the client has sent meanwhile is not lost. Watch is for the goroutine that handles the
// client's packets.
func (c *Conn) Watch() (stop func()) {
	a := &ahead{done: make(chan struct{})}
	begin := time.AfterFunc(lookAfter, func() {
		defer close(a.done)
		// The client may have nothing to say until it is logged in: only the end of its stream means anything. The
		// deadline for its CONNECT is no reason either, others watch over the time that a login takes.
		if a.n, a.err = c.stream.Read(a.p[:]); a.err != nil && !errors.Is(a.err, os.ErrDeadlineExceeded) {
			c.cancel()
		}
	})
	return func() {
		if !begin.Stop() {
			c.ahead = a
		}
	}
}

// read reads the stream, first what was read ahead.
func (c *Conn) read(p []byte) (int, error) {
	a := c.ahead
	if a == nil {
		return c.stream.Read(p)
	}
	<-a.done
	c.ahead = nil
	if a.n == 0 && isTimeout(a.err) {
		// It was the deadline of another read.
		return c.stream.Read(p)
	}
	return copy(p, a.p[:a.n]), a.err
}

// joinAhead waits for what Watch has begun and nobody took. The socket is closed.
func (c *Conn) joinAhead() {
	if c.ahead != nil {
		<-c.ahead.done
	}
}
