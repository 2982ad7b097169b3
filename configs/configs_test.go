package configs_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/parley-im/parley/configs"
)

const example = "parley.example.yaml"

func parse(t *testing.T, content string, environ ...string) configs.Config {
	t.Helper()
	c, err := configs.Parse("parley.yaml", []byte(content), environ)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultsAreThoseOfTheProtocolPage(t *testing.T) {
	// Users read the page and not the code.
	c := parse(t, "")
	if diff := cmp.Diff(configs.Default(), c); diff != "" {
		t.Error(diff)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	for name, pair := range map[string][2]any{
		"store.url":               {c.Store.URL, "sqlite://data/parley.db"},
		"mqtt.tcp":                {c.MQTT.TCP, "127.0.0.1:1883"},
		"mqtt.ws":                 {c.MQTT.WS, "127.0.0.1:8083"},
		"mqtt.tls":                {c.MQTT.TLS, ""},
		"http.address":            {c.HTTP.Address, "127.0.0.1:8080"},
		"metrics.address":         {c.Metrics.Address, "127.0.0.1:9100"},
		"admin.key":               {c.Admin.Key, ""},
		"limits.participants":     {c.Limits.Participants, 1000},
		"limits.messageSize":      {c.Limits.MessageSize, 64 * configs.KiB},
		"limits.partSize":         {c.Limits.PartSize, 32 * configs.KiB},
		"limits.textLength":       {c.Limits.TextLength, 5000},
		"limits.parts":            {c.Limits.Parts, 16},
		"limits.receiveMaximum":   {c.Limits.ReceiveMaximum, 64},
		"limits.packetSize":       {c.Limits.PacketSize, 128 * configs.KiB},
		"limits.connectTimeout":   {c.Limits.ConnectTimeout, 10 * time.Second},
		"limits.writeTimeout":     {c.Limits.WriteTimeout, 30 * time.Second},
		"limits.deliveredSignals": {c.Limits.DeliveredSignals, 100},
		"login.accessTtl":         {c.Login.AccessTTL, 48 * time.Hour},
		"login.refreshTtl":        {c.Login.RefreshTTL, 30 * 24 * time.Hour},
		"presence.grace":          {c.Presence.Grace, time.Minute},
		"limits.watched":          {c.Limits.Watched, 1000},
		"limits.scheduled":        {c.Limits.Scheduled, 10_000},
		"shutdown.timeout":        {c.Shutdown.Timeout, 10 * time.Second},
		"the number of acl.rules": {len(c.ACL.Rules), 0},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
}

func TestExampleShowsEachKeyWithItsDefault(t *testing.T) {
	// The example is the reference of all settings; one that lies is worse than none.
	c, err := configs.Load(example, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(configs.Default(), c); diff != "" {
		t.Errorf("the example differs from the defaults:\n%s", diff)
	}
	content, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]map[string]any
	if err := yaml.Unmarshal(content, &tree); err != nil {
		t.Fatal(err)
	}
	for _, key := range configs.Keys() {
		section, name, _ := strings.Cut(key, ".")
		if _, ok := tree[section][name]; !ok {
			t.Errorf("%s is not in the example", key)
		}
	}
}

func TestLaterSourcesWin(t *testing.T) {
	// Containers set a few variables on top of a file that all of them share.
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("from-file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := parse(t, `
mqtt: {tcp: ":1", ws: off}
http: {address: false, origins: ["https://chat.example.com", "*"]}
limits:
  packetSize: 1MiB
  messagesPerSecond: 7
  connectTimeout: 1m30s
log:
tls: {}
store.url: sqlite://other.db
`,
		"PARLEY_LIMITS_MESSAGESPERSECOND=8", "PARLEY_TLS_CLIENTCA=ca.pem", "PARLEY_LIMITS_CONNECTTIMEOUT=5s", "PARLEY_METRICS_ADDRESS=off",
		"PARLEY_ADMIN_KEY_FILE="+secret, `PARLEY_ACL_RULES=[{users: "*", allow: [publish], topics: ["t/%u"]}]`,
		"PARLEY_TEST_ANYTHING=1", "OTHER=1", "PARLEYNOT=1",
		"PARLEY_PORT=tcp://10.0.0.1:1883", "PARLEY_PORT_1883_TCP_ADDR=10.0.0.1", "PARLEY_SERVICE_HOST=10.0.0.1", "PARLEY_SERVICE_PORT_MQTT=1883")
	want := configs.Default()
	want.Store.URL = "sqlite://other.db"
	want.HTTP.Origins = []string{"https://chat.example.com", "*"}
	want.MQTT.TCP, want.MQTT.WS, want.HTTP.Address, want.Metrics.Address = ":1", "", "", ""
	want.Limits.PacketSize, want.Limits.MessagesPerSecond, want.Limits.ConnectTimeout = configs.MiB, 8, 5*time.Second
	want.TLS.ClientCA, want.Admin.Key = "ca.pem", "from-file"
	want.ACL.Rules = []configs.Rule{{Users: "*", Allow: []string{"publish"}, Topics: []string{"t/%u"}}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

// issuer is a file with an issuer in which one thing is different.
func issuer(change string) string {
	name, _, _ := strings.Cut(change, ":")
	file := "identity:\n  issuers:\n    - issuer: https://login.example.com/"
	for _, line := range []string{"jwks: https://login.example.com/keys", "audience: [parley]", "username: '%s@chat.acme'"} {
		if !strings.HasPrefix(line, name+":") {
			file += "\n      " + line
		}
	}
	return file + "\n      " + change
}

func TestIssuersAndHookAreRead(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := parse(t, issuer("skew: 30s")+"\n      create: true\nloginHook: {url: 'http://127.0.0.1:7000/x', accounts: [acme], create: true}",
		"PARLEY_LOGINHOOK_TOKEN_FILE="+secret, "PARLEY_LOGINHOOK_REMEMBER=0s")
	want := configs.Default()
	want.Identity.Issuers = []configs.Issuer{{
		Issuer: "https://login.example.com/", JWKS: "https://login.example.com/keys", Audience: []string{"parley"},
		Username: "%s@chat.acme", Skew: 30 * time.Second, Create: true,
	}}
	want.Hook.URL, want.Hook.Token, want.Hook.Accounts = "http://127.0.0.1:7000/x", "geheim", []string{"acme"}
	want.Hook.Create, want.Hook.Remember = true, 0
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	if shown := c.Show(); strings.Contains(shown, "geheim") {
		t.Errorf("the token is shown:\n%s", shown)
	}
	want.Hook.Token = "" // masked
	again, err := configs.Parse("shown", []byte(c.Show()), nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Hook.Token = ""
	if diff := cmp.Diff(want, again); diff != "" {
		t.Errorf("what is shown reads differently:\n%s", diff)
	}
}

func TestEachMistakeIsNamed(t *testing.T) {
	// Whoever starts a gateway with a typo has to learn of it then, and where; not from a limit that does not hold.
	for name, tc := range map[string]struct {
		file string
		env  []string
		want []string // all in one problem
	}{
		"origin with path":  {file: "http: {origins: [\"https://chat.example.com/\"]}", want: []string{"http.origins", "without a path"}},
		"origin of a kind":  {env: []string{"PARLEY_HTTP_ORIGINS=https://a.example, chat.example"}, want: []string{"http.origins", "chat.example"}},
		"origins of nobody": {file: "http: {origins: {a: b}}", want: []string{"http.origins"}},
		"origin no text":    {file: "http: {origins: [3]}", want: []string{"http.origins", "a list of texts"}},
		"issuer of our name": {
			file: strings.Replace(issuer("claim: sub"), "https://login.example.com/\n", "parley\n", 1), want: []string{"issuer 1", `"parley"`},
		},
		"issuers of nobody":  {file: "identity: {issuers: 3}", want: []string{"identity.issuers", "a list of issuers"}},
		"issuer's keys":      {file: issuer("jwks: http://login.example.com/keys"), want: []string{"jwks", "https", "identity.plainHttp"}},
		"issuer's password":  {file: issuer("jwks: https://user:geheim@login.example.com/keys"), want: []string{"jwks", "without user"}},
		"issuer's audience":  {file: issuer("audience: []"), want: []string{"audience", "not empty"}},
		"issuer's username":  {file: issuer("username: alice@chat.acme"), want: []string{"username", "%s"}},
		"issuer's two names": {file: issuer("username: '%s@%s.acme'"), want: []string{"username", "%s"}},
		"issuer's anybody":   {file: issuer("username: '%s'"), want: []string{"accounts to be set"}},
		"issuer's any app":   {file: issuer("username: 'bot@%s'"), want: []string{"accounts to be set"}},
		"issuer's algorithm": {file: issuer("algorithms: [HS256]"), want: []string{"algorithms", "HS256"}},
		"issuer's skew":      {file: issuer("skew: 11m"), want: []string{"skew", "10m"}},
		"issuer's key":       {file: issuer("audiences: [x]"), want: []string{"identity.issuers", "audiences"}},
		"two of one issuer": {
			file: issuer("claim: sub") + "\n    - {issuer: 'https://login.example.com/', jwks: 'https://x.example', audience: [a], username: '%s@a.b'}",
			want: []string{"issuer 2", "other than that of others"},
		},
		"hook":              {file: "loginHook: {url: users.example.com}", want: []string{"loginHook.url", "https://"}},
		"plain hook":        {file: "loginHook: {url: 'http://users.example.com/'}", want: []string{"loginHook.url", "identity.plainHttp"}},
		"hook's users":      {file: "loginHook: {url: 'https://users.example.com/', create: true}", want: []string{"loginHook.create", "loginHook.accounts"}},
		"hook's time":       {file: "loginHook: {timeout: 1h}", want: []string{"loginHook.timeout", "1m"}},
		"hook's create":     {file: "loginHook: {create: maybe}", want: []string{"loginHook.create", "true or false"}},
		"argon2 memory":     {file: "login: {argon2Memory: 262145}", want: []string{"login.argon2Memory", "262144"}},
		"argon2 passes":     {file: "login: {argon2Iterations: 17}", want: []string{"login.argon2Iterations", "16"}},
		"key":               {file: "limits:\n  partz: 3", want: []string{"parley.yaml:2", `"limits.partz"`, `"limits.parts"`}},
		"key in wrong case": {file: "tls: {clientCA: x}", want: []string{`"tls.clientCA"`, `"tls.clientCa"`}},
		"section":           {file: "limit: {parts: 3}", want: []string{`"limit.parts"`, `"limits.parts"`}},
		"too deep":          {file: "store: {url: {path: x}}", want: []string{`"store.url.path"`, `"store.url"`}},
		"section as value":  {file: "limits: 3", want: []string{"limits is a section", "limits.messagesPerSecond"}},
		"list as section":   {file: "limits: [3]", want: []string{"limits is a section"}},
		"twice":             {file: "log.level: warn\nlog:\n  level: info", want: []string{"parley.yaml:3", "log.level is given twice"}},
		"same key twice":    {file: "log:\n  level: info\n  level: warn", want: []string{"not valid YAML", "already defined"}},
		"no YAML":           {file: "a: [", want: []string{"parley.yaml", "not valid YAML"}},
		"no mapping":        {file: "- a", want: []string{"parley.yaml", "not valid YAML"}},
		"variable":          {env: []string{"PARLEY_MQTT_TPC=:1"}, want: []string{"PARLEY_MQTT_TPC", "PARLEY_MQTT_TCP"}},
		"variable of file":  {env: []string{"PARLEY_ADMINKEY_FILE=x"}, want: []string{"PARLEY_ADMINKEY_FILE", "PARLEY_ADMIN_KEY"}},
		"value and file":    {env: []string{"PARLEY_ADMIN_KEY=k", "PARLEY_ADMIN_KEY_FILE=x"}, want: []string{"admin.key is given twice"}},
		"missing file":      {env: []string{"PARLEY_ADMIN_KEY_FILE=/no/such"}, want: []string{"PARLEY_ADMIN_KEY_FILE", "admin.key", "/no/such"}},

		"text for number":     {file: "limits: {parts: many}", want: []string{"limits.parts", "whole number", `"many"`}},
		"fraction":            {file: "limits: {parts: 1.5}", want: []string{"limits.parts", "whole number", "1.5"}},
		"number for text":     {file: "admin: {key: 12345}", want: []string{"admin.key", "quotes"}},
		"list for text":       {file: "log: {level: [info]}", want: []string{"log.level", "text", "[info]"}},
		"duration unit":       {file: "shutdown: {timeout: 10}", want: []string{"shutdown.timeout", "10s", "not 10"}},
		"duration variable":   {env: []string{"PARLEY_SHUTDOWN_TIMEOUT=soon"}, want: []string{"PARLEY_SHUTDOWN_TIMEOUT", "shutdown.timeout", `"soon"`}},
		"size unit":           {file: "limits: {packetSize: 1MB}", want: []string{"limits.packetSize", "64KiB", `"1MB"`}},
		"size too large":      {file: "limits: {packetSize: 99999999999GiB}", want: []string{"limits.packetSize", "64KiB"}},
		"empty variable":      {env: []string{"PARLEY_LIMITS_PARTS="}, want: []string{"limits.parts", "whole number", `""`}},
		"rules no list":       {file: "acl: {rules: {users: x}}", want: []string{"acl.rules"}},
		"rule's unknown key":  {file: "acl: {rules: [{user: x}]}", want: []string{"acl.rules", "user"}},
		"rules variable":      {env: []string{"PARLEY_ACL_RULES=[{"}, want: []string{"PARLEY_ACL_RULES", "acl.rules"}},
		"range":               {file: "limits: {receiveMaximum: 65536}", want: []string{"parley.yaml:1", "limits.receiveMaximum", "from 1 to 65535", "65536"}},
		"negative":            {file: "limits: {sessions: -1}", want: []string{"limits.sessions", "from 0"}},
		"size range":          {file: "limits: {packetSize: 1}", want: []string{"limits.packetSize", "from 1KiB"}},
		"duration range":      {file: "login: {accessTtl: 0s}", want: []string{"login.accessTtl", "from 1s"}},
		"level":               {file: "log: {level: loud}", want: []string{"log.level", "debug, info, warn, error", `"loud"`}},
		"scheme":              {file: "store: {url: mysql://x}", want: []string{"store.url", "sqlite://", "postgres://", "mysql"}},
		"no path":             {file: "store: {url: 'sqlite://'}", want: []string{"store.url", "path"}},
		"no host":             {file: "store: {url: 'postgres:///db'}", want: []string{"store.url", "host"}},
		"address":             {file: "mqtt: {tcp: '1883'}", want: []string{"mqtt.tcp", "host:port", `"1883"`}},
		"port":                {file: "mqtt: {tcp: ':99999'}", want: []string{"mqtt.tcp", "host:port"}},
		"same address":        {file: "mqtt: {tcp: ':1', ws: ':1'}", want: []string{"mqtt.ws", "of its own", "mqtt.tcp"}},
		"no certificate":      {file: "mqtt: {tls: ':8883'}", want: []string{"mqtt.tls", "tls.cert", "tls.key"}},
		"half a certificate":  {file: "tls: {cert: x}", want: []string{"tls.cert", "tls.key"}},
		"key with space":      {file: "admin: {key: 'a b'}", want: []string{"admin.key", "without spaces"}},
		"rule: users":         {file: "acl: {rules: [{users: '[', allow: [publish], topics: [t]}]}", want: []string{"acl.rules: rule 1", "pattern"}},
		"rule: allow":         {file: "acl: {rules: [{users: x, allow: [write], topics: [t]}]}", want: []string{"rule 1", "publish, subscribe", "write"}},
		"rule: allow nothing": {file: "acl: {rules: [{users: x, topics: [t]}]}", want: []string{"rule 1", "publish, subscribe"}},
		"rule: no topics":     {file: "acl: {rules: [{users: x, allow: [publish]}]}", want: []string{"rule 1", "topic filters"}},
		"rule: empty topic":   {file: "acl: {rules: [{users: x, allow: [publish], topics: ['']}]}", want: []string{"rule 1", "topic filter"}},
		"rule: reserved":      {file: "acl: {rules: [{users: x, allow: [publish], topics: [users/x]}]}", want: []string{"rule 1", "conversations, users, commands"}},
		"rule: $":             {file: "acl: {rules: [{users: x, allow: [publish], topics: [$SYS/x]}]}", want: []string{"rule 1", "conversations, users, commands"}},
		"rule: root":          {file: "acl: {rules: [{users: x, allow: [publish], topics: ['%c/x']}]}", want: []string{"rule 1", "first level"}},
		"rule: hash":          {file: "acl: {rules: [{users: x, allow: [publish], topics: ['t/#/x']}]}", want: []string{"rule 1", "#"}},
		"rule: plus":          {file: "acl: {rules: [{users: x, allow: [publish], topics: ['t/a+']}]}", want: []string{"rule 1", "+"}},
		"rule: percent":       {file: "acl: {rules: [{users: x, allow: [publish], topics: ['t/%x']}]}", want: []string{"rule 1", "%u"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := configs.Parse("parley.yaml", []byte(tc.file), tc.env)
			var e *configs.Error
			if !errors.As(err, &e) || len(e.Problems) != 1 {
				t.Fatalf("want exactly one problem, not: %v", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in: %v", want, err)
				}
			}
		})
	}
}

func TestAllProblemsComeAtOnce(t *testing.T) {
	// Nobody likes to fix one line per start.
	_, err := configs.Parse("parley.yaml", []byte("a: 1\nlog: {level: loud}\nlimits: {parts: x}"), []string{"PARLEY_B=1", "PARLEY_LOG_FORMAT=xml"})
	var e *configs.Error
	if !errors.As(err, &e) || len(e.Problems) != 5 {
		t.Fatalf("want five problems, not: %v", err)
	}
	for _, want := range []string{"5 problems", `"a"`, "PARLEY_B", "limits.parts", "log.level", "PARLEY_LOG_FORMAT: log.format"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	// Output of `config show` ends up in tickets, and errors end up in logs.
	for _, content := range []string{
		"{admin: {key: hunter2}, store: {url: 'postgres://parley:hunter2@db:5432/parley'}}",
		"{store: {url: 'postgres://db/parley?user=x&password=hunter2&sslmode=disable'}}",
		"{store: {url: 'postgres://db/parley?pass%77ord=hunter2'}}",
	} {
		c := parse(t, content)
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("starting", "config", c)
		for name, text := range map[string]string{
			"Show": c.Show(), "%v": fmt.Sprintf("%v", c), "%+v": fmt.Sprintf("%+v", c), "%#v": fmt.Sprintf("%#v", c), "%s": fmt.Sprint(&c), "log": log.String(),
		} {
			if strings.Contains(text, "hunter2") {
				t.Errorf("%s of %s shows the secret:\n%s", name, content, text)
			}
			if !strings.Contains(text, "********") {
				t.Errorf("%s of %s does not show that there is a secret:\n%s", name, content, text)
			}
		}
	}
	for _, content := range []string{
		"admin: {key: 'hunter2 hunter2'}",
		"admin: {key: [hunter2]}",
		"admin: {key: {hunter2: 1}}",
		"store: {url: 'postgres://u:hunter2%zz@db/x'}",
		"store: {url: 'postgres://u:hunter2@/x'}",
		"store: {url: 'mysql://u:hunter2@db/x'}",
		"store: {url: 'user=u password=hunter2'}",
		"store: {url: [hunter2]}",
	} {
		_, err := configs.Parse("parley.yaml", []byte(content), nil)
		if err == nil {
			t.Errorf("%s is accepted", content)
		} else if strings.Contains(err.Error(), "hunter2") && !strings.Contains(content, "{hunter2") {
			t.Errorf("the error for %s shows the secret: %v", content, err)
		}
	}
}

func TestShowCanBeLoaded(t *testing.T) {
	// Show is how an operator gets from "what is running" to a file.
	c := parse(t, "acl: {rules: [{users: '*@s.acme', allow: [publish, subscribe], topics: ['a/%u/#', '+/x']}]}\nlimits: {packetSize: 1500, connectTimeout: 1m}")
	if diff := cmp.Diff(c, parse(t, c.Show())); diff != "" {
		t.Error(diff)
	}
	for _, want := range []string{"connectTimeout: 1m\n", "packetSize: 1500\n", "messageSize: 64KiB", "refreshTtl: 720h\n", `tls: "off"`} {
		if !strings.Contains(c.Show(), want) {
			t.Errorf("no %q in\n%s", want, c.Show())
		}
	}
}

func TestUnreadableFileIsAnError(t *testing.T) {
	// A gateway that was told to use a file must not start without it.
	if _, err := configs.Load(filepath.Join(t.TempDir(), "none.yaml"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error: %v", err)
	}
	if _, err := configs.Load("", nil); err != nil {
		t.Errorf("without a file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	// An operator's file may contain anything; the loader answers with an error, and what it accepts it can show and read again.
	content, err := os.ReadFile(example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(content), "")
	f.Add("limits: {parts: 3}\nlog:\n  level: warn", "PARLEY_LOG_FORMAT=json")
	f.Add("acl: {rules: [{users: a, allow: [publish], topics: [b]}]}", `PARLEY_ACL_RULES=[]`)
	f.Add("a: &x {b: *x}\n<<: {mqtt: {tls: off}}", "PARLEY_LIMITS_PARTS=\x00")
	f.Fuzz(func(t *testing.T, content, variable string) {
		if strings.Contains(strings.ToUpper(variable), "_FILE") {
			// The fuzzer would read files of this machine.
			return
		}
		c, err := configs.Parse("fuzz.yaml", []byte(content), []string{variable})
		if err != nil {
			return
		}
		again, err := configs.Parse("show.yaml", []byte(c.Show()), nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, c.Show())
		}
		// Masked on the way.
		again.Admin, again.Store = c.Admin, c.Store
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
