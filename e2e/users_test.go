package e2e_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"testing"
)

// sameJSON compares JSON with a text; absent is "".
func sameJSON(t *testing.T, what string, got json.RawMessage, want string) {
	t.Helper()
	var a, b any
	_ = json.Unmarshal(got, &a)
	_ = json.Unmarshal([]byte(want), &b)
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) != string(y) {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestUsersEditThemselvesAndOthersSeeThePublicPart(t *testing.T) {
	// Null and absent keep, {} clears; the private part never reaches anybody else, by no way.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := users[0], users[1], users[2]
		phone, tablet := w.online(t, alice, version), w.online(t, alice, version)
		watcher, stranger := w.online(t, bob, version), w.online(t, carol, version)
		watcher.run(t, &struct{}{}, "subscribe", map[string]any{"users": []int64{alice.ID}})
		var got struct{ User person }
		phone.run(t, &got, "editUser", map[string]any{
			"customData": map[string]any{"mood": "fine"}, "privateCustomData": map[string]any{"pin": 1234},
		})
		sameJSON(t, "the answer", got.User.CustomData, `{"mood":"fine"}`)
		sameJSON(t, "the answer", got.User.PrivateCustomData, `{"pin":1234}`)
		for _, d := range []*device{phone, tablet} {
			n := d.told(t, "editUser")
			sameJSON(t, "own device", n.User.CustomData, `{"mood":"fine"}`)
			sameJSON(t, "own device", n.User.PrivateCustomData, `{"pin":1234}`)
		}
		if n := watcher.told(t, "editUser"); n.User.UserID != alice.ID || n.User.PrivateCustomData != nil || n.User.Notifications != nil {
			t.Errorf("bob is told %+v", n.User)
		} else {
			sameJSON(t, "bob", n.User.CustomData, `{"mood":"fine"}`)
		}
		phone.run(t, &got, "editUser", map[string]any{"customData": nil, "privateCustomData": map[string]any{}})
		sameJSON(t, "null keeps", got.User.CustomData, `{"mood":"fine"}`)
		sameJSON(t, "{} clears", got.User.PrivateCustomData, ``)
		phone.run(t, &got, "managePushNotifications", map[string]any{"events": []string{"sendMessage", "createConversation"}})
		phone.run(t, &got, "managePushNotifications", map[string]any{"events": []string{"editMessage"}})
		phone.run(t, &got, "editUser", map[string]any{"privateCustomData": map[string]any{"pin": 2}})
		phone.run(t, &got, "getMe", nil)
		if u := got.User; u.Notifications == nil || !slices.Equal(*u.Notifications, []string{"editMessage"}) ||
			u.ConversationsList == nil || u.LeaveConversationList == nil {
			t.Errorf("getMe gives %+v", u)
		}
		sameJSON(t, "getMe", got.User.PrivateCustomData, `{"pin":2}`)
		for _, ask := range []struct {
			name   string
			params map[string]any
			number int
		}{
			{"managePushNotifications", map[string]any{"events": []string{"sendMessage", "typing"}}, 26},
			{"managePushNotifications", map[string]any{}, 1},
			{"editUser", map[string]any{"customData": "text"}, 1},
			{"editUser", map[string]any{"displayName": "me"}, 1},
		} {
			if n := phone.ask(t, ask.name, ask.params); n != ask.number {
				t.Errorf("%s %v: number %d, want %d", ask.name, ask.params, n, ask.number)
			}
		}
		watcher.run(t, &got, "getUser", map[string]any{"userId": alice.ID})
		if got.User.PrivateCustomData != nil && string(got.User.PrivateCustomData) != `{"pin":2}` {
			t.Errorf("bob gets %s", got.User.PrivateCustomData)
		}
		var seen struct{ User map[string]any }
		w.as(t, bob).ok(t, "GET", "/v1/users/"+url.PathEscape(alice.Name), nil).into(t, &seen)
		for _, private := range []string{"privateCustomData", "notifications", "conversationsList", "leaveConversationList"} {
			if _, has := seen.User[private]; has {
				t.Errorf("over HTTP bob gets %s", private)
			}
		}

		// A backend's change is told like the user's own.
		w.service.ok(t, "PATCH", "/v1/users/"+url.PathEscape(alice.Name), map[string]any{"displayName": "Alice"})
		for _, d := range []*device{tablet, watcher} {
			n := d.told(t, "editUser")
			for n.User.DisplayName != "Alice" {
				n = d.told(t, "editUser")
			}
			if private := n.User.PrivateCustomData != nil; private != (d == tablet) {
				t.Errorf("%s is told %+v", d.user.Name, n.User)
			}
		}
		for _, r := range stranger.inbox.rest() {
			t.Errorf("carol is told %s", r.payload)
		}
	})
}

func TestDeletedUsersAreShownAsSuchAndActNoMore(t *testing.T) {
	// Their messages and their names stay; neither name nor number come back.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		alice, bob := w.user(t, "alice"), w.user(t, "bob")
		token := w.as(t, bob)
		gone, watcher := w.online(t, bob, version), w.online(t, alice, version)
		gone.run(t, &struct{}{}, "editUser", map[string]any{"privateCustomData": map[string]any{"secret": 1}})
		watcher.run(t, &struct{}{}, "subscribe", map[string]any{"users": []int64{bob.ID}})
		watcher.subscribe(t, 1, bob.status())
		gone.run(t, &struct{}{}, "setStatus", map[string]any{"online": true})
		watcher.sees(t, bob, "available")
		w.service.ok(t, "DELETE", "/v1/users/"+url.PathEscape(bob.Name), nil)
		if f := gone.over(t); version == 5 && f.reason != 0x87 {
			t.Errorf("the deleted user's session ended with %#x", f.reason)
		}
		watcher.sees(t, bob, "offline")
		n := watcher.told(t, "editUser")
		for !n.User.Deleted {
			n = watcher.told(t, "editUser")
		}
		if n.User.UserID != bob.ID {
			t.Errorf("told is %+v", n.User)
		}
		for _, c := range w.callers(t, alice) {
			var one struct{ User person }
			c.must(t, &one, "getUser", map[string]any{"username": bob.Name})
			var many struct{ Users []person }
			c.must(t, &many, "getUsers", map[string]any{"usernames": []string{bob.Name, alice.Name}})
			if !one.User.Deleted || one.User.UserID != bob.ID || len(many.Users) != 2 || !many.Users[0].Deleted || many.Users[1].Deleted {
				t.Errorf("%s: %+v, %+v", c.name, one.User, many.Users)
			}
		}
		if res := token.any(t, "GET", "/v1/users/"+url.PathEscape(bob.Name), nil); res.status != 401 {
			t.Errorf("the token of a deleted user: %d", res.status)
		}
		if p := w.service.refused(t, "POST", "/v1/users", map[string]any{"username": bob.Name}); p.Code != "already-exists" {
			t.Errorf("the name again: %+v", p)
		}
		if d, err := w.attach(t.Context(), bob, version); err == nil {
			d.leave()
			t.Error("a deleted user logged in")
		}
		if p := w.service.refused(t, "PATCH", "/v1/users/"+url.PathEscape(bob.Name), map[string]any{"displayName": "x"}); p.Number != 25 {
			t.Errorf("an edit of a deleted user: %+v", p)
		}
	})
}

// branch makes a child account of the world's, with a user and a service of its own.
func (w *world) branch(t *testing.T, name string) (service api, u user) {
	t.Helper()
	account := w.account + "-" + name
	w.service.ok(t, "POST", "/v1/accounts", map[string]any{"name": account})
	var made struct{ Key string }
	w.service.ok(t, "POST", "/v1/services", map[string]any{"account": account, "name": "Backend"}).into(t, &made)
	service = w.api(made.Key)
	u.password = "secret"
	created := struct{ User *user }{&u}
	service.ok(t, "POST", "/v1/users", map[string]any{"username": name + "@chat." + account, "password": u.password}).into(t, &created)
	return service, u
}

func TestTheAccountTreeIsTheHorizon(t *testing.T) {
	// Users of a main account and of its children see each other, siblings included; of anybody else they see not even that
	// there is somebody.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		_, left := w.branch(t, "left")
		rightService, right := w.branch(t, "right")
		main := w.user(t, "main")
		other := newWorld(t, w.gateway)
		stranger := other.user(t, "stranger")
		nobody := user{ID: 1 << 50, Name: "nobody@chat." + w.account}
		tree := []user{main, left, right}
		for _, u := range tree {
			d, api := w.online(t, u, version), w.as(t, u)
			for _, o := range tree {
				var got struct{ User person }
				d.run(t, &got, "getUser", map[string]any{"username": o.Name})
				var over struct{ User person }
				api.ok(t, "GET", "/v1/users/"+url.PathEscape(o.Name), nil).into(t, &over)
				if got.User.UserID != o.ID || over.User.UserID != o.ID {
					t.Errorf("%s sees %+v and %+v", u.Name, got.User, over.User)
				}
				d.run(t, &struct{}{}, "subscribe", map[string]any{"users": []int64{o.ID}})
				d.subscribe(t, 1, o.status())
				d.sees(t, o, "offline")
			}
			var found struct{ Users []person }
			api.ok(t, "GET", "/v1/users?limit=100", nil).into(t, &found)
			if len(found.Users) != 3 {
				t.Errorf("%s finds %+v", u.Name, found.Users)
			}
			for _, o := range []user{stranger, nobody} {
				for name, params := range map[string]map[string]any{
					"getUser": {"userId": o.ID}, "getUsers": {"usernames": []string{main.Name, o.Name}},
					"subscribe": {"users": []int64{o.ID}}, "createConversation": {"participants": []any{o.ref()}},
				} {
					if n := d.ask(t, name, params); n != 25 {
						t.Errorf("%s: %s of %s is refused with %d", u.Name, name, o.Name, n)
					}
				}
				if p := api.refused(t, "GET", "/v1/users/"+url.PathEscape(o.Name), nil); p.Number != 25 || p.Status != 404 {
					t.Errorf("%s over HTTP: %+v", u.Name, p)
				}
				codes, err := d.trySubscribe(t.Context(), 1, o.status())
				if want := map[byte]byte{4: 0x80, 5: 0x83}[version]; err != nil || codes[0] != want {
					t.Errorf("%s: the status of %s is refused with %#x, %v", u.Name, o.Name, codes, err)
				}
			}
		}
		// Services see as far as their users, and administer the tree.
		rightService.ok(t, "GET", "/v1/users/"+url.PathEscape(left.Name), nil)
		if p := rightService.refused(t, "GET", "/v1/users/"+url.PathEscape(stranger.Name), nil); p.Number != 25 {
			t.Errorf("a service sees %+v", p)
		}
		if p := rightService.refused(t, "DELETE", "/v1/users/"+url.PathEscape(stranger.Name), nil); p.Number != 25 {
			t.Errorf("a service deletes %+v", p)
		}
	})
}

func TestAccountsAreAdministeredOverHTTP(t *testing.T) {
	// By the admin key everywhere, by a service within its tree, by users not at all.
	inWorlds(t, func(t *testing.T, w *world) {
		parents := func(a api) []string {
			// Other tests share the gateway: the admin's list has many pages.
			var all []string
			for _, acc := range slices.Concat(pagesOf[struct{ Name, Parent string }](t, a, "/v1/accounts", "accounts", 100)...) {
				all = append(all, acc.Name+"<"+acc.Parent)
			}
			return all
		}
		child, other := w.account+"-child", newWorld(t, w.gateway)
		w.service.ok(t, "POST", "/v1/accounts", map[string]any{"name": child, "parent": w.account})
		if got := parents(w.service); !slices.Equal(got, []string{w.account + "<", child + "<" + w.account}) {
			t.Errorf("accounts %v", got)
		}
		if all := parents(w.admin); !slices.Contains(all, other.account+"<") || !slices.Contains(all, child+"<"+w.account) {
			t.Errorf("the admin sees %v", all)
		}
		for what, p := range map[string]refusal{
			"grandchild":          w.admin.refused(t, "POST", "/v1/accounts", map[string]any{"name": "x", "parent": child}),
			"not a name":          w.admin.refused(t, "POST", "/v1/accounts", map[string]any{"name": "X"}),
			"unknown field":       w.admin.refused(t, "POST", "/v1/accounts", map[string]any{"name": "x", "kind": 1}),
			"taken":               w.admin.refused(t, "POST", "/v1/accounts", map[string]any{"name": child}),
			"elsewhere":           w.service.refused(t, "POST", "/v1/accounts", map[string]any{"name": "x", "parent": other.account}),
			"of a user":           w.as(t, w.user(t, "u")).refused(t, "GET", "/v1/accounts", nil),
			"delete elsewhere":    w.service.refused(t, "DELETE", "/v1/accounts/"+other.account, nil),
			"delete nowhere":      w.service.refused(t, "DELETE", "/v1/accounts/nowhere", nil),
			"delete full":         w.service.refused(t, "DELETE", "/v1/accounts/"+w.account, nil),
			"no such for admin":   w.admin.refused(t, "DELETE", "/v1/accounts/nowhere", nil),
			"foreign application": w.service.refused(t, "GET", "/v1/accounts/"+other.account+"/applications", nil),
			"used application":    w.service.refused(t, "DELETE", "/v1/accounts/"+w.account+"/applications/chat", nil),
		} {
			want := map[string]string{
				"grandchild": "invalid-request", "not a name": "invalid-request", "unknown field": "invalid-request", "taken": "already-exists",
				"elsewhere": "not-found", "delete full": "in-use", "no such for admin": "not-found", "used application": "in-use",
			}[what]
			if want == "" {
				want = "access-denied"
			}
			if p.Code != want {
				t.Errorf("%s: %+v, want %s", what, p, want)
			}
		}
		w.service.ok(t, "POST", "/v1/accounts/"+child+"/applications", map[string]any{"name": "alarm"})
		var apps struct {
			Applications []struct{ Name, Account string }
		}
		w.service.ok(t, "GET", "/v1/accounts/"+child+"/applications", nil).into(t, &apps)
		if len(apps.Applications) != 1 || apps.Applications[0].Name != "alarm" || apps.Applications[0].Account != child {
			t.Errorf("applications %+v", apps)
		}
		w.service.ok(t, "DELETE", "/v1/accounts/"+child, nil)
		if got := parents(w.service); len(got) != 1 {
			t.Errorf("left are %v", got)
		}
	})
}
