package walk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Login says how a device connects.
type Login struct {
	// Name is what the narrator calls the device; it is its MQTT client id as well.
	Name string
	// Username is the full user name, Password a password or an access token.
	Username, Password string
	// Version is 5 for MQTT 5; else the device speaks 3.1.1.
	Version int
	// Options are tag, reconnect and the like: user properties in MQTT 5, a query in the user name in 3.1.1.
	Options map[string]string
	// Durable keeps the session on the gateway while the device is away.
	Durable bool
	// Will is what the gateway publishes if the connection is lost without a DISCONNECT.
	Will *Will
}

// Will is the will of a CONNECT.
type Will struct {
	Topic   string
	Payload any
}

// Ack is the acknowledgement of a publish. MQTT 3.1.1 has no room for more than the fact.
type Ack struct {
	// Reason is the reason code of MQTT 5, 0 is success.
	Reason byte
	// Properties are the user properties of MQTT 5: conversation, seq, message, duplicate; detail of a refusal.
	Properties map[string]string
}

// publication is something that arrived.
type publication struct {
	topic   string
	payload []byte
}

// link is an MQTT connection of either version.
type link interface {
	// hello gives what the CONNACK said, for the narrator.
	hello() (reason byte, properties map[string]string)
	subscribe(ctx context.Context, filters []string) error
	// publish publishes at QoS 1 and waits for the acknowledgement. A refusal is no error. replyTo is the Response Topic.
	publish(ctx context.Context, topic string, payload []byte, replyTo string) (Ack, error)
	// disconnect takes leave; cut breaks the connection without a word; done is closed when the connection has ended.
	disconnect()
	cut()
	done() <-chan struct{}
}

// Client is a device of a user. Whatever arrives is kept until the example takes it.
type Client struct {
	// Name is the narrator's name for it, Username that of its user.
	Name, Username string

	stage    *Stage
	version  int
	link     link
	requests int
	// last is the number of the last event taken of each conversation.
	last map[string]int64

	mu      sync.Mutex // guards arrived
	arrived []publication
	more    chan struct{}
}

// Connect connects a device that must be let in.
func (s *Stage) Connect(l Login) *Client {
	c, err := s.dial(l)
	if err != nil {
		s.fail("connecting %s: %v", l.Name, err)
	}
	return c
}

// Refuse connects a device that must be refused, with the CONNACK code of its version.
func (s *Stage) Refuse(l Login, code byte) {
	c, err := s.dial(l)
	if c.link == nil {
		s.fail("%s got no CONNACK: %v", l.Name, err)
	}
	reason, _ := c.link.hello()
	s.Check(err != nil && reason == code, "refused with CONNACK 0x%02x", reason)
}

func (s *Stage) dial(l Login) (*Client, error) {
	c := &Client{
		Name: l.Name, Username: l.Username, stage: s, version: l.Version,
		last: make(map[string]int64), more: make(chan struct{}, 1),
	}
	options := ""
	if l.Version == 5 {
		options = list(l.Options)
	}
	s.shown(l.Name, "▶", fmt.Sprintf("CONNECT (MQTT %s) as %s%s", versionName(l.Version), loginName(l), options), nil)
	if l.Will != nil {
		s.shown(l.Name, "▶", "Will: "+l.Will.Topic, s.encode(l.Will.Payload))
	}
	connect := connect3
	if l.Version == 5 {
		connect = connect5
	}
	var err error
	c.link, err = connect(s, l, c.receive)
	if c.link != nil {
		reason, properties := c.link.hello()
		s.shown(l.Name, "◀", fmt.Sprintf("CONNACK 0x%02x%s", reason, list(properties)), nil)
	}
	if err == nil {
		s.clients = append(s.clients, c)
	}
	return c, err
}

func versionName(version int) string {
	if version == 5 {
		return "5"
	}
	return "3.1.1"
}

// list prints properties in a fixed order.
func list(properties map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		b.WriteString(" " + name + "=" + properties[name])
	}
	return b.String()
}

// Subscribe subscribes to filters, which must be granted.
func (c *Client) Subscribe(filters ...string) {
	c.stage.shown(c.Name, "▶", "SUBSCRIBE "+strings.Join(filters, ", "), nil)
	if err := c.link.subscribe(c.stage.ctx, filters); err != nil {
		c.stage.fail("%s: SUBSCRIBE: %v", c.Name, err)
	}
	c.stage.shown(c.Name, "◀", "SUBACK", nil)
}

// Listen subscribes to all that concerns the user: what the listeners of an SDK are for.
func (c *Client) Listen() {
	c.Subscribe("conversations/+/events", "conversations/+/signals", "users/"+c.Username+"/inbox",
		"users/"+c.Username+"/replies", "users/"+c.Username+"/replies/#")
}

// Publish publishes JSON (or bytes) to a topic at QoS 1 and waits for its acknowledgement, which must be a success.
func (c *Client) Publish(topic string, payload any) Ack {
	a := c.publish(topic, c.stage.encode(payload), "")
	if a.Reason >= 0x80 {
		c.stage.fail("%s: PUBACK 0x%02x", c.Name, a.Reason)
	}
	return a
}

// PublishRefused publishes what must be refused, with the reason code in MQTT 5 and an error event in 3.1.1.
func (c *Client) PublishRefused(topic string, payload any, code string, reason byte) {
	a := c.publish(topic, c.stage.encode(payload), "")
	if c.version == 5 {
		c.stage.Check(a.Reason == reason, "the acknowledgement refuses: 0x%02x", a.Reason)
		return
	}
	r := c.Notice("error", func(n Notice) bool { return n.Topic == topic }).Error
	c.stage.Check(r != nil && r.Code == code, "the acknowledgement has no room for it, so an error event refuses: %s", code)
}

func (c *Client) publish(topic string, payload []byte, replyTo string) Ack {
	where := topic
	if replyTo != "" {
		where += " (Response Topic " + replyTo + ")"
	}
	c.stage.shown(c.Name, "▶", where, payload)
	a, err := c.link.publish(c.stage.ctx, topic, payload, replyTo)
	if err != nil {
		c.stage.fail("%s: PUBLISH to %s: %v", c.Name, topic, err)
	}
	ack := "PUBACK"
	if c.version == 5 {
		ack = fmt.Sprintf("PUBACK 0x%02x%s", a.Reason, list(a.Properties))
	}
	c.stage.shown(c.Name, "◀", ack, nil)
	return a
}

// reply is the answer to a command.
type reply struct {
	RequestID string          `json:"requestId"`
	Command   string          `json:"command"`
	Result    json.RawMessage `json:"result"`
	Error     *Refusal        `json:"error"`
}

// Command runs a command that must succeed, and decodes its result.
func (c *Client) Command(name string, params M, result any) Ack {
	r, a := c.ask(name, params)
	if r.Error != nil {
		c.stage.fail("%s: %s is refused: %s: %s", c.Name, name, r.Error.Code, r.Error.Detail)
	}
	c.stage.decode(r.Result, result)
	return a
}

// Refused runs a command that must be refused with the code.
func (c *Client) Refused(name string, params M, code string) Refusal {
	r, _ := c.ask(name, params)
	if r.Error == nil {
		c.stage.fail("%s: %s is not refused, but answered %s", c.Name, name, r.Result)
	}
	c.stage.Check(r.Error.Code == code, "refused: %s, number %d: %s", r.Error.Code, r.Error.Number, r.Error.Detail)
	return *r.Error
}

// ask publishes a command. In MQTT 5 the reply goes to a Response Topic of the device's own; in 3.1.1 to the topic of replies.
func (c *Client) ask(name string, params M) (reply, Ack) {
	c.requests++
	with := M{"requestId": c.Name + "-" + strconv.Itoa(c.requests)}
	maps.Copy(with, params)
	replies := "users/" + c.Username + "/replies"
	replyTo := ""
	if c.version == 5 {
		replyTo = replies + "/" + c.Name
		replies = replyTo
	}
	a := c.publish("commands/"+name, c.stage.encode(with), replyTo)
	r := c.awaitReply(replies, with["requestId"].(string))
	if r.Command != name {
		c.stage.fail("%s: the reply to %s says that it is about %s", c.Name, name, r.Command)
	}
	return r, a
}

// Reply waits for the reply to a publish that carried the requestId, which must tell of a success, and decodes its result.
func (c *Client) Reply(requestID string, result any) {
	r := c.awaitReply("users/"+c.Username+"/replies", requestID)
	if r.Error != nil {
		c.stage.fail("%s: %s is refused: %s: %s", c.Name, requestID, r.Error.Code, r.Error.Detail)
	}
	c.stage.decode(r.Result, result)
}

func (c *Client) awaitReply(topic, requestID string) reply {
	var r reply
	c.take("a reply to "+requestID, func(p publication) bool {
		r = reply{}
		return p.topic == topic && json.Unmarshal(p.payload, &r) == nil && r.RequestID == requestID
	})
	return r
}

// Event takes the next sequenced event of the conversation, which must be of the type, and must follow the last without a gap.
func (c *Client) Event(conversation, kind string) Event {
	p := c.take("a "+kind+" event", on("conversations/"+conversation+"/events"))
	var ev Event
	c.stage.decode(p.payload, &ev)
	if last := c.last[conversation]; last != 0 && ev.Seq != last+1 {
		c.stage.fail("%s received event %d after %d", c.Name, ev.Seq, last)
	}
	if ev.Type != kind || ev.Conversation != conversation {
		c.stage.fail("%s received %s where %s was due", c.Name, ev.Type, kind)
	}
	c.last[conversation] = ev.Seq
	c.stage.heard[kind]++
	return ev
}

// Seen tells the client that it knows the conversation up to an event that it did not receive live.
func (c *Client) Seen(conversation string, seq int64) { c.last[conversation] = seq }

// Signal takes the first signal of the conversation that is of the type and fits.
func (c *Client) Signal(conversation, kind string, fits ...func(Signal) bool) Signal {
	var got Signal
	c.take("a "+kind+" signal", func(p publication) bool {
		got = Signal{}
		return p.topic == "conversations/"+conversation+"/signals" && json.Unmarshal(p.payload, &got) == nil &&
			got.Type == kind && all(got, fits)
	})
	c.stage.heard[kind]++
	return got
}

// Notice takes the first event of the inbox that is of the type and fits.
func (c *Client) Notice(kind string, fits ...func(Notice) bool) Notice {
	var got Notice
	c.take("a "+kind+" event in the inbox", func(p publication) bool {
		got = Notice{}
		return p.topic == "users/"+c.Username+"/inbox" && json.Unmarshal(p.payload, &got) == nil && got.Type == kind && all(got, fits)
	})
	c.stage.heard[kind]++
	return got
}

// Take takes the first publication on the topic that fits, and decodes it.
func Take[T any](c *Client, topic string, fits ...func(T) bool) T {
	var got T
	c.take("anything on "+topic, func(p publication) bool {
		var zero T
		got = zero
		return p.topic == topic && json.Unmarshal(p.payload, &got) == nil && all(got, fits)
	})
	return got
}

// Unread asks what the user has not read of the conversation.
func (c *Client) Unread(conversation string) Unread {
	var list struct {
		Unread []Unread `json:"unread"`
	}
	c.Command("getUnread", nil, &list)
	for _, u := range list.Unread {
		if u.Conversation == conversation {
			return u
		}
	}
	c.stage.fail("getUnread lacks %s", conversation)
	return Unread{}
}

// Untold ends the example if an event of the type waits in the inbox. What arrives there is in order: it would have come before
// what was taken from it last.
func (c *Client) Untold(kind, claim string) {
	_, told := c.first(func(p publication) bool {
		var n Notice
		return p.topic == "users/"+c.Username+"/inbox" && json.Unmarshal(p.payload, &n) == nil && n.Type == kind
	})
	c.stage.Check(!told, "%s", claim)
}

// Leave takes leave with a DISCONNECT. Sequenced events that the example did not tell of end it.
func (c *Client) Leave() {
	c.nothingLeft()
	c.stage.shown(c.Name, "▶", "DISCONNECT", nil)
	c.link.disconnect()
	c.forget()
}

// Cut breaks the connection without a word, as a tunnel does.
func (c *Client) Cut() {
	c.stage.shown(c.Name, "▶", "(the connection breaks)", nil)
	c.link.cut()
	c.forget()
}

// Ended waits for the gateway to end the connection.
func (c *Client) Ended() {
	ctx, cancel := context.WithTimeout(c.stage.ctx, patience)
	defer cancel()
	select {
	case <-c.link.done():
		c.stage.shown(c.Name, "◀", "(the gateway ends the connection)", nil)
	case <-ctx.Done():
		c.stage.fail("%s is still connected", c.Name)
	}
	c.forget()
}

// forget drops the client from those that must have taken all events in the end.
func (c *Client) forget() {
	c.stage.clients = slices.DeleteFunc(c.stage.clients, func(other *Client) bool { return other == c })
	c.close()
}

func (c *Client) close() { c.link.disconnect() }

func (c *Client) receive(p publication) {
	c.mu.Lock()
	c.arrived = append(c.arrived, p)
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// take waits for the first publication that fits, prints it, and gives it.
func (c *Client) take(what string, fits func(publication) bool) publication {
	ctx, cancel := context.WithTimeout(c.stage.ctx, patience)
	defer cancel()
	for {
		if p, ok := c.first(fits); ok {
			c.stage.shown(c.Name, "◀", p.topic, bytes.TrimSpace(p.payload))
			return p
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			c.stage.fail("%s received no %s; what else came:\n%s", c.Name, what, c.rest())
		}
	}
}

func (c *Client) first(fits func(publication) bool) (publication, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.arrived, fits)
	if i < 0 {
		return publication{}, false
	}
	p := c.arrived[i]
	c.arrived = slices.Delete(c.arrived, i, i+1)
	return p, true
}

func (c *Client) rest() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, p := range c.arrived {
		fmt.Fprintf(&b, "  %s %s\n", p.topic, p.payload)
	}
	return b.String()
}

// nothingLeft ends the example if sequenced events arrived that it did not tell of.
func (c *Client) nothingLeft() {
	if p, ok := c.first(func(p publication) bool { return strings.HasSuffix(p.topic, "/events") }); ok {
		c.stage.fail("%s also received %s %s", c.Name, p.topic, p.payload)
	}
}

func on(topic string) func(publication) bool {
	return func(p publication) bool { return p.topic == topic }
}

func all[T any](v T, fits []func(T) bool) bool {
	return !slices.ContainsFunc(fits, func(f func(T) bool) bool { return !f(v) })
}
