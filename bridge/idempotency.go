package bridge

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"sync"

	"github.com/parley-im/parley/domain"
)

// maxKey is the most bytes of an Idempotency-Key.
const maxKey = 255

// idempotencyKey reads the key of a request; empty: there is none.
func idempotencyKey(h http.Header) (string, *Problem) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	bad := len(values) > 1 || key == "" || len(key) > maxKey
	for _, c := range []byte(key) {
		bad = bad || c < ' ' || c > '~'
	}
	if bad {
		return "", problem(http.StatusBadRequest, domain.InvalidRequest, "an Idempotency-Key is 1 to 255 visible ASCII characters")
	}
	return key, nil
}

// flights are the requests with an Idempotency-Key that are being answered right now.
type flights struct {
	mu  *sync.Mutex // guards air
	air map[string]*flight
}

// flight is one of them. The others with its key wait until done is closed, and then take its answer.
type flight struct {
	fingerprint [32]byte
	done        chan struct{}
	// The following are set before done is closed. kept: the answer holds for good; else the next one tries anew.
	kept   bool
	answer domain.Remembered
}

func newFlights() flights {
	return flights{mu: new(sync.Mutex), air: make(map[string]*flight)}
}

// join gives the flight of the name, and whether it is a new one that the caller must land.
func (f flights) join(name string, fingerprint [32]byte) (fl *flight, own bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.air[name]; fl != nil {
		return fl, false
	}
	fl = &flight{fingerprint: fingerprint, done: make(chan struct{})}
	f.air[name] = fl
	return fl, true
}

func (f flights) land(name string, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.air, name)
	close(fl.done)
}

// once runs a request unless its key was used before: then it answers as the first time. Requests with one key run
// one after the other; a request that differs from the first with its key is refused. run may be called once at most.
func (a *api) once(r *http.Request, w http.ResponseWriter, rt route, c caller, body []byte, run func(http.ResponseWriter)) {
	// Every principal has keys of its own, and every route: two users may use the same.
	scope := rt.method + " " + rt.path + " " + strconv.FormatInt(int64(c.principal.Sender()), 10)
	name := scope + " " + c.key
	fingerprint := fingerprintOf(r, c, body)
	for {
		fl, own := a.flights.join(name, fingerprint)
		if own {
			a.fly(r, w, rt, c, scope, name, fl, run)
			return
		}
		if fl.fingerprint != fingerprint {
			errOtherRequest().write(w)
			return
		}
		select {
		case <-fl.done:
			if fl.kept {
				replay(w, fl.answer)
				return
			}
		case <-r.Context().Done():
			a.refuse(r.Context(), r.Context().Err()).write(w)
			return
		}
	}
}

// fly answers the one request of its key that runs.
func (a *api) fly(r *http.Request, w http.ResponseWriter, rt route, c caller, scope, name string, fl *flight, run func(http.ResponseWriter)) {
	defer a.flights.land(name, fl)
	ctx := r.Context()
	s := sealer{on: rt.secret, token: c.token, scope: scope, key: c.key}
	known, found, err := a.Memory.Recall(ctx, scope, c.key)
	if err == nil && found && known.Fingerprint == fl.fingerprint {
		if known.Body, err = s.open(known.Body); err == nil && rt.shows && known.Status < 300 {
			known.Body, err = a.shown(ctx, c.principal, known.Body)
		}
	}
	switch {
	case err != nil:
		a.refuse(ctx, err).write(w)
		return
	case found && known.Fingerprint != fl.fingerprint:
		errOtherRequest().write(w)
		return
	case found:
		fl.kept, fl.answer = true, known
		replay(w, known)
		return
	}

	rec := &recorder{header: w.Header(), status: http.StatusOK}
	run(rec)
	first := domain.Remembered{
		Fingerprint: fl.fingerprint, Status: rec.status, ContentType: rec.header.Get("Content-Type"), Body: rec.body.Bytes(),
	}
	if !final(rec.status) {
		send(w, first)
		return
	}
	fl.kept, fl.answer = true, first
	memory := first
	if rt.shows && first.Status < 300 {
		memory.Body, err = placeOf(first.Body)
	}
	var kept domain.Remembered
	if err == nil {
		kept, err = a.keep(ctx, s, memory)
	}
	if err != nil {
		// It was done all the same, and the client must hear of it.
		a.Logger.WarnContext(ctx, "an answer could not be remembered", "request_id", requestID(ctx), "route", rt.path, "error", err)
		send(w, first)
		return
	}
	if kept.Fingerprint == first.Fingerprint && !bytes.Equal(kept.Body, memory.Body) {
		// Another node was faster with the same request.
		if rt.shows && kept.Status < 300 {
			if kept.Body, err = a.shown(ctx, c.principal, kept.Body); err != nil {
				kept.Body = first.Body
			}
		}
		fl.answer = kept
		replay(w, kept)
		return
	}
	send(w, first)
}

// keep remembers an answer and gives what is remembered.
func (a *api) keep(ctx context.Context, s sealer, first domain.Remembered) (domain.Remembered, error) {
	sealed := first
	var err error
	if sealed.Body, err = s.seal(first.Body); err != nil {
		return first, err
	}
	// The client may hang up now; what it will ask for again must be there.
	kept, err := a.Memory.Remember(context.WithoutCancel(ctx), s.scope, s.key, sealed, a.Now().UnixMilli())
	if err != nil || kept.Fingerprint != first.Fingerprint {
		return kept, err
	}
	kept.Body, err = s.open(kept.Body)
	return kept, err
}

// final reports whether an answer would be the same another time: failures and refusals for the moment would not.
func final(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return status < 500
}

func errOtherRequest() *Problem {
	return problem(http.StatusUnprocessableEntity, domain.InvalidRequest, "this Idempotency-Key was used for another request")
}

// fingerprintOf tells requests with one key apart. A backend's may hold a password, which the store must not have in a form
// that can be guessed fast: its API key, of which the store has a digest only, is a part of it. A user's tokens change, and
// its requests hold none.
func fingerprintOf(r *http.Request, c caller, body []byte) [32]byte {
	h := sha256.New()
	if c.principal.IsBackend() {
		h = hmac.New(sha256.New, []byte(c.token))
	}
	for _, s := range [...]string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	h.Write(body)
	return [32]byte(h.Sum(nil))
}

// replay answers as the first time.
func replay(w http.ResponseWriter, r domain.Remembered) {
	w.Header().Set("Idempotency-Replayed", "true")
	send(w, r)
}

func send(w http.ResponseWriter, r domain.Remembered) {
	if r.ContentType != "" {
		w.Header().Set("Content-Type", r.ContentType)
	}
	w.WriteHeader(r.Status)
	// The client may have gone; its answer is kept for the next time.
	_, _ = w.Write(r.Body)
}

// recorder catches an answer. Headers go straight to the real one.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// messageID makes a message's own id of an Idempotency-Key: the store knows it then, even if the gateway dies before
// the answer could be remembered.
func messageID(key string) string {
	const longest = 64 // characters of a message id
	if len(key) <= longest {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
