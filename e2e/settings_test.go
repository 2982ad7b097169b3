package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

// accountSettings is how an account answers.
type accountSettings struct {
	Account struct {
		Name, Parent        string
		Settings, Effective struct{ EditMessages, RemoveMessages string }
	}
}

// set changes what users of an account may do.
func (w *world) set(tb testing.TB, by api, account string, settings map[string]any) accountSettings {
	tb.Helper()
	var got accountSettings
	by.ok(tb, "PATCH", "/v1/accounts/"+account, map[string]any{"settings": settings}).into(tb, &got)
	return got
}

// changes tries both changes of a message that the text names, the removal last, and gives what was refused.
func (w *world) changes(tb testing.TB, by caller, conversation, message string) (refused []string) {
	tb.Helper()
	for _, command := range []string{"editMessage", "removeMessage"} {
		params := map[string]any{"conversation": conversation, "message": message}
		if command == "editMessage" {
			params["text"] = "edited"
		}
		if _, no := by.run(tb, command, params); no != nil {
			if no.Code != "access-denied" || !strings.Contains(no.Detail, "account") {
				tb.Errorf("%s: %s is refused with %+v", by.name, command, *no)
			}
			refused = append(refused, command)
		}
	}
	return refused
}

func TestEditingAndRemovingCanBeSwitchedOff(t *testing.T) {
	// An operator who has to keep what was said switches it off. That must hold for everybody of the account and over every
	// transport at once, and must not keep the backend from acting.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		child := w.account + "-kids"
		w.service.ok(t, "POST", "/v1/accounts", map[string]any{"name": child})
		w.service.ok(t, "POST", "/v1/accounts/"+child+"/applications", map[string]any{"name": "chat"})
		kid := user{Name: "kid@chat." + child, password: "kid's password"}
		var made struct{ User *user }
		made.User = &kid
		w.service.ok(t, "POST", "/v1/users", map[string]any{"username": kid.Name, "password": kid.password}).into(t, &made)
		w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+c+"/participants", map[string]any{"participants": refs(kid)})
		say := func(u user) string {
			t.Helper()
			var said struct{ Message message }
			w.as(t, u).ok(t, "POST", "/v1/conversations/"+c+"/messages", text("kept")).into(t, &said)
			return said.Message.UUID
		}

		var got accountSettings
		w.service.ok(t, "GET", "/v1/accounts/"+child, nil).into(t, &got)
		if s, e := got.Account.Settings, got.Account.Effective; s.EditMessages != "inherit" || e.EditMessages != "on" || e.RemoveMessages != "on" ||
			got.Account.Parent != w.account {
			t.Errorf("at first: %+v", got.Account)
		}
		off := map[string]any{"editMessages": "off", "removeMessages": "off"}
		if got := w.set(t, w.service, w.account, off); got.Account.Effective.EditMessages != "off" || got.Account.Settings.RemoveMessages != "off" {
			t.Errorf("switched off: %+v", got.Account)
		}
		for _, u := range []user{users[0], users[1], kid} { // alice owns the conversation
			for _, by := range w.callers(t, u) {
				if refused := w.changes(t, by, c, say(u)); len(refused) != 2 {
					t.Errorf("%s, %s: only %v are refused", u.Name, by.name, refused)
				}
			}
		}
		for _, by := range w.callers(t, users[0]) {
			if refused := w.changes(t, by, c, say(users[1])); len(refused) != 2 {
				t.Errorf("an owner, %s: only %v are refused", by.name, refused)
			}
		}
		for _, ev := range w.log(t, c) {
			if ev.Type == "editMessage" || ev.Type == "removeMessage" || ev.Message != nil && (ev.Message.Removed || ev.Message.Text != "kept") {
				t.Fatalf("event %d: %s %+v", ev.Seq, ev.Type, ev.Message)
			}
		}
		message := say(users[1])
		path := "/v1/conversations/" + c + "/messages/" + message
		w.service.ok(t, "PATCH", path, text("by the service"))
		w.service.ok(t, "DELETE", path, nil)

		// The child goes its own way, the main account another one.
		w.set(t, w.admin, child, map[string]any{"editMessages": "on", "removeMessages": "1h"})
		for _, by := range w.callers(t, kid) {
			if refused := w.changes(t, by, c, say(kid)); len(refused) != 0 {
				t.Errorf("the child, %s: %v are refused", by.name, refused)
			}
		}
		w.set(t, w.service, w.account, map[string]any{"editMessages": "1s"})
		late := say(users[1])
		eventually(t, "the end of a second", func() error {
			_, no := w.overHTTP(w.as(t, users[1]))(t, "editMessage", map[string]any{"conversation": c, "message": late, "text": "later"})
			if no == nil {
				return fmt.Errorf("it can still be edited")
			}
			if no.Code != "access-denied" || !strings.Contains(no.Detail, "1s") {
				t.Errorf("too late: %+v", *no)
			}
			return nil
		})
		w.set(t, w.service, w.account, map[string]any{"editMessages": "inherit", "removeMessages": "on"})
		for _, by := range w.callers(t, users[1]) {
			if refused := w.changes(t, by, c, late); len(refused) != 0 {
				t.Errorf("switched on again, %s: %v are refused", by.name, refused)
			}
			late = say(users[1])
		}

		// It is for the account's own backends.
		stranger := newWorld(t, w.gateway)
		if p := stranger.service.refused(t, "PATCH", "/v1/accounts/"+w.account, map[string]any{"settings": off}); p.Code != "access-denied" {
			t.Errorf("a stranger: %+v", p)
		}
		if p := w.as(t, users[0]).refused(t, "PATCH", "/v1/accounts/"+w.account, map[string]any{"settings": off}); p.Code != "access-denied" {
			t.Errorf("a user: %+v", p)
		}
		if p := w.service.refused(t, "PATCH", "/v1/accounts/"+w.account, map[string]any{"settings": map[string]any{"editMessages": "never"}}); p.Code != "invalid-request" {
			t.Errorf("no switch: %+v", p)
		}
	})
}

func TestSwitchesHoldOnEveryNode(t *testing.T) {
	// An operator who is told that it is off must not find edits of users who happened to be connected elsewhere.
	t.Parallel()
	url := store{"postgres"}.empty(t)
	one, two := start(t, url), start(t, url)
	w := newWorld(t, one)
	users := w.users(t, "alice", "bob")
	c := w.conversation(t, users...)
	d := two.connect(t, users[1], 5)
	d.subscribe(t, 1, users[1].replies())
	message := func() string { return d.say(t, c, text("here")).user["message"] }
	edit := func() reply {
		return d.command(t, "editMessage", map[string]any{"conversation": c, "message": message(), "text": "edited"})
	}
	for range 3 {
		if r := edit(); r.Error != nil {
			t.Fatalf("edit: %+v", r.Error)
		}
		w.set(t, w.service, w.account, map[string]any{"editMessages": "off"})
		if r := edit(); r.Error == nil || r.Error.Code != "access-denied" {
			t.Fatalf("edit on the other node: %+v", r)
		}
		w.set(t, w.service, w.account, map[string]any{"editMessages": "on"})
	}
}
