package bridge

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/parley-im/parley/domain"
)

//go:embed docs.html
var docsTemplate string

//go:embed docs.css
var docsStyle string

// docsPage renders the OpenAPI document for people, as one page without scripts that loads nothing, and gives the
// Content-Security-Policy that holds it to that.
func docsPage(doc *huma.OpenAPI) (page []byte, policy string, err error) {
	t, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return nil, "", err
	}
	d := docs{
		Title: doc.Info.Title, Version: doc.Info.Version, About: doc.Info.Description,
		Style: template.CSS(docsStyle), Spec: specPath, //nolint:gosec // our own embedded file
	}
	for _, tag := range doc.Tags {
		d.Tags = append(d.Tags, docsTag{Name: tag.Name, Operations: operationsOf(doc, tag.Name)})
	}
	for _, c := range domain.Codes() {
		info := c.Info()
		d.Codes = append(d.Codes, docsCode{Code: string(c), Number: info.Number, Status: info.Status, Text: http.StatusText(info.Status)})
	}
	schemas := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		d.Schemas = append(d.Schemas, docsSchema{Name: name, Description: schemas[name].Description, Fields: fieldsOf(schemas[name])})
	}
	var b bytes.Buffer
	if err := t.Execute(&b, d); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256([]byte(docsStyle))
	policy = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return b.Bytes(), policy, nil
}

// The following are the document in the form of the page.
type (
	docs struct {
		Title, Version, About, Spec string
		Style                       template.CSS
		Tags                        []docsTag
		Codes                       []docsCode
		Schemas                     []docsSchema
	}
	docsTag struct {
		Name       string
		Operations []docsOperation
	}
	docsOperation struct {
		ID, Method, Path, Summary, Description string
		Public                                 bool
		Parameters                             []docsField
		Body                                   *docsType
		Answers                                []docsAnswer
	}
	docsAnswer struct {
		Status, Description string
		Type                *docsType
	}
	docsCode struct {
		Code, Text     string
		Number, Status int
	}
	docsSchema struct {
		Name, Description string
		Fields            []docsField
	}
	docsField struct {
		Name, In, Description string
		Required              bool
		Type                  docsType
	}
	// docsType is a type in words, with the name of the schema that it refers to, or the fields that it has itself.
	docsType struct {
		Text, Ref string
		Fields    []docsField
	}
)

// operationsOf gives the operations of a tag in the order of their paths.
func operationsOf(doc *huma.OpenAPI, tag string) []docsOperation {
	var found []docsOperation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, op := range operations(doc.Paths[path]) {
			if !slices.Contains(op.Tags, tag) {
				continue
			}
			o := docsOperation{
				ID: op.OperationID, Method: op.Method, Path: path, Summary: op.Summary, Description: op.Description,
				Public: len(op.Security) == 0,
			}
			for _, p := range op.Parameters {
				o.Parameters = append(o.Parameters, docsField{
					Name: p.Name, In: p.In, Description: p.Description, Required: p.Required, Type: typeOf(p.Schema),
				})
			}
			if op.RequestBody != nil {
				o.Body = contentOf(op.RequestBody.Content)
			}
			for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
				r := op.Responses[status]
				o.Answers = append(o.Answers, docsAnswer{Status: status, Description: r.Description, Type: contentOf(r.Content)})
			}
			found = append(found, o)
		}
	}
	return found
}

// contentOf gives the type of a body, whatever its media type; nil: there is no body.
func contentOf(content map[string]*huma.MediaType) *docsType {
	for _, m := range content {
		if m.Schema != nil {
			t := typeOf(m.Schema)
			return &t
		}
	}
	return nil
}

func fieldsOf(s *huma.Schema) []docsField {
	fields := make([]docsField, 0, len(s.Properties))
	for name, p := range s.Properties {
		fields = append(fields, docsField{
			Name: name, Description: p.Description, Required: slices.Contains(s.Required, name), Type: typeOf(p),
		})
	}
	slices.SortFunc(fields, func(a, b docsField) int { return cmp.Compare(a.Name, b.Name) })
	return fields
}

func typeOf(s *huma.Schema) docsType {
	switch {
	case s == nil:
		return docsType{Text: "anything"}
	case s.Ref != "":
		return docsType{Ref: refName(s.Ref)}
	case s.Type == huma.TypeArray:
		t := typeOf(s.Items)
		t.Text = strings.TrimSpace("list of " + t.Text)
		return t
	case s.Type == huma.TypeObject && len(s.Properties) > 0:
		return docsType{Text: "object", Fields: fieldsOf(s)}
	case s.Type == "":
		return docsType{Text: "anything"}
	case len(s.Enum) > 0:
		words := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			words[i], _ = e.(string)
		}
		return docsType{Text: strings.Join(words, " | ")}
	}
	return docsType{Text: s.Type}
}
