package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// readyWithin is how long a gateway may take to serve: migrations, on two cores, with the race detector.
const readyWithin = 60 * time.Second

// Build builds the parley command into the directory, with the race detector if this process has it, and gives the path
// of the binary.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "parley")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	_, here, _, _ := runtime.Caller(0)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/parley")...) //nolint:gosec // Our own command, in a place of ours.
	cmd.Dir = filepath.Join(filepath.Dir(here), "..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the gateway: %w\n%s", err, out)
	}
	return binary, nil
}

// Process is a gateway that runs as a child process, may be killed and started again on the same store. Its methods may be
// called from any goroutine, but Start, Kill9 and Stop from one at a time.
type Process struct {
	// Binary is what is run, with the command serve; Env is its configuration, as PARLEY_ variables without the prefix.
	Binary string
	Env    map[string]string

	mu    sync.Mutex
	addrs map[string]string
	cmd   *exec.Cmd
	ended chan struct{}
	err   error
	log   strings.Builder
}

// Start runs the gateway until it serves.
func (p *Process) Start(ctx context.Context) error {
	cmd := exec.Command(p.Binary, "serve") //nolint:noctx,gosec // It outlives ctx, which is for starting only.
	cmd.SysProcAttr = dieWithParent()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(), "GORACE=halt_on_error=1"}
	for _, listener := range []string{"MQTT_TCP", "MQTT_WS", "HTTP_ADDRESS", "METRICS_ADDRESS"} {
		cmd.Env = append(cmd.Env, "PARLEY_"+listener+"=127.0.0.1:0")
	}
	for name, value := range p.Env {
		cmd.Env = append(cmd.Env, "PARLEY_"+name+"="+value)
	}
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	// The kernel ends the child when the thread that started it ends, so that thread must stay.
	started, ended := make(chan error), make(chan struct{})
	serving := make(chan map[string]string, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.follow(out, serving)
		err = cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
	}()
	if err := <-started; err != nil {
		return err
	}
	p.mu.Lock()
	p.cmd, p.ended, p.addrs = cmd, ended, nil
	p.mu.Unlock()
	timeout := time.NewTimer(readyWithin)
	defer timeout.Stop()
	select {
	case addrs := <-serving:
		p.mu.Lock()
		p.addrs = addrs
		p.mu.Unlock()
		return nil
	case <-ended:
		return fmt.Errorf("the gateway ended while starting:\n%s", p.Log())
	case <-timeout.C:
		err = errors.New("the gateway does not serve in time")
	case <-ctx.Done():
		err = ctx.Err()
	}
	return errors.Join(err, p.Kill9())
}

// follow keeps the log, and looks in it for the line that tells the addresses.
func (p *Process) follow(out io.Reader, serving chan<- map[string]string) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		p.mu.Lock()
		p.log.WriteString(line + "\n")
		p.mu.Unlock()
		if _, rest, ok := strings.Cut(line, "msg=serving "); ok {
			addrs := make(map[string]string)
			for field := range strings.FieldsSeq(rest) {
				name, value, _ := strings.Cut(field, "=")
				addrs[name] = value
			}
			serving <- addrs
		}
	}
}

// Addr gives an address of the gateway, by listener (mqtt, websocket, http, metrics); empty while it does not serve.
func (p *Process) Addr(listener string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addrs[listener]
}

// Log gives what the gateway has logged, in all its lives.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Kill9 ends the gateway with SIGKILL, and returns when it is gone.
func (p *Process) Kill9() error { return p.signal(syscall.SIGKILL) }

// Stop ends the gateway the way an operator does, with SIGTERM.
func (p *Process) Stop() error { return p.signal(syscall.SIGTERM) }

func (p *Process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	cmd, ended := p.cmd, p.ended
	p.cmd, p.addrs = nil, nil
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timeout := time.NewTimer(readyWithin)
	defer timeout.Stop()
	select {
	case <-ended:
	case <-timeout.C:
		_ = cmd.Process.Kill()
		return fmt.Errorf("the gateway does not end after %v:\n%s", sig, p.Log())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if sig == syscall.SIGTERM && p.err != nil {
		return fmt.Errorf("the gateway ended with %w:\n%s", p.err, p.log.String())
	}
	return nil
}
