package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/bridge"
	"github.com/parley-im/parley/domain"
)

func TestLoginRefreshAndLogout(t *testing.T) {
	w := newWorld(t, nil)
	a := w.as("", "POST", "/v1/login", `{"username":"alice@chat.acme","password":"secret"}`)
	a.want(t, "login", 200, `{"accessToken":"access!","accessExpires":1,"refreshToken":"refresh","refreshExpires":2,
		"user":{"userId":3,"username":"alice@chat.acme"}}`)
	if got := w.admin.last(); got != "login alice@chat.acme secret" {
		t.Errorf("called %q", got)
	}
	a = w.as("", "POST", "/v1/login/one-time-keys", `{"username":"alice@chat.acme"}`)
	a.want(t, "one-time key", 200, `{"key":"k","expires":5}`)
	if got := w.admin.last(); got != "key alice@chat.acme" {
		t.Errorf("called %q", got)
	}
	a = w.as("", "POST", "/v1/login", `{"username":"alice@chat.acme","oneTimeKey":"k","hash":"ab"}`)
	a.want(t, "login with a key", 200, "")
	if got := w.admin.last(); got != "login with a key alice@chat.acme k ab" {
		t.Errorf("called %q", got)
	}
	for _, body := range []string{
		`{}`, `{"username":"x"}`, `{"password":"x"}`, `{"username":"x","oneTimeKey":"k"}`, `{"username":"x","hash":"ab"}`,
		`{"username":"x","password":"y","oneTimeKey":"k","hash":"ab"}`, `{"username":"x","password":"y","hash":"ab"}`,
		`{"username":"x","oneTimeKey":"k","hash":"ab","token":"z"}`,
	} {
		w.as("", "POST", "/v1/login", body).wantProblem(t, body, 400, domain.InvalidRequest)
	}
	a = w.as("", "POST", "/v1/login/refresh", `{"refreshToken":"rt_x"}`)
	a.want(t, "refresh", 200, "")
	if got := w.admin.last(); got != "refresh rt_x" {
		t.Errorf("called %q", got)
	}
	w.as(aliceToken, "POST", "/v1/logout", "").want(t, "logout", 200, `{}`)
	if got := w.admin.last(); got != "logout "+aliceToken {
		t.Errorf("called %q", got)
	}
	w.as(aliceToken, "POST", "/v1/logout", "{}").want(t, "logout with {}", 200, `{}`)
	w.admin.err = domain.Errorf(domain.NotAuthenticated, "wrong name or password")
	w.as("", "POST", "/v1/login", `{"username":"x","password":"y"}`).wantProblem(t, "wrong login", 401, domain.NotAuthenticated)
}

func TestUserRoutes(t *testing.T) {
	for what, c := range map[string]struct {
		method, path, body string
		status             int
		called, answer     string
	}{
		"create": {
			"POST", "/v1/users", `{"username":"bob@chat.acme","displayName":"Bob","password":"x","customData":{"a":1}}`, 201,
			`create bob@chat.acme Bob {"a":1}`,
			`{"user":{"userId":4,"username":"bob@chat.acme","displayName":"Bob","customData":{"a":1}}}`,
		},
		"edit": {
			"PATCH", "/v1/users/bob@chat.acme", `{"displayName":"","customData":{}}`, 200,
			`edit bob@chat.acme {"displayName":"","customData":{}}`, `{"user":{"userId":4,"username":"bob@chat.acme"}}`,
		},
		"edit nothing": {
			"PATCH", "/v1/users/bob@chat.acme", `{"displayName":null,"customData":null,"password":null}`, 200,
			`edit bob@chat.acme {}`, `{"user":{"userId":4,"username":"bob@chat.acme"}}`,
		},
		"edit in another JSON": {"PATCH", "/v1/users/bob%40chat.acme", `{}`, 200, `edit bob@chat.acme {}`, ""},
		"delete":               {"DELETE", "/v1/users/bob@chat.acme", "", 204, "delete bob@chat.acme", ""},
		"tokens": {
			"POST", "/v1/users/bob@chat.acme/tokens", "", 201, "tokens bob@chat.acme",
			`{"accessToken":"access!","accessExpires":1,"refreshToken":"refresh","refreshExpires":2}`,
		},
		"revoke":        {"DELETE", "/v1/users/bob@chat.acme/tokens", "", 204, "revoke bob@chat.acme", ""},
		"secret":        {"GET", "/v1/users/bob@chat.acme/one-time-secret", "", 200, "secret bob@chat.acme", `{"secret":"os_1"}`},
		"forget secret": {"DELETE", "/v1/users/bob@chat.acme/one-time-secret", "", 204, "forget bob@chat.acme", ""},
		"search": {
			"GET", "/v1/users?q=bo&application=chat&account=acme", "", 200,
			`search {"Root":0,"Application":"chat","Account":"acme","Text":"bo","After":0,"Limit":51}`, `{"users":[]}`,
		},
	} {
		w := newWorld(t, nil)
		header := "X-Test: 1"
		if what == "edit in another JSON" {
			header = "Content-Type: application/merge-patch+json; charset=UTF-8"
		}
		a := w.call(c.method, c.path, c.body, header)
		a.want(t, what, c.status, c.answer)
		if got := w.admin.last(); got != c.called {
			t.Errorf("%s: called %q, want %q", what, got, c.called)
		}
		if c.status == 204 && len(a.body) > 0 {
			t.Errorf("%s: 204 with body %s", what, a.body)
		}
	}
}

func TestUsersAreLookedUpByTheSameRulesAsOverMQTT(t *testing.T) {
	for path, want := range map[string]domain.Command{
		"/v1/users/bob@chat.acme": &domain.GetUser{UserRef: domain.UserRef{Username: "bob@chat.acme"}},
		"/v1/users?username=bob@chat.acme&username=tom@chat.acme&userId=4": &domain.GetUsers{
			Usernames: domain.List[domain.Username]{"bob@chat.acme", "tom@chat.acme"}, UserIDs: domain.List[domain.UserID]{4},
		},
		"/v1/users?userId=4,5": &domain.GetUsers{UserIDs: domain.List[domain.UserID]{4, 5}},
	} {
		w := newWorld(t, nil)
		w.answers(domain.Result{Users: []domain.User{{ID: 4, Username: "bob@chat.acme"}}})
		a := w.as(aliceToken, "GET", path, "")
		a.want(t, path, 200, `{"users":[{"userId":4,"username":"bob@chat.acme"}]}`)
		if got := w.only(); got.by.User != 3 || !cmp.Equal(got.cmd, want) {
			t.Errorf("%s: %+v by %+v", path, got.cmd, got.by)
		}
	}
}

func TestASearchPagesWithoutGapsOrRepeats(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 7 {
		w.admin.users = append(w.admin.users, domain.User{ID: domain.UserID(10 + i*i), Username: domain.Username(fmt.Sprintf("u%d@chat.acme", i))})
	}
	for limit := 1; limit <= 8; limit++ {
		var seen []domain.UserID
		cursor, pages := "", 0
		for {
			path := fmt.Sprintf("/v1/users?limit=%d", limit)
			if cursor != "" {
				path += "&cursor=" + url.QueryEscape(cursor)
			}
			a := w.call("GET", path, "")
			var page struct {
				Users      []domain.User
				NextCursor string
			}
			if err := json.Unmarshal(a.body, &page); err != nil || a.StatusCode != 200 {
				t.Fatalf("%d %s", a.StatusCode, a.body)
			}
			for _, u := range page.Users {
				seen = append(seen, u.ID)
			}
			if pages++; page.NextCursor == "" || pages > 10 {
				break
			}
			cursor = page.NextCursor
		}
		if want := []domain.UserID{10, 11, 14, 19, 26, 35, 46}; !cmp.Equal(seen, want) || pages != (7+limit-1)/limit {
			t.Errorf("pages of %d: %v in %d pages", limit, seen, pages)
		}
	}
}

func TestConversationRoutes(t *testing.T) {
	id, err := domain.ParseConversationID(someID)
	if err != nil {
		t.Fatal(err)
	}
	number := func(n int64) *int64 { return &n }
	yes, no := true, false
	for what, c := range map[string]struct {
		method, path, body string
		result             domain.Result
		status             int
		want               domain.Command
		answer             string
	}{
		"create": {
			"POST", "/v1/conversations", `{"title":"x","participants":[{"userId":4,"permissions":{"canWrite":false}}],"requestId":"r"}`,
			domain.Result{Existing: &no},
			201, &domain.CreateConversation{Title: "x", Participants: []domain.NewParticipant{
				{UserRef: domain.UserRef{UserID: 4}, Permissions: &domain.PermissionsPatch{CanWrite: &no}},
			}, Meta: domain.Meta{RequestID: "r"}}, `{"existing":false}`,
		},
		"existing": {
			"POST", "/v1/conversations", `{"distinct":true}`,
			domain.Result{Existing: &yes},
			200,
			&domain.CreateConversation{Distinct: true}, `{"existing":true}`,
		},
		"get": {
			"GET", "/v1/conversations/" + someID, "", domain.Result{}, 200, &domain.GetConversation{UUID: id}, `{}`,
		},
		"get in capitals": {
			"GET", "/v1/conversations/" + strings.ToUpper(someID), "", domain.Result{}, 200, &domain.GetConversation{UUID: id}, `{}`,
		},
		"list": {
			"GET", "/v1/conversations?uuid=" + someID + "&uuid=" + someID, "",
			domain.Result{Conversations: []*domain.Conversation{}},
			200,
			&domain.GetConversations{UUIDs: domain.List[domain.ConversationID]{id, id}}, `{"conversations":[]}`,
		},
		"add": {
			"POST", "/v1/conversations/" + someID + "/participants", `{"participants":[{"username":"bob@chat.acme"}]}`,
			domain.Result{},
			200,
			&domain.AddParticipants{UUID: id, Participants: []domain.NewParticipant{{UserRef: domain.UserRef{Username: "bob@chat.acme"}}}}, "",
		},
		"remove by body": {
			"DELETE", "/v1/conversations/" + someID + "/participants", `{"participants":[{"userId":4}]}`,
			domain.Result{},
			200,
			&domain.RemoveParticipants{UUID: id, Participants: []domain.UserRef{{UserID: 4}}}, "",
		},
		"remove by query": {
			"DELETE", "/v1/conversations/" + someID + "/participants?username=bob@chat.acme&userId=4", "",
			domain.Result{},
			200,
			&domain.RemoveParticipants{UUID: id, Participants: []domain.UserRef{{Username: "bob@chat.acme"}, {UserID: 4}}}, "",
		},
		"send": {
			"POST", "/v1/conversations/" + someID + "/messages", `{"id":"m","text":"hello"}`,
			domain.Result{},
			201,
			&domain.SendMessage{Conversation: id, MessageRequest: domain.MessageRequest{ClientID: "m", Content: domain.Content{Text: "hello"}}}, "",
		},
		"list own": {
			"GET", "/v1/conversations?limit=3", "",
			domain.Result{Conversations: []*domain.Conversation{}, NextCursor: "n"},
			200, &domain.ListConversations{Limit: 3}, `{"conversations":[],"nextCursor":"n"}`,
		},
		"list public": {
			"GET", "/v1/conversations?public=true", "",
			domain.Result{UUIDs: []domain.ConversationID{}},
			200, &domain.GetPublicConversations{}, `{"uuids":[]}`,
		},
		"edit": {
			"PATCH", "/v1/conversations/" + someID, `{"title":"","publicJoin":true,"customData":{},"requestId":"r"}`,
			domain.Result{},
			200,
			&domain.EditConversation{UUID: id, ConversationEdit: domain.ConversationEdit{
				Title: new(string), PublicJoin: &yes, CustomData: domain.RawObject("{}"),
			}, Meta: domain.Meta{RequestID: "r"}}, "",
		},
		"remove conversation": {
			"DELETE", "/v1/conversations/" + someID, "", domain.Result{}, 200, &domain.RemoveConversation{UUID: id}, `{}`,
		},
		"edit participants": {
			"PATCH", "/v1/conversations/" + someID + "/participants", `{"participants":[{"userId":4,"permissions":{"canRead":false}}]}`,
			domain.Result{},
			200,
			&domain.EditParticipants{UUID: id, Participants: []domain.EditedParticipant{
				{UserRef: domain.UserRef{UserID: 4}, Permissions: &domain.PermissionsPatch{CanRead: &no}},
			}}, "",
		},
		"join":  {"POST", "/v1/conversations/" + someID + "/join", "", domain.Result{}, 200, &domain.JoinConversation{UUID: id}, ""},
		"leave": {"POST", "/v1/conversations/" + someID + "/leave", "", domain.Result{}, 200, &domain.LeaveConversation{UUID: id}, ""},
		"mute": {
			"POST", "/v1/conversations/" + someID + "/mute", `{"muted":true}`,
			domain.Result{},
			200,
			&domain.MuteConversation{UUID: id, Muted: &yes}, "",
		},
		"edit message": {
			"PATCH", "/v1/conversations/" + someID + "/messages/" + someID, `{"payload":[],"reason":{"code":7}}`,
			domain.Result{},
			200,
			&domain.EditMessage{Conversation: id, Message: domain.MessageID(id), MessageEdit: domain.MessageEdit{
				Payload: []domain.RawObject{}, Reason: &domain.Reason{Code: 7},
			}}, "",
		},
		"remove message": {
			"DELETE", "/v1/conversations/" + someID + "/messages/" + someID, "",
			domain.Result{},
			200,
			&domain.RemoveMessage{Conversation: id, Message: domain.MessageID(id)}, `{}`,
		},
		"events from count": {
			"GET", "/v1/conversations/" + someID + "/events?from=1&count=2", "",
			domain.Result{Events: []*domain.Event{}, From: 1, To: 2},
			200,
			&domain.RetransmitEvents{Conversation: id, From: number(1), Count: number(2)}, `{"events":[],"from":1,"to":2}`,
		},
		"events from to": {
			"GET", "/v1/conversations/" + someID + "/events?from=3&to=5", "",
			domain.Result{},
			200,
			&domain.RetransmitEvents{Conversation: id, From: number(3), To: number(5)}, "",
		},
	} {
		w := newWorld(t, nil)
		w.answers(c.result)
		w.call(c.method, c.path, c.body).want(t, what, c.status, c.answer)
		if diff := cmp.Diff(c.want, w.only().cmd); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		if by := w.only().by; by.Service != 7 || by.User != 0 {
			t.Errorf("%s: by %+v", what, by)
		}
	}
}

func TestADuplicateMessageIs200(t *testing.T) {
	w := newWorld(t, nil)
	w.do = func(context.Context, domain.Principal, domain.Command) (domain.Receipt, error) {
		return domain.Receipt{Duplicate: true, Result: &domain.Result{Message: &domain.Message{Seq: 3}}}, nil
	}
	w.call("POST", "/v1/conversations/"+someID+"/messages", `{"id":"m","text":"x"}`).want(t, "duplicate", 200, "")
}

func TestBackendsSendOnBehalfOfUsersTheyKnow(t *testing.T) {
	const path, body = "/v1/conversations/" + someID + "/messages", `{"text":"x","as":"bob@chat.acme"}`
	bob := domain.User{ID: 5, Username: "bob@chat.acme", Root: 1, Account: 2}
	w := newWorld(t, nil)
	w.answers(domain.Result{User: &bob})
	w.call("POST", path, body).want(t, "as bob", 201, "")
	ask, send := w.commands[0], w.commands[1]
	if ask.by.User != 0 || !cmp.Equal(ask.cmd, domain.Command(&domain.GetUser{UserRef: domain.UserRef{Username: "bob@chat.acme"}})) {
		t.Errorf("asked %+v", ask)
	}
	if _, ok := send.cmd.(*domain.SendMessage); !ok || send.by.User != 5 || send.by.Service != 7 || !send.by.IsBackend() || send.by.Account != 2 {
		t.Errorf("sent %+v", send)
	}

	w = newWorld(t, nil)
	w.as(aliceToken, "POST", path, body).wantProblem(t, "user as another", 403, domain.AccessDenied)
	if len(w.commands) != 0 {
		t.Errorf("commands %v", w.commands)
	}
	w.fails(domain.Errorf(domain.UserNotFound, "no such user"))
	w.call("POST", path, body).wantProblem(t, "as nobody", 404, domain.UserNotFound)
	bob.Deleted = true
	w.answers(domain.Result{User: &bob})
	w.call("POST", path, body).wantProblem(t, "as a deleted user", 404, domain.UserNotFound)
	w.call("POST", path, `{"text":"x","as":"bob"}`).wantProblem(t, "as what is no name", 404, domain.UserNotFound)
}

func TestServiceAndAccountRoutes(t *testing.T) {
	const open = `"settings":{"editMessages":"inherit","removeMessages":"inherit"},"effective":{"editMessages":"on","removeMessages":"on"}`
	for what, c := range map[string]struct {
		method, path, body string
		status             int
		called, answer     string
	}{
		"create service": {
			"POST", "/v1/services", `{"account":"acme","name":"billing"}`, 201, "service acme billing",
			`{"service":{"name":"billing","account":"acme","createdTime":5},"key":"pk_newaccess!"}`,
		},
		"create own service": {"POST", "/v1/services", `{"name":"billing"}`, 201, "service  billing", ""},
		"list services": {
			"GET", "/v1/services", "", 200, "services", `{"services":[{"name":"billing","account":"acme","createdTime":5}]}`,
		},
		"delete by path":     {"DELETE", "/v1/services/billing@acme", "", 204, "unservice acme billing", ""},
		"delete own by path": {"DELETE", "/v1/services/billing", "", 204, "unservice  billing", ""},
		"delete by query":    {"DELETE", "/v1/services?account=acme&name=billing", "", 204, "unservice acme billing", ""},
		"delete by body":     {"DELETE", "/v1/services", `{"account":"acme","name":"billing"}`, 204, "unservice acme billing", ""},
		"rotate": {
			"POST", "/v1/services/billing@acme/rotate", "", 200, "rotate acme billing",
			`{"service":{"name":"billing","account":"acme"},"key":"pk_rotated"}`,
		},
		"create child": {
			"POST", "/v1/accounts", `{"name":"acme-labs","parent":"acme"}`, 201, "account acme-labs acme",
			`{"account":{"name":"acme-labs","parent":"acme",` + open + `}}`,
		},
		"create own child": {
			"POST", "/v1/accounts", `{"name":"acme-labs"}`, 201, "account acme-labs ",
			`{"account":{"name":"acme-labs","parent":"acme",` + open + `}}`,
		},
		"list accounts": {
			"GET", "/v1/accounts", "", 200, "accounts", `{"accounts":[{"name":"acme",` + open + `},{"name":"acme-labs","parent":"acme",` + open + `}]}`,
		},
		"get account": {
			"GET", "/v1/accounts/acme", "", 200, "one account acme", "",
		},
		"edit account": {
			"PATCH", "/v1/accounts/acme", `{"settings":{"removeMessages":"15m"}}`, 200, "settings acme",
			`{"account":{"name":"acme","settings":{"editMessages":"inherit","removeMessages":"15m"},"effective":{"editMessages":"off","removeMessages":"15m"}}}`,
		},
		"create application": {
			"POST", "/v1/accounts/acme/applications", `{"name":"chat"}`, 201, "application acme chat",
			`{"application":{"name":"chat","account":"acme"}}`,
		},
		"list applications": {
			"GET", "/v1/accounts/acme/applications", "", 200, "applications acme",
			`{"applications":[{"name":"alarm","account":"acme"},{"name":"chat","account":"acme"}]}`,
		},
		"delete application":      {"DELETE", "/v1/accounts/acme/applications/chat", "", 204, "unapplication acme chat", ""},
		"delete account by path":  {"DELETE", "/v1/accounts/acme-labs", "", 204, "unaccount acme-labs", ""},
		"delete account by query": {"DELETE", "/v1/accounts?name=acme-labs", "", 204, "unaccount acme-labs", ""},
		"delete account by body":  {"DELETE", "/v1/accounts", `{"name":"acme-labs"}`, 204, "unaccount acme-labs", ""},
	} {
		w := newWorld(t, nil)
		w.call(c.method, c.path, c.body).want(t, what, c.status, c.answer)
		if got := w.admin.last(); got != c.called {
			t.Errorf("%s: called %q, want %q", what, got, c.called)
		}
	}
	w := newWorld(t, nil)
	w.as(adminKey, "POST", "/v1/accounts", `{"name":"globex"}`).want(t, "main account", 201, `{"account":{"name":"globex",`+open+`}}`)
	for what, body := range map[string]string{
		"no setting": `{"settings":{}}`, "nothing": `{}`, "null": `{"settings":{"editMessages":null}}`, "unknown": `{"settings":{"edit":"on"}}`,
		"no switch": `{"settings":{"editMessages":"maybe"}}`, "bool": `{"settings":{"editMessages":true}}`, "short": `{"settings":{"editMessages":"1ms"}}`,
		"negative": `{"settings":{"removeMessages":"-1h"}}`, "without unit": `{"settings":{"removeMessages":"15"}}`,
	} {
		w.call("PATCH", "/v1/accounts/acme", body).wantProblem(t, what, 400, domain.InvalidRequest)
	}
	w.call("DELETE", "/v1/accounts/acme", "").wantProblem(t, "full account", 409, domain.InUse)
	w.call("DELETE", "/v1/accounts?name=x", `{"name":"x"}`).wantProblem(t, "named twice", 400, domain.InvalidRequest)
}

func TestRefusalsOfTheAdministrationArePassedOn(t *testing.T) {
	w := newWorld(t, nil)
	for _, call := range [][3]string{
		{"POST", "/v1/users", `{"username":"x@chat.acme"}`},
		{"PATCH", "/v1/users/x@chat.acme", `{}`},
		{"DELETE", "/v1/users/x@chat.acme", ""},
		{"POST", "/v1/users/x@chat.acme/tokens", ""},
		{"GET", "/v1/users", ""},
		{"POST", "/v1/services", `{"name":"x"}`},
		{"GET", "/v1/services", ""},
		{"DELETE", "/v1/services/x", ""},
		{"DELETE", "/v1/services?name=x", ""},
		{"POST", "/v1/services/x/rotate", ""},
		{"POST", "/v1/accounts", `{"name":"x"}`},
		{"GET", "/v1/accounts", ""},
		{"GET", "/v1/accounts/acme", ""},
		{"PATCH", "/v1/accounts/acme", `{"settings":{"editMessages":"on"}}`},
		{"POST", "/v1/accounts/acme/applications", `{"name":"x"}`},
		{"GET", "/v1/accounts/acme/applications", ""},
		{"DELETE", "/v1/accounts/acme/applications/x", ""},
		{"DELETE", "/v1/accounts/x", ""},
		{"POST", "/v1/logout", ""},
	} {
		w.admin.err = domain.Errorf(domain.AccessDenied, "no")
		w.call(call[0], call[1], call[2]).wantProblem(t, call[0]+" "+call[1], 403, domain.AccessDenied)
		w.admin.err = domain.Errorf(domain.AlreadyExists, "taken")
		w.call(call[0], call[1], call[2]).wantProblem(t, call[0]+" "+call[1], 409, domain.AlreadyExists)
	}
}

func TestHealth(t *testing.T) {
	var unready error
	w := newWorld(t, func(o *bridge.Options) { o.Ready = func(context.Context) error { return unready } })
	w.as("", "GET", "/livez", "").want(t, "livez", 200, `{"status":"ok"}`)
	w.as("", "GET", "/livez?probe=1", "").want(t, "livez with a parameter", 200, `{"status":"ok"}`)
	w.as("", "GET", "/readyz", "").want(t, "readyz", 200, `{"status":"ok"}`)
	unready = errors.New("dial tcp db7:5432: refused")
	a := w.as("", "GET", "/readyz", "")
	a.wantProblem(t, "without store", 503, domain.Unavailable)
	if strings.Contains(string(a.body), "db7") {
		t.Errorf("told %s", a.body)
	}
	unready = domain.Errorf(domain.Unavailable, "draining")
	if p := w.as("", "GET", "/readyz", "").wantProblem(t, "draining", 503, domain.Unavailable); p["detail"] != "draining" {
		t.Errorf("detail %v", p["detail"])
	}
	w.as("", "GET", "/livez", "").want(t, "livez while draining", 200, "")
	var v map[string]any
	if err := json.Unmarshal(w.as("", "GET", "/version", "").body, &v); err != nil || v["version"] != "v1.2.3" || v["commit"] != "abc" {
		t.Errorf("version %v, %v", v, err)
	}
}

func TestOptionsThatAreMissingAreAnError(t *testing.T) {
	if _, err := bridge.New(bridge.Options{}); err == nil {
		t.Error("options without anything are accepted")
	}
}
