package storetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

// ContentKeeper is what keeps external content, and which messages have it.
type ContentKeeper interface {
	gateway.Contents
	Uploads
	ContentCleaner
}

// Uploads is what keeps how far uploads have come.
type Uploads interface {
	CreateContent(ctx context.Context, x domain.ExternalContent, quota domain.ContentQuota) error
	Content(ctx context.Context, id domain.ContentID) (domain.StoredContent, error)
	ReserveBlob(ctx context.Context, id domain.ContentID, key string, until int64) error
	AppendBlob(ctx context.Context, id domain.ContentID, blob domain.ContentBlob, digest []byte, sum string, now int64) error
	RestartContent(ctx context.Context, id domain.ContentID, received, now int64) error
}

// ContentCleaner is what removes external content.
type ContentCleaner interface {
	SettleUses(ctx context.Context, until int64) (more bool, err error)
	RemoveUnused(ctx context.Context, since int64) (removed int, more bool, err error)
	TakeDoomed(ctx context.Context, now, until int64) (keys []string, err error)
	ForgetBlobs(ctx context.Context, keys []string) error
}

// content announces content of a user.
func (w *World) content(user int, size int64) domain.ContentID {
	w.tb.Helper()
	var id [16]byte
	random(id[:])
	x := domain.ExternalContent{
		ID: domain.ContentID(fmt.Sprintf("%x", id)), MimeType: "a/b", Size: size, Created: w.Now(), Owner: w.User(user).Sender(),
		Root: w.User(user).Root,
	}
	must(w.tb, w.Store.CreateContent(w.tb.Context(), x, domain.ContentQuota{}))
	return x.ID
}

// bring adds a piece to content, and gives its key.
func (w *World) bring(id domain.ContentID, start, size int64) (string, error) {
	w.tb.Helper()
	key := strings.ToLower(rand.Text())
	must(w.tb, w.Store.ReserveBlob(w.tb.Context(), id, key, w.Now()+1000))
	return key, w.Store.AppendBlob(w.tb.Context(), id, domain.ContentBlob{Key: key, Start: start, Size: size}, []byte(key), "", w.Now())
}

// whole makes content that is complete.
func (w *World) whole(user int) domain.ContentID {
	w.tb.Helper()
	id := w.content(user, 10)
	_, err := w.bring(id, 0, 10)
	must(w.tb, err)
	return id
}

// share sends a message that names content.
func (w *World) share(log Log, c *domain.Conversation, user int, client string, ids ...domain.ContentID) domain.Placement {
	w.tb.Helper()
	w.claim(c, user, client, ids...)
	d := w.Draft(c, user, client, "with content")
	for _, id := range ids {
		d.Event.Message.Parts = append(d.Event.Message.Parts, domain.Part{MimeType: "a/b", Content: id, Size: 10})
	}
	return w.Send(log, d)[0]
}

func (w *World) claim(c *domain.Conversation, user int, client string, ids ...domain.ContentID) domain.ClaimedContent {
	w.tb.Helper()
	answers, err := w.Store.Claim(w.tb.Context(), []domain.ContentClaim{{
		Principal: w.User(user), Conversation: c.ID, ClientID: client, External: ids,
	}}, w.Now())
	must(w.tb, err)
	if len(answers) != 1 {
		w.tb.Fatalf("%d answers to one claim", len(answers))
	}
	return answers[0]
}

// there tells which of the contents exist.
func (w *World) there(ids ...domain.ContentID) (list []bool) {
	w.tb.Helper()
	for _, id := range ids {
		_, err := w.Store.Content(w.tb.Context(), id)
		if domain.CodeOf(err) != domain.NotFound {
			must(w.tb, err)
		}
		list = append(list, err == nil)
	}
	return list
}

// doomed takes the pieces that are to be removed.
func (w *World) doomed() []string {
	w.tb.Helper()
	keys, err := w.Store.TakeDoomed(w.tb.Context(), w.Now(), w.Now()+1_000_000)
	must(w.tb, err)
	slices.Sort(keys)
	return keys
}

func contentGrows(t *testing.T, b Backend) {
	// Of several requests that go on with one upload one wins each time, so that bytes are never mixed; and no piece is
	// forgotten, whatever became of it.
	place := b.New(t)
	w := NewWorld(t, place.Open(t), 1)
	ctx := t.Context()
	id := w.content(0, 100)
	var mu sync.Mutex
	var kept, lost []string
	for start := int64(0); start < 100; start += 10 {
		var all sync.WaitGroup
		won := 0
		for range 4 {
			all.Go(func() {
				key := strings.ToLower(rand.Text())
				err := w.Store.ReserveBlob(ctx, id, key, w.Now()+1_000_000)
				if err == nil {
					err = w.Store.AppendBlob(ctx, id, domain.ContentBlob{Key: key, Start: start, Size: 10}, []byte(key), "", w.Now())
				}
				mu.Lock()
				defer mu.Unlock()
				switch domain.CodeOf(err) {
				case "":
					won++
					kept = append(kept, key)
				case domain.AlreadyExists:
					lost = append(lost, key)
				default:
					t.Errorf("at %d: %v", start, err)
				}
			})
		}
		all.Wait()
		if won != 1 {
			t.Fatalf("at %d, %d of four requests went on with the upload", start, won)
		}
	}
	x, err := w.Store.Content(ctx, id)
	must(t, err)
	var keys []string
	for i, blob := range x.Blobs {
		if blob.Start != int64(10*i) || blob.Size != 10 {
			t.Errorf("piece %d: %+v", i, blob)
		}
		keys = append(keys, blob.Key)
	}
	equal(t, "pieces", keys, kept)
	if !x.Complete || x.Received != 100 || string(x.Digest) != kept[len(kept)-1] {
		t.Errorf("content: %+v", x)
	}
	// What is complete is neither extended nor begun anew.
	if _, err := w.bring(id, 100, 1); domain.CodeOf(err) == "" {
		t.Error("complete content was extended")
	}
	refused(t, "complete", w.Store.RestartContent(ctx, id, 100, w.Now()), domain.AlreadyExists)

	cut := w.content(0, 100)
	first, err := w.bring(cut, 0, 5)
	must(t, err)
	refused(t, "another state", w.Store.RestartContent(ctx, cut, 4, w.Now()), domain.AlreadyExists)
	must(t, w.Store.RestartContent(ctx, cut, 5, w.Now()))
	equal(t, "doomed by beginning anew", w.doomed(), []string{first})
	if x, err = w.Store.Content(ctx, cut); err != nil || x.Received != 0 || len(x.Blobs) != 0 || x.Digest != nil {
		t.Errorf("begun anew: %+v, %v", x, err)
	}
	// Pieces that came too late are taken when their time has come, by one taker at a time, and again if that one fails.
	w.clock.Add(2_000_000)
	slices.Sort(lost)
	var got []string
	for {
		some := w.doomed()
		if len(some) == 0 {
			break
		}
		got = append(got, some...)
	}
	for _, key := range lost {
		if !slices.Contains(got, key) {
			t.Errorf("the piece %s is forgotten", key)
		}
	}
	for _, key := range kept {
		if slices.Contains(got, key) {
			t.Errorf("the piece %s of complete content is to be removed", key)
		}
	}
	must(t, w.Store.ForgetBlobs(ctx, got[1:]))
	w.clock.Add(2_000_000)
	equal(t, "taken again", w.doomed(), got[:1])
}

func contentFollowsMessages(t *testing.T, b Backend) {
	// Content stays for as long as a message has it, and no longer; what was claimed for a message that was never stored
	// counts for nothing in the end.
	place := b.New(t)
	w := NewWorld(t, place.Open(t), 3)
	log := w.Store.Committers()[0]
	ctx := t.Context()
	c := w.Group(log, 1)
	clean := func() {
		t.Helper()
		w.clock.Add(10_000)
		_, err := w.Store.SettleUses(ctx, w.Now())
		must(t, err)
		_, _, err = w.Store.RemoveUnused(ctx, w.Now()-5_000)
		must(t, err)
	}
	one, both, never, refusedOne := w.whole(0), w.whole(0), w.whole(0), w.whole(0)
	m := w.share(log, c, 0, "m", one, both)
	n := w.share(log, c, 1, "n", both) // who may read it passes it on
	w.claim(c, 0, "refused", refusedOne)
	if got := w.claim(c, 0, "m", never); !got.Known || len(got.External) != 0 {
		t.Errorf("a claim for a message that is stored: %+v", got)
	}
	if got := w.claim(c, 2, "x", one); len(got.External) != 1 || got.External[0].Readable {
		t.Errorf("a claim of who takes no part: %+v", got)
	}
	clean()
	equal(t, "after a time", w.there(one, both, never, refusedOne), []bool{true, true, false, false})
	if left := w.doomed(); len(left) != 2 {
		t.Errorf("pieces to be removed: %v", left)
	}
	w.Try(log, w.Rewrite(c.ID, m.Seq, ""))
	equal(t, "after a removal", w.there(one, both), []bool{false, true})
	if got := w.claim(c, 0, "again", one); len(got.External) != 0 {
		t.Errorf("a claim on content of a removed message: %+v", got)
	}
	w.Try(log, w.Rewrite(c.ID, n.Seq, "an edit without parts")) // the parts stay
	equal(t, "after an edit", w.there(both), []bool{true})
	w.Try(log, w.Rewrite(c.ID, n.Seq, ""))
	equal(t, "after both", w.there(both), []bool{false})
	clean()
	if left := w.doomed(); len(left) != 2 {
		t.Errorf("pieces to be removed: %v", left)
	}
	for _, cell := range place.Dump(t) {
		for _, id := range []domain.ContentID{one, both, never, refusedOne} {
			if string(cell) == string(id) && len(w.there(id)) == 1 && w.there(id)[0] {
				t.Errorf("%s is still there", id)
			}
		}
	}
}

func contentIsNotRemovedUnderAMessage(t *testing.T, b Backend) {
	// Removing meets sending: a message that was stored with content has it, or it was refused before.
	place := b.New(t)
	w := NewWorld(t, place.Open(t), 1)
	log := w.Store.Committers()[0]
	c := w.Group(log)
	ids := make([]domain.ContentID, 40)
	for i := range ids {
		ids[i] = w.whole(0)
	}
	stop := make(chan struct{})
	var cleaner sync.WaitGroup
	cleaner.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, _, err := w.Store.RemoveUnused(t.Context(), w.clock.Load()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var stored []domain.ContentID
	for i, id := range ids {
		client := fmt.Sprintf("m%d", i)
		if got := w.claim(c, 0, client, id); len(got.External) == 0 {
			continue // removed before: the message is refused
		}
		w.Send(log, w.Draft(c, 0, client, "x"))
		stored = append(stored, id)
	}
	close(stop)
	cleaner.Wait()
	for i, there := range w.there(stored...) {
		if !there {
			t.Errorf("the content of message %d of %d was removed", i, len(stored))
		}
	}
}
