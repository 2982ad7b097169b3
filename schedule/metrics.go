package schedule

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
)

// scheduleMetrics count what is scheduled and what becomes of it.
type scheduleMetrics struct {
	scheduled prometheus.Counter
	finished  *prometheus.CounterVec
	retries   prometheus.Counter
	late      prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (*scheduleMetrics, error) {
	m := &scheduleMetrics{
		scheduled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_scheduled_accepted_total", Help: "Messages and announcements that were scheduled.",
		}),
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_scheduled_finished_total", Help: "What became of what was scheduled: sent, refused or cancelled.",
		}, []string{"outcome"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_scheduled_retries_total", Help: "Attempts to send something scheduled that are repeated, as it was not possible just then.",
		}),
		late: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "parley_scheduled_late_seconds", Help: "How long after its time something scheduled was sent.",
			Buckets: []float64{.1, .25, .5, 1, 2, 5, 15, 60, 600, 3600},
		}),
	}
	for _, outcome := range []domain.ScheduledState{domain.ScheduledSent, domain.ScheduledRefused, domain.ScheduledCancelled} {
		m.finished.WithLabelValues(string(outcome))
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.scheduled), r.Register(m.finished), r.Register(m.retries), r.Register(m.late))
}
