package metricstest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/metrics"
	"github.com/parley-im/parley/metrics/metricstest"
)

// failures records instead of failing.
type failures struct {
	testing.TB
	texts []string
}

func (*failures) Helper() {}

func (f *failures) Errorf(format string, args ...any) {
	f.texts = append(f.texts, fmt.Sprintf(format, args...))
}

func register(r prometheus.Registerer) {
	r.MustRegister(prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_x_total", Help: "X."}, []string{"code"}))
}

func TestRenamedMetricFails(t *testing.T) {
	// Whoever renames a metric breaks dashboards and alerts and is to see that before users do.
	path := filepath.Join(t.TempDir(), "sub", "metrics.txt")
	t.Setenv(metricstest.Update, "1")
	metricstest.Golden(t, path, register)
	t.Setenv(metricstest.Update, "")
	metricstest.Golden(t, path, register)

	if err := os.WriteFile(path, []byte("parley_old_total counter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &failures{TB: t}
	metricstest.Golden(f, path, register)
	got := strings.Join(f.texts, "\n")
	for _, want := range []string{"- parley_old_total counter", "+ parley_x_total counter {code}", path} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestBadNamesFail(t *testing.T) {
	// Milliseconds and counters without _total mislead everybody who knows Prometheus.
	f := &failures{TB: t}
	metricstest.Lint(f, []metrics.Family{
		{Name: "other_total", Type: "counter", Help: "No prefix."},
		{Name: "parley_wait_milliseconds", Type: "histogram", Help: "Not a base unit."},
		{Name: "parley_things", Type: "counter", Help: "No total."},
		{Name: "parley_helpless", Type: "gauge"},
		{Name: "parley_fine_seconds", Type: "histogram", Help: "As it should be.", Labels: []string{"step"}},
	})
	got := strings.Join(f.texts, "\n")
	for _, name := range []string{"other_total", "parley_wait_milliseconds", "parley_things", "parley_helpless"} {
		if !strings.Contains(got, name) {
			t.Errorf("%s passes:\n%s", name, got)
		}
	}
	if strings.Contains(got, "parley_fine") {
		t.Errorf("a good name fails:\n%s", got)
	}
}
