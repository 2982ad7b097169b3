package storetest

import (
	"bytes"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

// login makes a user with a login, whose first refresh token has the digest {n} and expires at 1000.
func login(t *testing.T, s Store, n byte) (domain.User, [16]byte) {
	t.Helper()
	u := create(t, s, domain.NewUser{Username: domain.Username("user" + string('a'+rune(n)) + "@chat.acme")})
	family := [16]byte{n}
	must(t, s.StartFamily(t.Context(), domain.RefreshToken{Hash: [32]byte{n}, Family: family, User: u.ID, Expires: 1000}, 0))
	return u, family
}

func good(t *testing.T, s Store, id domain.UserID, family [16]byte, issued int64) bool {
	t.Helper()
	u, good, err := s.TokenUser(t.Context(), id, family, issued)
	must(t, err)
	if u.ID != id {
		t.Errorf("user %d was given for %d", u.ID, id)
	}
	return good
}

func refreshTokensWorkOnce(t *testing.T, b Backend) {
	// A stolen token that still works is worth as much as the password.
	s := open(t, b)
	u, family := login(t, s, 1)
	refused(t, "the same login again", s.StartFamily(t.Context(), domain.RefreshToken{Hash: [32]byte{9}, Family: family, User: u.ID}, 0), domain.AlreadyExists)
	_, err := s.Refresh(t.Context(), [32]byte{7}, 10, domain.RefreshToken{Hash: [32]byte{8}, Expires: 2000})
	refused(t, "unknown", err, domain.NotAuthenticated)
	_, err = s.Refresh(t.Context(), [32]byte{1}, 1000, domain.RefreshToken{Hash: [32]byte{8}, Expires: 2000})
	refused(t, "expired", err, domain.NotAuthenticated)
	next, err := s.Refresh(t.Context(), [32]byte{1}, 999, domain.RefreshToken{Hash: [32]byte{2}, Expires: 2000})
	must(t, err)
	equal(t, "next", next, domain.RefreshToken{Hash: [32]byte{2}, Family: family, User: u.ID, Expires: 2000})
	if !good(t, s, u.ID, family, 10) {
		t.Error("the login has ended")
	}
	next, err = s.Refresh(t.Context(), [32]byte{2}, 1500, domain.RefreshToken{Hash: [32]byte{3}, Expires: 3000})
	must(t, err)

	// Of several who use it at the same moment one gets through, and the others end the login.
	outcomes := make([]error, 6)
	var wg sync.WaitGroup
	for i := range outcomes {
		wg.Go(func() {
			_, outcomes[i] = s.Refresh(t.Context(), next.Hash, 1600, domain.RefreshToken{Hash: [32]byte{10, byte(i)}, Expires: 3000})
		})
	}
	wg.Wait()
	through := 0
	for _, err := range outcomes {
		if err == nil {
			through++
		} else {
			refused(t, "at the same moment", err, domain.NotAuthenticated)
		}
	}
	if through != 1 {
		t.Errorf("%d of %d got through", through, len(outcomes))
	}
	if good(t, s, u.ID, family, 1600) {
		t.Error("the login goes on although its token was used by several")
	}
}

func reusedRefreshToken(t *testing.T, b Backend) {
	// Whoever comes second, thief or owner, both have to prove themselves again.
	s := open(t, b)
	u, family := login(t, s, 1)
	_, other := login(t, s, 2)
	_, err := s.Refresh(t.Context(), [32]byte{1}, 10, domain.RefreshToken{Hash: [32]byte{3}, Expires: 2000})
	must(t, err)
	ended, err := s.Refresh(t.Context(), [32]byte{1}, 20, domain.RefreshToken{Hash: [32]byte{4}, Expires: 2000})
	refused(t, "used", err, domain.NotAuthenticated)
	equal(t, "whose login has ended", ended, domain.RefreshToken{Family: family, User: u.ID})
	ended, err = s.Refresh(t.Context(), [32]byte{3}, 30, domain.RefreshToken{Hash: [32]byte{5}, Expires: 2000})
	refused(t, "its successor", err, domain.NotAuthenticated)
	equal(t, "whose login had ended before", ended, domain.RefreshToken{})
	if good(t, s, u.ID, family, 10) {
		t.Error("the login goes on")
	}
	if _, err = s.Refresh(t.Context(), [32]byte{2}, 30, domain.RefreshToken{Hash: [32]byte{6}, Expires: 2000}); err != nil {
		t.Errorf("another login: %v", err)
	}
	must(t, s.RevokeFamily(t.Context(), other))
	must(t, s.RevokeFamily(t.Context(), [16]byte{99}))
	_, err = s.Refresh(t.Context(), [32]byte{6}, 40, domain.RefreshToken{Hash: [32]byte{7}, Expires: 2000})
	refused(t, "of a revoked login", err, domain.NotAuthenticated)
}

func revokedUsers(t *testing.T, b Backend) {
	// "Log me out everywhere" is what people press when it matters.
	s := open(t, b)
	u, family := login(t, s, 1)
	v, others := login(t, s, 2)
	if !good(t, s, u.ID, family, 100) || !good(t, s, u.ID, [16]byte{}, 100) {
		t.Error("fresh tokens are not good")
	}
	if good(t, s, u.ID, others, 100) || good(t, s, u.ID, [16]byte{77}, 100) {
		t.Error("tokens of a login that is not the user's are good")
	}
	must(t, s.RevokeUser(t.Context(), u.ID, 500))
	must(t, s.RevokeUser(t.Context(), u.ID, 400)) // Late, and no step back.
	if good(t, s, u.ID, family, 600) || good(t, s, u.ID, [16]byte{}, 500) {
		t.Error("revoked tokens are good")
	}
	if !good(t, s, u.ID, [16]byte{}, 501) || !good(t, s, v.ID, others, 100) {
		t.Error("tokens that were not revoked are not good")
	}
	_, err := s.Refresh(t.Context(), [32]byte{1}, 600, domain.RefreshToken{Hash: [32]byte{3}, Expires: 2000})
	refused(t, "refresh", err, domain.NotAuthenticated)
	_, _, err = s.TokenUser(t.Context(), 1<<40, family, 100)
	refused(t, "nobody", err, domain.UserNotFound)
}

func usedTokensAreBounded(t *testing.T, b Backend) {
	// A client in a loop, or one that wants to, must not fill the store; a thief must be noticed all the same.
	place := b.New(t)
	s := place.Open(t)
	u, family := login(t, s, 1)
	token := func(n int) [32]byte { return [32]byte{1, byte(n), byte(n >> 8)} }
	last := [32]byte{1}
	for n := 1; n <= 250; n++ {
		_, err := s.Refresh(t.Context(), last, 10, domain.RefreshToken{Hash: token(n), Expires: 2000 + int64(n)})
		must(t, err)
		last = token(n)
	}
	kept := 0
	for _, cell := range place.Dump(t) {
		if len(cell) == 32 && cell[0] == 1 && bytes.Equal(cell[3:], make([]byte, 29)) {
			kept++
		}
	}
	if kept > 102 || kept < 50 {
		t.Errorf("%d tokens are kept", kept)
	}
	_, err := s.Refresh(t.Context(), token(20), 10, domain.RefreshToken{Hash: [32]byte{7}, Expires: 2000})
	refused(t, "one used long ago", err, domain.NotAuthenticated)
	if !good(t, s, u.ID, family, 100) {
		t.Error("that ended the login")
	}
	_, err = s.Refresh(t.Context(), token(200), 10, domain.RefreshToken{Hash: [32]byte{8}, Expires: 2000})
	refused(t, "one used lately", err, domain.NotAuthenticated)
	if good(t, s, u.ID, family, 100) {
		t.Error("the login goes on")
	}
}

func loginsAreBounded(t *testing.T, b Backend) {
	// Anybody can log in again and again: each time costs a row for a month.
	s := open(t, b)
	u, _ := login(t, s, 1)
	v, others := login(t, s, 2)
	families := [][16]byte{{1}}
	begin := func(n byte, expires int64) {
		t.Helper()
		f := [16]byte{n}
		must(t, s.StartFamily(t.Context(), domain.RefreshToken{Hash: [32]byte{n}, Family: f, User: u.ID, Expires: expires}, 4))
		families = append(families, f)
	}
	want := func(when string, firsts ...byte) {
		t.Helper()
		var live []byte
		for _, f := range families {
			if good(t, s, u.ID, f, 100) {
				live = append(live, f[0])
			}
		}
		equal(t, when, live, firsts)
	}
	ended := func() int {
		t.Helper()
		list, err := s.EndedSince(t.Context(), 0)
		must(t, err)
		return len(list)
	}
	begin(11, 1100)
	begin(12, 1200)
	begin(13, 1300)
	want("as many as there may be", 1, 11, 12, 13)
	equal(t, "endings", ended(), 0)
	// The one that was begun first has been used since.
	_, err := s.Refresh(t.Context(), [32]byte{1}, 500, domain.RefreshToken{Hash: [32]byte{101}, Expires: 1400})
	must(t, err)
	begin(14, 1500)
	want("one more", 1, 12, 13, 14)
	equal(t, "endings", ended(), 1)
	_, err = s.Refresh(t.Context(), [32]byte{11}, 600, domain.RefreshToken{Hash: [32]byte{111}, Expires: 1600})
	refused(t, "refreshing what has ended", err, domain.NotAuthenticated)
	// Those that have ended go first; and the new one stays, even if it expires before all others.
	must(t, s.RevokeFamily(t.Context(), [16]byte{14}))
	begin(15, 1)
	want("after a logout", 1, 12, 13, 15)
	begin(16, 1700)
	begin(17, 1700)
	want("two more", 1, 13, 16, 17)
	if !good(t, s, v.ID, others, 100) {
		t.Error("a login of somebody else has ended")
	}
	var wg sync.WaitGroup
	for n := range byte(16) {
		wg.Go(func() {
			err := s.StartFamily(t.Context(), domain.RefreshToken{Hash: [32]byte{50 + n}, Family: [16]byte{50 + n}, User: u.ID, Expires: 3000}, 4)
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	begin(99, 4000)
	live := 0
	for n := range byte(255) {
		if good(t, s, u.ID, [16]byte{n + 1}, 100) {
			live++
		}
	}
	equal(t, "after many at once", live, 4)
}

func signingKeys(t *testing.T, b Backend) {
	// Without the keys every token is worthless, and every user has to log in again.
	s := open(t, b)
	if keys, err := s.SigningKeys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("%v, %v", keys, err)
	}
	second := domain.SigningKey{ID: "b", Private: []byte{0, 1, 2, 255}, Created: 20, Ends: 2000}
	first := domain.SigningKey{ID: "z", Private: []byte{3}, Created: 10, Ends: 1000}
	must(t, s.AddSigningKey(t.Context(), second))
	must(t, s.AddSigningKey(t.Context(), first))
	refused(t, "again", s.AddSigningKey(t.Context(), domain.SigningKey{ID: "b", Private: []byte{9}}), domain.AlreadyExists)
	keys, err := s.SigningKeys(t.Context())
	must(t, err)
	equal(t, "keys", keys, []domain.SigningKey{first, second})
}

func firstSettingWins(t *testing.T, b Backend) {
	// Several nodes that start on an empty store must agree on its secrets.
	all := worlds(t, b, 0)
	if v, found, err := all[0].Store.Setting(t.Context(), "key"); err != nil || found || v != nil {
		t.Errorf("%v, %v, %v", v, found, err)
	}
	var wg sync.WaitGroup
	values := make([][]byte, 8)
	made := make([]bool, len(values))
	for i := range values {
		wg.Go(func() {
			var err error
			values[i], made[i], err = all[i%len(all)].Store.InitSetting(t.Context(), "key", []byte{byte(i)})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	for i := range values {
		equal(t, "value", values[i], values[0])
		if made[i] {
			n++
			equal(t, "of the one who made it", values[i], []byte{byte(i)})
		}
	}
	v, found, err := all[0].Store.Setting(t.Context(), "key")
	must(t, err)
	equal(t, "value", v, values[0])
	if n != 1 || !found {
		t.Errorf("%d have made it; found: %v", n, found)
	}
	if v, created, err := all[0].Store.InitSetting(t.Context(), "empty", nil); err != nil || !created || len(v) != 0 {
		t.Errorf("%v, %v, %v", v, created, err)
	}
}

func firstAnswerIsRemembered(t *testing.T, b Backend) {
	// A repeated request gets the answer of the first, also when both came at once.
	s := open(t, b)
	if _, found, err := s.Recall(t.Context(), "acme", "k"); err != nil || found {
		t.Errorf("%v, %v", found, err)
	}
	first := domain.Remembered{Fingerprint: [32]byte{1}, Status: 201, ContentType: "application/json", Body: []byte(`{"a":"\u0000"}`)}
	got, err := s.Remember(t.Context(), "acme", "k", first, 100)
	must(t, err)
	equal(t, "first", got, first)
	got, err = s.Remember(t.Context(), "acme", "k", domain.Remembered{Fingerprint: [32]byte{2}, Status: 500}, 200)
	must(t, err)
	equal(t, "second", got, first)
	got, found, err := s.Recall(t.Context(), "acme", "k")
	must(t, err)
	equal(t, "recalled", got, first)
	if _, other, err := s.Recall(t.Context(), "other", "k"); err != nil || other || !found {
		t.Errorf("of another scope: %v, %v; own: %v", other, err, found)
	}
	bare, err := s.Remember(t.Context(), "acme", "bare", domain.Remembered{Status: 204}, 100)
	must(t, err)
	equal(t, "without a body", bare, domain.Remembered{Status: 204})
}

func cleanup(t *testing.T, b Backend) {
	// What nobody can use any more must not pile up; what somebody can must stay.
	const day = 24 * 60 * 60 * 1000
	const now = 100 * day
	s := open(t, b)
	u, family := login(t, s, 1) // Expired long ago.
	for i := range 600 {
		_, err := s.Remember(t.Context(), "old", string(rune(0x4e00+i)), domain.Remembered{Status: 200}, now-day)
		must(t, err)
	}
	_, err := s.Remember(t.Context(), "new", "k", domain.Remembered{Status: 200}, now-day+1)
	must(t, err)
	must(t, s.AddSigningKey(t.Context(), domain.SigningKey{ID: "old", Private: []byte{1}, Ends: now}))
	must(t, s.AddSigningKey(t.Context(), domain.SigningKey{ID: "new", Private: []byte{1}, Ends: now + 1}))
	fresh := [16]byte{7}
	must(t, s.StartFamily(t.Context(), domain.RefreshToken{Hash: [32]byte{7}, Family: fresh, User: u.ID, Expires: now + 1}, 0))

	must(t, s.Cleanup(t.Context(), now))
	must(t, s.Cleanup(t.Context(), now))
	for i := range 600 {
		if _, found, err := s.Recall(t.Context(), "old", string(rune(0x4e00+i))); err != nil || found {
			t.Fatalf("old answer %d: %v, %v", i, found, err)
		}
	}
	if _, found, err := s.Recall(t.Context(), "new", "k"); err != nil || !found {
		t.Errorf("new answer: %v, %v", found, err)
	}
	keys, err := s.SigningKeys(t.Context())
	must(t, err)
	if len(keys) != 1 || keys[0].ID != "new" {
		t.Errorf("keys: %v", keys)
	}
	if good(t, s, u.ID, family, now) || !good(t, s, u.ID, fresh, now) {
		t.Error("the old login is there, or the new one is not")
	}
	if _, err := s.Refresh(t.Context(), [32]byte{7}, now, domain.RefreshToken{Hash: [32]byte{8}, Expires: now + 2}); err != nil {
		t.Errorf("new token: %v", err)
	}
}
