package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/parley-im/parley/configs"
)

func TestUserDirectoryOverHTTP(t *testing.T) {
	// Backends keep their users here: create, look up, search, change, delete, and find them as they left them.
	inWorlds(t, func(t *testing.T, w *world) {
		type record struct {
			UserID      int64
			Username    string
			DisplayName string
			CustomData  json.RawMessage
			Deleted     bool
			CreatedTime int64
		}
		name := func(i int) string { return fmt.Sprintf("user%02d@chat.%s", i, w.account) }
		var all []record
		for i := range 55 {
			var made struct{ User record }
			res := w.service.ok(t, "POST", "/v1/users", map[string]any{
				"username": name(i), "displayName": fmt.Sprintf("Person %d", i), "customData": map[string]any{"i": i},
			})
			if res.status != 201 {
				t.Fatalf("POST /v1/users: %d", res.status)
			}
			res.into(t, &made)
			all = append(all, made.User)
		}
		if p := w.service.refused(t, "POST", "/v1/users", map[string]any{"username": name(0)}); p.Status != 409 {
			t.Errorf("a name that is taken: %+v", p)
		}

		// Look-ups: repeated parameters, up to 50.
		query := url.Values{}
		for i := range 50 {
			query.Add("username", name(i))
		}
		var found struct {
			Users      []record
			NextCursor string
		}
		w.service.ok(t, "GET", "/v1/users?"+query.Encode(), nil).into(t, &found)
		if string(mustJSON(t, found.Users)) != string(mustJSON(t, all[:50])) {
			t.Errorf("50 users looked up: %s", mustJSON(t, found.Users))
		}
		query.Add("username", name(50))
		if p := w.service.refused(t, "GET", "/v1/users?"+query.Encode(), nil); p.Number != 1 || p.Status != 400 {
			t.Errorf("51 users: %+v", p)
		}
		w.service.ok(t, "GET", fmt.Sprintf("/v1/users?userId=%d&userId=%d", all[3].UserID, all[7].UserID), nil).into(t, &found)
		if len(found.Users) != 2 || found.Users[0].Username != name(3) || found.Users[1].Username != name(7) {
			t.Errorf("by number: %+v", found.Users)
		}

		// Search, page by page.
		var pages []record
		for cursor, n := "", 0; ; n++ {
			var page struct {
				Users      []record
				NextCursor string
			}
			w.service.ok(t, "GET", "/v1/users?limit=20&account="+w.account+"&cursor="+url.QueryEscape(cursor), nil).into(t, &page)
			pages = append(pages, page.Users...)
			if page.NextCursor == "" {
				if n != 2 {
					t.Errorf("55 users in pages of 20 are %d pages", n+1)
				}
				break
			}
			cursor = page.NextCursor
		}
		if string(mustJSON(t, pages)) != string(mustJSON(t, all)) {
			t.Errorf("the pages hold %d users", len(pages))
		}
		w.service.ok(t, "GET", "/v1/users?q=user01", nil).into(t, &found)
		if len(found.Users) != 1 || found.Users[0].Username != name(1) {
			t.Errorf("search for the start of a name: %+v", found.Users)
		}
		w.service.ok(t, "GET", "/v1/users?q="+url.QueryEscape("person 4"), nil).into(t, &found)
		if len(found.Users) != 11 {
			t.Errorf("search for a part of a display name finds %d, want 11", len(found.Users))
		}
		if p := w.service.refused(t, "GET", "/v1/users?cursor=made-up", nil); p.Number != 1 {
			t.Errorf("a cursor that was made up: %+v", p)
		}

		// Change and delete; a user sees the same as the service.
		var changed struct{ User record }
		w.service.ok(t, "PATCH", "/v1/users/"+name(0), map[string]any{"displayName": "Somebody"}).into(t, &changed)
		if changed.User.DisplayName != "Somebody" || string(changed.User.CustomData) != `{"i":0}` {
			t.Errorf("changed: %+v", changed.User)
		}
		me := w.user(t, "me")
		d := w.online(t, me, 5)
		for _, read := range []func(v any){
			func(v any) { w.service.ok(t, "GET", "/v1/users/"+name(0), nil).into(t, v) },
			func(v any) { w.as(t, me).ok(t, "GET", "/v1/users/"+name(0), nil).into(t, v) },
			func(v any) { d.command(t, "getUser", map[string]any{"username": name(0)}).into(t, v) },
		} {
			var one struct{ User record }
			read(&one)
			if string(mustJSON(t, one)) != string(mustJSON(t, changed)) {
				t.Errorf("read %+v, changed to %+v", one, changed)
			}
		}
		if res := w.service.ok(t, "DELETE", "/v1/users/"+name(0), nil); res.status != 204 || len(res.body) > 0 {
			t.Errorf("DELETE: %d %s", res.status, res.body)
		}
		if p := w.service.refused(t, "DELETE", "/v1/users/"+name(0), nil); p.Number != 25 {
			t.Errorf("deleted twice: %+v", p)
		}
		if p := w.service.refused(t, "POST", "/v1/users", map[string]any{"username": name(0)}); p.Status != 409 {
			t.Errorf("the name of a deleted user is given away again: %+v", p)
		}
		var dead struct{ User record }
		w.service.ok(t, "GET", "/v1/users/"+name(0), nil).into(t, &dead)
		if !dead.User.Deleted || dead.User.UserID != all[0].UserID {
			t.Errorf("a deleted user: %+v", dead.User)
		}

		// Users look, they do not administer.
		for _, try := range [][2]string{{"POST", "/v1/users"}, {"PATCH", "/v1/users/" + name(1)}, {"DELETE", "/v1/users/" + name(1)}, {"POST", "/v1/users/" + name(1) + "/tokens"}} {
			body := map[string]any{}
			if try[1] == "/v1/users" {
				body["username"] = name(99)
			}
			if p := w.as(t, me).refused(t, try[0], try[1], body); p.Number != 12 || p.Status != 403 {
				t.Errorf("%v by a user: %+v", try, p)
			}
		}
	})
}

func TestAccountsDoNotSeeEachOther(t *testing.T) {
	// Customers share a gateway and must not even learn of each other; a customer's child accounts are one with it.
	inWorlds(t, func(t *testing.T, w *world) {
		other := newWorld(t, w.gateway)
		alice, stranger := w.user(t, "alice"), other.user(t, "stranger")
		for what, a := range map[string]api{"service": w.service, "user": w.as(t, alice)} {
			for _, path := range []string{
				"/v1/users/" + stranger.Name, "/v1/users?username=" + stranger.Name, "/v1/users?userId=" + strconv.FormatInt(stranger.ID, 10),
			} {
				if p := a.refused(t, "GET", path, nil); p.Number != 25 || p.Status != 404 {
					t.Errorf("%s: GET %s: %+v", what, path, p)
				}
			}
			var found struct{ Users []user }
			a.ok(t, "GET", "/v1/users?q=stranger", nil).into(t, &found)
			if len(found.Users) > 0 {
				t.Errorf("%s finds %+v", what, found.Users)
			}
		}
		for _, try := range [][2]string{{"DELETE", "/v1/users/" + stranger.Name}, {"PATCH", "/v1/users/" + stranger.Name}, {"POST", "/v1/users/" + stranger.Name + "/tokens"}} {
			if p := w.service.refused(t, try[0], try[1], map[string]any{}); p.Number != 25 {
				t.Errorf("%v by another account's service: %+v", try, p)
			}
		}
		if p := w.service.refused(t, "POST", "/v1/users", map[string]any{"username": "x@chat." + other.account}); p.Number != 12 {
			t.Errorf("a user in another's account: %+v", p)
		}
		if p := w.service.refused(t, "POST", "/v1/conversations", map[string]any{"participants": refs(alice, stranger)}); p.Number != 25 {
			t.Errorf("a conversation across accounts: %+v", p)
		}

		// Children of one account see each other, and their main account.
		child := w.account + "-child"
		w.service.ok(t, "POST", "/v1/accounts", map[string]any{"name": child})
		w.service.ok(t, "POST", "/v1/users", map[string]any{"username": "kid@chat." + child, "password": "kid"})
		kid := user{Name: "kid@chat." + child, password: "kid"}
		c := w.conversation(t, alice, kid)
		d := w.online(t, kid, 5)
		d.say(t, c, text("hello, parent"))
		d.command(t, "getUser", alice.ref()).into(t, &struct{}{})
		var list struct {
			Accounts []struct{ Name, Parent string }
		}
		w.service.ok(t, "GET", "/v1/accounts", nil).into(t, &list)
		if len(list.Accounts) != 2 {
			t.Errorf("the account tree is %+v", list.Accounts)
		}
	})
}

func TestHTTPAndMQTTTellTheSameStory(t *testing.T) {
	// A backend and a phone in one conversation must agree on every event.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice, bob := w.online(t, users[0], version), w.online(t, users[1], version)
		var made struct {
			Conversation conversation
			Existing     bool
		}
		res := w.service.ok(t, "POST", "/v1/conversations", map[string]any{"title": "Order 7", "participants": refs(users...)})
		res.into(t, &made)
		if res.status != 201 || made.Existing {
			t.Errorf("POST /v1/conversations: %d %s", res.status, res.body)
		}
		c := made.Conversation.UUID
		path := "/v1/conversations/" + c
		post := func(a api, body map[string]any) message {
			var sent struct{ Message message }
			res := a.ok(t, "POST", path+"/messages", body)
			if res.status != 201 {
				t.Errorf("POST messages: %d", res.status)
			}
			res.into(t, &sent)
			return sent.Message
		}
		service := post(w.service, text("your order is on its way"))
		behalf := post(w.service, map[string]any{"text": "thanks", "as": users[1].Name})
		own := post(w.as(t, users[0]), text("from my browser"))
		alice.say(t, c, text("from my phone"))
		w.service.ok(t, "DELETE", path+"/participants", map[string]any{"participants": refs(users[1])})
		w.service.ok(t, "POST", path+"/participants", map[string]any{"participants": refs(users[1])})

		if service.Sender != (initiator{Service: "Billing"}) {
			t.Errorf("a service sends as %+v", service.Sender)
		}
		for _, m := range []message{behalf, own} {
			want := users[0]
			if m.UUID == behalf.UUID {
				want = users[1]
			}
			if m.Sender != (initiator{UserID: want.ID, Username: want.Name}) {
				t.Errorf("%q is sent by %+v", m.Text, m.Sender)
			}
		}
		log := w.log(t, c)
		if len(log) != 7 {
			t.Fatalf("%d events, want 7", len(log))
		}
		for who, d := range map[string]*device{"alice": alice, "bob": bob} {
			for i, ev := range d.hearUpTo(t, c, 1, 7) {
				if got, want := string(mustJSON(t, ev)), string(mustJSON(t, log[i])); got != want {
					t.Errorf("%s heard %s, HTTP says %s", who, got, want)
				}
			}
		}
		for i, a := range []api{w.service, w.as(t, users[0]), w.admin} {
			var one struct{ Conversation conversation }
			a.ok(t, "GET", path, nil).into(t, &one)
			if one.Conversation.Title != "Order 7" || one.Conversation.LastSeq != 7 || len(one.Conversation.Participants) != 2 {
				t.Errorf("reader %d: %+v", i, one.Conversation)
			}
		}
		// Who may not, may not over HTTP either.
		if p := w.as(t, users[0]).refused(t, "POST", path+"/messages", map[string]any{"text": "x", "as": users[1].Name}); p.Number != 12 {
			t.Errorf("a user sends as another: %+v", p)
		}
		if p := w.service.refused(t, "POST", path+"/messages", map[string]any{"text": "x", "as": "nobody@chat." + w.account}); p.Number != 25 {
			t.Errorf("as nobody: %+v", p)
		}
	})
}

func TestIdempotencyKeyMakesRequestsSafeToRepeat(t *testing.T) {
	// A backend whose connection breaks repeats its request: one user, one conversation, one message must come of it.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		for what, request := range map[string]struct {
			path string
			body map[string]any
		}{
			"user":         {"/v1/users", map[string]any{"username": "new@chat." + w.account}},
			"conversation": {"/v1/conversations", map[string]any{"participants": refs(users...)}},
			"message":      {"/v1/conversations/" + c + "/messages", text("hello")},
			"service":      {"/v1/services", map[string]any{"account": w.account, "name": "Other"}},
			"participants": {"/v1/conversations/" + c + "/participants", map[string]any{"participants": refs(w.user(t, "late"))}},
			"tokens":       {"/v1/users/" + users[0].Name + "/tokens", map[string]any{}},
		} {
			a := w.service.with("Idempotency-Key", "key of "+what)
			answers := make([]response, 8)
			var all errgroup.Group
			for i := range answers {
				all.Go(func() (err error) {
					answers[i], err = a.try(t.Context(), "POST", request.path, request.body)
					return err
				})
			}
			if err := all.Wait(); err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			for _, answer := range answers[1:] {
				if answer.status != answers[0].status || string(answer.body) != string(answers[0].body) {
					t.Errorf("%s: answers differ: %d %s and %d %s", what, answer.status, answer.body, answers[0].status, answers[0].body)
				}
			}
			if p := a.refused(t, "POST", request.path, map[string]any{"text": "another", "username": "b@c.d"}); p.Status != 422 && p.Status != 409 && p.Status != 400 {
				t.Errorf("%s: another request with the same key: %+v", what, p)
			}
		}
		if n := len(w.log(t, c)); n != 3 {
			t.Errorf("the log has %d events, want 3", n)
		}
	})
}

func TestProblemsNameWhatIsWrong(t *testing.T) {
	// Every refusal has the same form, whoever in the server made it.
	inWorlds(t, func(t *testing.T, w *world) {
		alice := w.user(t, "alice")
		c := w.conversation(t, alice)
		me := w.as(t, alice)
		huge := `{"text":"` + strings.Repeat("x", 2<<20) + `"}`
		for _, tt := range []struct {
			why          string
			by           api
			method, path string
			body         any
			number       int
			status       int
		}{
			{"no token", w.api(""), "GET", "/v1/users", nil, 3, 401},
			{"nonsense for a token", w.api("nonsense"), "GET", "/v1/users", nil, 3, 401},
			{"no such path", me, "GET", "/v1/nothing", nil, 2, 404},
			{"no such method", me, "PUT", "/v1/users", map[string]any{}, 2, 405},
			{"unknown field", w.service, "POST", "/v1/users", map[string]any{"username": "x@chat." + w.account, "colour": 1}, 1, 400},
			{"field in another case", w.service, "POST", "/v1/users", map[string]any{"userName": "x@chat." + w.account}, 1, 400},
			{"wrong type", w.service, "POST", "/v1/users", map[string]any{"username": 7}, 1, 400},
			{"not JSON", w.service, "POST", "/v1/users", "{", 1, 400},
			{"two objects", w.service, "POST", "/v1/users", `{"username":"x@chat.acme"} {}`, 1, 400},
			{"no object", w.service, "POST", "/v1/users", `[]`, 1, 400},
			{"no body", w.service, "POST", "/v1/users", nil, 1, 400},
			{"invalid name", w.service, "POST", "/v1/users", map[string]any{"username": "UPPER@chat." + w.account}, 1, 400},
			{"a body larger than any message", me, "POST", "/v1/conversations/" + c + "/messages", huge, 23, 413},
			{"a message over 64 KiB", me, "POST", "/v1/conversations/" + c + "/messages", map[string]any{"attributes": map[string]any{"x": strings.Repeat("x", 64<<10)}}, 23, 413},
			{"a body larger than all limits", w.service, "POST", "/v1/users", huge, 23, 413},
			{"login without a password", w.api(""), "POST", "/v1/login", map[string]any{"username": alice.Name}, 1, 400},
			{"unknown parameter", me, "GET", "/v1/users?colour=1", nil, 1, 400},
			{"count that is no number", me, "GET", "/v1/conversations/" + c + "/events?from=one&count=1", nil, 1, 400},
			{"a UUID that is none", me, "GET", "/v1/conversations/nothing", nil, 8, 404},
		} {
			p := tt.by.refused(t, tt.method, tt.path, tt.body)
			if p.Number != tt.number || p.Status != tt.status || p.Code == "" || p.Detail == "" {
				t.Errorf("%s: %+v, want number %d and status %d", tt.why, p, tt.number, tt.status)
			}
		}
		res := w.api("").any(t, "GET", "/v1/users", nil)
		if !strings.HasPrefix(res.header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("401 challenges with %q", res.header.Get("WWW-Authenticate"))
		}
	})
}

func TestHealthVersionAndDocumentation(t *testing.T) {
	// Orchestrators, and newcomers, begin here; nobody has a token yet.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t))
		a := g.api("")
		for _, path := range []string{"/livez", "/readyz"} {
			if res := a.any(t, "GET", path, nil); res.status != 200 {
				t.Errorf("%s: %d %s", path, res.status, res.body)
			}
		}
		var v map[string]any
		a.ok(t, "GET", "/version", nil).into(t, &v)
		if v["version"] != "e2e" || v["commit"] != "0123456" {
			t.Errorf("/version: %v", v)
		}

		var doc struct {
			OpenAPI string
			Info    struct{ Title, Version string }
			Paths   map[string]map[string]struct {
				OperationID string
				Responses   map[string]any
			}
			Components struct{ Schemas map[string]any }
		}
		body := a.ok(t, "GET", "/openapi.json", nil).body
		if err := json.Unmarshal(body, &doc); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(doc.OpenAPI, "3.1") || doc.Info.Title == "" {
			t.Errorf("openapi %q, title %q", doc.OpenAPI, doc.Info.Title)
		}
		for _, route := range []string{
			"POST /v1/login", "POST /v1/login/refresh", "POST /v1/logout", "POST /v1/users", "GET /v1/users", "GET /v1/users/{username}",
			"PATCH /v1/users/{username}", "DELETE /v1/users/{username}", "POST /v1/users/{username}/tokens", "POST /v1/conversations",
			"GET /v1/conversations", "GET /v1/conversations/{uuid}", "POST /v1/conversations/{uuid}/participants",
			"DELETE /v1/conversations/{uuid}/participants", "POST /v1/conversations/{uuid}/messages",
			"GET /v1/conversations/{uuid}/events", "POST /v1/conversations/{uuid}/read", "GET /v1/unread",
			"GET /v1/conversations/{uuid}/messages/{message}/receipts", "POST /v1/services", "GET /v1/services", "POST /v1/accounts", "GET /v1/accounts",
			"GET /livez", "GET /readyz", "GET /version",
		} {
			method, path, _ := strings.Cut(route, " ")
			op, ok := doc.Paths[path][strings.ToLower(method)]
			if !ok || op.OperationID == "" || len(op.Responses) == 0 {
				t.Errorf("the document does not describe %s", route)
			}
		}
		for _, m := range regexp.MustCompile(`"\$ref":"#/components/schemas/([^"]+)"`).FindAllSubmatch(body, -1) {
			if _, ok := doc.Components.Schemas[string(m[1])]; !ok {
				t.Errorf("the document refers to %s, which it does not have", m[1])
			}
		}

		page := a.ok(t, "GET", "/docs", nil)
		if !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") {
			t.Errorf("/docs is %s", page.header.Get("Content-Type"))
		}
		for _, m := range regexp.MustCompile(`(?i)(?:src|href|action|url)\s*[=(]\s*["']?([^"'\s>)]+)`).FindAllSubmatch(page.body, -1) {
			if link := string(m[1]); strings.Contains(link, "//") {
				t.Errorf("/docs loads or leads to %s", link)
			}
		}
		if !strings.Contains(string(page.body), "/v1/conversations") {
			t.Error("/docs does not show the API")
		}
	})
}

func TestNothingListensWhereItIsOff(t *testing.T) {
	// An operator who closes a door must find it closed.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t), func(c *configs.Config) { c.MQTT.WS, c.Metrics.Address = "", "" })
		if g.addrs.WebSocket != "" || g.addrs.Metrics != "" || g.addrs.TLS != "" {
			t.Errorf("listening on %+v", g.addrs)
		}
		if res := g.api(adminKey).any(t, "GET", "/metrics", nil); res.status != 404 {
			t.Errorf("metrics on the API's listener: %d", res.status)
		}
		w := newWorld(t, g)
		w.connect(t, w.user(t, "alice"), 5)
		if !slices.Contains([]string{"127.0.0.1"}, strings.Split(g.addrs.MQTT, ":")[0]) {
			t.Errorf("MQTT on %s", g.addrs.MQTT)
		}
	})
}
