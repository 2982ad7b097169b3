package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-im/parley/app"
	"github.com/parley-im/parley/persistence/pgtest"
)

// process is what the tests of this process share.
var process struct {
	mu       sync.Mutex
	postgres *pgtest.Server
	binary   string
	dir      string
	shared   map[string]*gateway
	spec     *spec
}

func TestMain(m *testing.M) {
	// These tests wait for sockets and disks more than for processors.
	_ = flag.Set("test.parallel", "6")
	flag.Parse()
	code := m.Run()
	if process.spec != nil {
		if err := process.spec.verdict(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	if err := cleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, "cleaning up:", err)
		code = max(code, 1)
	}
	if code == 0 {
		// Whatever the gateways of a whole run have started must have ended with them.
		if err := goleak.Find(
			goleak.IgnoreAnyFunction("github.com/parley-im/parley/persistence/pgtest.(*postmaster).run"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code) //nolint:forbidigo // this is a main
}

func cleanUp() error {
	process.mu.Lock()
	defer process.mu.Unlock()
	var errs []error
	for _, g := range process.shared {
		errs = append(errs, g.stop())
	}
	if process.postgres != nil {
		errs = append(errs, process.postgres.Stop())
	}
	if process.dir != "" {
		errs = append(errs, os.RemoveAll(process.dir))
	}
	return errors.Join(errs...)
}

// tempDir gives a directory that lasts as long as the process. The caller holds process.mu.
func tempDir(tb testing.TB) string {
	tb.Helper()
	if process.dir == "" {
		dir, err := os.MkdirTemp("", "parley-e2e-") //nolint:usetesting // it outlives the test
		if err != nil {
			tb.Fatal(err)
		}
		process.dir = dir
	}
	return process.dir
}

// postgresServer gives the server that all tests share but those that kill it.
func postgresServer(tb testing.TB) *pgtest.Server {
	tb.Helper()
	process.mu.Lock()
	defer process.mu.Unlock()
	if process.postgres == nil {
		server, err := pgtest.Start(context.Background(), pgtest.Options{})
		if err != nil {
			tb.Fatal(err)
		}
		process.postgres = server
	}
	return process.postgres
}

// sharedGateway gives the gateway that all tests on a store share but those that change it.
func sharedGateway(tb testing.TB, s store) *gateway {
	tb.Helper()
	server := postgresServer(tb)
	process.mu.Lock()
	defer process.mu.Unlock()
	if g := process.shared[s.name]; g != nil {
		return g
	}
	url := "sqlite://" + tempDir(tb) + "/shared.db"
	if s.name == "postgres" {
		var err error
		if url, err = server.CreateDatabase(context.Background(), "shared"); err != nil {
			tb.Fatal(err)
		}
	}
	g, err := begin(context.Background(), testConfig(url), app.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	if process.shared == nil {
		process.shared = make(map[string]*gateway)
	}
	process.shared[s.name] = g
	return g
}
