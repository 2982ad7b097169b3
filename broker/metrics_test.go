package broker

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/metrics/metricstest"
)

func TestTheMetricsKeepTheirNames(t *testing.T) {
	// Dashboards and alerts are built on them.
	metricstest.Golden(t, "testdata/metrics.txt", func(r prometheus.Registerer) {
		if _, err := newBrokerMetrics(r); err != nil {
			t.Fatal(err)
		}
	})
}
