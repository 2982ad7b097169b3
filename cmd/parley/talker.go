package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// event is what the demo shows of an event.
type event struct {
	Type      string
	Seq       int64
	Initiator struct{ Username, Service string }
	Message   struct{ Text string }
}

// String gives the event on one line.
func (e event) String() string {
	who := e.Initiator.Username
	if who == "" {
		who = e.Initiator.Service
	}
	if e.Message.Text != "" {
		return fmt.Sprintf("#%d %s: %s", e.Seq, who, e.Message.Text)
	}
	return fmt.Sprintf("#%d %s by %s", e.Seq, e.Type, who)
}

// patience is how long the demo waits for anything.
const patience = 10 * time.Second

// talker is an MQTT client that takes part in the demo.
type talker interface {
	// send publishes a message and waits for its acknowledgement; seq is 0 where MQTT 3.1.1 has no room for it.
	send(ctx context.Context, conversation, text string) (seq int64, err error)
	// command runs a command and decodes its result.
	command(ctx context.Context, name string, params map[string]any, result any) error
	// next waits for the next event.
	next(ctx context.Context) (event, error)
	// lastSeq is the number of the last event received.
	lastSeq() int64
	// cut breaks the connection without a word; close takes leave.
	cut()
	close()
}

// inbox sorts what a client receives into events and replies.
type inbox struct {
	events  chan event
	replies chan []byte
	last    atomic.Int64
	request atomic.Int64
}

func newInbox() *inbox {
	return &inbox{events: make(chan event, 64), replies: make(chan []byte, 64)}
}

func (b *inbox) receive(topic string, payload []byte) {
	if len(topic) > 6 && topic[:6] == "users/" {
		b.replies <- payload
		return
	}
	var ev event
	if json.Unmarshal(payload, &ev) == nil {
		b.events <- ev
	}
}

func (b *inbox) lastSeq() int64 { return b.last.Load() }

func (b *inbox) next(ctx context.Context) (event, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case ev := <-b.events:
		b.last.Store(ev.Seq)
		return ev, nil
	case <-ctx.Done():
		return event{}, ctx.Err()
	}
}

// ask publishes a command with publish, and waits for its reply.
func (b *inbox) ask(ctx context.Context, name string, params map[string]any, result any, publish func(topic string, payload []byte) error) error {
	id := "demo-" + strconv.FormatInt(b.request.Add(1), 10)
	params["requestId"] = id
	payload, err := json.Marshal(params)
	if err != nil {
		return err
	}
	if err := publish("commands/"+name, payload); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		select {
		case reply := <-b.replies:
			var r struct {
				RequestID string
				Result    json.RawMessage
				Error     *struct{ Code, Detail string }
			}
			if err := json.Unmarshal(reply, &r); err != nil {
				return err
			}
			switch {
			case r.RequestID != id:
				continue
			case r.Error != nil:
				return fmt.Errorf("%s: %s: %s", name, r.Error.Code, r.Error.Detail)
			}
			return json.Unmarshal(r.Result, result)
		case <-ctx.Done():
			return fmt.Errorf("no reply to %s: %w", name, ctx.Err())
		}
	}
}

func textMessage(text string) []byte {
	b, _ := json.Marshal(map[string]string{"text": text}) // a map of strings always encodes
	return b
}

// v5 is a client of MQTT 5.
type v5 struct {
	*inbox
	conn   net.Conn
	client *paho5.Client
}

func dialV5(ctx context.Context, addr, username, password, device string) (talker, error) {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	t := &v5{inbox: newInbox(), conn: conn}
	t.client = paho5.NewClient(paho5.ClientConfig{
		Conn: conn,
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
			t.receive(p.Packet.Topic, p.Packet.Payload)
			return true, nil
		}},
	})
	ack, err := t.client.Connect(ctx, &paho5.Connect{
		ClientID: device, KeepAlive: 30, CleanStart: true,
		Username: username, UsernameFlag: true, Password: []byte(password), PasswordFlag: true,
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if ack.ReasonCode != 0 {
		return nil, fmt.Errorf("login refused: 0x%02x", ack.ReasonCode)
	}
	_, err = t.client.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{
		{Topic: "conversations/+/events", QoS: 1}, {Topic: "users/" + username + "/replies", QoS: 1},
	}})
	return t, err
}

func (t *v5) send(ctx context.Context, conversation, text string) (int64, error) {
	ack, err := t.client.Publish(ctx, &paho5.Publish{
		Topic: "conversations/" + conversation + "/messages", QoS: 1, Payload: textMessage(text),
	})
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(ack.Properties.User.Get("seq"), 10, 64)
}

func (t *v5) command(ctx context.Context, name string, params map[string]any, result any) error {
	return t.ask(ctx, name, params, result, func(topic string, payload []byte) error {
		_, err := t.client.Publish(ctx, &paho5.Publish{Topic: topic, QoS: 1, Payload: payload})
		return err
	})
}

func (t *v5) cut() { _ = t.conn.Close() }

func (t *v5) close() { _ = t.client.Disconnect(&paho5.Disconnect{}) }

// v3 is a client of MQTT 3.1.1.
type v3 struct {
	*inbox
	conn   net.Conn
	client paho3.Client
}

// dialV3 connects with a session that outlives the connection; present: there was one already, with its subscriptions.
func dialV3(ctx context.Context, addr, username, password, device string) (t talker, present bool, err error) {
	c := &v3{inbox: newInbox()}
	options := paho3.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(device).
		SetUsername(username).SetPassword(password).SetProtocolVersion(4).SetCleanSession(false).SetAutoReconnect(false).
		SetConnectTimeout(patience).SetOrderMatters(true).
		SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) { c.receive(m.Topic(), m.Payload()) })
	options.SetCustomOpenConnectionFn(func(*url.URL, paho3.ClientOptions) (net.Conn, error) {
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", addr)
		c.conn = conn
		return conn, err
	})
	c.client = paho3.NewClient(options)
	connect, _ := c.client.Connect().(*paho3.ConnectToken)
	if err := wait(connect); err != nil {
		return nil, false, err
	}
	if connect.SessionPresent() {
		return c, true, nil
	}
	return c, false, wait(c.client.SubscribeMultiple(map[string]byte{
		"conversations/+/events": 1, "users/" + username + "/replies": 1,
	}, nil))
}

// wait waits for a token, but not for ever.
func wait(token paho3.Token) error {
	if !token.WaitTimeout(patience) {
		return errors.New("the gateway did not answer")
	}
	return token.Error()
}

func (t *v3) send(_ context.Context, conversation, text string) (int64, error) {
	return 0, wait(t.client.Publish("conversations/"+conversation+"/messages", 1, false, textMessage(text)))
}

func (t *v3) command(ctx context.Context, name string, params map[string]any, result any) error {
	return t.ask(ctx, name, params, result, func(topic string, payload []byte) error {
		return wait(t.client.Publish(topic, 1, false, payload))
	})
}

func (t *v3) cut() { _ = t.conn.Close() }

func (t *v3) close() { t.client.Disconnect(100) }
