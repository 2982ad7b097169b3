package storetest

import (
	"context"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

// committers gives every log of the stores together with the world of its store.
func committers(worlds ...*World) (logs []Log, of []*World) {
	for _, w := range worlds {
		for _, l := range w.Store.Committers() {
			logs, of = append(logs, l), append(of, w)
		}
	}
	return logs, of
}

// worlds opens a place once, or twice where that is allowed.
func worlds(t *testing.T, b Backend, users int) []*World {
	t.Helper()
	place := b.New(t)
	list := []*World{NewWorld(t, place.Open(t), users)}
	if b.Shared {
		list = append(list, list[0].On(place.Open(t)))
	}
	return list
}

func sequencesHaveNoGap(t *testing.T, b Backend) {
	// The number is the product's central promise: readers find what they have missed by it.
	const conversations, rounds = 20, 40
	all := worlds(t, b, 3)
	w := all[0]
	var heads []*domain.Conversation
	for range conversations {
		heads = append(heads, w.Group(w.Store.Committers()[0], 1, 2))
	}
	logs, of := committers(all...)
	var wg sync.WaitGroup
	for i, log := range logs {
		wg.Go(func() {
			for range rounds {
				var batch []domain.Draft
				for range 1 + mrand.IntN(30) {
					batch = append(batch, of[i].Draft(heads[mrand.IntN(conversations)], mrand.IntN(3), rand.Text(), "text"))
				}
				placements, err := of[i].Append(t.Context(), log, batch...)
				if err != nil {
					t.Error(err)
					return
				}
				for _, p := range placements {
					if p.Status != domain.Stored {
						t.Errorf("a fresh draft is %+v", p)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, w := range all {
		w.Verify()
	}
}

func repeatedDraftsAreStoredOnce(t *testing.T, b Backend) {
	// Senders repeat what was not acknowledged, and committers whole batches.
	all := worlds(t, b, 3)
	w := all[0]
	logs, of := committers(all...)
	c := w.Group(logs[0], 1, 2)
	first := w.Draft(c, 0, "one", "hello")
	batch := []domain.Draft{first, w.Draft(c, 1, "one", "of another sender"), w.Draft(c, 0, "two", "more")}
	equal(t, "first", w.Send(logs[0], batch...), []domain.Placement{{Seq: 2}, {Seq: 3}, {Seq: 4}})

	for i, log := range logs {
		// A new one in between must get the next number; one that is twice in a batch must not be stored twice.
		fresh := w.Draft(c, 2, fmt.Sprint("fresh", i), "new")
		again, err := of[i].Append(t.Context(), log, batch[2], fresh, batch[0], fresh)
		must(t, err)
		n := domain.Seq(5 + i)
		equal(t, "again", again, []domain.Placement{
			{Status: domain.Known, Seq: 4}, {Seq: n}, {Status: domain.Known, Seq: 2}, {Status: domain.Known, Seq: n},
		})
	}

	// The same in another conversation is another message.
	d := w.Group(logs[0], 1)
	equal(t, "elsewhere", w.Send(logs[0], w.Draft(d, 0, "one", "hello")), []domain.Placement{{Seq: 2}})

	// Several committers give the same batches at once: each draft gets one number, the same for all.
	var same [][]domain.Draft
	for i := range 20 {
		var batch []domain.Draft
		for j := range 10 {
			batch = append(batch, w.Draft(c, j%3, fmt.Sprint("same", i, j), "text"))
		}
		same = append(same, batch)
	}
	results := make([][][]domain.Placement, len(logs))
	var wg sync.WaitGroup
	for i, log := range logs {
		wg.Go(func() {
			for _, batch := range same {
				p, err := of[i].Append(t.Context(), log, copies(batch)...)
				if err != nil {
					t.Error(err)
					return
				}
				results[i] = append(results[i], p)
			}
		})
	}
	wg.Wait()
	for i := range results {
		for j := range results[i] {
			for k := range results[i][j] {
				if results[i][j][k].Seq != results[0][j][k].Seq {
					t.Errorf("draft %d of batch %d got the numbers %d and %d", k, j, results[0][j][k].Seq, results[i][j][k].Seq)
				}
			}
		}
	}
	for _, w := range all {
		w.Verify()
	}
}

// copies gives drafts that share no memory with the given ones, as another process would have them.
func copies(batch []domain.Draft) []domain.Draft {
	list := make([]domain.Draft, len(batch))
	for i, d := range batch {
		e := *d.Event
		m := *e.Message
		e.Message = &m
		list[i] = domain.Draft{Event: &e, Version: d.Version}
	}
	return list
}

func draftsOnAnOldHeadAreStale(t *testing.T, b Backend) {
	// Whoever was removed must not write on the strength of a head that was read before.
	w := NewWorld(t, open(t, b), 3)
	log := w.Store.Committers()[0]
	old := w.Group(log, 1)
	known := w.Draft(old, 1, "known", "sent in time")
	w.Send(log, known)
	now := w.Change(log, w.User(0), &domain.AddParticipants{UUID: old.ID, Participants: w.New(2)}).Decision.Conversation

	late, good := w.Draft(old, 1, "late", "too late"), w.Draft(now, 0, "good", "in time")
	got, err := w.Append(t.Context(), log, late, good, known)
	must(t, err)
	equal(t, "placements", got, []domain.Placement{{Status: domain.Stale}, {Seq: 4}, {Status: domain.Known, Seq: 2}})
	got, err = w.Append(t.Context(), log, late)
	must(t, err)
	equal(t, "alone", got, []domain.Placement{{Status: domain.Stale}})
	got, err = w.Append(t.Context(), log, known)
	must(t, err)
	equal(t, "known alone", got, []domain.Placement{{Status: domain.Known, Seq: 2}})
	// Decided again, it is stored.
	late.Version = now.Version
	equal(t, "decided again", w.Send(log, late), []domain.Placement{{Seq: 5}})
	w.Verify()
}

func draftsWithoutAConversationAreMissing(t *testing.T, b Backend) {
	// A missing conversation must not disturb its neighbours in the batch, on either side of it in the order of ids.
	w := NewWorld(t, open(t, b), 2)
	log := w.Store.Committers()[0]
	c, d := w.Group(log, 1), w.Group(log, 1)
	var batch []domain.Draft
	var want []domain.Placement
	for _, id := range []domain.ConversationID{{}, {1}, w.NewID(), {255, 255}} {
		gone := w.Draft(c, 0, "gone", "text")
		gone.Event.Conversation = id
		batch = append(batch, gone)
		want = append(want, domain.Placement{Status: domain.Missing})
	}
	for i := range 2 {
		batch = append(batch, w.Draft(c, 0, fmt.Sprint(i), "text"), w.Draft(d, 0, fmt.Sprint(i), "text"))
		want = append(want, domain.Placement{Seq: domain.Seq(2 + i)}, domain.Placement{Seq: domain.Seq(2 + i)})
	}
	got, err := w.Append(t.Context(), log, batch...)
	must(t, err)
	equal(t, "placements", got, want)
	got, err = w.Append(t.Context(), log, batch[1])
	must(t, err)
	equal(t, "alone", got, want[:1])
	got, err = w.Append(t.Context(), log, batch[:4]...)
	must(t, err)
	equal(t, "all missing", got, want[:4])
	w.Verify()
}

func failedBatchLeavesNoGap(t *testing.T, b Backend) {
	// What fails must be as if it had never been tried.
	w := NewWorld(t, open(t, b), 3)
	log := w.Store.Committers()[0]
	c := w.Group(log, 1)
	before := w.Log(c.ID)

	poison := w.Draft(c, 0, "poison", "text")
	poison.Event.Type = "noSuchEvent"
	_, err := log.Append(t.Context(), []domain.Draft{w.Draft(c, 0, "good", "text"), poison})
	refused(t, "append", err, domain.Internal)
	nameless := w.Draft(c, 0, "", "text")
	_, err = log.Append(t.Context(), []domain.Draft{w.Draft(c, 0, "good", "text"), nameless})
	refused(t, "append without a client id", err, domain.Internal)

	// The second request of this batch fails when the first is written already.
	good := w.Request(w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(2)})
	bad := good
	bad.Key = "bad"
	bad.Decide = func(h *domain.Heads) (domain.Decision, error) {
		d, err := domain.Decide(withTime(h, w), w.User(0), &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(1)}})
		if err == nil {
			d.Events[0].ConversationData.CustomData = domain.RawObject("not JSON")
		}
		return d, err
	}
	bad.Needs = (&domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(1)}}).Needs(w.User(0))
	_, err = log.Change(t.Context(), []domain.ChangeRequest{good, bad})
	refused(t, "change", err, domain.Internal)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = log.Append(ctx, []domain.Draft{w.Draft(c, 0, "given up", "text")})
	refused(t, "given up append", err, domain.Unavailable)
	_, err = log.Change(ctx, []domain.ChangeRequest{good})
	refused(t, "given up change", err, domain.Unavailable)

	equal(t, "log", w.Log(c.ID), before)
	equal(t, "head", w.Head(c.ID), c)
	equal(t, "next", w.Send(log, w.Draft(c, 0, "good", "text")), []domain.Placement{{Seq: 2}})
	if changed := w.Try(log, good)[0]; changed.Err != nil || changed.Decision.Events[0].Seq != 3 {
		t.Errorf("the good change alone: %+v", changed)
	}
	w.Verify()
}

func withTime(h *domain.Heads, w *World) *domain.Heads {
	h.Now, h.NewID, h.Limits = w.Now(), w.NewID(), domain.DefaultLimits()
	return h
}

func largestBatchFits(t *testing.T, b Backend) {
	// 512 commands, or what fits in 1 MiB, is the most that the gateway gives at once.
	w := NewWorld(t, open(t, b), 2)
	log := w.Store.Committers()[0]
	var creations []domain.ChangeRequest
	for range 512 {
		creations = append(creations, w.Request(w.User(0), &domain.CreateConversation{Participants: w.New(1)}))
	}
	var batch []domain.Draft
	for i, changed := range w.Try(log, creations...) {
		if changed.Err != nil {
			t.Fatal(changed.Err)
		}
		text := strings.Repeat("ä", 1000)
		if i == 0 {
			text = strings.Repeat("x", 5000)
		}
		batch = append(batch, w.Draft(changed.Decision.Conversation, 0, strings.Repeat("🗝", 64), text))
	}
	for _, p := range w.Send(log, batch...) {
		if p.Seq != 2 {
			t.Errorf("placement %+v", p)
		}
	}
	w.Verify()
	must(t, empty(log, t.Context()))
}

// empty gives a log nothing to do.
func empty(log Log, ctx context.Context) error { //nolint:revive // The log is what this is about.
	if p, err := log.Append(ctx, nil); err != nil || len(p) != 0 {
		return fmt.Errorf("appending nothing: %v, %w", p, err)
	}
	if c, err := log.Change(ctx, nil); err != nil || len(c) != 0 {
		return fmt.Errorf("changing nothing: %v, %w", c, err)
	}
	return nil
}
