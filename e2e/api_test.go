package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
)

// api is a client of the HTTP API.
type api struct {
	base, token string
	header      map[string]string
}

func (g *gateway) api(token string) api { return api{base: "http://" + g.addrs.HTTP, token: token} }

// with gives the client with one more header.
func (a api) with(name, value string) api {
	header := map[string]string{name: value}
	maps.Copy(header, a.header)
	a.header = header
	return a
}

type response struct {
	status int
	header http.Header
	body   []byte
}

// into decodes the body.
func (r response) into(tb testing.TB, v any) {
	tb.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		tb.Fatalf("%v in %s", err, r.body)
	}
}

// do makes a request; body is JSON if it is not text or bytes.
func (a api) do(ctx context.Context, method, path string, body any) (response, error) {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	case []byte:
		reader = bytes.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return response{}, err
		}
		reader = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, reader)
	if err != nil {
		return response{}, err
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	if reader != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range a.header {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, answer}, err
}

// try is do that takes a refusal for an error.
func (a api) try(ctx context.Context, method, path string, body any) (response, error) {
	res, err := a.do(ctx, method, path, body)
	if err == nil && res.status >= 300 {
		err = fmt.Errorf("%s %s: %d %s", method, path, res.status, res.body)
	}
	return res, err
}

// ok makes a request that must succeed.
func (a api) ok(tb testing.TB, method, path string, body any) response {
	tb.Helper()
	res, err := a.try(tb.Context(), method, path, body)
	if err != nil {
		tb.Fatal(err)
	}
	return res
}

// any makes a request, whatever comes of it.
func (a api) any(tb testing.TB, method, path string, body any) response {
	tb.Helper()
	res, err := a.do(tb.Context(), method, path, body)
	if err != nil {
		tb.Fatal(err)
	}
	return res
}

// refused makes a request that must be refused, and gives the problem.
func (a api) refused(tb testing.TB, method, path string, body any) refusal {
	tb.Helper()
	res := a.any(tb, method, path, body)
	if res.status < 400 {
		tb.Fatalf("%s %s: %d %s, not a refusal", method, path, res.status, res.body)
	}
	if got := res.header.Get("Content-Type"); got != "application/problem+json" {
		tb.Errorf("%s %s: a refusal is %s, not a problem: %s", method, path, got, res.body)
	}
	var p refusal
	res.into(tb, &p)
	if p.Status != res.status {
		tb.Errorf("%s %s: the problem says %d, the status line %d", method, path, p.Status, res.status)
	}
	return p
}
