package hooks

import (
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// maxFilter is the longest filter that is looked at, in bytes.
const maxFilter = 1024

// subscribe takes a SUBSCRIBE. A farewell with a reason ends the connection.
func (h *Hook) subscribe(cl *mqtt.Client, l *link, pk *packets.Packet) domain.Farewell {
	if code := pk.SubscribeValidate(); code != packets.CodeSuccess {
		return farewell(code)
	}
	ids := pk.Properties.SubscriptionIdentifier
	if len(ids) > 1 || len(ids) == 1 && ids[0] == 0 { // section 3.8.2.1.2
		return farewell(packets.ErrProtocolViolation)
	}
	ack := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Suback}, PacketID: pk.PacketID,
		ReasonCodes: make([]byte, len(pk.Filters)),
	}
	subs := make([]domain.Subscription, 0, min(len(pk.Filters), h.o.FiltersMax))
	places := make([]int, 0, cap(subs))
	for i := range pk.Filters {
		f := &pk.Filters[i]
		switch {
		case f.RetainHandling > 2, f.NoLocal && isShared(f.Filter): // [MQTT-3.8.3-4]
			return farewell(packets.ErrProtocolViolation)
		case len(subs) == h.o.FiltersMax:
			ack.ReasonCodes[i] = subackReason(l.version, 0, domain.Errorf(domain.RateLimited, "too many filters in one SUBSCRIBE"))
		case !validFilter(f.Filter):
			ack.ReasonCodes[i] = subackReason(l.version, 0, domain.Errorf(domain.InvalidRequest, "not a topic filter"))
		default:
			places = append(places, i)
			qos := min(f.Qos, 1)
			if topic, _ := domain.ParseFilter(f.Filter); topic.Kind == domain.SignalsTopic {
				qos = 0
			}
			subs = append(subs, domain.Subscription{
				Filter: strings.Clone(f.Filter), // it is a part of the packet
				Options: domain.SubscribeOptions{
					QoS: qos, NoLocal: f.NoLocal, RetainAsPublished: f.RetainAsPublished, RetainHandling: f.RetainHandling,
					Identifier: f.Identifier,
				},
			})
		}
	}
	var refused error
	if len(subs) > 0 {
		for i, err := range l.session.Subscribe(h.o.Wire.Context(cl), subs) {
			ack.ReasonCodes[places[i]] = subackReason(l.version, subs[i].Options.QoS, err)
			if refused == nil {
				refused = err
			}
		}
	}
	if refused != nil {
		ack.Properties.ReasonString = string(domain.CodeOf(refused))
	}
	for _, reason := range ack.ReasonCodes {
		h.metrics.subscribed(reason)
	}
	h.o.Wire.Send(cl, ack)
	return domain.Farewell{}
}

// unsubscribe takes an UNSUBSCRIBE. A farewell with a reason ends the connection.
func (h *Hook) unsubscribe(cl *mqtt.Client, l *link, pk *packets.Packet) domain.Farewell {
	if code := pk.UnsubscribeValidate(); code != packets.CodeSuccess {
		return farewell(code)
	}
	ack := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Unsuback}, PacketID: pk.PacketID,
		ReasonCodes: make([]byte, len(pk.Filters)),
	}
	filters := make([]string, 0, min(len(pk.Filters), h.o.FiltersMax))
	places := make([]int, 0, cap(filters))
	for i := range pk.Filters {
		f := pk.Filters[i].Filter
		switch {
		case len(filters) == h.o.FiltersMax:
			ack.ReasonCodes[i] = packets.ErrImplementationSpecificError.Code
		case !validFilter(f):
			ack.ReasonCodes[i] = packets.ErrTopicFilterInvalid.Code
		default:
			places, filters = append(places, i), append(filters, f)
		}
	}
	for i, had := range l.session.Unsubscribe(h.o.Wire.Context(cl), filters) {
		if !had {
			ack.ReasonCodes[places[i]] = packets.CodeNoSubscriptionExisted.Code
		}
	}
	h.o.Wire.Send(cl, ack)
	return domain.Farewell{}
}

func isShared(filter string) bool { return strings.HasPrefix(filter, "$share/") }

// validFilter checks the form of a filter (MQTT 5, sections 4.7 and 4.8.2); one that is absurdly long has none.
func validFilter(filter string) bool {
	if len(filter) > maxFilter {
		return false
	}
	if rest, ok := strings.CutPrefix(filter, "$share/"); ok {
		group, below, found := strings.Cut(rest, "/")
		if !found || group == "" || strings.ContainsAny(group, "+#") {
			return false
		}
		filter = below
	}
	if filter == "" { // [MQTT-4.7.3-1]
		return false
	}
	for level := range strings.SplitSeq(filter, "/") {
		if len(level) > 1 && strings.ContainsAny(level, "+#") { // [MQTT-4.7.1-1], [MQTT-4.7.1-2]
			return false
		}
	}
	i := strings.IndexByte(filter, '#')
	return i < 0 || i == len(filter)-1
}
