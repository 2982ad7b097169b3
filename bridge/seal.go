package bridge

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"net/http"

	"github.com/parley-im/parley/domain"
)

// sealer encrypts remembered answers that hold secrets, such as a new API key: the store must not hold what it does
// not hold anywhere else. The encryption key is derived from the caller's own credential, of which the store has only
// a digest; whoever repeats the request has it.
type sealer struct {
	on                bool
	token, scope, key string
}

func (s sealer) aead() (cipher.AEAD, error) {
	k, err := hkdf.Key(sha256.New, []byte(s.token), nil, "parley remembered answer\x00"+s.scope+"\x00"+s.key, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (s sealer) seal(body []byte) ([]byte, error) {
	if !s.on {
		return body, nil
	}
	aead, err := s.aead()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, body, nil), nil //nolint:gosec // this AEAD makes its nonces itself, and wants none
}

// open is the inverse of seal. It refuses what was sealed for another credential.
func (s sealer) open(sealed []byte) ([]byte, error) {
	if !s.on {
		return sealed, nil
	}
	aead, err := s.aead()
	if err != nil {
		return nil, err
	}
	body, err := aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, problem(http.StatusUnprocessableEntity, domain.InvalidRequest,
			"this Idempotency-Key was used with another credential, which alone can read its answer")
	}
	return body, nil
}
