package e2e_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/parley-im/parley/configs"
	"github.com/parley-im/parley/e2e/chaos"
)

// ends waits until a session is ended by the gateway because its login was, at most for so long.
func (p *phone) ends(tb testing.TB, within time.Duration) {
	tb.Helper()
	p.SetReadDeadline(time.Now().Add(within))
	for told := false; ; {
		got, err := p.Read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			tb.Errorf("a session has not ended after %v", within)
			return
		case err != nil:
			if p.Version == 5 && !told {
				tb.Error("a session has ended without a word")
			}
			return
		case got.Kind == chaos.KindDisconnect:
			told = true
			if got.Reason != 0x87 {
				tb.Errorf("DISCONNECT 0x%02x", got.Reason)
			}
		}
	}
}

func TestLoginsThatEndOnOneGatewayEndSessionsOnTheOthers(t *testing.T) {
	// Whoever is locked out must be out on every node: which one it is connected to is nothing that an operator knows.
	const soon = 10 * time.Second // about one, on a machine that has nothing else to do
	t.Parallel()
	url := store{"postgres"}.empty(t)
	one, two := start(t, url), start(t, url)
	w := newWorld(t, one)
	users := w.users(t, "alice", "bob", "carol", "dave")
	alice, bob, carol, dave := users[0], users[1], users[2], users[3]
	byToken := func(u user) user {
		u.password = w.token(t, u)
		return u
	}
	for _, version := range []byte{4, 5} {
		phone := func(u user, device string) *phone { return two.phone(t, u, lasting(version, device)) }

		// All tokens of a user: sessions opened by password stay.
		token, password := phone(byToken(alice), "token"), phone(alice, "password")
		one.api(w.service.token).ok(t, "DELETE", "/v1/users/"+alice.Name+"/tokens", nil)
		token.ends(t, soon)
		phone(byToken(alice), "token").settled(t)
		password.settled(t)

		// One login: the others stay.
		first, second := byToken(bob), byToken(bob)
		leaving, staying := phone(first, "first"), phone(second, "second")
		one.api(first.password).ok(t, "POST", "/v1/logout", nil)
		leaving.ends(t, soon)
		staying.settled(t)

		// A new password: who comes with it at once stays.
		old := phone(carol, "old")
		carol.password += "!"
		one.api(w.service.token).ok(t, "PATCH", "/v1/users/"+carol.Name, map[string]any{"password": carol.password})
		fresh := phone(carol, "fresh")
		old.ends(t, soon)
		fresh.settled(t)

		// A service with another key.
		var made struct{ Key string }
		w.service.ok(t, "POST", "/v1/services", map[string]any{"account": w.account, "name": "Robot"}).into(t, &made)
		robot := two.phone(t, user{Name: "service/Robot@" + w.account, password: made.Key}, chaos.Login{Version: version, Device: "robot", Clean: true})
		w.service.ok(t, "DELETE", "/v1/services/Robot@"+w.account, nil)
		robot.ends(t, soon)
	}
	last := two.phone(t, dave, lasting(5, "last"))
	w.service.ok(t, "DELETE", "/v1/users/"+dave.Name, nil)
	last.ends(t, soon)
}

func TestOneLoginTooManyEndsTheOneUsedLeastRecently(t *testing.T) {
	// Tokens that nobody remembers must not be good for ever, nor fill the store; those in use must.
	onBothStores(t, func(t *testing.T, s store) {
		w := newWorld(t, start(t, s.empty(t), func(c *configs.Config) { c.Limits.Logins = 2 }))
		alice := w.user(t, "alice")
		logIn := func(path string, body map[string]any) (made struct{ AccessToken, RefreshToken string }) {
			t.Helper()
			w.api("").ok(t, "POST", path, body).into(t, &made)
			return made
		}
		password := map[string]any{"username": alice.Name, "password": alice.password}
		first, second := logIn("/v1/login", password), logIn("/v1/login", password)
		used := logIn("/v1/login/refresh", map[string]any{"refreshToken": first.RefreshToken})
		phones := make(map[string]*phone)
		for _, token := range []string{used.AccessToken, second.AccessToken} {
			phones[token] = w.phone(t, user{Name: alice.Name, password: token}, lasting(5, token[len(token)-20:]))
		}
		byPassword := w.phone(t, alice, lasting(5, "password"))
		third := logIn("/v1/login", password)
		phones[second.AccessToken].ends(t, patience)
		w.api(second.AccessToken).refused(t, "GET", "/v1/unread", nil)
		for _, token := range []string{first.AccessToken, used.AccessToken, third.AccessToken} {
			w.api(token).ok(t, "GET", "/v1/unread", nil)
		}
		phones[used.AccessToken].settled(t)
		byPassword.settled(t)
	})
}
