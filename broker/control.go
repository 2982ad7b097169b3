package broker

import (
	"context"
	"errors"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/mempool"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// ConnOf gives the connection of a client, nil if it has none here.
func ConnOf(cl *mqtt.Client) *Conn {
	s, ok := cl.Net.Conn.(*socket)
	if !ok {
		return nil
	}
	return (*Conn)(s)
}

// Send queues an acknowledgement: PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK or UNSUBACK. Packets go out in the order of
// the calls, before any delivery that is pulled later. Properties are left out where the client does not want them or
// could not take the packet for them. It does not block; a client that has gone does not get it.
func (s *Server) Send(cl *mqtt.Client, pk packets.Packet) {
	c := ConnOf(cl)
	if c == nil {
		return
	}
	pk.ProtocolVersion = cl.Properties.ProtocolVersion
	if plain(&pk) {
		_ = c.queue([]byte{pk.FixedHeader.Type<<4 | pk.FixedHeader.Qos<<1, 2, byte(pk.PacketID >> 8), byte(pk.PacketID)})
		return
	}
	props := &cl.Properties.Props
	pk.Mods = packets.Mods{
		MaxSize:             props.MaximumPacketSize,
		DisallowProblemInfo: props.RequestProblemInfoFlag && props.RequestProblemInfo == 0,
	}
	buf := mempool.GetBuffer()
	defer mempool.PutBuffer(buf)
	var err error
	switch pk.FixedHeader.Type {
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		err = pk.PubackEncode(buf) // the four have one form
	case packets.Suback:
		err = pk.SubackEncode(buf)
	case packets.Unsuback:
		err = pk.UnsubackEncode(buf)
	default:
		err = errors.New("not an acknowledgement")
	}
	if err != nil {
		s.log.Error("cannot encode a packet", "type", packets.PacketNames[pk.FixedHeader.Type], "error", err)
		return
	}
	_ = c.queue(buf.Bytes())
}

// plain tells whether an acknowledgement consists of its packet id alone.
func plain(pk *packets.Packet) bool {
	switch pk.FixedHeader.Type {
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		p := &pk.Properties
		return pk.ProtocolVersion < 5 || pk.ReasonCode == 0 && p.ReasonString == "" && len(p.User) == 0
	}
	return false
}

// Acked takes a PUBACK of the client for one of its deliveries, whose slot in the window it frees, whatever the reason
// code. One for an unknown packet id does nothing. It does not block.
func (s *Server) Acked(cl *mqtt.Client, packetID uint16, _ byte) {
	if c := ConnOf(cl); c != nil {
		c.acked(packetID)
	}
}

// End ends a client's connection like [Conn.Close].
func (s *Server) End(cl *mqtt.Client, why domain.Farewell) {
	if c := ConnOf(cl); c != nil {
		c.Close(why)
	}
}

// Context gives a context that ends with the client's connection.
func (s *Server) Context(cl *mqtt.Client) context.Context {
	if c := ConnOf(cl); c != nil {
		return c.ctx
	}
	return context.Background()
}

// LastByte gives the last byte that was received from the client. It is for the goroutine that handles the client's
// packets.
func (s *Server) LastByte(cl *mqtt.Client) byte {
	if c := ConnOf(cl); c != nil {
		return c.last
	}
	return 0
}
