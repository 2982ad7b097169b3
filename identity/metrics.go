package identity

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/metrics"
)

// keyMetrics counts fetches of keys.
type keyMetrics struct{ fetches *prometheus.CounterVec }

func newKeyMetrics(r prometheus.Registerer) (*keyMetrics, error) {
	m := &keyMetrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "parley_identity_key_fetches_total", Help: "Fetches of the keys of issuers, by result (ok, failed).",
	}, []string{"result"})}
	if r == nil {
		return m, nil
	}
	return m, r.Register(m.fetches)
}

func (m *keyMetrics) count(ok bool) {
	result := "failed"
	if ok {
		result = "ok"
	}
	m.fetches.WithLabelValues(result).Inc()
}

// hookMetrics count questions to the login service.
type hookMetrics struct {
	results *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newHookMetrics(r prometheus.Registerer) (*hookMetrics, error) {
	m := &hookMetrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_identity_hook_results_total",
			Help: "Questions to the login service by result (allow, deny, ignore, failed).",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "parley_identity_hook_duration_seconds", Help: "How long the login service took to answer.", Buckets: metrics.Latency(),
		}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.results), r.Register(m.seconds))
}

func (m *hookMetrics) observe(result domain.Verdict, took time.Duration, err error) {
	label := "failed"
	if err == nil {
		label = result.String()
	}
	m.results.WithLabelValues(label).Inc()
	m.seconds.Observe(took.Seconds())
}
