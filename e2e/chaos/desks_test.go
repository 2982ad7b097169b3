package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"

	"github.com/parley-im/parley/e2e/chaos"
)

// desks is how many live devices there are.
const desks = 4

// liveDevice is a desk that hears what happens while it is connected.
type liveDevice struct {
	chaos.Device
	s *storm
	// token: it logs in with a token, a new one for each connection.
	token bool
	who   person
	r     *rand.Rand

	mu sync.Mutex
	// now is the present connection.
	now     *chaos.Connection
	past    []*chaos.Connection
	arrived chan struct{}
}

func (s *storm) newLive(n int) *liveDevice {
	d := &liveDevice{s: s, who: s.others[n], r: s.random("live", n), arrived: make(chan struct{}, 1)}
	if n == desks-1 {
		d.who, d.token = s.lastOf(), true
	}
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

// lastOf gives the user whose tokens are revoked now and then.
func (s *storm) lastOf() person { return s.others[len(s.others)-1] }

// revoker makes the tokens of a user worthless.
func (s *storm) revoker(ctx context.Context) {
	r := s.random("revoker", 0)
	for pause(ctx, millis(r, 200, 4000)) {
		v := chaos.Revocation{User: s.lastOf().id, Asked: time.Now()}
		if s.call(ctx, s.service, "DELETE", "/v1/users/"+s.lastOf().name+"/tokens", nil, nil) != nil {
			continue
		}
		v.Answered = time.Now()
		s.mu.Lock()
		s.revocations = append(s.revocations, v)
		s.mu.Unlock()
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
	password := d.who.password
	if d.token {
		if password, err = d.s.logIn(ctx, d.who); err != nil {
			_ = conn.Close()
			return nil, nil
		}
		c.Token = time.Now()
		pause(ctx, millis(d.r, 0, 100))
	}
	d.mu.Lock()
	d.now, d.past = c, append(d.past, c)
	d.mu.Unlock()
	if d.r.IntN(2) == 0 {
		gone, leave, err = d.connect3(conn, c, password)
	} else {
		gone, leave, err = d.connect5(ctx, conn, c, password)
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

func (d *liveDevice) connect3(conn net.Conn, c *chaos.Connection, password string) (<-chan struct{}, func(), error) {
	lost := make(chan struct{})
	client := paho3.NewClient(paho3.NewClientOptions().AddBroker("tcp://gateway:1883").SetClientID(d.Name).
		SetUsername(d.who.name).SetPassword(password).SetProtocolVersion(4).SetCleanSession(true).
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

func (d *liveDevice) connect5(ctx context.Context, conn net.Conn, c *chaos.Connection, password string) (<-chan struct{}, func(), error) {
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
		Password: []byte(password), PasswordFlag: true,
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
