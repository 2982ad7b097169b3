package gateway

import (
	"context"
	"io"
)

// hasher hashes and verifies passwords, only so many at a time: each takes its share of memory and a processor for
// tens of milliseconds.
type hasher struct {
	params Argon2
	most   Argon2 // that a stored hash may ask for
	random io.Reader
	// nobody is a hash that no password matches, made with the same parameters as the others.
	nobody phc
	cache  *passwordCache
	slots  *slots
}

func newHasher(p, most Argon2, random io.Reader, parallel, queue int, cache *passwordCache) (*hasher, error) {
	if err := p.check(most); err != nil {
		return nil, err
	}
	nobody := phc{Argon2: p, salt: make([]byte, saltBytes), hash: make([]byte, hashBytes)}
	for _, b := range [][]byte{nobody.salt, nobody.hash} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, err
		}
	}
	return &hasher{
		params: p, most: most, random: random, nobody: nobody, cache: cache, slots: newSlots(parallel, queue),
	}, nil
}

// hash gives the PHC string of a new password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	leave, err := h.slots.enter(ctx)
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
	parsed, err := parsePHC(stored, h.most)
	exists := err == nil
	if !exists {
		parsed = h.nobody
	}
	if h.cache.knows(stored, password) {
		return true, nil
	}
	leave, err := h.slots.enter(ctx)
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
