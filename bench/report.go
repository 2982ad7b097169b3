package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Figure is one thing measured.
type Figure struct {
	Scenario string  `json:"scenario"`
	Name     string  `json:"name"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	// Goal is what the figure should be at least (or at most, see AtMost); 0: it has none.
	Goal   float64 `json:"goal,omitempty"`
	AtMost bool    `json:"atMost,omitempty"`
}

// Met reports whether the figure reaches its goal.
func (f Figure) Met() bool {
	switch {
	case f.Goal == 0:
		return true
	case f.AtMost:
		return f.Value <= f.Goal
	}
	return f.Value >= f.Goal
}

// Report is what one run measured, and where.
type Report struct {
	Machine string   `json:"machine"`
	Store   string   `json:"store"`
	Time    string   `json:"time"`
	Figures []Figure `json:"figures"`

	progress io.Writer
}

func (r *Report) add(f Figure) {
	r.Figures = append(r.Figures, f)
	goal := ""
	if f.Goal != 0 {
		word, mark := "at least", "reached"
		if f.AtMost {
			word = "at most"
		}
		if !f.Met() {
			mark = "MISSED"
		}
		goal = fmt.Sprintf("   (%s %s %s: %s)", word, number(f.Goal), f.Unit, mark)
	}
	_, _ = fmt.Fprintf(r.progress, "  %-8s %-46s %10s %s%s\n", f.Scenario, f.Name, number(f.Value), f.Unit, goal)
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// machine names the processor and what runs on it.
func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				model = strings.TrimSpace(strings.TrimLeft(name, "\t :"))
				break
			}
		}
	}
	return fmt.Sprintf("%d cores, %s, %s/%s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// quantile gives the q-quantile of the durations, which it sorts.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// JSON gives the report for programs.
func (r *Report) JSON() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic(err) // numbers and texts always encode; a NaN would be a defect of a scenario
	}
	return append(b, '\n')
}

// Missed says which goals were not reached; nil: none.
func (r *Report) Missed() error {
	var missed []string
	for _, f := range r.Figures {
		if !f.Met() {
			missed = append(missed, f.Scenario+": "+f.Name)
		}
	}
	if len(missed) == 0 {
		return nil
	}
	return fmt.Errorf("goals missed: %s", strings.Join(missed, "; "))
}
