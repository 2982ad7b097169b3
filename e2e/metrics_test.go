package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parley-im/parley/metrics/metricstest"
)

// busy does a bit of everything on a gateway, so that whatever counts has counted.
func busy(t *testing.T, g *gateway) (w *world, conversation string) {
	t.Helper()
	w = newWorld(t, g)
	users := w.users(t, "alice", "bob")
	c := w.conversation(t, users...)
	for _, version := range []byte{4, 5} {
		alice, bob := w.online(t, users[0], version), w.online(t, users[1], version, over("ws"))
		for qos := range byte(3) {
			alice.publish(t, publishing{topic: messagesTopic(c), qos: qos, payload: mustJSON(t, text("hello"))})
			bob.hear(t, c)
			alice.publish(t, publishing{topic: "nowhere/" + alice.id, qos: qos, payload: []byte("x")})
			alice.publish(t, publishing{topic: "commands/made-up-" + alice.id, qos: qos})
		}
		for _, f := range []string{"nowhere/#", "users/x/inbox", "conversations/" + c + "/events"} {
			if _, err := alice.trySubscribe(t.Context(), 1, f); err != nil {
				t.Fatal(err)
			}
		}
		alice.command(t, "getMe", nil)
		w.refuse(t, user{Name: "nobody@chat." + w.account, password: "x"}, version)
		alice.leave()
		bob.cut()
	}
	w.as(t, users[0]).ok(t, "GET", "/v1/conversations/"+c+"/events?from=1&count=5", nil)
	w.as(t, users[0]).refused(t, "GET", "/v1/made-up-path-"+c, nil)
	w.api("").refused(t, "GET", "/v1/users/"+users[0].Name, nil)
	w.api("").refused(t, "POST", "/v1/login", map[string]any{"username": users[0].Name, "password": "wrong"})
	return w, c
}

func TestMetricsKeepTheirNames(t *testing.T) {
	// Dashboards and alerts of operators refer to them: a renamed metric is an alarm that never rings again.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t))
		busy(t, g)
		body, _ := g.scrape(t)
		var list []string
		for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
			if line, ok := strings.CutPrefix(lines.Text(), "# TYPE "); ok && strings.HasPrefix(line, "parley_") {
				list = append(list, line)
			}
		}
		slices.Sort(list)
		got := strings.Join(list, "\n") + "\n"
		path := filepath.Join("testdata", "metrics-"+s.name+".txt")
		if os.Getenv(metricstest.Update) != "" {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(string(want), "\n") {
			if line != "" && !slices.Contains(list, line) {
				t.Errorf("missing: %s", line)
			}
		}
		for _, line := range list {
			if !strings.Contains("\n"+string(want), "\n"+line+"\n") {
				t.Errorf("new: %s (run with %s=1 to accept it)", line, metricstest.Update)
			}
		}
		for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
			if !strings.Contains(string(body), "\n"+name+" ") {
				t.Errorf("%s is missing", name)
			}
		}
	})
}

func TestPromtoolFindsNothingToCorrect(t *testing.T) {
	// Prometheus's own judge of names, units and help texts.
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("%v: `make promtool` installs it", err)
	}
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t))
		busy(t, g)
		body, _ := g.scrape(t)
		cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
		cmd.Stdin = bytes.NewReader(body)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool: %v\n%s", err, out)
		}
	})
}

func TestNoLabelGrowsWithUsers(t *testing.T) {
	// A label with names of users, conversations or whatever clients make up kills the Prometheus that scrapes it.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t))
		busy(t, g)
		_, before := g.scrape(t)
		var worlds []string
		for range 3 {
			w, c := busy(t, g)
			worlds = append(worlds, w.account, c)
		}
		_, after := g.scrape(t)
		known := make(map[string]bool)
		for _, s := range before {
			known[s.name+s.labels] = true
		}
		for _, s := range after {
			if !known[s.name+s.labels] && strings.HasPrefix(s.name, "parley_") && !strings.Contains(s.labels, "result=") {
				t.Errorf("a new series with new users: %s{%s}", s.name, s.labels)
			}
			for _, secret := range append(worlds, "made-up", "device-", "nowhere", "alice", "chat.") {
				if strings.Contains(s.labels, secret) {
					t.Errorf("%s{%s} has a name in it", s.name, s.labels)
				}
			}
		}
	})
}

func TestMetricsCountWhatHappened(t *testing.T) {
	// A number that is wrong is worse than none.
	onBothStores(t, func(t *testing.T, s store) {
		g := start(t, s.empty(t))
		w := newWorld(t, g)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		alice := w.online(t, users[0], 5)
		bob := w.connect(t, users[1], 4)
		bob.subscribe(t, 1, allEvents) // his inbox would tell him of unread messages, or not, depending on when they are counted
		const n = 10
		for i := range n {
			alice.say(t, c, text("hello"))
			bob.hear(t, c)
			alice.hear(t, c)
			_ = i
		}
		alice.publish(t, publishing{topic: messagesTopic(c), qos: 1, payload: []byte("nonsense")})
		w.refuse(t, user{Name: "nobody@chat." + w.account, password: "x"}, 5)
		for _, m := range []struct {
			want   float64
			name   string
			labels []string
		}{
			{2, "parley_sessions", nil},
			{n, "parley_commands_total", []string{`command="sendMessage"`, `result="ok"`}},
			{1, "parley_commands_total", []string{`command="sendMessage"`, `result="invalid-request"`}},
			{2 * n, "parley_mqtt_deliveries_total", []string{`qos="1"`}},
			{1, "parley_commands_total", []string{`command="createConversation"`, `result="ok"`}},
			{0, "parley_commit_queue_commands", nil},
			{0, "parley_delivery_lag_events", nil},
			{0, "parley_gateway_panics_total", nil},
			{0, "parley_mqtt_panics_recovered_total", nil},
		} {
			eventually(t, m.name, func() error {
				if got := g.metric(t, m.name, m.labels...); got != m.want {
					return fmt.Errorf("%s%v is %v, want %v", m.name, m.labels, got, m.want)
				}
				return nil
			})
		}
		for _, histogram := range []string{"parley_mqtt_publish_to_delivery_seconds_count", "parley_command_duration_seconds_count", "parley_commit_duration_seconds_count"} {
			if got := g.metric(t, histogram); got < n {
				t.Errorf("%s is %v after %d messages", histogram, got, n)
			}
		}
		alice.leave()
		bob.cut()
		eventually(t, "sessions are counted down", func() error {
			if got := g.metric(t, "parley_sessions"); got != 0 {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	})
}
