package bridge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/parley-im/parley/domain"
)

// mostRanges is how many ranges of content one request may name.
const mostRanges = 8

const tagContent = "Content"

// Contents keeps external content. Any goroutine may call it; refusals are *domain.Error.
type Contents interface {
	// Create announces content that p will upload.
	Create(ctx context.Context, p domain.Principal, r domain.ContentRequest) (domain.ExternalContent, error)
	Transfers
}

// Transfers move the bytes of external content, for whoever has a signed URL.
type Transfers interface {
	// VerifyDownload and VerifyUpload report why a URL with these parameters is no good: access-denied.
	VerifyDownload(id domain.ContentID, expires, signature string) error
	VerifyUpload(id domain.ContentID, expires, signature string) error
	// State gives how far an upload has come.
	State(ctx context.Context, id domain.ContentID) (domain.ExternalContent, error)
	// Receive takes bytes of an upload and gives what the content is then, with an error as far as it is known. Closing body
	// ends a Read of it that waits.
	Receive(ctx context.Context, id domain.ContentID, p domain.ContentPiece, body io.ReadCloser) (domain.ExternalContent, error)
	// Reader gives complete content; the caller closes it.
	Reader(ctx context.Context, id domain.ContentID) (domain.ExternalContent, io.ReadSeekCloser, error)
}

type createContentRequest struct {
	Body domain.ContentRequest
}

type contentPath struct {
	ID string `path:"id" doc:"The content."`
}

// Headers that tell how far an upload has come, as in the protocol of resumable uploads that most clients know.
const (
	uploadOffset = "Upload-Offset"
	uploadLength = "Upload-Length"
)

func (a *api) contentRoutes() {
	if a.Contents == nil {
		return
	}
	answer := a.result("content")
	handle(a, route{
		method: http.MethodPost, path: "/v1/content", id: "createContent", tag: tagContent, creates: true, secret: true,
		status: http.StatusCreated, summary: "Announce an upload",
		description: "For users and services. The answer has the URL to which the bytes go by PUT; parts of messages name the " +
			"content by its id once it is complete.",
		result: answer, refusals: []domain.Code{domain.AccessDenied, domain.MessageTooLarge},
	}, func(ctx context.Context, c caller, in *createContentRequest) (reply, error) {
		x, err := a.Contents.Create(ctx, c.principal, in.Body)
		return reply{Body: domain.Result{External: &x}}, err
	})
	handle(a, route{
		method: http.MethodGet, path: "/v1/content/{id}", id: "getContent", tag: tagContent, status: http.StatusOK,
		summary: "Get a fresh URL of content",
		description: "For its owner, the backends of its account tree, and those who may read a message that has it. While the " +
			"upload goes on its owner gets the URL for that, and how far it has come.",
		result: answer, refusals: []domain.Code{domain.NotFound},
	}, func(ctx context.Context, c caller, in *contentPath) (reply, error) {
		return a.run(ctx, c.principal, &domain.GetContent{Content: domain.ContentID(in.ID)})
	})
	const path = "/v1/content/{id}/data"
	a.mux.HandleFunc("GET "+path, a.download) // and HEAD
	a.mux.HandleFunc("PUT "+path, a.upload)
	a.describeTransfers(path, answer)
}

// describeTransfers describes the routes that huma does not serve, since it would read bodies whole.
func (a *api) describeTransfers(path string, answer *huma.Schema) {
	params := []*huma.Param{
		{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}, Description: "The content."},
		{Name: "expires", In: "query", Required: true, Schema: &huma.Schema{Type: huma.TypeInteger, Format: "int64"}, Description: "Part of the signed URL."},
		{Name: "signature", In: "query", Required: true, Schema: &huma.Schema{Type: huma.TypeString}, Description: "Part of the signed URL."},
	}
	header := func(name, about string) *huma.Param {
		return &huma.Param{Name: name, In: "header", Schema: &huma.Schema{Type: huma.TypeString}, Description: about}
	}
	bytes := map[string]*huma.MediaType{"*/*": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	refusals := func(codes []domain.Code, also int, own map[string]*huma.Response) map[string]*huma.Response {
		problems := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "")
		by := map[int][]string{also: {string(domain.InvalidRequest)}}
		for _, code := range codes {
			by[code.Info().Status] = append(by[code.Info().Status], string(code))
		}
		for status, codes := range by { // each has a place of its own
			own[strconv.Itoa(status)] = &huma.Response{
				Description: http.StatusText(status) + ": " + strings.Join(codes, ", "),
				Content:     map[string]*huma.MediaType{problemType: {Schema: problems}},
			}
		}
		return own
	}
	common := []domain.Code{domain.AccessDenied, domain.NotFound, domain.InvalidRequest, domain.Unavailable, domain.Internal}
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "downloadContent", Method: http.MethodGet, Path: path, Tags: []string{tagContent}, Summary: "Download content",
		Description: "With a signed URL, by whoever has it; ranges are served, and HEAD.", Security: []map[string][]string{},
		Parameters: append(slices.Clone(params), header("Range", "The bytes wanted.")),
		Responses: refusals(common, http.StatusRequestedRangeNotSatisfiable, map[string]*huma.Response{
			"200": {Description: "OK", Content: bytes}, "206": {Description: "A range", Content: bytes},
			"304": {Description: "Not modified"},
		}),
	})
	json := map[string]*huma.MediaType{"application/json": {Schema: answer}}
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "uploadContent", Method: http.MethodPut, Path: path, Tags: []string{tagContent}, Summary: "Upload content",
		Description: "With a signed URL, by whoever has it: the whole, or with Content-Range or offset what is missing. HEAD tells " +
			"how far the upload has come (Upload-Offset). 200: it is complete; 202: more is missing.",
		Security: []map[string][]string{},
		Parameters: append(
			slices.Clone(params), header("Content-Range", "bytes first-last/size of what the body brings."),
			&huma.Param{Name: "offset", In: "query", Schema: &huma.Schema{Type: huma.TypeInteger, Format: "int64"}, Description: "Instead of Content-Range: where the body begins."},
		),
		RequestBody: &huma.RequestBody{Required: true, Content: bytes},
		Responses: refusals(append(common, domain.AlreadyExists, domain.MessageTooLarge, domain.RateLimited), http.StatusUnsupportedMediaType, map[string]*huma.Response{
			"200": {Description: "OK", Content: json}, "202": {Description: "More is missing", Content: json},
		}),
	})
}

// signedContent gives the content of a signed URL, or the refusal.
func signedContent(r *http.Request, verify func(id domain.ContentID, expires, signature string) error, also ...string) (domain.ContentID, url.Values, error) {
	id, ok := domain.ParseContentID(r.PathValue("id"))
	if !ok {
		return "", nil, domain.Errorf(domain.NotFound, "there is no such content")
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", nil, domain.Errorf(domain.InvalidRequest, "the query is not of the form name=value")
	}
	for name, values := range q {
		if len(values) != 1 || name != "expires" && name != "signature" && !slices.Contains(also, name) {
			return "", nil, domain.Errorf(domain.InvalidRequest, "the query has a parameter that nobody knows, or one twice")
		}
	}
	return id, q, verify(id, q.Get("expires"), q.Get("signature"))
}

// download answers with content, or a range of it. A HEAD by the URL of an upload tells how far that has come.
func (a *api) download(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	id, q, err := signedContent(r, a.Contents.VerifyDownload)
	if err != nil && id != "" && a.Contents.VerifyUpload(id, q.Get("expires"), q.Get("signature")) == nil {
		a.uploadState(w, r, id)
		return
	}
	if err != nil {
		a.refuse(ctx, err).write(w)
		return
	}
	x, src, err := a.Contents.Reader(ctx, id)
	if err != nil {
		a.refuse(ctx, err).write(w)
		return
	}
	defer func() {
		if err := src.Close(); err != nil {
			a.Logger.WarnContext(ctx, "closing content", "error", err)
		}
	}()
	h := w.Header()
	h.Set("Content-Type", x.MimeType)
	h.Set("Content-Disposition", disposition(x.MimeType))
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Etag", `"`+x.SHA256+`"`)
	// It never changes, but may be removed: nobody shared keeps it, and not for longer than the URL is good.
	if until, err := strconv.ParseInt(q.Get("expires"), 10, 64); err == nil {
		h.Set("Cache-Control", "private, max-age="+strconv.FormatInt(max(until-a.Now().UnixMilli(), 0)/1000, 10))
	}
	if strings.Count(r.Header.Get("Range"), ",") >= mostRanges {
		r.Header.Del("Range") // the whole is cheaper than what would be read for so many pieces (RFC 9110, section 14.2)
	}
	http.ServeContent(&patient{ResponseWriter: w, control: http.NewResponseController(w), idle: a.Idle}, r, "", time.Time{}, src)
}

// uploadState answers how far an upload has come.
func (a *api) uploadState(w http.ResponseWriter, r *http.Request, id domain.ContentID) {
	x, err := a.Contents.State(r.Context(), id)
	if err != nil {
		a.refuse(r.Context(), err).write(w)
		return
	}
	came(w, x)
	a.answer(w, r, http.StatusOK, x)
}

func came(w http.ResponseWriter, x domain.ExternalContent) {
	w.Header().Set(uploadOffset, strconv.FormatInt(x.Received, 10))
	w.Header().Set(uploadLength, strconv.FormatInt(x.Size, 10))
}

func (a *api) answer(w http.ResponseWriter, r *http.Request, status int, x domain.ExternalContent) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := huma.DefaultJSONFormat.Marshal(w, domain.Result{External: &x}); err != nil {
		a.Logger.LogAttrs(r.Context(), slog.LevelDebug, "answering", slog.Any("error", err)) // the client has gone
	}
}

// upload takes bytes of content.
func (a *api) upload(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	x, err := a.receive(w, r)
	if x.ID != "" {
		came(w, x)
	}
	var refusal *domain.Error
	var slow interface{ Timeout() bool }
	switch {
	case err == nil && x.Complete:
		a.answer(w, r, http.StatusOK, x)
	case err == nil:
		a.answer(w, r, http.StatusAccepted, x)
	case !errors.As(err, &refusal) && errors.As(err, &slow) && slow.Timeout():
		problem(http.StatusRequestTimeout, domain.InvalidRequest, "no bytes came for too long; what came before is kept").write(w)
	case !errors.As(err, &refusal) && errors.Is(err, io.ErrUnexpectedEOF):
		problem(http.StatusBadRequest, domain.InvalidRequest, "the body ended too early; what came is kept").write(w)
	default:
		a.refuse(ctx, err).write(w)
	}
}

func (a *api) receive(w http.ResponseWriter, r *http.Request) (domain.ExternalContent, error) {
	var none domain.ExternalContent
	id, q, err := signedContent(r, a.Contents.VerifyUpload, "offset")
	if err != nil {
		return none, err
	}
	piece, err := pieceOf(r, q)
	if err != nil {
		return none, err
	}
	x, err := a.Contents.State(r.Context(), id)
	if err != nil {
		return none, err
	}
	if ct := r.Header.Get("Content-Type"); ct != "" && !domain.SameMediaType(ct, x.MimeType) {
		return x, problem(http.StatusUnsupportedMediaType, domain.InvalidRequest, "the content was announced as "+x.MimeType)
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return x, problem(http.StatusUnsupportedMediaType, domain.InvalidRequest, "request bodies must not be compressed")
	}
	control := http.NewResponseController(w)
	x, err = a.Contents.Receive(r.Context(), id, piece, &patientBody{body: r.Body, control: control, idle: a.Idle})
	// However long that took, there is time for the answer.
	return x, errors.Join(err, ignoreUnsupported(control.SetWriteDeadline(time.Now().Add(a.Idle))))
}

var contentRange = regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`)

// pieceOf tells which bytes a request brings.
func pieceOf(r *http.Request, q url.Values) (domain.ContentPiece, error) {
	p := domain.ContentPiece{Length: r.ContentLength}
	header := r.Header.Get("Content-Range")
	if q.Has("offset") {
		at, err := strconv.ParseInt(q.Get("offset"), 10, 64)
		if err != nil || at < 0 || header != "" {
			return p, domain.Errorf(domain.InvalidRequest, "offset is a number, and not given together with Content-Range")
		}
		p.Ranged, p.Offset = true, at
		return p, nil
	}
	if header == "" {
		return p, nil
	}
	m := contentRange.FindStringSubmatch(header)
	if m == nil {
		return p, domain.Errorf(domain.InvalidRequest, "Content-Range has the form bytes first-last/size")
	}
	first, _ := strconv.ParseInt(m[1], 10, 64) // digits, and not too many
	last, _ := strconv.ParseInt(m[2], 10, 64)
	if m[3] != "*" {
		p.Total, _ = strconv.ParseInt(m[3], 10, 64)
	}
	p.Ranged, p.Offset = true, first
	switch n := last - first + 1; {
	case n < 1, p.Total > 0 && last >= p.Total:
		return p, domain.Errorf(domain.InvalidRequest, "Content-Range names no bytes")
	case p.Length >= 0 && p.Length != n:
		return p, domain.Errorf(domain.InvalidRequest, "Content-Range and Content-Length do not agree")
	}
	return p, nil
}

// disposition tells what a browser that is sent to content may do with it: show it itself, or only keep it, since what came
// from a stranger could act in the name of the page's origin.
func disposition(mimeType string) string {
	media, _, err := mime.ParseMediaType(mimeType)
	kind, sub, _ := strings.Cut(media, "/")
	switch {
	case err != nil:
	case kind == "audio", kind == "video", media == "text/plain":
		return "inline"
	case kind == "image" && slices.Contains([]string{"png", "jpeg", "gif", "webp", "avif", "bmp", "heic", "heif"}, sub):
		return "inline"
	}
	return "attachment"
}

// errInterrupted ends a body that somebody else closed.
var errInterrupted = errors.New("the request was interrupted")

// patientBody reads a request's body for as long as bytes come: a phone on a bad line may take its time, but a connection
// that is silent is given up.
type patientBody struct {
	body    io.Reader
	control *http.ResponseController
	idle    time.Duration

	mu     sync.Mutex
	closed bool
}

// Read implements io.Reader.
func (p *patientBody) Read(b []byte) (int, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return 0, errInterrupted
	}
	err := ignoreUnsupported(p.control.SetReadDeadline(time.Now().Add(p.idle)))
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := p.body.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.closed {
			err = errInterrupted
		}
	}
	return n, err
}

// Close implements io.Closer: it ends a Read that waits.
func (p *patientBody) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return ignoreUnsupported(p.control.SetReadDeadline(time.Now()))
}

// patient writes an answer for as long as the client takes it. Where the standard library refuses, it answers with a
// problem.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
	idle    time.Duration
	refused bool
}

// WriteHeader implements http.ResponseWriter.
func (p *patient) WriteHeader(status int) {
	if status < http.StatusBadRequest {
		p.ResponseWriter.WriteHeader(status)
		return
	}
	p.refused = true
	for _, of := range [...]string{"Content-Length", "Content-Disposition", "Cache-Control", "Etag"} {
		p.Header().Del(of)
	}
	detail := "the request has a condition that does not hold"
	if status == http.StatusRequestedRangeNotSatisfiable {
		detail = "the content has no such range"
	}
	problemOfStatus(status, detail).write(p.ResponseWriter)
}

// Write implements io.Writer.
func (p *patient) Write(b []byte) (int, error) {
	if p.refused {
		return len(b), nil // a text that the problem stands for
	}
	if err := ignoreUnsupported(p.control.SetWriteDeadline(time.Now().Add(p.idle))); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// ignoreUnsupported drops the error of a connection that knows no deadlines, such as one that is not there in tests.
func ignoreUnsupported(err error) error {
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}
