package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
)

// The signature algorithms that may be allowed, each with the one kind of key that fits it.
const (
	rs256 = "RS256"
	es256 = "ES256"
	edDSA = "EdDSA"
)

// The bounds of a key set. Larger RSA keys would make each login slow, smaller ones are no proof.
const (
	maxKeySet  = 512 << 10 // bytes
	maxKeys    = 128
	maxKid     = 256 // bytes
	minModulus = 2048
	maxModulus = 8192 // bits
)

// key names a key of a set: an id, and the only algorithm that it may be used with. A token that says the id with another
// algorithm finds nothing, whatever it tries.
type key struct{ kid, algorithm string }

// jwk is a key of RFC 7517, as far as public keys for signatures need it.
type jwk struct {
	Kty string   `json:"kty"`
	Kid string   `json:"kid"`
	Use string   `json:"use"`
	Ops []string `json:"key_ops"`
	Alg string   `json:"alg"`
	Crv string   `json:"crv"`
	N   string   `json:"n"`
	E   string   `json:"e"`
	X   string   `json:"x"`
	Y   string   `json:"y"`
}

// parseKeys reads a key set (RFC 7517, section 5). Keys that are no use to us, for their purpose, kind or size, or for the
// lack of an id, are left out, as the RFC wants it. A set without any key left is an error.
func parseKeys(b []byte) (map[key]crypto.PublicKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, errors.New("not a key set in JSON")
	}
	if len(set.Keys) > maxKeys {
		return nil, errors.New("too many keys")
	}
	keys := make(map[key]crypto.PublicKey)
	for _, raw := range set.Keys {
		var k jwk
		if json.Unmarshal(raw, &k) != nil || k.Kid == "" || len(k.Kid) > maxKid || !k.verifies() {
			continue
		}
		public, algorithm := k.public()
		if public == nil || (k.Alg != "" && k.Alg != algorithm) {
			continue
		}
		if _, twice := keys[key{k.Kid, algorithm}]; twice {
			return nil, errors.New("two keys of one id")
		}
		keys[key{k.Kid, algorithm}] = public
	}
	if len(keys) == 0 {
		return nil, errors.New("no key for " + rs256 + ", " + es256 + " or " + edDSA + " with an id")
	}
	return keys, nil
}

// verifies reports whether the key is meant for signatures.
func (k *jwk) verifies() bool {
	if k.Use != "" && k.Use != "sig" {
		return false
	}
	return len(k.Ops) == 0 || slices.Contains(k.Ops, "verify")
}

// public gives the key and its algorithm; nil: it is none of ours, or not a valid one.
func (k *jwk) public() (crypto.PublicKey, string) {
	field := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil || len(b) > maxModulus/8+1 {
			return nil
		}
		return b
	}
	switch k.Kty {
	case "RSA":
		n, e := new(big.Int).SetBytes(field(k.N)), new(big.Int).SetBytes(field(k.E))
		if n.BitLen() < minModulus || n.BitLen() > maxModulus || n.Bit(0) == 0 || e.BitLen() > 31 || e.Int64() < 3 || e.Bit(0) == 0 {
			return nil, ""
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}, rs256
	case "EC":
		x, y := field(k.X), field(k.Y)
		if k.Crv != "P-256" || len(x) != 32 || len(y) != 32 {
			return nil, ""
		}
		// It also checks that the point lies on the curve.
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err != nil {
			return nil, ""
		}
		return public, es256
	case "OKP":
		x := field(k.X)
		if k.Crv != "Ed25519" || len(x) != ed25519.PublicKeySize {
			return nil, ""
		}
		return ed25519.PublicKey(x), edDSA
	}
	return nil, ""
}
