package e2e_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-im/parley/configs"
)

func TestSIGTERMUnderLoadEndsInOrder(t *testing.T) {
	// Every deployment ends a gateway this way, under full load: clients must hear that it was not their fault, and what
	// was acknowledged must be there afterwards.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		gw := spawn(t, url)
		w := newWorld(t, gw.gateway)
		users := w.users(t, "ann", "ben", "cat", "eve")
		c := w.conversation(t, users...)
		modern, old := w.online(t, users[3], 5), w.online(t, users[3], 4)
		overWeb := w.online(t, users[3], 5, over("ws"))
		stuck := w.rawConnect(t, users[3], 5)
		stuck.subscribe(t, filter{"conversations/+/events", 0}) // and never reads again
		if err := stuck.conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		l := drive(t, gw.gateway, c, users[:3], 3)
		l.more(t, 200)

		// Readiness, asked all the time over a connection that exists.
		gw.api("").ok(t, "GET", "/readyz", nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		statuses := make(chan []int, 1)
		go func() {
			seen := []int{200}
			for {
				res, err := gw.api("").do(ctx, "GET", "/readyz", nil)
				if err != nil {
					statuses <- seen
					return
				}
				if len(seen) == 0 || seen[len(seen)-1] != res.status {
					seen = append(seen, res.status)
				}
			}
		}()
		began := time.Now()
		gw.signal(t, syscall.SIGTERM)
		for what, d := range map[string]*device{"TCP": modern, "WebSocket": overWeb} {
			if f := d.over(t); f.reason != 0x8b {
				t.Errorf("over %s: DISCONNECT 0x%02x %q, want 0x8B", what, f.reason, f.text)
			}
		}
		old.over(t)
		if conn, err := gw.dial(t.Context(), dialing{}); err == nil {
			_ = conn.Close()
			t.Error("a new connection was accepted after clients were told that the gateway stops")
		}
		if code := gw.exit(t); code != 0 {
			t.Errorf("exit code %d\n%s", code, gw.err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		cancel()
		if seen := <-statuses; len(seen) > 2 || len(seen) == 2 && seen[1] != 503 {
			t.Errorf("/readyz said %v", seen)
		}
		if strings.Contains(gw.err.String(), "panic") {
			t.Errorf("the log has a panic:\n%s", gw.err)
		}

		gw = spawn(t, url)
		w.gateway, w.service = gw.gateway, gw.api(w.service.token)
		l.current.Store(gw.gateway)
		l.more(t, 20)
		l.stop(t)
		l.check(t, w.log(t, c))
	})
}

func TestSIGTERMWithoutClientsEndsAtOnce(t *testing.T) {
	// Nobody should wait ten seconds for an idle gateway.
	onBothStores(t, func(t *testing.T, s store) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			gw := spawn(t, s.empty(t))
			began := time.Now()
			gw.signal(t, sig)
			if code := gw.exit(t); code != 0 {
				t.Errorf("%v: exit code %d\n%s", sig, code, gw.err)
			}
			if took := time.Since(began); took > 9*time.Second {
				t.Errorf("%v: it took %v", sig, took)
			}
		}
	})
}

func TestUnfinishedLoginDoesNotHoldUpTheEnd(t *testing.T) {
	// Port scanners leave connections open that never say anything.
	onBothStores(t, func(t *testing.T, s store) {
		gw := spawn(t, s.empty(t))
		for range 5 {
			gw.rawDial(t, 5)
		}
		half := gw.rawDial(t, 5)
		half.write(t, half.connectPacket(dialing{username: "a@b.c", password: "x", id: "half"})[:9])
		began := time.Now()
		gw.signal(t, syscall.SIGTERM)
		if code := gw.exit(t); code != 0 {
			t.Errorf("exit code %d\n%s", code, gw.err)
		}
		if took := time.Since(began); took > 9*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestWaitingHTTPRequestsDoNotHoldUpTheEnd(t *testing.T) {
	// A storm of logins, or one client that sends its body a byte a minute, must not keep MQTT clients from hearing that
	// the gateway stops, nor the process from ending in time.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t), func(c *configs.Config) {
			c.Login.Argon2Memory, c.Login.Argon2Iterations, c.Login.ParallelVerifications = 64<<10, 6, 1
		})
		w := newWorld(t, g)
		d := w.connect(t, w.user(t, "alice"), 5)
		ctx, cancel := context.WithCancel(t.Context())
		var logins sync.WaitGroup
		defer logins.Wait()
		defer cancel()
		const n = 100
		for range n {
			logins.Go(func() {
				_, _ = w.api("").do(ctx, "POST", "/v1/login", map[string]any{"username": "a@b.c", "password": "x"})
			})
		}
		eventually(t, "logins wait", func() error {
			if g.metric(t, "parley_login_waiting") < n/2 {
				return errNotYet
			}
			return nil
		})
		slow, err := net.Dial("tcp", g.addrs.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = slow.Close() }()
		if _, err := io.WriteString(slow, "POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		stopped := make(chan error, 1)
		go func() { stopped <- g.stop() }()
		if f := d.over(t); f.reason != 0x8b {
			t.Errorf("DISCONNECT 0x%02x %q, want 0x8B", f.reason, f.text)
		}
		if err := <-stopped; err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
}
