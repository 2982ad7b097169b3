// Package parley_test checks what no single package can check for itself: who may import whom.
package parley_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/parley-im/parley"

// edges returns, for each of our packages, which other packages of ours it may import and why. A package without a row
// is an error: a new folder is a decision, and this table is where it is written down (see docs/architecture.md).
func edges() map[string]map[string]string {
	return map[string]map[string]string{
		"domain":  {},
		"metrics": {},
		"configs": {},

		"metrics/metricstest": {
			"metrics": "checks the lists that metrics.Families makes",
		},
		"gateway": {
			"domain":  "decides on commands with the domain's rules",
			"metrics": "histograms of all packages share their buckets",
		},
		"hooks": {
			"domain": "turns inbound MQTT into commands and errors into reason codes",
		},
		"broker": {
			"domain":  "encodes events for MQTT clients",
			"metrics": "histograms of all packages share their buckets",
		},
		"persistence": {
			"domain":  "stores events and heads, and reports the domain's errors",
			"metrics": "histograms of all packages share their buckets",
		},
		"persistence/pgtest": {},
		"persistence/storetest": {
			"domain":  "writes and reads the domain's events",
			"gateway": "tests the interfaces that the gateway declares",
		},
		"bridge": {
			"domain":  "turns HTTP requests into commands, and events into webhooks",
			"metrics": "histograms of all packages share their buckets",
		},
		"identity": {
			"domain":  "says who somebody is, and refuses, in the domain's words",
			"metrics": "histograms of all packages share their buckets",
		},
		"content": {
			"domain": "keeps the domain's external content, and reports its errors",
		},
		"schedule": {
			"domain": "sends the domain's messages later, and reports its errors",
		},
		"web": {},
		"app": {
			"domain":      "hands the domain's values from one package to the other",
			"gateway":     "wires it",
			"hooks":       "wires it",
			"broker":      "wires it",
			"persistence": "wires it",
			"bridge":      "wires it",
			"identity":    "wires it",
			"content":     "wires it",
			"schedule":    "wires it",
			"metrics":     "wires it",
			"configs":     "turns the configuration into each package's options",
			"web":         "mounts the console",
		},
		"sdk": {
			"domain": "speaks the same wire format as the gateway",
		},
		"bench": {
			"domain":      "makes the messages that it appends",
			"persistence": "measures the store without a gateway",

			"persistence/pgtest": "starts the Postgres that it measures against",
		},
		"e2e": {
			"app":     "starts the gateway under test",
			"configs": "configures it",
			"sdk":     "is one of the clients",
			"domain":  "reads events",
		},
		// Its checker must not share a misunderstanding with what it checks.
		"e2e/chaos": {},
		// What the examples do can be done by any client: they know the gateway by its wire alone.
		"examples/walk":        {},
		"examples/tutorial":    {"examples/walk": "shows the reader what it does"},
		"examples/leanmessage": {"examples/walk": "shows the reader what it does"},
		"examples/layer":       {"examples/walk": "shows the reader what it does"},
		"examples/walktest": {
			"app":           "starts the gateway that an example is played on",
			"configs":       "configures it",
			"examples/walk": "plays the example",

			"persistence/pgtest": "plays it on Postgres as well",
		},
		"cmd/parley": {
			"app":     "runs the gateway",
			"configs": "loads the configuration",
			"sdk":     "talks to a running gateway",
			"bench":   "is the subcommand bench",
		},
	}
}

// testEdges returns what the tests of every package may import besides what the package itself may.
func testEdges() map[string]string {
	return map[string]string{
		"domain":                "values to test with",
		"metrics/metricstest":   "golden lists of metrics",
		"persistence/pgtest":    "a real Postgres",
		"persistence/storetest": "the conformance suite of stores",
		"examples/walktest":     "plays an example",
	}
}

// wideTests returns the packages whose tests may import anything of ours but commands, and why.
func wideTests() map[string]string {
	return map[string]string{
		"e2e":   "promises are checked from the outside and, where a failure has to be provoked, from the inside",
		"app":   "it wires everything",
		"bench": "it measures single parts as well as the whole",

		"broker": "the library's traps are withstood by broker and hooks together",
	}
}

type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	Doc          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func (p pkg) path() string { return ours(p.ImportPath) }

// ours returns the path of a package within the module, and "" for the root and for packages of others.
func ours(importPath string) string {
	path, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return path
}

func TestPackagesImportOnlyWhatTheTableAllows(t *testing.T) {
	// Siblings that import one another grow together until none can be changed or tested alone.
	table, forTests, wide := edges(), testEdges(), wideTests()
	for _, p := range list(t) {
		if p.path() == "" {
			continue
		}
		allowed, known := table[p.path()]
		if !known {
			t.Errorf("package %s has no row in the table of arch_test.go: add one that names what it may import and why "+
				"(and describe the folder in docs/architecture.md)", p.path())
			continue
		}
		for _, imported := range p.Imports {
			to := ours(imported)
			if _, ok := allowed[to]; to != "" && !ok {
				t.Errorf("%s must not import %s; it may import %s", p.path(), to, names(allowed))
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			to := ours(imported)
			if to == "" || to == p.path() {
				continue
			}
			_, itself := allowed[to]
			_, every := forTests[to]
			_, nearlyAll := wide[p.path()]
			nearlyAll = nearlyAll && !strings.HasPrefix(to, "cmd/")
			if !itself && !every && !nearlyAll {
				t.Errorf("the tests of %s must not import %s; they may import %s, and what the package may: %s",
					p.path(), to, names(forTests), names(allowed))
			}
		}
	}
}

func TestEachEdgeHasAReasonAndATarget(t *testing.T) {
	// A table with edges to nowhere, or in a circle, is not read by anybody any more.
	table := edges()
	for from, row := range table {
		for to, reason := range row {
			if reason == "" {
				t.Errorf("%s -> %s has no reason", from, to)
			}
			if _, ok := table[to]; !ok {
				t.Errorf("%s -> %s: no such package in the table", from, to)
			}
			if _, back := table[to][from]; back {
				t.Errorf("%s and %s may import each other", from, to)
			}
		}
	}
}

func TestEachPackageHasAComment(t *testing.T) {
	// The package comment is the first thing a newcomer reads: what it is for and what it must not import.
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		switch {
		case p.Doc == "":
			t.Errorf("package %s has no package comment", p.path())
		case p.Name != "main" && !strings.HasPrefix(p.Doc, "Package "+p.Name+" "):
			t.Errorf("the comment of package %s should start with %q", p.path(), "Package "+p.Name)
		}
	}
}

// list returns the module's packages.
func list(t *testing.T) []pkg {
	t.Helper()
	touch(t)
	var stderr bytes.Buffer
	// With -e, a package that does not build is reported by its own tests and not once more here.
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e",
		"-json=ImportPath,Dir,Name,Doc,GoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) == 0 {
		t.Fatal("go list names no packages")
	}
	return pkgs
}

// touch looks at every Go file of the module: go test remembers the files that a test has looked at, but not those that
// its child process go list has, and would otherwise repeat an old result after a change.
func touch(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case strings.HasSuffix(path, ".go"):
			_, err = os.Stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// names returns the keys of a row for a message.
func names(row map[string]string) string {
	if len(row) == 0 {
		return "nothing of ours"
	}
	return fmt.Sprint(slices.Sorted(maps.Keys(row)))
}
