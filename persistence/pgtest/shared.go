package pgtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
)

// shared is the server that the tests of this process share.
//
//nolint:gochecknoglobals // One server per test process is the purpose, and tests have nothing else in common.
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared returns the server that all tests of this process share, starting it on first use. Tests that kill, stop or
// reconfigure a server take one of their own from [New].
func Shared(tb testing.TB) *Server {
	tb.Helper()
	shared.once.Do(func() {
		// Not the test's context: the server outlives the test that happens to come first.
		shared.server, shared.err = Start(context.Background(), Options{})
	})
	if shared.err != nil {
		tb.Fatalf("pgtest: %v", shared.err)
	}
	return shared.server
}

// NewDatabase creates an empty database on the shared server, drops it when the test ends, and returns its URL.
func NewDatabase(tb testing.TB) string {
	tb.Helper()
	return Shared(tb).NewDatabase(tb)
}

// Main runs a package's tests and then stops the shared server, if a test has started it:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// A process that ends without Main, by a signal for instance, leaves a directory behind, which a later run removes.
func Main(m *testing.M) {
	m.Run()
	if shared.server == nil {
		return
	}
	if err := shared.server.Stop(); err != nil {
		fmt.Fprintf(os.Stderr, "pgtest: %v\n", err)
	}
}
