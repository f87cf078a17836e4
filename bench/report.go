package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A report gathers what was measured and shows it as tables.
type report struct {
	peers   []*peer
	loads   []load
	samples map[cell][]sample // one of each round
}

type cell struct{ peer, kind string }

// A sample is one gateway under one load in one round. Times are in µs.
type sample struct {
	cpu, p50, p99 float64
	n, other      int // requests, and those that were not answered as they should
	status        int // the most frequent
}

func (r *report) add(p *peer, l load, a answers, cpu time.Duration) {
	n := len(a.took)
	s := sample{n: n, cpu: µs(cpu) / float64(n), p50: µs(a.took[n/2]), p99: µs(a.took[n*99/100])}
	want := 200
	if l.kind.Attack && p.waf {
		want = 403
	}
	s.other = n - a.status[want]
	s.status = slices.MaxFunc(slices.Collect(maps.Keys(a.status)), func(x, y int) int { return cmp.Compare(a.status[x], a.status[y]) })
	c := cell{p.name, l.kind.Name}
	r.samples[c] = append(r.samples[c], s)
}

func µs(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func (r *report) print(o options) {
	mix := "every request differs"
	if o.repeat {
		mix = "one request is repeated"
	}
	fmt.Printf("%s, %d CPUs, %s, %s; %s; %d rounds of %s; median (min–max).\n", cpuModel(), runtime.NumCPU(), runtime.Version(),
		time.Now().Format("2006-01-02"), mix, o.rounds, o.each)
	r.table("CPU µs per request", r.names(), func(s sample) float64 { return s.cpu })
	r.table(fmt.Sprintf("Latency of %d clients, p50 µs", clients), r.names(), func(s sample) float64 { return s.p50 })
	r.table(fmt.Sprintf("Latency of %d clients, p99 µs", clients), r.names(), func(s sample) float64 { return s.p99 })
	r.comparisons()
}

func (r *report) names() []string {
	var all []string
	for _, p := range r.peers {
		all = append(all, p.name)
	}
	return all
}

// table shows one number of each gateway and load.
func (r *report) table(title string, rows []string, number func(sample) float64) {
	r.head(title)
	for _, row := range rows {
		fmt.Printf("| %s |", row)
		for _, l := range r.loads {
			all := r.samples[cell{row, l.kind.Name}]
			var v []float64
			for _, s := range all {
				v = append(v, number(s))
			}
			fmt.Printf(" %s%s |", spread(v), verdict(all))
		}
		fmt.Println()
	}
}

func (r *report) head(title string) {
	fmt.Printf("\n| %s |", title)
	for _, l := range r.loads {
		fmt.Printf(" %s |", l.kind.Name)
	}
	fmt.Printf("\n|---|%s\n", strings.Repeat("---:|", len(r.loads)))
}

// A comparison is a number made of the CPU times of two gateways in the same
// round, and of the bare proxy's.
type comparison struct {
	name        string
	over, under string
	make        func(over, under, bare float64) float64
}

// comparisons shows what is above the bare proxy, and in what proportion.
func (r *report) comparisons() {
	var above []comparison
	for _, name := range r.names() {
		if name != bareName {
			above = append(above, comparison{name, name, bareName, func(over, under, _ float64) float64 { return over - under }})
		}
	}
	r.compare("CPU µs above the bare Go ReverseProxy", above)
	whole := func(over, under, _ float64) float64 { return over / under }
	r.compare("CPU, how many times", []comparison{
		{"above bare, Go + Coraza : Merlon", corazaName, merlonName, func(over, under, bare float64) float64 {
			if under <= bare {
				return math.Inf(1) // Merlon cost less than the bare proxy
			}
			return (over - bare) / (under - bare)
		}},
		{"whole, Go + Coraza : Merlon", corazaName, merlonName, whole},
		{"whole, Merlon, all guards : Caddy", merlonName, caddyName, whole},
		{"whole, Merlon, WAF off : Caddy", offName, caddyName, whole},
		{"whole, Merlon, all guards : bare", merlonName, bareName, whole},
	})
}

func (r *report) compare(title string, list []comparison) {
	names := r.names()
	has := func(c comparison) bool {
		return slices.Contains(names, c.over) && slices.Contains(names, c.under) && slices.Contains(names, bareName)
	}
	if !slices.ContainsFunc(list, has) {
		return
	}
	r.head(title)
	for _, c := range list {
		if !has(c) {
			continue
		}
		fmt.Printf("| %s |", c.name)
		for _, l := range r.loads {
			var v []float64
			for round := range r.samples[cell{c.over, l.kind.Name}] {
				cpu := func(peer string) float64 { return r.samples[cell{peer, l.kind.Name}][round].cpu }
				v = append(v, c.make(cpu(c.over), cpu(c.under), cpu(bareName)))
			}
			fmt.Printf(" %s |", spread(v))
		}
		fmt.Println()
	}
}

// spread is the median with the least and the most.
func spread(v []float64) string {
	v = slices.Sorted(slices.Values(v))
	digits := 0
	if math.Abs(v[len(v)/2]) < 10 {
		digits = 2
	}
	if len(v) == 1 {
		return fmt.Sprintf("%.*f", digits, v[0])
	}
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, v[len(v)/2], digits, v[0], digits, v[len(v)-1])
}

// verdict says what was answered if it was not 200, and how many answers were
// not what they should be.
func verdict(all []sample) string {
	n, other := 0, 0
	for _, s := range all {
		n, other = n+s.n, other+s.other
	}
	text := ""
	if s := all[0].status; s != 200 {
		text = fmt.Sprintf(" →%d", s)
	}
	if other > 0 {
		text += fmt.Sprintf(" **%.2g %% wrong**", 100*float64(other)/float64(n))
	}
	return text
}

// printRest tells what is not about single loads.
func (b *bench) printRest() {
	fmt.Println()
	for _, p := range b.peers {
		fmt.Printf("%s: %d MiB resident after the load.\n", p.name, p.rss()>>20)
	}
	if b.startup > 0 {
		fmt.Printf("\nMerlon, from start to the first answer: %s (median of %d). Idle: %d MiB resident.\n",
			b.startup.Round(time.Millisecond), startups, b.idle>>20)
	}
	for _, m := range b.missing {
		fmt.Printf("\nNot measured: %s\n", m)
	}
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func median[T cmp.Ordered](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
