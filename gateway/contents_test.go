package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

// cupboard keeps content in memory, and makes its URLs.
type cupboard struct {
	life time.Duration

	mu     sync.Mutex
	kept   map[domain.ContentID]domain.ExternalContent
	claims []domain.ContentClaim
	away   int // how many claims fail from now on
	known  bool
}

const one = domain.ContentID("0123456789abcdef0123456789abcdef")

func newCupboard(life time.Duration) *cupboard {
	return &cupboard{life: life, kept: map[domain.ContentID]domain.ExternalContent{
		one: {ID: one, MimeType: "a/b", Size: 5, Received: 5, Complete: true, Root: 1, Readable: true},
	}}
}

func (s *cupboard) options(o *gateway.Options) {
	o.Links, o.Contents = s, s
	o.Limits = domain.DefaultLimits()
	o.Limits.ContentURL = "https://chat.example.com"
}

// Claim implements gateway.Contents.
func (s *cupboard) Claim(_ context.Context, claims []domain.ContentClaim, _ int64) ([]domain.ClaimedContent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away > 0 {
		s.away--
		return nil, errGone()
	}
	s.claims = append(s.claims, claims...)
	answers := make([]domain.ClaimedContent, len(claims))
	for i, c := range claims {
		answers[i].Known = s.known
		for _, id := range c.External {
			if x, ok := s.kept[id]; ok && !s.known {
				answers[i].External = append(answers[i].External, x)
			}
		}
	}
	return answers, nil
}

// Download implements domain.Links.
func (s *cupboard) Download(id domain.ContentID) (url string, expires int64) {
	until := domain.Millis(time.Now().Add(s.life))
	return fmt.Sprintf("https://chat.example.com%s?expires=%d", domain.ContentPath(id), until), until
}

// Upload implements domain.Links.
func (s *cupboard) Upload(id domain.ContentID) (url string, expires int64) { return s.Download(id) }

func naming(c domain.ConversationID, id domain.ContentID, client string) *domain.SendMessage {
	m := message(c, "", client)
	m.Parts = []domain.Part{{MimeType: "a/b", Content: id}}
	return m
}

// shown gives the parts with content in the events of a conversation that a client got.
func (c *client) shown(id domain.ConversationID) (parts []domain.Part) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.events[id] {
		if e.Message != nil {
			parts = append(parts, e.Message.Parts...)
		}
	}
	return parts
}

// logged gives an event as the store has it.
func (w *world) logged(c domain.ConversationID, seq domain.Seq) *domain.Event {
	w.t.Helper()
	for _, e := range w.store.events(c) {
		if e.Seq == seq {
			return e
		}
	}
	w.t.Fatalf("there is no event %d", seq)
	return nil
}

func TestURLsAreGoodWhenTheyAreDelivered(t *testing.T) {
	// An event may be delivered long after it was encoded for others: by then the URLs in it must not have ended. Until
	// then all recipients share one encoding.
	synctest.Test(t, func(t *testing.T) {
		s := newCupboard(time.Hour)
		w := newWorld(t, s.options)
		c := w.converse(1, 2, 3)
		bob, carol := w.subscriber(2), w.subscriber(2, device("another"))
		late := w.subscriber(3, slow(func() time.Duration { return 50 * time.Minute }))
		w.do(1, message(c, "one before, which keeps the late one busy", ""))
		sent := w.do(1, naming(c, one, "m"))
		if got := sent.Result.Message.Parts[0]; !strings.HasPrefix(got.URL, "https://chat.example.com/v1/content/") || got.Content != one || got.Size != 5 {
			t.Errorf("the sender is shown %+v", got)
		}
		w.settle()
		got := bob.shown(c)
		if len(got) != 1 || got[0].URL == "" || len(carol.shown(c)) != 1 || len(late.shown(c)) != 0 {
			t.Fatalf("delivered: %v, %v, and to the late one %v", got, carol.shown(c), late.shown(c))
		}
		if bob.deliveries[1].Publication != carol.deliveries[1].Publication {
			t.Error("two readers got two publications")
		}
		// In the log there is no URL.
		if p := w.logged(c, sent.Seq).Message.Parts[0]; p.URL != "" || p.URLExpires != 0 || p.Content != one {
			t.Errorf("stored: %+v", p)
		}
		events := &domain.RetransmitEvents{Conversation: c, From: ptr(int64(sent.Seq)), Count: ptr(int64(1))}
		w.pass(50 * time.Minute)
		if again := late.shown(c); len(again) != 1 || again[0].URLExpires < domain.Millis(time.Now().Add(30*time.Minute)) {
			t.Errorf("delivered late: %+v", again)
		}
		until := domain.Millis(time.Now().Add(time.Hour))
		if p := w.do(2, events).Result.Events[0].Message.Parts[0]; p.URLExpires != until {
			t.Errorf("retransmitted with a URL that ends in %v", time.Until(time.UnixMilli(p.URLExpires)))
		}
	})
}

func TestContentIsClaimedBeforeItsMessageIsStored(t *testing.T) {
	// Otherwise it could be removed under it. A claim that fails for the moment is made again, and what has no content
	// does not wait for it.
	synctest.Test(t, func(t *testing.T) {
		s := newCupboard(time.Hour)
		w := newWorld(t, s.options)
		c := w.converse(1, 2)
		s.away = 2
		r := w.do(1, naming(c, one, "m"))
		if len(s.claims) != 1 || s.claims[0].ClientID != "m" || s.claims[0].Conversation != c || s.claims[0].External[0] != one || r.Seq == 0 {
			t.Errorf("claims %+v, receipt %+v", s.claims, r)
		}
		// Without an id of its own the message has one all the same, by which it is stored.
		var stored string
		w.store.set(func() {
			w.store.beforeCommit = func(_ context.Context, c commit) error {
				stored = c.drafts[0].Event.ClientID
				return nil
			}
		})
		w.do(1, naming(c, one, ""))
		if stored == "" || stored != s.claims[1].ClientID {
			t.Errorf("claimed as %q, stored as %q", s.claims[1].ClientID, stored)
		}
		w.do(1, message(c, "hi", ""))
		if len(s.claims) != 2 {
			t.Errorf("a message without content made a claim: %+v", s.claims[2:])
		}
		other := domain.ContentID(strings.Repeat("f", 32))
		missing := w.start(w.user(1), naming(c, other, ""))
		w.settle()
		if missing.code() != domain.NotFound {
			t.Errorf("content that is not there: %v", missing.err)
		}
		// A store that stays away: the message is refused, and not stored.
		before := w.store.last(c)
		s.away = 1 << 30
		a := w.start(w.user(1), naming(c, one, "late"))
		w.pass(time.Minute)
		if a.code() != domain.Unavailable || w.store.last(c) != before {
			t.Errorf("while the store is away: %v, last event %d", a.err, w.store.last(c))
		}
		// Known already: whatever has become of its content.
		s.away, s.known = 0, true
		if r := w.do(1, naming(c, other, "m")); !r.Duplicate || r.Seq != 2 {
			t.Errorf("the same message again: %+v", r)
		}
	})
}
