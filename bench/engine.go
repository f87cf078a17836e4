package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"golang.org/x/sys/unix"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/bench/traffic"
	"github.com/merlon-dev/merlon/waf"
)

// engineName is what -only calls the engines.
const engineName = "engine"

// An engine judges requests in process, without a network. Only the phases
// before the upstream is asked are measured.
type engine struct {
	name  string
	judge func(*merlon.Request) (refused bool, err error)
}

// engines are those compared; the first judges nothing, so that what it takes
// to read a request can be taken off the others.
func engines() ([]engine, error) {
	g, err := waf.New(waf.Config{})
	if err != nil {
		return nil, err
	}
	plain, err := newCoraza("")
	if err != nil {
		return nil, err
	}
	filtered, err := newCoraza("SecRxPreFilter On")
	if err != nil {
		return nil, err
	}
	return []engine{
		{"reading", func(*merlon.Request) (bool, error) { return false, nil }},
		{"Merlon", func(r *merlon.Request) (bool, error) {
			d := g.Check(r)
			g.Done(r, merlon.Outcome{})
			return !d.Passed(), nil
		}},
		{"Coraza", corazaJudge(plain)},
		{"Coraza, prefilter", corazaJudge(filtered)},
	}, nil
}

// newCoraza is Coraza with its recommended settings and the whole CRS, and
// nothing logged.
func newCoraza(more string) (coraza.WAF, error) {
	return coraza.NewWAF(coraza.NewWAFConfig().WithRootFS(coreruleset.FS).WithDirectives(`
Include @coraza.conf-recommended
SecRuleEngine On
SecAuditEngine Off
` + more + `
Include @crs-setup.conf.example
Include @owasp_crs/*.conf`))
}

// corazaJudge does what Coraza's own http middleware does before the next
// handler.
func corazaJudge(w coraza.WAF) func(*merlon.Request) (bool, error) {
	return func(r *merlon.Request) (bool, error) {
		tx := w.NewTransaction()
		defer tx.Close()
		tx.ProcessConnection(r.Client.String(), 50124, "", 0)
		tx.ProcessURI(r.URL.String(), r.Method, r.Proto)
		for name, values := range r.Header {
			for _, v := range values {
				tx.AddRequestHeader(name, v)
			}
		}
		tx.AddRequestHeader("Host", r.Host)
		tx.SetServerName(r.Host)
		if tx.ProcessRequestHeaders() != nil {
			return true, nil
		}
		if it, _, err := tx.ReadRequestBodyFrom(r.Body); it != nil || err != nil {
			return it != nil, err
		}
		it, err := tx.ProcessRequestBody()
		return it != nil, err
	}
}

// runEngines measures in a process of its own, which has one core.
func runEngines(ctx context.Context, o options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, engineName, strconv.Itoa(o.rounds), o.each.String())
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// mostFresh bounds the memory for requests that all differ. An engine that has
// judged them all before the time is up is measured by those.
const mostFresh = 20_000

// measureEngines prints one table. Its arguments are those of runEngines.
func measureEngines(args []string) error {
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	each, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	pin(os.Getpid(), 0)
	list, err := engines()
	if err != nil {
		return err
	}
	t := engineTable{list: list}
	for _, fresh := range []bool{true, false} {
		for _, k := range traffic.Kinds() {
			t.rows = append(t.rows, engineRow{kind: k, fresh: fresh, costs: make([][]cost, len(list))})
		}
	}
	for round := warmUp; round < rounds; round++ {
		for i := range t.rows {
			r := &t.rows[i]
			fmt.Fprintf(os.Stderr, "\rengines, round %d of %d: %-30s", round+1, rounds, r.kind.Name)
			wires := r.wires(round)
			for n, e := range list {
				if round == warmUp {
					_, err = e.measure(wires, r.kind.Attack, each/4)
				} else {
					var c cost
					c, err = e.measure(wires, r.kind.Attack, each)
					r.costs[n] = append(r.costs[n], c)
				}
				if err != nil {
					return fmt.Errorf("%s, %s: %w", e.name, r.kind.Name, err)
				}
			}
		}
	}
	fmt.Fprintf(os.Stderr, "\r%90s\r", "")
	t.print(rounds, each)
	return nil
}

// A cost is what one request took of an engine in one round.
type cost struct {
	cpu, allocs float64 // µs; objects
	wrong       int     // verdicts that were not as they should be
}

// measure judges requests until the time is up. Reading them is part of it, as
// is collecting the garbage, so that the processor is never stopped to prepare.
func (e engine) measure(wires [][]byte, attack bool, each time.Duration) (cost, error) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	wrong, n := 0, 0
	began, used := time.Now(), processTime()
	for ; n == 0 || time.Since(began) < each; n++ {
		if n == len(wires) && len(wires) > 1 {
			break
		}
		hr, err := traffic.Parse(wires[n%len(wires)])
		if err != nil {
			return cost{}, err
		}
		refused, err := e.judge(merlon.NewRequest(hr))
		if err != nil {
			return cost{}, err
		}
		if refused != attack {
			wrong++
		}
	}
	used = processTime() - used
	runtime.ReadMemStats(&after)
	return cost{cpu: µs(used) / float64(n), allocs: float64(after.Mallocs-before.Mallocs) / float64(n), wrong: wrong}, nil
}

func processTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // it can only be asked wrongly
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type engineRow struct {
	kind  traffic.Kind
	fresh bool
	costs [][]cost // of each engine, in each round
}

// wires are a round's requests, the same for every engine.
func (r *engineRow) wires(round int) [][]byte {
	if !r.fresh {
		return [][]byte{r.kind.Repeat(1).Next()}
	}
	s := r.kind.Fresh(uint64(round+1), 1000)
	all := make([][]byte, mostFresh)
	for i := range all {
		all[i] = bytes.Clone(s.Next())
	}
	return all
}

type engineTable struct {
	list []engine
	rows []engineRow
}

func (t *engineTable) print(rounds int, each time.Duration) {
	fmt.Printf("Engines in process, CPU µs and allocations per request: median (min–max) of %d rounds of %s. Fresh: every request differs; repeated: one is judged over and over.\n\n| |", rounds, each)
	rule := "|---|"
	for _, e := range t.list[1:] {
		fmt.Printf(" %s, µs | allocs |", e.name)
		rule += "---:|---:|"
	}
	for _, e := range t.list[2:] {
		fmt.Printf(" %s : %s |", e.name, t.list[1].name)
		rule += "---:|"
	}
	fmt.Println("\n" + rule)
	wrong := map[string]int{}
	for _, r := range t.rows {
		how := "repeated"
		if r.fresh {
			how = "fresh"
		}
		fmt.Printf("| %s, %s |", r.kind.Name, how)
		for i, e := range t.list[1:] {
			cpu := r.above(i+1, func(c cost) float64 { return c.cpu })
			allocs := r.above(i+1, func(c cost) float64 { return c.allocs })
			fmt.Printf(" %s | %.0f |", spread(cpu), median(allocs))
			for _, c := range r.costs[i+1] {
				wrong[e.name] += c.wrong
			}
		}
		ours := r.above(1, func(c cost) float64 { return c.cpu })
		for i := range t.list[2:] {
			ratio := r.above(i+2, func(c cost) float64 { return c.cpu })
			for round := range ratio {
				ratio[round] /= ours[round]
			}
			fmt.Printf(" %s |", spread(ratio))
		}
		fmt.Println()
	}
	for name, n := range wrong {
		if n > 0 {
			fmt.Printf("\n%s: %d wrong verdicts.\n", name, n)
		}
	}
	fmt.Println()
}

// above is what an engine took in each round above reading the request.
func (r *engineRow) above(engine int, number func(cost) float64) []float64 {
	v := make([]float64, len(r.costs[engine]))
	for round, c := range r.costs[engine] {
		v[round] = number(c) - number(r.costs[0][round])
	}
	return v
}
