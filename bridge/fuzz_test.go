package bridge_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func FuzzBodies(f *testing.F) {
	paths := []string{
		"/v1/login", "/v1/login/refresh", "/v1/logout", "/v1/users", "/v1/users/bob@chat.acme/tokens", "/v1/conversations",
		"/v1/conversations/" + someID + "/participants", "/v1/conversations/" + someID + "/messages", "/v1/services",
		"/v1/services/x/rotate", "/v1/accounts", "/v1/accounts/acme/applications",
	}
	for i, seed := range []string{
		`{"username":"alice@chat.acme","password":"secret"}`, `{"refreshToken":"rt_x"}`, `{}`,
		`{"username":"bob@chat.acme","displayName":"Bob","password":"x","customData":{"a":[1,2]}}`, ``,
		`{"title":"x","direct":false,"participants":[{"userId":4,"permissions":{"canWrite":false}}],"customData":{}}`,
		`{"participants":[{"username":"bob@chat.acme"}]}`,
		`{"id":"m","text":"x","payload":[{}],"parts":[{"mimeType":"text/plain","body":"x"}],"mentions":{"all":true},"as":"bob@chat.acme"}`,
		`{"account":"acme","name":"x"}`, `[]`, `{"name":"x","parent":"acme"}`, `{"name":"chat"}`,
	} {
		f.Add(i, []byte(seed))
	}
	w := newWorld(f, nil)
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		w.forget(t)
		path := paths[((i%len(paths))+len(paths))%len(paths)]
		a := w.call("POST", path, string(body))
		if a.StatusCode >= 500 {
			t.Fatalf("%s %q: %d %s", path, body, a.StatusCode, a.body)
		}
		var object map[string]any
		if err := json.Unmarshal(a.body, &object); err != nil {
			t.Fatalf("%s %q: answer %q", path, body, a.body)
		}
		if a.StatusCode < 300 && len(body) > 0 && (!utf8.Valid(body) || !json.Valid(body)) {
			t.Errorf("%s %q was accepted", path, body)
		}
		if a.StatusCode >= 400 && (object["code"] == nil || object["status"] != float64(a.StatusCode)) {
			t.Errorf("%s %q: %s is no problem", path, body, a.body)
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	for _, s := range []string{"Bearer " + serviceKey, "bearer\t" + serviceKey, "Bearer", "Bearer  x", "\xff"} {
		f.Add(s)
	}
	w := newWorld(f, nil)
	f.Fuzz(func(t *testing.T, header string) {
		w.forget(t)
		req := w.request("", "GET", "/v1/services", "")
		req.Header["Authorization"] = []string{header}
		a := w.send(req)
		if a.StatusCode != 200 && a.StatusCode != 401 && a.StatusCode != 503 {
			t.Errorf("%q: %d", header, a.StatusCode)
		}
	})
}

func FuzzCursors(f *testing.F) {
	w := newWorld(f, nil)
	f.Add("dXNlcjo0")
	f.Fuzz(func(t *testing.T, cursor string) {
		w.forget(t)
		req := w.request(serviceKey, "GET", "/v1/users", "")
		q := req.URL.Query()
		q.Set("cursor", cursor)
		req.URL.RawQuery = q.Encode()
		if a := w.send(req); a.StatusCode != 200 && a.StatusCode != 400 {
			t.Errorf("%q: %d", cursor, a.StatusCode)
		}
	})
}
