package hooks

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/metrics/metricstest"
)

func TestTheMetricsKeepTheirNames(t *testing.T) {
	// Dashboards and alerts are built on them.
	metricstest.Golden(t, "testdata/metrics.txt", func(r prometheus.Registerer) { newHookMetrics(r) })
}

func TestFiltersAreValidWhenMochiSaysSoToo(t *testing.T) {
	// Sections 4.7.1 and 4.8.2. mochi's own check takes more than is allowed, so it must only ever be the milder one.
	for filter, want := range map[string]bool{
		"a": true, "a/b": true, "/": true, "//": true, "+": true, "#": true, "a/+/b": true, "+/+": true, "a/#": true, "$SYS/#": true, "/+": true,
		"$share/g/a": true, "$share/g/#": true, "$share/g//": true, "$SHARE/g/a": true,
		"": false, "a#": false, "#/a": false, "a/#/b": false, "a+": false, "+a": false, "a/b+/c": false, "##": false, "a/##": false, "++": false,
		"$share/": false, "$share/g": false, "$share/g/": false, "$share//a": false, "$share/+/a": false, "$share/#/a": false, "$share/g+/a": false,
		strings.Repeat("a", maxFilter): true, strings.Repeat("a", maxFilter+1): false,
	} {
		if got := validFilter(filter); got != want {
			t.Errorf("%.40q: %t", filter, got)
		}
	}
}

func FuzzValidFilter(f *testing.F) {
	// Nothing that passes here may be what mochi, or the grammar of topics, calls malformed.
	for _, s := range []string{"a/b", "+/#", "$share/g/a", "a#", "", "$share//", "conversations/+/events"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ok := validFilter(s)
		// mochi takes any letter case, and the bare word, for a shared subscription.
		odd := len(s) >= 6 && strings.EqualFold(s[:6], "$share") && !isShared(s)
		if ok && !odd && !mqtt.IsValidFilter(s, false) {
			t.Errorf("%q is valid here and not for mochi", s)
		}
		if _, known := domain.ParseFilter(s); known && !ok {
			t.Errorf("%q is one of our filters, but counts as malformed", s)
		}
	})
}

func TestKeepAliveStaysWithinItsBounds(t *testing.T) {
	// In seconds; 0 means none.
	h := New(Options{})
	for asked, want := range map[uint16]uint16{0: 1200, 1: 1, 30: 30, 1200: 1200, 1201: 1200, 65535: 1200} {
		got, changed := h.keepAlive(asked)
		if got != want || changed != (got != asked) {
			t.Errorf("asked for %d: %d, %t", asked, got, changed)
		}
	}
}

func TestReturnCodesOfMQTT311AreTheFiveThatExist(t *testing.T) {
	// Table 3.1. A client shows the user what it knows of them.
	for reason := 0x80; reason <= 0xff; reason++ {
		want := byte(5)
		switch reason {
		case 0x84:
			want = 1
		case 0x85:
			want = 2
		case 0x88, 0x89, 0x97:
			want = 3
		}
		if got := legacyReason(byte(reason)); got != want {
			t.Errorf("%#x: %d", reason, got)
		}
	}
	for _, code := range domain.Codes() {
		if got := connackReason(4, domain.Errorf(code, "")); got < 1 || got > 5 {
			t.Errorf("%s: %d", code, got)
		}
		if got := connackReason(5, domain.Errorf(code, "")); got < 0x80 {
			t.Errorf("%s: %#x", code, got)
		}
	}
}

func TestSubscriptionsAreRefusedWithCodesThatSUBACKHas(t *testing.T) {
	// Section 3.9.3; clients end the connection because of a code that is not in the list.
	allowed := "\x80\x83\x87\x8f\x91\x97\x9e\xa1\xa2"
	for _, code := range domain.Codes() {
		if got := subackReason(5, 1, domain.Errorf(code, "")); !strings.Contains(allowed, string([]byte{got})) {
			t.Errorf("%s: %#x", code, got)
		}
		if got := subackReason(4, 1, domain.Errorf(code, "")); got != 0x80 {
			t.Errorf("%s in 3.1.1: %#x", code, got)
		}
	}
	if subackReason(5, 1, domain.Errorf(domain.AccessDenied, "")) != 0x87 || subackReason(4, 0, nil) != 0 || subackReason(5, 1, nil) != 1 {
		t.Error("granted or refused with another code than it should")
	}
}

func TestLabelsAreAmongThoseKnownBeforehand(t *testing.T) {
	// A label value that clients can choose would grow the memory of the monitoring.
	for code, want := range map[domain.Code]string{
		domain.AccessDenied: "access-denied", domain.SessionConflict: "session-conflict", "made-up": "internal",
	} {
		if got := label(domain.Errorf(code, "")); got != want {
			t.Errorf("%s: %s", code, got)
		}
	}
}

// wire records what is sent.
type wire struct {
	mu   sync.Mutex
	ids  []uint16
	ends int
	ctx  context.Context
}

func (w *wire) Send(_ *mqtt.Client, pk packets.Packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids = append(w.ids, pk.PacketID)
}

func (w *wire) Acked(*mqtt.Client, uint16, byte) {}

func (w *wire) End(*mqtt.Client, domain.Farewell) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends++
}

func (w *wire) Context(*mqtt.Client) context.Context { return w.ctx }
func (w *wire) LastByte(*mqtt.Client) byte           { return 0 }

// device is a session that hands over its publishes to a channel.
type device struct {
	submitted chan func(domain.Receipt, error)
}

func (d *device) Submit(_ domain.Request, done func(domain.Receipt, error)) { d.submitted <- done }
func (d *device) Subscribe(_ context.Context, s []domain.Subscription) []error {
	return make([]error, len(s))
}
func (d *device) Unsubscribe(_ context.Context, f []string) []bool { return make([]bool, len(f)) }
func (d *device) Expire(uint32)                                    {}
func (d *device) Leave(bool)                                       {}

func publishPacket(id uint16) *packets.Packet {
	return &packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: id,
		TopicName: "commands/getMe", Payload: []byte("{}"),
	}
}

func TestWhoWaitsForAPlaceGetsTheNextOneThatIsFree(t *testing.T) {
	// The reading goroutine sleeps exactly as long as there are as many publishes under way as there may be.
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &wire{ctx: ctx}
		h := New(Options{Wire: w, ReceiveMaximum: 2})
		d := &device{submitted: make(chan func(domain.Receipt, error), 10)}
		l := &link{version: 4, session: d}
		returned := 0
		go func() {
			for i := range 4 {
				if end := h.publish(nil, l, publishPacket(uint16(i+1))); end.Reason != 0 {
					break
				}
				returned++
			}
		}()
		synctest.Wait()
		if returned != 2 {
			t.Fatalf("%d were taken", returned)
		}
		first, second := <-d.submitted, <-d.submitted
		second(domain.Receipt{}, nil) // it has to be acknowledged after the first: its place stays taken
		synctest.Wait()
		if returned != 2 || len(w.ids) != 0 {
			t.Errorf("%d taken, %d acknowledged", returned, len(w.ids))
		}
		first(domain.Receipt{}, nil)
		synctest.Wait()
		if returned != 4 || fmt.Sprint(w.ids) != "[1 2]" {
			t.Errorf("%d taken, acknowledged %v", returned, w.ids)
		}
		go func() { h.publish(nil, l, publishPacket(9)); returned = 100 }()
		synctest.Wait()
		cancel() // the connection has ended
		synctest.Wait()
		if returned != 100 {
			t.Error("somebody waits for a place on a connection that has ended")
		}
	})
}

func TestAPanicInAHookEndsTheConnectionOnly(t *testing.T) {
	// mochi has no recover: it would be the end of the process.
	w := &wire{ctx: t.Context()}
	h := New(Options{Wire: w, Registerer: prometheus.NewRegistry()})
	cl := &mqtt.Client{}
	h.links.Store(cl, &link{version: 5}) // without a session: everything panics
	for i, pk := range []packets.Packet{
		*publishPacket(1),
		{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1, Filters: packets.Subscriptions{{Filter: "a"}}},
		{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 1, Filters: packets.Subscriptions{{Filter: "a"}}},
	} {
		if _, err := h.OnPacketRead(cl, pk); err != packets.ErrRejectPacket { //nolint:errorlint // mochi compares it itself
			t.Errorf("packet %d: %v", i, err)
		}
		if w.ends != i+1 {
			t.Errorf("%d connections ended", w.ends)
		}
	}
	h.OnDisconnect(cl, nil, true)
	if h.link(cl) != nil {
		t.Error("the connection is not forgotten")
	}
}

func TestMochiIsLeftNothingToDecide(t *testing.T) {
	// What would reach its topic index, its in-flight map or its subscribers is denied.
	h := New(Options{Wire: &wire{ctx: t.Context()}})
	if h.OnACLCheck(nil, "a", true) || h.OnACLCheck(nil, "a", false) {
		t.Error("something is allowed")
	}
	if _, err := h.OnPublish(nil, packets.Packet{}); err != packets.ErrRejectPacket { //nolint:errorlint // mochi compares it itself
		t.Error(err)
	}
	if h.OnConnectAuthenticate(&mqtt.Client{}, packets.Packet{}) {
		t.Error("somebody is let in who has not logged in")
	}
}
