package bridge

import (
	"encoding/json"
	"net/http"
	"slices"

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
		{Name: tagLogin}, {Name: tagUsers}, {Name: tagConversations}, {Name: tagAccounts}, {Name: tagOperation},
	}
	for _, s := range doc.Components.Schemas.Map() {
		settle(s)
	}
	if user := doc.Components.Schemas.Map()["User"]; user != nil {
		// What only the user itself sees is an embedded pointer, whose fields huma takes for always present.
		user.Required = slices.DeleteFunc(user.Required, func(name string) bool {
			return name == "conversationsList" || name == "leaveConversationList" || name == "notifications"
		})
	}
	spec, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	page, policy, err := docsPage(doc)
	if err != nil {
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

// settle corrects what huma cannot know: arrays of ours are never null.
func settle(s *huma.Schema) {
	if s == nil {
		return
	}
	if s.Type == huma.TypeArray {
		s.Nullable = false
		settle(s.Items)
	}
	for _, p := range s.Properties {
		settle(p)
	}
}
