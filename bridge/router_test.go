package bridge_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/bridge"
	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/metrics/metricstest"
)

func TestEveryAnswerIsProtectedAndNamed(t *testing.T) {
	w := newWorld(t, nil)
	for _, path := range []string{"/livez", "/docs", "/openapi.json", "/nope", "/v1/users", "/v1/services"} {
		a := w.call("GET", path, "")
		for header, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
		} {
			if got := a.Header.Get(header); got != want {
				t.Errorf("%s: %s: %q", path, header, got)
			}
		}
		if !strings.HasPrefix(a.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: policy %q", path, a.Header.Get("Content-Security-Policy"))
		}
		if strings.HasPrefix(path, "/v1/") && a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be cached", path)
		}
		if len(a.Header.Get("X-Request-Id")) != 24 {
			t.Errorf("%s: request id %q", path, a.Header.Get("X-Request-Id"))
		}
	}
	for id, kept := range map[string]bool{"abc-1.2_X": true, "": false, "a b": false, "ä": false, strings.Repeat("x", 65): false} {
		a := w.call("GET", "/livez", "", "X-Request-Id: "+id)
		if got := a.Header.Get("X-Request-Id"); (got == id) != kept || got == "" {
			t.Errorf("request id %q became %q", id, got)
		}
	}
}

func TestOriginsMayUseTheAPIOnlyIfAllowed(t *testing.T) {
	const page = "https://chat.example.com"
	preflight := []string{"Origin: " + page, "Access-Control-Request-Method: POST"}
	closed := newWorld(t, nil)
	for _, a := range []answer{closed.as("", "GET", "/livez", "", "Origin: "+page), closed.as("", "OPTIONS", "/v1/login", "", preflight...)} {
		if got := a.Header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("off by default, but allowed %q", got)
		}
	}
	open := newWorld(t, func(o *bridge.Options) { o.Origins = []string{page} })
	a := open.as("", "OPTIONS", "/v1/login", "", preflight...)
	a.want(t, "preflight", 204, "")
	if a.Header.Get("Access-Control-Allow-Origin") != page || !strings.Contains(a.Header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("preflight: %v", a.Header)
	}
	a = open.as("", "POST", "/v1/login", `{"username":"a","password":"b"}`, "Origin: "+page)
	a.want(t, "request", 200, "")
	if a.Header.Get("Access-Control-Allow-Origin") != page || a.Header.Get("Vary") != "Origin" {
		t.Errorf("request: %v", a.Header)
	}
	a = open.as("", "POST", "/v1/login", `{"username":"a","password":"b"}`, "Origin: https://evil.example.com")
	if a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("another origin is allowed")
	}
	anyone := newWorld(t, func(o *bridge.Options) { o.Origins = []string{"*"} })
	if a := anyone.as("", "GET", "/livez", "", "Origin: "+page); a.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Error("* does not allow any")
	}
	if _, err := bridge.New(bridge.Options{
		Do: func(context.Context, domain.Principal, domain.Command) (domain.Receipt, error) {
			return domain.Receipt{}, nil
		},
		Accounts: &fakeAdmin{}, Memory: &fakeMemory{}, Origins: []string{"chat.example.com"},
	}); err == nil {
		t.Error("an origin without a scheme is accepted")
	}
}

func TestAPanicIsAnAnswerAndALine(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t, func(o *bridge.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	w.admin.panics = "boom"
	w.as("", "POST", "/v1/login", `{"username":"a","password":"hunter2"}`).wantProblem(t, "panic", 500, domain.Internal)
	if !strings.Contains(log.String(), "panic=boom") || !strings.Contains(log.String(), "route=/v1/login") {
		t.Errorf("log: %s", log.String())
	}
}

func TestABrokenOffAnswerDoesNotLookComplete(t *testing.T) {
	w := newWorld(t, nil)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.handler.ServeHTTP(&brokenWriter{ResponseWriter: rw}, r)
	}))
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(req)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		t.Error("half an answer was taken for a whole one")
	}
}

// brokenWriter writes half of what it is given.
type brokenWriter struct{ http.ResponseWriter }

func (b *brokenWriter) Write(p []byte) (int, error) {
	n, _ := b.ResponseWriter.Write(p[:len(p)/2])
	return n, errors.New("broken")
}

func TestTheLogSaysWhoAndWhatButNothingPrivate(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t, func(o *bridge.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	w.call("POST", "/v1/conversations", `{"title":"private-title"}`, key, "X-Request-Id: r-1")
	w.call("GET", "/v1/users/bob@chat.acme", "")
	w.call("GET", "/v1/users?q=private-search", "")
	w.as("secret-token", "GET", "/v1/services", "")
	w.as("", "POST", "/v1/login", `{"username":"alice@chat.acme","password":"private-password"}`)
	w.as(aliceToken, "POST", "/v1/logout", "")
	w.as(adminKey, "GET", "/v1/accounts", "")
	got := log.String()
	for _, want := range []string{
		"request_id=r-1 method=POST route=/v1/conversations status=201", "service=7", "user=3", "admin=true",
		"route=/v1/users/{username} status=200", "status=401",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	for _, never := range []string{"private", "secret", serviceKey, "bob", "alice@", "k-1"} {
		if strings.Contains(got, never) {
			t.Errorf("the log has %q:\n%s", never, got)
		}
	}
}

func TestRequestsAreCountedByRoute(t *testing.T) {
	w := newWorld(t, nil)
	w.call("GET", "/v1/users/bob@chat.acme", "")
	w.call("GET", "/v1/users/tom@chat.acme", "")
	w.call("GET", "/nope/bob", "")
	w.call("BREW", "/v1/users", "")
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != "parley_http_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			got[strings.Join(labels, " ")] = m.GetCounter().GetValue()
		}
	}
	want := map[string]float64{
		"method=GET route=/v1/users/{username} status=200": 2, "method=GET route=other status=404": 1,
		"method=other route=other status=405": 1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("counted %v", got)
	}
}

func TestMetricsKeepTheirNames(t *testing.T) {
	metricstest.Golden(t, "testdata/metrics.txt", func(r prometheus.Registerer) {
		newWorld(t, func(o *bridge.Options) { o.Registerer = r })
	})
}
