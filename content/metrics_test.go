package content_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/content"
	"github.com/parley-im/parley/metrics/metricstest"
)

func TestMetricsKeepTheirNames(t *testing.T) {
	// Dashboards and alerts of operators refer to them.
	metricstest.Golden(t, "testdata/metrics.txt", func(r prometheus.Registerer) {
		_, err := content.New(content.Options{
			Store: struct{ content.Store }{}, Blobs: content.NewDir(t.TempDir()), URL: "https://chat.example.com", Registerer: r,
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
