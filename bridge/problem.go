package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/parley-im/parley/domain"
)

// Problem is a refusal as HTTP shows it: RFC 9457 with the code and number of protocol.md section 7. It is the body
// of every answer with a status from 400 on, whoever refused.
type Problem struct { //nolint:errname // the name that RFC 9457 and the OpenAPI document have for it
	Type         string               `json:"type" format:"uri-reference" doc:"Where the code is described."`
	Title        string               `json:"title" doc:"The code in words."`
	Code         domain.Code          `json:"code" doc:"Name of the refusal; stable, made for programs."`
	Number       int                  `json:"number" doc:"Number of the refusal in the systems that clients come from."`
	Detail       string               `json:"detail,omitempty" doc:"What was wrong, for people."`
	Status       int                  `json:"status" doc:"The HTTP status."`
	Conversation *domain.Conversation `json:"conversation,omitempty" doc:"The existing conversation, with distinct-conflict."`

	challenge string
}

const problemType = "application/problem+json"

// problemOf gives the problem of a refusal.
func problemOf(e *domain.Error) *Problem {
	p := &Problem{
		Type: docsPath + "#" + string(e.Code), Title: title(e.Code), Code: e.Code, Number: e.Number, Detail: e.Detail,
		Status: e.Status, Conversation: e.Conversation,
	}
	if e.Code == domain.NotAuthenticated {
		p.challenge = `Bearer realm="parley"`
	}
	return p
}

// problem makes a problem of a code with a status that is not the code's own: HTTP knows refusals that MQTT does not.
func problem(status int, code domain.Code, detail string) *Problem {
	p := problemOf(domain.Errorf(code, "%s", detail))
	p.Status = status
	return p
}

// problemOfStatus makes a problem of a refusal by the HTTP machinery itself.
func problemOfStatus(status int, detail string) *Problem {
	switch status {
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return problem(status, domain.UnknownCommand, detail)
	case http.StatusUnauthorized:
		return problem(status, domain.NotAuthenticated, detail)
	case http.StatusRequestEntityTooLarge:
		return problem(status, domain.MessageTooLarge, detail)
	case http.StatusUnprocessableEntity:
		// huma's status for what does not fit the schema.
		return problem(http.StatusBadRequest, domain.InvalidRequest, detail)
	}
	if status >= 500 {
		return problem(status, domain.Internal, "something went wrong inside Parley")
	}
	return problem(status, domain.InvalidRequest, detail)
}

// title gives a code in words.
func title(c domain.Code) string {
	s := strings.ReplaceAll(string(c), "-", " ")
	return strings.ToUpper(s[:1]) + s[1:]
}

// Error implements error.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemType }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	h := make(http.Header)
	if p.challenge != "" {
		h.Set("WWW-Authenticate", p.challenge)
	}
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	return h
}

// write answers with the problem.
func (p *Problem) write(w http.ResponseWriter) {
	h := w.Header()
	maps.Copy(h, p.GetHeaders())
	h.Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	// The client may have gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(p)
}

// refuse turns what a handler failed with into a problem, and logs what is our fault.
func (a *api) refuse(ctx context.Context, err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = domain.Because(domain.Unavailable, err, "the request took too long")
	}
	e := domain.AsError(err)
	if e.Code == domain.Internal {
		a.Logger.ErrorContext(ctx, "request failed", "request_id", requestID(ctx), "error", e.Error())
	}
	return problemOf(e)
}

// problems puts a problem in the place of huma's own error.
func problems(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := problemOfStatus(m.Status, detailOf(m))
	if x, ok := ctx.(*exchange); ok {
		x.status = p.Status
	}
	return p, nil
}

// detailOf gives what huma found wrong, in a sentence.
func detailOf(m *huma.ErrorModel) string {
	const most = 3
	var found []string
	for _, e := range m.Errors {
		if e == nil || len(found) == most {
			continue
		}
		s := e.Message
		if loc := strings.TrimPrefix(e.Location, "body"); loc != "" {
			s = loc + ": " + s
		}
		found = append(found, s)
	}
	if len(found) == 0 {
		return m.Detail
	}
	return strings.Join(found, "; ")
}

// exchange is huma's view of a request whose status our problem decides.
type exchange struct {
	inner
	status int
}

// inner lets an exchange embed the context although it has a method of the same name.
type inner huma.Context

// SetStatus implements huma.Context.
func (x *exchange) SetStatus(status int) {
	if x.status != 0 {
		status = x.status
	}
	x.inner.SetStatus(status)
}

// Unwrap lets the adapter find its own context.
func (x *exchange) Unwrap() huma.Context { return x.inner }
