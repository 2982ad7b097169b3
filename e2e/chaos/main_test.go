package chaos_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/parley-im/parley/e2e/chaos"
)

// built is the gateway's binary, which all tests share.
var built struct {
	once   sync.Once
	dir    string
	binary string
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code) //nolint:forbidigo // this is a main
}

func binary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "parley-chaos-"); built.err == nil { //nolint:usetesting // it outlives this test
			built.binary, built.err = chaos.Build(context.Background(), built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.binary
}
