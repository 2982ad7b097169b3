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
	// seen gives who was told of since the last time, with nobody twice, in the order of times.
	last := int64(0)
	seen := func(since int64) (list []domain.Ending) {
		t.Helper()
		list, err := s.EndedSince(t.Context(), since)
		must(t, err)
		for i := range list {
			if list[i].At <= since || i > 0 && list[i].At < list[i-1].At {
				t.Errorf("%+v since %d", list, since)
			}
			last = max(last, list[i].At)
			list[i].At = 0
		}
		return list
	}
	equal(t, "in the beginning", len(seen(0)), 0)
	begun := time.Now().UnixMilli()
	must(t, s.RevokeFamily(t.Context(), [16]byte{99}))
	equal(t, "of nobody", len(seen(0)), 0)
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
			before := last
			must(t, end.do(t.Context()))
			equal(t, what, seen(before), []domain.Ending{end.of})
		}
	}
	if last < begun || last > time.Now().UnixMilli()+int64(time.Second/time.Millisecond) {
		t.Errorf("noted at %d, which is not now", last)
	}
	before := last
	_, err = s.Refresh(t.Context(), [32]byte{2}, 30, domain.RefreshToken{Hash: [32]byte{6}, Expires: 2000})
	refused(t, "a login that was ended", err, domain.NotAuthenticated)
	equal(t, "a refusal", len(seen(before)), 0)
	must(t, s.DeleteUser(t.Context(), u.ID))
	equal(t, "deletion", seen(before), []domain.Ending{{User: u.ID}})
	before = last
	must(t, s.DeleteService(t.Context(), "acme", "Billing"))
	equal(t, "deletion of a service", seen(before), []domain.Ending{{Service: service.ID, Root: service.Root}})
	// A refresh token that comes twice ends its login.
	w, _ := login(t, s, 3)
	_, err = s.Refresh(t.Context(), [32]byte{3}, 30, domain.RefreshToken{Hash: [32]byte{7}, Expires: 2000})
	must(t, err)
	before = last
	_, err = s.Refresh(t.Context(), [32]byte{3}, 30, domain.RefreshToken{Hash: [32]byte{8}, Expires: 2000})
	refused(t, "a token used twice", err, domain.NotAuthenticated)
	equal(t, "reuse", seen(before), []domain.Ending{{User: w.ID}})
	equal(t, "all of them", len(seen(0)), 4)
}
