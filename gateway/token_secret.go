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
)

// newSecret makes a secret of 256 random bits, and gives the digest by which the store knows it.
func newSecret(random io.Reader, prefix string) (secret string, digest [32]byte, err error) {
	var b [secretBytes]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", digest, err
	}
	digits := new(big.Int).SetBytes(b[:]).Text(62)
	secret = prefix + strings.Repeat("0", secretDigits-len(digits)) + digits
	return secret, sha256.Sum256([]byte(secret)), nil
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
