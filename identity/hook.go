package identity

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
)

// maxAnswer is the most bytes that a hook may answer.
const maxAnswer = 64 << 10

// HookOptions configure [NewHook].
type HookOptions struct {
	// URL is asked by POST, Token is sent along as a bearer token; empty: none.
	URL, Token string
	// Accounts are those whose users it is asked about; none: all.
	Accounts []string
	// Create makes users that are let in and are not there yet.
	Create bool
	// Timeout bounds one question, default 5 s; Parallel is how many may be asked at a time, default 32.
	Timeout  time.Duration
	Parallel int
	// Roots are the authorities that the server may have its certificate from; nil: the system's.
	Roots      *x509.CertPool
	Logger     *slog.Logger // nil: nothing is logged
	Now        func() time.Time
	Registerer prometheus.Registerer // nil: nothing is registered
}

// Hook asks the operator's own login service. Any goroutine may call it.
type Hook struct {
	o       HookOptions
	client  *client
	metrics *hookMetrics

	mu     sync.Mutex // guards logged: when a failure was, the last time
	logged time.Time
}

// NewHook makes a Hook. It does not ask anything yet. An error means metrics that were registered before, or no URL.
func NewHook(o HookOptions) (*Hook, error) {
	if o.URL == "" {
		return nil, errors.New("identity: a hook needs a URL")
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Parallel == 0 {
		o.Parallel = 32
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	m, err := newHookMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	return &Hook{o: o, client: newClient(o.Roots, o.Timeout, o.Parallel), metrics: m}, nil
}

// Close closes the connections to the service that nobody uses.
func (h *Hook) Close() { h.client.close() }

// Governs reports whether the service is to be asked about a user.
func (h *Hook) Governs(name domain.Username) bool {
	_, _, account := name.Parts()
	return len(h.o.Accounts) == 0 || slices.Contains(h.o.Accounts, account)
}

// question is what the service is asked.
type question struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Device   string `json:"device,omitempty"`
	Address  string `json:"address,omitempty"`
	Protocol string `json:"protocol"`
}

// Ask asks the service about a login. It answers 200 with {"result": "allow" | "deny" | "ignore"}, or 401 or 403, which are
// a deny. Whatever else it does is unavailable: nobody is let in by a mistake.
func (h *Hook) Ask(ctx context.Context, a domain.Attempt) (answer domain.Answer, err error) {
	began := h.o.Now()
	defer func() { h.metrics.observe(answer.Result, h.o.Now().Sub(began), err) }()
	body, err := json.Marshal(question{a.Username, a.Password, a.Device, a.Address, a.Protocol}) //nolint:gosec // to pass it on is what it is for
	if err != nil {
		return domain.Answer{}, err
	}
	answer, err = h.ask(ctx, body)
	if err != nil {
		if ctx.Err() == nil {
			h.complain(err)
		}
		return domain.Answer{}, domain.Because(domain.Unavailable, err, "the login service does not answer")
	}
	answer.Create = h.o.Create
	return answer, nil
}

func (h *Hook) ask(ctx context.Context, body []byte) (domain.Answer, error) {
	status, b, err := h.client.do(ctx, http.MethodPost, h.o.URL, h.o.Token, body, maxAnswer)
	switch {
	case err != nil:
		return domain.Answer{}, err
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return domain.Answer{Result: domain.Denied}, nil
	case status != http.StatusOK:
		return domain.Answer{}, fmt.Errorf("status %d, not 200, 401 or 403", status)
	}
	return parseAnswer(b)
}

// parseAnswer reads the service's answer. Fields that we do not know are its own business.
func parseAnswer(b []byte) (domain.Answer, error) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(b, &fields) != nil {
		return domain.Answer{}, errors.New("the answer is not a JSON object")
	}
	var result, displayName string
	if json.Unmarshal(fields["result"], &result) != nil {
		return domain.Answer{}, errors.New("the answer has no result")
	}
	if raw, ok := fields["displayName"]; ok && json.Unmarshal(raw, &displayName) != nil {
		return domain.Answer{}, errors.New("the answer's displayName is not a text")
	}
	switch result {
	case "allow":
		return domain.Answer{Result: domain.Allowed, DisplayName: displayName}, nil
	case "deny":
		return domain.Answer{Result: domain.Denied}, nil
	case "ignore":
		return domain.Answer{Result: domain.Ignored}, nil
	}
	return domain.Answer{}, errors.New("the answer's result is none of allow, deny, ignore")
}

// complain logs a failure, not more often than every ten seconds: the metrics have them all.
func (h *Hook) complain(err error) {
	now := h.o.Now()
	h.mu.Lock()
	quiet := now.Sub(h.logged) < 10*time.Second
	if !quiet {
		h.logged = now
	}
	h.mu.Unlock()
	if !quiet {
		h.o.Logger.Warn("the login service fails", slog.String("host", hostOf(h.o.URL)), slog.Any("error", err))
	}
}
