package pgtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// findBin returns the directory of the Postgres server binaries. tools/need.sh looks in the same places.
func findBin(ctx context.Context) (string, error) {
	var dirs []string
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/libexec/postgresql*",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin",
		"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		// The newest version comes last in most of these.
		slices.Reverse(found)
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		if hasServer(dir) {
			return dir, nil
		}
	}
	return "", ErrNoPostgres
}

func hasServer(dir string) bool {
	return executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres"))
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// freePort returns a TCP port that nobody listens on. It stays below the range from which systems take the ports of outgoing
// connections, so that nobody else gets it while the server is down between a kill and a restart.
func freePort() (int, error) {
	for range 100 {
		port := 15000 + rand.IntN(15000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // Local and immediate.
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free TCP port on 127.0.0.1")
}

// baseDir returns a directory for temporary files which the server's user may pass through, and whose path is short enough for
// a Unix socket below it.
func baseDir(u *owner) (string, error) {
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		abs, err := filepath.Abs(dir)
		if err == nil && len(abs) <= 50 && writable(abs) && (u.self() || traversable(abs)) {
			return abs, nil
		}
	}
	return "", fmt.Errorf("neither %s nor /tmp nor /var/tmp can hold a Postgres server", os.TempDir())
}

func writable(dir string) bool {
	probe, err := os.MkdirTemp(dir, prefix+"probe-")
	return err == nil && os.Remove(probe) == nil
}

// traversable tells whether every user may pass through a directory and those above it.
func traversable(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

// removeLeftovers removes the directories of servers whose test process has been killed: nobody holds their lock any more.
func removeLeftovers(base string) {
	dirs, err := filepath.Glob(filepath.Join(base, prefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		if abandoned(dir) {
			// Another process may be doing the same; whoever comes last finds nothing.
			_ = os.RemoveAll(dir)
		}
	}
}
