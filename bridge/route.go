package bridge

import (
	"context"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/parley-im/parley/domain"
)

// route declares one route: what a client must know of it, and what [api.around] does before its handler.
type route struct {
	method, path string
	id           string // operation id
	tag          string
	summary      string
	description  string
	// public routes are for everybody; all others want a bearer token.
	public bool
	// creates is set where an Idempotency-Key counts; secret where the answer holds one.
	creates, secret bool
	// shows is set where the answer shows a message: an Idempotency-Key remembers where that is, and not what it says.
	shows bool
	// limit is the most bytes of a body; 0: maxBody.
	limit int
	// status is that of success; existing adds 200 for what was there before.
	status   int
	existing bool
	// later adds 202 for what is scheduled.
	later bool
	// result is the schema of a successful answer; nil: there is no body.
	result *huma.Schema
	// refusals are the codes that the route may answer with, besides those that every route may.
	refusals []domain.Code
}

// caller is who makes a request, and by which key it wants to be known when it is repeated.
type caller struct {
	principal domain.Principal
	token     string
	key       string // Idempotency-Key; empty: none
}

// reply is a successful answer: a status (0: the route's) and the body; a nil body is 204.
type reply struct {
	Status int
	Body   any
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// handle adds a route. I is the request as huma reads it: fields with path and query tags, and Body.
func handle[I any](a *api, rt route, f func(ctx context.Context, c caller, in *I) (reply, error)) {
	op := rt.operation(a)
	op.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) { a.around(rt, ctx, next) }}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*reply, error) {
		out, err := f(ctx, callerOf(ctx), in)
		switch {
		case err != nil:
			return nil, a.refuse(ctx, err)
		case out.Body == nil:
			return nil, nil //nolint:nilnil // huma's way of saying "the default status, no body"
		case out.Status == 0:
			out.Status = rt.status
		}
		return &out, nil
	})
}

// operation describes the route for huma and the OpenAPI document.
func (rt route) operation(a *api) huma.Operation {
	op := huma.Operation{
		OperationID: rt.id, Method: rt.method, Path: rt.path, Tags: []string{rt.tag},
		Summary: rt.summary, Description: rt.description,
		DefaultStatus: rt.status, Security: []map[string][]string{},
		// The rules are the domain's: they give the right code where a schema would only say "invalid".
		SkipValidateBody: true,
		// The body was read, within its limit, before huma sees it.
		MaxBodyBytes: -1, BodyReadTimeout: -1,
		RejectUnknownQueryParameters: rt.tag != tagOperation,
		Responses:                    rt.responses(a),
	}
	if !rt.public {
		op.Security = []map[string][]string{{"bearer": {}}}
	}
	if rt.creates {
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: new(maxKey)},
			Description: "Makes the request safe to repeat: the same key with the same request gives the first answer again.",
		})
	}
	return op
}

// responses describes the answers: success, and each status of a refusal with its codes.
func (rt route) responses(a *api) map[string]*huma.Response {
	problems := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "")
	answers := map[string]*huma.Response{strconv.Itoa(rt.status): {Description: http.StatusText(rt.status)}}
	if rt.existing {
		answers["200"] = &huma.Response{Description: "It was there already"}
	}
	if rt.result != nil {
		for _, answer := range answers {
			answer.Content = map[string]*huma.MediaType{"application/json": {Schema: rt.result}}
		}
	}
	if rt.later {
		answers["202"] = &huma.Response{
			Description: "It is scheduled", Content: map[string]*huma.MediaType{"application/json": {Schema: schemaOf[scheduledAnswer](a)}},
		}
	}
	byStatus := make(map[int][]string)
	for _, code := range rt.allRefusals() {
		status := code.Info().Status
		byStatus[status] = append(byStatus[status], string(code))
	}
	if rt.takesBody() {
		byStatus[http.StatusUnsupportedMediaType] = []string{string(domain.InvalidRequest)}
	}
	if rt.creates && !slices.Contains(byStatus[http.StatusUnprocessableEntity], string(domain.InvalidRequest)) {
		byStatus[http.StatusUnprocessableEntity] = append(byStatus[http.StatusUnprocessableEntity], string(domain.InvalidRequest))
	}
	for _, status := range slices.Sorted(maps.Keys(byStatus)) {
		answers[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status) + ": " + strings.Join(byStatus[status], ", "),
			Content:     map[string]*huma.MediaType{problemType: {Schema: problems}},
		}
	}
	return answers
}

func (rt route) takesBody() bool {
	return rt.method != http.MethodGet && rt.method != http.MethodHead
}

// allRefusals are the route's refusals and those that every route like it has.
func (rt route) allRefusals() []domain.Code {
	codes := slices.Clone(rt.refusals)
	if rt.tag == tagOperation {
		return append(codes, domain.Internal)
	}
	codes = append(codes, domain.InvalidRequest, domain.RateLimited, domain.Unavailable, domain.Internal)
	if rt.takesBody() {
		codes = append(codes, domain.MessageTooLarge)
	}
	if !rt.public {
		codes = append(codes, domain.NotAuthenticated)
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

// result describes a [domain.Result] in which only the named fields are set; those with a ? may be missing.
func (a *api) result(fields ...string) *huma.Schema {
	whole := huma.SchemaFromType(a.huma.OpenAPI().Components.Schemas, reflect.TypeFor[domain.Result]())
	return pick(whole, fields...)
}

// pick gives an object schema with the named fields of another; those with a ? may be missing.
func pick(whole *huma.Schema, fields ...string) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeObject, Properties: make(map[string]*huma.Schema)}
	for _, f := range fields {
		name, optional := strings.CutSuffix(f, "?")
		s.Properties[name] = whole.Properties[name]
		if !optional {
			s.Required = append(s.Required, name)
		}
	}
	return s
}

// schemaOf describes a type of the bridge.
func schemaOf[T any](a *api) *huma.Schema {
	return a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
}
