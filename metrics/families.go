package metrics

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Family describes the metrics of one name.
type Family struct {
	Name   string
	Type   string // counter, gauge, histogram, summary or untyped
	Help   string
	Labels []string // sorted
}

// String returns the family's line in a golden list, such as "parley_x_total counter {code,method}".
func (f Family) String() string {
	line := f.Name + " " + f.Type
	if len(f.Labels) > 0 {
		line += " {" + strings.Join(f.Labels, ",") + "}"
	}
	return line
}

// Families returns, by name, the families of the metrics that a function registers. Unlike what a scrape shows, that includes
// those with labels that have not counted anything yet.
func Families(register func(prometheus.Registerer)) ([]Family, error) {
	rec := &recorder{Registry: prometheus.NewRegistry()}
	register(rec)
	byName := make(map[string]Family)
	for _, c := range rec.collectors {
		descs := describe(c)
		types, err := typesOf(c)
		if err != nil {
			return nil, err
		}
		for _, desc := range descs {
			f, err := parseDesc(desc.String())
			if err != nil {
				return nil, err
			}
			f.Type = types[desc.String()]
			if f.Type == "" {
				f.Type = vectorType(c)
			}
			if other, ok := byName[f.Name]; ok && other.String() != f.String() {
				return nil, fmt.Errorf("%s is registered both as %q and as %q", f.Name, other, f)
			}
			byName[f.Name] = f
		}
	}
	families := make([]Family, 0, len(byName))
	for _, f := range byName {
		families = append(families, f)
	}
	slices.SortFunc(families, func(a, b Family) int { return cmp.Compare(a.Name, b.Name) })
	return families, nil
}

// recorder is a registry that remembers what was registered.
type recorder struct {
	*prometheus.Registry
	collectors []prometheus.Collector
}

func (r *recorder) Register(c prometheus.Collector) error {
	if err := r.Registry.Register(c); err != nil {
		return err
	}
	r.collectors = append(r.collectors, c)
	return nil
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

func describe(c prometheus.Collector) []*prometheus.Desc {
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		c.Describe(ch)
	}()
	var descs []*prometheus.Desc
	for d := range ch {
		descs = append(descs, d)
	}
	return descs
}

// typesOf returns the types of the metrics that a collector has at present, by their description.
func typesOf(c prometheus.Collector) (map[string]string, error) {
	ch := make(chan prometheus.Metric)
	go func() {
		defer close(ch)
		c.Collect(ch)
	}()
	types := make(map[string]string)
	var failed error
	for m := range ch {
		var out dto.Metric
		if err := m.Write(&out); err != nil {
			failed = err
			continue
		}
		types[m.Desc().String()] = metricType(&out)
	}
	return types, failed
}

func metricType(m *dto.Metric) string {
	switch {
	case m.Counter != nil:
		return "counter"
	case m.Gauge != nil:
		return "gauge"
	case m.Histogram != nil:
		return "histogram"
	case m.Summary != nil:
		return "summary"
	default:
		return "untyped"
	}
}

// vectorType returns the type of a vector that has no metrics yet.
func vectorType(c prometheus.Collector) string {
	switch c.(type) {
	case *prometheus.CounterVec:
		return "counter"
	case *prometheus.GaugeVec:
		return "gauge"
	case *prometheus.HistogramVec:
		return "histogram"
	case *prometheus.SummaryVec:
		return "summary"
	default:
		return "untyped"
	}
}

// parseDesc reads the text form of a prometheus.Desc, which is the only way to its contents.
func parseDesc(text string) (Family, error) {
	quoted := `("(?:[^"\\]|\\.)*")`
	form := regexp.MustCompile(`^Desc\{fqName: ` + quoted + `, help: ` + quoted +
		`, (?:unit: ` + quoted + `, )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	match := form.FindStringSubmatch(text)
	if match == nil {
		return Family{}, fmt.Errorf("unexpected description of a metric: %s", text)
	}
	name, err := strconv.Unquote(match[1])
	if err != nil {
		return Family{}, fmt.Errorf("name in %s: %w", text, err)
	}
	help, err := strconv.Unquote(match[2])
	if err != nil {
		return Family{}, fmt.Errorf("help in %s: %w", text, err)
	}
	f := Family{Name: name, Help: help}
	for _, label := range regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`).FindAllStringSubmatch(match[4], -1) {
		f.Labels = append(f.Labels, label[1])
	}
	for label := range strings.SplitSeq(match[5], ",") {
		// A label whose values are constrained is shown as c(label).
		if label = strings.TrimSuffix(strings.TrimPrefix(label, "c("), ")"); label != "" {
			f.Labels = append(f.Labels, label)
		}
	}
	slices.Sort(f.Labels)
	return f, nil
}
