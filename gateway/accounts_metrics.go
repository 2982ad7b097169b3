package gateway

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/metrics"
)

// How somebody logged in, as the label method says it.
const (
	methodPassword = "password"
	methodToken    = "token"
	methodKey      = "key"
	methodRefresh  = "refresh"
	methodOneTime  = "one-time"
	methodIssuer   = "issuer"
)

// loginMetrics counts logins. Bearer tokens of HTTP requests are not logins: the requests are counted elsewhere.
type loginMetrics struct {
	results *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newLoginMetrics(r prometheus.Registerer, waiting func() float64) (*loginMetrics, error) {
	m := &loginMetrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_login_results_total",
			Help: "Logins by method (password, token, key, refresh, one-time, issuer) and result (ok, refused, limited, failed).",
		}, []string{"method", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "parley_login_duration_seconds",
			Help: "How long logins took, the wait for a free slot to check the password included.", Buckets: metrics.Latency(),
		}, []string{"method"}),
	}
	if r == nil {
		return m, nil
	}
	queue := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "parley_login_waiting", Help: "Logins that wait for their password to be checked.",
	}, waiting)
	return m, errors.Join(r.Register(m.results), r.Register(m.seconds), r.Register(queue))
}

// observe counts a login that took so long and ended so.
func (m *loginMetrics) observe(method string, took time.Duration, err error) {
	var result string
	switch domain.CodeOf(err) {
	case "":
		result = "ok"
	case domain.NotAuthenticated:
		result = "refused"
	case domain.RateLimited:
		result = "limited"
	default:
		result = "failed"
	}
	m.results.WithLabelValues(method, result).Inc()
	m.seconds.WithLabelValues(method).Observe(took.Seconds())
}
