package bridge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/parley-im/parley/domain"
)

// around does what all routes have in common, in this order: who is it, the body within its limit, the
// Idempotency-Key; then next.
func (a *api) around(rt route, hc huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(hc)
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()

	var c caller
	if !rt.public {
		var err error
		if c, err = a.identify(ctx, r); err != nil {
			a.refuse(ctx, err).write(w)
			return
		}
		note(ctx, c.principal)
	}
	body, refusal := readBody(rt, r, w)
	if refusal != nil {
		refusal.write(w)
		return
	}
	if rt.creates {
		if c.key, refusal = idempotencyKey(r.Header); refusal != nil {
			refusal.write(w)
			return
		}
	}

	if body != nil && hc.Operation().RequestBody == nil {
		if err := decode(body, &struct{}{}); err != nil {
			problem(http.StatusBadRequest, domain.InvalidRequest, err.Error()).write(w)
			return
		}
	}
	if c.key == "" {
		serve(ctx, r, w, c, body, hc, next)
		return
	}
	a.once(r, w, rt, c, body, func(w http.ResponseWriter) {
		// Once begun, the request goes on without its client: the answer must be there when it asks again.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		serve(ctx, r, w, c, body, hc, next)
	})
}

// serve passes a request on to huma and its handler.
func serve(ctx context.Context, r *http.Request, w http.ResponseWriter, c caller, body []byte, hc huma.Context, next func(huma.Context)) {
	req := r.WithContext(context.WithValue(ctx, callerKey{}, c))
	req.Body = io.NopCloser(bytes.NewReader(body))
	if body != nil {
		req.Header = r.Header.Clone()
		req.Header.Set("Content-Type", "application/json") // however the client spelt it
	}
	next(&exchange{inner: humago.NewContext(hc.Operation(), req, w)})
}

// identify proves who makes a request.
func (a *api) identify(ctx context.Context, r *http.Request) (caller, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return caller{}, domain.Errorf(domain.NotAuthenticated, "an Authorization header with a bearer token is missing")
	}
	token, ok := parseBearer(values[0])
	if !ok || len(values) > 1 {
		p := problemOf(domain.Errorf(domain.NotAuthenticated, "the Authorization header has the form Bearer <token>"))
		p.challenge += `, error="invalid_request"`
		return caller{}, p
	}
	p, err := a.Accounts.Bearer(ctx, token)
	if domain.CodeOf(err) == domain.NotAuthenticated {
		refusal := problemOf(domain.AsError(err))
		refusal.challenge += `, error="invalid_token"`
		return caller{}, refusal
	}
	if err != nil {
		return caller{}, err
	}
	return caller{principal: p, token: token}, nil
}

// maxBearer bounds a bearer token, in bytes.
const maxBearer = 8 << 10

// parseBearer takes the token out of an Authorization header (RFC 6750, section 2.1). The admin key is the
// operator's choice, so any visible characters will do.
func parseBearer(header string) (token string, ok bool) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.Trim(token, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxBearer {
		return "", false
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c == 0x7f {
			return "", false
		}
	}
	return token, true
}

// readBody reads a request's body within the route's limit. It is nil when there is none, or none is looked at.
func readBody(rt route, r *http.Request, w http.ResponseWriter) ([]byte, *Problem) {
	if !rt.takesBody() {
		return nil, nil
	}
	limit := rt.limit
	if limit == 0 {
		limit = maxBody
	}
	tooLarge := problemOf(domain.Errorf(domain.MessageTooLarge, "the request body is larger than %d bytes", limit))
	if r.ContentLength > int64(limit) {
		// It is not read: the server closes the connection after the answer.
		w.Header().Set("Connection", "close")
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(innermost(w), r.Body, int64(limit)))
	var (
		over *http.MaxBytesError
		slow net.Error
	)
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case errors.As(err, &slow) && slow.Timeout():
		return nil, problem(http.StatusRequestTimeout, domain.InvalidRequest, "the request body took too long")
	case err != nil:
		return nil, problem(http.StatusBadRequest, domain.InvalidRequest, "the request body ends too early")
	case len(body) == 0:
		return nil, nil
	}
	return body, checkType(r.Header)
}

// checkType refuses bodies that are not JSON. One without a type counts as JSON.
func checkType(h http.Header) *Problem {
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return problem(http.StatusUnsupportedMediaType, domain.InvalidRequest, "request bodies must not be compressed")
	}
	ct := h.Get("Content-Type")
	if ct == "" {
		return nil
	}
	media, params, err := mime.ParseMediaType(ct)
	charset, given := params["charset"]
	if err != nil || (media != "application/json" && (!strings.HasPrefix(media, "application/") || !strings.HasSuffix(media, "+json"))) ||
		(given && !strings.EqualFold(charset, "utf-8")) {
		return problem(http.StatusUnsupportedMediaType, domain.InvalidRequest, "the request body must be application/json in UTF-8")
	}
	return nil
}

// innermost gives the server's own writer, which closes the connection of a body that is too large.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = u.Unwrap()
	}
}
