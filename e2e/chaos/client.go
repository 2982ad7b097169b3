package chaos

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// The types of the packets that a client reads.
const (
	KindConnack    = 2
	KindPublish    = 3
	KindPuback     = 4
	KindSuback     = 9
	KindPingresp   = 13
	KindDisconnect = 14
)

const (
	typeConnect    = 1
	typeSubscribe  = 8
	typePingreq    = 12
	propExpiry     = 0x11
	propReceiveMax = 0x21
	propReason     = 0x1f
	propUser       = 0x26
	propLargest    = 0x27
)

// Forever is the Session Expiry Interval of a session that does not expire.
const Forever = 0xFFFFFFFF

// Login says how a client connects.
type Login struct {
	Version                byte // 4 or 5
	User, Password, Device string
	// Clean is Clean Session or Clean Start.
	Clean bool
	// MQTT 5: how long the session outlives the connection, in seconds; how many deliveries may be unacknowledged and how
	// large a packet may be, 0: as the server likes; and user properties.
	Expiry     uint32
	Window     uint16
	Largest    uint32
	Properties map[string]string
}

// Client is an MQTT client that leaves every decision to its caller: when to read, what to acknowledge and when. One
// goroutine reads; any may write.
type Client struct {
	Version byte
	// Present is Session Present of the CONNACK.
	Present bool

	conn net.Conn
	in   *bufio.Reader
	mu   sync.Mutex
}

// Packet is what a client has read.
type Packet struct {
	Kind    byte
	QoS     byte
	ID      uint16
	Reason  byte
	Topic   string
	Payload []byte
	// User are the user properties.
	User map[string]string
}

// ErrNoConnack says that the first packet of the gateway was something else.
var ErrNoConnack = errors.New("no CONNACK came")

// RefusedError is a CONNACK that refuses.
type RefusedError struct{ Reason byte }

func (e *RefusedError) Error() string { return fmt.Sprintf("CONNACK 0x%02x", e.Reason) }

// Dial connects a client and waits for its CONNACK.
func Dial(ctx context.Context, address string, l Login) (*Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c := &Client{Version: l.Version, conn: conn, in: bufio.NewReader(conn)}
	if err := c.write(connectPacket(&l)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p, present, err := c.readAny()
	switch {
	case err != nil:
	case p.Kind != KindConnack:
		err = fmt.Errorf("%w, but a packet of type %d", ErrNoConnack, p.Kind)
	case p.Reason != 0:
		err = &RefusedError{p.Reason}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c.Present = present
	return c, nil
}

func text(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func frame(first byte, body []byte) []byte {
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

func connectPacket(l *Login) []byte {
	flags := byte(0xc0)
	if l.Clean {
		flags |= 2
	}
	b := append(text(nil, "MQTT"), l.Version, flags, 0, 60)
	if l.Version == 5 {
		var props []byte
		if l.Expiry > 0 {
			props = binary.BigEndian.AppendUint32(append(props, propExpiry), l.Expiry)
		}
		if l.Window > 0 {
			props = binary.BigEndian.AppendUint16(append(props, propReceiveMax), l.Window)
		}
		if l.Largest > 0 {
			props = binary.BigEndian.AppendUint32(append(props, propLargest), l.Largest)
		}
		for name, value := range l.Properties {
			props = text(text(append(props, propUser), name), value)
		}
		b = append(binary.AppendUvarint(b, uint64(len(props))), props...)
	}
	return frame(typeConnect<<4, text(text(text(b, l.Device), l.User), l.Password))
}

// Subscribe asks for a filter; the answer is to be read.
func (c *Client) Subscribe(id uint16, filter string, qos byte) error {
	b := binary.BigEndian.AppendUint16(nil, id)
	if c.Version == 5 {
		b = append(b, 0)
	}
	return c.write(frame(typeSubscribe<<4|2, append(text(b, filter), qos)))
}

// Publish publishes with QoS 1; the answer is to be read.
func (c *Client) Publish(id uint16, topic string, payload []byte, again bool) error {
	b := binary.BigEndian.AppendUint16(text(nil, topic), id)
	if c.Version == 5 {
		b = append(b, 0)
	}
	first := byte(KindPublish<<4 | 2)
	if again {
		first |= 8
	}
	return c.write(frame(first, append(b, payload...)))
}

// Ack acknowledges deliveries.
func (c *Client) Ack(ids ...uint16) error {
	var b []byte
	for _, id := range ids {
		b = binary.BigEndian.AppendUint16(append(b, KindPuback<<4, 2), id)
	}
	return c.write(b)
}

// Ping asks for a sign of life: once it is answered, what was written before has been handled.
func (c *Client) Ping() error { return c.write([]byte{typePingreq << 4, 0}) }

// Leave takes leave, and returns when the gateway has closed the connection: then it has handled all that was written.
func (c *Client) Leave() error { return c.leave([]byte{KindDisconnect << 4, 0}) }

// LeaveFor is Leave with another Session Expiry Interval, in seconds (MQTT 5).
func (c *Client) LeaveFor(expiry uint32) error {
	return c.leave(frame(KindDisconnect<<4, binary.BigEndian.AppendUint32([]byte{0, 5, propExpiry}, expiry)))
}

func (c *Client) leave(packet []byte) error {
	defer c.Cut()
	if err := c.write(packet); err != nil {
		return err
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err := io.Copy(io.Discard, c.in)
	return err
}

// Cut breaks the connection without a word.
func (c *Client) Cut() {
	if tcp, ok := c.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.conn.Close()
}

// SetReadDeadline bounds the next reads.
func (c *Client) SetReadDeadline(t time.Time) { _ = c.conn.SetReadDeadline(t) }

func (c *Client) write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(30 * time.Second))
	_, err := c.conn.Write(b)
	return err
}

// Read waits for the next packet.
func (c *Client) Read() (Packet, error) {
	p, _, err := c.readAny()
	return p, err
}

// Buffered tells whether Read would give something at once.
func (c *Client) Buffered() bool { return c.in.Buffered() > 0 }

func (c *Client) readAny() (p Packet, present bool, err error) {
	first, err := c.in.ReadByte()
	if err != nil {
		return p, false, err
	}
	length, err := binary.ReadUvarint(c.in)
	if err != nil {
		return p, false, err
	}
	if length > 1<<28 {
		return p, false, errors.New("a packet of an impossible length")
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return p, false, err
	}
	r := fields{b: body}
	p.Kind, p.QoS = first>>4, first>>1&3
	switch p.Kind {
	case KindConnack:
		present = r.number(1) == 1
		p.Reason = byte(r.number(1))
	case KindPublish:
		p.Topic = string(r.take(r.number(2)))
		if p.QoS > 0 {
			p.ID = uint16(r.number(2))
		}
		if c.Version == 5 {
			r.take(r.varint())
		}
		p.Payload = r.b
	case KindPuback:
		p.ID = uint16(r.number(2))
		if len(r.b) > 0 {
			p.Reason = byte(r.number(1))
		}
		if len(r.b) > 0 {
			p.User = r.userProperties()
		}
	case KindSuback:
		p.ID = uint16(r.number(2))
		if c.Version == 5 {
			r.take(r.varint())
		}
		p.Reason = byte(r.number(1))
	case KindDisconnect:
		if len(r.b) > 0 {
			p.Reason = byte(r.number(1))
		}
	}
	if r.failed {
		return p, present, fmt.Errorf("a malformed packet of type %d", p.Kind)
	}
	return p, present, nil
}

// fields takes a packet's body apart.
type fields struct {
	b      []byte
	failed bool
}

func (r *fields) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.failed, n = true, len(r.b)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *fields) number(n int) int {
	v := 0
	for _, b := range r.take(n) {
		v = v<<8 | int(b)
	}
	return v
}

func (r *fields) varint() int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<28 {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// userProperties reads the properties of a PUBACK: a reason string and user properties.
func (r *fields) userProperties() map[string]string {
	in := fields{b: r.take(r.varint())}
	m := make(map[string]string)
	for len(in.b) > 0 && !in.failed {
		switch in.number(1) {
		case propReason:
			in.take(in.number(2))
		case propUser:
			name := string(in.take(in.number(2)))
			m[name] = string(in.take(in.number(2)))
		default:
			in.failed = true
		}
	}
	r.failed = r.failed || in.failed
	return m
}

// Seq gives the number that the acknowledgement of a message tells (MQTT 5), else 0.
func (p *Packet) Seq() int64 {
	n, _ := strconv.ParseInt(p.User["seq"], 10, 64)
	return n
}
