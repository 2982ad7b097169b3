package domain_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

// object gives a JSON object as a request has it: present.
func object(s string) *domain.RawObject { return ptr(domain.RawObject(s)) }

func TestAbsentKeepsAndEmptyClears(t *testing.T) {
	// Null, absent and {} are three ways to say little, and two of them mean the same: a client that edits one of its two
	// objects must not lose the other.
	for _, tc := range []struct {
		name, json      string
		public, private domain.RawObject
	}{
		{"nothing", `{}`, domain.RawObject(`{"a":1}`), domain.RawObject(`{"s":1}`)},
		{"nulls", `{"customData":null,"privateCustomData":null}`, domain.RawObject(`{"a":1}`), domain.RawObject(`{"s":1}`)},
		{"public", `{"customData":{"b":2}}`, domain.RawObject(`{"b":2}`), domain.RawObject(`{"s":1}`)},
		{"private", `{"privateCustomData":{"t":2}}`, domain.RawObject(`{"a":1}`), domain.RawObject(`{"t":2}`)},
		{"clear public", `{"customData":{}}`, nil, domain.RawObject(`{"s":1}`)},
		{"clear private", `{"privateCustomData":{ }}`, domain.RawObject(`{"a":1}`), nil},
		{"clear both", `{"customData":{},"privateCustomData":{}}`, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := domain.DecodePublish(user(alice), &domain.Publish{
				Topic: "commands/editUser", Payload: []byte(tc.json), Version: 5, QoS: 1,
			}, domain.DefaultLimits())
			if req.Err != nil {
				t.Fatal(req.Err)
			}
			h := newStore().heads(user(alice), req.Command)
			h.Self.CustomData = domain.RawObject(`{"a":1}`)
			h.Self.Own = &domain.Own{PrivateCustomData: domain.RawObject(`{"s":1}`), Notifications: []string{"editMessage"}}
			d, err := decide(t, h, user(alice), req.Command)
			if err != nil {
				t.Fatal(err)
			}
			u := d.Result.User
			if diff := cmp.Diff([2]domain.RawObject{tc.public, tc.private}, [2]domain.RawObject{u.CustomData, u.PrivateCustomData}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if u.Notifications[0] != "editMessage" || u.ConversationsList == nil {
				t.Errorf("the rest of the record is %+v", u.Own)
			}
			if tc.name == "nothing" || tc.name == "nulls" {
				if d.Self != nil || d.Notices != nil {
					t.Errorf("nothing is asked for, and %+v, %+v come of it", d.Self, d.Notices)
				}
				return
			}
			if d.Self == nil || !d.Self.CustomData.Equal(tc.public) || !d.Self.PrivateCustomData.Equal(tc.private) {
				t.Errorf("written is %+v", d.Self)
			}
			public := strings.Contains(tc.json, `"customData"`)
			if len(d.Notices) == 2 && (d.Notices[1].Watchers != alice || d.Notices[1].To != nil || d.Notices[1].Notice.User.Own != nil) ||
				len(d.Notices) > 1 != public {
				t.Errorf("watchers are told %+v", d.Notices)
			}
			if len(d.Notices) == 0 || !cmp.Equal(d.Notices[0].To, []domain.UserID{alice}) || d.Notices[0].OthersOnly ||
				!d.Notices[0].Notice.User.PrivateCustomData.Equal(tc.private) {
				t.Errorf("told is %+v", d.Notices)
			}
		})
	}
}

func TestPushEventsReplaceOneAnother(t *testing.T) {
	// The list is what is wanted from now on, each event once, in the order given.
	h := newStore().heads(user(bob), &domain.ManagePushNotifications{})
	h.Self.Own = &domain.Own{PrivateCustomData: domain.RawObject(`{"s":1}`), Notifications: []string{"createConversation"}}
	d, err := decide(t, h, user(bob), &domain.ManagePushNotifications{Events: []domain.EventType{"sendMessage", "editMessage", "sendMessage"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"sendMessage", "editMessage"}, d.Self.Notifications); diff != "" {
		t.Error(diff)
	}
	if !d.Self.PrivateCustomData.Equal(domain.RawObject(`{"s":1}`)) || len(d.Notices) != 1 {
		t.Errorf("%+v, %+v", d.Self, d.Notices)
	}
	d, err = decide(t, h, user(bob), &domain.ManagePushNotifications{Events: []domain.EventType{}})
	if err != nil || d.Result.User.Notifications == nil || len(d.Result.User.Notifications) != 0 {
		t.Errorf("none: %+v, %v", d.Result.User, err)
	}
}

func TestWrongOwnDataIsRefused(t *testing.T) {
	for _, tc := range []struct {
		name    string
		command domain.Command
		number  int
	}{
		{"unknown event", &domain.ManagePushNotifications{Events: []domain.EventType{"sendMessage", "removeMessage"}}, 26},
		{"empty event", &domain.ManagePushNotifications{Events: []domain.EventType{""}}, 26},
		{"no list", &domain.ManagePushNotifications{}, 1},
		{"huge data", &domain.EditUser{CustomData: object(`{"a":"` + strings.Repeat("x", domain.MaxUserData) + `"}`)}, 1},
		{"huge private data", &domain.EditUser{PrivateCustomData: object(`{"a":"` + strings.Repeat("x", domain.MaxUserData) + `"}`)}, 1},
	} {
		if err := domain.Check(tc.command, domain.DefaultLimits()); number(err) != tc.number {
			t.Errorf("%s: %v, want number %d", tc.name, err, tc.number)
		}
	}
}

func TestADeletedUserChangesNothing(t *testing.T) {
	// Its session may still be under way to its end.
	for _, c := range []domain.Command{&domain.EditUser{CustomData: object(`{"a":1}`)}, &domain.ManagePushNotifications{Events: []domain.EventType{}}} {
		h := newStore().heads(user(alice), c)
		h.Self.Deleted = true
		if _, err := decide(t, h, user(alice), c); number(err) != 3 {
			t.Errorf("%s: %v", c.Name(), err)
		}
		h.Self = nil
		if _, err := decide(t, h, user(alice), c); number(err) != 3 {
			t.Errorf("%s of nobody: %v", c.Name(), err)
		}
	}
}
