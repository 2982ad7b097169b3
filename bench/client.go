package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// client is a lean MQTT 3.1.1 client for load: one goroutine, which reads, acknowledges what it receives, and sends
// the next message when one of its own was acknowledged.
type client struct {
	conn net.Conn
	r    *bufio.Reader

	mu      sync.Mutex
	out     []byte
	nextID  uint16
	sentAt  map[uint16]time.Time
	topic   string
	payload []byte

	// delivered counts publishes received; acked own publishes acknowledged.
	delivered *atomic.Int64
	acked     *atomic.Int64
	// onAck, if set, gets the time from the due instant of a publish to its acknowledgement.
	onAck func(time.Duration)
	// onEvent, if set, gets the payload of every publish received; it is good until onEvent returns.
	onEvent func(payload []byte)
	// refill makes every acknowledgement cause the next publish.
	refill atomic.Bool
}

var errProtocol = errors.New("bench: unexpected packet")

// dial connects, logs in with a clean session and subscribes at QoS 1 to the filters.
func dial(ctx context.Context, addr, clientID, username, password string, filters ...string) (*client, error) {
	return dialWith(ctx, addr, clientID, username, password, 0x02, filters)
}

// dialDurable does the same with a session that outlives the connection.
func dialDurable(ctx context.Context, addr, clientID, username, password string, filters ...string) (*client, error) {
	return dialWith(ctx, addr, clientID, username, password, 0, filters)
}

func dialWith(
	ctx context.Context, addr, clientID, username, password string, flags byte, filters []string,
) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &client{
		conn: conn, r: bufio.NewReaderSize(conn, 4096), sentAt: make(map[uint16]time.Time),
		delivered: new(atomic.Int64), acked: new(atomic.Int64),
	}
	if err := c.login(clientID, username, password, flags, filters); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

func (c *client) login(clientID, username, password string, flags byte, filters []string) error {
	body := appendString(nil, "MQTT")
	if username != "" {
		flags |= 0xc0
	}
	body = append(body, 4, flags, 0, 0)
	body = appendString(body, clientID)
	if username != "" {
		body = appendString(appendString(body, username), password)
	}
	if _, err := c.conn.Write(packet(0x10, body)); err != nil {
		return err
	}
	first, answer, err := c.read()
	if err != nil {
		return err
	}
	if first != 0x20 || len(answer) != 2 || answer[1] != 0 {
		return fmt.Errorf("login of %s refused: % x", clientID, answer)
	}
	if len(filters) == 0 {
		return nil
	}
	body = []byte{0, 1}
	for _, f := range filters {
		body = append(appendString(body, f), 1)
	}
	if _, err := c.conn.Write(packet(0x82, body)); err != nil {
		return err
	}
	first, answer, err = c.read()
	if err != nil {
		return err
	}
	for _, code := range answer[min(2, len(answer)):] {
		if first != 0x90 || code > 2 {
			return fmt.Errorf("subscription of %s refused: % x", clientID, answer)
		}
	}
	return nil
}

// publish queues a message at QoS 1 that was due at the given time. flush sends it.
func (c *client) publish(topic string, payload []byte, due time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	if c.nextID == 0 {
		c.nextID = 1
	}
	c.sentAt[c.nextID] = due
	size := 2 + len(topic) + 2 + len(payload)
	c.out = append(c.out, 0x32)
	c.out = appendLength(c.out, size)
	c.out = appendString(c.out, topic)
	c.out = binary.BigEndian.AppendUint16(c.out, c.nextID)
	c.out = append(c.out, payload...)
}

func (c *client) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// run reads until the connection ends.
func (c *client) run() error {
	for {
		first, body, err := c.read()
		if err != nil {
			return err
		}
		switch first & 0xf0 {
		case 0x30:
			c.delivered.Add(1)
			n := 2 + int(binary.BigEndian.Uint16(body))
			if first&0x06 != 0 {
				c.mu.Lock()
				c.out = append(c.out, 0x40, 2, body[n], body[n+1])
				c.mu.Unlock()
				n += 2
			}
			if c.onEvent != nil {
				c.onEvent(body[n:])
			}
		case 0x40:
			c.acknowledged(binary.BigEndian.Uint16(body))
		}
		if c.r.Buffered() == 0 {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
}

func (c *client) acknowledged(id uint16) {
	c.mu.Lock()
	due := c.sentAt[id]
	delete(c.sentAt, id)
	c.mu.Unlock()
	c.acked.Add(1)
	if c.onAck != nil {
		c.onAck(time.Since(due))
	}
	if c.refill.Load() {
		c.publish(c.topic, c.payload, time.Now())
	}
}

// read gives the next packet; its body is good until the next call.
func (c *client) read() (first byte, body []byte, err error) {
	if first, err = c.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, shift := 0, 0
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		n |= int(b&0x7f) << shift
		if shift += 7; b < 0x80 {
			break
		}
		if shift > 21 {
			return 0, nil, errProtocol
		}
	}
	if n <= c.r.Size() {
		// Peek keeps an idle client from holding a buffer per packet.
		if body, err = c.r.Peek(n); err != nil {
			return 0, nil, err
		}
		_, err = c.r.Discard(n)
		return first, body, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.r, body)
	return first, body, err
}

func (c *client) close() error { return c.conn.Close() }

// leave takes leave as MQTT wants it, and waits until the gateway has hung up.
func (c *client) leave() error {
	if _, err := c.conn.Write([]byte{0xe0, 0}); err != nil {
		return err
	}
	_, _, err := c.read()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, c.conn.Close())
}

func packet(first byte, body []byte) []byte {
	return append(appendLength([]byte{first}, len(body)), body...)
}

func appendLength(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func appendString(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}
