package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

// One-time keys let an application's backend vouch for a user whom it knows, without giving the password or a token to
// the client (protocol.md section 8): the client asks for a key, its backend computes the hash with the user's one-time
// secret, the client logs in with both.
//
// A key is not stored when it is made: it says itself for whom and until when it is good, under a MAC that every node can
// check. Nobody who asks for keys costs the store anything, and there is nothing by which a name could be told to exist.
// What is stored are the keys that somebody has logged in with.
const (
	oneTimeLife   = 5 * time.Minute
	oneTimeNonce  = 16
	oneTimeBytes  = oneTimeNonce + 8 + sha256.Size // nonce, expiry in milliseconds since 1970, MAC
	oneTimeMac    = "one-time-key-mac"             // the setting that holds the key of the MAC
	oneTimePrefix = "os_"
)

// oneTimeMAC is the key with which one-time keys are made, the same on all nodes.
type oneTimeMAC struct {
	mu  sync.Mutex // guards key
	key []byte
}

func (m *oneTimeMAC) get() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.key
}

// macKey gives the key of the MAC, which the first node that needs it makes.
func (a *Accounts) macKey(ctx context.Context) ([]byte, error) {
	if key := a.oneTime.get(); key != nil {
		return key, nil
	}
	fresh := make([]byte, sha256.Size)
	if _, err := io.ReadFull(a.random, fresh); err != nil {
		return nil, err
	}
	stored, _, err := a.tokens.InitSetting(ctx, oneTimeMac, fresh)
	if err != nil {
		return nil, err
	}
	if len(stored) != sha256.Size {
		return nil, domain.Errorf(domain.Internal, "the store's key for one-time keys is damaged")
	}
	a.oneTime.mu.Lock()
	defer a.oneTime.mu.Unlock()
	a.oneTime.key = stored
	return stored, nil
}

// sealOneTime gives the MAC over a key's nonce and expiry and the name that it is for.
func sealOneTime(macKey, head []byte, username string) []byte {
	h := hmac.New(sha256.New, macKey)
	h.Write(head) // of fixed length
	h.Write([]byte(username))
	return h.Sum(nil)
}

// OneTimeKey makes a key with which the user may log in once within five minutes, for whoever asks. Whether there is such
// a user is not looked at. Its errors are invalid-request for a name that nobody can have in any store, or the store's.
func (a *Accounts) OneTimeKey(ctx context.Context, username string) (domain.OneTimeKey, error) {
	if username == "" || len(username) > maxName {
		return domain.OneTimeKey{}, domain.Errorf(domain.InvalidRequest, "username is required, and at most %d bytes long", maxName)
	}
	macKey, err := a.macKey(ctx)
	if err != nil {
		return domain.OneTimeKey{}, err
	}
	key := make([]byte, oneTimeNonce+8, oneTimeBytes)
	if _, err := io.ReadFull(a.random, key[:oneTimeNonce]); err != nil {
		return domain.OneTimeKey{}, err
	}
	expires := a.now().Add(oneTimeLife).UnixMilli()
	binary.BigEndian.PutUint64(key[oneTimeNonce:], uint64(expires))
	key = append(key, sealOneTime(macKey, key, username)...)
	return domain.OneTimeKey{Key: base64.RawURLEncoding.EncodeToString(key), Expires: expires}, nil
}

// maxName bounds a user name that nobody has looked into yet, in bytes.
const maxName = 512

// openOneTime reports whether a key was made for the name and is still good, and until when.
func (a *Accounts) openOneTime(macKey []byte, username, key string) (expires int64, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(key)
	// One key must not have several spellings: each would work once.
	if err != nil || len(b) != oneTimeBytes || base64.RawURLEncoding.EncodeToString(b) != key {
		return 0, false
	}
	head, seal := b[:oneTimeNonce+8], b[oneTimeNonce+8:]
	expires = int64(binary.BigEndian.Uint64(head[oneTimeNonce:]))
	return expires, hmac.Equal(seal, sealOneTime(macKey, head, username)) && a.now().UnixMilli() < expires
}

// LoginOneTime checks a one-time key and its hash and starts a family of tokens: hash is the hexadecimal HMAC-SHA-256 of
// the key, keyed with the user's one-time secret. The key is used up when both are right. Its errors are those of
// [Accounts.Authenticate]; which of name, key and hash was wrong is not told.
func (a *Accounts) LoginOneTime(ctx context.Context, username, key, hash string) (login domain.Login, err error) {
	began := a.now()
	defer func() { a.metrics.observe(methodOneTime, a.now().Sub(began), err) }()
	macKey, err := a.macKey(ctx)
	if err != nil {
		return domain.Login{}, err
	}
	expires, ok := a.openOneTime(macKey, username, key)
	if !ok {
		return domain.Login{}, errWrongKey()
	}
	c, err := a.credential(ctx, username)
	if err != nil {
		return domain.Login{}, err
	}
	h := hmac.New(sha256.New, []byte(c.OneTimeSecret))
	h.Write([]byte(key))
	given, _ := hex.DecodeString(strings.ToLower(hash)) // what is no hash is none that fits
	if right := hmac.Equal(h.Sum(nil), given); !right || c.OneTimeSecret == "" {
		return domain.Login{}, errWrongKey()
	}
	if err := a.tokens.UseKey(ctx, sha256.Sum256([]byte(key)), expires); err != nil {
		if domain.CodeOf(err) == domain.NotAuthenticated {
			err = errWrongKey()
		}
		return domain.Login{}, err
	}
	return a.begin(ctx, c.User, began)
}

func errWrongKey() error {
	return domain.Errorf(domain.NotAuthenticated, "wrong name, one-time key or hash")
}

// OneTimeSecret gives a backend what hashes of the user's one-time keys are keyed with; it is made when it is asked for
// first. Its errors are access-denied, user-not-found, or the store's.
func (a *Accounts) OneTimeSecret(ctx context.Context, p domain.Principal, username domain.Username) (string, error) {
	u, err := a.administered(ctx, p, username)
	if err != nil {
		return "", err
	}
	fresh, _, err := newSecret(a.random, oneTimePrefix)
	if err != nil {
		return "", err
	}
	return a.tokens.OneTimeSecret(ctx, u.ID, fresh)
}

// ForgetOneTimeSecret makes the user's one-time secret worthless, for instance because it leaked; the next
// [Accounts.OneTimeSecret] makes another. Its errors are those of that.
func (a *Accounts) ForgetOneTimeSecret(ctx context.Context, p domain.Principal, username domain.Username) error {
	u, err := a.administered(ctx, p, username)
	if err != nil {
		return err
	}
	return a.tokens.ForgetOneTimeSecret(ctx, u.ID)
}
