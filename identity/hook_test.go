package identity

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/metrics/metricstest"
)

// newService is a login service with its hook.
func newService(t *testing.T, answer http.HandlerFunc, change func(*HookOptions)) (*Hook, *locked) {
	t.Helper()
	server := httptest.NewTLSServer(answer)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	log := &locked{}
	o := HookOptions{
		URL: server.URL + "/login?key=in-the-url", Token: "s3cret", Roots: roots, Timeout: patience,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	}
	if change != nil {
		change(&o)
	}
	h, err := NewHook(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h, log
}

func attempt() domain.Attempt {
	return domain.Attempt{Username: "alice@chat.acme", Password: "pass\"word", Device: "phone", Address: "192.0.2.1:5", Protocol: "mqtt"}
}

func TestTheLoginServiceIsAskedWithAllThatItMayWantToKnow(t *testing.T) {
	asked := make(chan string, 1)
	h, _ := newService(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked <- strings.Join([]string{r.Method, r.URL.String(), r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(body)}, " ")
		_, _ = io.WriteString(w, `{"result":"allow","displayName":"Alice","is_superuser":false}`)
	}, func(o *HookOptions) { o.Create = true })
	answer, err := h.Ask(t.Context(), attempt())
	if err != nil || answer != (domain.Answer{Result: domain.Allowed, DisplayName: "Alice", Create: true}) {
		t.Errorf("%+v, %v", answer, err)
	}
	want := `POST /login?key=in-the-url Bearer s3cret application/json ` +
		`{"username":"alice@chat.acme","password":"pass\"word","device":"phone","address":"192.0.2.1:5","protocol":"mqtt"}`
	if got := <-asked; got != want {
		t.Errorf("asked\n%s\nwant\n%s", got, want)
	}
}

func TestTheLoginServiceLetsNobodyInByMistake(t *testing.T) {
	say := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	followed := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		followed = true
		_, _ = io.WriteString(w, `{"result":"allow"}`)
	}))
	t.Cleanup(elsewhere.Close)
	for what, test := range map[string]struct {
		answer http.HandlerFunc
		want   domain.Verdict
		fails  bool
	}{
		"allow":              {say(200, `{"result":"allow"}`), domain.Allowed, false},
		"deny":               {say(200, `{"result":"deny"}`), domain.Denied, false},
		"ignore":             {say(200, `{"result":"ignore"}`), domain.Ignored, false},
		"401":                {say(401, ``), domain.Denied, false},
		"403":                {say(403, `{"result":"allow"}`), domain.Denied, false},
		"201":                {say(201, `{"result":"allow"}`), domain.Denied, true},
		"204":                {say(204, ``), domain.Denied, true},
		"404":                {say(404, `{"result":"allow"}`), domain.Denied, true},
		"500":                {say(500, `{"result":"allow"}`), domain.Denied, true},
		"nothing":            {say(200, ``), domain.Denied, true},
		"{}":                 {say(200, `{}`), domain.Denied, true},
		"a list":             {say(200, `[{"result":"allow"}]`), domain.Denied, true},
		"true":               {say(200, `true`), domain.Denied, true},
		"Allow":              {say(200, `{"result":"Allow"}`), domain.Denied, true},
		"RESULT":             {say(200, `{"RESULT":"allow"}`), domain.Denied, true},
		"null":               {say(200, `{"result":null}`), domain.Denied, true},
		"result of a number": {say(200, `{"result":1}`), domain.Denied, true},
		"name of a number":   {say(200, `{"result":"allow","displayName":1}`), domain.Denied, true},
		"two values":         {say(200, `{"result":"allow"}{"result":"deny"}`), domain.Denied, true},
		"huge":               {say(200, `{"result":"allow","x":"`+strings.Repeat("x", maxAnswer)+`"}`), domain.Denied, true},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, domain.Denied, true},
		"torn": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, domain.Denied, true},
		"silent": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then it is noticed when the client goes
			select {
			case <-r.Context().Done():
			case <-stop:
			}
		}, domain.Denied, true},
	} {
		h, log := newService(t, test.answer, func(o *HookOptions) {
			if what == "silent" {
				o.Timeout = 50 * time.Millisecond
			}
		})
		answer, err := h.Ask(t.Context(), attempt())
		if answer.Result != test.want {
			t.Errorf("%s: %v", what, answer.Result)
		}
		want := domain.Code("")
		if test.fails {
			want = domain.Unavailable
		}
		wantCode(t, what, err, want)
		for _, text := range []string{log.String(), fmt.Sprint(err)} {
			for _, secret := range []string{`pass`, "s3cret", "in-the-url"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s: a secret is shown: %s", what, text)
				}
			}
		}
		if test.fails != strings.Contains(log.String(), "the login service fails") {
			t.Errorf("%s: the log says %q", what, log)
		}
	}
	if followed {
		t.Error("a redirect was followed")
	}
}

func TestTheLoginServicesCertificateIsVerified(t *testing.T) {
	asked := false
	h, _ := newService(t, func(w http.ResponseWriter, _ *http.Request) {
		asked = true
		_, _ = io.WriteString(w, `{"result":"allow"}`)
	}, func(o *HookOptions) { o.Roots = nil })
	_, err := h.Ask(t.Context(), attempt())
	wantCode(t, "a server without a certificate", err, domain.Unavailable)
	if asked {
		t.Error("it got the password")
	}
}

func TestAQuestionEndsWithItsLogin(t *testing.T) {
	// Who has gone need not be asked about, and is no failure of the service.
	ctx, cancel := context.WithCancel(t.Context())
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	h, log := newService(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		select {
		case <-r.Context().Done():
		case <-stop:
		}
	}, nil)
	_, err := h.Ask(ctx, attempt())
	wantCode(t, "gone", err, domain.Unavailable)
	if log.String() != "" {
		t.Errorf("the log says %q", log)
	}
}

func TestTheLoginServiceGovernsItsAccounts(t *testing.T) {
	all, err := NewHook(HookOptions{URL: "https://x.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	some, err := NewHook(HookOptions{URL: "https://x.example.com", Accounts: []string{"acme", "globex"}})
	if err != nil {
		t.Fatal(err)
	}
	if !all.Governs("a@b.other") || !some.Governs("a@b.globex") || some.Governs("a@b.other") || some.Governs("acme@acme.other") {
		t.Error("it is asked about the wrong users")
	}
	if _, err := NewHook(HookOptions{}); err == nil {
		t.Error("a hook without a URL")
	}
}

func TestMetricsKeepTheirNames(t *testing.T) {
	metricstest.Golden(t, "testdata/metrics.txt", func(r prometheus.Registerer) {
		if _, err := newKeyMetrics(r); err != nil {
			t.Error(err)
		}
		if _, err := newHookMetrics(r); err != nil {
			t.Error(err)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(`{"result":"allow","displayName":"x"}`))
	f.Add([]byte(`{"result":"deny"}`))
	f.Add([]byte(`{"result":"allow"} {}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		answer, err := parseAnswer(b)
		if err != nil {
			if answer != (domain.Answer{}) {
				t.Errorf("%q: %+v, %v", b, answer, err)
			}
			return
		}
		var m map[string]any
		if json.Unmarshal(b, &m) != nil || m["result"] != answer.Result.String() {
			t.Errorf("%q: %+v", b, answer)
		}
	})
}
