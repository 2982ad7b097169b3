package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"

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

// liveDevice is a desk that hears what happens while it is connected.
type liveDevice struct {
	chaos.Device
	s   *storm
	who person
	r   *rand.Rand

	mu sync.Mutex
	// now is the present connection.
	now     *chaos.Connection
	past    []*chaos.Connection
	arrived chan struct{}
}

func (s *storm) newLive(n int) *liveDevice {
	d := &liveDevice{s: s, who: s.others[n], r: s.random("live", n), arrived: make(chan struct{}, 1)}
	d.Name, d.User, d.Complete = fmt.Sprint("desk-", n), d.who.id, true
	return d
}

func (d *liveDevice) record() chaos.Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.past {
		d.Connections = append(d.Connections, *c)
	}
	return d.Device
}

// live connects again and again during the storm, and then stays until the end.
func (d *liveDevice) live(storm, end context.Context) {
	for end.Err() == nil {
		gone, leave := d.connect(end)
		if gone == nil {
			pause(end, 50*time.Millisecond)
			continue
		}
		until := end.Done()
		var tired <-chan time.Time
		if storm.Err() == nil {
			until = storm.Done()
			if d.r.IntN(2) == 0 {
				tired = time.After(millis(d.r, 100, 4000))
			}
		}
		select {
		case <-gone:
		case <-tired:
		case <-until:
			select {
			case <-gone:
			case <-end.Done():
			}
		}
		leave()
	}
}

func (d *liveDevice) take(c *chaos.Connection, payload []byte) {
	ev, err := eventOf(payload)
	if err != nil {
		d.s.t.Error(err)
		return
	}
	d.mu.Lock()
	c.Deliveries = append(c.Deliveries, chaos.Delivery{Event: ev, Arrived: time.Now()})
	d.mu.Unlock()
	select {
	case d.arrived <- struct{}{}:
	default:
	}
}

// connect connects a library's client and subscribes; gone is closed when the connection is.
func (d *liveDevice) connect(ctx context.Context) (gone <-chan struct{}, leave func()) {
	addr := d.s.proc.Addr("mqtt")
	if addr == "" {
		return nil, nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil
	}
	c := &chaos.Connection{Opened: time.Now()}
	d.mu.Lock()
	d.now, d.past = c, append(d.past, c)
	d.mu.Unlock()
	if d.r.IntN(2) == 0 {
		gone, leave, err = d.connect3(conn, c)
	} else {
		gone, leave, err = d.connect5(ctx, conn, c)
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil
	}
	d.mu.Lock()
	c.Subscribed = time.Now()
	d.mu.Unlock()
	return gone, leave
}

func (d *liveDevice) connect3(conn net.Conn, c *chaos.Connection) (<-chan struct{}, func(), error) {
	lost := make(chan struct{})
	client := paho3.NewClient(paho3.NewClientOptions().AddBroker("tcp://gateway:1883").SetClientID(d.Name).
		SetUsername(d.who.name).SetPassword(d.who.password).SetProtocolVersion(4).SetCleanSession(true).
		SetAutoReconnect(false).SetConnectTimeout(15 * time.Second).SetOrderMatters(true).
		SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) { d.take(c, m.Payload()) }).
		SetConnectionLostHandler(func(paho3.Client, error) { close(lost) }).
		SetCustomOpenConnectionFn(func(*url.URL, paho3.ClientOptions) (net.Conn, error) { return conn, nil }))
	leave := func() {
		client.Disconnect(0)
		_ = conn.Close()
	}
	for _, do := range []func() paho3.Token{
		client.Connect, func() paho3.Token { return client.Subscribe(allEvents, 1, nil) },
	} {
		token := do()
		if !token.WaitTimeout(15*time.Second) || token.Error() != nil {
			leave()
			return nil, nil, fmt.Errorf("no answer: %w", token.Error())
		}
	}
	return lost, leave, nil
}

func (d *liveDevice) connect5(ctx context.Context, conn net.Conn, c *chaos.Connection) (<-chan struct{}, func(), error) {
	client := paho5.NewClient(paho5.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn), PacketTimeout: 15 * time.Second,
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
			d.take(c, p.Packet.Payload)
			return true, nil
		}},
	})
	leave := func() {
		_ = client.Disconnect(&paho5.Disconnect{})
		_ = conn.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	_, err := client.Connect(context.WithoutCancel(ctx), &paho5.Connect{
		ClientID: d.Name, KeepAlive: 60, CleanStart: true, Username: d.who.name, UsernameFlag: true,
		Password: []byte(d.who.password), PasswordFlag: true,
	})
	if err == nil {
		_, err = client.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: allEvents, QoS: 1}}})
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return client.Done(), leave, nil
}

// await waits until the present connection has got as far as the logs.
func (d *liveDevice) await(due map[string]int64) {
	deadline := time.After(patience)
	for {
		d.mu.Lock()
		highest := make(map[string]int64)
		if d.now != nil {
			for i := range d.now.Deliveries {
				ev := &d.now.Deliveries[i]
				highest[ev.Conversation] = max(highest[ev.Conversation], ev.Seq)
			}
		}
		d.mu.Unlock()
		missing := false
		for c, seq := range highest {
			missing = missing || seq < due[c]
		}
		if !missing {
			return
		}
		select {
		case <-d.arrived:
		case <-deadline:
			return
		}
	}
}
