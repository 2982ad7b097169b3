package gateway

import (
	"crypto/rand"
	"strings"
	"testing"
)

// generous are bounds that ordinary hashes keep.
func generous() Argon2 { return Argon2{Memory: 256 << 10, Passes: 16, Lanes: 16} }

func TestHashesFollowThePHCFormat(t *testing.T) {
	// Other software can check our hashes, and we theirs: this one is the reference implementation's.
	reference := "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	h, err := parsePHC(reference, generous())
	if err != nil {
		t.Fatal(err)
	}
	if h.String() != reference {
		t.Errorf("written again: %s", h)
	}
	if !h.matches("password") || h.matches("Password") {
		t.Error("it does not tell the right password from a wrong one")
	}
	made, err := newPHC(rand.Reader, Argon2{Memory: 64, Passes: 1, Lanes: 1}, "secret")
	if err != nil {
		t.Fatal(err)
	}
	again, err := newPHC(rand.Reader, Argon2{Memory: 64, Passes: 1, Lanes: 1}, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if made.String() == again.String() {
		t.Error("two hashes of one password are the same: the salt is not random")
	}
	if !strings.HasPrefix(made.String(), "$argon2id$v=19$m=64,t=1,p=1$") || !made.matches("secret") {
		t.Errorf("made %s", made)
	}
}

func TestHashesThatAskForTooMuchAreRefused(t *testing.T) {
	// A hash in the store must not be able to take all memory or an hour.
	const tail = "$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for _, s := range []string{
		"$argon2id$v=19$m=4294967295,t=2,p=1" + tail,
		"$argon2id$v=19$m=65536,t=100,p=1" + tail,
		"$argon2id$v=19$m=65536,t=2,p=255" + tail,
		"$argon2id$v=19$m=65536,t=2,p=256" + tail,
		"$argon2id$v=19$m=0,t=2,p=1" + tail,
		"$argon2id$v=19$m=65536,t=0,p=1" + tail,
		"$argon2id$v=19$m=65536,t=2,p=0" + tail,
		"$argon2id$v=16$m=65536,t=2,p=1" + tail,
		"$argon2i$v=19$m=65536,t=2,p=1" + tail,
		"$argon2id$v=19$m=+1024,t=2,p=1" + tail,
		"$argon2id$v=19$t=2,m=65536,p=1" + tail,
		"$argon2id$v=19$m=65536,t=2,p=1$$",
		"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$" + strings.Repeat("A", 600),
		"$2b$12$abcdefghijklmnopqrstuv", "", "$", "secret",
	} {
		if _, err := parsePHC(s, generous()); err == nil {
			t.Errorf("%s was accepted", s)
		}
	}
}

func FuzzParsePHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m=64,t=1,p=1$$")
	f.Add("$$$$$")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parsePHC(s, generous())
		if err != nil {
			return
		}
		if h.String() != s {
			t.Errorf("%q is written as %q", s, h)
		}
		if h.check(generous()) != nil || len(h.salt) == 0 || len(h.hash) == 0 {
			t.Errorf("%q gives a hash that cannot be verified", s)
		}
	})
}
