package gateway

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/parley-im/parley/domain"
)

// keyRing holds the keys of access tokens. One signs for a period, then the next one does; each verifies until the
// last token that it signed has expired. The keys live in the store: all nodes sign and verify with the same.
type keyRing struct {
	store  Tokens
	now    func() time.Time
	random io.Reader
	period time.Duration // for which a key signs
	life   time.Duration // of a token

	flight singleflight.Group

	mu     sync.Mutex // guards the following
	keys   []signingKey
	loaded time.Time
}

type signingKey struct {
	id      string
	private ed25519.PrivateKey
	created int64 // milliseconds since 1970, as is ends
	ends    int64
}

func (k signingKey) public() ed25519.PublicKey {
	return ed25519.PublicKey(k.private[ed25519.SeedSize:])
}

// reloadAfter is how old the ring must be before a key that is not in it is looked for in the store: tokens that
// name keys of fantasy must not become queries.
const reloadAfter = time.Second

// signer gives the key to sign a token with. It makes a new one when none may sign any more.
func (r *keyRing) signer(ctx context.Context) (signingKey, error) {
	if k, ok := r.signs(); ok {
		return k, nil
	}
	_, err, _ := r.flight.Do("signer", func() (any, error) {
		// Those who wait for this have contexts of their own; the first one's must not end it for all.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storePatience)
		defer cancel()
		if err := r.load(ctx); err != nil {
			return nil, err
		}
		if _, ok := r.signs(); ok {
			return nil, nil // another node was faster
		}
		if err := r.add(ctx); err != nil {
			return nil, err
		}
		return nil, r.load(ctx)
	})
	if err != nil {
		return signingKey{}, err
	}
	if k, ok := r.signs(); ok {
		return k, nil
	}
	return signingKey{}, domain.Errorf(domain.Internal, "no key to sign a token with")
}

// storePatience bounds what is done with the store on behalf of several callers.
const storePatience = 10 * time.Second

// signs gives the newest key that has begun and whose period is not over.
func (r *keyRing) signs() (signingKey, bool) {
	now := r.now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.keys {
		if k.created <= now {
			// The rest are older. A key from before the period or the life of tokens was made longer ends too early.
			young := now < k.created+r.period.Milliseconds() && now+r.life.Milliseconds() <= k.ends
			return k, young
		}
	}
	return signingKey{}, false
}

// verifier gives the public key of the id; nil: there is none, or it has ended.
func (r *keyRing) verifier(ctx context.Context, id string) (ed25519.PublicKey, error) {
	public, fresh := r.find(id)
	if public != nil || fresh {
		return public, nil
	}
	_, err, _ := r.flight.Do("verifier", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storePatience)
		defer cancel()
		return nil, r.load(ctx)
	})
	if err != nil {
		return nil, err
	}
	public, _ = r.find(id)
	return public, nil
}

func (r *keyRing) find(id string) (public ed25519.PublicKey, fresh bool) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh = !r.loaded.IsZero() && now.Sub(r.loaded) < reloadAfter
	for _, k := range r.keys {
		if k.id == id && now.UnixMilli() < k.ends {
			return k.public(), fresh
		}
	}
	return nil, fresh
}

func (r *keyRing) load(ctx context.Context) error {
	stored, err := r.store.SigningKeys(ctx)
	if err != nil {
		return err
	}
	keys := make([]signingKey, 0, len(stored))
	for _, k := range stored {
		if len(k.Private) != ed25519.SeedSize || k.ID == "" {
			continue
		}
		keys = append(keys, signingKey{
			id: k.ID, private: ed25519.NewKeyFromSeed(k.Private), created: k.Created, ends: k.Ends,
		})
	}
	slices.SortStableFunc(keys, func(a, b signingKey) int {
		return cmp.Or(cmp.Compare(b.created, a.created), cmp.Compare(a.id, b.id))
	})
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys, r.loaded = keys, now
	return nil
}

func (r *keyRing) add(ctx context.Context) error {
	var b [8 + ed25519.SeedSize]byte
	if _, err := io.ReadFull(r.random, b[:]); err != nil {
		return err
	}
	now := r.now().UnixMilli()
	return r.store.AddSigningKey(ctx, domain.SigningKey{
		ID: hex.EncodeToString(b[:8]), Private: b[8:], Created: now,
		// A second more than the last token needs: tokens expire at whole seconds.
		Ends: now + (r.period + r.life + time.Second).Milliseconds(),
	})
}
