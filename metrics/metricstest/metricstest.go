// Package metricstest keeps the names of metrics stable: a package's test compares what its metrics.go registers with a
// golden list, and checks it against Prometheus's own rules for names and units.
package metricstest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/parley-im/parley/metrics"
)

// Update is the environment variable that, when it is not empty, makes [Golden] write the list instead of comparing it.
const Update = "PARLEY_TEST_UPDATE"

// Golden fails a test if the metrics that register registers are not those that the file at path lists, one line each as
// [metrics.Family.String] has them, or if one of them has a name without the prefix parley_, no help text, or a unit that
// Prometheus advises against.
//
//	metricstest.Golden(t, "testdata/metrics.txt", func(r prometheus.Registerer) { newMetrics(r) })
func Golden(tb testing.TB, path string, register func(prometheus.Registerer)) {
	tb.Helper()
	families, err := metrics.Families(register)
	if err != nil {
		tb.Fatal(err)
	}
	Lint(tb, families)
	var list strings.Builder
	for _, f := range families {
		list.WriteString(f.String() + "\n")
	}
	if os.Getenv(Update) != "" {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(list.String()), 0o644)); err != nil {
			tb.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	if string(want) == list.String() {
		return
	}
	tb.Errorf("the metrics differ from %s (run the test with %s=1 to accept, and tell users in CHANGELOG.md):", path, Update)
	for line := range difference(string(want), list.String()) {
		tb.Errorf("  - %s", line)
	}
	for line := range difference(list.String(), string(want)) {
		tb.Errorf("  + %s", line)
	}
}

// Lint fails a test for each family that is not named by the rules.
func Lint(tb testing.TB, families []metrics.Family) {
	tb.Helper()
	var mfs []*dto.MetricFamily
	for _, f := range families {
		if !strings.HasPrefix(f.Name, "parley_") {
			tb.Errorf("%s: the names of metrics start with parley_", f.Name)
		}
		mfs = append(mfs, family(f))
	}
	problems, err := promlint.NewWithMetricFamilies(mfs).Lint()
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range problems {
		tb.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// family returns a family as a scrape would show it, with one metric.
func family(f metrics.Family) *dto.MetricFamily {
	kind, m := dto.MetricType_UNTYPED, &dto.Metric{}
	switch f.Type {
	case "counter":
		kind, m.Counter = dto.MetricType_COUNTER, &dto.Counter{}
	case "gauge":
		kind, m.Gauge = dto.MetricType_GAUGE, &dto.Gauge{}
	case "histogram":
		kind, m.Histogram = dto.MetricType_HISTOGRAM, &dto.Histogram{}
	case "summary":
		kind, m.Summary = dto.MetricType_SUMMARY, &dto.Summary{}
	}
	for _, label := range f.Labels {
		m.Label = append(m.Label, &dto.LabelPair{Name: &label, Value: new(string)})
	}
	mf := &dto.MetricFamily{Name: &f.Name, Type: &kind, Metric: []*dto.Metric{m}}
	if f.Help != "" {
		mf.Help = &f.Help
	}
	return mf
}

// difference returns the lines of a that are not in b.
func difference(a, b string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(a) {
			if !strings.Contains("\n"+b, "\n"+line) && !yield(strings.TrimSuffix(line, "\n")) {
				return
			}
		}
	}
}
