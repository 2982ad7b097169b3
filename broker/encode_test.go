package broker

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// theirs encodes a delivery with mochi.
func theirs(tb testing.TB, version byte, d *domain.Delivery, id uint16) []byte {
	tb.Helper()
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: d.QoS, Retain: d.Retain}, ProtocolVersion: version,
		TopicName: d.Publication.Topic, Payload: d.Publication.Payload, PacketID: id, Mods: packets.Mods{AllowResponseInfo: true},
		Properties: packets.Properties{CorrelationData: d.Publication.Correlation, SubscriptionIdentifier: d.Identifiers},
	}
	var b bytes.Buffer
	if err := pk.PublishEncode(&b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestDeliveriesAreEncodedAsMochiWould(t *testing.T) {
	// Two encoders of one format: the other one is used by many, and ours is a few lines. And the size that decides about
	// skipping is the size that is written.
	for _, size := range []int{0, 1, 60, 100, 127, 128, 16_300, 16_383, 16_384, 70_000} {
		for _, version := range []byte{4, 5} {
			for i := range 16 {
				d := domain.Delivery{Publication: publicationOf(size), QoS: byte(i & 1), Retain: i&2 != 0}
				if i&4 != 0 {
					d.Publication.Correlation = bytes.Repeat([]byte("c"), 1+rand.IntN(300))
				}
				if i&8 != 0 {
					d.Identifiers = []int{1, 127, 128, 16_384, 268_435_455}
				}
				id := uint16(i&1) * uint16(1+rand.IntN(65_535))
				want := theirs(t, version, &d, id)
				got := appendPublish([]byte("before"), version, &d, id)
				if !bytes.Equal(got[6:], want) {
					t.Fatalf("version %d, %+v:\n got % x\nwant % x", version, d, clipped(got[6:]), clipped(want))
				}
				if n := publishSize(version, &d); n != len(want) {
					t.Errorf("size %d, want %d", n, len(want))
				}
			}
		}
	}
}

func publicationOf(size int) *domain.Publication {
	return &domain.Publication{Topic: "conversations/x/events", Payload: []byte(strings.Repeat("x", size))}
}

func clipped(b []byte) []byte { return b[:min(len(b), 80)] }

func TestDisconnectsAreEncodedAsMochiWould(t *testing.T) {
	// The last packet must be right at the first attempt.
	for _, text := range []string{"", "token-expired", strings.Repeat("x", 200)} {
		pk := packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ProtocolVersion: 5, ReasonCode: 0x87,
			Properties: packets.Properties{ReasonString: text},
		}
		var b bytes.Buffer
		if err := pk.DisconnectEncode(&b); err != nil {
			t.Fatal(err)
		}
		want := b.Bytes()
		if text == "" {
			want = []byte{0xe0, 1, 0x87} // shorter, and as valid
		}
		why := domain.Farewell{Reason: 0x87, Text: text}
		for _, largest := range []int{0, len(want), 1000} {
			if got := appendDisconnect(nil, why, largest); !bytes.Equal(got, want) {
				t.Errorf("%q, at most %d: % x", text, largest, got)
			}
		}
		if got := appendDisconnect(nil, why, len(want)-1); !bytes.Equal(got, []byte{0xe0, 1, 0x87}) {
			t.Errorf("%q in too little room: % x", text, got)
		}
	}
}

func TestPacketIdsAreUniqueWhileTheyAreOutstanding(t *testing.T) {
	// [MQTT-2.2.1-3]: they go round, and a client may keep an old one for long.
	w := window{limit: 50}
	open := map[uint16]*domain.Publication{}
	random := rand.New(rand.NewPCG(1, 2))
	var stubborn uint16
	for i := range 200_000 {
		if w.room() != 50-len(open) {
			t.Fatalf("room for %d with %d outstanding", w.room(), len(open))
		}
		if len(open) < 50 && (len(open) == 0 || random.IntN(2) == 0) {
			p := new(domain.Publication)
			id := w.add(domain.Delivery{Publication: p})
			if id == 0 || open[id] != nil {
				t.Fatalf("packet id %d is given twice", id)
			}
			if open[id] = p; i == 0 {
				stubborn = id
			}
			continue
		}
		for id, p := range open { // any
			if id == stubborn {
				if len(open) == 1 {
					break
				}
				continue
			}
			if d, ok := w.remove(id); !ok || d.Publication != p {
				t.Fatalf("packet id %d belongs to something else", id)
			}
			if _, ok := w.remove(id); ok {
				t.Fatalf("packet id %d is there twice", id)
			}
			delete(open, id)
			break
		}
	}
	if d, ok := w.remove(stubborn); !ok || d.Publication != open[stubborn] {
		t.Error("the oldest is lost")
	}
	for id := range open {
		w.remove(id)
	}
	if w.room() != 50 || cap(w.held) > 4 {
		t.Errorf("an empty window has room for %d and holds %d", w.room(), cap(w.held))
	}
}

func BenchmarkAppendPublish(b *testing.B) {
	d := domain.Delivery{Publication: publicationOf(200), QoS: 1}
	buf := make([]byte, 0, 1024)
	for i := 0; b.Loop(); i++ {
		buf = appendPublish(buf[:0], 5, &d, uint16(i))
	}
}

func BenchmarkWindow(b *testing.B) {
	w := window{limit: 64}
	d := domain.Delivery{Publication: publicationOf(1)}
	for b.Loop() {
		var ids [64]uint16
		for i := range ids {
			ids[i] = w.add(d)
		}
		for _, id := range ids {
			w.remove(id)
		}
	}
}
