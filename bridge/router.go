package bridge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/parley-im/parley/domain"
)

// visit is what the log wants to know of a request, filled in along its way.
type visit struct {
	id        string
	principal domain.Principal
}

type visitKey struct{}

// requestID gives the id of the request that ctx belongs to.
func requestID(ctx context.Context) string {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		return v.id
	}
	return ""
}

// note tells the log who makes the request.
func note(ctx context.Context, p domain.Principal) {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		v.principal = p
	}
}

// router is the outermost handler: it counts and logs every request, gives it an id, answers for panics and CORS, and
// sends it to its route.
func (a *api) router() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := a.Now()
		v := &visit{id: wantedID(r.Header)}
		r = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
		answer := &response{ResponseWriter: w}
		a.metrics.inFlight.Inc()
		defer func() {
			a.metrics.inFlight.Dec()
			thrown := recover()
			if thrown != nil {
				a.rescue(answer, r, thrown)
			}
			a.record(r, v, answer, a.Now().Sub(began))
			if thrown != nil && answer.torn {
				// An answer that broke off must not look complete.
				panic(http.ErrAbortHandler)
			}
		}()

		h := answer.Header()
		h.Set("X-Request-Id", v.id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		if a.cors(answer, r) {
			return
		}
		if !isClean(r.URL.Path) {
			// The mux would redirect; a client that builds such paths has a bug to find.
			problemOfStatus(http.StatusNotFound, "no such path").write(answer)
			return
		}
		a.mux.ServeHTTP(answer, r)
	})
}

// isClean reports whether a path has no empty, . or .. elements; a slash at its end is fine.
func isClean(p string) bool {
	clean := path.Clean(p)
	return p == clean || p == clean+"/"
}

// wantedID gives the request id that the client wants, if it is a decent one, or a new one.
func wantedID(h http.Header) string {
	id := h.Get("X-Request-Id")
	if id != "" && len(id) <= 64 && strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") == "" {
		return id
	}
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// rescue answers for a handler that panicked.
func (a *api) rescue(w *response, r *http.Request, thrown any) {
	w.torn = w.status != 0
	if err, _ := thrown.(error); errors.Is(err, http.ErrAbortHandler) || r.Context().Err() != nil {
		w.torn = true
		return // the client has gone: that is what huma panics about when it cannot write
	}
	a.Logger.ErrorContext(r.Context(), "request panicked", "request_id", requestID(r.Context()), "route", routeOf(r),
		"panic", thrown, "stack", string(debug.Stack()))
	if !w.torn {
		problemOfStatus(http.StatusInternalServerError, "").write(w)
	}
}

// record counts and logs a request: which route, by whom, and how it went, but nothing of what it said.
func (a *api) record(r *http.Request, v *visit, w *response, took time.Duration) {
	route := routeOf(r)
	a.metrics.observe(route, r.Method, w.status, took)
	level := slog.LevelInfo
	switch {
	case w.status >= 500:
		level = slog.LevelWarn
	case route == "/livez" || route == "/readyz":
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{
		slog.String("request_id", v.id), slog.String("method", r.Method), slog.String("route", route),
		slog.Int("status", w.status), slog.Duration("took", took), slog.Int64("bytes", w.bytes),
		slog.String("remote", r.RemoteAddr),
	}
	switch {
	case v.principal.Admin:
		attrs = append(attrs, slog.Bool("admin", true))
	case v.principal.Service != 0:
		attrs = append(attrs, slog.Int64("service", int64(v.principal.Service)))
	case v.principal.User != 0:
		attrs = append(attrs, slog.Int64("user", int64(v.principal.User)))
	}
	a.Logger.LogAttrs(r.Context(), level, "request", attrs...)
}

// routeOf gives the pattern of the route that took the request, without its method.
func routeOf(r *http.Request) string {
	_, pattern, ok := strings.Cut(r.Pattern, " ")
	if !ok {
		return "other"
	}
	return pattern
}

// fallback answers for paths that no route has, and for methods that a path does not have.
func (a *api) fallback(w http.ResponseWriter, r *http.Request) {
	allowed := a.allowed(r)
	switch {
	case len(allowed) == 0:
		problemOfStatus(http.StatusNotFound, "no such path").write(w)
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		problemOfStatus(http.StatusMethodNotAllowed, "the path knows only "+strings.Join(allowed, ", ")).write(w)
	}
}

// allowed gives the methods that the request's path has.
func (a *api) allowed(r *http.Request) []string {
	var methods []string
	for _, m := range [...]string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	} {
		if _, pattern := a.mux.Handler(&http.Request{Method: m, URL: r.URL, Host: r.Host}); pattern != "/" && pattern != "" {
			methods = append(methods, m)
		}
	}
	if len(methods) > 0 {
		methods = append(methods, http.MethodOptions)
	}
	return methods
}

// cors adds the headers that let a web page of an allowed origin use the API, and answers its preflight requests; it
// reports whether it did.
func (a *api) cors(w http.ResponseWriter, r *http.Request) bool {
	if len(a.Origins) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || (!slices.Contains(a.Origins, origin) && !slices.Contains(a.Origins, "*")) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "Accept-Ranges, Allow, Content-Disposition, Content-Range, Etag, Idempotency-Replayed, Retry-After, Upload-Length, Upload-Offset, X-Request-Id")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Range, Content-Type, Idempotency-Key, If-Range, Range, X-Request-Id")
	h.Set("Access-Control-Max-Age", "7200")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// response notes what is answered.
type response struct {
	http.ResponseWriter
	status int
	bytes  int64
	// torn is set when the answer broke off.
	torn bool
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
