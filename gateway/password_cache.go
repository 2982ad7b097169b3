package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"io"
	"sync"
	"time"
)

// passwordCache remembers for some minutes which passwords were found right, so that a thousand devices that
// reconnect at once, after a network failure for instance, do not have to wait for a thousand slow hashes. It makes
// right passwords faster only: wrong ones, and users who are not there, still cost the same.
//
// An entry is a MAC over stored hash and password, with a key that exists in this process alone. A new password has
// a new stored hash, which no entry fits.
type passwordCache struct {
	mac  [32]byte
	life time.Duration // 0: nothing is remembered
	now  func() time.Time
	most int

	mu      sync.Mutex // guards entries: when each ends
	entries map[[32]byte]time.Time
}

func newPasswordCache(random io.Reader, life time.Duration, now func() time.Time) (*passwordCache, error) {
	c := &passwordCache{life: max(life, 0), now: now, most: 1 << 14, entries: make(map[[32]byte]time.Time)}
	_, err := io.ReadFull(random, c.mac[:])
	return c, err
}

func (c *passwordCache) entry(stored, password string) [32]byte {
	h := hmac.New(sha256.New, c.mac[:])
	h.Write([]byte(stored)) // in PHC format, which has no NUL
	h.Write([]byte{0})
	h.Write([]byte(password))
	return [32]byte(h.Sum(nil))
}

// knows reports whether the password was found right for the stored hash lately.
func (c *passwordCache) knows(stored, password string) bool {
	if c.life == 0 {
		return false
	}
	e := c.entry(stored, password)
	c.mu.Lock()
	defer c.mu.Unlock()
	ends, ok := c.entries[e]
	return ok && c.now().Before(ends)
}

// learn remembers that the password is right.
func (c *passwordCache) learn(stored, password string) {
	if c.life == 0 {
		return
	}
	e := c.entry(stored, password)
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= c.most {
		c.shrink(now)
	}
	c.entries[e] = now.Add(c.life)
}

// shrink forgets what has ended, and if that is little, any other entries: a quarter goes, so that this is rare.
func (c *passwordCache) shrink(now time.Time) {
	for e, ends := range c.entries {
		if !now.Before(ends) {
			delete(c.entries, e)
		}
	}
	for e := range c.entries {
		if len(c.entries) <= c.most*3/4 {
			return
		}
		delete(c.entries, e)
	}
}
