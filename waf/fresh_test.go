package waf_test

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/bench/traffic"
	"github.com/merlon-dev/merlon/waf"
)

// What requests cost of which no two are alike. Reading them is part of it;
// what that costs alone is measured beside.
func BenchmarkFresh(b *testing.B) {
	g, err := waf.New(waf.Config{})
	if err != nil {
		b.Fatal(err)
	}
	for _, k := range traffic.Kinds() {
		fresh := k.Fresh(1, 1000)
		wires := make([][]byte, 20_000)
		for i := range wires {
			wires[i] = bytes.Clone(fresh.Next())
		}
		for _, what := range []string{"read", "judged"} {
			b.Run(k.Name+"/"+what, func(b *testing.B) {
				b.ReportAllocs()
				began := usedTime()
				for i := 0; b.Loop(); i++ {
					hr, err := traffic.Parse(wires[i%len(wires)])
					if err != nil {
						b.Fatal(err)
					}
					r := merlon.NewRequest(hr)
					if what == "judged" {
						if g.Check(r).Passed() == k.Attack {
							b.Fatal("a wrong verdict")
						}
						g.Done(r, merlon.Outcome{})
					}
				}
				b.ReportMetric(float64(usedTime()-began)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// usedTime is the processor time of the process, in ns.
func usedTime() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it can only be asked wrongly
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
