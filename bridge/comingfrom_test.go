package bridge_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/parley-im/parley/bridge"
	"github.com/parley-im/parley/domain"
)

// wire is what the pages on coming from elsewhere may name: the gateway's own documents of its API.
type wire struct {
	// fields are, by address, the fields of what goes there and of what is answered, at any depth; types the names of the
	// messages.
	fields, types map[string]map[string]bool
	// routes are methods and paths, parameters as {}.
	routes map[string]bool
}

// jsonObject is a JSON object that is walked through rather than decoded.
type jsonObject = map[string]any

func wireOf(t *testing.T) wire {
	t.Helper()
	w := newWorld(t, func(o *bridge.Options) { o.Contents = struct{ bridge.Contents }{} }) // its routes are described, not called
	v := wire{fields: make(map[string]map[string]bool), types: make(map[string]map[string]bool), routes: make(map[string]bool)}
	for path, methods := range documentOf(t, w).Paths {
		for method := range methods {
			v.routes[strings.ToUpper(method)+" "+parameter.ReplaceAllString(path, "{}")] = true
		}
	}
	var doc jsonObject
	if err := json.Unmarshal(w.as("", "GET", "/asyncapi.json", "").body, &doc); err != nil {
		t.Fatal(err)
	}
	channels := doc["channels"].(jsonObject)
	for _, c := range channels {
		address, fields, types := c.(jsonObject)["address"].(string), make(map[string]bool), make(map[string]bool)
		for name, ref := range c.(jsonObject)["messages"].(jsonObject) {
			types[name] = true
			collect(doc, ref, fields, make(map[string]bool))
		}
		v.fields[address], v.types[address] = fields, types
	}
	for _, op := range doc["operations"].(jsonObject) {
		reply, ok := op.(jsonObject)["reply"].(jsonObject)
		if !ok {
			continue
		}
		channel := lookUp(doc, op.(jsonObject)["channel"].(jsonObject)["$ref"].(string))
		collect(doc, reply["messages"], v.fields[channel.(jsonObject)["address"].(string)], make(map[string]bool))
	}
	return v
}

// lookUp follows a $ref within the document.
func lookUp(doc jsonObject, ref string) any {
	var at any = doc
	for step := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		at = at.(jsonObject)[step]
	}
	return at
}

// collect gathers the names of all properties below a node of the document.
func collect(doc jsonObject, node any, into, seen map[string]bool) {
	switch node := node.(type) {
	case []any:
		for _, n := range node {
			collect(doc, n, into, seen)
		}
	case jsonObject:
		if ref, ok := node["$ref"].(string); ok && !seen[ref] {
			seen[ref] = true
			collect(doc, lookUp(doc, ref), into, seen)
		}
		properties, _ := node["properties"].(jsonObject)
		for name := range properties {
			into[name] = true
		}
		for _, n := range node {
			collect(doc, n, into, seen)
		}
	}
}

var (
	code      = regexp.MustCompile("`([^`]+)`")
	address   = regexp.MustCompile(`^(commands|conversations|users)/\S+$`)
	method    = regexp.MustCompile(`^(GET|POST|PATCH|PUT|DELETE) (/v1/[^\s?]+)$`)
	parameter = regexp.MustCompile(`\{[^}]*\}`)
)

// addressOf gives the address as the AsyncAPI document writes it.
func addressOf(topic string) string {
	return strings.NewReplacer("<uuid>", "{conversation}", "/+/", "/{conversation}/", "<username>", "{username}").Replace(topic)
}

func TestPagesOnComingFromElsewhereNameOnlyWhatExists(t *testing.T) {
	// Whoever moves to Parley works through these tables line by line: a name that does not exist costs them a day, and
	// something said to be missing that exists costs us the user.
	v := wireOf(t)
	pages, err := filepath.Glob("../docs/coming-from/*.md")
	if err != nil || len(pages) != 3 {
		t.Fatalf("pages %v, %v", pages, err)
	}
	for _, page := range pages {
		t.Run(filepath.Base(page), func(t *testing.T) {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			there, missing, ok := strings.Cut(string(text), "\n## What has no counterpart yet\n")
			if !ok || strings.Contains(missing, "\n## ") {
				t.Fatal("the last section is not the one on what has no counterpart yet")
			}
			var commands int
			for _, c := range codes(there) {
				switch {
				case c == "commands/<name>":
				case address.MatchString(c):
					if v.fields[addressOf(c)] == nil {
						t.Errorf("there is no %s", c)
					}
					commands++
				case method.MatchString(c):
					if !v.routes[parameter.ReplaceAllString(c, "{}")] {
						t.Errorf("there is no %s", c)
					}
				}
			}
			if commands < 10 {
				t.Errorf("only %d topics and commands found: are the tables as they were?", commands)
			}
			for _, c := range codes(missing) {
				route := parameter.ReplaceAllString(c, "{}")
				if command := strings.HasPrefix(c, "commands/"); command && v.fields[addressOf(c)] != nil || v.routes[route] {
					t.Errorf("%s exists: it has a counterpart now", c)
				}
			}
			v.checkTables(t, there)
		})
	}
}

// checkTables checks the columns "parameters", "fields" and "type" against the topics and commands named in the same row.
func (v wire) checkTables(t *testing.T, text string) {
	t.Helper()
	var header []string
	checked := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			header = nil
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if header == nil {
			header = cells
			continue
		}
		if len(cells) != len(header) {
			t.Errorf("%d cells, not %d: %s", len(cells), len(header), line)
			continue
		}
		for i, column := range header {
			known := v.fields
			switch column {
			case "parameters", "fields":
			case "type":
				known = v.types
			case "code":
				for _, c := range codes(cells[i]) {
					if !slices.Contains(domain.Codes(), domain.Code(c)) {
						t.Errorf("there is no error %s", c)
					}
				}
				continue
			default:
				continue
			}
			for _, name := range codes(cells[i]) {
				if !slices.ContainsFunc(codes(cells[1]), func(topic string) bool { return known[addressOf(topic)][name] }) {
					t.Errorf("%s has no %q; it has %v", cells[1], name, v.names(known, codes(cells[1])))
				}
				checked++
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d fields and types found: are the tables as they were?", checked)
	}
}

func (v wire) names(known map[string]map[string]bool, topics []string) []string {
	all := make(map[string]bool)
	for _, topic := range topics {
		maps.Copy(all, known[addressOf(topic)])
	}
	return slices.Sorted(maps.Keys(all))
}

// codes gives what stands in backticks.
func codes(text string) []string {
	var list []string
	for _, m := range code.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}
