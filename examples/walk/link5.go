package walk

import (
	"context"
	"fmt"
	"net"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// link5 speaks MQTT 5, with Eclipse's Go library for it.
type link5 struct {
	conn       net.Conn
	client     *paho.Client
	reason     byte
	properties map[string]string
}

func connect5(s *Stage, l Login, receive func(publication)) (link, error) {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(s.ctx, "tcp", s.gateway.MQTT)
	if err != nil {
		return nil, err
	}
	k := &link5{conn: conn}
	k.client = paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn), PacketTimeout: patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			receive(publication{p.Packet.Topic, p.Packet.Payload})
			return true, nil
		}},
	})
	connect := &paho.Connect{
		ClientID: l.Name, KeepAlive: 60, CleanStart: !l.Durable,
		Username: l.Username, UsernameFlag: true, Password: []byte(l.Password), PasswordFlag: true,
		Properties: &paho.ConnectProperties{RequestProblemInfo: true, RequestResponseInfo: true},
	}
	if l.Durable {
		week := uint32(7 * 24 * 60 * 60)
		connect.Properties.SessionExpiryInterval = &week
	}
	for name, value := range l.Options {
		connect.Properties.User.Add(name, value)
	}
	if l.Will != nil {
		connect.WillMessage = &paho.WillMessage{Topic: l.Will.Topic, Payload: s.encode(l.Will.Payload), QoS: 1}
	}
	answer, err := k.client.Connect(s.ctx, connect)
	if answer == nil {
		_ = conn.Close()
		return nil, err
	}
	k.reason, k.properties = answer.ReasonCode, map[string]string{}
	if answer.Properties != nil {
		k.properties = properties(answer.Properties.User)
		if r := answer.Properties.ResponseInfo; r != "" {
			k.properties["responseInformation"] = r
		}
	}
	return k, err
}

func properties(list paho.UserProperties) map[string]string {
	m := make(map[string]string)
	for _, p := range list {
		m[p.Key] = p.Value
	}
	return m
}

func (k *link5) hello() (byte, map[string]string) { return k.reason, k.properties }

func (k *link5) subscribe(ctx context.Context, filters []string) error {
	list := make([]paho.SubscribeOptions, len(filters))
	for i, f := range filters {
		list[i] = paho.SubscribeOptions{Topic: f, QoS: 1}
	}
	answer, err := k.client.Subscribe(ctx, &paho.Subscribe{Subscriptions: list})
	if answer != nil && err != nil {
		return fmt.Errorf("%w: %x", err, answer.Reasons)
	}
	return err
}

func (k *link5) publish(ctx context.Context, topic string, payload []byte, replyTo string) (Ack, error) {
	answer, err := k.client.Publish(ctx, &paho.Publish{
		Topic: topic, QoS: 1, Payload: payload, Properties: &paho.PublishProperties{ResponseTopic: replyTo},
	})
	if answer == nil {
		return Ack{}, err
	}
	a := Ack{Reason: answer.ReasonCode, Properties: map[string]string{}}
	if p := answer.Properties; p != nil {
		a.Properties = properties(p.User)
		if p.ReasonString != "" {
			a.Properties["reasonString"] = p.ReasonString
		}
	}
	return a, nil // the library takes a refusal for an error
}

func (k *link5) disconnect() {
	_ = k.client.Disconnect(&paho.Disconnect{}) // whoever is gone needs no farewell
	<-k.client.Done()
}

func (k *link5) cut() { _ = k.conn.Close() }

func (k *link5) done() <-chan struct{} { return k.client.Done() }
