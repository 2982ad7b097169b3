package persistence_test

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/persistence"
	"github.com/parley-im/parley/persistence/pgtest"
)

// BenchmarkAppend measures one committer, with texts of 200 bytes, by the size of its batches and the number of
// conversations that they are spread over.
func BenchmarkAppend(b *testing.B) {
	for _, on := range []struct {
		name string
		url  func(testing.TB) string
	}{
		{"sqlite", func(tb testing.TB) string { return "sqlite://" + filepath.Join(tb.TempDir(), "parley.db") }},
		{"postgres", pgtest.NewDatabase},
	} {
		b.Run(on.name, func(b *testing.B) {
			url := on.url(b)
			for _, size := range []int{1, 10, 200} {
				for _, conversations := range []int{1, 100, 10_000} {
					b.Run(fmt.Sprintf("batch=%d/conversations=%d", size, conversations), func(b *testing.B) {
						benchmarkAppend(b, url, size, conversations)
					})
				}
			}
		})
	}
}

func benchmarkAppend(b *testing.B, url string, size, conversations int) {
	ctx := b.Context()
	s, err := persistence.Open(ctx, persistence.Options{URL: url})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(ctx); err != nil {
		b.Fatal(err)
	}
	log := s.Logs()[0]
	var creations []domain.ChangeRequest
	var ids []domain.ConversationID
	for range conversations {
		id := newID()
		ids = append(ids, id)
		creations = append(creations, domain.ChangeRequest{Key: rand.Text(), Decide: func(*domain.Heads) (domain.Decision, error) {
			c := &domain.Conversation{ID: id, Policy: domain.Managed, LastSeq: 1, Version: 1}
			e := &domain.Event{Type: domain.EventCreateConversation, Conversation: id, Seq: 1, ConversationData: c}
			return domain.Decision{Events: []*domain.Event{e}, Conversation: c}, nil
		}})
	}
	if _, err := log.Change(ctx, creations); err != nil {
		b.Fatal(err)
	}
	text := strings.Repeat("x", 200)
	var n uint64
	batch := make([]domain.Draft, size)
	b.ReportAllocs()
	for b.Loop() {
		for i := range batch {
			n++
			// Neighbours in a batch are of different conversations, as far as there are several.
			id := ids[n*7919%uint64(len(ids))]
			batch[i] = domain.Draft{Version: 1, Event: &domain.Event{
				Type: domain.EventSendMessage, Conversation: id, Time: 1, Sender: domain.SenderID(n % 50), ClientID: rand.Text(),
				Initiator: domain.Initiator{UserID: 1, Username: "alice@chat.acme", Device: "phone"}, Action: "sendMessage",
				Message: &domain.Message{Content: domain.Content{Text: text}},
			}}
		}
		placements, err := log.Append(ctx, batch)
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range placements {
			if p.Status != domain.Stored {
				b.Fatalf("placement %+v", p)
			}
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

// newID gives an id that sorts by time, as the gateway makes them.
func newID() domain.ConversationID {
	var id domain.ConversationID
	if _, err := rand.Read(id[:]); err != nil {
		panic(err)
	}
	binary.BigEndian.PutUint32(id[:], 0x01900000)
	return id
}
