package broker

import (
	"encoding/binary"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// Property identifiers of MQTT 5, section 2.2.2.2, in what is encoded here.
const (
	propCorrelation  = 0x09
	propSubscription = 0x0b
	propReason       = 0x1f
)

// publishSize gives the size of appendPublish's packet in bytes.
func publishSize(version byte, d *domain.Delivery) int {
	body, _ := publishBody(version, d)
	return 1 + varintSize(body) + body
}

// publishBody gives the remaining length of a PUBLISH, and that of its properties.
func publishBody(version byte, d *domain.Delivery) (body, props int) {
	body = 2 + len(d.Publication.Topic) + len(d.Publication.Payload)
	if d.QoS > 0 {
		body += 2
	}
	if version < 5 {
		return body, 0
	}
	if d.Publication.Correlation != nil {
		props += 3 + len(d.Publication.Correlation)
	}
	for _, id := range d.Identifiers {
		props += 1 + varintSize(id)
	}
	return body + varintSize(props) + props, props
}

// appendPublish encodes a delivery. The packet id is for QoS 1.
func appendPublish(b []byte, version byte, d *domain.Delivery, id uint16) []byte {
	p := d.Publication
	body, props := publishBody(version, d)
	first := packets.Publish<<4 | d.QoS<<1
	if d.Retain {
		first |= 1
	}
	b = appendVarint(append(b, first), body)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(p.Topic))), p.Topic...)
	if d.QoS > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	if version >= 5 {
		b = appendVarint(b, props)
		if p.Correlation != nil {
			b = binary.BigEndian.AppendUint16(append(b, propCorrelation), uint16(len(p.Correlation)))
			b = append(b, p.Correlation...)
		}
		for _, id := range d.Identifiers {
			b = appendVarint(append(b, propSubscription), id)
		}
	}
	return append(b, p.Payload...)
}

// appendDisconnect encodes a DISCONNECT of MQTT 5. The reason string is left out if the packet would be larger than the
// client takes.
func appendDisconnect(b []byte, why domain.Farewell, largest int) []byte {
	props := 3 + len(why.Text)
	if body := 1 + varintSize(props) + props; why.Text == "" || largest > 0 && 1+varintSize(body)+body > largest {
		return append(b, packets.Disconnect<<4, 1, why.Reason)
	}
	b = appendVarint(append(b, packets.Disconnect<<4), 1+varintSize(props)+props)
	b = appendVarint(append(b, why.Reason), props)
	b = binary.BigEndian.AppendUint16(append(b, propReason), uint16(len(why.Text)))
	return append(b, why.Text...)
}

func varintSize(n int) int {
	size := 1
	for ; n > 127; n >>= 7 {
		size++
	}
	return size
}

func appendVarint(b []byte, n int) []byte {
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
