package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// spec is the AsyncAPI document of the gateway, held against what devices receive in all of these tests.
type spec struct {
	payloads map[string]*jsonschema.Schema // by the name of a message

	mu         sync.Mutex
	checked    int
	violations []string
}

// loadSpec reads the AsyncAPI document and compiles the payloads in it. They are made strict: what is sent may grow, but not
// without being described.
func loadSpec(ctx context.Context, g *gateway) (*spec, error) {
	body, err := fetch(ctx, "http://"+g.addrs.HTTP+"/asyncapi.json")
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	components := doc.(map[string]any)["components"].(map[string]any)
	for _, s := range components["schemas"].(map[string]any) {
		seal(s.(map[string]any))
	}
	messages := components["messages"].(map[string]any)
	for name, m := range messages {
		if strings.HasSuffix(name, "Reply") {
			payload := m.(map[string]any)["payload"].(map[string]any)
			seal(payload)
			if result, ok := payload["properties"].(map[string]any)["result"].(map[string]any); ok {
				seal(result)
			}
		}
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("mem:///asyncapi.json", doc); err != nil {
		return nil, err
	}
	s := &spec{payloads: make(map[string]*jsonschema.Schema)}
	for name := range messages {
		if s.payloads[name], err = c.Compile("mem:///asyncapi.json#/components/messages/" + name + "/payload"); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// seal lets an object schema take no other fields than its own.
func seal(s map[string]any) {
	if _, ok := s["properties"]; ok {
		s["additionalProperties"] = false
	}
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return b.Bytes(), nil
}

// check holds a publication against the message that its topic and its type, or its command, name.
func (s *spec) check(r received) {
	if err := s.judge(r); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.violations) < 20 {
			s.violations = append(s.violations, fmt.Sprintf("%s: %v\n%s", r.topic, err, r.payload))
		}
	}
}

func (s *spec) judge(r received) error {
	var kind struct{ Type, Command string }
	if err := json.Unmarshal(r.payload, &kind); err != nil {
		return err
	}
	name := kind.Type
	if strings.Contains(r.topic, "/replies") && kind.Type == "" {
		if name = kind.Command + "Reply"; s.payloads[name] == nil {
			name = "unknownCommandReply"
		}
	}
	schema := s.payloads[name]
	if schema == nil {
		return fmt.Errorf("a message %q is not described", name)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(r.payload))
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.checked++
	s.mu.Unlock()
	return schema.Validate(v)
}

// verdict gives what was received and is not described.
func (s *spec) verdict() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.violations) == 0 {
		return nil
	}
	return errors.New("not as /asyncapi.json says:\n" + strings.Join(s.violations, "\n"))
}

// specOf gives the document that all gateways here have.
func specOf(ctx context.Context, g *gateway) (*spec, error) {
	process.mu.Lock()
	defer process.mu.Unlock()
	if process.spec == nil {
		var err error
		if process.spec, err = loadSpec(ctx, g); err != nil {
			return nil, err
		}
	}
	return process.spec, nil
}

func TestWhatIsReceivedIsHeldAgainstTheSpec(t *testing.T) {
	// The judge of all other tests must be able to find something.
	inWorlds(t, func(t *testing.T, w *world) {
		s, err := loadSpec(t.Context(), w.gateway)
		if err != nil {
			t.Fatal(err)
		}
		alice := w.user(t, "alice")
		d := w.online(t, alice, 5)
		d.command(t, "getMe", nil)
		id := w.conversation(t, alice)
		d.say(t, id, text("hello"))
		d.hear(t, id)
		good := received{topic: eventsTopic(id), payload: d.hear(t, id).raw}
		if err := s.judge(good); err != nil {
			t.Errorf("a good event: %v", err)
		}
		for _, bad := range []struct{ what, from, to string }{
			{"another type of a field", `"seq":2`, `"seq":"2"`},
			{"a field that nobody described", `"seq":2`, `"seq":2,"colour":"red"`},
			{"a field that is missing", `"seq":2,`, ``},
			{"an unknown type", `"type":"sendMessage"`, `"type":"whisper"`},
		} {
			payload := strings.Replace(string(good.payload), bad.from, bad.to, 1)
			if payload == string(good.payload) {
				t.Fatalf("%s is not in %s", bad.from, payload)
			}
			if s.judge(received{topic: good.topic, payload: []byte(payload)}) == nil {
				t.Errorf("%s is not found", bad.what)
			}
		}
	})
}

func TestSpecsAreValid(t *testing.T) {
	// Generators of clients are less patient than people: the judges are those that others have written.
	g := sharedGateway(t, store{"sqlite"})
	dir := t.TempDir()
	args := []string{filepath.Join("..", ".tools", "specs", "validate.mjs")}
	for _, name := range []string{"asyncapi.json", "openapi.json"} {
		body, err := fetch(t.Context(), "http://"+g.addrs.HTTP+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if out, err := exec.CommandContext(t.Context(), "node", args...).CombinedOutput(); err != nil {
		t.Errorf("%v (`make specs` installs the validators)\n%s", err, out)
	}
}
