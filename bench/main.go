// Command bench compares what gateways cost: CPU time of the gateway's own
// processes per request, in interleaved rounds of one run, with medians and
// the spread. `make bench` runs it.
//
// Every gateway listens on loopback in clear text and passes to the same small
// backend, over kept connections; it is pinned to one core, the load to
// another where there is one. Wall time is not reported: on a shared machine it
// tells about the neighbours. Merlon and a bare Go ReverseProxy are always
// there; nginx, HAProxy, and nginx with ModSecurity and CRS if installed
// (Debian: nginx haproxy libnginx-mod-http-modsecurity modsecurity-crs).
//
//	go run ./bench -rounds 5 -seconds 2 -only merlon,bare
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "serve-backend":
			exit(serveBackend(os.Args[2]))
		case "serve-bare":
			exit(serveBare(os.Args[2], os.Args[3]))
		}
	}
	rounds := flag.Int("rounds", 5, "rounds, of which the median is shown")
	seconds := flag.Float64("seconds", 1, "length of each measurement")
	only := flag.String("only", "", "only these gateways, by the beginning of their names, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, *rounds, time.Duration(*seconds*float64(time.Second)), *only))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, rounds int, each time.Duration, only string) error {
	dir, err := os.MkdirTemp("", "merlon-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "building and starting …")
	b := &bench{dir: dir}
	defer b.stop()
	if err := b.start(only); err != nil {
		return err
	}
	if runtime.NumCPU() > 1 {
		pin(os.Getpid(), runtime.NumCPU()-1)
	}
	loads := workloads()
	results := map[string][]float64{}
	statuses := map[string]int{}
	for round := range rounds {
		for _, w := range loads {
			for _, p := range b.peers {
				fmt.Fprintf(os.Stderr, "\rround %d of %d: %-12s %-40s", round+1, rounds, w.name, p.name)
				before := p.cpu()
				n, status, err := w.fire(ctx, p.addr, each)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", p.name, w.name, err)
				}
				key := p.name + "\x00" + w.name
				results[key] = append(results[key], float64((p.cpu()-before).Microseconds())/float64(n))
				statuses[key] = status
			}
		}
	}
	fmt.Fprintf(os.Stderr, "\r%80s\r", "")
	b.report(loads, results, statuses)
	return nil
}

func (b *bench) report(loads []workload, results map[string][]float64, statuses map[string]int) {
	fmt.Printf("%s, %d CPUs, %s, %s. CPU µs per request: median (min–max).\n\n", cpuModel(), runtime.NumCPU(), runtime.Version(), time.Now().Format("2006-01-02"))
	head, rule := "| |", "|---|"
	for _, w := range loads {
		head += " " + w.name + " |"
		rule += "---:|"
	}
	fmt.Println(head + " resident, after load |\n" + rule + "---:|")
	for _, p := range b.peers {
		row := "| " + p.name + " |"
		for _, w := range loads {
			key := p.name + "\x00" + w.name
			v := slices.Sorted(slices.Values(results[key]))
			row += fmt.Sprintf(" %.0f (%.0f–%.0f)", v[len(v)/2], v[0], v[len(v)-1])
			if s := statuses[key]; s != 200 {
				row += fmt.Sprintf(" →%d", s)
			}
			row += " |"
		}
		fmt.Printf("%s %d MiB |\n", row, p.rss()>>20)
	}
	fmt.Printf("\nMerlon, from start to the first answer: %s (median of %d). Idle: %d MiB resident.\n",
		b.startup.Round(time.Millisecond), startups, b.idle>>20)
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

func median(d []time.Duration) time.Duration {
	slices.SortFunc(d, cmp.Compare[time.Duration])
	return d[len(d)/2]
}
