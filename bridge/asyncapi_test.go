package bridge_test

import (
	"encoding/json"
	"testing"

	"github.com/parley-im/parley/domain"
)

func TestEveryCommandIsDescribedWithItsResult(t *testing.T) {
	// A command that the document lacks, or whose result it lacks, does not exist for those who generate clients.
	w := newWorld(t, nil)
	a := w.as("", "GET", "/asyncapi.json", "")
	a.want(t, "/asyncapi.json", 200, "")
	var doc struct {
		Channels   map[string]struct{ Address string }
		Operations map[string]struct {
			Action string
			Reply  struct {
				Messages []struct {
					Ref string `json:"$ref"`
				}
			}
		}
		Components struct {
			Messages map[string]struct {
				Payload struct {
					Properties map[string]schema
				}
			}
		}
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatal(err)
	}
	for _, name := range domain.CommandNames() {
		if doc.Channels[name].Address != "commands/"+name {
			t.Errorf("%s: channel %+v", name, doc.Channels[name])
		}
		op := doc.Operations[name]
		if op.Action != "receive" || len(op.Reply.Messages) != 1 {
			t.Errorf("%s: operation %+v", name, op)
		}
		result, ok := doc.Components.Messages[name+"Reply"].Payload.Properties["result"]
		if !ok || result.Type == nil {
			t.Errorf("%s has no result", name)
		}
		for field, s := range result.Properties {
			if s.Ref == "" && s.Type == nil {
				t.Errorf("%s: the field %s of its result has no type", name, field)
			}
		}
	}
}
