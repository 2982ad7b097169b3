package bridge

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

const (
	specPath = "/openapi.json"
	docsPath = "/docs"
)

// about introduces the API in the OpenAPI document.
const about = "Parley's commands, logins and administration over HTTP. Times are milliseconds since 1970. Absent response " +
	"fields mean \"none\"; unknown request fields are an error. Every refusal is a problem (RFC 9457) with a code that " +
	"never changes. A POST that creates takes an Idempotency-Key and is then safe to repeat."

// describe completes the OpenAPI document and serves it and the page that shows it. It comes after all routes.
func (a *api) describe() error {
	doc := a.huma.OpenAPI()
	doc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"bearer": {
		Type: "http", Scheme: "bearer",
		Description: "An API key of a service, an access token of a user, or the admin key.",
	}}
	doc.Tags = []*huma.Tag{
		{Name: tagLogin}, {Name: tagUsers}, {Name: tagConversations}, {Name: tagContent}, {Name: tagAnnouncements}, {Name: tagAccounts}, {Name: tagOperation},
	}
	tidy(doc)
	spec, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	page, policy, err := docsPage(doc)
	if err != nil {
		return err
	}
	if err := a.serveAsyncAPI(); err != nil {
		return err
	}
	a.mux.HandleFunc("GET "+specPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(spec) // a client that has gone needs no document
	})
	a.mux.HandleFunc("GET "+docsPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	return nil
}

// tidy corrects what huma cannot know of our types.
func tidy(doc *huma.OpenAPI) {
	schemas := doc.Components.Schemas.Map()
	embeddedMayMiss(schemas)
	asked, answered := make(map[string]bool), make(map[string]bool)
	for _, item := range doc.Paths {
		for _, op := range operations(item) {
			if op.RequestBody != nil {
				for _, m := range op.RequestBody.Content {
					reach(schemas, m.Schema, asked)
				}
			}
			if r := op.Responses["204"]; r != nil {
				r.Content = nil // huma takes the body that other routes have for given
			}
			for _, r := range op.Responses {
				for _, m := range r.Content {
					reach(schemas, m.Schema, answered)
					neverNull(m.Schema)
				}
			}
		}
	}
	for name, s := range schemas {
		neverNull(s)
		switch {
		case asked[name]:
		case answered[name]:
			// Answers may grow; requests are checked for fields that nobody knows.
			s.AdditionalProperties = nil
		default:
			delete(schemas, name) // huma's own errors, which nobody gets to see
		}
	}
}

// operations gives the operations of a path.
func operations(item *huma.PathItem) []*huma.Operation {
	all := []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete}
	return slices.DeleteFunc(all, func(op *huma.Operation) bool { return op == nil })
}

// reach notes the names of all schemas that a schema is made of.
func reach(schemas map[string]*huma.Schema, s *huma.Schema, names map[string]bool) {
	if s == nil {
		return
	}
	if s.Ref != "" {
		name := refName(s.Ref)
		if !names[name] {
			names[name] = true
			reach(schemas, schemas[name], names)
		}
	}
	reach(schemas, s.Items, names)
	for _, p := range s.Properties {
		reach(schemas, p, names)
	}
}

func refName(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// neverNull says so of the arrays in a schema: in ours, none is written as an empty one or left out.
func neverNull(s *huma.Schema) {
	if s == nil {
		return
	}
	if s.Type == huma.TypeArray {
		s.Nullable = false
		neverNull(s.Items)
	}
	for _, p := range s.Properties {
		neverNull(p)
	}
}
