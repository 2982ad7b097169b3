package e2e_test

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"
	"testing"
)

// sample is one line of a scrape.
type sample struct {
	name   string
	labels string
	value  float64
}

// scrape gives what Prometheus would get.
func (g *gateway) scrape(tb testing.TB) ([]byte, []sample) {
	tb.Helper()
	body := api{base: "http://" + g.addrs.Metrics}.ok(tb, "GET", "/metrics", nil).body
	var list []sample
	for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			tb.Fatalf("%q: %v", line, err)
		}
		name, labels, _ := strings.Cut(line[:i], "{")
		list = append(list, sample{name, strings.TrimSuffix(labels, "}"), value})
	}
	return body, list
}

// metric gives the sum of the samples of a name whose labels have all the given texts.
func (g *gateway) metric(tb testing.TB, name string, labels ...string) float64 {
	tb.Helper()
	_, list := g.scrape(tb)
	sum := 0.0
next:
	for _, s := range list {
		if s.name != name {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(s.labels, l) {
				continue next
			}
		}
		sum += s.value
	}
	return sum
}
