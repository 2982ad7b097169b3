package storetest

import (
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

func oneTimeSecrets(t *testing.T, b Backend) {
	// A backend that asks twice, or two backends that ask at once, must not make each other's secret worthless.
	all := worlds(t, b, 0)
	s := all[0].Store
	u, _ := login(t, s, 1)
	v, _ := login(t, s, 2)
	got := make([]string, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = all[i%len(all)].Store.OneTimeSecret(t.Context(), u.ID, string(rune('a'+i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, secret := range got {
		if secret == "" || secret != got[0] {
			t.Fatalf("secrets %q", got)
		}
	}
	c, err := s.Credential(t.Context(), u.Username)
	must(t, err)
	equal(t, "secret", c.OneTimeSecret, got[0])
	c, err = s.Credential(t.Context(), v.Username)
	must(t, err)
	equal(t, "somebody else's secret", c.OneTimeSecret, "")

	must(t, s.ForgetOneTimeSecret(t.Context(), u.ID))
	must(t, s.ForgetOneTimeSecret(t.Context(), v.ID))
	again, err := s.OneTimeSecret(t.Context(), u.ID, "another")
	must(t, err)
	equal(t, "secret after the old one was forgotten", again, "another")

	_, err = s.OneTimeSecret(t.Context(), 1<<40, "x")
	refused(t, "nobody's secret", err, domain.UserNotFound)
	must(t, s.DeleteUser(t.Context(), u.ID))
	_, err = s.OneTimeSecret(t.Context(), u.ID, "x")
	refused(t, "a deleted user's secret", err, domain.UserNotFound)
	c, err = s.Credential(t.Context(), u.Username)
	must(t, err)
	equal(t, "what is left of it", c.OneTimeSecret, "")
}

func oneTimeKeysWorkOnce(t *testing.T, b Backend) {
	// Whoever listened in on a login has the key and its hash: neither may open anything again, on no node.
	const hour = 60 * 60 * 1000
	all := worlds(t, b, 0)
	s := all[0].Store
	through := make([]error, 8)
	var wg sync.WaitGroup
	for i := range through {
		wg.Go(func() { through[i] = all[i%len(all)].Store.UseKey(t.Context(), [32]byte{1}, hour) })
	}
	wg.Wait()
	n := 0
	for _, err := range through {
		if err == nil {
			n++
			continue
		}
		refused(t, "used", err, domain.NotAuthenticated)
	}
	if n != 1 {
		t.Errorf("%d of %d got through", n, len(through))
	}
	must(t, s.UseKey(t.Context(), [32]byte{2}, 2*hour))
	// Kept for longer than the key is good: the clock of another node may be late.
	must(t, s.Cleanup(t.Context(), 2*hour-1))
	refused(t, "after it expired", s.UseKey(t.Context(), [32]byte{1}, hour), domain.NotAuthenticated)
	must(t, s.Cleanup(t.Context(), 2*hour))
	must(t, s.UseKey(t.Context(), [32]byte{1}, hour)) // cleaned up
	refused(t, "a later one", s.UseKey(t.Context(), [32]byte{2}, 2*hour), domain.NotAuthenticated)
}
