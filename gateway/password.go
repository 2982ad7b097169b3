package gateway

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/parley-im/parley/domain"
)

// Argon2 are the parameters of argon2id, with which new passwords are hashed. Verifying takes them from the hash, so
// they may be changed at any time. The zero value of each means its default.
type Argon2 struct {
	Memory uint32 // KiB; 19 MiB
	Passes uint32 // 2
	Lanes  uint8  // 1
}

const (
	saltBytes = 16
	hashBytes = 32
	maxPHC    = 512

	maxPassword = 1024 // bytes
)

var errPHC = errors.New("not an argon2id hash in PHC string format")

func (p Argon2) orDefaults() Argon2 {
	if p.Memory == 0 {
		p.Memory = 19 << 10
	}
	if p.Passes == 0 {
		p.Passes = 2
	}
	if p.Lanes == 0 {
		p.Lanes = 1
	}
	return p
}

// check refuses parameters that argon2id does not allow, or that ask for more than most.
func (p Argon2) check(most Argon2) error {
	if p.Memory < 8*uint32(p.Lanes) || p.Memory > most.Memory || p.Passes < 1 || p.Passes > most.Passes ||
		p.Lanes < 1 || p.Lanes > most.Lanes {
		return fmt.Errorf("argon2id parameters out of range: %d KiB, %d passes, %d lanes", p.Memory, p.Passes, p.Lanes)
	}
	return nil
}

// phc is a password hash in the PHC string format, taken apart.
type phc struct {
	Argon2
	salt []byte
	hash []byte
}

// parsePHC reads $argon2id$v=19$m=…,t=…,p=…$salt$hash, with base64 that is not padded. One that asks for more than most
// was not made by us, and would be a way to exhaust the memory.
func parsePHC(s string, most Argon2) (phc, error) {
	if len(s) > maxPHC {
		return phc{}, errPHC
	}
	fields := strings.Split(s, "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != "v=19" {
		return phc{}, errPHC
	}
	params := strings.Split(fields[3], ",")
	if len(params) != 3 {
		return phc{}, errPHC
	}
	var n [3]uint32
	for i, name := range [...]string{"m=", "t=", "p="} {
		digits, ok := strings.CutPrefix(params[i], name)
		v, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || strconv.FormatUint(v, 10) != digits {
			return phc{}, errPHC
		}
		n[i] = uint32(v)
	}
	if n[2] > math.MaxUint8 {
		return phc{}, errPHC
	}
	h := phc{Argon2: Argon2{Memory: n[0], Passes: n[1], Lanes: uint8(n[2])}}
	if h.check(most) != nil {
		return phc{}, errPHC
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.Strict().DecodeString(fields[4]); err != nil {
		return phc{}, errPHC
	}
	if h.hash, err = base64.RawStdEncoding.Strict().DecodeString(fields[5]); err != nil {
		return phc{}, errPHC
	}
	// The bounds of the PHC specification for argon2.
	if len(h.salt) < 8 || len(h.salt) > 48 || len(h.hash) < 16 || len(h.hash) > 64 {
		return phc{}, errPHC
	}
	return h, nil
}

// String gives the PHC string format.
func (h phc) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.Memory, h.Passes, h.Lanes,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.hash))
}

// matches reports whether the password is the one of the hash. It costs what the parameters say, whatever the answer.
func (h phc) matches(password string) bool {
	got := argon2.IDKey([]byte(password), h.salt, h.Passes, h.Memory, h.Lanes, uint32(len(h.hash)))
	return subtle.ConstantTimeCompare(got, h.hash) == 1
}

// newPHC hashes a password with a new salt.
func newPHC(random io.Reader, p Argon2, password string) (phc, error) {
	h := phc{Argon2: p, salt: make([]byte, saltBytes)}
	if _, err := io.ReadFull(random, h.salt); err != nil {
		return phc{}, err
	}
	h.hash = argon2.IDKey([]byte(password), h.salt, p.Passes, p.Memory, p.Lanes, hashBytes)
	return h, nil
}

// checkPassword reports what is wrong with a password that shall be set: length and spelling, never strength.
func checkPassword(s string) error {
	switch {
	case s == "" || len(s) > maxPassword:
		return domain.Errorf(domain.InvalidRequest, "a password is 1 to %d bytes long", maxPassword)
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return domain.Errorf(domain.InvalidRequest, "a password is UTF-8 without NUL")
	}
	return nil
}
