package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

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

// heardAll checks that no event has come but those that the test has heard.
func (d *device) heardAll(tb testing.TB) {
	tb.Helper()
	if rest := d.events.rest(); len(rest) > 0 {
		tb.Errorf("%s hears %d events more, first %s: %s", d.user.Name, len(rest), rest[0].topic, rest[0].payload)
	}
}
