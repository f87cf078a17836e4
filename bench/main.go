// Command bench compares what gateways cost: CPU time of the gateway's own
// processes per request and how long its clients wait, in interleaved rounds
// of one run, with medians and the spread. `make bench` runs it.
//
// First it compares the engines alone, in process: what Merlon's WAF and what
// Coraza needs to judge a request, garbage collection included and the reading
// of the request taken off. Then what it costs to know who is asking, in
// process and through whole gateways, and what a flood of log-ins does. Then what
// counting costs, in process and in Redis, and what a flood of requests that
// are refused does.
//
// Every gateway listens on loopback in clear text, keeps its connections, logs
// no requests but those it refuses, and passes to the same small backend. It is
// pinned to one core; the load and the backend to another, where there is one.
// In each round all get the same requests, of which no two are alike, or, with
// -mix repeat, one request over and over, which shows what caches are worth.
// Latency is that of a few clients who ask again as soon as they are answered:
// it is for comparison within one run only.
//
// Merlon, a bare Go ReverseProxy, that with Coraza in front, and Caddy, which
// is built from its module, are always there; nginx, HAProxy, and nginx with
// ModSecurity if installed (Debian: nginx haproxy
// libnginx-mod-http-modsecurity modsecurity-crs).
//
//	go run ./bench -rounds 5 -seconds 2 -only merlon,bare -mix repeat
//	go run ./bench -only engine
//	go run ./bench -only identity
//	go run ./bench -only limit -profile profiles
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/merlon-dev/merlon/bench/traffic"
)

type options struct {
	rounds  int
	each    time.Duration
	only    []string
	merlon  string
	repeat  bool
	profile string
}

func main() {
	if len(os.Args) > 3 && (os.Args[1] == engineName || os.Args[1] == identityName || os.Args[1] == decideMode || strings.HasPrefix(os.Args[1], "serve-")) {
		exit(runAs(os.Args[1:]))
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds, of which the median is shown")
	seconds := flag.Float64("seconds", 1, "length of each measurement")
	only := flag.String("only", "", "only these gateways, or engine, identity or limit, by the beginning of their names, separated by commas")
	mix := flag.String("mix", "fresh", "fresh: every request differs; repeat: one is sent over and over")
	flag.StringVar(&o.merlon, "merlon", "", "measure this program instead of building it")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles of the gateway under floods of refused requests into this folder")
	flag.Parse()
	o.each = time.Duration(*seconds * float64(time.Second))
	o.repeat = *mix == "repeat"
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	if *mix != "fresh" && *mix != "repeat" || o.rounds < 1 || o.each <= 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// warmUp is a round that does not count: a process that has just started has
// yet to read its program from the disk.
const warmUp = -1

func run(ctx context.Context, o options) error {
	rest := len(o.only)
	for _, part := range []struct {
		name string
		run  func(context.Context, options) error
	}{{engineName, runEngines}, {identityName, runIdentity}, {limitName, runLimit}} {
		if !wanted(o.only, part.name) {
			continue
		}
		if err := part.run(ctx, o); err != nil {
			return err
		}
		if rest--; rest == 0 {
			return nil // nothing else was asked for
		}
	}
	return runGateways(ctx, o)
}

// runGateways measures what requests cost whole gateways.
func runGateways(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "merlon-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if os.Getuid() == 0 { // nginx's workers are somebody else
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stderr, "building and starting …")
	b := &bench{dir: dir, only: o.only, program: o.merlon}
	defer b.stop()
	if err := b.start(); err != nil {
		return err
	}
	if len(b.peers) == 0 {
		return fmt.Errorf("no gateway can be measured: %s", strings.Join(append(b.missing, o.only...), "; "))
	}
	runtime.GOMAXPROCS(1) // like the core
	pin(os.Getpid(), loadCore())
	r := report{peers: b.peers, samples: map[cell][]sample{}}
	for _, k := range traffic.Kinds() {
		r.loads = append(r.loads, load{kind: k, repeat: o.repeat})
	}
	if err := r.fill(ctx, o); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "\r%90s\r", "")
	r.print(o)
	b.printRest()
	return nil
}

// fill takes the samples, after a round that does not count.
func (r *report) fill(ctx context.Context, o options) error {
	for _, l := range r.loads {
		for _, p := range r.peers {
			if _, err := l.fire(ctx, p.addr, warmUp, o.each/4); err != nil {
				return fmt.Errorf("%s, %s: %w", p.name, l.kind.Name, err)
			}
		}
	}
	for round := range o.rounds {
		for _, l := range r.loads {
			for _, p := range r.peers {
				fmt.Fprintf(os.Stderr, "\rround %d of %d: %-18s %-40s", round+1, o.rounds, l.kind.Name, p.name)
				before := p.cpu()
				a, err := l.fire(ctx, p.addr, round, o.each)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", p.name, l.kind.Name, err)
				}
				r.add(p, l, a, p.cpu()-before)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}
