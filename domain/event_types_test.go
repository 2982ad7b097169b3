package domain

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestEveryTypeIsListed(t *testing.T) {
	// The description of the MQTT side is made of the lists; what they lack is not described.
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	lists := map[string][]EventType{"Event": EventTypes(), "Signal": SignalTypes(), "Notice": NoticeTypes()}
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		typ, ok := spec.Type.(*ast.Ident)
		if !ok || typ.Name != "EventType" {
			return true
		}
		name := spec.Names[0].Name
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		declared++
		for prefix, list := range lists {
			if strings.HasPrefix(name, prefix) && !slices.Contains(list, EventType(value)) {
				t.Errorf("%s is not in %sTypes", name, prefix)
			}
		}
		return true
	})
	if listed := len(EventTypes()) + len(SignalTypes()) + len(NoticeTypes()); listed != declared || declared == 0 {
		t.Errorf("%d types are listed, %d declared", listed, declared)
	}
}
