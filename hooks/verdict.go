package hooks

import (
	"strconv"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// This file decides what a client is told, by version and QoS:
//
//	outcome       MQTT 5, QoS 1 and 2                MQTT 3.1.1, QoS 1 and 2          QoS 0
//	done          PUBACK/PUBREC 0x00, properties     PUBACK/PUBREC                    nothing
//	unavailable   PUBACK/PUBREC 0x88                 nothing, the connection ends     nothing
//	refused       PUBACK/PUBREC of the code          PUBACK/PUBREC                    nothing
//
// A client of 3.1.1 that gets no acknowledgement repeats its publish when it has connected again, which is wanted if
// Parley could not, and would go on for ever if it may not. The gateway tells it of refusals by an error event.

// verdict is the answer to a publish.
type verdict struct {
	// packet is the type of the acknowledgement; 0: none.
	packet byte
	reason byte
	// text and detail explain a refusal to clients of MQTT 5.
	text, detail string
	// end: the connection ends instead.
	end bool
}

// judge decides about the answer to a publish with the given outcome.
func judge(version, qos byte, err error) verdict {
	e := domain.AsError(err)
	v := verdict{packet: packets.Puback}
	switch qos {
	case 0:
		return verdict{}
	case 2:
		v.packet = packets.Pubrec
	}
	switch {
	case e == nil:
	case version >= 5:
		v.reason, v.text, v.detail = e.Code.Info().Reason, string(e.Code), e.Detail
	case e.Code == domain.Unavailable:
		return verdict{end: true}
	}
	return v
}

// completes tells whether a PUBREL is to be expected: a refusal ends the exchange of a QoS 2 publish ([MQTT-4.3.3-4]).
func (v verdict) completes() bool {
	return v.packet == packets.Pubrec && v.reason < packets.ErrUnspecifiedError.Code
}

// ack makes the acknowledgement.
func (v verdict) ack(version byte, id uint16, r *domain.Receipt) packets.Packet {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: v.packet}, PacketID: id}
	if version < 5 {
		return pk
	}
	pk.ReasonCode = v.reason
	p := &pk.Properties
	if v.reason != 0 {
		p.ReasonString = v.text
		if v.detail != "" {
			p.User = []packets.UserProperty{{Key: "detail", Val: v.detail}}
		}
		return pk
	}
	if r.Conversation.IsZero() {
		return pk
	}
	p.User = make([]packets.UserProperty, 0, 4)
	p.User = append(p.User, packets.UserProperty{Key: "conversation", Val: r.Conversation.String()})
	if r.Seq != 0 {
		p.User = append(p.User, packets.UserProperty{Key: "seq", Val: strconv.FormatInt(int64(r.Seq), 10)})
	}
	if !r.Message.IsZero() {
		p.User = append(p.User, packets.UserProperty{Key: "message", Val: r.Message.String()})
	}
	if r.Duplicate {
		p.User = append(p.User, packets.UserProperty{Key: "duplicate", Val: "1"})
	}
	return pk
}

// connackReason gives the reason code for a refused login.
func connackReason(version byte, err error) byte {
	reason := domain.CodeOf(err).Info().Reason
	if version < 5 {
		return legacyReason(reason)
	}
	return reason
}

// legacyReason gives the return code of MQTT 3.1.1, table 3.1, for a CONNACK reason code of MQTT 5.
func legacyReason(reason byte) byte {
	switch reason {
	case packets.ErrUnsupportedProtocolVersion.Code:
		return packets.Err3UnsupportedProtocolVersion.Code
	case packets.ErrClientIdentifierNotValid.Code:
		return packets.Err3ClientIdentifierNotValid.Code
	case packets.ErrServerUnavailable.Code, packets.ErrServerBusy.Code, packets.ErrQuotaExceeded.Code:
		return packets.Err3ServerUnavailable.Code
	}
	return packets.Err3NotAuthorized.Code
}

// subackReason gives the reason code for a subscription: the granted QoS, or that of the refusal as far as SUBACK has it.
func subackReason(version, qos byte, err error) byte {
	if err == nil {
		return qos
	}
	if version < 5 {
		return packets.ErrUnspecifiedError.Code
	}
	switch reason := domain.CodeOf(err).Info().Reason; reason {
	case packets.ErrNotAuthorized.Code, packets.ErrImplementationSpecificError.Code, packets.ErrQuotaExceeded.Code:
		return reason
	case packets.ErrPayloadFormatInvalid.Code:
		return packets.ErrTopicFilterInvalid.Code
	}
	return packets.ErrUnspecifiedError.Code
}
