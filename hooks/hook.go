package hooks

import (
	"context"
	"log/slog"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
)

// Session is a logged-in device. All its methods are called by the hook only.
type Session interface {
	// Submit takes a publish and never blocks. done is called exactly once, from any goroutine, possibly before Submit
	// returns; a nil error means that what the command stored is committed.
	Submit(req domain.Request, done func(domain.Receipt, error))
	// Subscribe gives, for each entry, nil or why it was refused.
	Subscribe(ctx context.Context, subs []domain.Subscription) []error
	// Unsubscribe tells, for each filter, whether it was subscribed.
	Unsubscribe(ctx context.Context, filters []string) []bool
	// Expire changes for how long the session is kept after its connection, in seconds.
	Expire(after uint32)
	// Leave ends the session. graceful: the client had said that it leaves.
	Leave(graceful bool)
}

// Wire is the way back to the clients. None of its methods blocks.
type Wire interface {
	// Send queues an acknowledgement; packets for one client go out in the order of the calls.
	Send(cl *mqtt.Client, pk packets.Packet)
	// Acked takes a client's PUBACK for one of its deliveries.
	Acked(cl *mqtt.Client, packetID uint16, reason byte)
	// End ends the connection once what was sent is written; a client of MQTT 5 is told why.
	End(cl *mqtt.Client, why domain.Farewell)
	// Context gives a context that ends with the connection.
	Context(cl *mqtt.Client) context.Context
	// LastByte gives the last byte that came from the client. It is for the goroutine that handles the client's packets.
	LastByte(cl *mqtt.Client) byte
}

// Options are what a hook works with. Connect and Wire are required; a zero value of the others means the default.
type Options struct {
	// Connect logs a device in. It may take as long as ctx lasts. Its error is best a *domain.Error.
	Connect func(ctx context.Context, cl *mqtt.Client, hello domain.Hello) (Session, domain.Welcome, error)
	Wire    Wire
	// Limits are for commands; default domain.DefaultLimits.
	Limits domain.Limits
	// ReceiveMaximum is how many publishes of a connection may be unanswered at a time; default 64.
	ReceiveMaximum uint16
	// MaximumPacketSize is announced to clients, in bytes; it is what the broker enforces; default 128 KiB.
	MaximumPacketSize uint32
	// KeepAliveMax bounds the keep alive, in seconds; default 1200. A client that asks for none gets it.
	KeepAliveMax uint16
	// ConnectTimeout bounds a login; default 10 s.
	ConnectTimeout time.Duration
	// SessionExpiryMax bounds how long a session outlives its connection, in seconds, and is what a durable session of
	// MQTT 3.1.1 gets; default: for ever (0xFFFFFFFF).
	SessionExpiryMax uint32
	// FiltersMax is how many filters one SUBSCRIBE or UNSUBSCRIBE may have; default 256.
	FiltersMax int
	// Logger gets defects; nil: nothing is logged.
	Logger *slog.Logger
	// Registerer gets the metrics; nil: they are counted but not registered.
	Registerer prometheus.Registerer
}

// Hook is the gateway's mochi hook.
type Hook struct {
	mqtt.HookBase
	o       Options
	log     *slog.Logger
	metrics *hookMetrics
	nonce   atomic.Uint64
	links   sync.Map // *mqtt.Client to *link
}

// link is a logged-in connection. What has no lock belongs to the goroutine that handles the client's packets.
type link struct {
	version   byte
	session   Session
	principal domain.Principal
	welcome   *welcome // until the CONNACK
	durable   bool     // the session outlives the connection
	graceful  bool     // the client has said that it leaves
	acks      acks
}

// New makes a hook. It panics if the Registerer has metrics of these names already.
func New(o Options) *Hook {
	if o.Limits == (domain.Limits{}) {
		o.Limits = domain.DefaultLimits()
	}
	setDefault(&o.ReceiveMaximum, 64)
	setDefault(&o.MaximumPacketSize, 128<<10)
	setDefault(&o.KeepAliveMax, 1200)
	setDefault(&o.ConnectTimeout, 10*time.Second)
	setDefault(&o.SessionExpiryMax, math.MaxUint32)
	setDefault(&o.FiltersMax, 256)
	h := &Hook{o: o, log: o.Logger, metrics: newHookMetrics(o.Registerer)}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// ID implements mqtt.Hook.
func (h *Hook) ID() string { return "parley" }

// Provides implements mqtt.Hook.
func (h *Hook) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPacketRead, mqtt.OnPacketEncode,
		mqtt.OnPublish, mqtt.OnDisconnect:
		return true
	}
	return false
}

// OnConnectAuthenticate implements mqtt.Hook: OnConnect has decided.
func (h *Hook) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	return h.link(cl) != nil
}

// OnACLCheck implements mqtt.Hook. Nothing of ours gets as far as this.
func (h *Hook) OnACLCheck(*mqtt.Client, string, bool) bool { return false }

// OnPublish implements mqtt.Hook. Nothing of ours gets as far as this, and no other error stops a publish.
func (h *Hook) OnPublish(_ *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	return pk, packets.ErrRejectPacket
}

// OnDisconnect implements mqtt.Hook. It may be called more than once for a connection.
func (h *Hook) OnDisconnect(cl *mqtt.Client, _ error, _ bool) {
	defer h.guard(cl, nil)
	v, ok := h.links.LoadAndDelete(cl)
	if !ok {
		return
	}
	if l, ok := v.(*link); ok {
		l.session.Leave(l.graceful)
	}
}

// OnPacketRead implements mqtt.Hook: it deals with every packet that concerns conversations, and leaves to mochi
// CONNECT, PINGREQ and DISCONNECT. The only error that it gives is ErrRejectPacket, which ends the connection: others
// are ignored by mochi.
func (h *Hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (out packets.Packet, err error) {
	out = pk
	defer h.guard(cl, &err)
	l := h.link(cl)
	if l == nil {
		if pk.FixedHeader.Type == packets.Connect {
			hideWill(&out)
			hideEmptyPassword(&out)
		}
		return out, nil
	}
	end := domain.Farewell{}
	switch pk.FixedHeader.Type {
	case packets.Connect: // a second one; mochi refuses it
		return out, nil
	case packets.Pingreq:
		return out, nil
	case packets.Disconnect:
		if end = h.disconnect(cl, l, &out); end.Reason == 0 {
			return out, nil
		}
	case packets.Publish:
		end = h.publish(cl, l, &pk)
	case packets.Puback:
		h.o.Wire.Acked(cl, pk.PacketID, pk.ReasonCode)
	case packets.Pubrec:
		h.pubrec(cl, &pk)
	case packets.Pubrel:
		h.pubrel(cl, l, &pk)
	case packets.Pubcomp: // ends an exchange that pubrec has refused
	case packets.Subscribe:
		end = h.subscribe(cl, l, &pk)
	case packets.Unsubscribe:
		end = h.unsubscribe(cl, l, &pk)
	default: // AUTH, and what only servers send
		end = farewell(packets.ErrProtocolViolation)
	}
	if end.Reason != 0 {
		h.o.Wire.End(cl, end)
		return out, packets.ErrRejectPacket
	}
	return dealtWith(), nil
}

// dealtWith gives a packet on which mochi does nothing: an acknowledgement of what it never sent.
func dealtWith() packets.Packet {
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}}
}

// disconnect takes a DISCONNECT. What goes on to mochi has nothing in it that mochi could object to.
func (h *Hook) disconnect(cl *mqtt.Client, l *link, pk *packets.Packet) domain.Farewell {
	reason := pk.ReasonCode
	if l.version >= 5 && pk.FixedHeader.Remaining == 1 {
		reason = h.o.Wire.LastByte(cl) // mochi does not decode a reason code that nothing follows
	}
	p := &pk.Properties
	if p.SessionExpiryIntervalFlag && p.SessionExpiryInterval > 0 && !l.durable {
		return farewell(packets.ErrProtocolViolationZeroNonZeroExpiry) // [MQTT-3.14.2-2]
	}
	if p.SessionExpiryIntervalFlag {
		l.session.Expire(min(p.SessionExpiryInterval, h.o.SessionExpiryMax))
	}
	p.SessionExpiryInterval, p.SessionExpiryIntervalFlag = 0, false
	pk.ReasonCode = 0
	l.graceful = reason == 0
	return domain.Farewell{}
}

func (h *Hook) link(cl *mqtt.Client) *link {
	v, _ := h.links.Load(cl)
	l, _ := v.(*link)
	return l
}

// guard is deferred by every method that does anything: a panic ends the connection and nothing else.
func (h *Hook) guard(cl *mqtt.Client, err *error) {
	panicked := recover()
	if panicked == nil {
		return
	}
	h.panicked(panicked)
	h.o.Wire.End(cl, domain.Farewell{Reason: packets.ErrUnspecifiedError.Code, Text: string(domain.Internal)})
	if err != nil {
		*err = packets.ErrRejectPacket
	}
}

// panicked counts and logs a panic, but not its value, which might hold a payload, unless it is an error.
func (h *Hook) panicked(value any) {
	h.metrics.panics.Inc()
	what := "not an error"
	if err, ok := value.(error); ok {
		what = err.Error()
	}
	h.log.Error("panic in a hook", "panic", what, "stack", string(debug.Stack()))
}

func farewell(c packets.Code) domain.Farewell { return domain.Farewell{Reason: c.Code, Text: c.Reason} }
