package gateway

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/metrics"
)

// gatewayMetrics are the gateway's own; no label ever carries a user, a conversation or a client id.
type gatewayMetrics struct {
	sessions      prometheus.Gauge
	commands      *prometheus.CounterVec
	queued        prometheus.Gauge
	batchSize     prometheus.Histogram
	commitSeconds prometheus.Histogram
	commitRetries prometheus.Counter
	ackSeconds    prometheus.Histogram
	catchupReads  prometheus.Counter
	limited       *prometheus.CounterVec
	flushSeconds  prometheus.Histogram
	signals       prometheus.Counter
	wills         *prometheus.CounterVec

	flushedPositions prometheus.Counter
	panics           prometheus.Counter
	presenceChanges  prometheus.Counter
	presenceNotices  prometheus.Counter
}

func newGatewayMetrics(reg prometheus.Registerer, g *Gateway) (*gatewayMetrics, error) {
	latency := metrics.Latency()
	m := &gatewayMetrics{
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "parley_sessions", Help: "Connected sessions.",
		}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_commands_total", Help: "Commands answered, by name and result: ok or the code of the refusal.",
		}, []string{"command", "result"}),
		queued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "parley_commit_queue_commands", Help: "Commands that wait for a committer.",
		}),
		batchSize: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "parley_commit_batch_commands", Help: "Commands committed in one transaction.",
			Buckets: metrics.Counts(),
		}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "parley_commit_duration_seconds", Help: "Time of one attempt to commit a batch.", Buckets: latency,
		}),
		commitRetries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_commit_retries_total", Help: "Batches given to the store again after an unknown outcome.",
		}),
		ackSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "parley_command_duration_seconds", Buckets: latency,
			Help: "Time from taking a command that changes something to its answer.",
		}),
		catchupReads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_delivery_store_reads_total", Help: "Pages read from the store for sessions that were behind.",
		}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_limits_reached_total",
			Help: "Logins and subscriptions refused, and sessions ended because too much waited for them, by limit.",
		}, []string{"limit"}),
		flushSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "parley_position_flush_duration_seconds", Buckets: latency,
			Help: "Time to write the positions of durable sessions and the delivered marks of about a second.",
		}),
		flushedPositions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_positions_written_total", Help: "Positions of durable sessions written to the store.",
		}),
		signals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_signals_total", Help: "Signals given to sessions.",
		}),
		wills: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_wills_total",
			Help: "Wills of sessions that were lost: sent, refused by the rules by then, failed, or cancelled by the device's return.",
		}, []string{"outcome"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_gateway_panics_total", Help: "Panics recovered in the gateway.",
		}),
		presenceChanges: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_presence_changes_total", Help: "Changes of presence told, the newest of a user counted once a round.",
		}),
		presenceNotices: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_presence_watchers_told_total", Help: "Connected users told of changes of a user that they subscribed to.",
		}),
	}
	for _, outcome := range []string{willSent, willRefused, willFailed, willCancelled} {
		m.wills.WithLabelValues(outcome)
	}
	if reg == nil {
		return m, nil
	}
	collectors := []prometheus.Collector{
		m.sessions, m.commands, m.queued, m.batchSize, m.commitSeconds, m.commitRetries, m.ackSeconds, m.catchupReads,
		m.limited, m.panics, m.flushSeconds, m.flushedPositions, m.signals, m.wills, m.presenceChanges, m.presenceNotices,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "parley_present_users", Help: "Users who have set a status and are not offline.",
		}, func() float64 { return float64(g.presence.count()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "parley_delivery_lagging_sessions", Help: "Sessions for which events are due.",
		}, func() float64 { lagging, _ := g.lag(); return lagging }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "parley_delivery_lag_events", Help: "Events due to sessions, all together.",
		}, func() float64 { _, events := g.lag(); return events }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "parley_active_conversations", Help: "Conversations whose head and newest events are in memory.",
		}, func() float64 { return float64(g.hub.streamCount()) }),
	}
	var errs []error
	for _, c := range collectors {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// The values of the label limit.
const (
	limitSessions      = "sessions"
	limitUserSessions  = "sessions-per-user"
	limitSubscriptions = "subscriptions"
	limitWaiting       = "waiting"
	limitWaitingTotal  = "waiting-total"
)

// The values of the label outcome of wills.
const (
	willSent      = "sent"
	willRefused   = "refused"
	willFailed    = "failed"
	willCancelled = "cancelled"
)

// command counts an answered command. Names that clients made up are one label.
func (m *gatewayMetrics) command(name string, err error) {
	if name == "" {
		name = "unknown"
	}
	result := "ok"
	if code := domain.CodeOf(err); code != "" {
		result = string(code)
	}
	m.commands.WithLabelValues(name, result).Inc()
}

func (m *gatewayMetrics) observeBatch(n int) { m.batchSize.Observe(float64(n)) }

// lag gives how many sessions have events due, and how many these are.
func (g *Gateway) lag() (sessions, events float64) {
	for _, s := range g.hub.all() {
		s.mu.Lock()
		if len(s.behind) > 0 {
			sessions++
		}
		for _, c := range s.behind {
			for _, sp := range c.spans {
				events += float64(sp.last - sp.next + 1)
			}
		}
		s.mu.Unlock()
	}
	return sessions, events
}
