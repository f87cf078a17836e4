// Command timing measures whether the time of an answer tells who has an
// account, and how it is with it: `make timing` runs it, in ten minutes. It is
// no part of make test, since what it needs most is a quiet machine.
//
// The log-in desk is asked in process, over a real store and with the cheapest
// hash that is allowed, so that nothing of a network hides a difference: who
// attacks from elsewhere sees less. Some tries go through a whole gateway. Of which kind the next try of a question is
// is drawn anew each time, so that a machine that slows down slows all, and what
// one try leaves behind does not fall on the same kind. They are compared by Welch's t, as they are and without their
// longest times. Each comparison has a control: the same kind against itself
// must not differ, and a desk that leaks on purpose must be found.
//
// It proves no equality: it says how small a difference it would have seen.
//
//	go run ./test/timing -tries 10000 -for 10m
//	go run ./test/timing -only recover,passkey
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.IntVar(&o.tries, "tries", 10_000, "tries of known and of unknown users at the log-in; of other kinds fewer")
	flag.DurationVar(&o.most, "for", 10*time.Minute, "how long it may take; what is then missing is left out of all kinds alike")
	flag.Float64Var(&o.bound, "bound", 4.5, "the t from which on two kinds differ")
	flag.DurationVar(&o.granted, "granted", time.Microsecond, "a difference that is no fault, since no network shows it")
	only := flag.String("only", "", "only these questions, by the beginning of their names, separated by commas")
	flag.Parse()
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	if o.tries < 2*fewest || o.most <= 0 || o.bound <= 0 || o.granted < 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "timing:", err)
		os.Exit(1)
	}
}

type options struct {
	tries int
	most  time.Duration
	bound float64
	// granted is a difference that counts for none: in process even a map
	// that is fuller shows.
	granted time.Duration
	only    []string
}

func (o options) wanted(name string) bool {
	for _, w := range o.only {
		if strings.HasPrefix(name, strings.TrimSpace(w)) {
			return true
		}
	}
	return len(o.only) == 0
}

// A question is asked by tries of several kinds, which must not be told apart.
type question struct {
	name  string
	share float64 // of -tries, of each kind
	leaks bool    // on purpose: a control, which must be found
	// aside says why a difference would be no fault; empty if it would be one.
	aside string
	kinds []kind // the first is what the others are compared with
	// probe, if there is one, is what somebody asks right behind a try, when
	// what is done behind its answer is still going on. It is told by how much
	// that slows the probe, which is some microseconds at the most.
	probe func(ctx context.Context) error
	// settle, if there is one, is waited for after each try. What is still
	// going on of one try slows the next, whatever its kind.
	settle func()

	took, after [][]time.Duration // of each kind
}

// A kind is one sort of try. ask is what is timed of the i-th.
type kind struct {
	name string
	ask  func(ctx context.Context, i int) error
}

func (q *question) goal(tries int) int { return max(2*fewest, int(q.share*float64(tries))) }

// fewestOf is how many tries there are of each kind so far, at least.
func (q *question) fewestOf() int {
	n := len(q.took[0])
	for _, v := range q.took {
		n = min(n, len(v))
	}
	return n
}

// try makes one try of a kind that is drawn.
func (q *question) try(ctx context.Context) error {
	k := rand.IntN(len(q.kinds))
	began := time.Now()
	err := q.kinds[k].ask(ctx, len(q.took[k]))
	took := time.Since(began)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", q.name, q.kinds[k].name, err)
	}
	q.took[k] = append(q.took[k], took)
	if q.probe != nil {
		began = time.Now()
		err = q.probe(ctx)
		q.after[k] = append(q.after[k], time.Since(began))
		if err != nil {
			return fmt.Errorf("%s: right behind: %w", q.name, err)
		}
	}
	if q.settle != nil {
		q.settle()
	}
	return nil
}

func run(ctx context.Context, o options) error {
	began := time.Now()
	load := loadAverage()
	fmt.Fprint(os.Stderr, "accounts are made …")
	w, err := newWorld(ctx, o.tries)
	if err != nil {
		return err
	}
	defer w.close()
	var list []*question
	for _, q := range w.questions() {
		if o.wanted(q.name) {
			q.took, q.after = make([][]time.Duration, len(q.kinds)), make([][]time.Duration, len(q.kinds))
			list = append(list, q)
		}
	}
	if len(list) == 0 {
		return errors.New("there is no such question")
	}
	if err := ask(ctx, o, list, began.Add(o.most)); err != nil {
		return err
	}
	fmt.Printf("Welch's t of times in process, largest of %d crops; beyond ±%.1f they differ by more than %s. %s, load average %s before and %s after, %s.\n\n",
		len(crops), o.bound, o.granted, cpus(), load, loadAverage(), time.Since(began).Round(time.Second))
	fmt.Print("| question | compared | tries each | median, against | 5 %–95 % | t | difference there | would be seen from | |\n|---|---|---:|---:|---:|---:|---:|---:|---|\n")
	bad := 0
	for _, q := range list {
		bad += q.print(o)
	}
	if bad > 0 {
		return fmt.Errorf("%d comparisons are not as they must be", bad)
	}
	return nil
}

// ask goes around the questions, so that all have got equally far when the
// time is up or somebody stops it.
func ask(ctx context.Context, o options, list []*question, end time.Time) error {
	whole := 0
	for _, q := range list {
		whole = max(whole, q.goal(o.tries))
	}
	shown := time.Time{}
	for step := 1; ; step++ {
		left := 0
		for _, q := range list {
			for q.fewestOf() < min(step*q.goal(o.tries)/whole, q.goal(o.tries)) {
				if err := q.try(ctx); err != nil && ctx.Err() == nil {
					return err
				}
				if ctx.Err() != nil { // what is there is shown
					return nil
				}
			}
			left += q.goal(o.tries) - min(q.fewestOf(), q.goal(o.tries))
		}
		if time.Since(shown) > time.Second {
			shown = time.Now()
			fmt.Fprintf(os.Stderr, "\r%d of %d tries, at most %s more  ", step, whole, time.Until(end).Round(time.Second))
		}
		if left == 0 || time.Now().After(end) {
			break
		}
	}
	fmt.Fprintf(os.Stderr, "\r%60s\r", "")
	return nil
}

// print shows every kind beside the first, and returns how many rows are not
// as they must be.
func (q *question) print(o options) (bad int) {
	row := func(what string, a, b []time.Duration, aside string, control, leaks bool) {
		c := compare(a, b, o.bound, o.granted)
		differ := math.Abs(c.t) > o.bound
		verdict := "alike"
		switch {
		case c.crop == 0:
			verdict = "**too few tries to tell**"
		case leaks && differ:
			verdict = "found, as it must be"
		case leaks:
			verdict = "**a leak is not found**"
		case differ && control:
			verdict = "**the machine cannot tell: too much noise**"
		case differ && aside != "":
			verdict = "differ; " + aside
		case differ:
			verdict = "**differ**"
		}
		if strings.HasPrefix(verdict, "**") {
			bad++
		}
		fmt.Printf("| %s | %s | %d | %s, %s | %s–%s | %.2f | %s in the shortest %.0f %% | %s | %s |\n", q.name, what, min(len(a), len(b)),
			short(quantile(a, 0.5)), short(quantile(b, 0.5)), short(quantile(b, 0.05)), short(quantile(b, 0.95)), c.t, short(c.diff), 100*c.crop, short(c.least), verdict)
	}
	first := q.kinds[0].name
	for k := 1; k < len(q.kinds); k++ {
		row(q.kinds[k].name+" : "+first, q.took[k], q.took[0], q.aside, false, q.leaks)
		if q.probe != nil && !q.leaks {
			row("what follows "+q.kinds[k].name+" : "+first, q.after[k], q.after[0], "only to who asks in that very moment", false, false)
		}
	}
	if !q.leaks {
		var odd, even []time.Duration
		for i, d := range q.took[0] {
			if i%2 == 0 {
				even = append(even, d)
			} else {
				odd = append(odd, d)
			}
		}
		row("control: "+first+" : itself", odd, even, "", true, false)
	}
	return bad
}

// short is a time with three digits.
func short(d time.Duration) string {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d.Abs() >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}
