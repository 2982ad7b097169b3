package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.golang/packets"
	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// farewell is how a connection ended: a DISCONNECT of the server, or without a word (reason 0).
type farewell struct {
	reason byte
	text   string
}

// greeting is a CONNACK.
type greeting struct {
	reason   byte
	text     string
	response string
	present  bool
	user     map[string]string
}

// dialing says how a device connects.
type dialing struct {
	username, password, id string
	transport              string
	durable                bool
	window                 uint16
	largest                uint32
	askResponse            bool
	user                   map[string]string
	roots                  *tls.Config
	// will is the Will of the CONNECT, willDelay its delay in seconds; expiry is for how long the session is kept, if
	// durable; 0: for ever.
	will      *publishing
	willDelay uint32
	expiry    uint32
	// keepAlive is in seconds; 0: 60.
	keepAlive byte
}

type dialOption func(*dialing)

func named(id string) dialOption { return func(d *dialing) { d.id = id } }

func login(username, pw string) dialOption {
	return func(d *dialing) { d.username, d.password = username, pw }
}

func withPassword(pw string) dialOption { return func(d *dialing) { d.password = pw } }
func over(transport string) dialOption  { return func(d *dialing) { d.transport = transport } }
func withWindow(n uint16) dialOption    { return func(d *dialing) { d.window = n } }
func tagged(pairs ...string) dialOption { return func(d *dialing) { d.options(pairs) } }

func (d *dialing) options(pairs []string) {
	if d.user == nil {
		d.user = make(map[string]string)
	}
	for i := 0; i < len(pairs); i += 2 {
		d.user[pairs[i]] = pairs[i+1]
	}
}

// dial opens a connection.
func (g *gateway) dial(ctx context.Context, d dialing) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	switch d.transport {
	case "ws":
		c, _, err := websocket.Dial(ctx, //nolint:bodyclose // the library: "you never need to close resp.Body yourself"
			"ws://"+g.addrs.WebSocket+"/mqtt", &websocket.DialOptions{Subprotocols: []string{"mqtt"}})
		if err != nil {
			return nil, err
		}
		return websocket.NetConn(context.Background(), c, websocket.MessageBinary), nil
	case "tls":
		return (&tls.Dialer{Config: d.roots}).DialContext(ctx, "tcp", g.addrs.TLS)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", g.addrs.MQTT)
}

// errRefused says that a CONNECT was refused; the device's greeting says why.
var errRefused = errors.New("the login was refused")

// devices counts, for client ids.
var devices atomic.Int64

// attach connects a device of the user, or gives it with errRefused.
func (g *gateway) attach(ctx context.Context, u user, version byte, options ...dialOption) (*device, error) {
	d := dialing{
		username: u.Name, password: u.password, transport: "tcp",
		id: "device-" + strconv.FormatInt(devices.Add(1), 10),
	}
	for _, o := range options {
		o(&d)
	}
	dev := &device{
		gateway: g, user: u, version: version, id: d.id, events: newBox(), inbox: newBox(), replies: newBox(),
		other: newBox(), ended: make(chan farewell, 1),
	}
	var err error
	if dev.spec, err = specOf(ctx, g); err != nil {
		return nil, err
	}
	conn, err := g.dial(ctx, d)
	if err != nil {
		return nil, err
	}
	dev.conn = conn
	if version == 5 {
		return dev, dev.connect5(ctx, d)
	}
	return dev, dev.connect3(d)
}

func (d *device) receive(r received) {
	d.spec.check(r)
	switch {
	case strings.HasPrefix(r.topic, "conversations/") && strings.HasSuffix(r.topic, "/events"):
		d.events.put(r)
	case r.topic == d.user.inbox():
		d.inbox.put(r)
	case strings.HasPrefix(r.topic, d.user.replies()):
		d.replies.put(r)
	default:
		d.other.put(r)
	}
}

func (d *device) end(f farewell) {
	d.endOnce.Do(func() { d.ended <- f })
}

func (d *device) connect5(ctx context.Context, o dialing) error {
	d.v5 = paho5.NewClient(paho5.ClientConfig{
		// paho writes a packet in pieces, and from several goroutines.
		Conn: packets.NewThreadSafeConn(d.conn), PacketTimeout: patience,
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
			r := received{topic: p.Packet.Topic, payload: p.Packet.Payload, qos: p.Packet.QoS, retained: p.Packet.Retain}
			if p.Packet.Properties != nil {
				r.correlation = p.Packet.Properties.CorrelationData
				if id := p.Packet.Properties.SubscriptionIdentifier; id != nil {
					r.identifiers = *id
				}
			}
			d.receive(r)
			return true, nil
		}},
		OnServerDisconnect: func(p *paho5.Disconnect) {
			f := farewell{reason: p.ReasonCode}
			if p.Properties != nil {
				f.text = p.Properties.ReasonString
			}
			d.end(f)
		},
		OnClientError: func(error) { d.end(farewell{}) },
	})
	connect := &paho5.Connect{
		ClientID: o.id, KeepAlive: 60, CleanStart: !o.durable,
		Username: o.username, UsernameFlag: true, Password: []byte(o.password), PasswordFlag: true,
		Properties: &paho5.ConnectProperties{RequestProblemInfo: true, RequestResponseInfo: o.askResponse},
	}
	if o.window > 0 {
		connect.Properties.ReceiveMaximum = &o.window
	}
	if o.largest > 0 {
		connect.Properties.MaximumPacketSize = &o.largest
	}
	if o.durable {
		keep := uint32(0xFFFFFFFF)
		if o.expiry != 0 {
			keep = o.expiry
		}
		connect.Properties.SessionExpiryInterval = &keep
	}
	if w := o.will; w != nil {
		connect.WillMessage = &paho5.WillMessage{Topic: w.topic, Payload: w.payload, QoS: w.qos}
		connect.WillProperties = &paho5.WillProperties{WillDelayInterval: &o.willDelay} // it sends none of the others
	}
	for name, value := range o.user {
		connect.Properties.User.Add(name, value)
	}
	answer, err := d.v5.Connect(ctx, connect)
	if answer != nil {
		d.hello = greeting{reason: answer.ReasonCode, present: answer.SessionPresent}
		if p := answer.Properties; p != nil {
			d.hello.text, d.hello.response, d.hello.user = p.ReasonString, p.ResponseInfo, userProperties(p.User)
		}
		if answer.ReasonCode != 0 {
			return errRefused
		}
	}
	return err
}

func userProperties(list paho5.UserProperties) map[string]string {
	m := make(map[string]string)
	for _, p := range list {
		m[p.Key] = p.Value
	}
	return m
}

func (d *device) connect3(o dialing) error {
	username := o.username
	if len(o.user) > 0 {
		query := url.Values{}
		for name, value := range o.user {
			query.Set(name, value)
		}
		username += "?" + query.Encode()
	}
	options := paho3.NewClientOptions().AddBroker("tcp://" + d.gateway.addrs.MQTT).SetClientID(o.id).
		SetUsername(username).SetPassword(o.password).SetProtocolVersion(4).SetCleanSession(!o.durable).
		SetAutoReconnect(false).SetConnectTimeout(patience).SetWriteTimeout(patience).SetKeepAlive(60 * time.Second).
		SetOrderMatters(true).
		SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) {
			d.receive(received{topic: m.Topic(), payload: m.Payload(), qos: m.Qos(), retained: m.Retained()})
		}).
		SetConnectionLostHandler(func(paho3.Client, error) { d.end(farewell{}) }).
		SetCustomOpenConnectionFn(func(*url.URL, paho3.ClientOptions) (net.Conn, error) { return d.conn, nil })
	if o.will != nil {
		options.SetBinaryWill(o.will.topic, o.will.payload, o.will.qos, false)
	}
	d.v3 = paho3.NewClient(options)
	token := d.v3.Connect()
	err := waitFor(token)
	if c, ok := token.(*paho3.ConnectToken); ok {
		d.hello = greeting{reason: c.ReturnCode(), present: c.SessionPresent()}
		if err != nil && d.hello.reason != 0 {
			return errRefused
		}
	}
	return err
}

func waitFor(token paho3.Token) error {
	if !token.WaitTimeout(patience) {
		return errors.New("no answer in time")
	}
	return token.Error()
}

// connect connects a device, which leaves when the test ends.
func (g *gateway) connect(tb testing.TB, u user, version byte, options ...dialOption) *device {
	tb.Helper()
	d, err := g.attach(tb.Context(), u, version, options...)
	if err != nil {
		reason := byte(0)
		if d != nil {
			reason = d.hello.reason
		}
		tb.Fatalf("connecting %s: %v (0x%02x)", u.Name, err, reason)
	}
	tb.Cleanup(d.leave)
	return d
}

// refuse connects a device that must be refused, and gives the CONNACK.
func (g *gateway) refuse(tb testing.TB, u user, version byte, options ...dialOption) greeting {
	tb.Helper()
	d, err := g.attach(tb.Context(), u, version, options...)
	if err == nil {
		d.leave()
		tb.Fatalf("%s was let in", u.Name)
	}
	if !errors.Is(err, errRefused) {
		tb.Fatalf("no CONNACK that refuses %s: %v", u.Name, err)
	}
	return d.hello
}

// online connects a device that listens to everything that concerns its user.
func (g *gateway) online(tb testing.TB, u user, version byte, options ...dialOption) *device {
	tb.Helper()
	d := g.connect(tb, u, version, options...)
	d.subscribe(tb, 1, "conversations/+/events", u.inbox(), u.replies(), u.replies()+"/#")
	return d
}

// leave takes leave and goes.
func (d *device) leave() {
	d.parted.Store(true)
	if d.version == 5 {
		_ = d.v5.Disconnect(&paho5.Disconnect{})
		select {
		case <-d.v5.Done():
		case <-time.After(patience):
		}
		return
	}
	d.v3.Disconnect(1000) // or until the packet is on its way
	_ = d.conn.Close()
}

// cut breaks the connection without a word.
func (d *device) cut() {
	d.parted.Store(true)
	_ = d.conn.Close()
}

// end waits for the connection to be ended by the gateway.
func (d *device) over(tb testing.TB) farewell {
	tb.Helper()
	select {
	case f := <-d.ended:
		return f
	case <-time.After(patience):
		tb.Fatalf("%s is still connected", d.user.Name)
		return farewell{}
	}
}
