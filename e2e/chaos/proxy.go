package chaos

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy is a network between clients and a gateway, as bad as a test wants it. Its methods may be called from any
// goroutine.
type Proxy struct {
	listener net.Listener
	target   func() string
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex
	pairs map[*pair]struct{}
	// changed is closed when the weather changes.
	changed chan struct{}
	weather Weather
	// down counts the bytes that went towards clients.
	down atomic.Int64
}

// Weather is what a proxy does to bytes on their way to the client. The zero value is a good network.
type Weather struct {
	// Stalled: nothing passes. Rate: bytes per second, 0 unlimited. Delay: of each piece.
	Stalled bool
	Rate    int
	Delay   time.Duration
}

type pair struct{ client, server net.Conn }

// NewProxy makes a proxy to whatever target gives at the time of a connection.
func NewProxy(target func() string) (*Proxy, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, target: target, pairs: make(map[*pair]struct{}), changed: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set changes the weather, of connections that are open too.
func (p *Proxy) Set(w Weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = w
	close(p.changed)
	p.changed = make(chan struct{})
}

// Cut breaks all connections, without a word to either side.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.close()
	}
}

// Down gives the number of bytes that have gone towards clients.
func (p *Proxy) Down() int64 { return p.down.Load() }

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	p.cancel()
	_ = p.listener.Close()
	p.Cut()
	p.running.Wait()
}

// close resets both connections: what is on its way is lost, as when a mobile phone loses its network.
func (c *pair) close() {
	for _, conn := range []net.Conn{c.client, c.server} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(p.ctx, "tcp", p.target())
	if err != nil {
		_ = client.Close()
		return
	}
	if tcp, ok := server.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(16 << 10) // so that a slow client is soon felt by the gateway
	}
	c := &pair{client, server}
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		c.close()
		return
	}
	p.pairs[c] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.pairs, c)
		p.mu.Unlock()
	}()
	over := make(chan struct{})
	p.running.Go(func() {
		defer close(over)
		p.upwards(c)
	})
	p.downwards(c)
	<-over
	c.close()
}

// upwards carries what the client says, unharmed.
func (p *Proxy) upwards(c *pair) {
	buf := make([]byte, 4<<10)
	for {
		n, err := c.client.Read(buf)
		if n > 0 {
			if _, err := c.server.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	hangUp(c.server)
}

// downwards carries what the gateway says, as the weather permits.
func (p *Proxy) downwards(c *pair) {
	buf := make([]byte, 4<<10)
	for p.calm() {
		p.mu.Lock()
		w := p.weather
		p.mu.Unlock()
		size, delay := len(buf), w.Delay
		if w.Rate > 0 {
			size = min(size, max(w.Rate/20, 1))
			delay += time.Second * time.Duration(size) / time.Duration(w.Rate)
		}
		n, err := c.server.Read(buf[:size])
		if n > 0 {
			if delay > 0 && !p.wait(delay) || !p.calm() {
				break
			}
			if _, err := c.client.Write(buf[:n]); err != nil {
				break
			}
			p.down.Add(int64(n))
		}
		if errors.Is(err, io.EOF) {
			hangUp(c.client)
			return
		}
		if err != nil {
			break
		}
	}
	c.close() // the gateway has reset the connection, and so it looks to the client
}

// calm waits while nothing may pass; false: the proxy is closed.
func (p *Proxy) calm() bool {
	for {
		p.mu.Lock()
		stalled, changed := p.weather.Stalled, p.changed
		p.mu.Unlock()
		if !stalled {
			return p.ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-p.ctx.Done():
			return false
		}
	}
}

// wait lets time pass, but no longer than until the weather changes.
func (p *Proxy) wait(d time.Duration) bool {
	p.mu.Lock()
	changed := p.changed
	p.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-p.ctx.Done():
		return false
	}
	return true
}

func hangUp(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}
