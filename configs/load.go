package configs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	koanfyaml "github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"go.yaml.in/yaml/v3"
)

const (
	prefix     = "PARLEY_"
	testPrefix = "PARLEY_TEST_"
	fileSuffix = "_FILE"

	// off switches a listener off.
	off = "off"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Source string // where it comes from: file:line, environment variable, or empty for the defaults
	Key    string
	Text   string // what is wrong, with the value and what is expected
}

// String returns the problem in one line.
func (p Problem) String() string {
	if p.Source == "" {
		return p.Text
	}
	return p.Source + ": " + p.Text
}

// Error is what [Load], [Parse] and [Config.Validate] return for a configuration that cannot be used. It never contains a secret.
type Error struct {
	Problems []Problem // at least one
}

// Error returns the problems, one per line.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	if len(lines) == 1 {
		return "configuration: " + lines[0]
	}
	return fmt.Sprintf("configuration: %d problems:\n  %s", len(lines), strings.Join(lines, "\n  "))
}

// Load returns the configuration from the defaults, the YAML file at path (none if path is empty) and the environment, which is
// what os.Environ returns. The error is an [*Error] unless the file cannot be read.
func Load(path string, environ []string) (Config, error) {
	var content []byte
	if path != "" {
		var err error
		if content, err = os.ReadFile(path); err != nil {
			return Config{}, fmt.Errorf("configuration: %w", err)
		}
	}
	return Parse(filepath.Base(path), content, environ)
}

// Parse is [Load] for the content of a file; name is for messages. It reads the files that the environment names with …_FILE.
func Parse(name string, content []byte, environ []string) (Config, error) {
	l := &loader{fields: make(map[string]field), sources: make(map[string]string)}
	for _, f := range fields() {
		l.fields[f.key] = f
	}
	c := Default()
	merged := koanf.New(".")
	err := errors.Join(
		merged.Load(confmap.Provider(defaults(&c), "."), nil),
		merged.Load(confmap.Provider(l.file(name, content), "."), nil),
		merged.Load(confmap.Provider(l.environment(environ), "."), nil),
	)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	wrong := make(map[string]bool)
	for _, f := range fields() {
		// What no source has set keeps its default, which may be nil where merging would lose it.
		if _, given := l.sources[f.key]; !given {
			continue
		}
		value := merged.Get(f.key)
		if err := f.set(&c, value); err != nil {
			wrong[f.key] = true
			l.report(f.key, "%s: expected %v, not %s", f.key, err, f.quote(value))
		}
	}
	for _, p := range c.problems() {
		// A value that could not be read has its default now, about which there is nothing to say.
		if !wrong[p.Key] {
			p.Source = l.sources[p.Key]
			l.problems = append(l.problems, p)
		}
	}
	if len(l.problems) > 0 {
		return Config{}, &Error{l.problems}
	}
	return c, nil
}

func defaults(c *Config) map[string]any {
	values := make(map[string]any)
	for _, f := range fields() {
		values[f.key] = f.get(c)
	}
	return values
}

// loader collects what the sources say, and what is wrong with it.
type loader struct {
	fields   map[string]field
	sources  map[string]string // key -> where its value comes from; keys with their default are absent
	problems []Problem
}

func (l *loader) report(key, format string, args ...any) {
	l.problems = append(l.problems, Problem{Source: l.sources[key], Key: key, Text: fmt.Sprintf(format, args...)})
}

// file returns the settings of a YAML file, by key.
func (l *loader) file(name string, content []byte) map[string]any {
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(content), koanfyaml.Parser()); err != nil {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		l.problems = append(l.problems, Problem{Source: name, Text: "not valid YAML: " + strings.Join(strings.Fields(text), " ")})
		return nil
	}
	lines, twice := positions(content)
	for _, key := range twice {
		l.problems = append(l.problems, Problem{Source: at(name, lines[key]), Key: key, Text: key + " is given twice"})
	}
	values := make(map[string]any)
	for _, key := range k.Keys() {
		value := k.Get(key)
		_, known := l.fields[key]
		switch {
		case !known && l.section(key):
			// "tls:" without anything, or with everything below it commented out, says nothing.
			if m, isMap := value.(map[string]any); value != nil && (!isMap || len(m) > 0) {
				l.problems = append(l.problems, Problem{
					Source: at(name, lines[key]), Key: key,
					Text: fmt.Sprintf("%s is a section and has no value of its own; settings go below it, indented: %s", key, l.example(key)),
				})
			}
		case !known:
			l.problems = append(l.problems, Problem{
				Source: at(name, lines[key]), Key: key,
				Text: fmt.Sprintf("unknown key %q; the nearest known one is %q", key, nearest(key, Keys())),
			})
		case value != nil:
			values[key] = value
			l.sources[key] = at(name, lines[key])
		}
	}
	return values
}

// section tells whether keys start with name and a dot.
func (l *loader) section(name string) bool { return l.example(name) != "" }

// example returns the first key of a section.
func (l *loader) example(section string) string {
	for _, key := range Keys() {
		if strings.HasPrefix(key, section+".") {
			return key
		}
	}
	return ""
}

func at(name string, line int) string {
	if line == 0 {
		return name
	}
	return fmt.Sprintf("%s:%d", name, line)
}

// positions returns the line of each key in a YAML document, and the keys that are there twice, as a section and with a dot.
func positions(content []byte) (lines map[string]int, twice []string) {
	lines = make(map[string]int)
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil || len(doc.Content) == 0 {
		return lines, nil
	}
	var walk func(path string, n *yaml.Node)
	walk = func(path string, n *yaml.Node) {
		if n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if path != "" {
				key = path + "." + key
			}
			if _, seen := lines[key]; seen && n.Content[i+1].Kind != yaml.MappingNode {
				twice = append(twice, key)
			}
			lines[key] = n.Content[i].Line
			walk(key, n.Content[i+1])
		}
	}
	walk("", doc.Content[0])
	return lines, twice
}

// environment returns the settings of environment variables, by key.
func (l *loader) environment(environ []string) map[string]any {
	keys := make(map[string]string)
	var names []string
	for _, key := range Keys() {
		keys[variable(key)] = key
		names = append(names, variable(key))
	}
	from := make(map[string]string)
	values := make(map[string]any)
	// koanf goes through the variables; what they mean is ours, since it has no place for errors.
	provider := env.Provider(".", env.Opt{
		Prefix:      prefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			if strings.HasPrefix(name, testPrefix) || fromOrchestrator(name, value) {
				return "", nil
			}
			key, known := keys[strings.ToUpper(name)]
			base, isFile := strings.CutSuffix(strings.ToUpper(name), fileSuffix)
			if !known && isFile {
				key, known = keys[base]
			} else {
				isFile = false
			}
			if !known {
				l.problems = append(l.problems, Problem{
					Source: "environment",
					Text:   fmt.Sprintf("unknown variable %s; the nearest known one is %s", name, nearest(cmp.Or(cutFile(name), name), names)),
				})
				return "", nil
			}
			if other, given := from[key]; given {
				l.problems = append(l.problems, Problem{
					Source: "environment", Key: key,
					Text: fmt.Sprintf("%s is given twice, by %s and by %s", key, other, name),
				})
				return "", nil
			}
			from[key] = name
			if isFile {
				content, err := os.ReadFile(value)
				if err != nil {
					l.problems = append(l.problems, Problem{
						Source: name, Key: key, Text: fmt.Sprintf("%s: expected the name of a file with the value: %v", key, err),
					})
					return "", nil
				}
				value = strings.TrimRight(string(content), "\r\n")
			}
			l.sources[key] = name
			values[key] = value
			return "", nil
		},
	})
	if _, err := provider.Read(); err != nil {
		l.problems = append(l.problems, Problem{Source: "environment", Text: err.Error()})
	}
	return values
}

func cutFile(name string) string {
	base, _ := strings.CutSuffix(name, fileSuffix)
	return base
}

// fromOrchestrator tells whether a variable is one that Kubernetes sets in every pod next to a service named parley. Nobody has
// chosen these, so they cannot be mistakes.
func fromOrchestrator(name, value string) bool {
	switch {
	case name == "PARLEY_PORT":
		return strings.Contains(value, "://")
	case name == "PARLEY_SERVICE_HOST", name == "PARLEY_SERVICE_PORT", strings.HasPrefix(name, "PARLEY_SERVICE_PORT_"):
		return true
	default:
		return regexp.MustCompile(`^PARLEY_PORT_\d+_(TCP|UDP)(_|$)`).MatchString(name)
	}
}

// nearest returns the name that takes the fewest changes to get to, regardless of case.
func nearest(name string, names []string) string {
	best, least := "", -1
	for _, candidate := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(candidate)); least < 0 || d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance returns how many characters have to be inserted, removed or replaced to make b of a.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 200 {
		// No key is that long, and the time grows with the product of the lengths.
		x = x[:200]
	}
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			change := diagonal
			if x[i] != y[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(y)]
}
