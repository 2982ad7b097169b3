package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-im/parley/app"
)

func TestServeNeedsNoConfiguration(t *testing.T) {
	// The first thing that anybody tries: it must serve at once, and say how to get in.
	t.Parallel()
	dir := t.TempDir()
	shown := must(t, dir, nil, "config", "show")
	for _, want := range []string{"tcp: 127.0.0.1:1883", "ws: 127.0.0.1:8083", "address: 127.0.0.1:8080", "address: 127.0.0.1:9100"} {
		if !strings.Contains(shown, want) {
			t.Errorf("config show has no %q:\n%s", want, shown)
		}
	}
	// The harness reads the addresses from the log.
	gw, err := launch(t, dir, []string{"PARLEY_LOG_FORMAT=json"}, "serve")
	switch taken := err != nil && strings.Contains(err.Error(), "address already in use"); {
	case taken: // by somebody else on this machine
		dir = t.TempDir()
		gw = spawnWith(t, dir, onFreePorts(), "serve")
	case err != nil:
		t.Fatal(err)
	case gw.addrs.MQTT != "127.0.0.1:1883" || gw.addrs.WebSocket != "127.0.0.1:8083" || gw.addrs.HTTP != "127.0.0.1:8080" || gw.addrs.Metrics != "127.0.0.1:9100":
		t.Errorf("serving at %+v", gw.addrs)
	}
	key := regexp.MustCompile(`\bak_[0-9a-f]{20,}\b`).FindString(gw.out.String())
	if key == "" {
		t.Fatalf("no admin key in:\n%s", gw.out)
	}
	if strings.Contains(gw.err.String(), key) {
		t.Error("the admin key is in the log")
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "parley.db")); err != nil {
		t.Error(err)
	}
	alice := user{Name: "alice@chat.acme", password: "secret"}
	gw.api(key).ok(t, "POST", "/v1/users", map[string]any{"username": alice.Name, "password": alice.password})
	gw.online(t, alice, 4).command(t, "getMe", nil).into(t, &struct{}{})
	gw.signal(t, syscall.SIGTERM)
	if code := gw.exit(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, gw.err)
	}

	// The key is shown once, and holds.
	gw = spawnWith(t, dir, onFreePorts(), "serve")
	if out := gw.out.String(); strings.Contains(out, "ak_") {
		t.Errorf("a second start prints:\n%s", out)
	}
	gw.api(key).ok(t, "GET", "/v1/users/"+alice.Name, nil)
	if strings.Contains(gw.err.String(), alice.password) {
		t.Error("a password is in the log")
	}
}

func TestSubcommandsAdministerTheStore(t *testing.T) {
	// An operator at a terminal, with no gateway running or next to one that is.
	onBothStores(t, func(t *testing.T, s store) {
		dir := t.TempDir()
		settings := []string{"PARLEY_STORE_URL=" + s.empty(t), "PARLEY_LOGIN_ARGON2MEMORY=64", "PARLEY_LOGIN_ARGON2ITERATIONS=1"}
		if out := must(t, dir, settings, "migrate", "status"); !strings.Contains(out, "no") {
			t.Errorf("an empty store has migrations:\n%s", out)
		}
		must(t, dir, settings, "migrate", "up")
		if out := must(t, dir, settings, "migrate", "status"); strings.Contains(strings.ToLower(out), " no ") || !strings.Contains(out, "yes") {
			t.Errorf("after migrate up:\n%s", out)
		}
		out := must(t, dir, settings, "user", "add", "alice@chat.acme", "--password", "secret", "--display-name", "Alice")
		if !strings.Contains(out, "alice@chat.acme") {
			t.Errorf("user add: %s", out)
		}
		if code, out, errOut := run(t, dir, settings, "from stdin\n", "user", "add", "bob@chat.acme", "--password-stdin"); code != 0 {
			t.Errorf("user add --password-stdin: %d %s%s", code, out, errOut)
		}
		if code, _, errOut := run(t, dir, settings, "", "user", "add", "alice@chat.acme"); code != 1 || !strings.Contains(errOut, "already-exists") {
			t.Errorf("user add twice: %d %s", code, errOut)
		}
		if code, _, errOut := run(t, dir, settings, "", "user", "add", "ALICE"); code != 1 || !strings.Contains(errOut, "invalid-request") {
			t.Errorf("user add with a wrong name: %d %s", code, errOut)
		}
		if out := must(t, dir, settings, "user", "list"); !strings.Contains(out, "alice@chat.acme") || !strings.Contains(out, "Alice") || !strings.Contains(out, "bob@chat.acme") {
			t.Errorf("user list:\n%s", out)
		}
		if out := must(t, dir, settings, "user", "list", "bob"); strings.Contains(out, "alice") || !strings.Contains(out, "bob@chat.acme") {
			t.Errorf("user list bob:\n%s", out)
		}
		key := strings.TrimSpace(must(t, dir, settings, "service", "add", "acme", "Billing"))
		if out := must(t, dir, settings, "service", "list"); !strings.Contains(out, "Billing") || strings.Contains(out, key) {
			t.Errorf("service list:\n%s", out)
		}
		rotated := strings.TrimSpace(must(t, dir, settings, "service", "rotate", "acme", "Billing"))
		if rotated == key || rotated == "" {
			t.Errorf("service rotate gives %q after %q", rotated, key)
		}
		must(t, dir, settings, "service", "add", "acme", "Short-lived")
		must(t, dir, settings, "service", "remove", "acme", "Short-lived")
		if out := must(t, dir, settings, "service", "list"); strings.Contains(out, "Short-lived") {
			t.Errorf("service list after remove:\n%s", out)
		}
		must(t, dir, settings, "account", "add", "branch", "--parent", "acme")
		if out := must(t, dir, settings, "account", "list"); !regexp.MustCompile(`(?m)^branch +acme +on +on$`).MatchString(out) {
			t.Errorf("account list:\n%s", out)
		}
		must(t, dir, settings, "account", "set", "acme", "--edit", "off")
		must(t, dir, settings, "account", "set", "branch", "--remove", "15m")
		if out := must(t, dir, settings, "account", "list"); !regexp.MustCompile(`(?m)^branch +acme +off +15m$`).MatchString(out) {
			t.Errorf("account list after set:\n%s", out)
		}
		if code, _, errOut := run(t, dir, settings, "", "account", "set", "branch", "--remove", "maybe"); code != 1 || !strings.Contains(errOut, "invalid-request") {
			t.Errorf("account set to nonsense: %d %s", code, errOut)
		}
		must(t, dir, settings, "application", "add", "branch", "shop")
		if out := must(t, dir, settings, "application", "list", "branch"); out != "shop\n" {
			t.Errorf("application list: %q", out)
		}
		must(t, dir, settings, "application", "remove", "branch", "shop")
		if out := must(t, dir, settings, "application", "list", "branch"); out != "" {
			t.Errorf("application list after remove: %q", out)
		}
		if code, _, errOut := run(t, dir, settings, "", "account", "remove", "acme"); code != 1 || !strings.Contains(errOut, "in-use") {
			t.Errorf("removing an account with users: %d %s", code, errOut)
		}
		must(t, dir, settings, "account", "remove", "branch")
		if out := must(t, dir, settings, "account", "list"); strings.Contains(out, "branch") {
			t.Errorf("account list after remove:\n%s", out)
		}
		token := strings.TrimSpace(must(t, dir, settings, "token", "alice@chat.acme"))

		// A gateway on the store knows all of it; and commands work while it runs.
		gw := spawnWith(t, dir, append(onFreePorts(), append(settings, "PARLEY_ADMIN_KEY="+adminKey)...), "serve")
		gw.connect(t, user{Name: "alice@chat.acme", password: "secret"}, 5)
		gw.connect(t, user{Name: "alice@chat.acme", password: token}, 4)
		gw.connect(t, user{Name: "bob@chat.acme", password: "from stdin"}, 4)
		gw.connect(t, user{Name: "service/Billing@acme", password: rotated}, 5)
		gw.refuse(t, user{Name: "service/Billing@acme", password: key}, 5)
		server := []string{"--server", gw.api("").base, "--admin-key", adminKey}
		must(t, dir, nil, append([]string{"user", "add", "carol@chat.acme", "--password", "pw"}, server...)...)
		gw.connect(t, user{Name: "carol@chat.acme", password: "pw"}, 5)
		if code, _, errOut := run(t, dir, nil, "new\n", append([]string{"user", "passwd", "carol@chat.acme", "--password-stdin"}, server...)...); code != 0 {
			t.Errorf("user passwd: %d %s", code, errOut)
		}
		gw.refuse(t, user{Name: "carol@chat.acme", password: "pw"}, 5)
		gw.connect(t, user{Name: "carol@chat.acme", password: "new"}, 5)
		must(t, dir, []string{"PARLEY_ADMIN_KEY=" + adminKey}, "user", "remove", "carol@chat.acme", "--server", gw.api("").base)
		gw.refuse(t, user{Name: "carol@chat.acme", password: "new"}, 5)
		if out := must(t, dir, nil, append([]string{"user", "list"}, server...)...); strings.Contains(out, "carol") || !strings.Contains(out, "bob") {
			t.Errorf("user list after remove:\n%s", out)
		}
		// A file has one master; a database has room for an operator next to the gateway.
		code, _, errOut := run(t, dir, settings, "", "user", "list")
		if s.name == "postgres" && code != 0 || s.name == "sqlite" && (code != 1 || !strings.Contains(errOut, "--server")) {
			t.Errorf("user list on the store of a running gateway: exit code %d\n%s", code, errOut)
		}
		live := strings.TrimSpace(must(t, dir, nil, append([]string{"token", "bob@chat.acme"}, server...)...))
		gw.connect(t, user{Name: "bob@chat.acme", password: live}, 5)
		if code, _, errOut := run(t, dir, nil, "", "user", "list", "--server", gw.api("").base, "--admin-key", "wrong"); code != 1 || !strings.Contains(errOut, "not-authenticated") {
			t.Errorf("with a wrong admin key: %d %s", code, errOut)
		}
		if code, _, errOut := run(t, dir, nil, "", "user", "list", "--server", gw.api("").base); code != 2 || !strings.Contains(errOut, "admin-key") {
			t.Errorf("without an admin key: %d %s", code, errOut)
		}
	})
}

func TestHelpIsThereForEverySubcommand(t *testing.T) {
	// --help is the manual that everybody has.
	t.Parallel()
	dir := t.TempDir()
	root := must(t, dir, nil, "--help")
	for _, command := range []string{"serve", "demo", "user", "service", "account", "application", "token", "config", "migrate", "bench", "version"} {
		if !strings.Contains(root, command) {
			t.Errorf("--help does not name %s", command)
		}
	}
	for _, args := range []string{
		"serve", "demo", "user", "user add", "user list", "user passwd", "user remove", "service", "service add", "service list",
		"service rotate", "service remove", "account add", "account list", "account set", "account remove", "application add", "application list",
		"application remove", "token", "config", "config check", "config show", "migrate", "migrate up", "migrate status", "bench", "version",
	} {
		out := must(t, dir, nil, append(strings.Fields(args), "--help")...)
		if !strings.Contains(out, "Usage: parley "+args) {
			t.Errorf("%s --help:\n%s", args, out)
		}
	}
	if out := must(t, dir, nil, "version"); !regexp.MustCompile(`^parley \S+ .*go1\.`).MatchString(out) {
		t.Errorf("version: %q", out)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("asking for help left %v behind, %v", entries, err)
	}
}

func TestWrongCommandLinesExitWithTwo(t *testing.T) {
	// Scripts tell a wrong call from a failure by it.
	t.Parallel()
	dir := t.TempDir()
	for _, args := range []string{"frobnicate", "serve --frobnicate", "user", "user add", "user add a b", "bench nonsense", "--config /no/such/file serve"} {
		code, out, errOut := run(t, dir, nil, "", strings.Fields(args)...)
		if code != 2 || errOut == "" {
			t.Errorf("parley %s: exit code %d\n%s%s", args, code, out, errOut)
		}
	}
}

func TestConfigurationMistakesAreNamed(t *testing.T) {
	// A misspelt key that is silently ignored is found when it is too late.
	t.Parallel()
	dir := t.TempDir()
	file := func(content string) string {
		path := filepath.Join(dir, fmt.Sprint(time.Now().UnixNano(), ".yaml"))
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		why, content string
		settings     []string
		want         []string
	}{
		{"a key that does not exist", "mqtt: {tpc: ':1883'}", nil, []string{"mqtt.tpc", "mqtt.tcp"}},
		{"a section that does not exist", "sture: {url: 'x'}", nil, []string{"sture", "store"}},
		{"a variable that does not exist", "", []string{"PARLEY_STORE_ULR=sqlite://x"}, []string{"PARLEY_STORE_ULR", "PARLEY_STORE_URL"}},
		{"a size that is none", "limits: {messageSize: big}", nil, []string{"limits.messageSize", "big"}},
		{"a duration without a unit", "login: {accessTtl: 48}", nil, []string{"login.accessTtl"}},
		{"a store of another kind", "store: {url: 'mysql://x'}", nil, []string{"store.url", "postgres://"}},
		{"TLS without a certificate", "mqtt: {tls: ':8883'}", nil, []string{"tls.cert"}},
		{"two mistakes at once", "mqtt: {tpc: 1}\nlog: {level: loud}", nil, []string{"mqtt.tcp", "log.level"}},
		{"reserved topics opened", "acl: {rules: [{users: '*', allow: [publish], topics: ['users/#']}]}", nil, []string{"acl.rules", "users/#"}},
	} {
		for _, command := range [][]string{{"config", "check"}, {"serve"}} {
			code, _, errOut := run(t, dir, tt.settings, "", append([]string{"--config", file(tt.content)}, command...)...)
			if code != 1 {
				t.Errorf("%s: %v exits with %d\n%s", tt.why, command, code, errOut)
			}
			for _, want := range tt.want {
				if !strings.Contains(errOut, want) {
					t.Errorf("%s: %v does not name %s:\n%s", tt.why, command, want, errOut)
				}
			}
		}
	}

	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("postgres://parley:hunter2@db.example.com/parley\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := []string{"PARLEY_STORE_URL_FILE=" + secret, "PARLEY_ADMIN_KEY=hunter3", "PARLEY_LIMITS_PARTS=7"}
	config := file("limits: {parts: 5, textLength: 99}\nlog: {format: json}")
	shown := must(t, dir, settings, "--config", config, "config", "show")
	for _, want := range []string{"db.example.com", "parts: 7", "textLength: 99", "format: json"} {
		if !strings.Contains(shown, want) {
			t.Errorf("config show has no %q:\n%s", want, shown)
		}
	}
	for _, hidden := range []string{"hunter2", "hunter3"} {
		if strings.Contains(shown, hidden) {
			t.Errorf("config show shows %s:\n%s", hidden, shown)
		}
	}
	if out := must(t, dir, settings, "--config", config, "config", "check"); !strings.Contains(out, "fine") {
		t.Errorf("config check: %s", out)
	}
	example, err := filepath.Abs("../configs/parley.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	must(t, dir, nil, "--config", example, "config", "check")
}

func TestDemoTellsItsStoryToTheEnd(t *testing.T) {
	// What a newcomer sees first. Each line of it comes from an answer of a real gateway, so it proves the main job.
	onBothStores(t, func(t *testing.T, s store) {
		settings := []string{"PARLEY_STORE_URL=" + s.empty(t)}
		if s.name == "sqlite" {
			settings = nil
		}
		dir := t.TempDir()
		out := must(t, dir, settings, "demo")
		for _, want := range []string{
			"store " + s.name, "POST /v1/users", "MQTT 5", "MQTT 3.1.1", "Lunch at noon?", "is committed", "tunnel", "catches up",
			"They have soup today.", "Tunnel. Soup sounds good!", "A table for two is reserved", "no gap",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the demo does not say %q:\n%s", want, out)
			}
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("the demo left %v behind, %v", entries, err)
		}
	})
}

func TestDemoKeepsRunningWithLinesThatWork(t *testing.T) {
	// The lines are meant to be pasted: what they say must be what works.
	onBothStores(t, func(t *testing.T, s store) {
		var settings []string
		if s.name == "postgres" {
			settings = []string{"PARLEY_STORE_URL=" + s.empty(t)}
		}
		cmd := exec.Command(parley(t), "demo", "--keep")
		out := &buffer{}
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = t.TempDir(), environ(settings...), out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		line := func(program, rest string) []string {
			t.Helper()
			pattern := regexp.MustCompile(program + ` -h (\S+) -p (\d+) -q 1 -u (\S+) -P "([^"]+)"` + rest)
			var found []string
			eventually(t, "the demo prints a line for "+program, func() error {
				if found = pattern.FindStringSubmatch(out.String()); found == nil {
					return errNotYet
				}
				return nil
			})
			return found
		}
		sub := line("mosquitto_sub", ` -t '(conversations/\+/events)' -t '(users/[^']+/inbox)'`)
		pub := line("mosquitto_pub", ` -t 'conversations/([^']+)/messages' -m '([^']+)'`)
		curl := regexp.MustCompile(`curl -H 'Authorization: Bearer ([^']+)' '(http://([^/]+))(/v1/[^']+)'`).FindStringSubmatch(out.String())
		if curl == nil {
			t.Fatalf("no line for curl in:\n%s", out)
		}
		g := &gateway{addrs: app.Addrs{MQTT: sub[1] + ":" + sub[2], HTTP: curl[3]}}
		listener := g.connect(t, user{Name: sub[3], password: sub[4]}, 4)
		listener.subscribe(t, 1, sub[5], sub[6])
		talker := g.connect(t, user{Name: pub[3], password: pub[4]}, 4)
		talker.publish(t, publishing{topic: messagesTopic(pub[5]), qos: 1, payload: []byte(pub[6])})
		if ev := listener.hear(t, pub[5]); ev.Message == nil || !strings.Contains(pub[6], ev.Message.Text) {
			t.Errorf("heard %s", ev.raw)
		}
		api{base: curl[2], token: curl[1]}.ok(t, "GET", curl[4], nil)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("after an interrupt: %v\n%s", err, out)
			}
		case <-time.After(patience):
			t.Error("the demo does not end")
		}
	})
}

func TestTwoServersDoNotShareAPort(t *testing.T) {
	// The usual mistake at a second start; the message must say which setting to change.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		gw := spawn(t, url)
		for key, address := range map[string]string{"PARLEY_MQTT_TCP": gw.addrs.MQTT, "PARLEY_HTTP_ADDRESS": gw.addrs.HTTP} {
			settings := append(onFreePorts(), "PARLEY_STORE_URL="+s.empty(t), key+"="+address)
			code, _, errOut := run(t, t.TempDir(), settings, "", "serve")
			if code != 1 || !strings.Contains(errOut, "address already in use") || !strings.Contains(errOut, address) {
				t.Errorf("%s taken: exit code %d\n%s", key, code, errOut)
			}
		}
	})
}

func TestLogsAreJSONAndSayNothingPrivate(t *testing.T) {
	// Logs are kept and shipped; what people write to one another must not be in them, nor what opens their accounts.
	onBothStores(t, func(t *testing.T, s store) {
		gw := spawn(t, s.empty(t), "PARLEY_LOG_LEVEL=debug")
		w := newWorld(t, gw.gateway)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		token := w.token(t, users[0])
		for _, version := range []byte{4, 5} {
			d := w.online(t, users[0], version, withPassword(token))
			d.say(t, c, text("a very private message"))
			d.publish(t, publishing{topic: messagesTopic(c), qos: 1, payload: []byte(`{"text":"a very private mistake"`)})
			d.publish(t, publishing{topic: "nowhere", qos: 1, payload: []byte(`a very private place`)})
			w.refuse(t, user{Name: users[0].Name, password: "a very private typo"}, version)
		}
		w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+c+"/messages", text("a very private post"))
		r := w.rawConnect(t, users[1], 5)
		r.write(t, frame(typeSubscribe<<4|2, []byte{0, 1, 0, 0, 99, 'a'})) // malformed
		if p, err := r.tryRead(); err == nil && p.kind != typeDisconnect {
			t.Errorf("a malformed SUBSCRIBE is answered by %+v", p)
		}
		gw.signal(t, syscall.SIGTERM)
		if code := gw.exit(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		log := gw.err.String()
		for _, secret := range []string{"very private", token, users[0].password, adminKey, w.service.token, "s password"} {
			if strings.Contains(log, secret) {
				i := strings.Index(log, secret)
				t.Errorf("the log has %q: %s", secret, log[max(0, i-200):min(len(log), i+200)])
			}
		}
		for line := range strings.SplitSeq(strings.TrimSpace(log), "\n") {
			if !json.Valid([]byte(line)) {
				t.Errorf("not JSON: %s", line)
			}
		}
	})
}
