package walk

import (
	"bytes"
	"io"
	"net/http"
	"strings"
)

// Backend is a client of the HTTP API: a server program of the customer, an operator, or an app that uses HTTP.
type Backend struct {
	stage      *Stage
	name, bear string
}

// Backend gives a client of the HTTP API. The token is an API key, an access token or the admin key; empty: none.
func (s *Stage) Backend(name, token string) *Backend {
	return &Backend{stage: s, name: name, bear: token}
}

// Operator gives the client that holds the admin key.
func (s *Stage) Operator() *Backend { return s.Backend("operator", s.gateway.AdminKey) }

// Call makes a request that must succeed, and decodes the answer into result if there is one. The body is nil, or JSON.
func (b *Backend) Call(method, path string, body, result any) (status int) {
	status, answer := b.do(method, path, body)
	if status >= 300 {
		b.stage.fail("%s %s: %d %s", method, path, status, answer)
	}
	if len(answer) > 0 {
		b.stage.decode(answer, result)
	}
	return status
}

// Upload puts bytes to a signed URL, which needs no login, and decodes the answer.
func (b *Backend) Upload(signed, mimeType string, content []byte, result any) {
	status, answer := b.send(http.MethodPut, signed, mimeType, content)
	if status >= 300 {
		b.stage.fail("PUT %s: %d %s", signed, status, answer)
	}
	b.stage.decode(answer, result)
}

// Download gets the bytes that a signed URL stands for.
func (b *Backend) Download(signed string) []byte {
	status, content := b.send(http.MethodGet, signed, "", nil)
	if status >= 300 {
		b.stage.fail("GET %s: %d %s", signed, status, content)
	}
	return content
}

// Refused makes a request that must be refused with the code.
func (b *Backend) Refused(method, path string, body any, code string) Refusal {
	status, answer := b.do(method, path, body)
	var r Refusal
	b.stage.decode(answer, &r)
	b.stage.Check(status >= 400 && status == r.Status && r.Code == code, "refused: %d %s, number %d: %s", r.Status, r.Code, r.Number, r.Detail)
	return r
}

func (b *Backend) do(method, path string, body any) (int, []byte) {
	if body == nil {
		return b.send(method, path, "", nil)
	}
	return b.send(method, path, "application/json", b.stage.encode(body))
}

// send makes a request to a path of the API, or without authorization to a whole URL.
func (b *Backend) send(method, where, mimeType string, payload []byte) (int, []byte) {
	s := b.stage
	s.shown(b.name, "▶", method+" "+where, payload)
	path, ours := where, strings.HasPrefix(where, "/")
	if ours {
		where = s.gateway.HTTP + path
	}
	req, err := http.NewRequestWithContext(s.ctx, method, where, bytes.NewReader(payload))
	if err != nil {
		s.fail("%v", err)
	}
	if ours && b.bear != "" {
		req.Header.Set("Authorization", "Bearer "+b.bear)
	}
	if mimeType != "" {
		req.Header.Set("Content-Type", mimeType)
	}
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		s.fail("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		s.fail("%s %s: %v", method, path, err)
	}
	s.shown(b.name, "◀", res.Status, bytes.TrimSpace(answer))
	return res.StatusCode, answer
}
