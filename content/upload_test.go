package content_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/parley-im/parley/content"
	"github.com/parley-im/parley/domain"
)

// ledger is a store of one process, for what cannot be provoked from the outside.
type ledger struct {
	content.Cleaning

	mu   sync.Mutex
	kept map[domain.ContentID]domain.StoredContent
	// down makes every change fail, as a store does that is away.
	down bool
	// reserved counts the pieces that were to be written.
	reserved int
}

func newLedger() *ledger { return &ledger{kept: make(map[domain.ContentID]domain.StoredContent)} }

func (l *ledger) change(id domain.ContentID, f func(x *domain.StoredContent) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return domain.Errorf(domain.Unavailable, "away")
	}
	x := l.kept[id]
	x.Blobs = slices.Clone(x.Blobs)
	if err := f(&x); err != nil {
		return err
	}
	x.Complete = x.Received == x.Size
	l.kept[id] = x
	return nil
}

func (l *ledger) CreateContent(_ context.Context, x domain.ExternalContent, _ domain.ContentQuota) error {
	return l.change(x.ID, func(at *domain.StoredContent) error {
		at.ExternalContent = x
		return nil
	})
}

func (l *ledger) Content(_ context.Context, id domain.ContentID) (domain.StoredContent, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x, ok := l.kept[id]
	if !ok {
		return x, domain.Errorf(domain.NotFound, "none")
	}
	return x, nil
}

func (l *ledger) ReserveBlob(_ context.Context, id domain.ContentID, _ string, _ int64) error {
	return l.change(id, func(*domain.StoredContent) error {
		l.reserved++
		return nil
	})
}

func (l *ledger) AppendBlob(_ context.Context, id domain.ContentID, blob domain.ContentBlob, digest []byte, sum string, _ int64) error {
	return l.change(id, func(x *domain.StoredContent) error {
		if x.Received != blob.Start {
			return domain.Errorf(domain.AlreadyExists, "elsewhere")
		}
		x.Received, x.Digest, x.SHA256, x.Blobs = x.Received+blob.Size, digest, sum, append(x.Blobs, blob)
		return nil
	})
}

func (l *ledger) RestartContent(_ context.Context, id domain.ContentID, received, _ int64) error {
	return l.change(id, func(x *domain.StoredContent) error {
		if x.Received != received {
			return domain.Errorf(domain.AlreadyExists, "elsewhere")
		}
		x.Received, x.Digest, x.Blobs = 0, nil, nil
		return nil
	})
}

// disk is a directory that can be full.
type disk struct {
	content.Blobs
	full, torn bool
}

var errFull = errors.New("no space left on device")

func (d *disk) Create(ctx context.Context, key string) (content.Writer, error) {
	w, err := d.Blobs.Create(ctx, key)
	return &onDisk{w, d}, err
}

type onDisk struct {
	content.Writer
	d *disk
}

func (w *onDisk) Write(b []byte) (int, error) {
	if w.d.full {
		return 0, errFull
	}
	return w.Writer.Write(b)
}

func (w *onDisk) Commit(ctx context.Context) error {
	if w.d.torn {
		w.Abort()
		return errFull
	}
	return w.Writer.Commit(ctx)
}

// stream is a body that breaks off with an error, if it has one.
type stream struct {
	io.Reader
	err error
}

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	if errors.Is(err, io.EOF) && s.err != nil {
		err = s.err
	}
	return n, err
}

func (s *stream) Close() error { return nil }

var errCut = errors.New("connection reset by peer")

func TestFailuresCostAPieceAndNeverTheUpload(t *testing.T) {
	// Disks are full, stores are away and connections break, all at the worst moment. Whatever has been acknowledged as
	// received is still there, and nothing else is.
	dir := content.NewDir(t.TempDir())
	t.Cleanup(func() { _ = dir.Close() })
	store, blobs := newLedger(), &disk{Blobs: dir}
	s, err := content.New(content.Options{Store: store, Blobs: blobs, URL: "https://chat.example.com/"})
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 20<<20)
	_, _ = rand.Read(data)
	sum := sha256.Sum256(data)
	user := domain.Principal{User: 1, Username: "a@b.c", Root: 1, Account: 1}
	x, err := s.Create(t.Context(), user, domain.ContentRequest{MimeType: "a/b", Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
	if err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	send := func(n int64, broken error) (domain.ExternalContent, error) {
		t.Helper()
		body := &stream{Reader: bytes.NewReader(data[at : at+n]), err: broken}
		return s.Receive(t.Context(), x.ID, domain.ContentPiece{Ranged: true, Offset: at, Length: -1}, body)
	}
	for _, step := range []struct {
		name   string
		during func(on bool)
		bytes  int64
		err    error
		code   domain.Code
		kept   int64
	}{
		{"a full disk", func(on bool) { blobs.full = on }, 5 << 20, nil, domain.Unavailable, 0},
		{"a disk that is full at the end", func(on bool) { blobs.torn = on }, 5 << 20, nil, domain.Unavailable, 0},
		{"a store that is away", func(on bool) { store.down = on }, 5 << 20, nil, domain.Unavailable, 0},
		{"a cut in the second piece", func(bool) {}, 9 << 20, errCut, domain.Internal, 9 << 20},
		{"a cut before anything", func(bool) {}, 0, errCut, domain.Internal, 0},
		{"an end before all is there", func(bool) {}, 100, nil, "", 100},
		{"a byte", func(bool) {}, 1, nil, "", 1},
	} {
		step.during(true)
		got, err := send(step.bytes, step.err)
		step.during(false)
		at += step.kept
		if domain.CodeOf(err) != step.code || step.err != nil && !errors.Is(err, step.err) || got.Complete {
			t.Errorf("%s: %+v, %v", step.name, got, err)
		}
		if now, err := s.State(t.Context(), x.ID); err != nil || now.Received != at {
			t.Fatalf("%s: the upload has come to %d (%v), want %d", step.name, now.Received, err, at)
		}
	}
	done, err := send(int64(len(data))-at, nil)
	if err != nil || !done.Complete || done.URL == "" {
		t.Fatalf("the rest: %+v, %v", done, err)
	}
	_, r, err := s.Reader(t.Context(), x.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for _, from := range []int64{0, 8<<20 - 1, 9 << 20, 9<<20 + 100, int64(len(data)) - 1, int64(len(data))} {
		if _, err := r.Seek(from, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[from:]) {
			t.Errorf("read from %d: %d bytes, %v", from, len(got), err)
		}
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Error("there is something before the beginning")
	}
}

func TestAnUploadThatIsCutAllTheTimeBeginsAnew(t *testing.T) {
	// Each cut makes a piece. Somebody who cuts on purpose must not fill the store with them.
	dir := content.NewDir(t.TempDir())
	t.Cleanup(func() { _ = dir.Close() })
	store := newLedger()
	s, err := content.New(content.Options{Store: store, Blobs: dir, URL: "https://chat.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	user := domain.Principal{User: 1, Root: 1, Account: 1}
	x, err := s.Create(t.Context(), user, domain.ContentRequest{MimeType: "a/b", Size: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	// Many pieces are there already; the one after the last that may be is refused.
	err = store.change(x.ID, func(at *domain.StoredContent) error {
		digest, err := sha256.New().(interface{ MarshalBinary() ([]byte, error) }).MarshalBinary()
		at.Digest = digest
		for i := range int64(4096) {
			at.Blobs = append(at.Blobs, domain.ContentBlob{Key: "piece", Start: i, Size: 1})
		}
		at.Received = 4096
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Receive(t.Context(), x.ID, domain.ContentPiece{Ranged: true, Offset: 4096, Length: 1}, &stream{Reader: bytes.NewReader([]byte("x"))})
	if domain.CodeOf(err) != domain.InvalidRequest || got.Received != 0 {
		t.Errorf("one piece more: %+v, %v", got, err)
	}
	got, err = s.Receive(t.Context(), x.ID, domain.ContentPiece{Length: 10_000}, &stream{Reader: bytes.NewReader(make([]byte, 10_000))})
	if err != nil || !got.Complete {
		t.Errorf("from the beginning: %+v, %v", got, err)
	}
}

func TestAnUploadWithoutAByteLeavesNothing(t *testing.T) {
	// It costs the client nothing: what it left would fill the store, for as long as unused content is kept.
	dir := content.NewDir(t.TempDir())
	t.Cleanup(func() { _ = dir.Close() })
	store := newLedger()
	s, err := content.New(content.Options{Store: store, Blobs: dir, URL: "https://chat.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	x, err := s.Create(t.Context(), domain.Principal{User: 1, Root: 1, Account: 1}, domain.ContentRequest{MimeType: "a/b", Size: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, broken := range []error{nil, errCut} {
		got, err := s.Receive(t.Context(), x.ID, domain.ContentPiece{Length: -1}, &stream{Reader: bytes.NewReader(nil), err: broken})
		if !errors.Is(err, broken) || got.Complete || store.reserved != 0 {
			t.Errorf("%+v, %v, %d pieces", got, err, store.reserved)
		}
	}
	got, err := s.Receive(t.Context(), x.ID, domain.ContentPiece{Length: -1}, &stream{Reader: bytes.NewReader([]byte("abc"))})
	if err != nil || !got.Complete || store.reserved != 1 {
		t.Errorf("%+v, %v, %d pieces", got, err, store.reserved)
	}
}

func TestUploadsOfFewLeaveRoomForOthers(t *testing.T) {
	// There are so many places. Those who take all they can get must not keep everybody else from sending a picture.
	dir := content.NewDir(t.TempDir())
	t.Cleanup(func() { _ = dir.Close() })
	s, err := content.New(content.Options{Store: newLedger(), Blobs: dir, URL: "https://chat.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ended := make(chan error, 2000)
	// begin begins an upload that waits, and gives why it was not.
	begin := func(user domain.UserID) (*held, error) {
		t.Helper()
		x, err := s.Create(t.Context(), domain.Principal{User: user, Root: 1, Account: 1}, domain.ContentRequest{MimeType: "a/b", Size: 3})
		if err != nil {
			t.Fatal(err)
		}
		body, over := newHeld(nil), make(chan error, 1)
		go func() {
			_, err := s.Receive(context.Background(), x.ID, domain.ContentPiece{Length: 3}, body)
			if !errors.Is(err, errCut) {
				over <- err
				return
			}
			ended <- err
		}()
		select {
		case <-body.waiting:
			return body, nil
		case err := <-over:
			return nil, err
		}
	}
	fill := func(user domain.UserID) (all []*held, refused error) {
		t.Helper()
		for refused == nil {
			var body *held
			if body, refused = begin(user); body != nil {
				all = append(all, body)
			}
		}
		return all, refused
	}
	var first []*held
	total := 0
	for user := domain.UserID(1); user <= 20; user++ {
		bodies, refused := fill(user)
		if domain.CodeOf(refused) != domain.RateLimited {
			t.Fatalf("user %d is refused as %v", user, refused)
		}
		if len(bodies) < 4 {
			t.Errorf("user %d has %d uploads", user, len(bodies))
		}
		if user == 1 {
			first = bodies
		}
		total += len(bodies)
	}
	if len(first) < 100 || len(first) > 200 || total >= 1000 {
		t.Errorf("the first user has %d uploads, twenty have %d", len(first), total)
	}
	if _, err := begin(99); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	// What has ended makes room.
	for _, body := range first {
		_ = body.Close()
		if err := <-ended; !errors.Is(err, errCut) {
			t.Errorf("ended as %v", err)
		}
	}
	if again, _ := fill(1); len(again) < 10 {
		t.Errorf("then the first user has %d", len(again))
	}
}

func TestNothingIsTakenAfterTheEnd(t *testing.T) {
	// A gateway that stops must be able to close its store.
	dir := content.NewDir(t.TempDir())
	t.Cleanup(func() { _ = dir.Close() })
	s, err := content.New(content.Options{Store: newLedger(), Blobs: dir, URL: "https://chat.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	x, err := s.Create(t.Context(), domain.Principal{Service: 1, Root: 1}, domain.ContentRequest{MimeType: "a/b", Size: 5})
	if err != nil {
		t.Fatal(err)
	}
	// One that is under way ends, keeping what came.
	body := newHeld([]byte("abc"))
	ended := make(chan error, 1)
	go func() {
		_, err := s.Receive(context.Background(), x.ID, domain.ContentPiece{Length: 5}, body)
		ended <- err
	}()
	<-body.waiting
	s.Close()
	if err := <-ended; domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("an upload under way: %v", err)
	}
	if now, err := s.State(t.Context(), x.ID); err != nil || now.Received != 3 {
		t.Errorf("kept: %+v, %v", now, err)
	}
	if _, err := s.Receive(t.Context(), x.ID, domain.ContentPiece{Length: 5}, newHeld(nil)); domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("an upload after the end: %v", err)
	}
}

// held is a body that waits after some bytes until it is closed.
type held struct {
	rest    []byte
	waiting chan struct{}
	closed  chan struct{}
	once    sync.Once
}

func newHeld(b []byte) *held {
	return &held{rest: b, waiting: make(chan struct{}), closed: make(chan struct{})}
}

func (h *held) Read(b []byte) (int, error) {
	if len(h.rest) > 0 {
		n := copy(b, h.rest)
		h.rest = h.rest[n:]
		return n, nil
	}
	close(h.waiting)
	<-h.closed
	return 0, errCut
}

func (h *held) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}
