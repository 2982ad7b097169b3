package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// owner is the user that a server runs as.
type owner struct {
	uid, gid uint32
	drop     bool // whether that is another user than the one who runs the tests
}

// unprivileged returns the user to run as. Postgres refuses to run as root.
func unprivileged() (*owner, error) {
	if os.Geteuid() != 0 {
		return &owner{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &owner{uid: uint32(uid), gid: uint32(gid), drop: true}, nil
	}
	return nil, errors.New("a Postgres server cannot run as root, and there is neither a user postgres nor a user nobody")
}

// self tells whether the server runs as the user who runs the tests.
func (o *owner) self() bool { return !o.drop }

// own gives a file to the user.
func (o *owner) own(path string) error {
	if o.self() {
		return nil
	}
	return os.Chown(path, int(o.uid), int(o.gid))
}

// attr returns how to run a process as the user, in a process group of its own: an interrupt from the terminal is the tests'
// business, which then stop the server.
func (o *owner) attr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if o.drop {
		attr.Credential = &syscall.Credential{Uid: o.uid, Gid: o.gid}
	}
	return attr
}

// postmaster is Postgres's main process.
type postmaster struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	err  error         // how it ended; valid after done
}

// run starts a command.
func run(cmd *exec.Cmd) (*postmaster, error) {
	p := &postmaster{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// run starts the process and waits for it, on one thread: the system ends the process when the thread that has started it is
// gone, which is to be when this process is gone and not when the Go runtime gives up a thread.
func (p *postmaster) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dieWithParent(p.cmd.SysProcAttr)
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	if p.err = p.cmd.Wait(); p.err == nil {
		p.err = errors.New("exit status 0")
	}
	close(p.done)
}

// shutdown ends the server in an orderly way, without waiting for its clients to leave.
func (p *postmaster) shutdown(timeout time.Duration) error {
	// SIGINT is Postgres's fast shutdown.
	if err := p.signal(syscall.SIGINT); err != nil {
		return err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("postgres did not stop within %v", timeout), p.kill())
	}
}

// kill ends the server and its children with SIGKILL and returns when all are gone.
func (p *postmaster) kill() error {
	// A stopped postmaster starts no children that the list below would miss.
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	children, err := childrenOf(p.cmd.Process.Pid)
	err = errors.Join(err, p.signal(syscall.SIGKILL))
	for _, pid := range children {
		if e := syscall.Kill(pid, syscall.SIGKILL); e != nil && !errors.Is(e, syscall.ESRCH) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return err
	}
	<-p.done
	return awaitGone(children, stopTimeout)
}

func (p *postmaster) signal(sig syscall.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// awaitGone waits until none of the processes holds anything any more.
func awaitGone(pids []int, timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for _, pid := range pids {
		for !gone(pid) {
			select {
			case <-timer.C:
				return fmt.Errorf("process %d of Postgres is still there %v after SIGKILL", pid, timeout)
			case <-ticker.C:
			}
		}
	}
	return nil
}

// gone tells whether a process has ended. One that nobody has waited for (init does not in every container) counts as gone.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	_, state, err := stat(pid)
	return err == nil && state == "Z"
}

// childrenOf returns the processes whose parent is pid.
func childrenOf(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if errors.Is(err, fs.ErrNotExist) {
		return childrenByPs(pid)
	} else if err != nil {
		return nil, err
	}
	var children []int
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		// Processes end while we look.
		if parent, _, err := stat(child); err == nil && parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}

// stat returns a process's parent and state from /proc.
func stat(pid int) (parent int, state string, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", err
	}
	// The second field is the command in parentheses, and may itself contain spaces and parentheses.
	_, rest, ok := cutLast(string(content), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		return 0, "", fmt.Errorf("/proc/%d/stat: %q", pid, content)
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, fields[0], err
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// childrenByPs is childrenOf for systems without /proc.
func childrenByPs(pid int) ([]int, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output() //nolint:noctx // Local and immediate.
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	var children []int
	for line := range strings.Lines(string(out)) {
		var child, parent int
		if _, err := fmt.Sscan(line, &child, &parent); err == nil && parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}

// lockFile creates a file and locks it until the returned function is called or this process ends.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// abandoned tells whether a directory is ours and the process that has made it is gone.
func abandoned(dir string) bool {
	f, err := os.OpenFile(dir+"/lock", os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		// Without a lock file it is just being made, or is somebody else's.
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() {
		return false
	}
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
