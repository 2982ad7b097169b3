package gateway

import (
	"crypto/sha256"
	"io"
	"math/big"
	"strings"
)

// Opaque secrets start with what they are, so that a leaked one is recognised (also by scanners), and so that they
// are told apart without a look at the store.
const (
	apiKeyPrefix  = "pk_"
	refreshPrefix = "rt_"

	secretBytes = 32
	// secretDigits is how many base-62 digits hold secretBytes.
	secretDigits = 43
	// familyDigits is how many hold the id of a login.
	familyDigits = 22
)

// newSecret makes a secret of 256 random bits, and gives the digest by which the store knows it.
func newSecret(random io.Reader, prefix string) (secret string, digest [32]byte, err error) {
	var b [secretBytes]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", digest, err
	}
	secret = prefix + digits62(b[:], secretDigits)
	return secret, sha256.Sum256([]byte(secret)), nil
}

// digits62 writes bytes as n digits of base 62.
func digits62(b []byte, n int) string {
	digits := new(big.Int).SetBytes(b).Text(62)
	return strings.Repeat("0", n-len(digits)) + digits
}

// newRefresh makes a refresh token of a login. It names the login, so that a used one can be told from one that never was,
// however long ago that was; nil: those of before did not.
func newRefresh(random io.Reader, family *[16]byte) (secret string, digest [32]byte, err error) {
	secret, digest, err = newSecret(random, refreshPrefix)
	if err != nil || family == nil {
		return secret, digest, err
	}
	secret += digits62(family[:], familyDigits)
	return secret, sha256.Sum256([]byte(secret)), nil
}

// refreshDigest gives the digest of a refresh token and the login that it names, nil if it names none; false for what cannot be
// one.
func refreshDigest(s string) (digest [32]byte, family *[16]byte, ok bool) {
	n := len(refreshPrefix) + secretDigits
	if len(s) != n+familyDigits {
		digest, ok = secretDigest(s, refreshPrefix)
		return digest, nil, ok
	}
	id, ok := new(big.Int).SetString(s[n:], 62)
	if _, secret := secretDigest(s[:n], refreshPrefix); !ok || !secret || id.Sign() < 0 || id.BitLen() > 128 {
		return digest, nil, false
	}
	family = new([16]byte)
	id.FillBytes(family[:])
	return sha256.Sum256([]byte(s)), family, true
}

// secretDigest gives the digest of a secret, and false for what cannot be one of the prefix.
func secretDigest(s, prefix string) (digest [32]byte, ok bool) {
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok || len(digits) != secretDigits {
		return digest, false
	}
	for _, c := range []byte(digits) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return digest, false
		}
	}
	// The secret has as many random bits as the digest: a slow hash would add nothing.
	return sha256.Sum256([]byte(s)), true
}
