package configs

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// mask stands for a secret.
const mask = "********"

// Show returns the configuration as YAML that [Parse] reads, with each setting, in the order of the struct. Secrets are masked.
func (c Config) Show() string {
	root := &yaml.Node{Kind: yaml.MappingNode}
	sections := make(map[string]*yaml.Node)
	for _, f := range fields() {
		section, name, _ := strings.Cut(f.key, ".")
		if sections[section] == nil {
			sections[section] = &yaml.Node{Kind: yaml.MappingNode}
			root.Content = append(root.Content, scalar(section), sections[section])
		}
		sections[section].Content = append(sections[section].Content, scalar(name), f.node(&c))
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		// Nodes made of text and numbers always encode.
		return "# " + err.Error() + "\n"
	}
	return out.String()
}

// String returns what [Config.Show] does, so that a configuration that is printed by mistake does not give a secret away.
func (c Config) String() string { return c.Show() }

// GoString does the same for %#v.
func (c Config) GoString() string { return c.Show() }

// LogValue does the same for logs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.Show()) }

func scalar(value any) *yaml.Node {
	n := &yaml.Node{}
	if err := n.Encode(value); err != nil {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(value)}
	}
	return n
}

// node returns the setting's value for Show.
func (f field) node(c *Config) *yaml.Node {
	switch value := f.get(c).(type) {
	case string:
		if f.kind == "address" && value == "" {
			return scalar(off)
		}
		return scalar(f.masked(value))
	case Size:
		if value%KiB != 0 {
			return scalar(int64(value))
		}
		return scalar(value.String())
	case time.Duration:
		return scalar(formatDuration(value))
	case []string:
		list := scalar(value)
		if len(value) == 0 {
			list = &yaml.Node{Kind: yaml.SequenceNode}
		}
		list.Style = yaml.FlowStyle
		return list
	case []Issuer:
		if len(value) == 0 {
			return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		}
		return scalar(value)
	case []Rule:
		if len(value) == 0 {
			return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		}
		return scalar(value)
	default:
		return scalar(value)
	}
}

// quote returns a value for a message, without secrets.
func (f field) quote(value any) string {
	switch v := value.(type) {
	case string:
		const most = 200
		s := f.masked(v)
		if len(s) > most {
			s = s[:most] + "…"
		}
		return fmt.Sprintf("%q", s)
	case Size:
		return v.String()
	case time.Duration:
		return formatDuration(v)
	default:
		if f.secret != "" {
			return mask
		}
		return fmt.Sprint(v)
	}
}

// masked returns a value without the secret in it.
func (f field) masked(value string) string {
	switch {
	case value == "", f.secret == "":
		return value
	case f.secret == "url":
		return maskURL(value)
	default:
		return mask
	}
}

// maskURL hides the password of a URL, wherever it is.
func maskURL(text string) string {
	scheme, rest, found := strings.Cut(text, "://")
	if !found || scheme == "sqlite" {
		if strings.ContainsAny(text, "@=") && scheme != "sqlite" {
			return mask
		}
		return text
	}
	u, err := url.Parse(text)
	if err != nil {
		// It cannot be told apart which part is the password.
		if strings.ContainsAny(rest, "@=") {
			return scheme + "://" + mask
		}
		return text
	}
	user := ""
	if u.User != nil {
		user = url.User(u.User.Username()).String()
		if _, has := u.User.Password(); has {
			user += ":" + mask
		}
		user += "@"
	}
	// Not put together by url.URL, which would percent-encode the mask.
	u.User = nil
	query := strings.Split(u.RawQuery, "&")
	for i, pair := range query {
		name, value, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); value != "" && (err != nil || strings.Contains(strings.ToLower(plain), "password")) {
			query[i] = name + "=" + mask
		}
	}
	u.RawQuery = strings.Join(query, "&")
	return strings.Replace(u.String(), "://", "://"+user, 1)
}
