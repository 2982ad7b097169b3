// Package content keeps what is too large for messages: it takes uploads, hands them out again by signed URLs that expire,
// and removes what no message has any more.
//
// Content is kept as pieces ([Blobs]) that are written once and never change; which pieces make up which content is the
// store's matter ([Store]), and so is what a message names. An upload appends piece after piece, each under a condition on
// how far the upload had come: two requests for one upload, on one gateway or two, can never mix their bytes, and a gateway
// that is killed costs at most the piece that was being written. A piece is noted in the store before it is written, so
// that none is ever forgotten.
//
// The package knows neither HTTP nor SQL. It imports domain and metrics of this module.
package content

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
)

// Store knows which content there is and where its bytes are. Any goroutine may call it; refusals are *domain.Error.
type Store interface {
	// CreateContent stores content of which nothing has come yet, within its owner's quota.
	CreateContent(ctx context.Context, x domain.ExternalContent, quota domain.ContentQuota) error
	// Content gives external content; what does not exist is not-found.
	Content(ctx context.Context, id domain.ContentID) (domain.StoredContent, error)
	// ReserveBlob notes that a piece is about to be written, to be removed at the time (milliseconds since 1970) unless it
	// is appended before.
	ReserveBlob(ctx context.Context, id domain.ContentID, key string, until int64) error
	// AppendBlob makes a piece the continuation of its content at blob.Start; already-exists if the content does not end
	// there (any more).
	AppendBlob(ctx context.Context, id domain.ContentID, blob domain.ContentBlob, digest []byte, sum string, now int64) error
	// RestartContent forgets what has come; already-exists if that is not as much as given.
	RestartContent(ctx context.Context, id domain.ContentID, received, now int64) error
	Cleaning
}

// Cleaning is what removing needs of the store. Several gateways may clean at once: each gets other work.
type Cleaning interface {
	// SettleUses drops the uses made up to a time whose message was not stored.
	SettleUses(ctx context.Context, until int64) (more bool, err error)
	// RemoveUnused removes content that no message has had since a time, but for its pieces.
	RemoveUnused(ctx context.Context, since int64) (removed int, more bool, err error)
	// TakeDoomed gives pieces to remove, which nobody else gets until the other time; ForgetBlobs says that it was done.
	TakeDoomed(ctx context.Context, now, until int64) (keys []string, err error)
	ForgetBlobs(ctx context.Context, keys []string) error
}

// Blobs keeps pieces. Any goroutine may call it. Keys are lower-case letters and digits that this package makes.
type Blobs interface {
	// Create begins a piece. It exists once it is committed, and survives a crash from then on.
	Create(ctx context.Context, key string) (Writer, error)
	// Open gives size bytes of a piece from the offset on.
	Open(ctx context.Context, key string, offset, size int64) (io.ReadCloser, error)
	// Remove removes a piece; one that does not exist is fine.
	Remove(ctx context.Context, key string) error
}

// Writer writes a piece. Exactly one of Commit and Abort is called at the end.
type Writer interface {
	io.Writer
	Commit(ctx context.Context) error
	Abort()
}

// Options configure [New]. Store, Blobs and URL are required.
type Options struct {
	Store Store
	Blobs Blobs
	// URL is where clients reach the HTTP API, without a path: https://chat.example.com.
	URL string
	// Key signs URLs: whoever has it can read everything. All gateways on one store share it.
	Key [32]byte
	// Life is how long URLs are good; 0: a day.
	Life time.Duration
	// MaxSize is the largest content, in bytes; 0: 100 MiB.
	MaxSize int64
	// Quota bounds what a user may keep.
	Quota domain.ContentQuota
	// Unused is how long content stays that no message has, and an upload that does not go on; 0: a day.
	Unused time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// pieceSize is the size of pieces: what a crash costs, and what an upload to a remote store is kept on disk before.
const pieceSize = 8 << 20

// maxPieces bounds the pieces of one content: somebody who cuts an upload again and again makes small ones.
const maxPieces = 4096

// maxUploads is how many uploads may be under way in this process. An owner may have an eighth of what there is room for besides,
// and fewUploads in any case: those who have many leave room for others, even if they are some dozens.
const (
	maxUploads = 1000
	fewUploads = 4
)

// Service is external content at work. Make one with [New], run [Service.Keep] beside it, and end it with [Service.Close].
type Service struct {
	Options
	metrics *contentMetrics
	piece   int64

	mu      sync.Mutex
	uploads map[domain.ContentID]*upload
	// owners counts the uploads of each.
	owners map[domain.SenderID]int
	closed bool
	ended  sync.WaitGroup
}

// New makes a service. An error means options that are missing, or metrics that were registered before.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.Blobs == nil || o.URL == "" {
		return nil, errors.New("content: Store, Blobs and URL are required")
	}
	o.URL = strings.TrimRight(o.URL, "/")
	if o.Life <= 0 {
		o.Life = 24 * time.Hour
	}
	if o.Unused <= 0 {
		o.Unused = 24 * time.Hour
	}
	if o.MaxSize <= 0 {
		o.MaxSize = 100 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Service{Options: o, piece: pieceSize, uploads: make(map[domain.ContentID]*upload), owners: make(map[domain.SenderID]int)}
	var err error
	s.metrics, err = newMetrics(o.Registerer, s)
	return s, err
}

// Create announces content that p will upload: a user, or a service for its account.
func (s *Service) Create(ctx context.Context, p domain.Principal, r domain.ContentRequest) (domain.ExternalContent, error) {
	var none domain.ExternalContent
	if p.Root == 0 || p.Sender() == 0 {
		return none, domain.Errorf(domain.AccessDenied, "content belongs to a user or a service")
	}
	if err := r.Check(s.MaxSize); err != nil {
		return none, err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails, by its documentation
	x := domain.ExternalContent{
		ID: domain.ContentID(hex.EncodeToString(id[:])), MimeType: r.MimeType, Size: r.Size, SHA256: strings.ToLower(r.SHA256),
		Created: domain.Millis(s.Now()), Owner: p.Sender(), Root: p.Root, Readable: true,
	}
	if err := s.Store.CreateContent(ctx, x, s.Quota); err != nil {
		return none, err
	}
	return s.linked(x), nil
}

// linked gives content with its URL: for downloading once it is complete, for uploading before.
func (s *Service) linked(x domain.ExternalContent) domain.ExternalContent {
	r := domain.Result{External: &x}
	return *r.Linked(s).External
}

// Close ends the uploads that are under way, keeping what has come of them, and takes no more.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	for _, u := range s.uploads {
		u.end(errEnding())
	}
	s.mu.Unlock()
	s.ended.Wait()
}
