package walk

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAFalseClaimEndsTheExample(t *testing.T) {
	// An example that goes on after a claim that does not hold would print what is not true.
	var out bytes.Buffer
	err := Play(t.Context(), &out, Gateway{}, "test", func(s *Stage) {
		s.Section("First", "")
		s.Check(true, "this holds")
		s.Check(1 > 2, "this does not")
		s.Section("Second", "")
	})
	if err == nil || err.Error() != "section 1: not so: this does not" {
		t.Errorf("the error is %v", err)
	}
	if got := out.String(); !strings.Contains(got, "✓ this holds") || strings.Contains(got, "this does not") || strings.Contains(got, "Second") {
		t.Errorf("it printed %s", got)
	}
}

func TestAnswersOtherThanExpectedEndTheExample(t *testing.T) {
	// The examples are tests as well: they must not pass on a gateway that answers anything else.
	for name, step := range map[string]func(*Stage){
		"a refusal where a success is due": func(s *Stage) { s.Operator().Call("GET", "/refused", nil, nil) },
		"a success where a refusal is due": func(s *Stage) { s.Operator().Refused("GET", "/fine", nil, "access-denied") },
		"another refusal":                  func(s *Stage) { s.Operator().Refused("GET", "/refused", nil, "access-denied") },
		"what is no JSON": func(s *Stage) {
			var v struct{}
			s.Operator().Call("GET", "/text", nil, &v)
		},
		"nobody on MQTT": func(s *Stage) { s.Connect(Login{Name: "alice", Username: "alice", Version: 5}) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer, status := "{}", http.StatusOK
				switch r.URL.Path {
				case "/refused":
					answer, status = `{"code":"not-found","number":110,"status":404}`, http.StatusNotFound
				case "/text":
					answer = "hello"
				}
				w.WriteHeader(status)
				_, _ = w.Write([]byte(answer))
			}))
			defer server.Close()
			after := false
			err := Play(t.Context(), &bytes.Buffer{}, Gateway{HTTP: server.URL, MQTT: "127.0.0.1:0"}, "test", func(s *Stage) {
				step(s)
				after = true
			})
			if err == nil || after {
				t.Errorf("the example went on, and ended with %v", err)
			}
		})
	}
}

func TestEventsOutOfOrderOrUntoldEndTheExample(t *testing.T) {
	// That nothing is missing, and nothing comes twice or unasked for, is what every section claims without saying so.
	event := func(seq, kind string) publication {
		return publication{"conversations/1/events", []byte(`{"conversation":"1","seq":` + seq + `,"type":"` + kind + `"}`)}
	}
	for name, test := range map[string]struct {
		arrived []publication
		want    string
	}{
		"in order": {[]publication{event("1", "createConversation"), event("2", "sendMessage")}, ""},
		"a gap":    {[]publication{event("1", "createConversation"), event("3", "sendMessage")}, "event 3 after 1"},
		"twice":    {[]publication{event("1", "createConversation"), event("1", "createConversation")}, "event 1 after 1"},
		"of another type": {
			[]publication{event("1", "createConversation"), event("2", "editMessage")}, "editMessage where sendMessage was due",
		},
		"one too many": {
			[]publication{event("1", "createConversation"), event("2", "sendMessage"), event("3", "sendMessage")}, "also received",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := Play(t.Context(), &bytes.Buffer{}, Gateway{}, "test", func(s *Stage) {
				c := &Client{Name: "alice", stage: s, last: make(map[string]int64), more: make(chan struct{}, 1)}
				for _, p := range test.arrived {
					c.receive(p)
				}
				c.Event("1", "createConversation")
				c.Event("1", "sendMessage")
				c.nothingLeft()
			})
			if got := err != nil; got != (test.want != "") || got && !strings.Contains(err.Error(), test.want) {
				t.Errorf("the example ended with %v", err)
			}
		})
	}
}
