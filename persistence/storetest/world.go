package storetest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

// World is a store with some users in it, and what a test needs to make commands of theirs. Its methods may be used by
// several goroutines.
type World struct {
	tb    testing.TB
	Store Store
	Users []domain.User

	clock atomic.Int64
	ids   atomic.Uint32

	prefix [4]byte // of ids

	mu    sync.Mutex // guards acked
	acked map[domain.ConversationID]map[ack]domain.Seq
}

type ack struct {
	sender domain.SenderID
	client string
}

// NewWorld makes a world with users of one account in the store.
func NewWorld(tb testing.TB, s Store, users int) *World {
	tb.Helper()
	w := &World{tb: tb, Store: s, acked: make(map[domain.ConversationID]map[ack]domain.Seq)}
	random(w.prefix[:])
	w.clock.Store(1_700_000_000_000)
	app := fmt.Sprintf("chat.a%x", w.prefix[:])
	for i := range users {
		u, err := s.CreateUser(tb.Context(), domain.NewUser{
			Username: domain.Username(fmt.Sprintf("user%03d@%s", i, app)), DisplayName: fmt.Sprintf("User %d", i), MakeAccount: true,
		})
		if err != nil {
			tb.Fatal(err)
		}
		w.Users = append(w.Users, u)
	}
	return w
}

func random(b []byte) { _, _ = rand.Read(b) } // Never fails, by its documentation.

// NewID gives a conversation id that nobody has used.
func (w *World) NewID() domain.ConversationID {
	var id domain.ConversationID
	random(id[8:])
	copy(id[:4], w.prefix[:])
	binary.BigEndian.PutUint32(id[4:], w.ids.Add(1))
	return id
}

// Now gives a time that has not been given before.
func (w *World) Now() int64 { return w.clock.Add(1) }

// On gives the world with another store, that has the same place open.
func (w *World) On(s Store) *World {
	v := &World{tb: w.tb, Store: s, Users: w.Users, acked: make(map[domain.ConversationID]map[ack]domain.Seq)}
	v.clock.Store(w.clock.Load())
	random(v.prefix[:])
	return v
}

// Request makes the request of a command.
func (w *World) Request(p domain.Principal, c domain.Command) domain.ChangeRequest {
	id := w.NewID()
	return domain.ChangeRequest{
		Key: rand.Text(), Principal: p, Needs: c.Needs(p),
		Decide: func(h *domain.Heads) (domain.Decision, error) {
			h.Now, h.NewID, h.Limits = w.Now(), id, domain.DefaultLimits()
			return domain.Decide(h, p, c)
		},
	}
}

// Edit makes a request that changes a conversation's state as edit says, with an event: one that could be carried out
// any number of times.
func (w *World) Edit(id domain.ConversationID, edit func(*domain.Conversation)) domain.ChangeRequest {
	p := w.User(0)
	return domain.ChangeRequest{
		Key: rand.Text(), Principal: p, Needs: domain.Needs{Conversation: id},
		Decide: func(h *domain.Heads) (domain.Decision, error) {
			if h.Conversation == nil {
				return domain.Decision{}, domain.Errorf(domain.ConversationNotFound, "no conversation %s", id)
			}
			c := *h.Conversation
			c.Participants = slices.Clone(c.Participants)
			c.LastSeq++
			c.Version++
			edit(&c)
			e := &domain.Event{
				Type: domain.EventEditConversation, Time: w.Now(), Initiator: p.Initiator(), Action: "editConversation",
				ConversationData: &c, Sender: p.Sender(),
			}
			e.At(id, c.LastSeq)
			return domain.Decision{Events: []*domain.Event{e}, Conversation: &c, Result: domain.Result{Conversation: &c}}, nil
		},
	}
}

// Retitle makes a request that gives a conversation another title.
func (w *World) Retitle(id domain.ConversationID, title string) domain.ChangeRequest {
	return w.Edit(id, func(c *domain.Conversation) { c.Title = title })
}

// Rewrite makes a request that edits a message (or removes it, if text is empty), with its event.
func (w *World) Rewrite(id domain.ConversationID, message domain.Seq, text string) domain.ChangeRequest {
	p := w.User(0)
	return domain.ChangeRequest{
		Key: rand.Text(), Principal: p, Needs: domain.Needs{Conversation: id, Message: message},
		Decide: func(h *domain.Heads) (domain.Decision, error) {
			if h.Message == nil {
				return domain.Decision{}, domain.Errorf(domain.MessageNotFound, "no message %d", message)
			}
			if h.Message.Message.Removed {
				return domain.Decision{}, domain.Errorf(domain.MessageRemoved, "message %d was removed", message)
			}
			old := *h.Message
			m := *old.Message
			old.Message = &m
			e := &domain.Event{
				Type: domain.EventEditMessage, Time: w.Now(), Initiator: p.Initiator(), Action: "editMessage", Sender: p.Sender(),
			}
			if text == "" {
				m.Content, m.Removed = domain.Content{}, true
				e.Type, e.Action = domain.EventRemoveMessage, "removeMessage"
				e.Message = &domain.Message{ID: m.ID, Conversation: m.Conversation, Seq: m.Seq}
			} else {
				m.Text, m.EditCount, m.EditedTime = text, m.EditCount+1, e.Time
				now := m
				e.Message = &now
			}
			e.At(id, h.Conversation.LastSeq+1)
			return domain.Decision{Events: []*domain.Event{e}, Message: &old, Result: domain.Result{Message: &m}}, nil
		},
	}
}

// User gives a user as one who acts.
func (w *World) User(i int) domain.Principal { return w.Users[i].Principal("device") }

// Ref names a user.
func (w *World) Ref(i int) domain.UserRef { return domain.UserRef{UserID: w.Users[i].ID} }

// New names users to be brought in.
func (w *World) New(users ...int) []domain.NewParticipant {
	var list []domain.NewParticipant
	for _, i := range users {
		list = append(list, domain.NewParticipant{UserRef: w.Ref(i)})
	}
	return list
}

// Change has a command decided and stored; a refusal fails the test.
func (w *World) Change(log Log, p domain.Principal, c domain.Command) domain.Changed {
	w.tb.Helper()
	changed := w.Try(log, w.Request(p, c))[0]
	if changed.Err != nil {
		w.tb.Fatalf("%s: %v", c.Name(), changed.Err)
	}
	return changed
}

// Try has requests decided and stored.
func (w *World) Try(log Log, batch ...domain.ChangeRequest) []domain.Changed {
	w.tb.Helper()
	changed, err := log.Change(w.tb.Context(), batch)
	if err != nil {
		w.tb.Fatal(err)
	}
	if len(changed) != len(batch) {
		w.tb.Fatalf("%d outcomes for %d requests", len(changed), len(batch))
	}
	return changed
}

// Group makes a conversation of the first user with the others.
func (w *World) Group(log Log, users ...int) *domain.Conversation {
	w.tb.Helper()
	return w.Change(log, w.User(0), &domain.CreateConversation{Participants: w.New(users...)}).Decision.Conversation
}

// Draft makes a draft of a message, decided on the head c.
func (w *World) Draft(c *domain.Conversation, user int, client, text string) domain.Draft {
	w.tb.Helper()
	m := &domain.SendMessage{Conversation: c.ID}
	m.ClientID, m.Text = client, text
	d, err := domain.Decide(&domain.Heads{Conversation: c, Now: w.Now(), Limits: domain.DefaultLimits()}, w.User(user), m)
	if err != nil {
		w.tb.Fatal(err)
	}
	return domain.Draft{Event: d.Events[0], Version: c.Version}
}

// Append stores drafts and notes what was acknowledged for [World.Verify].
func (w *World) Append(ctx context.Context, log Log, batch ...domain.Draft) ([]domain.Placement, error) {
	placements, err := log.Append(ctx, batch)
	if err != nil {
		return nil, err
	}
	if len(placements) != len(batch) {
		w.tb.Errorf("%d placements for %d drafts", len(placements), len(batch))
		return placements, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, p := range placements {
		e := batch[i].Event
		if p.Status != domain.Stored && p.Status != domain.Known {
			continue
		}
		if w.acked[e.Conversation] == nil {
			w.acked[e.Conversation] = make(map[ack]domain.Seq)
		}
		a := ack{e.Sender, e.ClientID}
		if was, again := w.acked[e.Conversation][a]; again && was != p.Seq {
			w.tb.Errorf("draft %+v of conversation %s was acknowledged as %d and as %d", a, e.Conversation, was, p.Seq)
		}
		w.acked[e.Conversation][a] = p.Seq
	}
	return placements, nil
}

// Send is [World.Append] where every draft must be stored.
func (w *World) Send(log Log, batch ...domain.Draft) []domain.Placement {
	w.tb.Helper()
	placements, err := w.Append(w.tb.Context(), log, batch...)
	if err != nil {
		w.tb.Fatal(err)
	}
	for i, p := range placements {
		if p.Status != domain.Stored {
			w.tb.Fatalf("draft %d: %+v", i, p)
		}
	}
	return placements
}

// Head reads a conversation.
func (w *World) Head(id domain.ConversationID) *domain.Conversation {
	w.tb.Helper()
	h, err := w.Store.Heads(w.tb.Context(), domain.Principal{Admin: true}, domain.Needs{Conversation: id})
	if err != nil {
		w.tb.Fatal(err)
	}
	if h.Conversation == nil {
		w.tb.Fatalf("conversation %s is not there", id)
	}
	return h.Conversation
}

// Log reads all events of a conversation and checks its numbers: from 1 to the head's last one without a gap.
func (w *World) Log(id domain.ConversationID) []*domain.Event {
	w.tb.Helper()
	last := w.Head(id).LastSeq
	list, err := w.Store.Events(w.tb.Context(), id, 0, last+10)
	if err != nil {
		w.tb.Fatal(err)
	}
	if len(list) != int(last) {
		w.tb.Errorf("conversation %s has %d events, but its last number is %d", id, len(list), last)
	}
	seen := make(map[ack]domain.Seq)
	for i, e := range list {
		if e.Seq != domain.Seq(i+1) || e.Conversation != id {
			w.tb.Fatalf("event %d of conversation %s is at position %d of %s", e.Seq, e.Conversation, i+1, id)
		}
		a := ack{e.Sender, e.ClientID}
		if was, twice := seen[a]; twice && e.ClientID != "" {
			w.tb.Errorf("conversation %s: %+v is there twice, as %d and %d", id, a, was, e.Seq)
		}
		seen[a] = e.Seq
	}
	return list
}

// Verify checks all conversations that something was acknowledged in: see [World.Log]; and each acknowledged draft is
// where the acknowledgement said.
func (w *World) Verify() {
	w.tb.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, acked := range w.acked {
		list := w.Log(id)
		for a, seq := range acked {
			if int(seq) > len(list) {
				w.tb.Errorf("conversation %s: %+v was acknowledged as %d and is lost", id, a, seq)
				continue
			}
			if e := list[seq-1]; e.ClientID != a.client || e.Sender != a.sender {
				w.tb.Errorf("conversation %s: %+v was acknowledged as %d, where %q of %d is", id, a, seq, e.ClientID, e.Sender)
			}
		}
	}
}

// equal fails the test if two values differ.
func equal(tb testing.TB, what string, got, want any, options ...cmp.Option) {
	tb.Helper()
	if diff := cmp.Diff(want, got, options...); diff != "" {
		tb.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// refused fails the test unless err is a refusal of the code.
func refused(tb testing.TB, what string, err error, code domain.Code) {
	tb.Helper()
	if got := domain.CodeOf(err); got != code {
		tb.Errorf("%s: got %q (%v), want %q", what, got, err, code)
	}
}

// must fails the test on an error.
func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
