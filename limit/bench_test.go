package limit_test

import (
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/merlontest"
)

// A whole request: Check and Done, with fields.
func BenchmarkCheck(b *testing.B) { benchCheck(b, limit.Config{}) }

// Two more limits, in the same trip to the store.
func BenchmarkCheckThreeLimits(b *testing.B) {
	benchCheck(b, limit.Config{Limits: []limit.Limit{
		{By: limit.By{"client"}, Rate: rate(b, "1000/s")}, {By: limit.By{"network"}, Rate: rate(b, "1000/s")},
	}})
}

// Another two that need to know who is asking.
func BenchmarkCheckKnown(b *testing.B) {
	benchCheck(b, limit.Config{Limits: []limit.Limit{
		{By: limit.By{"user", "route"}, Rate: rate(b, "1000/s")}, {By: limit.By{"tenant"}, Quota: limit.Quota{Count: 1_000_000_000, Per: limit.Month}},
	}})
}

func benchCheck(b *testing.B, c limit.Config) {
	g := newGuard(b, c, count.NewMemory(count.MemoryConfig{}))
	r := merlontest.Request(b, "GET /")
	r.Site, r.Route, r.Identity = "shop.example.com", "/api/**", &merlon.Identity{Subject: "ann", Tenant: "acme"}
	n, known := 0, g.Known()
	b.ReportAllocs()
	for b.Loop() {
		r.Received = r.Received.Add(10 * time.Millisecond)
		d := g.Check(r)
		if known != nil {
			d = known.Check(r)
			known.(merlon.Finisher).Done(r, merlon.Outcome{})
		}
		if d.Passed() {
			n++
		}
		g.Done(r, merlon.Outcome{})
	}
	if n == 0 {
		b.Error("nothing passed")
	}
}

// The way that every request goes must not burden the collector.
func TestCheckAllocatesNothing(t *testing.T) {
	for name, c := range map[string]limit.Config{
		"the default":  {},
		"three limits": {Limits: []limit.Limit{{By: limit.By{"client"}, Rate: rate(t, "1000/s")}, {By: limit.By{"network"}, Rate: rate(t, "1000/s")}}},
	} {
		g := newGuard(t, c, count.NewMemory(count.MemoryConfig{}))
		r := merlontest.Request(t, "GET /")
		r.Site, r.Route = "shop.example.com", "/api/**"
		once := func() {
			r.Received = r.Received.Add(10 * time.Millisecond)
			if !g.Check(r).Passed() {
				t.Fatal("refused")
			}
			g.Done(r, merlon.Outcome{})
		}
		once()
		if n := testing.AllocsPerRun(200, once); n >= 1 && !raceEnabled {
			t.Errorf("%s: %.1f allocations", name, n)
		}
	}
}
