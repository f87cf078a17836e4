package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"
)

// identityName is what -only calls what it costs to know who is asking.
const identityName = "identity"

// runIdentity measures in process first, in a process of its own that has one
// core, and then whole gateways and their log-ins.
func runIdentity(ctx context.Context, o options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, identityName, strconv.Itoa(o.rounds), (o.each / 10).String())
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	return runSignIn(ctx, o)
}

// A proof is one way to prove who is asking, as a guard checks it.
type proof struct {
	name   string
	target float64 // µs of CPU that it may cost; 0 if nobody has said
	// round makes ready what one round checks. The check that it returns may
	// be called so many times; as often as one likes if that is 0.
	round func() (check func() error, most int, err error)
}

// A price is what one check took in one round.
type price struct{ cpu, wall, allocs float64 } // µs, µs, objects

// measureProofs prints one table. Its arguments are those of runIdentity.
func measureProofs(args []string) (err error) {
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	each, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	pin(os.Getpid(), 0)
	fmt.Fprintf(os.Stderr, "people, sessions, keys and tokens are made …")
	p, err := newPeople()
	defer func() { err = errors.Join(err, p.close()) }()
	if err != nil {
		return err
	}
	list, err := p.proofs()
	if err != nil {
		return err
	}
	prices := make([][]price, len(list))
	for round := warmUp; round < rounds; round++ {
		for i, one := range list {
			fmt.Fprintf(os.Stderr, "\ridentity in process, round %d of %d: %-50s", round+1, rounds, one.name)
			cost, err := one.measure(each)
			if err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			if round != warmUp {
				prices[i] = append(prices[i], cost)
			}
		}
	}
	fmt.Fprintf(os.Stderr, "\r%90s\r", "")
	printProofs(list, prices, rounds, each)
	for _, m := range p.missing {
		fmt.Printf("\nNot measured: %s\n", m)
	}
	fmt.Println()
	return nil
}

// inARow is how many checks are made between two looks at the clock, which
// costs a tenth of the cheapest of them.
const inARow = 64

// measure checks until the time is up, or there is nothing left to check.
// Collecting the garbage is part of it.
func (p proof) measure(each time.Duration) (price, error) {
	check, most, err := p.round()
	if err != nil {
		return price{}, err
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := 0
	began, used := time.Now(), processTime()
	for n == 0 || time.Since(began) < each {
		if most > 0 && n+inARow > most {
			break
		}
		for range inARow {
			if err := check(); err != nil {
				return price{}, err
			}
		}
		n += inARow
	}
	used, took := processTime()-used, time.Since(began)
	runtime.ReadMemStats(&after)
	each1 := func(d time.Duration) float64 { return µs(d) / float64(n) }
	return price{each1(used), each1(took), float64(after.Mallocs-before.Mallocs) / float64(n)}, nil
}

func printProofs(list []proof, prices [][]price, rounds int, each time.Duration) {
	fmt.Printf("Who is asking, in process, per check: median (min–max) of %d rounds of up to %s. CPU is that of this process, so that a Redis server's is in the time alone.\n\n", rounds, each)
	fmt.Print("| | CPU, µs | time, µs | allocs | aim, µs of CPU |\n|---|---:|---:|---:|---:|\n")
	for i, p := range list {
		column := func(number func(price) float64) string {
			var v []float64
			for _, c := range prices[i] {
				v = append(v, number(c))
			}
			return spread(v)
		}
		aim := ""
		if p.target > 0 {
			aim = fmt.Sprintf("≤ %.0f", p.target)
		}
		fmt.Printf("| %s | %s | %s | %s | %s |\n", p.name, column(func(c price) float64 { return c.cpu }),
			column(func(c price) float64 { return c.wall }), column(func(c price) float64 { return c.allocs }), aim)
	}
}
