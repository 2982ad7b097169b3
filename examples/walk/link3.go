package walk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// link3 speaks MQTT 3.1.1, with Eclipse's Go library for it.
type link3 struct {
	conn   net.Conn
	client mqtt.Client
	reason byte
	ended  chan struct{}
	end    func()
}

// loginName gives the user name, with the options that MQTT 3.1.1 has no other room for.
func loginName(l Login) string {
	if l.Version == 5 || len(l.Options) == 0 {
		return l.Username
	}
	query := url.Values{}
	for name, value := range l.Options {
		query.Set(name, value)
	}
	return l.Username + "?" + query.Encode()
}

func connect3(s *Stage, l Login, receive func(publication)) (link, error) {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(s.ctx, "tcp", s.gateway.MQTT)
	if err != nil {
		return nil, err
	}
	k := &link3{conn: conn, ended: make(chan struct{})}
	k.end = sync.OnceFunc(func() { close(k.ended) })
	options := mqtt.NewClientOptions().AddBroker("tcp://" + s.gateway.MQTT).SetProtocolVersion(4).SetClientID(l.Name).
		SetUsername(loginName(l)).SetPassword(l.Password).SetCleanSession(!l.Durable).
		SetAutoReconnect(false).SetConnectTimeout(patience).SetWriteTimeout(patience).SetOrderMatters(true).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { receive(publication{m.Topic(), m.Payload()}) }).
		SetConnectionLostHandler(func(mqtt.Client, error) { k.end() }).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return conn, nil })
	if l.Will != nil {
		options.SetBinaryWill(l.Will.Topic, s.encode(l.Will.Payload), 1, false)
	}
	k.client = mqtt.NewClient(options)
	token := k.client.Connect()
	err = wait(token)
	if c, ok := token.(*mqtt.ConnectToken); ok {
		k.reason = c.ReturnCode()
	}
	if err != nil && k.reason == 0 {
		return nil, err
	}
	return k, err
}

// wait waits for a token, but not for ever.
func wait(token mqtt.Token) error {
	if !token.WaitTimeout(patience) {
		return errors.New("no answer in time")
	}
	return token.Error()
}

func (k *link3) hello() (byte, map[string]string) { return k.reason, nil }

func (k *link3) subscribe(_ context.Context, filters []string) error {
	m := make(map[string]byte, len(filters))
	for _, f := range filters {
		m[f] = 1
	}
	token := k.client.SubscribeMultiple(m, nil)
	if err := wait(token); err != nil {
		return err
	}
	for filter, code := range token.(*mqtt.SubscribeToken).Result() {
		if code >= 0x80 {
			return fmt.Errorf("%s is refused", filter)
		}
	}
	return nil
}

func (k *link3) publish(_ context.Context, topic string, payload []byte, _ string) (Ack, error) {
	return Ack{}, wait(k.client.Publish(topic, 1, false, payload))
}

func (k *link3) disconnect() {
	k.client.Disconnect(100)
	_ = k.conn.Close()
	k.end()
}

func (k *link3) cut() { _ = k.conn.Close() }

func (k *link3) done() <-chan struct{} { return k.ended }
