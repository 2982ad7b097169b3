package configs

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Validate returns an [*Error] with everything that is wrong with the values of a configuration that was put together in Go;
// those from [Load] and [Parse] are valid.
func (c Config) Validate() error {
	if problems := c.problems(); len(problems) > 0 {
		return &Error{problems}
	}
	return nil
}

// problems returns what is wrong with the values.
func (c *Config) problems() []Problem {
	v := &validator{config: c, fields: make(map[string]field)}
	for _, f := range fields() {
		v.fields[f.key] = f
	}
	v.store()
	v.listeners()
	v.origins()
	v.content()
	v.admin()
	v.rules()

	l := c.Limits
	v.number("limits.messagesPerSecond", l.MessagesPerSecond, 0, 1e9)
	v.number("limits.commandsPerSecond", l.CommandsPerSecond, 0, 1e9)
	v.number("limits.transientPerSecond", l.TransientPerSecond, 0, 1e9)
	v.number("limits.connectionsPerAddress", l.ConnectionsPerAddress, 0, 1e9)
	v.size("limits.packetSize", l.PacketSize, 1*KiB, 268_435_455) // The maximum of MQTT.
	v.duration("limits.connectTimeout", l.ConnectTimeout, 10*time.Millisecond, 10*time.Minute)
	v.duration("limits.writeTimeout", l.WriteTimeout, 100*time.Millisecond, 10*time.Minute)
	v.number("limits.participants", l.Participants, 2, 1e6)
	v.size("limits.messageSize", l.MessageSize, 1*KiB, 64*MiB)
	v.size("limits.partSize", l.PartSize, 1, 64*MiB)
	v.number("limits.textLength", l.TextLength, 1, 1e7)
	v.number("limits.parts", l.Parts, 1, 10_000)
	v.number("limits.receiveMaximum", l.ReceiveMaximum, 1, 65_535)
	v.number("limits.sessions", l.Sessions, 0, 1e9)
	v.number("limits.sessionsPerUser", l.SessionsPerUser, 0, 1e9)
	v.number("limits.subscriptions", l.Subscriptions, 1, 1e6)
	v.number("limits.deliveredSignals", l.DeliveredSignals, 1, 1e6)
	v.number("limits.logins", l.Logins, 0, 1e6)
	v.number("limits.watched", l.Watched, 1, 1e6)
	v.number("limits.scheduled", l.Scheduled, 1, 1e6)
	v.size("limits.waiting", l.Waiting, 64*KiB, 1*GiB)
	v.size("limits.waitingTotal", l.WaitingTotal, 1*MiB, 1024*GiB)
	v.number("limits.outstanding", l.Outstanding, 0, 1e9)

	v.number("login.argon2Memory", c.Login.Argon2Memory, 8, MaxArgon2Memory)
	v.number("login.argon2Iterations", c.Login.Argon2Iterations, 1, MaxArgon2Iterations)
	v.number("login.parallelVerifications", c.Login.ParallelVerifications, 0, 1024)
	v.duration("login.accessTtl", c.Login.AccessTTL, time.Second, 10*365*24*time.Hour)
	v.duration("login.refreshTtl", c.Login.RefreshTTL, time.Second, 10*365*24*time.Hour)

	v.duration("presence.grace", c.Presence.Grace, time.Millisecond, 24*time.Hour)
	v.issuers()
	v.hook()
	v.duration("loginHook.timeout", c.Hook.Timeout, 10*time.Millisecond, time.Minute)
	v.number("loginHook.parallel", c.Hook.Parallel, 1, 10_000)
	v.duration("loginHook.remember", c.Hook.Remember, 0, time.Hour)

	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "text", "json")
	v.duration("shutdown.timeout", c.Shutdown.Timeout, time.Millisecond, time.Hour)
	return v.problems
}

type validator struct {
	config   *Config
	fields   map[string]field
	problems []Problem
}

// expect reports that the value of a key is not what it has to be.
func (v *validator) expect(key, format string, args ...any) {
	f := v.fields[key]
	v.report(key, "%s: expected %s, not %s", key, fmt.Sprintf(format, args...), f.quote(f.get(v.config)))
}

func (v *validator) report(key, format string, args ...any) {
	v.problems = append(v.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

func (v *validator) number(key string, n, least, most int) {
	if n < least || n > most {
		v.expect(key, "a number from %d to %d", least, most)
	}
}

func (v *validator) size(key string, n, least, most Size) {
	if n < least || n > most {
		v.expect(key, "a size from %v to %v", least, most)
	}
}

func (v *validator) duration(key string, d, least, most time.Duration) {
	if d < least || d > most {
		v.expect(key, "a duration from %s to %s", formatDuration(least), formatDuration(most))
	}
}

func (v *validator) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.expect(key, "one of %s", strings.Join(allowed, ", "))
	}
}

func (v *validator) store() {
	const key = "store.url"
	scheme, rest, _ := strings.Cut(v.config.Store.URL, "://")
	switch scheme {
	case "sqlite":
		if rest == "" || strings.ContainsRune(rest, 0) {
			v.expect(key, "the path of a file after sqlite://")
		}
	case "postgres", "postgresql":
		if u, err := url.Parse(v.config.Store.URL); err != nil || (u.Host == "" && u.Query().Get("host") == "") {
			v.expect(key, "postgres://user:password@host:port/database, with special characters in the password percent-encoded")
		}
	default:
		v.expect(key, "sqlite://path or postgres://user:password@host:port/database")
	}
}

func (v *validator) listeners() {
	c := v.config
	taken := make(map[string]string)
	for _, l := range []struct{ key, address string }{
		{"mqtt.tcp", c.MQTT.TCP},
		{"mqtt.ws", c.MQTT.WS},
		{"mqtt.tls", c.MQTT.TLS},
		{"http.address", c.HTTP.Address},
		{"metrics.address", c.Metrics.Address},
	} {
		if l.address == "" {
			continue
		}
		host, port, err := net.SplitHostPort(l.address)
		number, portErr := strconv.ParseUint(port, 10, 16)
		if err != nil || portErr != nil || strings.ContainsFunc(host, func(r rune) bool { return unicode.IsSpace(r) || r == '/' }) {
			v.expect(l.key, "host:port such as 127.0.0.1:1883 or :1883, or off")
			continue
		}
		if other, ok := taken[l.address]; ok && number != 0 {
			v.expect(l.key, "an address of its own (%s has the same)", other)
		}
		taken[l.address] = l.key
	}
	if c.MQTT.TLS != "" && (c.TLS.Cert == "" || c.TLS.Key == "") {
		v.expect("mqtt.tls", "tls.cert and tls.key to be set as well, or off")
	}
	if c.MQTT.TLS == "" && (c.TLS.Cert == "") != (c.TLS.Key == "") {
		v.report("tls.cert", "tls.cert: expected tls.cert and tls.key to be set both or not at all, not %q and %q", c.TLS.Cert, c.TLS.Key)
	}
}

func (v *validator) content() {
	c := v.config.Content
	switch u, err := url.Parse(c.URL); {
	case c.URL == "":
	case err == nil && u.Scheme == "file" && u.Host == "" && u.Path != "" && u.RawQuery == "":
	case err == nil && u.Scheme == "s3" && u.Host != "":
	default:
		v.expect("content.url", "file:///path, or s3://bucket/prefix?endpoint=https://host&region=name, or nothing")
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		v.report("content.secretKey", "content.secretKey: expected content.accessKey and content.secretKey to be set both or not at all")
	}
	v.size("content.maxSize", c.MaxSize, 1, 1024*GiB)
	v.size("content.quota", c.Quota, 0, 1<<60)
	v.number("content.uploads", c.Uploads, 0, 1e9)
	v.duration("content.urlTtl", c.URLTTL, time.Second, 7*24*time.Hour)
	v.duration("content.unusedTtl", c.UnusedTTL, time.Second, 365*24*time.Hour)
	v.duration("content.cleanupInterval", c.Cleanup, 10*time.Millisecond, 24*time.Hour)
	if base := v.config.HTTP.URL; base != "" {
		u, err := url.Parse(base)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			v.expect("http.url", "a URL such as https://chat.example.com")
		}
	}
}

func (v *validator) origins() {
	const key = "http.origins"
	for _, origin := range v.config.HTTP.Origins {
		if origin == "*" {
			continue
		}
		// Browsers compare and send it in one form only: what differs from that would never match.
		u, err := url.Parse(origin)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Scheme+"://"+strings.ToLower(u.Host) != origin {
			v.report(key, "%s: expected an origin such as https://chat.example.com, in lower case and without a path, or *, not %q", key, origin)
		}
	}
}

func (v *validator) admin() {
	bad := func(r rune) bool { return r <= ' ' || r > '~' }
	if strings.ContainsFunc(v.config.Admin.Key, bad) {
		v.expect("admin.key", "printable ASCII characters without spaces, as fit into an Authorization header")
	}
}

func (v *validator) rules() {
	const key = "acl.rules"
	for i, r := range v.config.ACL.Rules {
		if _, err := path.Match(r.Users, ""); err != nil || r.Users == "" {
			v.report(key, "%s: rule %d: expected users to be a pattern such as *@sensors.acme, not %q", key, i+1, r.Users)
		}
		if len(r.Allow) == 0 {
			v.report(key, "%s: rule %d: expected allow to be a list of publish, subscribe, not empty", key, i+1)
		}
		for _, a := range r.Allow {
			if a != "publish" && a != "subscribe" {
				v.report(key, "%s: rule %d: expected allow to be a list of publish, subscribe, not %q", key, i+1, a)
			}
		}
		if len(r.Topics) == 0 {
			v.report(key, "%s: rule %d: expected topics to be a list of topic filters, not empty", key, i+1)
		}
		for _, t := range r.Topics {
			if expected := filterProblem(t); expected != "" {
				v.report(key, "%s: rule %d: expected %s, not %q", key, i+1, expected, t)
			}
		}
	}
}

// filterProblem returns what is expected of a rule's topic filter, or nothing if it is as it should be.
func filterProblem(filter string) string {
	if filter == "" || len(filter) > 65_535 || !utf8.ValidString(filter) || strings.ContainsRune(filter, 0) {
		return "a topic filter of 1 to 65535 bytes"
	}
	levels := strings.Split(filter, "/")
	switch root := levels[0]; {
	case root == "conversations", root == "users", root == "commands", strings.HasPrefix(root, "$"):
		return "a filter outside of conversations, users, commands and $…, which no rule can open"
	case strings.HasPrefix(root, "%"):
		// A client id of "users" would otherwise turn into a reserved root.
		return "a filter whose first level is fixed, without %u, %c or %a"
	}
	for i, level := range levels {
		if strings.Contains(level, "#") && (level != "#" || i != len(levels)-1) {
			return "# to stand alone in the last level of a filter"
		}
		if strings.Contains(level, "+") && level != "+" {
			return "+ to stand alone in its level of a filter"
		}
		for rest := level; ; {
			_, after, found := strings.Cut(rest, "%")
			if !found {
				break
			}
			if after == "" || !strings.ContainsRune("uca", rune(after[0])) {
				return "%u (user name), %c (client id) or %a (account) after a percent sign"
			}
			rest = after[1:]
		}
	}
	return ""
}
