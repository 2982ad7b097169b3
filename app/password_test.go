package app

import (
	"testing"

	"github.com/parley-im/parley/configs"
)

func TestEveryPasswordCostThatTheConfigurationAllowsIsUsable(t *testing.T) {
	// The two were checked by different numbers once: the configuration was valid and the gateway did not start.
	for _, cost := range [...]struct{ memory, passes int }{{8, 1}, {configs.MaxArgon2Memory, configs.MaxArgon2Iterations}} {
		cfg := configs.Default()
		cfg.Store.URL = "sqlite://" + t.TempDir() + "/parley.db"
		cfg.MQTT, cfg.HTTP.Address, cfg.Metrics.Address = configs.MQTT{}, "", ""
		cfg.Login.Argon2Memory, cfg.Login.Argon2Iterations = cost.memory, cost.passes
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		a, err := New(t.Context(), cfg, Options{})
		if err != nil {
			t.Fatalf("%d KiB, %d passes: %v", cost.memory, cost.passes, err)
		}
		if err := a.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
