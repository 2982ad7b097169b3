package e2e_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"
	"time"
)

// oneTime asks for a key for the name, as a client does, and computes its hash, as a backend does.
func (w *world) oneTime(tb testing.TB, name, secret string) map[string]any {
	tb.Helper()
	var k struct {
		Key     string
		Expires int64
	}
	w.api("").ok(tb, "POST", "/v1/login/one-time-keys", map[string]any{"username": name}).into(tb, &k)
	if left := time.Until(time.UnixMilli(k.Expires)); left < 4*time.Minute || left > 5*time.Minute+time.Second {
		tb.Errorf("the key lives for %v", left)
	}
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(k.Key))
	return map[string]any{"username": name, "oneTimeKey": k.Key, "hash": hex.EncodeToString(h.Sum(nil))}
}

func (w *world) oneTimeSecret(tb testing.TB, u user) string {
	tb.Helper()
	var s struct{ Secret string }
	w.service.ok(tb, "GET", "/v1/users/"+u.Name+"/one-time-secret", nil).into(tb, &s)
	return s.Secret
}

func TestOneTimeKeyOpensTheDoorOnce(t *testing.T) {
	// A backend lets its users in without ever giving a password or a token away.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		robot := user{Name: "robot@chat." + w.account}
		w.service.ok(t, "POST", "/v1/users", map[string]any{"username": robot.Name})
		secret := w.oneTimeSecret(t, robot)
		if again := w.oneTimeSecret(t, robot); again != secret || len(secret) < 40 {
			t.Errorf("the secret is %q, then %q", secret, again)
		}
		attempt := w.oneTime(t, robot.Name, secret)
		var session struct{ AccessToken string }
		w.api("").ok(t, "POST", "/v1/login", attempt).into(t, &session)
		w.online(t, robot, version, withPassword(session.AccessToken)).command(t, "getMe", nil).into(t, &struct{}{})
		if p := w.api("").refused(t, "POST", "/v1/login", attempt); p.Status != 401 || p.Code != "not-authenticated" {
			t.Errorf("the key works twice: %+v", p)
		}
		// The hash of a key is no password.
		w.refuse(t, robot, version, withPassword(attempt["hash"].(string)))
	})
}

func TestOneTimeKeysDoNotTellWhoExists(t *testing.T) {
	inWorlds(t, func(t *testing.T, w *world) {
		alice := w.user(t, "alice")
		secret := w.oneTimeSecret(t, alice)
		answers := make(map[string]bool)
		for _, name := range []string{alice.Name, "nobody@chat." + w.account, "nobody@chat.nowhere", "not a name"} {
			p := w.api("").refused(t, "POST", "/v1/login", w.oneTime(t, name, "a guess"))
			answers[fmt.Sprint(p.Status, p.Code, p.Detail)] = true
		}
		if len(answers) != 1 {
			t.Errorf("the answers differ: %v", answers)
		}
		w.service.ok(t, "DELETE", "/v1/users/"+alice.Name+"/one-time-secret", nil)
		if p := w.api("").refused(t, "POST", "/v1/login", w.oneTime(t, alice.Name, secret)); p.Status != 401 {
			t.Errorf("a secret that was made worthless: %+v", p)
		}
		if p := w.as(t, alice).refused(t, "GET", "/v1/users/"+alice.Name+"/one-time-secret", nil); p.Status != 403 {
			t.Errorf("a user gets its own secret: %+v", p)
		}
	})
}

func TestTokensAreIssuedAndRevokedOverMQTT(t *testing.T) {
	// A client that logged in by password gets tokens to keep instead; "log me out everywhere" ends whatever they opened.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		alice := w.user(t, "alice")
		phone := w.online(t, alice, version, named("phone"))
		var tokens struct {
			AccessToken, RefreshToken     string
			AccessExpires, RefreshExpires int64
		}
		phone.command(t, "issueTokens", nil).into(t, &tokens)
		if tokens.AccessExpires <= time.Now().UnixMilli() || tokens.RefreshExpires <= tokens.AccessExpires {
			t.Errorf("tokens %+v", tokens)
		}
		w.api("").ok(t, "POST", "/v1/login/refresh", map[string]any{"refreshToken": tokens.RefreshToken})
		// Services issue them over HTTP.
		var others struct{ AccessToken string }
		w.service.ok(t, "POST", "/v1/users/"+alice.Name+"/tokens", nil).into(t, &others)
		tablet := w.online(t, alice, version, named("tablet"), withPassword(others.AccessToken))
		desk := w.online(t, alice, version, named("desk"), withPassword(tokens.AccessToken))

		// From a session that a token opened: it is answered, and then ended with the other.
		desk.command(t, "revokeTokens", nil).into(t, &struct{}{})
		for _, d := range []*device{desk, tablet} {
			if f := d.over(t); version == 5 && f.reason != 0x87 {
				t.Errorf("DISCONNECT 0x%02x %q, want 0x87", f.reason, f.text)
			}
		}
		phone.command(t, "getMe", nil).into(t, &struct{}{}) // knows the password
		w.refuse(t, alice, version, withPassword(tokens.AccessToken))
		for _, token := range []string{tokens.AccessToken, others.AccessToken} {
			if p := w.api(token).refused(t, "GET", "/v1/users/"+alice.Name, nil); p.Status != 401 {
				t.Errorf("a revoked token: %+v", p)
			}
		}
		// And a backend may do it.
		again := w.online(t, alice, version, named("tablet"), withPassword(w.token(t, alice)))
		w.service.ok(t, "DELETE", "/v1/users/"+alice.Name+"/tokens", nil)
		again.over(t)
		phone.command(t, "getMe", nil).into(t, &struct{}{})
	})
}
