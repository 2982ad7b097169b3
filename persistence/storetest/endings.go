package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/parley-im/parley/domain"
)

func endingsAreTold(t *testing.T, b Backend) {
	// Sessions of somebody who was locked out on one node are ended on the others by this alone.
	s := open(t, b)
	u, family := login(t, s, 1)
	v, _ := login(t, s, 2)
	service, err := s.CreateService(t.Context(), "acme", "Billing", [32]byte{1}, true)
	must(t, err)
	// Each is noted at its own time, those of one user or service at ever later ones.
	told := make(map[domain.Ending]int64)
	last := int64(0)
	// news gives who was told of since it was asked the last time, with nobody twice.
	news := func() (list []domain.Ending) {
		t.Helper()
		all, err := s.EndedSince(t.Context(), 0)
		must(t, err)
		for i, e := range all {
			if i > 0 && e.At < all[i-1].At {
				t.Errorf("not in order: %+v", all)
			}
			who := e
			who.At = 0
			if e.At < told[who] {
				t.Errorf("%+v was noted later before", e)
			}
			if e.At > told[who] {
				list = append(list, who)
			}
			told[who], last = e.At, max(last, e.At)
		}
		return list
	}
	equal(t, "in the beginning", len(news()), 0)
	begun := time.Now().UnixMilli()
	must(t, s.RevokeFamily(t.Context(), [16]byte{99}))
	equal(t, "of nobody", len(news()), 0)
	for what, end := range map[string]struct {
		of domain.Ending
		do func(ctx context.Context) error
	}{
		"logout":     {domain.Ending{User: u.ID}, func(ctx context.Context) error { return s.RevokeFamily(ctx, family) }},
		"revocation": {domain.Ending{User: v.ID}, func(ctx context.Context) error { return s.RevokeUser(ctx, v.ID, 1) }},
		"new key": {domain.Ending{Service: service.ID, Root: service.Root}, func(ctx context.Context) error {
			_, err := s.RotateService(ctx, "acme", "Billing", [32]byte{2})
			return err
		}},
	} {
		// The same again is later, whatever the clock says.
		for range 2 {
			must(t, end.do(t.Context()))
			equal(t, what, news(), []domain.Ending{end.of})
		}
	}
	if last < begun || last > time.Now().UnixMilli()+int64(time.Second/time.Millisecond) {
		t.Errorf("noted at %d, which is not now", last)
	}
	_, err = s.Refresh(t.Context(), [32]byte{2}, 30, domain.RefreshToken{Hash: [32]byte{6}, Expires: 2000})
	refused(t, "a login that was ended", err, domain.NotAuthenticated)
	equal(t, "a refusal", len(news()), 0)
	must(t, s.DeleteUser(t.Context(), u.ID))
	equal(t, "deletion", news(), []domain.Ending{{User: u.ID}})
	must(t, s.DeleteService(t.Context(), "acme", "Billing"))
	equal(t, "deletion of a service", news(), []domain.Ending{{Service: service.ID, Root: service.Root}})
	// A refresh token that comes twice ends its login.
	w, _ := login(t, s, 3)
	_, err = s.Refresh(t.Context(), [32]byte{3}, 30, domain.RefreshToken{Hash: [32]byte{7}, Expires: 2000})
	must(t, err)
	_, err = s.Refresh(t.Context(), [32]byte{3}, 30, domain.RefreshToken{Hash: [32]byte{8}, Expires: 2000})
	refused(t, "a token used twice", err, domain.NotAuthenticated)
	equal(t, "reuse", news(), []domain.Ending{{User: w.ID}})
	equal(t, "all of them", len(told), 4)
	later, err := s.EndedSince(t.Context(), last)
	must(t, err)
	equal(t, "later than the last", len(later), 0)
}
