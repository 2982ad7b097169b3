package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/parley-im/parley/e2e/chaos"
)

const allEvents = "conversations/+/events"

// durableDevice is a phone with a session that outlives its connections.
type durableDevice struct {
	chaos.Device
	s     *storm
	who   person
	proxy *chaos.Proxy
	r     *rand.Rand
	links []*link

	mu sync.Mutex
	// highest is the last event that arrived of each conversation.
	highest map[string]int64
	arrived chan struct{}
}

// link is one of its connections.
type link struct {
	d      *durableDevice
	client *chaos.Client
	conn   chaos.Connection
	done   chan struct{}
	// failed is why run has ended.
	failed error
	// breaks is how many times the storm had broken connections when this one was opened.
	breaks int64

	// hold is how many deliveries are kept before they are acknowledged, all of them if it is 0; shuffle: in any order.
	hold    int
	shuffle bool
	r       *rand.Rand
	held    []unacknowledged
	// acked are the deliveries that were acknowledged since the last ping, pinged those before each ping that waits.
	acked  []int
	pinged [][]int
}

type unacknowledged struct {
	id    uint16
	index int
}

func (s *storm) newDurable(n int) *durableDevice {
	d := &durableDevice{
		s: s, who: s.others[n%len(s.others)], r: s.random("durable", n),
		highest: make(map[string]int64), arrived: make(chan struct{}, 1),
	}
	if n == 0 {
		d.who = s.anchors[0]
	}
	d.Name, d.User, d.Durable, d.Complete = fmt.Sprint("phone-", n), d.who.id, true, true
	d.Start = make(map[string]int64)
	for _, c := range s.conversations {
		d.Start[c] = 1
	}
	var err error
	if d.proxy, err = chaos.NewProxy(func() string { return s.proc.Addr("mqtt") }); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(d.proxy.Close)
	l := d.open(s.t.Context(), byte(4+n%2))
	if l == nil {
		s.t.Fatal("no connection")
	}
	if err := l.client.Subscribe(1, allEvents, 1); err != nil {
		s.t.Fatal(err)
	}
	if p, err := l.client.Read(); err != nil || p.Kind != chaos.KindSuback || p.Reason != 1 {
		s.t.Fatalf("SUBACK: %+v, %v", p, err)
	}
	l.conn.Subscribed = time.Now()
	if err := l.client.Leave(); err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (d *durableDevice) record() chaos.Device {
	for _, l := range d.links {
		d.Connections = append(d.Connections, l.conn)
	}
	return d.Device
}

// open connects the phone; nil: the time is up.
func (d *durableDevice) open(ctx context.Context, version byte) *link {
	l := &link{d: d, breaks: d.s.breaks.Load(), done: make(chan struct{}), r: d.s.random(d.Name, len(d.links)), hold: 1 + d.r.IntN(8), shuffle: d.r.IntN(3) == 0}
	login := chaos.Login{
		Version: version, User: d.who.name, Password: d.who.password, Device: d.Name, Expiry: chaos.Forever,
		Window: []uint16{0, 1, 2, 5, 20}[d.r.IntN(5)],
	}
	if d.r.IntN(10) == 0 {
		l.hold = 0
	} else if login.Version == 5 && login.Window > 0 {
		l.hold = min(l.hold, int(login.Window))
	}
	// What an attempt that seems to fail has done to the connection before is not known.
	for l.conn.Opened = time.Now(); l.client == nil; {
		if ctx.Err() != nil {
			return nil
		}
		l.client = d.s.dial(ctx, d.proxy.Addr(), login)
	}
	l.conn.Present = l.client.Present
	d.links = append(d.links, l)
	return l
}

// live lets the phone come and go until the time is up.
func (d *durableDevice) live(ctx context.Context) {
	var former *link
	for {
		l := d.open(ctx, byte(4+d.r.IntN(2)))
		if l != nil {
			go l.run()
		}
		if former != nil {
			if l != nil {
				d.s.note("%s: connection %d takes over", d.Name, len(d.links))
			} else {
				former.client.Cut()
			}
			select {
			case <-former.done:
			case <-time.After(patience):
				d.s.t.Errorf("%s: two connections live", d.Name)
				former.client.Cut()
				<-former.done
			}
			former.client.Cut()
			former = nil
		}
		if l == nil {
			return
		}
		switch d.r.IntN(8) {
		case 0:
			d.proxy.Set(chaos.Weather{Rate: 1000 + d.r.IntN(20000)})
		case 1:
			d.proxy.Set(chaos.Weather{Delay: millis(d.r, 1, 50)})
		case 2:
			d.proxy.Set(chaos.Weather{Stalled: true})
		}
		select {
		case <-l.done:
		case <-ctx.Done():
		case <-time.After(millis(d.r, 10, 3000)):
		}
		d.proxy.Set(chaos.Weather{})
		switch how := d.r.IntN(4); {
		case how == 0:
			l.leave()
		case how == 1 && ctx.Err() == nil:
			former = l
			continue
		default:
			l.client.Cut()
		}
		<-l.done
		if d.r.IntN(2) == 0 {
			pause(ctx, millis(d.r, 0, 3000))
		}
	}
}

// run reads until the connection ends, or until somebody sets a deadline.
func (l *link) run() {
	defer close(l.done)
	for {
		p, err := l.client.Read()
		if err != nil {
			l.failed = err
			return
		}
		switch p.Kind {
		case chaos.KindPublish:
			l.take(&p)
		case chaos.KindPingresp:
			if len(l.pinged) > 0 {
				l.confirm(l.pinged[0])
				l.pinged = l.pinged[1:]
			}
		}
		if len(l.held) > 0 && l.hold > 0 && len(l.held) >= l.hold {
			l.acknowledge()
			if l.r.IntN(3) == 0 {
				l.pinged = append(l.pinged, l.acked)
				l.acked = nil
				_ = l.client.Ping()
			}
		}
	}
}

func (l *link) take(p *chaos.Packet) {
	ev, err := eventOf(p.Payload)
	if err != nil || p.QoS != 1 {
		l.d.s.t.Errorf("%s: QoS %d, %v", l.d.Name, p.QoS, err)
		return
	}
	l.conn.Deliveries = append(l.conn.Deliveries, chaos.Delivery{Event: ev, Arrived: time.Now()})
	l.held = append(l.held, unacknowledged{p.ID, len(l.conn.Deliveries) - 1})
	l.d.mu.Lock()
	l.d.highest[ev.Conversation] = max(l.d.highest[ev.Conversation], ev.Seq)
	l.d.mu.Unlock()
	select {
	case l.d.arrived <- struct{}{}:
	default:
	}
}

func (l *link) acknowledge() {
	if l.shuffle {
		l.r.Shuffle(len(l.held), func(i, j int) { l.held[i], l.held[j] = l.held[j], l.held[i] })
	}
	ids := make([]uint16, len(l.held))
	now := time.Now()
	for i, u := range l.held {
		l.conn.Deliveries[u.index].Acknowledged = now
		ids[i] = u.id
		l.acked = append(l.acked, u.index)
	}
	l.held = nil
	_ = l.client.Ack(ids...) // a broken connection is found out by reading
}

func (l *link) confirm(indexes []int) {
	now := time.Now()
	for _, i := range indexes {
		l.conn.Deliveries[i].Confirmed = now
	}
}

// leave takes leave in good order, with or without acknowledging the rest: all that was acknowledged before counts.
func (l *link) leave() {
	l.client.SetReadDeadline(time.Now())
	<-l.done
	if l.hold > 0 && l.r.IntN(2) == 0 {
		l.acknowledge()
	}
	// A connection that had ended before, by a crash for instance, looks to Leave like one that ends in good order; and as
	// long as the proxy is stalled, to run as well.
	if l.client.Leave() == nil && errors.Is(l.failed, os.ErrDeadlineExceeded) && l.d.s.breaks.Load() == l.breaks {
		for _, list := range append(l.pinged, l.acked) {
			l.confirm(list)
		}
	}
}

// drain waits until the phone has everything that is due.
func (d *durableDevice) drain(due map[string]int64) {
	d.s.note("%s: is given the rest", d.Name)
	d.proxy.Set(chaos.Weather{})
	ctx, cancel := context.WithTimeout(d.s.t.Context(), patience)
	defer cancel()
	l := d.open(ctx, 5)
	if l == nil {
		d.s.t.Errorf("%s: no connection", d.Name)
		return
	}
	l.hold = 1
	go l.run()
	for d.missing(due) {
		select {
		case <-d.arrived:
		case <-ctx.Done():
			l.leave()
			return
		}
	}
	l.leave()
	// What it has acknowledged must not come once more.
	if l = d.open(ctx, 5); l != nil {
		go l.run()
		pause(ctx, 500*time.Millisecond)
		l.leave()
	}
}

func (d *durableDevice) missing(due map[string]int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c, seq := range due {
		if d.highest[c] < seq {
			return true
		}
	}
	return false
}
