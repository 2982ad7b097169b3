package broker_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	legacy "github.com/eclipse/paho.mqtt.golang"

	"github.com/parley-im/parley/domain"
)

// put gives a session n deliveries with QoS 1, numbered.
func putMany(s *seat, n int) {
	for i := range n {
		s.put(domain.Delivery{Publication: publication(events, fmt.Sprint(i)), QoS: 1})
	}
}

// inOrder counts deliveries and complains about the first that is not the next.
type inOrder struct {
	tb  testing.TB
	got atomic.Int64
}

func (o *inOrder) take(payload []byte) {
	if want := fmt.Sprint(o.got.Add(1) - 1); string(payload) != want {
		o.tb.Errorf("got %s, want %s", payload, want)
	}
}

func TestPahoForMQTT311TalksToUs(t *testing.T) {
	// The client library that most Go programs have, over TCP and WebSocket.
	r := newRig(t, nil)
	for name, broker := range map[string]string{
		"tcp": "tcp://" + r.addr, "ws": "ws://" + r.server.Addrs()["ws"].String() + "/mqtt",
	} {
		t.Run(name, func(t *testing.T) {
			order := &inOrder{tb: t}
			o := legacy.NewClientOptions().AddBroker(broker).SetClientID(name).SetUsername(alice + "?tag=x").SetPassword("good").
				SetProtocolVersion(4).SetAutoReconnect(false).SetKeepAlive(30 * time.Second)
			c := legacy.NewClient(o)
			wait(t, c.Connect())
			token := c.Subscribe(events, 1, func(_ legacy.Client, m legacy.Message) { order.take(m.Payload()) })
			wait(t, token)
			s := r.seat(t, alice, name)
			putMany(s, 500)
			for i := range 200 {
				wait(t, c.Publish(hallway, byte(i%3), false, fmt.Sprintf(`{"text":"%d"}`, i)))
			}
			eventually(t, "everything is delivered and acknowledged", func() bool { _, done, _ := s.count(); return done == 500 })
			eventually(t, "and handled", func() bool { return order.got.Load() == 500 })
			if n, _, _ := s.count(); n != 200 {
				t.Errorf("%d publishes arrived", n)
			}
			wait(t, c.Unsubscribe(events))
			c.Disconnect(100)
			eventually(t, "the session has left", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.left == 1 })
		})
	}
}

func wait(tb testing.TB, token legacy.Token) {
	tb.Helper()
	if !token.WaitTimeout(patience) {
		tb.Fatal("no answer")
	}
	if err := token.Error(); err != nil {
		tb.Fatal(err)
	}
}

func TestPahoForMQTT5TalksToUs(t *testing.T) {
	// It checks more of what it receives than our own test client does.
	r := newRig(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	order := &inOrder{tb: t}
	serverGone := make(chan *paho.Disconnect, 1)
	c := paho.NewClient(paho.ClientConfig{
		Conn: conn,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			if p.Packet.Properties == nil || *p.Packet.Properties.SubscriptionIdentifier != 7 {
				t.Error("a delivery without its identifier")
			}
			order.take(p.Packet.Payload)
			return true, nil
		}},
		OnServerDisconnect: func(d *paho.Disconnect) { serverGone <- d },
	})
	expiry, seven, window := uint32(60), 7, uint16(10)
	ack, err := c.Connect(ctx, &paho.Connect{
		ClientID: "phone", KeepAlive: 30, UsernameFlag: true, Username: alice, PasswordFlag: true, Password: []byte("good"),
		Properties: &paho.ConnectProperties{
			SessionExpiryInterval: &expiry, ReceiveMaximum: &window, RequestResponseInfo: true,
			RequestProblemInfo: true, // without it paho asks to be told no reasons and no receipts
			User:               paho.UserProperties{{Key: "tag", Value: "mobile"}},
		},
		WillMessage: &paho.WillMessage{Topic: "commands/getMe", Payload: []byte("{}")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if ack.Properties.ResponseInfo != "users/"+alice+"/replies" {
		t.Errorf("Response Information %q", ack.Properties.ResponseInfo)
	}
	if _, err := c.Subscribe(ctx, &paho.Subscribe{
		Properties:    &paho.SubscribeProperties{SubscriptionIdentifier: &seven},
		Subscriptions: []paho.SubscribeOptions{{Topic: events, QoS: 2, NoLocal: true}},
	}); err != nil {
		t.Fatal(err)
	}
	s := r.seat(t, alice, "phone")
	for i := range 300 {
		s.put(domain.Delivery{Publication: publication(events, fmt.Sprint(i)), QoS: 1, Identifiers: []int{s.filters[events].Identifier}})
	}
	for i := range 100 {
		res, err := c.Publish(ctx, &paho.Publish{Topic: hallway, QoS: byte(1 + i%2), Payload: fmt.Appendf(nil, `{"text":"%d"}`, i)})
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 && res.Properties.User.Get("seq") != fmt.Sprint(i+1) { // for QoS 2 it gives those of the PUBCOMP
			t.Errorf("receipt %+v", res.Properties)
		}
	}
	if res, err := c.Publish(ctx, &paho.Publish{Topic: "nowhere", QoS: 1}); err == nil || res.ReasonCode != 0x87 || res.Properties.ReasonString != "access-denied" {
		t.Errorf("refusal: %+v %+v %v", res, res.Properties, err)
	}
	eventually(t, "everything is delivered and acknowledged", func() bool { _, done, _ := s.count(); return done == 300 })
	if n := order.got.Load(); n != 300 {
		t.Errorf("%d deliveries handled", n)
	}
	s.conn.Close(domain.TakenOver())
	select {
	case d := <-serverGone:
		if d.ReasonCode != 0x8e || d.Properties.ReasonString != "taken-over" {
			t.Errorf("DISCONNECT %+v", d)
		}
	case <-ctx.Done():
		t.Error("the client was not told")
	}
	<-c.Done()
}

func TestAutopahoComesBackAfterItsConnectionIsLost(t *testing.T) {
	// Durable sessions of real clients: expiry, clean start only at first, reconnect at once.
	r := newRig(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	u, err := url.Parse("ws://" + r.server.Addrs()["ws"].String() + "/mqtt")
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{}, 10)
	cm, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{u}, KeepAlive: 30, SessionExpiryInterval: 600, CleanStartOnInitialConnection: true,
		ConnectUsername: alice, ConnectPassword: []byte("good"), ReconnectBackoff: func(int) time.Duration { return time.Millisecond },
		OnConnectionUp: func(*autopaho.ConnectionManager, *paho.Connack) { up <- struct{}{} },
		ClientConfig:   paho.ClientConfig{ClientID: "phone"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		select {
		case <-up:
		case <-ctx.Done():
			t.Fatal("it has not connected")
		}
		s := r.seat(t, alice, "phone")
		if s.hello.Expiry != 600 || s.hello.Clean != (round == 0) {
			t.Errorf("round %d: %+v", round, s.hello)
		}
		if _, err := cm.Publish(ctx, &paho.Publish{Topic: hallway, QoS: 2, Payload: []byte(`{"text":"x"}`)}); err != nil {
			t.Error(err)
		}
		if round < 2 {
			s.conn.Close(domain.Farewell{})
		}
	}
	if err := cm.Disconnect(ctx); err != nil {
		t.Error(err)
	}
}
