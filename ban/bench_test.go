package ban_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/merlontest"
)

func benchWorld(tb testing.TB, bans int) (*ban.Guard, *merlon.Request) {
	tb.Helper()
	b := ban.NewBans(nil, count.NewMemory(count.MemoryConfig{Keys: 1 << 12}), nil)
	for i := range bans {
		b.Impose(ban.Ban{Site: "shop.example.com", Key: fmt.Sprintf("client 10.%d.%d.%d", i>>16, i>>8&255, i&255)}, time.Hour, time.Hour)
	}
	g, err := ban.New(ban.Config{}, ban.Env{Bans: b, Tries: tries})
	if err != nil {
		tb.Fatal(err)
	}
	r := merlontest.Request(tb, "GET /")
	r.Site = "shop.example.com"
	return g, r
}

// What asking costs, before and after the request.
func BenchmarkCheck(b *testing.B) {
	for _, bans := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("bans=%d", bans), func(b *testing.B) {
			g, r := benchWorld(b, bans)
			known := g.Known()
			b.ReportAllocs()
			for b.Loop() {
				if d := g.Check(r); !d.Passed() {
					b.Fatal(d)
				}
				if d := known.Check(r); !d.Passed() {
					b.Fatal(d)
				}
				g.Done(r, merlon.Outcome{Status: 200, Upstream: true})
			}
		})
	}
}

func BenchmarkRefused(b *testing.B) {
	g, r := benchWorld(b, 10_000)
	r.Client = netip.MustParseAddr("10.0.0.7")
	b.ReportAllocs()
	for b.Loop() {
		if d := g.Check(r); d.Passed() {
			b.Fatal(d)
		}
	}
}

func BenchmarkImpose(b *testing.B) {
	bans := ban.NewBans(nil, nil, nil)
	i := 0
	for b.Loop() {
		i++
		bans.Impose(ban.Ban{Site: "s", Key: fmt.Sprintf("client %d.%d.%d.%d", 1+i>>24, i>>16&255, i>>8&255, i&255)}, time.Hour, time.Hour)
	}
}

// Who is not banned costs no memory.
func TestNoAllocations(t *testing.T) {
	for _, bans := range []int{0, 100} {
		g, r := benchWorld(t, bans)
		known := g.Known()
		r.Identity = &merlon.Identity{Subject: "u-ann"}
		if n := testing.AllocsPerRun(100, func() {
			g.Check(r)
			known.Check(r)
			g.Done(r, merlon.Outcome{Status: 200, Upstream: true})
		}); n > 0 {
			t.Errorf("with %d bans: %v allocations", bans, n)
		}
	}
}
