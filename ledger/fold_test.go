package ledger_test

import (
	"net/netip"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/merlontest"
)

// What is only counted is counted the same whether or not an event was made of
// it first.
func TestFoldCountsAsAppendDoes(t *testing.T) {
	clients := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1"), {}}
	flood := func(t *testing.T, fold bool) (counted map[string]uint64, folded int) {
		dir := t.TempDir()
		l := open(t, dir, ledger.Config{Burst: 3})
		for i := range 600 {
			r := merlontest.Request(t, "GET /?q=x")
			r.Client = clients[i%3]
			if i%5 == 0 {
				r.Site = "other.example.com"
			}
			d := merlon.Refuse(403, "attack")
			o := merlon.Outcome{Status: 403, Guard: "waf"}
			switch i % 4 {
			case 1:
				d.Effect, d.Reason, o.Guard = merlon.Challenge, "work-required", "challenge"
			case 2:
				d.Monitored, o = true, merlon.Outcome{Status: 200, Upstream: true}
			case 3:
				o.Upstream = true
			}
			r.Record("waf", d)
			if fold && l.Fold(r, o) {
				folded++
				continue
			}
			if err := l.Append(ledger.FromRequest(r, o, ledger.Traffic{})); err != nil {
				t.Fatal(err)
			}
		}
		// One that passed is nobody's flood.
		passed := merlontest.Request(t, "GET /")
		if fold && l.Fold(passed, merlon.Outcome{Status: 200, Upstream: true}) {
			t.Error("a request that passed was folded")
		}
		stats := l.Stats()
		closeLog(t, l)
		if fold && uint64(folded) > stats.Folded {
			t.Errorf("%d folded, the statistics say %d", folded, stats.Folded)
		}
		counted = map[string]uint64{}
		for _, e := range query(t, dir, ledger.Filter{}) {
			counted[string(e.Kind)+" "+e.Guard+" "+string(e.Reason)+" "+e.Client+" "+e.Site] += max(1, e.Count)
		}
		return counted, folded
	}
	want, _ := flood(t, false)
	got, folded := flood(t, true)
	if folded < 500 {
		t.Errorf("only %d of 600 were folded", folded)
	}
	if len(got) != len(want) || len(want) < 12 {
		t.Errorf("%d kinds, want %d", len(got), len(want))
	}
	for k, n := range want {
		if got[k] != n {
			t.Errorf("%s: %d, want %d", k, got[k], n)
		}
	}
}
