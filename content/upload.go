package content

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

// upload is a request that is being served.
type upload struct {
	body io.ReadCloser
	// over is closed when the request has ended.
	over chan struct{}
	// owner is whom it counts for, once that is known; Service.mu guards it.
	owner domain.SenderID

	mu sync.Mutex
	// failed is set when body has failed by itself, why when it was ended before that.
	failed bool
	why    error
}

// end ends the request, for the reason.
func (u *upload) end(why error) {
	u.mu.Lock()
	if !u.failed && u.why == nil {
		u.why = why
	}
	u.mu.Unlock()
	_ = u.body.Close() // it is only to stop reading
}

// Read implements io.Reader.
func (u *upload) Read(b []byte) (int, error) {
	n, err := u.body.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.why != nil {
			return n, u.why
		}
		u.failed = true
	}
	return n, err
}

func errEnding() error {
	return domain.Errorf(domain.Unavailable, "the gateway is shutting down; what came is kept")
}

// finishing is how long what has come may take to be kept after its client has gone.
const finishing = 2 * time.Minute

// Receive takes bytes of an upload and gives what the content is then: complete, or with how far it has come. Content that is
// complete stays as it is. Closing body must end a Read that waits. Another request for the same content ends this one.
//
// Refusals: not-found, invalid-request (sizes that do not fit, a digest that differs), message-too-large (more bytes than
// announced; what came is forgotten), already-exists (the upload has come to another offset; the content tells which),
// rate-limited (the owner has too many under way), unavailable. When body fails, what came before is kept and the error wraps that of body.
func (s *Service) Receive(ctx context.Context, id domain.ContentID, p domain.ContentPiece, body io.ReadCloser) (domain.ExternalContent, error) {
	u, err := s.enter(ctx, id, body)
	if err != nil {
		return domain.ExternalContent{}, err
	}
	defer s.leave(id, u)
	x, err := s.Store.Content(ctx, id)
	if err != nil || x.Complete {
		return s.linked(x.ExternalContent), err
	}
	if err := s.admit(u, x.Owner); err != nil {
		return s.linked(x.ExternalContent), err
	}
	if err := s.begin(ctx, &x, p); err != nil {
		return s.linked(x.ExternalContent), err
	}
	// What has come is kept although the client has gone, or the gateway stops.
	defer context.AfterFunc(ctx, func() { u.end(errEnding()) })()
	err = s.read(context.WithoutCancel(ctx), &x, u)
	s.metrics.ended(err, x.Complete)
	return s.linked(x.ExternalContent), err
}

// enter makes the request the one that writes the content.
func (s *Service) enter(ctx context.Context, id domain.ContentID, body io.ReadCloser) (u *upload, err error) {
	u = &upload{body: body, over: make(chan struct{})}
	for {
		s.mu.Lock()
		old := s.uploads[id]
		switch {
		case s.closed:
			err = errEnding()
		case old == nil && len(s.uploads) >= maxUploads:
			err = domain.Errorf(domain.Unavailable, "too many uploads at a time")
		case old == nil:
			s.uploads[id] = u
			s.ended.Add(1)
		default:
			// Its client has most likely lost the connection, and this is it again.
			old.end(domain.Errorf(domain.AlreadyExists, "another request goes on with the upload"))
		}
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if old == nil {
			return u, nil
		}
		select {
		case <-old.over:
		case <-ctx.Done():
			return nil, domain.Because(domain.Unavailable, ctx.Err(), "an earlier request for the upload does not end")
		}
	}
}

// admit counts the request for its content's owner, unless that has its share of the uploads under way.
func (s *Service) admit(u *upload, owner domain.SenderID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners[owner] >= max(fewUploads, (maxUploads-len(s.uploads))/8) {
		return domain.Errorf(domain.RateLimited, "too many uploads of one user or service at a time")
	}
	s.owners[owner]++
	u.owner = owner
	return nil
}

func (s *Service) leave(id domain.ContentID, u *upload) {
	s.mu.Lock()
	delete(s.uploads, id)
	if u.owner != 0 {
		if s.owners[u.owner]--; s.owners[u.owner] == 0 {
			delete(s.owners, u.owner)
		}
	}
	s.mu.Unlock()
	close(u.over)
	s.ended.Done()
}

// begin checks that the piece continues the content, and starts it anew where it is the whole.
func (s *Service) begin(ctx context.Context, x *domain.StoredContent, p domain.ContentPiece) error {
	switch {
	case p.Total != 0 && p.Total != x.Size, !p.Ranged && p.Length >= 0 && p.Length != x.Size:
		return domain.Errorf(domain.InvalidRequest, "the content was announced with %d bytes", x.Size)
	case p.Ranged && p.Offset != x.Received:
		return domain.Errorf(domain.AlreadyExists, "the upload has come to %d", x.Received)
	case p.Ranged && p.Length > x.Size-p.Offset:
		return domain.Errorf(domain.MessageTooLarge, "the content was announced with %d bytes", x.Size)
	case !p.Ranged && x.Received > 0:
		return s.restart(ctx, x)
	}
	return nil
}

func (s *Service) restart(ctx context.Context, x *domain.StoredContent) error {
	if x.Received > 0 {
		if err := s.Store.RestartContent(ctx, x.ID, x.Received, domain.Millis(s.Now())); err != nil {
			return err
		}
	}
	x.Received, x.Digest, x.Blobs = 0, nil, nil
	return nil
}

// receive reads body to its end, piece by piece.
func (s *Service) read(ctx context.Context, x *domain.StoredContent, body io.Reader) error {
	digest := sha256.New()
	if x.Received > 0 {
		state, ok := digest.(encoding.BinaryUnmarshaler)
		if !ok || state.UnmarshalBinary(x.Digest) != nil {
			return s.restartBecause(ctx, x, domain.Errorf(domain.AlreadyExists, "the upload cannot go on and begins anew"))
		}
	}
	for !x.Complete {
		if len(x.Blobs) >= maxPieces {
			return s.restartBecause(ctx, x, domain.Errorf(domain.InvalidRequest, "the upload was cut too often and begins anew"))
		}
		more, err := s.next(ctx, x, digest, body)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// restartBecause forgets what has come, for the reason that is the error.
func (s *Service) restartBecause(ctx context.Context, x *domain.StoredContent, reason error) error {
	ctx, cancel := context.WithTimeout(ctx, finishing)
	defer cancel()
	if err := s.restart(ctx, x); err != nil {
		return err
	}
	return reason
}

// next reads one piece and makes it a part of the content; more is false when body has ended.
func (s *Service) next(ctx context.Context, x *domain.StoredContent, digest hash.Hash, body io.Reader) (more bool, err error) {
	// What never begins leaves no trace.
	src := &source{Reader: io.TeeReader(io.LimitReader(body, min(s.piece, x.Size-x.Received)), digest)}
	head := make([]byte, 1)
	if n, _ := io.ReadFull(src, head); n == 0 {
		return false, src.err
	}
	key := strings.ToLower(rand.Text())
	if err := s.Store.ReserveBlob(ctx, x.ID, key, domain.Millis(s.Now().Add(s.Unused))); err != nil {
		return false, err
	}
	w, err := s.Blobs.Create(ctx, key)
	if err != nil {
		return false, s.failed("beginning a piece of content", err)
	}
	committed := false
	defer func() {
		if !committed {
			w.Abort()
		}
	}()
	n, err := io.Copy(w, io.MultiReader(bytes.NewReader(head), src))
	s.metrics.received.Add(float64(n))
	if err != nil && src.err == nil {
		return false, s.failed("writing a piece of content", err)
	}
	last := x.Received+n == x.Size
	if last && !isOver(body) {
		return false, s.restartBecause(ctx, x, domain.Errorf(domain.MessageTooLarge, "the content was announced with %d bytes", x.Size))
	}
	sum := x.SHA256
	if last {
		if sum = hex.EncodeToString(digest.Sum(nil)); x.SHA256 != "" && sum != x.SHA256 {
			return false, s.restartBecause(ctx, x, domain.Errorf(domain.InvalidRequest, "the SHA-256 of the content is %s", sum))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, finishing)
	defer cancel()
	committed = true
	if err := w.Commit(ctx); err != nil {
		return false, s.failed("keeping a piece of content", err)
	}
	blob := domain.ContentBlob{Key: key, Start: x.Received, Size: n}
	if err := s.append(ctx, x, blob, digest, sum); err != nil {
		return false, err
	}
	return src.err == nil && n == s.piece, src.err
}

func (s *Service) append(ctx context.Context, x *domain.StoredContent, blob domain.ContentBlob, digest hash.Hash, sum string) error {
	state, ok := digest.(encoding.BinaryMarshaler)
	if !ok {
		return domain.Errorf(domain.Internal, "SHA-256 does not tell its state")
	}
	b, err := state.MarshalBinary()
	if err != nil {
		return err
	}
	if err := s.Store.AppendBlob(ctx, x.ID, blob, b, sum, domain.Millis(s.Now())); err != nil {
		return err
	}
	x.Blobs = append(x.Blobs, blob)
	x.Received += blob.Size
	x.SHA256, x.Complete = sum, x.Received == x.Size
	return nil
}

// source tells a body that fails from a piece that cannot be written.
type source struct {
	io.Reader
	err error
}

func (r *source) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// isOver reports whether a body has no more bytes. One that fails has none.
func isOver(body io.Reader) bool {
	var b [1]byte
	n, _ := io.ReadFull(body, b[:])
	return n == 0
}

// failed makes the refusal of a failure where the bytes are kept.
func (s *Service) failed(doing string, err error) error {
	s.Logger.Error(doing, "error", err)
	return domain.Because(domain.Unavailable, err, "the content cannot be kept at the moment")
}
