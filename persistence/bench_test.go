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
	"github.com/parley-im/parley/persistence/storetest"
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

// BenchmarkChange measures one committer with changes of one conversation each, by the size of its batches.
func BenchmarkChange(b *testing.B) {
	onBoth(b, func(b *testing.B, s store) {
		w := storetest.NewWorld(b, s, 3)
		log := s.Committers()[0]
		var ids []domain.ConversationID
		for range 100 {
			ids = append(ids, w.Group(log, 1, 2).ID)
		}
		for _, size := range []int{1, 10} {
			b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
				n := 0
				for b.Loop() {
					var batch []domain.ChangeRequest
					for range size {
						n++
						batch = append(batch, w.Retitle(ids[n%len(ids)], "title"))
					}
					w.Try(log, batch...)
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "changes/s")
			})
		}
	})
}

// BenchmarkRead measures one reader: the head of a group of ten, and pages of 100 events.
func BenchmarkRead(b *testing.B) {
	onBoth(b, func(b *testing.B, s store) {
		w := storetest.NewWorld(b, s, 10)
		log := s.Committers()[0]
		c := w.Group(log, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		for range 50 {
			var batch []domain.Draft
			for range 100 {
				batch = append(batch, w.Draft(c, 0, rand.Text(), strings.Repeat("x", 200)))
			}
			w.Send(log, batch...)
		}
		b.Run("head", func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Heads(b.Context(), w.User(0), domain.Needs{Conversation: c.ID}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("page", func(b *testing.B) {
			n := domain.Seq(0)
			for b.Loop() {
				n = (n + 100) % 4900
				list, err := s.Events(b.Context(), c.ID, n, n+100)
				if err != nil || len(list) != 100 {
					b.Fatal(len(list), err)
				}
			}
		})
	})
}

func onBoth(b *testing.B, f func(*testing.B, store)) {
	b.Run("sqlite", func(b *testing.B) { f(b, open(b, file(b))) })
	b.Run("postgres", func(b *testing.B) { f(b, open(b, pgtest.NewDatabase(b))) })
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
