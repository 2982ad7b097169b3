package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.golang/packets"
	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// received is a publication as it arrived.
type received struct {
	topic       string
	payload     []byte
	qos         byte
	retained    bool
	correlation []byte
	identifiers int
}

// box keeps what has arrived until a test takes it. It has no bound: a client must never be slow by accident.
type box struct {
	mu    sync.Mutex
	items []received
	more  chan struct{}
}

func newBox() *box { return &box{more: make(chan struct{}, 1)} }

func (b *box) put(r received) {
	b.mu.Lock()
	b.items = append(b.items, r)
	b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// take waits for the first item that matches and removes it. One goroutine takes at a time.
func (b *box) take(ctx context.Context, match func(received) bool) (received, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		b.mu.Lock()
		for i, r := range b.items {
			if match == nil || match(r) {
				b.items = append(b.items[:i:i], b.items[i+1:]...)
				b.mu.Unlock()
				return r, nil
			}
		}
		n := len(b.items)
		b.mu.Unlock()
		select {
		case <-b.more:
		case <-ctx.Done():
			return received{}, fmt.Errorf("nothing came; %d others did: %w", n, ctx.Err())
		}
	}
}

// rest gives what nobody took.
func (b *box) rest() []received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]received(nil), b.items...)
}

// unasked is rest without the reminders of what is unread: a login's are counted at some time after it, and who is slow to
// count finds messages that have come since.
func (b *box) unasked() []received {
	return slices.DeleteFunc(b.rest(), func(r received) bool { return bytes.Contains(r.payload, []byte(`"type":"unread"`)) })
}

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

// ack is the acknowledgement of a publish.
type ack struct {
	reason byte
	text   string
	user   map[string]string
}

func (a ack) seq() int64 {
	n, _ := strconv.ParseInt(a.user["seq"], 10, 64)
	return n
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

// device is a client that somebody else has written, for either version of MQTT.
type device struct {
	gateway *gateway
	spec    *spec
	user    user
	version byte
	id      string
	hello   greeting

	v3   paho3.Client
	v5   *paho5.Client
	conn net.Conn

	events, inbox, replies, other *box
	// ended gets the end of the connection, once.
	ended    chan farewell
	endOnce  sync.Once
	requests atomic.Int64
	// shown are the announcements that the device has had.
	shown []string
	// parted is set when the test ends the connection itself.
	parted atomic.Bool
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

// trySubscribe gives the reason code of each filter.
func (d *device) trySubscribe(ctx context.Context, qos byte, filters ...string) ([]byte, error) {
	if d.version == 5 {
		list := make([]paho5.SubscribeOptions, len(filters))
		for i, f := range filters {
			list[i] = paho5.SubscribeOptions{Topic: f, QoS: qos}
		}
		answer, err := d.v5.Subscribe(ctx, &paho5.Subscribe{Subscriptions: list})
		if answer != nil {
			return answer.Reasons, nil // which paho takes for an error if it refuses
		}
		return nil, err
	}
	m := make(map[string]byte, len(filters))
	for _, f := range filters {
		m[f] = qos
	}
	token := d.v3.SubscribeMultiple(m, nil)
	err := waitFor(token)
	result := token.(*paho3.SubscribeToken).Result()
	codes := make([]byte, len(filters))
	for i, f := range filters {
		code, ok := result[f]
		if !ok {
			return nil, errors.Join(errors.New("no SUBACK"), err)
		}
		codes[i] = code
	}
	return codes, nil
}

// subscribe subscribes to filters that must be granted.
func (d *device) subscribe(tb testing.TB, qos byte, filters ...string) {
	tb.Helper()
	codes, err := d.trySubscribe(tb.Context(), qos, filters...)
	if err != nil {
		tb.Fatalf("SUBSCRIBE: %v", err)
	}
	for i, code := range codes {
		if code != min(qos, 1) {
			tb.Fatalf("%s: SUBACK says 0x%02x to %s", d.user.Name, code, filters[i])
		}
	}
}

func (d *device) unsubscribe(tb testing.TB, filters ...string) {
	tb.Helper()
	var err error
	if d.version == 5 {
		_, err = d.v5.Unsubscribe(tb.Context(), &paho5.Unsubscribe{Topics: filters})
	} else {
		err = waitFor(d.v3.Unsubscribe(filters...))
	}
	if err != nil {
		tb.Fatalf("UNSUBSCRIBE: %v", err)
	}
}

// publishing says how something is published; the properties count in MQTT 5 only.
type publishing struct {
	topic       string
	payload     []byte
	qos         byte
	contentType string
	responseTo  string
	correlation []byte
}

// tryPublish publishes and waits for the acknowledgement.
func (d *device) tryPublish(ctx context.Context, p publishing) (ack, error) {
	if d.version != 5 {
		return ack{}, waitFor(d.v3.Publish(p.topic, p.qos, false, p.payload))
	}
	pub := &paho5.Publish{Topic: p.topic, QoS: p.qos, Payload: p.payload, Properties: &paho5.PublishProperties{
		ContentType: p.contentType, ResponseTopic: p.responseTo, CorrelationData: p.correlation,
	}}
	answer, err := d.v5.Publish(ctx, pub)
	if answer == nil {
		return ack{}, err
	}
	a := ack{reason: answer.ReasonCode}
	if answer.Properties != nil {
		a.text, a.user = answer.Properties.ReasonString, userProperties(answer.Properties.User)
	}
	if a.reason >= 0x80 {
		err = nil // paho takes it for an error
	}
	return a, err
}

// publish publishes something that is acknowledged, whatever the acknowledgement says.
func (d *device) publish(tb testing.TB, p publishing) ack {
	tb.Helper()
	a, err := d.tryPublish(tb.Context(), p)
	if err != nil {
		tb.Fatalf("%s: PUBLISH to %s: %v", d.user.Name, p.topic, err)
	}
	return a
}

func messagesTopic(conversation string) string { return "conversations/" + conversation + "/messages" }
func rawTopic(conversation string) string      { return "conversations/" + conversation + "/raw" }
func eventsTopic(conversation string) string   { return "conversations/" + conversation + "/events" }

// say sends a message whose publish must be acknowledged with success.
func (d *device) say(tb testing.TB, conversation string, message map[string]any) ack {
	tb.Helper()
	a := d.publish(tb, publishing{topic: messagesTopic(conversation), qos: 1, payload: mustJSON(tb, message)})
	if a.reason != 0 {
		tb.Fatalf("%s: PUBACK 0x%02x %s %v", d.user.Name, a.reason, a.text, a.user)
	}
	return a
}

func text(s string) map[string]any { return map[string]any{"text": s} }

// command runs a command; the device must be subscribed to its replies.
func (d *device) command(tb testing.TB, name string, params map[string]any) reply {
	tb.Helper()
	r, err := d.tryCommand(tb.Context(), name, params)
	if err != nil {
		tb.Fatalf("%s: %s: %v", d.user.Name, name, err)
	}
	return r
}

func (d *device) tryCommand(ctx context.Context, name string, params map[string]any) (reply, error) {
	id := d.id + "-" + strconv.FormatInt(d.requests.Add(1), 10)
	with := map[string]any{"requestId": id}
	maps.Copy(with, params)
	payload, err := json.Marshal(with)
	if err != nil {
		return reply{}, err
	}
	if _, err := d.tryPublish(ctx, publishing{topic: "commands/" + name, payload: payload, qos: 1}); err != nil {
		return reply{}, err
	}
	return d.awaitReply(ctx, id)
}

// awaitReply waits for the reply to a request. What is not a reply (an error event, for instance) counts by its
// requestId as well.
func (d *device) awaitReply(ctx context.Context, requestID string) (reply, error) {
	var r reply
	_, err := d.replies.take(ctx, func(m received) bool {
		var x reply
		if json.Unmarshal(m.payload, &x) != nil || x.RequestID != requestID {
			return false
		}
		r, r.received = x, m
		return true
	})
	return r, err
}

func (d *device) reply(tb testing.TB, requestID string) reply {
	tb.Helper()
	r, err := d.awaitReply(tb.Context(), requestID)
	if err != nil {
		tb.Fatalf("%s: reply to %s: %v", d.user.Name, requestID, err)
	}
	return r
}

// notice waits for an inbox event of the type.
func (d *device) notice(tb testing.TB, kind string) notice {
	tb.Helper()
	var n notice
	_, err := d.inbox.take(tb.Context(), func(m received) bool {
		var x notice
		if json.Unmarshal(m.payload, &x) != nil || x.Type != kind {
			return false
		}
		n, n.received = x, m
		return true
	})
	if err != nil {
		tb.Fatalf("%s: no %s in the inbox: %v", d.user.Name, kind, err)
	}
	return n
}

// hear waits for the next event of the conversation.
func (d *device) hear(tb testing.TB, conversation string) event {
	tb.Helper()
	ev, err := d.tryHear(tb.Context(), conversation)
	if err != nil {
		tb.Fatalf("%s: no event of %s: %v", d.user.Name, conversation, err)
	}
	return ev
}

func (d *device) tryHear(ctx context.Context, conversation string) (event, error) {
	topic := eventsTopic(conversation)
	m, err := d.events.take(ctx, func(m received) bool { return m.topic == topic })
	if err != nil {
		return event{}, err
	}
	ev := event{raw: m.payload, received: m}
	return ev, json.Unmarshal(m.payload, &ev)
}

// hearUpTo waits for the events of the conversation up to a number, from the next one on, and checks that they come in
// order, each once.
func (d *device) hearUpTo(tb testing.TB, conversation string, from, to int64) []event {
	tb.Helper()
	list := make([]event, 0, to-from+1)
	for next := from; next <= to; next++ {
		ev := d.hear(tb, conversation)
		if ev.Seq != next {
			tb.Fatalf("%s: event %d came where %d was due", d.user.Name, ev.Seq, next)
		}
		list = append(list, ev)
	}
	return list
}
