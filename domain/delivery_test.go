package domain_test

import (
	"testing"
	"time"

	"github.com/parley-im/parley/domain"
)

func TestFarewells(t *testing.T) {
	// MQTT 5 reason codes and strings of protocol.md section 2, by which clients decide whether to come back.
	for _, tc := range []struct {
		got    domain.Farewell
		reason byte
		text   string
	}{
		{domain.TokenExpired(), 0x87, "token-expired"},
		{domain.TakenOver(), 0x8e, "taken-over"},
		{domain.NotWelcome(), 0x87, "not-authenticated"},
		{domain.ShuttingDown(), 0x8b, "shutting-down"},
		{domain.TooSlow(), 0x97, "too-slow"},
	} {
		if tc.got.Reason != tc.reason || tc.got.String() != tc.text {
			t.Errorf("%#x %s, want %#x %s", tc.got.Reason, tc.got, tc.reason, tc.text)
		}
	}
	if domain.Millis(time.Unix(1, 2_000_000)) != 1002 {
		t.Error("times are not milliseconds since 1970")
	}
}

func TestServicesActInTheirTree(t *testing.T) {
	s := domain.Service{ID: 7, Name: "billing", Account: 11, AccountName: "acme-child", Root: 1}
	p := s.Principal()
	if !p.IsBackend() || p.Account != 11 || !p.Sees(1) || p.Sees(11) || p.Sender() != -7 || p.Initiator() != (domain.Initiator{Service: "billing"}) {
		t.Errorf("%+v", p)
	}
}
