package bridge_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/parley-im/parley/domain"
)

// operation is an operation of the OpenAPI document, as far as tests look at it.
type operation struct {
	method, path string

	OperationID string `json:"operationId"`
	Summary     string
	Tags        []string
	Security    []map[string][]string
	Parameters  []struct {
		Name, In, Description string
		Schema                schema
	}
	RequestBody *struct {
		Required bool
		Content  map[string]struct{ Schema schema }
	}
	Responses map[string]struct {
		Description string
		Content     map[string]struct{ Schema schema }
	}
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Items                *schema
	Properties           map[string]schema
	Required             []string
	AdditionalProperties any
}

type document struct {
	OpenAPI string
	Info    struct{ Title, Version string }
	Tags    []struct{ Name string }
	Paths   map[string]map[string]json.RawMessage

	Components struct {
		Schemas         map[string]schema
		SecuritySchemes map[string]map[string]any
	}
}

func documentOf(t testing.TB, w *world) document {
	t.Helper()
	a := w.as("", "GET", "/openapi.json", "")
	a.want(t, "/openapi.json", 200, "")
	var d document
	if err := json.Unmarshal(a.body, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func operationsOf(t testing.TB, w *world) map[string]operation {
	t.Helper()
	all := make(map[string]operation)
	for path, item := range documentOf(t, w).Paths {
		for method, raw := range item {
			var op operation
			if err := json.Unmarshal(raw, &op); err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			op.method, op.path = strings.ToUpper(method), path
			if _, twice := all[op.OperationID]; twice || op.OperationID == "" {
				t.Errorf("%s %s: operationId %q is missing or used twice", method, path, op.OperationID)
			}
			all[op.OperationID] = op
		}
	}
	return all
}

func TestTheDocumentIsWholeAndTrue(t *testing.T) {
	// Clients are generated from it: a reference to nowhere or a missing answer breaks them.
	w := newWorld(t, nil)
	d := documentOf(t, w)
	if !strings.HasPrefix(d.OpenAPI, "3.1.") || d.Info.Title != "Parley" || d.Info.Version != "v1.2.3" {
		t.Errorf("openapi %q, info %+v", d.OpenAPI, d.Info)
	}
	if s := d.Components.SecuritySchemes["bearer"]; s["type"] != "http" || s["scheme"] != "bearer" {
		t.Errorf("security %v", s)
	}
	known := make([]string, len(d.Tags))
	for i, tag := range d.Tags {
		known[i] = tag.Name
	}
	var follow func(where string, s schema)
	follow = func(where string, s schema) {
		if s.Ref != "" {
			name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/")
			if _, exists := d.Components.Schemas[name]; !ok || !exists {
				t.Errorf("%s refers to %s, which is not there", where, s.Ref)
			}
			return
		}
		if types, many := s.Type.([]any); many && slices.Contains(types, any("array")) {
			t.Errorf("%s may be null", where)
		}
		if s.Items != nil {
			follow(where+"[]", *s.Items)
		}
		for name, p := range s.Properties {
			follow(where+"."+name, p)
		}
		for _, name := range s.Required {
			if _, ok := s.Properties[name]; !ok {
				t.Errorf("%s requires %s, which it does not have", where, name)
			}
		}
	}
	for name, s := range d.Components.Schemas {
		follow(name, s)
		// That of what was scheduled and refused is one.
		if strings.HasPrefix(name, "Error") && name != "Error" {
			t.Errorf("%s is described, but no answer is one", name)
		}
	}
	pathParameter := regexp.MustCompile(`\{([^}]+)\}`)
	for id, op := range operationsOf(t, w) {
		if op.Summary == "" || len(op.Tags) != 1 || !slices.Contains(known, op.Tags[0]) {
			t.Errorf("%s: summary %q, tags %v", id, op.Summary, op.Tags)
		}
		for _, m := range pathParameter.FindAllStringSubmatch(op.path, -1) {
			if !slices.ContainsFunc(op.Parameters, func(p struct {
				Name, In, Description string
				Schema                schema
			},
			) bool {
				return p.Name == m[1] && p.In == "path"
			}) {
				t.Errorf("%s: the path parameter %s is not described", id, m[1])
			}
		}
		transfer := strings.HasSuffix(op.path, "/data") // of bytes, by whoever has the URL
		if op.RequestBody != nil && !transfer {
			body, ok := op.RequestBody.Content["application/json"]
			if !ok {
				t.Errorf("%s: no JSON body", id)
			}
			follow(id+" body", body.Schema)
			name := strings.TrimPrefix(body.Schema.Ref, "#/components/schemas/")
			if name != "" && d.Components.Schemas[name].AdditionalProperties != false {
				t.Errorf("%s: the body may have unknown fields", id)
			}
		}
		succeeds := 0
		for status, r := range op.Responses {
			if status[0] == '2' {
				succeeds++
				for _, c := range r.Content {
					follow(id+" "+status, c.Schema)
				}
				if (status == "204") != (len(r.Content) == 0) {
					t.Errorf("%s: %s with %d bodies", id, status, len(r.Content))
				}
				continue
			}
			if c := r.Content["application/problem+json"]; status != "304" && c.Schema.Ref != "#/components/schemas/Problem" {
				t.Errorf("%s: %s is not a problem", id, status)
			}
		}
		if succeeds == 0 {
			t.Errorf("%s never succeeds", id)
		}
		if strings.HasPrefix(op.path, "/v1/") && !transfer {
			for _, status := range []string{"400", "429", "500", "503"} {
				if _, ok := op.Responses[status]; !ok {
					t.Errorf("%s: no answer %s", id, status)
				}
			}
			if _, ok := op.Responses["401"]; !ok && id != "getOneTimeKey" { // which is for everybody
				t.Errorf("%s: no answer 401", id)
			}
		}
	}
	user := d.Components.Schemas["User"]
	if slices.Contains(user.Required, "conversationsList") || !slices.Contains(user.Required, "userId") {
		t.Errorf("a user requires %v", user.Required)
	}
}

func TestTheDocumentHasEachRouteOfTheProtocol(t *testing.T) {
	d := documentOf(t, newWorld(t, nil))
	for path, methods := range map[string]string{
		"/v1/login": "post", "/v1/login/refresh": "post", "/v1/logout": "post",
		"/v1/users": "get post", "/v1/users/{username}": "delete get patch", "/v1/users/{username}/tokens": "delete post",
		"/v1/users/{username}/one-time-secret": "delete get", "/v1/login/one-time-keys": "post",
		"/v1/conversations": "get post", "/v1/conversations/{uuid}": "delete get patch",
		"/v1/conversations/{uuid}/participants": "delete patch post", "/v1/conversations/{uuid}/messages": "post",
		"/v1/conversations/{uuid}/messages/{message}": "delete patch", "/v1/conversations/{uuid}/join": "post",
		"/v1/conversations/{uuid}/leave": "post", "/v1/conversations/{uuid}/mute": "post",
		"/v1/conversations/{uuid}/events": "get",
		"/v1/services":                    "delete get post", "/v1/services/{service}": "delete", "/v1/services/{service}/rotate": "post",
		"/v1/accounts": "delete get post", "/v1/accounts/{account}": "delete get patch", "/v1/accounts/{account}/applications": "get post",
		"/v1/accounts/{account}/applications/{application}": "delete",
		"/v1/content": "post", "/v1/content/{id}": "get", "/v1/content/{id}/data": "get put",
		"/livez": "get", "/readyz": "get", "/version": "get",
	} {
		var got []string
		for m := range d.Paths[path] {
			got = append(got, m)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != methods {
			t.Errorf("%s has %v, want %s", path, got, methods)
		}
	}
}

func TestAnswersAreAmongTheDescribedOnes(t *testing.T) {
	// Whatever the gateway refuses with, the document must have said so.
	w := newWorld(t, nil)
	for id, op := range operationsOf(t, w) {
		if op.method == http.MethodGet || !strings.HasPrefix(op.path, "/v1/") || id == "getOneTimeKey" || id == "uploadContent" { // nobody is refused, or nobody asked
			continue
		}
		for _, code := range []domain.Code{domain.NotAuthenticated, domain.MessageTooLarge, domain.Internal, domain.RateLimited} {
			status := code.Info().Status
			if _, ok := op.Responses[http.StatusText(status)]; ok {
				continue
			}
			found := false
			for s, r := range op.Responses {
				found = found || s[0] != '2' && strings.Contains(r.Description, string(code))
			}
			if !found {
				t.Errorf("%s does not tell of %s", id, code)
			}
		}
	}
}
