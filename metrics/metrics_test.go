package metrics_test

import (
	"bytes"
	"io"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/metrics"
)

func scrape(t *testing.T, r *metrics.Registry) string {
	t.Helper()
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if rec.Code != 200 || !strings.HasPrefix(rec.Header().Get("Content-Type"), "text/plain") {
		t.Fatalf("status %d, type %s", rec.Code, rec.Header().Get("Content-Type"))
	}
	body, err := io.ReadAll(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestScrapeTellsBuildRuntimeAndProcess(t *testing.T) {
	// The first question on every incident: which version is running where, and since when.
	body := scrape(t, metrics.New(metrics.BuildInfo{Version: "v1.2.3", Commit: "abc"}))
	for _, want := range []string{`version="v1.2.3"`, `commit="abc"`, "\ngo_goroutines ", "parley_build_info{"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	if body := scrape(t, metrics.New(metrics.BuildInfo{})); !strings.Contains(body, `version="unknown"`) {
		t.Errorf("an unknown version is shown as something else:\n%s", body)
	}
}

func TestTwoRegistriesDoNotShareAnything(t *testing.T) {
	// Several gateways run in one process in tests.
	one, two := metrics.New(metrics.BuildInfo{}), metrics.New(metrics.BuildInfo{})
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_test_total", Help: "Tests."})
	if err := one.Register(c); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(scrape(t, two), "parley_test_total") {
		t.Error("a metric of one registry shows up in another")
	}
}

func TestPromtoolAcceptsAScrape(t *testing.T) {
	// Prometheus itself is the judge of what it can read.
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing: `make promtool` (package metricstest checks the names by the same rules)")
	}
	r := metrics.New(metrics.BuildInfo{Version: "v1.2.3", Commit: "abc"})
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "parley_test_duration_seconds", Help: "Tests.", Buckets: metrics.Latency(),
	})
	if err := r.Register(h); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(scrape(t, r))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestBucketsRiseAndCoverTheirRange(t *testing.T) {
	// A histogram whose buckets are not sorted panics when it is made; one whose range is too narrow tells nothing.
	for name, c := range map[string]struct {
		buckets     []float64
		first, last float64
	}{
		"Latency": {metrics.Latency(), 100e-6, 10},
		"Sizes":   {metrics.Sizes(), 64, 1 << 20},
		"Counts":  {metrics.Counts(), 1, 1024},
	} {
		b := c.buckets
		if !slices.IsSorted(b) || b[0] != c.first || b[len(b)-1] != c.last {
			t.Errorf("%s: %v, want %v to %v", name, b, c.first, c.last)
		}
	}
}

func TestFamiliesShowWhatHasNotCountedYet(t *testing.T) {
	// A golden list made from a scrape misses the metrics that matter most: those of failures.
	families, err := metrics.Families(func(r prometheus.Registerer) {
		r.MustRegister(
			prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_a_total", Help: "A \"quoted\" help, with: {braces}."}),
			prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_b_total", Help: "B."}, []string{"method", "code"}),
			prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "parley_c", Help: "C.", ConstLabels: prometheus.Labels{"kind": `x"y`}}, nil),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_d", Help: "D."}, func() float64 { return 1 }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "parley_e_total", Help: "E."}, func() float64 { return 1 }),
			prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "parley_f_seconds", Help: "F."}, []string{"step"}),
			prometheus.NewSummary(prometheus.SummaryOpts{Name: "parley_g_bytes", Help: "G."}),
			prometheus.V2.NewGaugeVec(prometheus.GaugeVecOpts{
				GaugeOpts: prometheus.GaugeOpts{Name: "parley_h", Help: "H."},
				VariableLabels: prometheus.ConstrainedLabels{
					{Name: "state", Constraint: strings.ToLower},
				},
			}),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for _, f := range families {
		got.WriteString(f.String() + "\n")
	}
	want := `parley_a_total counter
parley_b_total counter {code,method}
parley_c gauge {kind}
parley_d gauge
parley_e_total counter
parley_f_seconds histogram {step}
parley_g_bytes summary
parley_h gauge {state}
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
	if want := `A "quoted" help, with: {braces}.`; families[0].Help != want {
		t.Errorf("help is %q, want %q", families[0].Help, want)
	}
}
