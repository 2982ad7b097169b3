package content

import (
	"context"
	"errors"
	"io"
	"sort"

	"github.com/parley-im/parley/domain"
)

// Reader gives complete content for reading from anywhere; one goroutine at a time may use it, and the caller closes it.
// What does not exist, not any more or not yet, is not-found.
func (s *Service) Reader(ctx context.Context, id domain.ContentID) (domain.ExternalContent, io.ReadSeekCloser, error) {
	x, err := s.Store.Content(ctx, id)
	if err != nil {
		return domain.ExternalContent{}, nil, err
	}
	if !x.Complete {
		return domain.ExternalContent{}, nil, domain.Errorf(domain.NotFound, "there is no such content")
	}
	return x.ExternalContent, &reader{ctx: ctx, s: s, content: x}, nil
}

// State gives how far an upload has come.
func (s *Service) State(ctx context.Context, id domain.ContentID) (domain.ExternalContent, error) {
	x, err := s.Store.Content(ctx, id)
	return x.ExternalContent, err
}

// reader reads content piece by piece, and no more of it than is asked for.
type reader struct {
	ctx     context.Context //nolint:containedctx // that of the request which it lives in
	s       *Service
	content domain.StoredContent
	at      int64
	open    io.ReadCloser
	// end is where the piece that is open ends.
	end int64
}

// Read implements io.Reader.
func (r *reader) Read(b []byte) (int, error) {
	if r.at >= r.content.Size {
		return 0, io.EOF
	}
	if len(b) == 0 {
		return 0, nil
	}
	if r.open == nil {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n, err := r.open.Read(b[:min(int64(len(b)), r.end-r.at)])
	r.at += int64(n)
	r.s.metrics.sent.Add(float64(n))
	switch {
	case r.at == r.end:
		return n, r.Close()
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// next opens the piece that has the next byte.
func (r *reader) next() error {
	blobs := r.content.Blobs
	i := sort.Search(len(blobs), func(i int) bool { return blobs[i].Start+blobs[i].Size > r.at })
	if i == len(blobs) || blobs[i].Start > r.at {
		return io.ErrUnexpectedEOF
	}
	offset := r.at - blobs[i].Start
	open, err := r.s.Blobs.Open(r.ctx, blobs[i].Key, offset, blobs[i].Size-offset)
	if err != nil {
		return r.s.failed("reading a piece of content", err)
	}
	r.open, r.end = open, blobs[i].Start+blobs[i].Size
	return nil
}

// Seek implements io.Seeker.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.content.Size
	}
	if offset < 0 {
		return r.at, errors.New("content: a position before the beginning")
	}
	if offset == r.at {
		return r.at, nil
	}
	r.at = offset
	return r.at, r.Close()
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.open == nil {
		return nil
	}
	open := r.open
	r.open = nil
	return open.Close()
}
