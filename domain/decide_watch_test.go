package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

// named gives a list of users by their numbers.
func named(ids ...domain.UserID) domain.UserList {
	var l domain.UserList
	for _, id := range ids {
		l.Users = append(l.Users, domain.Named{Ref: domain.UserRef{UserID: id}})
	}
	return l
}

func TestUsersOfAListAreNumbersOrNames(t *testing.T) {
	// Numbers are what the systems have that clients come from; names are what people have in their address books.
	for _, tc := range []struct {
		payload string
		refs    []domain.UserRef
		number  int
	}{
		{`{"users":[2,"carol@chat.acme"]}`, []domain.UserRef{{UserID: 2}, {Username: "carol@chat.acme"}}, 0},
		{`{"users":2}`, []domain.UserRef{{UserID: 2}}, 0},
		{`{"users":["2"]}`, nil, 25},
		{`{"users":[]}`, nil, 1},
		{`{}`, nil, 1},
		{`{"users":null}`, nil, 1},
		{`{"users":[0]}`, nil, 1},
		{`{"users":[-1]}`, nil, 1},
		{`{"users":[1.5]}`, nil, 1},
		{`{"users":[null]}`, nil, 1},
		{`{"users":[{"userId":2}]}`, nil, 1},
		{`{"users":[2],"user":1}`, nil, 1},
	} {
		for _, name := range []string{"subscribe", "unsubscribe"} {
			req := domain.DecodePublish(user(alice), &domain.Publish{Topic: "commands/" + name, Payload: []byte(tc.payload), Version: 5, QoS: 1},
				domain.DefaultLimits())
			if number(req.Err) != tc.number {
				t.Errorf("%s %s: %v, want number %d", name, tc.payload, req.Err, tc.number)
			}
			if req.Err == nil {
				if diff := cmp.Diff(tc.refs, req.Command.Needs(user(alice)).Users); diff != "" {
					t.Errorf("%s %s (-want +got):\n%s", name, tc.payload, diff)
				}
			}
		}
	}
	many := named()
	for range 51 {
		many.Users = append(many.Users, named(bob).Users...)
	}
	if err := domain.Check(&domain.Subscribe{UserList: many}, domain.DefaultLimits()); number(err) != 1 {
		t.Errorf("51 users: %v", err)
	}
}

func TestSubscriptionsAddUp(t *testing.T) {
	// Subscribing twice is no error, and is told like the first time: the answer of the first may have been lost.
	s := newStore()
	s.watched = map[domain.UserID][]domain.UserID{alice: {bob}}
	s.users[1].CustomData = domain.RawObject(`{"large":1}`)
	d, err := s.decide(t, user(alice), &domain.Subscribe{UserList: named(dave, bob, dave, ghost)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&domain.Watch{User: alice, Add: []domain.UserID{dave, ghost}}, d.Watch); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	users := []domain.User{person(dave), person(bob), person(ghost)}
	if diff := cmp.Diff(users, d.Result.Users); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	want := []domain.Told{{
		Notice: domain.Notice{Type: "subscribe", Time: now, Users: users}, To: []domain.UserID{alice}, OthersOnly: true,
	}}
	if diff := cmp.Diff(want, d.Notices); diff != "" {
		t.Errorf("notices (-want +got):\n%s", diff)
	}

	d, err = s.decide(t, user(alice), &domain.Unsubscribe{UserList: named(bob, dave)})
	if err != nil || !cmp.Equal(d.Watch, &domain.Watch{User: alice, Remove: []domain.UserID{bob, dave}}) ||
		len(d.Result.Users) != 2 || d.Notices[0].Notice.Type != "unsubscribe" {
		t.Errorf("unsubscribe: %+v, %v", d, err)
	}
	d, err = s.decide(t, user(alice), &domain.UnsubscribeFromAll{})
	if err != nil || !cmp.Equal(d.Watch, &domain.Watch{User: alice, Remove: []domain.UserID{bob}}) ||
		len(d.Result.Users) != 1 || d.Notices[0].Notice.Type != "unsubscribe" {
		t.Errorf("unsubscribeFromAll: %+v, %v", d, err)
	}
	d, err = s.decide(t, user(alice), &domain.GetSubscriptions{})
	if err != nil || !cmp.Equal(d.Result.Users, []domain.User{person(bob)}) || d.Watch != nil || d.Notices != nil {
		t.Errorf("getSubscriptions: %+v, %v", d, err)
	}
	d, err = s.decide(t, user(bob), &domain.GetSubscriptions{})
	if err != nil || d.Result.Users == nil || len(d.Result.Users) != 0 {
		t.Errorf("none: %+v, %v", d, err)
	}
}

func TestSubscriptionsAreLimited(t *testing.T) {
	// What one user may cost others at each of their changes is bounded.
	c := &domain.Subscribe{UserList: named(bob, carol)}
	s := newStore()
	s.watched = map[domain.UserID][]domain.UserID{alice: {bob, dave}}
	h := s.heads(user(alice), c)
	h.Limits.Watched = 3
	if d, err := decide(t, h, user(alice), c); err != nil || len(d.Watch.Add) != 1 {
		t.Errorf("the last one: %+v, %v", d, err)
	}
	h.Limits.Watched = 2
	if _, err := decide(t, h, user(alice), c); number(err) != 1 {
		t.Errorf("one too many: %v", err)
	}
	c = &domain.Subscribe{UserList: named(bob)}
	h = s.heads(user(alice), c)
	h.Limits.Watched = 1 // it was lowered
	if _, err := decide(t, h, user(alice), c); err != nil {
		t.Errorf("again to one who is there: %v", err)
	}
}

func TestNobodySubscribesAcrossTrees(t *testing.T) {
	// Main account and children see each other; to users of another main account they do not exist.
	for _, c := range []domain.Command{
		&domain.Subscribe{UserList: named(bob, mallory)}, &domain.Unsubscribe{UserList: named(mallory)},
		&domain.Subscribe{UserList: domain.UserList{Users: domain.List[domain.Named]{{Ref: domain.UserRef{Username: person(mallory).Username}}}}},
	} {
		if _, err := newStore().decide(t, user(alice), c); number(err) != 25 {
			t.Errorf("%s: %v", c.Name(), err)
		}
	}
	if _, err := newStore().decide(t, user(dave), &domain.Subscribe{UserList: named(alice)}); err != nil {
		t.Errorf("from a child account: %v", err)
	}
}
