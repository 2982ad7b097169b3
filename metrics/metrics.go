// Package metrics holds what the metrics of all packages have in common: the registry, its HTTP handler, and the buckets of
// histograms. The metrics themselves are declared where they are counted: each package has a metrics.go whose constructor
// takes a prometheus.Registerer.
//
// Names start with parley_ and the package's name, and are in base units (seconds, bytes). A label has few values that are
// known beforehand: never a topic, user, conversation or client id. Package metricstest keeps a golden list of every
// package's metrics, so that renaming one, which breaks somebody's dashboard, is a visible change.
//
// The package imports nothing else of this module.
package metrics

import (
	"errors"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// BuildInfo says which program is running. Empty fields are reported as "unknown".
type BuildInfo struct {
	Version string // of the release, such as v1.2.3
	Commit  string // that it was built from
}

// Registry holds a gateway's metrics. It is a prometheus.Registerer and a prometheus.Gatherer, and safe for concurrent use.
type Registry struct {
	*prometheus.Registry
}

// New returns a registry with the metrics of the Go runtime, of the process and of the build.
func New(build BuildInfo) *Registry {
	r := &Registry{prometheus.NewRegistry()}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "parley_build_info",
		Help: "Which program is running; the value is always 1.",
	}, []string{"version", "commit", "goversion"})
	info.WithLabelValues(known(build.Version), known(build.Commit), runtime.Version()).Set(1)
	err := errors.Join(
		r.Register(collectors.NewGoCollector()),
		r.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
		r.Register(info),
	)
	if err != nil {
		// A new registry refuses these only if one of them is wrong in itself.
		panic(err)
	}
	return r
}

func known(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// Handler serves the metrics in the formats that Prometheus asks for. A collector that fails costs its own metrics and not
// the others'.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: 8,
		Timeout:             10 * time.Second,
	})
}

// Latency returns the buckets for durations, in seconds: 100 µs to 10 s, three per decade.
func Latency() []float64 {
	return []float64{
		0.0001, 0.00025, 0.0005,
		0.001, 0.0025, 0.005,
		0.01, 0.025, 0.05,
		0.1, 0.25, 0.5,
		1, 2.5, 5, 10,
	}
}

// Sizes returns the buckets for sizes, in bytes: 64 B to 1 MiB, in steps of four.
func Sizes() []float64 { return prometheus.ExponentialBuckets(64, 4, 8) }

// Counts returns the buckets for how many things there are in one, such as commands in a batch: 1 to 1024, in steps of two.
func Counts() []float64 { return prometheus.ExponentialBuckets(1, 2, 11) }
