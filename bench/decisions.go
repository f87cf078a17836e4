package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/bench/counting"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/limit"
)

// decisionKeys are as many as do not fit into the processor's caches.
const decisionKeys = 100_000

// A decider decides in process.
type decider struct {
	name string
	keys int
	many bool    // as many goroutines as there are processors, not one
	aim  float64 // ns of CPU that it may cost; 0 if nobody has said
	// begin makes ready what one goroutine of a round does over and over.
	begin func() func(n int) error
}

// A decision is what one of them took in one round.
type decision struct{ cpu, allocs, rate float64 } // ns, objects, decisions a second

// often grants whatever is asked for here: of a decision to refuse, the most
// costs elsewhere.
var often = count.Quota{Every: time.Microsecond, Burst: 1_000_000}

var errRefused = errors.New("refused what should have passed")

// deciders are all that are measured.
func deciders() ([]decider, error) {
	list := []decider{{"a look at the clock alone", 1, false, 0, func() func(int) error {
		return func(int) error {
			if time.Now().IsZero() {
				return errRefused
			}
			return nil
		}
	}}}
	for _, keys := range []int{1, decisionKeys} {
		for _, many := range []bool{false, true} {
			ours, err := memoryTakes(keys)
			if err != nil {
				return nil, err
			}
			theirs, err := throttledLimits(keys)
			if err != nil {
				return nil, err
			}
			what := fmt.Sprintf(", %d keys", keys)
			if keys == 1 {
				what = ", 1 key"
			}
			if many {
				what += fmt.Sprintf(", %d goroutines", runtime.GOMAXPROCS(0))
			}
			list = append(list, decider{"Merlon, count.Memory" + what, keys, many, 150, ours},
				decider{"throttled, memstore" + what, keys, many, 0, theirs})
		}
	}
	for _, g := range []struct {
		name  string
		rates []limit.By
	}{
		{"Merlon, guard limit, the default", nil},
		{"Merlon, guard limit, with 3 limits more: by client; by user; by tenant and route", []limit.By{{"client"}, {"user"}, {"tenant", "route"}}},
	} {
		begin, err := guardChecks(g.rates)
		if err != nil {
			return nil, err
		}
		list = append(list, decider{g.name, 1, false, 0, begin})
	}
	return list, nil
}

// memoryTakes asks a Memory, with the time of each decision, since throttled
// looks at the clock each time, too.
func memoryTakes(keys int) (func() func(int) error, error) {
	s := count.NewMemory(count.MemoryConfig{})
	all := make([]count.Key, keys)
	for i := range all {
		all[i] = count.Key{}.With("default").With(benchSite).With("/api/**").With(strconv.Itoa(i))
	}
	return func() func(int) error {
		asks, results, ctx := []count.Ask{{Quota: often, Cost: 1}}, make([]count.Result, 1), context.Background()
		return func(n int) error {
			asks[0].Key = all[n%keys]
			if err := s.Take(ctx, asks, results, time.Now()); err != nil {
				return err
			}
			if !results[0].OK {
				return errRefused
			}
			return nil
		}
	}, nil
}

func throttledLimits(keys int) (func() func(int) error, error) {
	s, err := memstore.NewCtx(1 << 20)
	if err != nil {
		return nil, err
	}
	l, err := throttled.NewGCRARateLimiterCtx(s, throttled.RateQuota{MaxRate: throttled.PerSec(1_000_000), MaxBurst: 999_999})
	if err != nil {
		return nil, err
	}
	l.SetMaxCASAttemptsLimit(1000) // many goroutines may want one key at once
	all := make([]string, keys)
	for i := range all {
		all[i] = "default " + benchSite + " /api/** " + strconv.Itoa(i)
	}
	return func() func(int) error {
		ctx := context.Background()
		return func(n int) error {
			refused, _, err := l.RateLimitCtx(ctx, all[n%keys], 1)
			if err == nil && refused {
				err = errRefused
			}
			return err
		}
	}, nil
}

// guardChecks asks the guard, both halves of it, and ends the request. A
// request comes every 10 ms, as many as the default lets one client send.
func guardChecks(more []limit.By) (func() func(int) error, error) {
	var fast limit.Rate
	if err := fast.UnmarshalText([]byte("1000/s")); err != nil {
		return nil, err
	}
	var c limit.Config
	for _, by := range more {
		c.Limits = append(c.Limits, limit.Limit{By: by, Rate: fast})
	}
	guard := func() (*limit.Guard, error) { return limit.New(c, count.NewMemory(count.MemoryConfig{}), nil) }
	if _, err := guard(); err != nil {
		return nil, err
	}
	return func() func(int) error {
		g, _ := guard() // as above; anew, since time begins anew
		r, known := benchRequest("", ""), g.Known()
		r.Route, r.Identity = "/api/**", &merlon.Identity{Subject: benchUser, Tenant: "acme"}
		return func(int) error {
			r.Received = r.Received.Add(10 * time.Millisecond)
			passed := g.Check(r).Passed()
			if known != nil {
				passed = known.Check(r).Passed() && passed
				known.(merlon.Finisher).Done(r, merlon.Outcome{})
			}
			g.Done(r, merlon.Outcome{})
			if !passed {
				return errRefused
			}
			return nil
		}
	}, nil
}

// measure decides until the time is up. Collecting the garbage is part of it.
func (d decider) measure(each time.Duration) (decision, error) {
	workers := 1
	if d.many {
		workers = runtime.GOMAXPROCS(0)
	}
	steps, done, errs := make([]func(int) error, workers), make([]int, workers), make([]error, workers)
	for i := range steps {
		steps[i] = d.begin()
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began, used := time.Now(), counting.Used()
	var wg sync.WaitGroup
	for i, step := range steps {
		wg.Go(func() { done[i], errs[i] = repeat(step, i*decisionKeys/workers, began.Add(each)) })
	}
	wg.Wait()
	used, took := counting.Used()-used, time.Since(began)
	runtime.ReadMemStats(&after)
	n := 0
	for _, m := range done {
		n += m
	}
	return decision{float64(used) / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n), float64(n) / took.Seconds()}, errors.Join(errs...)
}

// repeat takes a step over and over, beginning with a number.
func repeat(step func(int) error, from int, end time.Time) (n int, err error) {
	for n == 0 || time.Now().Before(end) {
		for range inARow {
			if err := step(from + n); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// measureDecisions prints one table. Its arguments are those of runLimit.
func measureDecisions(args []string) error {
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	each, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	list, err := deciders()
	if err != nil {
		return err
	}
	costs := make([][]decision, len(list))
	for round := warmUp; round < rounds; round++ {
		for i, d := range list {
			fmt.Fprintf(os.Stderr, "\rdecisions in process, round %d of %d: %-50s", round+1, rounds, d.name)
			c, err := d.measure(each)
			if err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			if round != warmUp {
				costs[i] = append(costs[i], c)
			}
		}
	}
	fmt.Fprintf(os.Stderr, "\r%110s\r", "")
	fmt.Printf("%s, %d CPUs, %s, %s; %s.\n", cpuModel(), runtime.NumCPU(), runtime.Version(), time.Now().Format("2006-01-02"), busy())
	fmt.Printf("Decisions in process: median (min–max) of %d rounds of %s. All pass. A look at the clock is part of what the counters do; the guard is told the time.\n\n", rounds, each)
	fmt.Print("| | CPU, ns | allocs | decisions/s | aim, ns of CPU |\n|---|---:|---:|---:|---:|\n")
	for i, d := range list {
		aim := ""
		if d.aim > 0 {
			aim = fmt.Sprintf("≤ %.0f", d.aim)
		}
		fmt.Printf("| %s | %s | %.1f | %s | %s |\n", d.name, spread(column(costs[i], func(c decision) float64 { return c.cpu })),
			median(column(costs[i], func(c decision) float64 { return c.allocs })), spread(column(costs[i], func(c decision) float64 { return c.rate })), aim)
	}
	fmt.Println()
	return nil
}

// column is one number of each.
func column[T any](all []T, number func(T) float64) []float64 {
	v := make([]float64, len(all))
	for i, one := range all {
		v[i] = number(one)
	}
	return v
}

// busy tells how busy the machine is with whatever else it does.
func busy() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "load unknown"
	}
	var one, five float64
	_, _ = fmt.Sscan(string(text), &one, &five) // the kernel's own numbers
	return fmt.Sprintf("load average %.1f, %.1f over five minutes", one, five)
}
