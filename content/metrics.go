package content

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// contentMetrics count what comes, goes and is removed.
type contentMetrics struct {
	uploads        *prometheus.CounterVec
	received, sent prometheus.Counter
	removed        prometheus.Counter
	failures       prometheus.Counter
}

// The outcomes of requests that bring bytes.
const (
	outcomeComplete = "complete"
	outcomePart     = "part"
	outcomeFailed   = "failed"
)

func newMetrics(r prometheus.Registerer, s *Service) (*contentMetrics, error) {
	m := &contentMetrics{
		uploads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_content_uploads_total",
			Help: "Requests that brought bytes of external content, by how they left it: complete, a part of it is there, or failed or cut.",
		}, []string{"outcome"}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_content_received_bytes_total", Help: "Bytes of external content that came.",
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_content_sent_bytes_total", Help: "Bytes of external content that were read for downloads.",
		}),
		removed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_content_removed_total", Help: "External content that was removed because no message had it.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_content_cleanup_failures_total", Help: "Attempts to remove external content that failed; they are repeated.",
		}),
	}
	for _, outcome := range []string{outcomeComplete, outcomePart, outcomeFailed} {
		m.uploads.WithLabelValues(outcome)
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(
		r.Register(m.uploads), r.Register(m.received), r.Register(m.sent), r.Register(m.removed), r.Register(m.failures),
		r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "parley_content_uploads_in_flight", Help: "Requests that are bringing bytes of external content.",
		}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(len(s.uploads))
		})),
	)
}

func (m *contentMetrics) ended(err error, complete bool) {
	outcome := outcomePart
	switch {
	case err != nil:
		outcome = outcomeFailed
	case complete:
		outcome = outcomeComplete
	}
	m.uploads.WithLabelValues(outcome).Inc()
}
