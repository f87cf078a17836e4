package identity_test

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
)

// trap 42: the time of a log-in does not tell whether there is an account.
// MERLON_TIMING is how many tries to make of each kind; 10000 take about ten
// minutes on an idle core. Whoever attacks sees a network's noise on top.
func TestTiming(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("MERLON_TIMING"))
	if err != nil || n < 100 {
		t.Skip("set MERLON_TIMING=10000; it takes minutes and a quiet machine")
	}
	w := newWorld(t, identity.Config{})
	if w.env.Throttle, err = attempts.New(attempts.Config{Alarm: 1_000_000}, masterKey(t), nil, nil); err != nil {
		t.Fatal(err)
	}
	w.remake()
	for i := range n { // each is tried once, so that nobody has to wait
		w.add(account.Account{Name: fmt.Sprintf("known%d", i), Email: fmt.Sprintf("known%d@example.com", i), EmailVerified: true})
	}
	try := func(name string, i int) time.Duration {
		b := w.browser(fmt.Sprintf("2001:%x:%x::1", 0x4000+i>>12, i&0xfff))
		v := b.visit()
		begin := time.Now()
		s, err := w.desk.Password(v, name, fmt.Sprint("wrong", i))
		took := time.Since(begin)
		if err != nil || s.State != identity.Wrong {
			t.Fatalf("%+v, %v", s, err)
		}
		return took
	}
	var known, unknown []time.Duration
	for i := range n {
		name := func(kind string) string {
			if i%2 == 0 {
				return fmt.Sprintf("%s%d@example.com", kind, i)
			}
			return fmt.Sprintf("%s%d", kind, i)
		}
		// In turns, so that a machine that slows down slows both.
		if i%4 < 2 {
			known, unknown = append(known, try(name("known"), 2*i)), append(unknown, try(name("other"), 2*i+1))
		} else {
			unknown, known = append(unknown, try(name("other"), 2*i)), append(known, try(name("known"), 2*i+1))
		}
	}
	z := rankZ(known, unknown)
	slices.Sort(known)
	slices.Sort(unknown)
	t.Logf("median of known %v, of unknown %v; rank test z = %.2f over %d tries each", known[n/2], unknown[n/2], z, n)
	if math.Abs(z) > 4 { // by chance once in 15,000 runs
		t.Errorf("they can be told apart: z = %.2f", z)
	}
}

// rankZ is the Mann-Whitney U test's z: how far the ranks of a among all are
// from what chance would give.
func rankZ(a, b []time.Duration) float64 {
	type one struct {
		d     time.Duration
		first bool
	}
	var all []one
	for _, d := range a {
		all = append(all, one{d, true})
	}
	for _, d := range b {
		all = append(all, one{d, false})
	}
	slices.SortFunc(all, func(x, y one) int { return cmp.Compare(x.d, y.d) })
	ranks := 0.0
	for i, o := range all {
		if o.first {
			ranks += float64(i + 1)
		}
	}
	n, m := float64(len(a)), float64(len(b))
	u := ranks - n*(n+1)/2
	return (u - n*m/2) / math.Sqrt(n*m*(n+m+1)/12)
}
