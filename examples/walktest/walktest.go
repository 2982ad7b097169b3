// Package walktest plays an example in a test, on a gateway of the test's own, on each of the stores.
//
// It is apart from package walk, which must not import anything of the gateway.
package walktest

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/parley-im/parley/app"
	"github.com/parley-im/parley/configs"
	"github.com/parley-im/parley/examples/walk"
	"github.com/parley-im/parley/persistence/pgtest"
)

// patience is how long a gateway may take to start or stop.
const patience = 30 * time.Second

// Play plays the example on SQLite and on Postgres, and shows what it printed if it fails. The package's TestMain must call
// [pgtest.Main].
func Play(t *testing.T, name string, tell func(*walk.Stage)) {
	t.Helper()
	stores := map[string]func() string{
		"sqlite":   func() string { return "sqlite://" + filepath.Join(t.TempDir(), "parley.db") },
		"postgres": func() string { return pgtest.NewDatabase(t) },
	}
	for store, url := range stores {
		t.Run(store, func(t *testing.T) {
			var out bytes.Buffer
			if err := walk.Play(t.Context(), &out, start(t, url()), name, tell); err != nil {
				t.Errorf("%v\n\nwhat the example printed:\n%s", err, tail(out.Bytes()))
			}
		})
	}
}

// tail gives the end of a long story: the rest is what went well.
func tail(b []byte) []byte { return b[max(0, len(b)-16<<10):] }

// start starts a gateway that ends with the test.
func start(t *testing.T, storeURL string) walk.Gateway {
	t.Helper()
	cfg := configs.Default()
	cfg.Store.URL = storeURL
	cfg.Content.URL = "file://" + filepath.Join(t.TempDir(), "content")
	cfg.MQTT.TCP, cfg.MQTT.WS, cfg.HTTP.Address, cfg.Metrics.Address = "127.0.0.1:0", "", "127.0.0.1:0", ""
	cfg.Shutdown.Timeout = patience - 5*time.Second // the machine may be busy
	cfg.Admin.Key = "the-admin-key-of-the-examples"
	cfg.Login.Argon2Memory, cfg.Login.Argon2Iterations = 64, 1 // what a login costs is not the point here
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	a, err := app.New(t.Context(), cfg, app.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the gateway ended: %v", err)
			}
		case <-time.After(patience):
			t.Error(errors.New("the gateway does not stop"))
		}
	})
	return walk.Gateway{HTTP: "http://" + a.Addrs().HTTP, MQTT: a.Addrs().MQTT, AdminKey: cfg.Admin.Key}
}
