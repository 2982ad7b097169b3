package broker_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

type client struct {
	net.Conn
	tb      testing.TB
	r       *bufio.Reader
	version byte
}

type hi struct {
	version   byte
	user      string
	device    string
	password  string
	keepAlive uint16
	durable   bool
	props     packets.Properties
	change    func(*packets.Packet)
	readBuf   int
}

const (
	alice = "alice@chat.acme"
	bob   = "bob@chat.acme"
)

func (r *rig) dial(tb testing.TB, readBuf int) net.Conn {
	tb.Helper()
	conn, err := net.DialTimeout("tcp", r.addr, patience)
	if err != nil {
		tb.Fatal(err)
	}
	if readBuf > 0 {
		if err := conn.(*net.TCPConn).SetReadBuffer(readBuf); err != nil {
			tb.Fatal(err)
		}
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (r *rig) connect(tb testing.TB, o hi) *client {
	tb.Helper()
	c, ack := r.try(tb, o)
	if ack.FixedHeader.Type != packets.Connack || ack.ReasonCode != 0 {
		tb.Fatalf("CONNACK: %s", show(ack))
	}
	return c
}

func (r *rig) try(tb testing.TB, o hi) (*client, packets.Packet) {
	tb.Helper()
	c := r.open(tb, o)
	return c, c.recv()
}

func (r *rig) open(tb testing.TB, o hi) *client {
	tb.Helper()
	if o.version == 0 {
		o.version = 5
	}
	if o.user == "" {
		o.user = alice
	}
	if o.password == "" {
		o.password = "good"
	}
	conn := r.dial(tb, o.readBuf)
	c := &client{Conn: conn, tb: tb, r: bufio.NewReader(conn), version: o.version}
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connect}, Properties: o.props,
		Connect: packets.ConnectParams{
			ProtocolName: []byte("MQTT"), Clean: !o.durable, ClientIdentifier: o.device, Keepalive: o.keepAlive,
			UsernameFlag: true, Username: []byte(o.user), PasswordFlag: true, Password: []byte(o.password),
		},
	}
	if o.change != nil {
		o.change(&pk)
	}
	c.send(pk)
	return c
}

func (c *client) send(pk packets.Packet) {
	c.tb.Helper()
	if err := c.trySend(pk); err != nil {
		c.tb.Fatal(err)
	}
}

func (c *client) trySend(pk packets.Packet) error {
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.Write(encoded(c.tb, c.version, pk))
	return err
}

func encoded(tb testing.TB, version byte, pk packets.Packet) []byte {
	tb.Helper()
	if pk.ProtocolVersion == 0 {
		pk.ProtocolVersion = version
	}
	pk.Mods.AllowResponseInfo = true
	var b bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connect:
		err = pk.ConnectEncode(&b)
	case packets.Publish:
		err = pk.PublishEncode(&b)
	case packets.Puback, packets.Pubrec, packets.Pubcomp:
		err = pk.PubackEncode(&b)
	case packets.Pubrel:
		pk.FixedHeader.Qos = 1
		err = pk.PubackEncode(&b)
	case packets.Subscribe:
		pk.FixedHeader.Qos = 1
		err = pk.SubscribeEncode(&b)
	case packets.Unsubscribe:
		pk.FixedHeader.Qos = 1
		err = pk.UnsubscribeEncode(&b)
	case packets.Pingreq:
		err = pk.PingreqEncode(&b)
	case packets.Disconnect:
		err = pk.DisconnectEncode(&b)
	case packets.Auth:
		err = pk.AuthEncode(&b)
	default:
		err = fmt.Errorf("type %d", pk.FixedHeader.Type)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func (c *client) raw(b ...byte) {
	c.tb.Helper()
	if _, err := c.Write(b); err != nil {
		c.tb.Fatal(err)
	}
}

func (c *client) recv() packets.Packet {
	c.tb.Helper()
	pk, err := c.tryRecv(patience)
	switch {
	case errors.Is(err, io.EOF):
		return packets.Packet{}
	case err != nil:
		c.tb.Fatalf("receive: %v", err)
	}
	return pk
}

func (c *client) quiet() {
	c.tb.Helper()
	var timeout net.Error
	if pk, err := c.tryRecv(silence); !errors.As(err, &timeout) || !timeout.Timeout() {
		c.tb.Fatalf("expected nothing, got %s (%v)", show(pk), err)
	}
}

func (c *client) ended() {
	c.tb.Helper()
	if pk, err := c.tryRecv(patience); err == nil || errors.Is(err, errGarbage) {
		c.tb.Fatalf("expected the end, got %s (%v)", show(pk), err)
	}
	_ = c.Close()
}

var errGarbage = errors.New("not a packet")

func (c *client) tryRecv(timeout time.Duration) (packets.Packet, error) {
	_ = c.SetReadDeadline(time.Now().Add(timeout))
	pk := packets.Packet{ProtocolVersion: c.version}
	b, err := c.r.ReadByte()
	if err != nil {
		return pk, err
	}
	fh := packets.FixedHeader{Type: b >> 4, Dup: b&8 > 0, Qos: b >> 1 & 3, Retain: b&1 > 0}
	if fh.Remaining, _, err = packets.DecodeLength(c.r); err != nil {
		return pk, errors.Join(errGarbage, err)
	}
	pk.FixedHeader = fh
	buf := make([]byte, fh.Remaining)
	if _, err := io.ReadFull(c.r, buf); err != nil {
		return pk, err
	}
	switch fh.Type {
	case packets.Connack:
		err = pk.ConnackDecode(buf)
	case packets.Publish:
		err = pk.PublishDecode(buf)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		err = pk.PubackDecode(buf)
	case packets.Suback:
		err = pk.SubackDecode(buf)
	case packets.Unsuback:
		err = pk.UnsubackDecode(buf)
	case packets.Pingresp:
	case packets.Disconnect:
		if c.version < 5 {
			err = errors.New("a DISCONNECT from a server of MQTT 3.1.1")
		} else if err = pk.DisconnectDecode(buf); fh.Remaining == 1 {
			pk.ReasonCode = buf[0]
		}
	default:
		err = fmt.Errorf("type %d", fh.Type)
	}
	if err != nil {
		return pk, errors.Join(errGarbage, err)
	}
	return pk, nil
}

func (c *client) expect(kind byte) packets.Packet {
	c.tb.Helper()
	pk := c.recv()
	if pk.FixedHeader.Type != kind {
		c.tb.Fatalf("expected %s, got %s", packets.PacketNames[kind], show(pk))
	}
	return pk
}

func (c *client) subscribe(filters ...string) packets.Packet {
	c.tb.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f, Qos: 1})
	}
	c.send(pk)
	return c.expect(packets.Suback)
}

func (c *client) ping() {
	c.tb.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.expect(packets.Pingresp)
}

const (
	hallway = "conversations/0190b6c4-0000-7000-8000-000000000001/messages"
	events  = "conversations/0190b6c4-0000-7000-8000-000000000001/events"
)

func pub(topic, payload string, qos byte, id uint16) packets.Packet {
	return packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos},
		TopicName:   topic, Payload: []byte(payload), PacketID: id,
	}
}

func message(text string, qos byte, id uint16) packets.Packet {
	return pub(hallway, fmt.Sprintf(`{"text":%q}`, text), qos, id)
}

func ackOf(kind byte, id uint16) packets.Packet {
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, PacketID: id}
}

func property(pk packets.Packet, key string) string {
	for _, p := range pk.Properties.User {
		if p.Key == key {
			return p.Val
		}
	}
	return ""
}

func show(pk packets.Packet) string {
	if pk.FixedHeader.Type == 0 {
		return "the end of the connection"
	}
	return fmt.Sprintf("%s id=%d reason=%#02x %q codes=%x topic=%q user=%v", packets.PacketNames[pk.FixedHeader.Type], pk.PacketID,
		pk.ReasonCode, pk.Properties.ReasonString, pk.ReasonCodes, pk.TopicName, pk.Properties.User)
}
