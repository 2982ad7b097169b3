package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// slowly makes a raw socket with a patience of 5 s whose peer reads a byte per interval, n in all.
func slowly(t *testing.T, n int, interval time.Duration) *raw {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	go func() {
		for range n {
			time.Sleep(interval) //nolint:forbidigo // the clock is that of the bubble
			if _, err := io.ReadFull(there, make([]byte, 1)); err != nil {
				return
			}
		}
	}()
	counter := func() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}) }
	return &raw{Conn: here, patience: 5 * time.Second, in: counter(), out: counter(), leave: func() {}}
}

func TestASlowReaderIsWaitedForAndADeadOneIsNot(t *testing.T) {
	// A deadline for the whole write would end the connection of everybody whose network is slow.
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if n, err := slowly(t, 20, 4*time.Second).Write(make([]byte, 20)); n != 20 || err != nil {
			t.Errorf("slow: %d bytes, %v", n, err)
		}
		if took := time.Since(start); took != 80*time.Second {
			t.Errorf("slow: took %v", took)
		}
		start = time.Now()
		if n, err := slowly(t, 3, 4*time.Second).Write(make([]byte, 20)); n != 3 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("dead: %d bytes, %v", n, err)
		}
		// The third byte is read after 12 s, in the period that began after 10 s; that of 15 s brings nothing.
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("dead: took %v", took)
		}
	})
}

func TestARushedWriteEndsInTimeHoweverMuchProgressItMakes(t *testing.T) {
	// The end of a connection must not depend on its peer.
	synctest.Test(t, func(t *testing.T) {
		r := slowly(t, 100, time.Second)
		start := time.Now()
		time.AfterFunc(3500*time.Millisecond, func() { r.rush(2 * time.Second) })
		if n, err := r.Write(make([]byte, 100)); n != 5 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v", n, err)
		}
		r.rush(time.Hour) // the first call counts
		if _, err := r.Write(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("written after the end: %v", err)
		}
		if took := time.Since(start); took != 5500*time.Millisecond {
			t.Errorf("took %v", took)
		}
		_ = r.Close()
		time.Sleep(time.Minute) //nolint:forbidigo // the peer notices
	})
}

func TestASocketLeavesTheGateOnce(t *testing.T) {
	// It is closed from several sides.
	g := newGate(1, 0)
	addr := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	leave, _ := g.enter(addr)
	if other, refusal := g.enter(addr); other != nil || refusal != "total" {
		t.Errorf("a second one entered, or was refused because of %q", refusal)
	}
	here, there := net.Pipe()
	defer func() { _ = there.Close() }()
	r := &raw{Conn: here, leave: leave}
	_, _ = r.Close(), r.Close()
	if g.total != 0 {
		t.Errorf("%d inside", g.total)
	}
}

func TestAddressesAreCountedAsTheOutsideHasThem(t *testing.T) {
	// An IPv6 host has a whole /64 to itself; an IPv4 address may come dressed as IPv6.
	for a, b := range map[string]string{"2001:db8::1": "2001:db8::ffff", "192.0.2.1": "::ffff:192.0.2.1"} {
		if network(&net.TCPAddr{IP: net.ParseIP(a)}) != network(&net.TCPAddr{IP: net.ParseIP(b)}) {
			t.Errorf("%s and %s are two addresses", a, b)
		}
	}
	for a, b := range map[string]string{"2001:db8::1": "2001:db8:0:1::1", "192.0.2.1": "192.0.2.2"} {
		if network(&net.TCPAddr{IP: net.ParseIP(a)}) == network(&net.TCPAddr{IP: net.ParseIP(b)}) {
			t.Errorf("%s and %s are one address", a, b)
		}
	}
}
