package bridge_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/parley-im/parley/bridge"
	"github.com/parley-im/parley/domain"
)

func TestEachCodeBecomesItsProblem(t *testing.T) {
	// The codes, numbers and statuses of protocol.md section 7 are the same over HTTP as over MQTT.
	for _, code := range domain.Codes() {
		w := newWorld(t, nil)
		refusal := domain.Errorf(code, "because %s", code)
		if code == domain.DistinctConflict {
			refusal.Conversation = &domain.Conversation{Title: "the other one"}
		}
		w.fails(refusal)
		info := code.Info()
		a := w.call("POST", "/v1/conversations", `{"title":"x"}`)
		p := a.wantProblem(t, string(code), info.Status, code)
		if p["number"] != float64(info.Number) || p["detail"] != "because "+string(code) || p["type"] != "/docs#"+string(code) {
			t.Errorf("%s: %s", code, a.body)
		}
		conversation, _ := p["conversation"].(map[string]any)
		if (conversation["title"] == "the other one") != (code == domain.DistinctConflict) {
			t.Errorf("%s: conversation %v", code, conversation)
		}
		if wait := a.Header.Get("Retry-After") != ""; wait != (info.Status == 429 || info.Status == 503) {
			t.Errorf("%s: Retry-After %q", code, a.Header.Get("Retry-After"))
		}
		if challenge := a.Header.Get("WWW-Authenticate") != ""; challenge != (info.Status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", code, a.Header.Get("WWW-Authenticate"))
		}
	}
}

func TestANumberOfItsOwnIsKept(t *testing.T) {
	// count-out-of-range has two numbers.
	w := newWorld(t, nil)
	a := w.call("GET", "/v1/conversations/"+someID+"/events?from=1&count=101", "")
	if p := a.wantProblem(t, "101 events", 422, domain.CountOutOfRange); p["number"] != 22.0 {
		t.Errorf("number %v", p["number"])
	}
	a = w.call("GET", "/v1/conversations/"+someID+"/events?from=1&count=0", "")
	if p := a.wantProblem(t, "0 events", 422, domain.CountOutOfRange); p["number"] != 21.0 {
		t.Errorf("number %v", p["number"])
	}
}

func TestWhatIsNotARefusalStaysInside(t *testing.T) {
	// Errors of the store may name hosts, tables and values.
	w := newWorld(t, nil)
	w.fails(errors.New("pq: password authentication failed for host db7"))
	a := w.call("POST", "/v1/conversations", `{}`)
	a.wantProblem(t, "internal", 500, domain.Internal)
	if strings.Contains(string(a.body), "db7") {
		t.Errorf("it is told: %s", a.body)
	}
	w.fails(context.DeadlineExceeded)
	w.call("POST", "/v1/conversations", `{}`).wantProblem(t, "too slow", 503, domain.Unavailable)
}

func TestRequestsOfTheWrongFormAreProblems(t *testing.T) {
	w := newWorld(t, func(o *bridge.Options) {
		o.Limits = domain.DefaultLimits()
		o.Limits.MessageBytes = 100
	})
	const conversations, messages = "/v1/conversations", "/v1/conversations/" + someID + "/messages"
	for what, c := range map[string]struct {
		method, path, body string
		header             string
		status             int
		code               domain.Code
	}{
		"unknown path":            {"GET", "/v2/users", "", "", 404, domain.UnknownCommand},
		"root":                    {"GET", "/", "", "", 404, domain.UnknownCommand},
		"path with dots":          {"GET", "/v1/../v1/users", "", "", 404, domain.UnknownCommand},
		"path with empty element": {"GET", "/v1//users", "", "", 404, domain.UnknownCommand},
		"slash at the end":        {"GET", "/v1/users/", "", "", 404, domain.UnknownCommand},
		"unknown method":          {"PUT", conversations, `{}`, "", 405, domain.UnknownCommand},
		"made-up method":          {"BREW", conversations, "", "", 405, domain.UnknownCommand},
		"not JSON":                {"POST", conversations, `{"title":`, "", 400, domain.InvalidRequest},
		"something behind":        {"POST", conversations, `{} {}`, "", 400, domain.InvalidRequest},
		"a list":                  {"POST", conversations, `[]`, "", 400, domain.InvalidRequest},
		"null":                    {"POST", conversations, `null`, "", 400, domain.InvalidRequest},
		"no body":                 {"POST", conversations, "", "", 400, domain.InvalidRequest},
		"not UTF-8":               {"POST", conversations, "{\"title\":\"\xff\"}", "", 400, domain.InvalidRequest},
		"unknown field":           {"POST", conversations, `{"titel":"x"}`, "", 400, domain.InvalidRequest},
		"unknown field inside":    {"POST", conversations, `{"participants":[{"user":"x"}]}`, "", 400, domain.InvalidRequest},
		"wrong type":              {"POST", conversations, `{"title":1}`, "", 400, domain.InvalidRequest},
		"no object":               {"POST", conversations, `{"customData":1}`, "", 400, domain.InvalidRequest},
		"field of the path":       {"POST", messages, `{"text":"x","conversation":"` + someID + `"}`, "", 400, domain.InvalidRequest},
		"field where none is":     {"POST", "/v1/users/alice@chat.acme/tokens", `{"x":1}`, "", 400, domain.InvalidRequest},
		"form":                    {"POST", conversations, `title=x`, "Content-Type: application/x-www-form-urlencoded", 415, domain.InvalidRequest},
		"broken type":             {"POST", conversations, `{}`, "Content-Type: ;;", 415, domain.InvalidRequest},
		"another charset":         {"POST", conversations, `{}`, "Content-Type: application/json; charset=latin1", 415, domain.InvalidRequest},
		"compressed":              {"POST", conversations, `{}`, "Content-Encoding: gzip", 415, domain.InvalidRequest},
		"body too large":          {"POST", conversations, `{"title":"` + strings.Repeat("x", 1<<20) + `"}`, "", 413, domain.MessageTooLarge},
		"message too large":       {"POST", messages, `{"text":"` + strings.Repeat("x", 100) + `"}`, "", 413, domain.MessageTooLarge},
		"unknown parameter":       {"GET", "/v1/users?name=x", "", "", 400, domain.InvalidRequest},
		"page too large":          {"GET", "/v1/users?limit=101", "", "", 400, domain.InvalidRequest},
		"page of text":            {"GET", "/v1/users?limit=x", "", "", 400, domain.InvalidRequest},
		"cursor of somebody else": {"GET", "/v1/users?cursor=x", "", "", 400, domain.InvalidRequest},
		"number of text":          {"GET", "/v1/users?userId=x", "", "", 400, domain.InvalidRequest},
		"look-up and search":      {"GET", "/v1/users?userId=1&q=x", "", "", 400, domain.InvalidRequest},
		"look-up of 51":           {"GET", "/v1/users?userId=1" + strings.Repeat("&userId=2", 50), "", "", 400, domain.InvalidRequest},
		"seq of text":             {"GET", "/v1/conversations/" + someID + "/events?from=x&count=1", "", "", 400, domain.InvalidRequest},
		"one argument":            {"GET", "/v1/conversations/" + someID + "/events?from=1", "", "", 422, domain.TooFewRangeArguments},
		"no argument":             {"GET", "/v1/conversations/" + someID + "/events", "", "", 422, domain.TooFewRangeArguments},
		"three arguments":         {"GET", "/v1/conversations/" + someID + "/events?from=1&to=2&count=1", "", "", 422, domain.TooManyRangeArguments},
		"backwards":               {"GET", "/v1/conversations/" + someID + "/events?from=2&to=1", "", "", 422, domain.FromAfterTo},
		"named and listed":        {"GET", conversations + "?limit=3&uuid=" + someID, "", "", 400, domain.InvalidRequest},
		"page of 101":             {"GET", conversations + "?limit=101", "", "", 400, domain.InvalidRequest},
		"page of 1001 uuids":      {"GET", conversations + "?public=true&limit=1001", "", "", 400, domain.InvalidRequest},
		"page of none":            {"GET", conversations + "?limit=0", "", "", 400, domain.InvalidRequest},
		"cursor of users":         {"GET", conversations + "?cursor=dXNlcjox", "", "", 400, domain.InvalidRequest},
		"edit nothing":            {"PATCH", conversations + "/" + someID, `{}`, "", 400, domain.InvalidRequest},
		"edit what cannot be":     {"PATCH", conversations + "/" + someID, `{"direct":true}`, "", 400, domain.InvalidRequest},
		"edit nobody":             {"PATCH", conversations + "/" + someID + "/participants", `{"participants":[]}`, "", 400, domain.InvalidRequest},
		"mute or not":             {"POST", conversations + "/" + someID + "/mute", `{}`, "", 400, domain.InvalidRequest},
		"edit no message":         {"PATCH", messages + "/x", `{"text":"x"}`, "", 404, domain.MessageNotFound},
		"edit a message nowhere":  {"PATCH", messages + "/" + someID, `{}`, "", 400, domain.InvalidRequest},
		"remove no message":       {"DELETE", messages + "/x", "", "", 404, domain.MessageNotFound},
		"31 conversations":        {"GET", conversations + "?uuid=" + someID + strings.Repeat("&uuid="+someID, 30), "", "", 400, domain.InvalidRequest},
		"query that is no UUID":   {"GET", conversations + "?uuid=x", "", "", 400, domain.InvalidRequest},
		"path that is no UUID":    {"GET", conversations + "/x", "", "", 404, domain.ConversationNotFound},
		"name that is none":       {"GET", "/v1/users/alice", "", "", 404, domain.UserNotFound},
		"nobody to add":           {"POST", conversations + "/" + someID + "/participants", `{"participants":[]}`, "", 400, domain.InvalidRequest},
		"nobody to remove":        {"DELETE", conversations + "/" + someID + "/participants", "", "", 400, domain.InvalidRequest},
		"login without password":  {"POST", "/v1/login", `{"username":"alice@chat.acme"}`, "", 400, domain.InvalidRequest},
		"refresh without token":   {"POST", "/v1/login/refresh", `{}`, "", 400, domain.InvalidRequest},
		"public and direct":       {"POST", conversations, `{"direct":true,"publicJoin":true}`, "", 422, domain.DirectNotPublicOrUber},
		"empty key":               {"POST", conversations, `{}`, "Idempotency-Key: ", 400, domain.InvalidRequest},
		"key too long":            {"POST", conversations, `{}`, "Idempotency-Key: " + strings.Repeat("k", 256), 400, domain.InvalidRequest},
		"service named twice":     {"DELETE", "/v1/services?name=x", `{"name":"x"}`, "", 400, domain.InvalidRequest},
	} {
		var header []string
		if c.header != "" {
			header = append(header, c.header)
		}
		w.call(c.method, c.path, c.body, header...).wantProblem(t, what, c.status, c.code)
	}
	if len(w.commands) != 0 || len(w.admin.calls) != 0 {
		t.Errorf("some reached the gateway: %v %v", w.commands, w.admin.calls)
	}
}

func TestAStrangeBodyLengthIsAProblem(t *testing.T) {
	// Without a Content-Length the limit is noticed while reading.
	w := newWorld(t, nil)
	req := w.request(serviceKey, "POST", "/v1/conversations", `{"title":"`+strings.Repeat("x", 1<<20)+`"}`)
	req.ContentLength = -1
	w.send(req).wantProblem(t, "chunked and too large", 413, domain.MessageTooLarge)
}

func TestEveryRouteAsksWhoItIs(t *testing.T) {
	w := newWorld(t, nil)
	for id, op := range operationsOf(t, w) {
		if len(op.Security) == 0 {
			continue
		}
		path := strings.NewReplacer("{uuid}", someID, "{username}", "alice@chat.acme", "{service}", "x@acme", "{account}", "acme").Replace(op.path)
		for what, header := range map[string]string{
			"nothing": "", "another scheme": "Basic YTpi", "no token": "Bearer ", "wrong token": "Bearer nobody",
			"two tokens": "Bearer a b", "control character": "Bearer a\x01",
		} {
			req := w.request("", op.method, path, "")
			if header != "" {
				req.Header.Set("Authorization", header)
			}
			a := w.send(req)
			a.wantProblem(t, id+" with "+what, 401, domain.NotAuthenticated)
			challenge := a.Header.Get("WWW-Authenticate")
			if !strings.HasPrefix(challenge, `Bearer realm="parley"`) || strings.Contains(challenge, "error=") != (header != "") {
				t.Errorf("%s with %s: WWW-Authenticate %q", id, what, challenge)
			}
		}
		req := w.request("", op.method, path, "")
		req.Header["Authorization"] = []string{"Bearer " + serviceKey, "Bearer " + aliceToken}
		w.send(req).wantProblem(t, id+" with two headers", 401, domain.NotAuthenticated)
		w.as("down", op.method, path, "").wantProblem(t, id+" without a store", 503, domain.Unavailable)
	}
	if len(w.commands) != 0 || len(w.admin.calls) != 0 {
		t.Errorf("some reached the gateway: %v %v", w.commands, w.admin.calls)
	}
}

func TestTheSchemeIsReadInAnyLetterCase(t *testing.T) {
	w := newWorld(t, nil)
	for _, header := range []string{"bearer " + serviceKey, "BEARER  " + serviceKey} {
		req := w.request("", "GET", "/v1/services", "")
		req.Header.Set("Authorization", header)
		w.send(req).want(t, header, 200, "")
	}
}

func TestOtherMethodsAreToldWhatThereIs(t *testing.T) {
	w := newWorld(t, nil)
	a := w.call("PUT", "/v1/users/alice@chat.acme", "")
	a.wantProblem(t, "PUT", 405, domain.UnknownCommand)
	allow := strings.Split(a.Header.Get("Allow"), ", ")
	if !slices.Equal(allow, []string{"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}) {
		t.Errorf("Allow: %v", allow)
	}
	a = w.as("", "OPTIONS", "/v1/users", "")
	a.want(t, "OPTIONS", 204, "")
	if a.Header.Get("Allow") != "GET, HEAD, POST, OPTIONS" {
		t.Errorf("Allow: %s", a.Header.Get("Allow"))
	}
	w.as("", "OPTIONS", "/nope", "").wantProblem(t, "OPTIONS of nothing", 404, domain.UnknownCommand)
	if a := w.as("", "HEAD", "/livez", ""); a.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %d", a.StatusCode)
	}
}
