package persistence

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/metrics"
)

// storeMetrics count what the store does.
type storeMetrics struct {
	errors   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	connects prometheus.Counter
}

// The operations by which durations are told apart.
const (
	opAppend = "append"
	opChange = "change"
	opRead   = "read"
	opWrite  = "write"
)

// newMetrics makes the metrics of s and registers them; a nil r registers nothing.
func newMetrics(r prometheus.Registerer, s *Store) (*storeMetrics, error) {
	m := &storeMetrics{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_store_errors_total",
			Help: "Failed calls to the store by the kind of error.",
		}, []string{"kind"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "parley_store_duration_seconds",
			Help:    "How long calls to the store took: append (a batch of messages), change, read, write (administration).",
			Buckets: metrics.Latency(),
		}, []string{"operation"}),
		connects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_store_connects_total",
			Help: "Connections that committers have made, reconnections included.",
		}),
	}
	for _, k := range []kind{kindOther, kindConnection, kindConflict, kindTimeout, kindResources, kindUnique, kindConstraint, kindData} {
		m.errors.WithLabelValues(k.String())
	}
	for _, op := range []string{opAppend, opChange, opRead, opWrite} {
		m.duration.WithLabelValues(op)
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.errors, m.duration, m.connects, s.gauge("read", s.reads.db), s.gauge("write", s.writes)} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// observe records a call that began at start and ended with err.
func (m *storeMetrics) observe(op string, start time.Time, err error) {
	m.duration.WithLabelValues(op).Observe(time.Since(start).Seconds())
	if err == nil {
		return
	}
	if k := kindOfError(err); k != kindRefusal {
		m.errors.WithLabelValues(k.String()).Inc()
	}
}
