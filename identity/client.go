package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// client makes the requests of this package: with a deadline, a limit on what is read, verified TLS, and no redirects. Who
// may say where keys are, or where passwords go, is the configuration alone.
type client struct {
	http    *http.Client
	timeout time.Duration
}

func newClient(roots *x509.CertPool, timeout time.Duration, parallel int) *client {
	transport := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		// As many as are asked at a time: each login would otherwise pay for a handshake.
		MaxIdleConnsPerHost: parallel, MaxConnsPerHost: parallel, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &client{timeout: timeout, http: &http.Client{
		Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

var errTooLarge = errors.New("the answer is too large")

// do makes a request, and reads an answer of at most so many bytes.
func (c *client) do(ctx context.Context, method, address, bearer string, body []byte, most int64) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "parley")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := c.http.Do(req)
	if err != nil {
		// Without the URL, in which operators may have put a secret.
		var about *url.Error
		if errors.As(err, &about) {
			err = about.Err
		}
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(res.Body, most+1))
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("reading the answer: %w", err)
	case int64(len(answer)) > most:
		return 0, nil, errTooLarge
	}
	return res.StatusCode, answer, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// hostOf gives the part of a URL that may be logged.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}
