package hooks

import (
	"slices"
	"strconv"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/parley-im/parley/domain"
)

// hookMetrics count what clients ask for and what they are answered.
type hookMetrics struct {
	connects   *prometheus.CounterVec
	publishes  *prometheus.CounterVec
	subscribes *prometheus.CounterVec
	pending    prometheus.Gauge
	acked      prometheus.Histogram
	panics     prometheus.Counter
	// success are the counters of the common outcome, by version (4 and 5) and QoS.
	success [2][3]prometheus.Counter
}

func newHookMetrics(reg prometheus.Registerer) *hookMetrics {
	f := promauto.With(reg)
	m := &hookMetrics{
		connects: f.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_mqtt_connects_total", Help: "CONNECTs that were decided about, by result: ok or the code of the refusal.",
		}, []string{"result"}),
		publishes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_mqtt_publishes_total", Help: "Publishes of clients, by MQTT version, QoS and result: ok or the code of the refusal.",
		}, []string{"version", "qos", "result"}),
		subscribes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_mqtt_subscribes_total", Help: "Topic filters of SUBSCRIBEs, by result.",
		}, []string{"result"}),
		pending: f.NewGauge(prometheus.GaugeOpts{
			Name: "parley_mqtt_pending_publishes", Help: "Publishes of clients whose outcome is not known yet.",
		}),
		acked: f.NewHistogram(prometheus.HistogramOpts{
			Name: "parley_mqtt_publish_to_ack_seconds", Help: "Time from reading a publish with QoS 1 or 2 to acknowledging it.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "parley_mqtt_hook_panics_recovered_total", Help: "Panics while a packet was handled, each of which ended that connection only.",
		}),
	}
	for v := range m.success {
		for qos := range m.success[v] {
			m.success[v][qos] = m.publishes.WithLabelValues(strconv.Itoa(v+4), strconv.Itoa(qos), "ok")
		}
	}
	return m
}

func (m *hookMetrics) published(version, qos byte, err error) {
	if err == nil {
		m.success[min(version-4, 1)][qos].Inc()
		return
	}
	m.publishes.WithLabelValues(strconv.Itoa(int(version)), strconv.Itoa(int(qos)), label(domain.AsError(err))).Inc()
}

func (m *hookMetrics) subscribed(reason byte) {
	result := "ok"
	if reason >= packets.ErrUnspecifiedError.Code {
		result = "refused"
	}
	m.subscribes.WithLabelValues(result).Inc()
}

// label gives a code as the value of a label: only those that are known beforehand.
func label(e *domain.Error) string {
	if slices.Contains(domain.Codes(), e.Code) {
		return string(e.Code)
	}
	return string(domain.Internal)
}
