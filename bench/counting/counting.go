// Package counting is the load on something that counts: clients that ask
// again as soon as they are answered. It runs in the process whose CPU time is
// measured, and its own text is compiled into the programs that Merlon is
// compared with, so that all carry the same load. It needs nothing but the
// standard library.
package counting

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A Round is what is asked of the process: so many clients for so long, who ask
// for one of so many keys each time.
type Round struct {
	Clients, Keys int
	Length        time.Duration
}

// A Cost is how a [Round] went.
type Cost struct {
	Decisions int
	CPU, Took time.Duration // of this process; of the round
	P50, P99  time.Duration
	Error     string `json:",omitempty"`
}

// Ask asks for one unit of a key, which it is to be given. There is one for
// each client.
type Ask func(ctx context.Context, key string) error

// Serve runs each round that it reads a line of, and answers with a line, until
// there are no more.
func Serve(in io.Reader, out io.Writer, client func() Ask) error {
	lines, answers := bufio.NewScanner(in), json.NewEncoder(out)
	for lines.Scan() {
		var r Round
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("a round: %w", err)
		}
		if err := answers.Encode(r.run(client)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (r Round) run(client func() Ask) Cost {
	keys := make([]string, r.Keys)
	for i := range keys {
		keys[i] = "client 2001:db8:0:" + strconv.FormatInt(int64(i), 16) + "::/64 shop.example.com"
	}
	took, errs := make([][]time.Duration, r.Clients), make([]error, r.Clients)
	for i := range took {
		took[i] = make([]time.Duration, 0, 1<<20/r.Clients)
	}
	var wg sync.WaitGroup
	began, used := time.Now(), Used()
	for n := range r.Clients {
		ask := client()
		wg.Go(func() { took[n], errs[n] = r.client(n, keys, ask, took[n], began.Add(r.Length)) })
	}
	wg.Wait()
	c := Cost{CPU: Used() - used, Took: time.Since(began)}
	all := slices.Concat(took...)
	slices.Sort(all)
	if c.Decisions = len(all); c.Decisions > 0 {
		c.P50, c.P99 = all[len(all)/2], all[len(all)*99/100]
	}
	if err := errors.Join(errs...); err != nil {
		c.Error = err.Error()
	}
	return c
}

func (r Round) client(n int, keys []string, ask Ask, took []time.Duration, end time.Time) ([]time.Duration, error) {
	ctx := context.Background()
	for i, now := n*7919, time.Now(); now.Before(end); i++ {
		if err := ask(ctx, keys[i%len(keys)]); err != nil {
			return took, err
		}
		then := time.Now()
		took, now = append(took, then.Sub(now)), then
	}
	return took, nil
}

// Used is the processor time of this process so far.
func Used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it can only be asked wrongly
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
