package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/bench/counting"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
)

// What redisrate.go.txt is built from, outside this module.
const (
	redisRateModule = "github.com/go-redis/redis_rate/v10@v10.0.1"
	goRedisModule   = "github.com/redis/go-redis/v9@v9.23.0"
)

//go:embed redisrate.go.txt
var redisRateProgram string

// Who counts in Redis, in processes of their own.
const (
	limitsName    = "Merlon"
	fallbackName  = "Merlon, with its fallback, as the gateway counts"
	leaseName     = "Merlon, with fallback and a lease of 20"
	redisRateName = "redis_rate"
)

const (
	countedKeys = 1000
	hotKeys     = 10
	// comparedClients is how many there are where the aim is.
	comparedClients = 64
)

// A counter is a process that counts in Redis.
type counter struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// A counted is what a decision took in one round: µs, and decisions a second.
type counted struct{ client, server, p50, p99, rate float64 }

// A counterCell is one column of one counter.
type counterCell struct {
	name    string
	clients int
	keys    int
}

// runCounting compares what counts in one Redis.
func runCounting(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "merlon-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, socket, err := startRedis(dir)
	if err != nil {
		fmt.Printf("Not measured: counting in Redis: %v\n", err)
		return nil
	}
	defer server.end()
	list, missing, err := startCounters(dir, socket)
	defer func() {
		for _, c := range list {
			c.end()
		}
	}()
	if err != nil {
		return err
	}
	each, costs := o.each/4, map[counterCell][]counted{}
	var cells []counterCell
	for _, at := range [][2]int{{1, countedKeys}, {comparedClients, countedKeys}, {256, countedKeys}, {comparedClients, hotKeys}} {
		for _, c := range list {
			cells = append(cells, counterCell{c.name, at[0], at[1]})
		}
	}
	for round := warmUp; round < o.rounds; round++ {
		for i, cell := range cells {
			fmt.Fprintf(os.Stderr, "\rcounting in Redis, round %d of %d: %3d clients: %-50s", round+1, o.rounds, cell.clients, cell.name)
			one, err := list[i%len(list)].run(ctx, server, counting.Round{Clients: cell.clients, Keys: cell.keys, Length: each})
			if err != nil {
				return fmt.Errorf("%s: %w", cell.name, err)
			}
			if round != warmUp {
				costs[cell] = append(costs[cell], one)
			}
		}
	}
	fmt.Fprintf(os.Stderr, "\r%110s\r", "")
	printCounted(cells, costs, o.rounds, each)
	for _, m := range missing {
		fmt.Printf("\nNot measured: %s\n", m)
	}
	return nil
}

// startRedis starts a server of our own that listens on a socket only.
func startRedis(dir string) (p *peer, socket string, err error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, "", errors.New("redis-server is not installed (Debian: redis-server)")
	}
	socket = filepath.Join(dir, "redis")
	cmd := exec.Command(program, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700", "--save", "", "--appendonly", "no", "--dir", dir)
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	p = &peer{name: "redis-server", pid: cmd.Process.Pid, done: make(chan struct{}), stop: cmd.Process.Signal}
	go func() { _ = cmd.Wait(); close(p.done) }() // nothing is to be kept
	pin(p.pid, loadCore())
	for range 500 {
		if c, err := redis.Dial(secrets.New("unix://" + socket)); err == nil {
			c.Close()
			return p, socket, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.end()
	return nil, "", errors.New("redis-server does not answer")
}

// startCounters starts all that are compared.
func startCounters(dir, socket string) (list []*counter, missing []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range []string{limitsName, fallbackName, leaseName} {
		c, err := startCounter(name, self, countMode, socket, name)
		if err != nil {
			return list, nil, err
		}
		list = append(list, c)
	}
	program, err := buildRedisRate(dir)
	if err == nil {
		var c *counter
		if c, err = startCounter(redisRateName, program, socket); err == nil {
			return append(list, c), nil, nil
		}
	}
	reason := strings.TrimSpace(err.Error())
	return list, []string{redisRateName + ": " + reason[:min(len(reason), 600)]}, nil
}

// buildRedisRate builds the peer in a module of its own.
func buildRedisRate(dir string) (program string, err error) {
	module := filepath.Join(dir, "redisrate")
	for name, text := range map[string]string{
		"go.mod": "module redisrate\n\ngo 1.26\n", "main.go": redisRateProgram, "counting/counting.go": counting.Source,
	} {
		file := filepath.Join(module, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	program = filepath.Join(dir, "counts-with-redis_rate")
	for _, args := range [][]string{{"get", redisRateModule, goRedisModule}, {"build", "-o", program, "."}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("cannot be built: %w\n%s", err, out)
		}
	}
	return program, nil
}

// startCounter starts a process that serves rounds, on one core.
func startCounter(name, program string, args ...string) (*counter, error) {
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), "GOMAXPROCS=1"), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pin(cmd.Process.Pid, 0)
	return &counter{name, cmd, in, bufio.NewReader(out)}, nil
}

func (c *counter) end() {
	_ = c.in.Close() // it ends when nothing more comes
	time.AfterFunc(5*time.Second, func() { _ = c.cmd.Process.Kill() })
	_ = c.cmd.Wait()
}

func (c *counter) run(ctx context.Context, server *peer, r counting.Round) (counted, error) {
	before := server.cpu()
	if err := json.NewEncoder(c.in).Encode(r); err != nil {
		return counted{}, err
	}
	line, err := c.out.ReadBytes('\n')
	if err != nil {
		return counted{}, err
	}
	served := server.cpu() - before
	var a counting.Cost
	if err := json.Unmarshal(line, &a); err != nil {
		return counted{}, err
	}
	if a.Error != "" || a.Decisions == 0 {
		return counted{}, fmt.Errorf("%d decisions: %s", a.Decisions, a.Error)
	}
	n := float64(a.Decisions)
	return counted{µs(a.CPU) / n, µs(served) / n, µs(a.P50), µs(a.P99), n / a.Took.Seconds()}, ctx.Err()
}

// serveCounting is a process that counts in Redis as one of Merlon's stores.
func serveCounting(socket, name string) error {

	c, err := redis.DialLimits(secrets.New("unix://" + socket))
	if err != nil {
		return err
	}
	defer c.Close()
	limits := redis.NewLimits(c)
	defer limits.Close()
	var s count.Store = limits
	if name != limitsName {
		// On a machine that is busy with other things, too, an answer may take
		// long; which of them counts is not what is measured here.
		lenient := count.FallbackConfig{Timeout: 5 * time.Second}
		f := count.NewFallback(lenient, limits, count.NewMemory(count.MemoryConfig{}), func() int { return 1 }, func(n count.Notice) {
			fmt.Fprintf(os.Stderr, "\n%s: %s %v\n", name, n.Event, n.Err)
		})
		defer f.Close()
		s = f
	}
	if name == leaseName {
		l := count.NewLease(20, 200*time.Millisecond, s)
		defer l.Close()
		s = l
	}
	return counting.Serve(os.Stdin, os.Stdout, func() counting.Ask {
		asks, results := []count.Ask{{Quota: often, Cost: 1}}, make([]count.Result, 1)
		return func(ctx context.Context, key string) error {
			asks[0].Key = asks[0].Key[:0].With(key)
			err := s.Take(ctx, asks, results, time.Now())
			if err == nil && !results[0].OK {
				err = errRefused
			}
			return err
		}
	})
}

func printCounted(cells []counterCell, costs map[counterCell][]counted, rounds int, each time.Duration) {
	fmt.Printf("Decisions in one Redis, over a socket: median (min–max) of %d rounds of %s; %s. %d keys, or %d that are hot. Who counts has one core, Redis another, where there is one.\n\n",
		rounds, each, busy(), countedKeys, hotKeys)
	fmt.Print("| clients | | its own CPU, µs | Redis's CPU, µs | decisions/s | p50, µs | p99, µs |\n|---|---|---:|---:|---:|---:|---:|\n")
	for _, c := range cells {
		show := func(number func(counted) float64) string { return spread(column(costs[c], number)) }
		fmt.Printf("| %s | %s | %s | %s | %s | %s | %s |\n", c.where(), c.name, show(func(c counted) float64 { return c.client }), show(func(c counted) float64 { return c.server }),
			show(func(c counted) float64 { return c.rate }), show(func(c counted) float64 { return c.p50 }), show(func(c counted) float64 { return c.p99 }))
	}
	fmt.Print("\n| CPU, how many times: redis_rate to | clients | its own | Redis's | both |\n|---|---|---:|---:|---:|\n")
	for _, c := range cells {
		theirs := costs[counterCell{redisRateName, c.clients, c.keys}]
		if c.name == redisRateName || len(theirs) == 0 {
			continue
		}
		ratio := func(number func(counted) float64) string {
			over, under := column(theirs, number), column(costs[c], number)
			for round := range over {
				over[round] /= under[round]
			}
			return spread(over)
		}
		fmt.Printf("| %s | %s | %s | %s | %s |\n", c.name, c.where(), ratio(func(c counted) float64 { return c.client }), ratio(func(c counted) float64 { return c.server }),
			ratio(func(c counted) float64 { return c.client + c.server }))
	}
	if slices.ContainsFunc(cells, func(c counterCell) bool { return c.name == redisRateName }) {
		fmt.Printf("\nThe aim is 5 times with %d clients.\n", comparedClients)
	}
}

func (c counterCell) where() string {
	if c.keys == hotKeys {
		return fmt.Sprintf("%d, hot keys", c.clients)
	}
	return fmt.Sprint(c.clients)
}
