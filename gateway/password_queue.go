package gateway

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/parley-im/parley/domain"
)

// hasher hashes and verifies passwords, only so many at a time: each takes its share of memory and a processor for
// tens of milliseconds. The others wait in order of arrival; beyond a number of them newcomers are refused, so that
// a storm of logins takes neither the memory nor the patience of those that wait already.
type hasher struct {
	params Argon2
	random io.Reader
	// nobody is a hash that no password matches, made with the same parameters as the others.
	nobody phc
	cache  *passwordCache

	slots   chan struct{}
	waiting atomic.Int64
	most    int64
}

func newHasher(p Argon2, random io.Reader, parallel, queue int, cache *passwordCache) (*hasher, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	nobody := phc{Argon2: p, salt: make([]byte, saltBytes), hash: make([]byte, hashBytes)}
	for _, b := range [][]byte{nobody.salt, nobody.hash} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, err
		}
	}
	return &hasher{
		params: p, random: random, nobody: nobody, cache: cache, slots: make(chan struct{}, parallel), most: int64(queue),
	}, nil
}

// enter waits for a slot and returns what gives it back. Its errors are rate-limited (too many wait) and unavailable
// (ctx ended first).
func (h *hasher) enter(ctx context.Context) (leave func(), err error) {
	leave = func() { <-h.slots }
	select {
	case h.slots <- struct{}{}:
		return leave, nil
	default:
	}
	if h.waiting.Add(1) > h.most {
		h.waiting.Add(-1)
		return nil, domain.Errorf(domain.RateLimited, "too many logins at a time")
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
		return leave, nil
	case <-ctx.Done():
		return nil, domain.Because(domain.Unavailable, ctx.Err(), "the login took too long")
	}
}

// hash gives the PHC string of a new password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	made, err := newPHC(h.random, h.params, password)
	if err != nil {
		return "", err
	}
	return made.String(), nil
}

// verify reports whether the password is the one of the stored hash. A hash that is empty or unreadable takes as
// long as any other, and no password is the one of it.
func (h *hasher) verify(ctx context.Context, stored, password string) (bool, error) {
	if checkPassword(password) != nil {
		return false, nil
	}
	parsed, err := parsePHC(stored)
	exists := err == nil
	if !exists {
		parsed = h.nobody
	}
	if h.cache.knows(stored, password) {
		return true, nil
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	if !parsed.matches(password) || !exists {
		return false, nil
	}
	h.cache.learn(stored, password)
	return true, nil
}
