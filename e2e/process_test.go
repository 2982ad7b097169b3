package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// parley builds cmd/parley, once.
func parley(tb testing.TB) string {
	tb.Helper()
	process.mu.Lock()
	defer process.mu.Unlock()
	if process.binary != "" {
		return process.binary
	}
	path := filepath.Join(tempDir(tb), "parley")
	cmd := exec.Command("go", "build", "-o", path, "../cmd/parley") // not this test's context: others use it too
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("building parley: %v\n%s", err, out)
	}
	process.binary = path
	return path
}

// child is a gateway in a process of its own.
type child struct {
	*gateway
	cmd  *exec.Cmd
	out  *buffer
	err  *buffer
	done chan struct{}
	// failed is how the process ended, once done is closed.
	failed error
}

// buffer is what a process has written so far.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// environ is the environment of a child: nobody's settings but those of the test.
func environ(settings ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(strings.ToUpper(s), "PARLEY_") })
	return append(env, settings...)
}

// onFreePorts are settings for a gateway on free ports.
func onFreePorts() []string {
	return []string{
		"PARLEY_MQTT_TCP=127.0.0.1:0", "PARLEY_MQTT_WS=127.0.0.1:0", "PARLEY_HTTP_ADDRESS=127.0.0.1:0",
		"PARLEY_METRICS_ADDRESS=127.0.0.1:0", "PARLEY_LOG_FORMAT=json",
	}
}

// spawn starts `parley serve` in a process of its own and waits until it is ready.
func spawn(tb testing.TB, storeURL string, settings ...string) *child {
	tb.Helper()
	env := append(onFreePorts(), "PARLEY_STORE_URL="+storeURL, "PARLEY_ADMIN_KEY="+adminKey,
		"PARLEY_LOGIN_ARGON2MEMORY=64", "PARLEY_LOGIN_ARGON2ITERATIONS=1")
	return spawnWith(tb, tb.TempDir(), append(env, settings...), "serve")
}

func spawnWith(tb testing.TB, dir string, settings []string, args ...string) *child {
	tb.Helper()
	c, err := launch(tb, dir, settings, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// launch is spawnWith for those that may end before they serve.
func launch(tb testing.TB, dir string, settings []string, args ...string) (*child, error) {
	tb.Helper()
	c := &child{
		gateway: &gateway{}, cmd: exec.Command(parley(tb), args...), out: &buffer{}, err: &buffer{}, done: make(chan struct{}),
	}
	c.cmd.Dir, c.cmd.Env = dir, environ(settings...)
	c.cmd.Stdout = c.out
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	serving := make(chan struct{})
	go func() {
		defer close(c.done)
		var once sync.Once
		for lines := bufio.NewScanner(io.TeeReader(stderr, c.err)); lines.Scan(); {
			var line struct{ Msg, MQTT, WebSocket, HTTP, Metrics string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				once.Do(func() {
					c.addrs.MQTT, c.addrs.WebSocket, c.addrs.HTTP, c.addrs.Metrics = line.MQTT, line.WebSocket, line.HTTP, line.Metrics
					close(serving)
				})
			}
		}
		c.failed = c.cmd.Wait()
	}()
	tb.Cleanup(func() {
		_ = c.cmd.Process.Kill() // if it still runs
		<-c.done
	})
	select {
	case <-serving:
	case <-c.done:
		return nil, fmt.Errorf("parley %v: %w\n%s%s", args, c.failed, c.out, c.err)
	case <-time.After(patience):
		return nil, fmt.Errorf("parley %v does not say that it serves:\n%s%s", args, c.out, c.err)
	}
	eventually(tb, "the gateway is ready", func() error {
		_, err := c.api("").try(tb.Context(), "GET", "/readyz", nil)
		return err
	})
	return c, nil
}

// signal sends a signal.
func (c *child) signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		tb.Fatal(err)
	}
}

// exit waits for the process to end and gives its exit code, -1 for a signal.
func (c *child) exit(tb testing.TB) int {
	tb.Helper()
	select {
	case <-c.done:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		tb.Fatalf("the process does not end:\n%s", c.err)
		return 0
	}
}

// run runs the binary to its end.
func run(tb testing.TB, dir string, settings []string, stdin string, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, parley(tb), args...)
	var out, errOut bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, environ(settings...), strings.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		tb.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// must runs the binary to a successful end and gives its output.
func must(tb testing.TB, dir string, settings []string, args ...string) string {
	tb.Helper()
	code, out, errOut := run(tb, dir, settings, "", args...)
	if code != 0 {
		tb.Fatalf("parley %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}
