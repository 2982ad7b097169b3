package hooks

import (
	"context"
	"strconv"
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// welcome is what the CONNACK says.
type welcome struct {
	domain.Welcome
	username string
	expiry   uint32
}

// refusal is a refused CONNECT. reason is that of MQTT 5; 0: that of the error.
type refusal struct {
	reason byte
	err    *domain.Error
}

// OnConnect implements mqtt.Hook: it logs the client in, or answers with a CONNACK that says why not.
func (h *Hook) OnConnect(cl *mqtt.Client, pk packets.Packet) (err error) {
	defer h.guard(cl, &err)
	hello, refused := h.hello(cl, &pk)
	if refused == nil {
		refused = h.login(cl, hello)
	}
	if refused == nil {
		h.metrics.connects.WithLabelValues("ok").Inc()
		return nil
	}
	h.metrics.connects.WithLabelValues(label(refused.err)).Inc()
	version := cl.Properties.ProtocolVersion
	reason := connackReason(version, refused.err)
	if refused.reason != 0 {
		reason = refused.reason
		if version < 5 {
			reason = legacyReason(reason)
		}
	}
	ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ReasonCode: reason}
	ack.Properties.ReasonString = string(refused.err.Code)
	if refused.err.Detail != "" {
		ack.Properties.User = []packets.UserProperty{{Key: "detail", Val: refused.err.Detail}}
	}
	_ = cl.WritePacket(ack) // the connection ends either way
	return packets.Code{Code: reason, Reason: string(refused.err.Code)}
}

// login makes the session, and makes mochi forget what it could do for it.
func (h *Hook) login(cl *mqtt.Client, hello domain.Hello) *refusal {
	session, w, err := h.connect(cl, hello)
	if err != nil {
		return &refusal{err: domain.AsError(err)}
	}
	if !w.Principal.IsUser() {
		hello.Expiry = 0 // nothing is kept of a backend's session
	}
	l := &link{
		version: hello.Version, session: session, principal: w.Principal, durable: hello.Expiry > 0,
		welcome: &welcome{Welcome: w, username: hello.Username, expiry: hello.Expiry},
	}
	// Unique, so that mochi never takes one connection for the successor of another.
	cl.ID = hello.Username + "/" + hello.Device + "#" + strconv.FormatUint(h.nonce.Add(1), 10)
	cl.State.Keepalive, cl.State.ServerKeepalive = h.keepAlive(cl.State.Keepalive)
	cl.Properties.Clean, cl.Properties.Will = true, mqtt.Will{}
	// The name and the properties are parts of the CONNECT, which would be kept for as long as they, password and all.
	cl.Properties.Username = []byte(hello.Username)
	p := &cl.Properties.Props
	p.SessionExpiryInterval, p.SessionExpiryIntervalFlag = 0, false
	p.TopicAliasMaximum = 0
	p.User, p.AuthenticationData = nil, nil
	p.AssignedClientID = strings.Clone(p.AssignedClientID)
	cl.State.TopicAliases = mqtt.TopicAliases{} // two maps for what is refused
	h.links.Store(cl, l)
	return nil
}

// connect calls Options.Connect. When that panics the client is told that the login failed.
func (h *Hook) connect(cl *mqtt.Client, hello domain.Hello) (s Session, w domain.Welcome, err error) {
	ctx, cancel := context.WithTimeout(h.o.Wire.Context(cl), h.o.ConnectTimeout)
	defer cancel()
	defer func() {
		if panicked := recover(); panicked != nil {
			h.panicked(panicked)
			err = domain.Errorf(domain.Internal, "something went wrong inside Parley")
		}
	}()
	return h.o.Connect(ctx, cl, hello)
}

// keepAlive bounds the keep alive that a client asked for, in seconds, and tells whether that has changed it. It is never made
// longer: clients of MQTT 3.1.1 could not be told.
func (h *Hook) keepAlive(asked uint16) (granted uint16, changed bool) {
	granted = min(asked, h.o.KeepAliveMax)
	if asked == 0 {
		granted = h.o.KeepAliveMax
	}
	return granted, granted != asked
}

// OnPacketEncode implements mqtt.Hook: it completes the CONNACK.
func (h *Hook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) (out packets.Packet) {
	out = pk
	defer h.guard(cl, nil)
	if pk.FixedHeader.Type != packets.Connack {
		return out
	}
	version := cl.Properties.ProtocolVersion
	l := h.link(cl)
	switch {
	case l == nil:
		h.completeRefusal(version, &out)
	case pk.ReasonCode == 0 && l.welcome != nil:
		h.completeWelcome(cl, l, &out)
		l.welcome = nil
	}
	return out
}

// completeRefusal corrects the CONNACKs with which mochi refuses on its own.
func (h *Hook) completeRefusal(version byte, pk *packets.Packet) {
	pk.Properties.ReceiveMaximum = 0
	if version == 5 || pk.ReasonCode < packets.ErrUnspecifiedError.Code {
		return
	}
	switch {
	case version > 5:
		pk.ReasonCode = packets.Err3UnsupportedProtocolVersion.Code
	case pk.ReasonCode == packets.ErrUnspecifiedError.Code: // no client id, and no clean session
		pk.ReasonCode = packets.Err3ClientIdentifierNotValid.Code
	default:
		pk.ReasonCode = legacyReason(pk.ReasonCode)
	}
}

func (h *Hook) completeWelcome(cl *mqtt.Client, l *link, pk *packets.Packet) {
	w := l.welcome
	pk.SessionPresent = w.Present
	if l.version < 5 {
		return
	}
	p := &pk.Properties
	p.ReceiveMaximum = h.o.ReceiveMaximum
	p.MaximumPacketSize = h.o.MaximumPacketSize
	p.SessionExpiryInterval, p.SessionExpiryIntervalFlag = w.expiry, true
	p.RetainAvailable, p.RetainAvailableFlag = 0, true
	p.WildcardSubAvailable, p.WildcardSubAvailableFlag = 1, true
	p.SubIDAvailable, p.SubIDAvailableFlag = 1, true
	p.SharedSubAvailable, p.SharedSubAvailableFlag = 1, true
	p.User = []packets.UserProperty{
		{Key: "username", Val: w.username},
		{Key: "serverTime", Val: strconv.FormatInt(w.ServerTime, 10)},
	}
	if w.Principal.IsUser() {
		p.User = append(p.User, packets.UserProperty{Key: "userId", Val: w.Principal.User.String()})
	}
	if own := w.Principal.OwnTopics(); own != "" && cl.Properties.Props.RequestResponseInfo == 1 {
		p.ResponseInfo = domain.Topic{Kind: domain.RepliesTopic, User: own}.String()
	}
	// CONNACK is one of the packets that may have them, whatever Request Problem Information says ([MQTT-3.1.2-29]).
	pk.Mods.DisallowProblemInfo = false
}
