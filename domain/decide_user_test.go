package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

func TestUsersAreFoundByNameAndNumber(t *testing.T) {
	// Each once, in the order asked for, deleted ones marked as such: their messages are still there.
	d, err := newStore().decide(t, user(alice), &domain.GetUsers{
		Usernames: domain.List[domain.Username]{"ghost@chat.acme", "bob@chat.acme"}, UserIDs: domain.List[domain.UserID]{alice},
		UsernamesToo: domain.List[domain.Username]{"alice@chat.acme"}, UserIDsToo: domain.List[domain.UserID]{bob, dave},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []domain.User{person(ghost), person(bob), person(alice), person(dave)}
	if diff := cmp.Diff(want, d.Result.Users); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !d.Result.Users[0].Deleted {
		t.Error("the deleted user is not marked")
	}
	if _, err := newStore().decide(t, user(alice), &domain.GetUsers{UserIDs: domain.List[domain.UserID]{alice, mallory}}); number(err) != 25 {
		t.Errorf("with one of another tree: %v", err)
	}
}

func TestPrivateDataIsForTheUserAlone(t *testing.T) {
	// Even if a store hands over more than it should: getUser shows the public part, to the user itself as well.
	s := newStore()
	for i := range s.users {
		s.users[i].Own = &domain.Own{PrivateCustomData: domain.RawObject(`{"secret":1}`)}
	}
	for _, p := range []domain.Principal{user(alice), user(bob), service(), admin()} {
		d, err := s.decide(t, p, &domain.GetUser{UserRef: domain.UserRef{UserID: alice}})
		if err != nil || d.Result.User.Own != nil {
			t.Errorf("getUser by %+v: %+v, %v", p, d.Result.User, err)
		}
		d, err = s.decide(t, p, &domain.GetUsers{UserIDs: domain.List[domain.UserID]{alice, bob}})
		if err != nil || d.Result.Users[0].Own != nil || d.Result.Users[1].Own != nil {
			t.Errorf("getUsers by %+v: %+v, %v", p, d.Result.Users, err)
		}
	}
	d, err := s.decide(t, user(alice), &domain.GetMe{})
	if err != nil || d.Result.User.Own == nil || d.Result.User.ID != alice {
		t.Errorf("getMe: %+v, %v", d.Result.User, err)
	}
}

func TestPrincipals(t *testing.T) {
	// Who acts decides on idempotency keys, on what events show, and on what may be seen.
	behalf := service().OnBehalfOf(person(bob))
	for _, tc := range []struct {
		name      string
		p         domain.Principal
		user      bool
		backend   bool
		sees      [3]bool // trees 0, 1, 2
		sender    domain.SenderID
		initiator domain.Initiator
	}{
		{"user", user(bob), true, false, [3]bool{false, true, false}, 2, domain.Initiator{UserID: 2, Username: "bob@chat.acme", Device: "phone"}},
		{"user of a child account", user(dave), true, false, [3]bool{false, true, false}, 4, domain.Initiator{UserID: 4, Username: "dave@chat.acme-child", Device: "phone"}},
		{"service", service(), false, true, [3]bool{false, true, false}, -100, domain.Initiator{Service: "billing"}},
		{"service as a user", behalf, false, true, [3]bool{false, true, false}, 2, domain.Initiator{UserID: 2, Username: "bob@chat.acme"}},
		{"admin", admin(), false, true, [3]bool{true, true, true}, 0, domain.Initiator{Service: "admin"}},
		{"nobody", domain.Principal{}, false, false, [3]bool{false, false, false}, 0, domain.Initiator{Service: "admin"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.p.IsUser() != tc.user || tc.p.IsBackend() != tc.backend || tc.p.Sender() != tc.sender {
				t.Errorf("user %t, backend %t, sender %d", tc.p.IsUser(), tc.p.IsBackend(), tc.p.Sender())
			}
			for root, want := range tc.sees {
				if tc.p.Sees(domain.AccountID(root)) != want {
					t.Errorf("sees tree %d: want %t", root, want)
				}
			}
			if diff := cmp.Diff(tc.initiator, tc.p.Initiator()); diff != "" {
				t.Errorf("initiator:\n%s", diff)
			}
		})
	}
	if p := admin().OnBehalfOf(person(mallory)); p.Root != 2 || p.Account != 2 || !p.IsBackend() {
		t.Errorf("the admin key on a user's behalf: %+v", p)
	}
}
