package storetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

func object(s string) *domain.RawObject {
	o := domain.RawObject(s)
	return &o
}

// record reads a user's own record.
func (w *World) record(p domain.Principal) *domain.User {
	w.tb.Helper()
	h, err := w.Store.Heads(w.tb.Context(), p, domain.Needs{Self: true})
	if err != nil || h.Self == nil {
		w.tb.Fatalf("the record of user %d: %+v, %v", p.User, h, err)
	}
	return h.Self
}

func ownRecords(t *testing.T, b Backend) {
	// What users say about themselves is kept with the rest of their record, and is nobody else's.
	w := worlds(t, b, 2)[0]
	log := w.Store.Committers()[0]
	c := w.Group(log, 1)
	alice, bob := w.User(0), w.User(1)
	w.Change(log, alice, &domain.EditUser{CustomData: object(`{"a":1}`), PrivateCustomData: object(`{"s":"x"}`)})
	changed := w.Change(log, alice, &domain.ManagePushNotifications{Events: []domain.EventType{"editMessage", "sendMessage"}})
	if changed.Before != nil || len(changed.Decision.Events) != 0 || changed.Decision.Result.User.ID != alice.User {
		t.Errorf("a change of the own record came to %+v", changed)
	}
	want := w.Users[0]
	want.CustomData = domain.RawObject(`{"a":1}`)
	want.Own = &domain.Own{
		PrivateCustomData: domain.RawObject(`{"s":"x"}`), Notifications: []string{"editMessage", "sendMessage"},
		ConversationsList: []domain.ConversationID{c.ID}, LeaveConversationList: []domain.ConversationID{},
	}
	equal(t, "the record", w.record(alice), &want)
	w.Change(log, alice, &domain.EditUser{CustomData: object(`{}`)})
	want.CustomData = nil
	equal(t, "the record with its public part cleared", w.record(alice), &want)
	other := w.Users[1]
	other.Own = &domain.Own{
		Notifications: []string{}, ConversationsList: []domain.ConversationID{c.ID}, LeaveConversationList: []domain.ConversationID{},
	}
	equal(t, "somebody else's record", w.record(bob), &other)

	// A refusal, and a command about a conversation, in the same batch.
	service := domain.Principal{Service: 7, Root: alice.Root, Account: alice.Account}
	outcomes := w.Try(log,
		w.Request(service, &domain.EditUser{CustomData: object(`{"no":1}`)}),
		w.Request(alice, &domain.EditUser{CustomData: object(`{"b":2}`)}),
		w.Request(alice, &domain.CreateConversation{}),
		w.Request(alice, &domain.EditUser{PrivateCustomData: object(`{}`)}),
	)
	if domain.CodeOf(outcomes[0].Err) != domain.AccessDenied || outcomes[1].Err != nil || outcomes[2].Err != nil || outcomes[3].Err != nil {
		t.Errorf("a mixed batch came to %+v", outcomes)
	}
	got := w.record(alice)
	if !got.CustomData.Equal(domain.RawObject(`{"b":2}`)) || got.PrivateCustomData != nil || len(got.ConversationsList) != 2 {
		t.Errorf("after a mixed batch the record is %+v %+v", got, got.Own)
	}

	must(t, w.Store.DeleteUser(t.Context(), alice.User))
	if gone := w.Try(log, w.Request(alice, &domain.EditUser{CustomData: object(`{"late":1}`)}))[0]; domain.CodeOf(gone.Err) != domain.NotAuthenticated {
		t.Errorf("a deleted user's change came to %+v", gone)
	}
	if got := w.record(alice); !got.Deleted || got.PrivateCustomData != nil || !got.CustomData.Equal(domain.RawObject(`{"b":2}`)) {
		t.Errorf("the deleted user's record is %+v %+v", got, got.Own)
	}
}

func ownRecordsMeeting(t *testing.T, b Backend) {
	// Each change rewrites the record that it was decided on, so two that meet must not lose one another, and many users'
	// changes in the batches of several committers must not lock one another out.
	const users, rounds = 6, 10
	all := worlds(t, b, users)
	logs, of := committers(all...)
	var wg sync.WaitGroup
	for l, log := range logs {
		wg.Go(func() {
			for round := range rounds {
				var batch []domain.ChangeRequest
				for i := range users {
					u := (i*(1+4*(l%2)) + round) % users // forwards and backwards
					var c domain.Command = &domain.EditUser{CustomData: object(fmt.Sprintf(`{"n":%d}`, round))}
					if l%2 == 1 {
						c = &domain.EditUser{PrivateCustomData: object(fmt.Sprintf(`{"n":%d}`, round))}
					}
					batch = append(batch, of[l].Request(of[l].User(u), c))
				}
				changed, err := log.Change(t.Context(), batch)
				if err != nil {
					t.Error(err)
					return
				}
				for _, c := range changed {
					if c.Err != nil {
						t.Error(c.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	last := domain.RawObject(fmt.Sprintf(`{"n":%d}`, rounds-1))
	for i := range users {
		got := all[0].record(all[0].User(i))
		if !got.CustomData.Equal(last) || len(logs) > 1 && !got.PrivateCustomData.Equal(last) {
			t.Errorf("the record of user %d is %+v %+v", i, got, got.Own)
		}
	}
}
