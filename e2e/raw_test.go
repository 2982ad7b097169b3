package e2e_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// The packet types of MQTT.
const (
	typeConnect = iota + 1
	typeConnack
	typePublish
	typePuback
	typePubrec
	typePubrel
	typePubcomp
	typeSubscribe
	typeSuback
	typeUnsubscribe
	typeUnsuback
	typePingreq
	typePingresp
	typeDisconnect
)

// raw is a client that writes and reads packets one by one, for what libraries hide.
type raw struct {
	conn    net.Conn
	in      *bufio.Reader
	version byte
	hello   packet
}

// packet is a packet as it was read.
type packet struct {
	kind, flags byte
	id          uint16
	reason      byte
	codes       []byte // of SUBACK
	topic       string
	payload     []byte
	props       properties
	present     bool
}

func (p packet) qos() byte { return p.flags >> 1 & 3 }

// properties are those of MQTT 5 that tests look at.
type properties struct {
	numbers map[byte]uint32
	texts   map[byte]string
	user    map[string]string
}

func (p properties) reasonString() string { return p.texts[0x1f] }

// rawDial opens a connection without a CONNECT.
func (g *gateway) rawDial(tb testing.TB, version byte) *raw {
	tb.Helper()
	conn, err := g.dial(tb.Context(), dialing{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return &raw{conn: conn, in: bufio.NewReader(conn), version: version}
}

// rawConnect logs in.
func (g *gateway) rawConnect(tb testing.TB, u user, version byte, options ...dialOption) *raw {
	tb.Helper()
	r := g.rawDial(tb, version)
	d := dialing{username: u.Name, password: u.password, id: fmt.Sprintf("raw-%d", devices.Add(1))}
	for _, o := range options {
		o(&d)
	}
	r.write(tb, r.connectPacket(d))
	r.hello = r.read(tb)
	if r.hello.kind != typeConnack || r.hello.reason != 0 {
		tb.Fatalf("CONNACK: %+v", r.hello)
	}
	return r
}

func str(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func varint(b []byte, n int) []byte {
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func frame(first byte, body []byte) []byte { return append(varint([]byte{first}, len(body)), body...) }

func either(b, otherwise byte) byte {
	if b == 0 {
		return otherwise
	}
	return b
}

func (r *raw) connectPacket(d dialing) []byte {
	flags := byte(0xc0)
	if !d.durable {
		flags |= 2
	}
	if d.will != nil {
		flags |= 4 | d.will.qos<<3
	}
	b := append(str(nil, "MQTT"), r.version, flags, 0, either(d.keepAlive, 60))
	if r.version == 5 {
		var props []byte
		if d.window > 0 {
			props = binary.BigEndian.AppendUint16(append(props, 0x21), d.window)
		}
		if d.largest > 0 {
			props = binary.BigEndian.AppendUint32(append(props, 0x27), d.largest)
		}
		if d.askResponse {
			props = append(props, 0x19, 1)
		}
		for name, value := range d.user {
			props = str(str(append(props, 0x26), name), value)
		}
		b = append(varint(b, len(props)), props...)
	}
	b = str(b, d.id)
	if d.will != nil {
		if r.version == 5 {
			props := binary.BigEndian.AppendUint32([]byte{0x18}, d.willDelay)
			for id, value := range map[byte]string{0x03: d.will.contentType, 0x08: d.will.responseTo, 0x09: string(d.will.correlation)} {
				if value != "" {
					props = str(append(props, id), value)
				}
			}
			b = append(varint(b, len(props)), props...)
		}
		b = str(str(b, d.will.topic), string(d.will.payload))
	}
	b = str(str(b, d.username), d.password)
	return frame(typeConnect<<4, b)
}

// publishPacket makes a PUBLISH; props are encoded already.
func (r *raw) publishPacket(topic string, payload []byte, qos byte, id uint16, props ...byte) []byte {
	b := str(nil, topic)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	if r.version == 5 {
		b = append(varint(b, len(props)), props...)
	}
	return frame(typePublish<<4|qos<<1, append(b, payload...))
}

// filter is an entry of a SUBSCRIBE; options as in the packet.
type filter struct {
	name    string
	options byte
}

const noLocal = 4

func (r *raw) subscribePacket(id uint16, filters ...filter) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	if r.version == 5 {
		b = append(b, 0)
	}
	for _, f := range filters {
		b = append(str(b, f.name), f.options)
	}
	return frame(typeSubscribe<<4|2, b)
}

func ackPacket(kind byte, id uint16) []byte {
	first := kind << 4
	if kind == typePubrel {
		first |= 2
	}
	return binary.BigEndian.AppendUint16([]byte{first, 2}, id)
}

func (r *raw) write(tb testing.TB, packets ...[]byte) {
	tb.Helper()
	for _, p := range packets {
		_ = r.conn.SetWriteDeadline(time.Now().Add(patience))
		if _, err := r.conn.Write(p); err != nil {
			tb.Fatalf("writing: %v", err)
		}
	}
}

// read waits for the next packet.
func (r *raw) read(tb testing.TB) packet {
	tb.Helper()
	p, err := r.tryRead()
	if err != nil {
		tb.Fatalf("reading: %v", err)
	}
	return p
}

// expect waits for the next packet, which must be of the type.
func (r *raw) expect(tb testing.TB, kind byte) packet {
	tb.Helper()
	p := r.read(tb)
	if p.kind != kind {
		tb.Fatalf("a packet of type %d came where %d was due: %+v", p.kind, kind, p)
	}
	return p
}

// event waits for the next packet, which must be the delivery of an event.
func (r *raw) event(tb testing.TB) (event, packet) {
	tb.Helper()
	p := r.expect(tb, typePublish)
	ev := event{raw: p.payload}
	mustDecode(tb, p.payload, &ev)
	return ev, p
}

// subscribe subscribes to filters that must be granted.
func (r *raw) subscribe(tb testing.TB, filters ...filter) {
	tb.Helper()
	r.write(tb, r.subscribePacket(1, filters...))
	for i, code := range r.expect(tb, typeSuback).codes {
		if code > 1 {
			tb.Fatalf("SUBACK 0x%02x to %s", code, filters[i].name)
		}
	}
}

// ping makes a round trip: what the gateway answered before has arrived after it.
func (r *raw) ping(tb testing.TB) {
	tb.Helper()
	r.write(tb, []byte{typePingreq << 4, 0})
	r.expect(tb, typePingresp)
}

func (r *raw) tryRead() (packet, error) {
	_ = r.conn.SetReadDeadline(time.Now().Add(patience))
	first, err := r.in.ReadByte()
	if err != nil {
		return packet{}, err
	}
	length, err := binary.ReadUvarint(r.in)
	if err != nil {
		return packet{}, err
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r.in, body); err != nil {
		return packet{}, err
	}
	return decode(r.version, first, body)
}

// reader takes a packet's body apart.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.failed, n = true, len(r.b)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint(n int) uint32 {
	v := uint32(0)
	for _, b := range r.take(n) {
		v = v<<8 | uint32(b)
	}
	return v
}

func (r *reader) text() string { return string(r.take(int(r.uint(2)))) }

func (r *reader) varint() int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *reader) properties() properties {
	p := properties{numbers: map[byte]uint32{}, texts: map[byte]string{}, user: map[string]string{}}
	in := reader{b: r.take(r.varint())}
	for len(in.b) > 0 && !in.failed {
		switch id := byte(in.uint(1)); id {
		case 0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2a:
			p.numbers[id] = in.uint(1)
		case 0x13, 0x21, 0x22, 0x23:
			p.numbers[id] = in.uint(2)
		case 0x02, 0x11, 0x18, 0x27:
			p.numbers[id] = in.uint(4)
		case 0x0b:
			p.numbers[id] = uint32(in.varint())
		case 0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1a, 0x1c, 0x1f:
			p.texts[id] = in.text()
		case 0x26:
			name := in.text()
			p.user[name] = in.text()
		default:
			in.failed = true
		}
	}
	r.failed = r.failed || in.failed
	return p
}

func decode(version, first byte, body []byte) (packet, error) {
	p := packet{kind: first >> 4, flags: first & 15}
	r := reader{b: body}
	switch p.kind {
	case typeConnack:
		p.present = r.uint(1) == 1
		p.reason = byte(r.uint(1))
		if version == 5 {
			p.props = r.properties()
		}
	case typePublish:
		p.topic = r.text()
		if p.qos() > 0 {
			p.id = uint16(r.uint(2))
		}
		if version == 5 {
			p.props = r.properties()
		}
		p.payload = r.b
	case typePuback, typePubrec, typePubrel, typePubcomp:
		p.id = uint16(r.uint(2))
		if len(r.b) > 0 {
			p.reason = byte(r.uint(1))
		}
		if len(r.b) > 0 {
			p.props = r.properties()
		}
	case typeSuback, typeUnsuback:
		p.id = uint16(r.uint(2))
		if version == 5 {
			p.props = r.properties()
		}
		p.codes = r.b
	case typeDisconnect:
		if len(r.b) > 0 {
			p.reason = byte(r.uint(1))
		}
		if len(r.b) > 0 {
			p.props = r.properties()
		}
	case typePingresp:
	default:
		return p, fmt.Errorf("a server does not send packets of type %d", p.kind)
	}
	if r.failed {
		return p, errors.New("malformed packet")
	}
	return p, nil
}
