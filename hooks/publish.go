package hooks

import (
	"context"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// acks keeps the acknowledgements that a connection owes, in the order of its publishes.
type acks struct {
	mu sync.Mutex
	// owed are the publishes with QoS 1 and 2 that are not acknowledged, in their order.
	owed []*publish
	// pending counts the publishes of any QoS whose outcome is not known.
	pending int
	// received are the packet ids of QoS 2 publishes that were acknowledged and not released yet ([MQTT-4.3.3-10]).
	received map[uint16]struct{}
	// freed has a token when a place may have become free since somebody waited for one; nil: nobody has.
	freed chan struct{}
	// sending: somebody sends what can be sent. ended: nothing is sent any more.
	sending, ended bool
}

// publish is a publish with QoS 1 or 2 that is to be acknowledged.
type publish struct {
	id      uint16
	qos     byte
	decided bool
	came    time.Time
	receipt domain.Receipt
	err     error
}

// admission is what is to be done with a publish.
type admission int

const (
	submit  admission = iota
	ignore            // its acknowledgement is on its way
	repeat            // acknowledge it again
	tooMany           // the client must not have sent it
)

// admit decides about a publish with QoS 1 or 2. limit is how many of them the client may have unacknowledged; 0: any
// number, to be taken one after the other.
func (a *acks) admit(pk *packets.Packet, limit int) admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.received[pk.PacketID]; ok && pk.FixedHeader.Qos == 2 {
		return repeat
	}
	// A QoS 1 publish that is not marked as a repetition is a new one, also under an id that is in use: devices that
	// know one packet id only do that.
	if pk.FixedHeader.Qos == 2 || pk.FixedHeader.Dup {
		for _, p := range a.owed {
			if p.id == pk.PacketID && p.qos == pk.FixedHeader.Qos {
				return ignore
			}
		}
	}
	if limit > 0 && len(a.owed)+len(a.received) >= limit {
		return tooMany
	}
	return submit
}

// enter waits until fewer than limit publishes are pending or owed, and counts one in. It is false if ctx ended first.
func (a *acks) enter(ctx context.Context, limit int, p *publish) bool {
	for {
		a.mu.Lock()
		if a.pending < limit && len(a.owed) < limit {
			a.pending++
			if p != nil {
				a.owed = append(a.owed, p)
			}
			a.mu.Unlock()
			return true
		}
		if a.freed == nil {
			a.freed = make(chan struct{}, 1)
		}
		freed := a.freed
		a.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return false
		}
	}
}

// free lets one who waits look again. The caller holds mu.
func (a *acks) free() {
	if a.freed == nil {
		return
	}
	select {
	case a.freed <- struct{}{}:
	default:
	}
}

// publish takes a PUBLISH. A farewell with a reason ends the connection.
func (h *Hook) publish(cl *mqtt.Client, l *link, pk *packets.Packet) domain.Farewell {
	if code := pk.PublishValidate(0); code != packets.CodeSuccess {
		return farewell(code)
	}
	limit := int(h.o.ReceiveMaximum)
	var p *publish
	if qos := pk.FixedHeader.Qos; qos > 0 {
		strict := 0
		if l.version >= 5 {
			strict = limit
		}
		switch l.acks.admit(pk, strict) {
		case ignore:
			return domain.Farewell{}
		case repeat:
			h.o.Wire.Send(cl, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrec}, PacketID: pk.PacketID})
			return domain.Farewell{}
		case tooMany:
			return farewell(packets.ErrReceiveMaximum) // [MQTT-3.3.4-9]
		case submit:
		}
		p = &publish{id: pk.PacketID, qos: qos, came: time.Now()}
	}
	if !l.acks.enter(h.o.Wire.Context(cl), limit, p) {
		return farewell(packets.ErrServerShuttingDown) // said to nobody: the connection has ended
	}
	h.metrics.pending.Inc()
	req := domain.DecodePublish(l.principal, &domain.Publish{
		Topic: pk.TopicName, Payload: pk.Payload, Version: l.version, QoS: pk.FixedHeader.Qos,
		ContentType: pk.Properties.ContentType, ResponseTopic: pk.Properties.ResponseTopic,
		Correlation: pk.Properties.CorrelationData, Retain: pk.FixedHeader.Retain,
	}, h.o.Limits)
	qos := pk.FixedHeader.Qos
	l.session.Submit(req, func(r domain.Receipt, err error) {
		h.metrics.pending.Dec()
		h.metrics.published(l.version, qos, err)
		h.decided(cl, l, p, r, err)
	})
	return domain.Farewell{}
}

// decided takes the outcome of a publish, p if it is to be acknowledged, and sends all acknowledgements whose turn has
// come. Of several goroutines one sends, so that the order is kept without a lock around the sending.
func (h *Hook) decided(cl *mqtt.Client, l *link, p *publish, r domain.Receipt, err error) {
	a := &l.acks
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending--
	a.free()
	if p == nil {
		return
	}
	r.Result = nil
	p.decided, p.receipt, p.err = true, r, err
	if a.sending {
		return
	}
	a.sending = true
	for len(a.owed) > 0 && a.owed[0].decided && !a.ended {
		next := a.owed[0]
		a.owed[0] = nil
		if a.owed = a.owed[1:]; len(a.owed) == 0 {
			a.owed = nil
		}
		v := judge(l.version, next.qos, next.err)
		if v.completes() {
			if a.received == nil {
				a.received = make(map[uint16]struct{})
			}
			a.received[next.id] = struct{}{}
		}
		a.ended = v.end
		a.free()
		a.mu.Unlock()
		h.answer(cl, l, next, v)
		a.mu.Lock()
	}
	a.sending = false
}

func (h *Hook) answer(cl *mqtt.Client, l *link, p *publish, v verdict) {
	defer h.guard(cl, nil)
	if v.end {
		h.o.Wire.End(cl, domain.Farewell{Reason: packets.ErrServerUnavailable.Code, Text: string(domain.Unavailable)})
		return
	}
	h.o.Wire.Send(cl, v.ack(l.version, p.id, &p.receipt))
	h.metrics.acked.Observe(time.Since(p.came).Seconds())
}

// pubrel takes a PUBREL: the client knows that its QoS 2 publish has arrived.
func (h *Hook) pubrel(cl *mqtt.Client, l *link, pk *packets.Packet) {
	a := &l.acks
	a.mu.Lock()
	_, known := a.received[pk.PacketID]
	delete(a.received, pk.PacketID)
	if len(a.received) == 0 {
		a.received = nil
	}
	a.mu.Unlock()
	ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubcomp}, PacketID: pk.PacketID}
	if !known {
		ack.ReasonCode = packets.ErrPacketIdentifierNotFound.Code
	}
	h.o.Wire.Send(cl, ack)
}

// pubrec takes a PUBREC. Nothing is delivered with QoS 2, so there is nothing that it could belong to.
func (h *Hook) pubrec(cl *mqtt.Client, pk *packets.Packet) {
	if pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
		return
	}
	h.o.Wire.Send(cl, packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: pk.PacketID,
		ReasonCode: packets.ErrPacketIdentifierNotFound.Code,
	})
}
