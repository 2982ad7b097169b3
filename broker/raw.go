package broker

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// raw is an accepted TCP socket: it counts bytes, is patient with a slow peer and not with a dead one, and leaves the
// gate when it is closed. TLS and WebSocket run on top of it, so that all deadlines are set here: above, a write that
// timed out would end the connection even where the peer had been reading all along.
type raw struct {
	net.Conn
	patience time.Duration
	// rushed is when writing has to be over, in Unix nanoseconds; 0: no such time.
	rushed atomic.Int64
	in     prometheus.Counter
	out    prometheus.Counter

	close sync.Once
	leave func()
}

// Read implements net.Conn.
func (r *raw) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if n > 0 {
		r.in.Add(float64(n))
	}
	return n, err
}

// Write implements net.Conn. It fails when the peer takes nothing for the time of patience, or has not taken all by
// the time that rush set.
func (r *raw) Write(p []byte) (written int, err error) {
	defer func() { r.out.Add(float64(written)) }()
	for {
		rushed := r.rushed.Load()
		until := time.Now().Add(r.patience)
		if rushed != 0 && until.UnixNano() > rushed {
			until = time.Unix(0, rushed)
		}
		if err := r.Conn.SetWriteDeadline(until); err != nil {
			return written, err
		}
		if r.rushed.Load() != rushed {
			continue // its deadline may just have been overwritten
		}
		n, err := r.Conn.Write(p)
		written += n
		p = p[n:]
		if len(p) == 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
		hurry := r.rushed.Load()
		if hurry != 0 && time.Now().UnixNano() >= hurry || hurry == rushed && n == 0 {
			return written, err
		}
	}
}

// rush limits all further writing, and what is being written now, to the time d from now. The first call counts.
func (r *raw) rush(d time.Duration) {
	until := time.Now().Add(d)
	if r.rushed.CompareAndSwap(0, until.UnixNano()) {
		_ = r.Conn.SetWriteDeadline(until) // fails only on a closed socket
	}
}

// Close implements net.Conn.
func (r *raw) Close() error {
	err := net.ErrClosed
	r.close.Do(func() {
		err = r.Conn.Close()
		r.leave()
	})
	return err
}

// hangUp tells the peer that nothing more will come.
func (r *raw) hangUp() {
	if half, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // a peer that is gone need not be told
	}
}
