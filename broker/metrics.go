package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/metrics"
)

// brokerMetrics count sockets and what goes over them.
type brokerMetrics struct {
	connections    *prometheus.GaugeVec
	received, sent *prometheus.CounterVec
	refused        *prometheus.CounterVec
	deliveries     [2]prometheus.Counter // by QoS
	latency        prometheus.Histogram
	skipped        prometheus.Counter
	stalls         prometheus.Counter
	slow           prometheus.Counter
	panics         prometheus.Counter
	pumpRuns       prometheus.Counter
}

func newBrokerMetrics(reg prometheus.Registerer) (*brokerMetrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	deliveries := counters("parley_mqtt_deliveries_total", "Publications written to clients, by QoS.", "qos")
	m := &brokerMetrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "parley_mqtt_connections", Help: "Open sockets, logged in or not, by listener.",
		}, []string{"listener"}),
		received: counters("parley_mqtt_received_bytes_total", "Bytes received, TLS and WebSocket framing included, by listener.", "listener"),
		sent:     counters("parley_mqtt_sent_bytes_total", "Bytes sent, TLS and WebSocket framing included, by listener.", "listener"),
		refused: counters("parley_mqtt_sockets_refused_total",
			"Sockets that got no further than accept: too many in total or from their address, or refused in the handshake.", "reason"),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "parley_mqtt_publish_to_delivery_seconds",
			Help:    "Time from taking a publish to writing it to a subscriber, for each delivery of a live event.",
			Buckets: metrics.Latency(),
		}),
		skipped: counter("parley_mqtt_deliveries_oversize_total", "Publications left out because they are larger than the client takes."),
		stalls:  counter("parley_mqtt_window_stalls_total", "Times that a client had to acknowledge before it could be sent more."),
		slow:    counter("parley_mqtt_slow_disconnects_total", "Clients disconnected because they read nothing for the write timeout."),
		panics: counter("parley_mqtt_panics_recovered_total",
			"Panics in connections, each of which ended that connection only."),
		pumpRuns: counter("parley_mqtt_pump_runs_total", "Times that a connection began to write."),
	}
	for qos, label := range [...]string{"0", "1"} {
		m.deliveries[qos] = deliveries.WithLabelValues(label)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.connections, m.received, m.sent, m.refused, deliveries, m.latency, m.skipped, m.stalls, m.slow, m.panics, m.pumpRuns,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
