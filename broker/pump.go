package broker

import (
	"slices"
	"time"

	"github.com/parley-im/parley/domain"
)

// chunk is about how much is written at once, in bytes, and batch the most deliveries that are pulled at once.
const (
	chunk = 64 << 10
	batch = 64
)

// scratch is what a pump works with. A connection has one only while its pump runs.
type scratch struct {
	buf   []byte
	batch []domain.Delivery
	used  int // how much of batch was used at most
	ids   [batch]uint16
}

func newScratch() *scratch {
	return &scratch{buf: make([]byte, 0, 4<<10), batch: make([]domain.Delivery, 0, batch)}
}

// release gives a scratch back. It must not keep alive what was sent, nor an unusually large buffer.
func (s *Server) release(x *scratch) {
	clear(x.batch[:x.used])
	x.batch, x.used, x.buf = x.batch[:0], 0, x.buf[:0]
	if cap(x.buf) <= 2*chunk {
		s.scratch.Put(x)
	}
}

// kick sees to it that what is waiting gets written. The caller holds mu.
func (c *Conn) kick() {
	switch {
	case c.silent:
	case !c.running:
		if len(c.control) > 0 || c.leaving || c.mayPull() {
			c.running = true
			go c.pump()
		}
	case c.pulling && !c.flushing && len(c.control) > 0:
		// The source may wait for the store. Pings must be answered meanwhile.
		c.flushing = true
		go c.flushControl()
	}
}

// mayPull tells whether the source is to be asked. The caller holds mu.
func (c *Conn) mayPull() bool {
	return c.woken && c.greeted && !c.leaving && !c.silent && c.source != nil
}

// pump writes until nothing is waiting. It is a connection's only goroutine for writing but for flushControl, and exists
// only while there is something to write.
func (c *Conn) pump() {
	c.server.metrics.pumpRuns.Inc()
	s, _ := c.server.scratch.Get().(*scratch)
	defer func() {
		if c.caught(recover()) {
			c.cut()
			c.mu.Lock()
			c.pulling = false
			c.rest()
			c.mu.Unlock()
		}
	}()
	for c.step(s) {
	}
	c.server.release(s)
}

// rest notes that the pump does not run any more. Whoever waits for the end of the connection is told. The caller
// holds mu.
func (c *Conn) rest() {
	c.running = false
	c.tellOver()
}

func (c *Conn) tellOver() {
	if c.over != nil && !c.running && !c.flushing {
		close(c.over)
		c.over = nil
	}
}

// step does one turn of the pump. It is false when the pump has nothing more to do.
func (c *Conn) step(s *scratch) bool {
	c.mu.Lock()
	pull := c.mayPull() && !c.greeting // nothing comes before the CONNACK
	switch {
	case c.silent, !pull && len(c.control) == 0 && !c.leaving:
		c.rest()
		c.mu.Unlock()
		return false
	case !pull && c.leaving:
		c.mu.Unlock()
		c.part(s)
		return true
	case !pull:
		c.mu.Unlock()
		return c.flush(s)
	}
	c.woken, c.pulling = false, true
	src, room := c.source, c.window.room()
	c.mu.Unlock()

	var err error
	s.batch, err = src.Next(c.ctx, s.batch[:0], room)
	skipped := c.pulled(s, room, err)
	for _, d := range skipped {
		c.server.metrics.skipped.Inc()
		src.Skipped(d)
	}
	return c.send(s, src)
}

// pulled takes what the source gave: it decides whether to ask again, and gives each QoS 1 delivery its packet id. It
// returns the deliveries that are larger than the client takes, which it removes.
func (c *Conn) pulled(s *scratch, room int, err error) (skipped []domain.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulling = false
	switch {
	case err != nil:
		if !c.leaving {
			c.server.log.Debug("no deliveries for now", "listener", c.listener, "error", err)
			time.AfterFunc(50*time.Millisecond<<min(c.retries, 7), c.Wake)
			c.retries++
		}
	case len(s.batch) > 0:
		c.woken, c.retries = true, 0
	case room > 0:
		c.retries = 0
	case c.window.room() > 0: // an acknowledgement came meanwhile
		c.woken = true
	default:
		c.stalled = true
		c.server.metrics.stalls.Inc()
	}
	s.used = max(s.used, len(s.batch))
	if room > 0 {
		c.window.reserve(len(s.batch))
	}
	n := 0
	for _, d := range s.batch {
		if c.largest > 0 && publishSize(c.version, &d) > c.largest {
			skipped = append(skipped, d)
			continue
		}
		s.ids[n] = 0
		if d.QoS > 0 {
			s.ids[n] = c.window.add(d)
		}
		s.batch[n] = d
		n++
	}
	s.batch = s.batch[:n]
	return skipped
}

// send writes the batch. It is false when the connection is broken.
func (c *Conn) send(s *scratch, src Source) bool {
	if len(s.batch) > batch/4 {
		s.buf = slices.Grow(s.buf, chunk) // at once, not in steps
	}
	from := 0
	for i := range s.batch {
		s.buf = appendPublish(s.buf, c.version, &s.batch[i], s.ids[i])
		if len(s.buf) < chunk && i < len(s.batch)-1 {
			continue
		}
		if !c.flush(s) {
			return false
		}
		c.sent(s.batch[from:i+1], src)
		from = i + 1
	}
	return true
}

// sent accounts for deliveries that were written.
func (c *Conn) sent(ds []domain.Delivery, src Source) {
	m := c.server.metrics
	now := time.Now()
	var count [2]int
	for i := range ds {
		d := &ds[i]
		count[min(d.QoS, 1)]++
		if accepted := d.Publication.Accepted; !accepted.IsZero() {
			m.latency.Observe(now.Sub(accepted).Seconds())
		}
		if d.QoS == 0 {
			src.Done(*d)
		}
	}
	for qos, n := range count {
		if n > 0 {
			m.deliveries[qos].Add(float64(n))
		}
	}
}

// flush writes what is encoded, and the control packets that are waiting, with one call. It is false when the connection
// is broken; the pump ends then.
func (c *Conn) flush(s *scratch) bool {
	var err error
	s.buf, err = c.write(s.buf)
	s.buf = s.buf[:0]
	if err == nil {
		return true
	}
	c.broken(err)
	c.mu.Lock()
	c.rest()
	c.mu.Unlock()
	return false
}

// flushControl writes control packets while the pump waits for its source.
func (c *Conn) flushControl() {
	defer func() {
		if c.caught(recover()) {
			c.cut()
		}
		c.mu.Lock()
		c.flushing = false
		c.kick() // for what was queued since the loop ended
		c.tellOver()
		c.mu.Unlock()
	}()
	for {
		c.mu.Lock()
		needed := c.pulling && !c.silent && len(c.control) > 0
		c.mu.Unlock()
		if !needed {
			return
		}
		if _, err := c.write(nil); err != nil {
			c.broken(err)
		}
	}
}

// write writes buf and the waiting control packets. It gives back buf, perhaps grown.
func (c *Conn) write(buf []byte) ([]byte, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	buf = c.take(buf)
	c.mu.Unlock()
	if len(buf) == 0 { // another goroutine was faster
		return buf, nil
	}
	_, err := c.stream.Write(buf)
	return buf, err
}

// take moves the waiting control packets to the end of buf. The caller holds mu.
func (c *Conn) take(buf []byte) []byte {
	buf = append(buf, c.control...)
	c.greeting = false
	if cap(c.control) > 256 {
		c.control = nil
	}
	c.control = c.control[:0]
	if c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
	return buf
}

// broken ends the connection after a failed write.
func (c *Conn) broken(err error) {
	c.mu.Lock()
	leaving := c.leaving
	if !isTimeout(err) && !leaving {
		// The peer has gone. What it said before that may still be to be read, the DISCONNECT for instance that tells that
		// it was not lost.
		c.hush()
		_ = c.raw.SetReadDeadline(time.Now().Add(lingerTime)) // fails only on a closed socket
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	if !leaving {
		c.server.metrics.slow.Inc()
		c.server.log.Debug("a client does not read", "listener", c.listener, "remote", c.raw.RemoteAddr().String())
	}
	c.cut()
}

// part says what there is to say at the end, and hangs up.
func (c *Conn) part(s *scratch) {
	c.mu.Lock()
	if c.version >= 5 && c.greeted && !c.parted && c.farewell.Reason != 0 {
		c.control = appendDisconnect(c.control, c.farewell, c.largest)
	}
	c.parted = true
	c.mu.Unlock()
	s.buf, _ = c.write(s.buf[:0]) // the connection ends either way
	s.buf = s.buf[:0]
	_ = c.raw.SetReadDeadline(time.Now().Add(lingerTime)) // fails only on a closed socket
	c.stream.hangUp()
	c.mu.Lock()
	c.silent = true
	c.mu.Unlock()
}
