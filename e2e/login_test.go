package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-im/parley/configs"
)

func TestEachProofOfIdentityOpensTheDoor(t *testing.T) {
	// People have passwords, apps keep tokens, backends have keys: each must do, on both versions of MQTT and over HTTP.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		alice := w.user(t, "alice")
		w.connect(t, alice, version).leave()

		var session struct {
			AccessToken, RefreshToken     string
			AccessExpires, RefreshExpires int64
			User                          user
		}
		w.api("").ok(t, "POST", "/v1/login", map[string]any{"username": alice.Name, "password": alice.password}).into(t, &session)
		if session.User.ID != alice.ID || session.User.Name != alice.Name {
			t.Errorf("login answers for %+v", session.User)
		}
		now := time.Now()
		for what, got := range map[string][2]time.Time{
			"access token":  {time.UnixMilli(session.AccessExpires), now.Add(48 * time.Hour)},
			"refresh token": {time.UnixMilli(session.RefreshExpires), now.Add(720 * time.Hour)},
		} {
			if off := got[0].Sub(got[1]).Abs(); off > time.Minute {
				t.Errorf("the %s ends at %v, %v away from what is documented", what, got[0], off)
			}
		}
		w.online(t, alice, version, withPassword(session.AccessToken)).command(t, "getMe", nil).into(t, &struct{}{})
		w.online(t, alice, version, withPassword(w.token(t, alice))).command(t, "getMe", nil).into(t, &struct{}{})

		service := w.connect(t, alice, version, login("service/Billing@"+w.account, w.service.token))
		service.subscribe(t, 1, "conversations/+/events")
		c := w.conversation(t, alice)
		if ev := service.hear(t, c); ev.Type != "createConversation" {
			t.Errorf("the service hears %s", ev.raw)
		}
	})
}

func TestWrongNameAndWrongPasswordAreIndistinguishable(t *testing.T) {
	// Whoever can tell them apart can find out which users exist.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		alice := w.user(t, "alice")
		tokenOnly := user{Name: "robot@chat." + w.account, password: "anything"}
		w.service.ok(t, "POST", "/v1/users", map[string]any{"username": tokenOnly.Name})

		var greetings []greeting
		var answers [][]byte
		for what, u := range map[string]user{
			"wrong password":  {Name: alice.Name, password: "not " + alice.password},
			"unknown name":    {Name: "nobody@chat." + w.account, password: alice.password},
			"unknown account": {Name: "alice@chat.no-such-account", password: alice.password},
			"no password":     tokenOnly,
			"not a name":      {Name: "alice", password: alice.password},
			"wrong key":       {Name: "service/Billing@" + w.account, password: w.service.token + "x"},
			"unknown service": {Name: "service/Nobody@" + w.account, password: w.service.token},
		} {
			hello := w.refuse(t, u, version)
			want := byte(0x87)
			if version == 4 {
				want = 5
			}
			if hello.reason != want {
				t.Errorf("%s: CONNACK 0x%02x, want 0x%02x", what, hello.reason, want)
			}
			greetings = append(greetings, hello)
			res := w.api("").any(t, "POST", "/v1/login", map[string]any{"username": u.Name, "password": u.password})
			if res.status != 401 {
				t.Errorf("%s: HTTP says %d %s", what, res.status, res.body)
			}
			answers = append(answers, res.body)
		}
		for _, g := range greetings[1:] {
			if string(mustJSON(t, g.user)) != string(mustJSON(t, greetings[0].user)) || g.text != greetings[0].text {
				t.Errorf("CONNACKs differ: %+v and %+v", g, greetings[0])
			}
		}
		for _, a := range answers[1:] {
			if !bytes.Equal(a, answers[0]) {
				t.Errorf("answers differ: %s and %s", a, answers[0])
			}
		}
	})
}

func TestEmptyPasswordIsAWrongPassword(t *testing.T) {
	// A password of no bytes is well-formed MQTT: who forgets it must hear that the login failed, not that the client is broken.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		want := byte(0x87)
		if version == 4 {
			want = 5
		}
		for _, name := range []string{w.user(t, "alice").Name, "nobody@chat." + w.account} {
			r := w.rawDial(t, version)
			r.write(t, r.connectPacket(dialing{username: name, id: "device"}))
			if hello := r.expect(t, typeConnack); hello.reason != want {
				t.Errorf("%s: CONNACK 0x%02x %s, want 0x%02x", name, hello.reason, hello.props.reasonString(), want)
			}
		}
	})
}

func TestWrongNameCostsAPasswordVerification(t *testing.T) {
	// An answer that comes at once says that there is no such user, whatever its words are. With one verification at a
	// time, whoever needs one has to wait for those that came before.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t), func(c *configs.Config) {
			c.Login.Argon2Memory, c.Login.Argon2Iterations, c.Login.ParallelVerifications = 32<<10, 16, 1
		})
		w := newWorld(t, g)
		alice := w.user(t, "alice")
		robot := user{Name: "robot@chat." + w.account, password: "anything"}
		w.service.ok(t, "POST", "/v1/users", map[string]any{"username": robot.Name})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		defer all.Wait()
		defer cancel()
		overHTTP := func(u user) error {
			_, err := w.api("").do(ctx, "POST", "/v1/login", map[string]any{"username": u.Name, "password": u.password})
			return err
		}
		overMQTT := func(u user) error {
			d, err := w.attach(ctx, u, 5)
			if err == nil {
				d.leave()
				t.Errorf("%s was let in", u.Name)
			}
			return err
		}
		const before = 3
		var verified atomic.Int64
		for i := range before {
			all.Go(func() {
				if overHTTP(user{Name: alice.Name, password: fmt.Sprint("wrong ", i)}) == nil {
					verified.Add(1)
				}
			})
		}
		waiting := func(n int64) {
			t.Helper()
			eventually(t, fmt.Sprintf("%d logins wait for a verification", n), func() error {
				done := verified.Load() // asked first: who is done does not wait any more
				if got := done + int64(g.metric(t, "parley_login_waiting")); got < n {
					return fmt.Errorf("%d do, or have done so", got)
				}
				return nil
			})
		}
		waiting(before - 1)
		probes := []user{
			{Name: alice.Name, password: "wrong"},
			{Name: "nobody@chat." + w.account, password: "wrong"},
			{Name: "nobody", password: "wrong"},
			{Name: "a@b.c", password: "wrong"},
			robot,
		}
		for _, u := range probes {
			all.Go(func() { _ = overHTTP(u) })
			all.Go(func() { _ = overMQTT(u) })
		}
		waiting(before - 1 + 2*int64(len(probes)))
	})
}

func TestRefreshTokenWorksOnceAndItsReuseEndsTheLogin(t *testing.T) {
	// A refresh token that is used twice was stolen; the thief and the owner cannot be told apart, so both are out.
	inWorlds(t, func(t *testing.T, w *world) {
		alice := w.user(t, "alice")
		type session struct{ AccessToken, RefreshToken string }
		var first, second, other session
		credentials := map[string]any{"username": alice.Name, "password": alice.password}
		w.api("").ok(t, "POST", "/v1/login", credentials).into(t, &first)
		w.api("").ok(t, "POST", "/v1/login", credentials).into(t, &other)
		refresh := func(s session) map[string]any { return map[string]any{"refreshToken": s.RefreshToken} }
		w.api("").ok(t, "POST", "/v1/login/refresh", refresh(first)).into(t, &second)
		if second.RefreshToken == first.RefreshToken || second.AccessToken == first.AccessToken {
			t.Error("the tokens are the same as before")
		}
		w.api(second.AccessToken).ok(t, "GET", "/v1/users/"+alice.Name, nil)

		if p := w.api("").refused(t, "POST", "/v1/login/refresh", refresh(first)); p.Status != 401 || p.Number != 3 {
			t.Errorf("reuse: %+v", p)
		}
		if p := w.api("").refused(t, "POST", "/v1/login/refresh", refresh(second)); p.Status != 401 {
			t.Errorf("the family lives on after a reuse: %+v", p)
		}
		for _, s := range []session{first, second} {
			if p := w.api(s.AccessToken).refused(t, "GET", "/v1/users/"+alice.Name, nil); p.Status != 401 {
				t.Errorf("an access token lives on after a reuse: %+v", p)
			}
			w.refuse(t, alice, 5, withPassword(s.AccessToken))
		}
		// Another login of the same user is nobody's fault.
		w.api(other.AccessToken).ok(t, "GET", "/v1/users/"+alice.Name, nil)
		w.api("").ok(t, "POST", "/v1/login/refresh", refresh(other))
	})
}

func TestLogoutEndsTheTokensAtOnce(t *testing.T) {
	// Somebody who logs out of a borrowed computer must be able to walk away.
	inWorlds(t, func(t *testing.T, w *world) {
		alice := w.user(t, "alice")
		var session struct{ AccessToken, RefreshToken string }
		w.api("").ok(t, "POST", "/v1/login", map[string]any{"username": alice.Name, "password": alice.password}).into(t, &session)
		w.api(session.AccessToken).ok(t, "POST", "/v1/logout", nil)
		for _, p := range []refusal{
			w.api(session.AccessToken).refused(t, "GET", "/v1/users/"+alice.Name, nil),
			w.api(session.AccessToken).refused(t, "POST", "/v1/logout", nil),
			w.api("").refused(t, "POST", "/v1/login/refresh", map[string]any{"refreshToken": session.RefreshToken}),
		} {
			if p.Status != 401 || p.Code != "not-authenticated" {
				t.Errorf("after the logout: %+v", p)
			}
		}
		w.refuse(t, alice, 5, withPassword(session.AccessToken))
		w.connect(t, alice, 5) // the password is still good
	})
}

func TestLogoutEndsTheSessionsOfItsLogin(t *testing.T) {
	// Who logs out, or whose refresh token was stolen, must be out where it shows: on the connection that is open. Other
	// logins of the user are not concerned.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		type session struct{ AccessToken, RefreshToken string }
		refresh := func(s session) map[string]any { return map[string]any{"refreshToken": s.RefreshToken} }
		for what, end := range map[string]func(first, second session){
			"logout":                 func(first, _ session) { w.api(first.AccessToken).ok(t, "POST", "/v1/logout", nil) },
			"logout after a refresh": func(_, second session) { w.api(second.AccessToken).ok(t, "POST", "/v1/logout", nil) },
			"reuse": func(first, _ session) {
				w.api("").refused(t, "POST", "/v1/login/refresh", refresh(first))
			},
		} {
			t.Run(what, func(t *testing.T) {
				users := w.users(t, fmt.Sprint("alice", devices.Add(1)), fmt.Sprint("bob", devices.Add(1)))
				alice := users[0]
				c := w.conversation(t, users...)
				login := func() (s session) {
					w.api("").ok(t, "POST", "/v1/login", map[string]any{"username": alice.Name, "password": alice.password}).into(t, &s)
					return s
				}
				first, other := login(), login()
				var second session
				w.api("").ok(t, "POST", "/v1/login/refresh", refresh(first)).into(t, &second)
				goes := []*device{
					w.connect(t, alice, version, withPassword(first.AccessToken)), w.connect(t, alice, version, withPassword(second.AccessToken)),
				}
				stay := []*device{w.connect(t, alice, version, withPassword(other.AccessToken)), w.connect(t, alice, version)}
				for _, d := range append(slices.Clone(goes), stay...) {
					d.subscribe(t, 1, allEvents)
				}
				end(first, second)
				for _, d := range goes {
					if f := d.over(t); version == 5 && f.reason != 0x87 {
						t.Errorf("DISCONNECT 0x%02x %q, want 0x87", f.reason, f.text)
					}
				}
				w.refuse(t, alice, version, withPassword(second.AccessToken))
				last := w.sayVia(t, w.as(t, users[1]), c, 1)
				for _, d := range stay {
					d.hearUpTo(t, c, last, last)
				}
			})
		}
	})
}

func TestSessionEndsWithItsToken(t *testing.T) {
	// A token's end must not be put off by staying connected.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t), func(c *configs.Config) { c.Login.AccessTTL = 8 * time.Second }) // long enough to log in twice
		w := newWorld(t, g)
		alice := w.user(t, "alice")
		var session struct {
			AccessToken   string
			AccessExpires int64
		}
		w.api("").ok(t, "POST", "/v1/login", map[string]any{"username": alice.Name, "password": alice.password}).into(t, &session)
		old := w.connect(t, alice, 4, withPassword(session.AccessToken))
		modern := w.connect(t, alice, 5, withPassword(session.AccessToken))
		byPassword := w.connect(t, alice, 5)
		if f := modern.over(t); f.reason != 0x87 || f.text != "token-expired" {
			t.Errorf("DISCONNECT 0x%02x %q, want 0x87 token-expired", f.reason, f.text)
		}
		old.over(t)
		if now := time.Now(); now.Before(time.UnixMilli(session.AccessExpires).Add(-50 * time.Millisecond)) {
			t.Errorf("the session ended at %v, before its token", now)
		}
		w.refuse(t, alice, 5, withPassword(session.AccessToken))
		if p := w.api(session.AccessToken).refused(t, "GET", "/v1/users/"+alice.Name, nil); p.Status != 401 {
			t.Errorf("an expired token over HTTP: %+v", p)
		}
		byPassword.subscribe(t, 1, alice.replies())
		byPassword.command(t, "getMe", nil).into(t, &struct{}{}) // has no token that could expire
	})
}

func TestSessionsEndWithTheirUserAndItsPassword(t *testing.T) {
	// Deleting a user, or changing a stolen password, means nothing as long as the connections stay.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		for i, end := range []func(user){
			func(u user) { w.service.ok(t, "DELETE", "/v1/users/"+u.Name, nil) },
			func(u user) { w.service.ok(t, "PATCH", "/v1/users/"+u.Name, map[string]any{"password": "a new one"}) },
		} {
			u := users[i]
			token := w.token(t, u)
			devices := []*device{w.connect(t, u, version), w.connect(t, u, version, withPassword(token))}
			end(u)
			for _, d := range devices {
				f := d.over(t)
				if version == 5 && f.reason != 0x87 {
					t.Errorf("DISCONNECT 0x%02x %q, want 0x87", f.reason, f.text)
				}
			}
			w.refuse(t, u, version)
			w.refuse(t, u, version, withPassword(token))
			if p := w.api(token).refused(t, "GET", "/v1/users/"+u.Name, nil); p.Status != 401 {
				t.Errorf("a token lives on: %+v", p)
			}
		}
		w.connect(t, users[1], version, withPassword("a new one"))
	})
}

func TestConnackIntroducesTheUser(t *testing.T) {
	// A client that logged in by token learns who it is, what time it is and where replies come from.
	inWorlds(t, func(t *testing.T, w *world) {
		alice := w.user(t, "alice")
		before := time.Now()
		asked := w.rawConnect(t, alice, 5, func(d *dialing) { d.askResponse = true })
		p := asked.hello.props
		if p.user["userId"] != strconv.FormatInt(alice.ID, 10) || p.user["username"] != alice.Name {
			t.Errorf("CONNACK says %v to user %d", p.user, alice.ID)
		}
		ms, err := strconv.ParseInt(p.user["serverTime"], 10, 64)
		if at := time.UnixMilli(ms); err != nil || at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("serverTime is %q", p.user["serverTime"])
		}
		if p.texts[0x1a] != alice.replies() {
			t.Errorf("Response Information is %q", p.texts[0x1a])
		}
		if p.numbers[0x21] != 64 {
			t.Errorf("Receive Maximum is %d", p.numbers[0x21])
		}
		if p.numbers[0x27] != 128<<10 {
			t.Errorf("Maximum Packet Size is %d", p.numbers[0x27])
		}
		if asked.hello.present {
			t.Error("Session Present without a session")
		}
		plain := w.rawConnect(t, alice, 5)
		if got, ok := plain.hello.props.texts[0x1a]; ok {
			t.Errorf("Response Information %q though nobody asked", got)
		}
	})
}

func TestNewLoginWithATagEndsTheOlder(t *testing.T) {
	// An application that wants one session per kind of device relies on it; the older one must hear why it has to go.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		alice := w.user(t, "alice")
		other := w.connect(t, alice, version, tagged("tag", "desktop"))
		untagged := w.connect(t, alice, version)
		for i := range 2 { // by option and, in MQTT 5 too, by query string
			first := w.online(t, alice, version, tagged("tag", "mobile"))
			option := tagged("tag", "mobile")
			if i == 1 {
				option = login(alice.Name+"?tag=mobile", alice.password)
			}
			second := w.online(t, alice, version, option)
			if n := first.notice(t, "conflict"); n.Tag != "mobile" {
				t.Errorf("conflict names the tag %q", n.Tag)
			}
			if f := first.over(t); version == 5 && f.reason != 0x8e {
				t.Errorf("DISCONNECT 0x%02x, want 0x8E", f.reason)
			}
			second.command(t, "getMe", nil).into(t, &struct{}{})

			// Who only reconnects gives way.
			want := byte(0x8e)
			if version == 4 {
				want = 5
			}
			if hello := w.refuse(t, alice, version, tagged("tag", "mobile", "reconnect", "1")); hello.reason != want {
				t.Errorf("a reconnect meets CONNACK 0x%02x, want 0x%02x", hello.reason, want)
			}
			if hello := w.refuse(t, alice, version, login(alice.Name+"?tag=mobile&reconnect=1", alice.password)); hello.reason != want {
				t.Errorf("a reconnect by query string meets CONNACK 0x%02x, want 0x%02x", hello.reason, want)
			}
			second.command(t, "getMe", nil).into(t, &struct{}{})
			second.leave()
			eventually(t, "reconnecting when nobody has the tag any more", func() error {
				d, err := w.attach(t.Context(), alice, version, tagged("tag", "mobile", "reconnect", "1"))
				if err == nil {
					d.leave()
				}
				return err
			})
		}
		for _, d := range []*device{other, untagged} {
			d.subscribe(t, 1, alice.replies())
			d.command(t, "getMe", nil).into(t, &struct{}{})
		}
	})
}

func TestClientIDBelongsToItsUser(t *testing.T) {
	// Whoever guesses the client id of another user must not throw it out, nor get anything of it.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "mallory")
		mine := w.online(t, users[0], version, named("phone"))
		theirs := w.online(t, users[1], version, named("phone"))
		mine.command(t, "getMe", nil).into(t, &struct{}{})
		theirs.command(t, "getMe", nil).into(t, &struct{}{})
		c := w.conversation(t, users[0])
		mine.hear(t, c)
		if n := len(theirs.events.rest()); n > 0 {
			t.Errorf("%d events reached another user's device", n)
		}

		again := w.online(t, users[0], version, named("phone"))
		if f := mine.over(t); version == 5 && f.reason != 0x8e {
			t.Errorf("the older session of the client id gets DISCONNECT 0x%02x, want 0x8E", f.reason)
		}
		again.command(t, "getMe", nil).into(t, &struct{}{})
		theirs.command(t, "getMe", nil).into(t, &struct{}{})
		w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+c+"/messages", text("still there?"))
		if ev := again.hear(t, c); ev.Seq != 2 {
			t.Errorf("the newer session hears event %d first", ev.Seq)
		}
	})
}

func TestLoginWorksOverEveryTransport(t *testing.T) {
	// Browsers have WebSockets only, and passwords on the open network need TLS.
	onBothStores(t, func(t *testing.T, s store) {
		cert, roots := certificate(t)
		g := start(t, s.empty(t), func(c *configs.Config) { c.MQTT.TLS, c.TLS = "127.0.0.1:0", cert })
		w := newWorld(t, g)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		var listeners []*device
		for _, transport := range []string{"tcp", "ws", "tls"} {
			for _, version := range []byte{4, 5} {
				d := w.online(t, users[1], version, over(transport), func(d *dialing) { d.roots = roots })
				listeners = append(listeners, d)
			}
		}
		for i, d := range listeners {
			d.say(t, c, map[string]any{"text": "to all", "payload": []any{map[string]any{"from": i}}})
		}
		last := int64(len(listeners) + 1)
		for _, d := range listeners {
			d.hearUpTo(t, c, 2, last)
		}
		if _, err := w.dial(t.Context(), dialing{transport: "tls"}); err == nil {
			t.Error("a certificate that nobody signed is taken; the test proves nothing")
		}
	})
}

func TestLoginOptionsMustMakeSense(t *testing.T) {
	// A misspelt option that is taken for another one ends somebody's session for nothing.
	inWorlds(t, func(t *testing.T, w *world) {
		alice := w.user(t, "alice")
		for _, options := range []string{"?reconnect=maybe", "?tag=%ff%fe", "?tag=a%00b", "?%zz"} {
			for _, version := range []byte{4, 5} {
				hello := w.refuse(t, alice, version, login(alice.Name+options, alice.password))
				if version == 5 && hello.reason != 0x99 {
					t.Errorf("%s: CONNACK 0x%02x %s", options, hello.reason, hello.text)
				}
			}
		}
		w.connect(t, alice, 4, login(alice.Name+"?unknown=1", alice.password))
		w.connect(t, alice, 5, login(alice.Name+"?", alice.password))
	})
}

func TestServiceKeyIsNoUsersKey(t *testing.T) {
	// A key opens what it is for and nothing else: no other service, no user, no other account.
	inWorlds(t, func(t *testing.T, w *world) {
		other := newWorld(t, w.gateway)
		alice := w.user(t, "alice")
		for name, password := range map[string]string{
			alice.Name:                      w.service.token,
			"service/Billing@" + w.account:  other.service.token,
			"service/Other@" + w.account:    w.service.token,
			"service/billing@" + w.account:  w.service.token,
			"service/Billing@other-account": w.service.token,
		} {
			w.refuse(t, user{Name: name, password: password}, 5)
		}
		var rotated struct{ Key string }
		w.admin.ok(t, "POST", "/v1/services/Billing@"+w.account+"/rotate", nil).into(t, &rotated)
		w.refuse(t, alice, 5, login("service/Billing@"+w.account, w.service.token))
		w.connect(t, alice, 5, login("service/Billing@"+w.account, rotated.Key))
		if p := w.service.refused(t, "GET", "/v1/users", nil); p.Status != 401 {
			t.Errorf("the old key over HTTP: %+v", p)
		}
	})
}

func TestGetMeTellsOnlyTheUserItself(t *testing.T) {
	// Private fields are private: others see the public record, over MQTT and HTTP alike.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users[0])
		d := w.online(t, users[0], version)
		var me struct {
			User map[string]json.RawMessage
		}
		d.command(t, "getMe", nil).into(t, &me)
		if got := string(me.User["conversationsList"]); got != `["`+c+`"]` {
			t.Errorf("conversationsList is %s", got)
		}
		for _, field := range []string{"leaveConversationList", "notifications"} {
			if got := string(me.User[field]); got != `[]` {
				t.Errorf("%s is %s", field, got)
			}
		}
		var seen struct{ User map[string]json.RawMessage }
		w.online(t, users[1], version).command(t, "getUser", users[0].ref()).into(t, &seen)
		for _, field := range []string{"conversationsList", "leaveConversationList", "notifications", "privateCustomData"} {
			if got, there := seen.User[field]; there {
				t.Errorf("others see %s: %s", field, got)
			}
		}
	})
}
