package count_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/count"
)

// Different parts are different keys, whatever clients spell in them.
func FuzzKey(f *testing.F) {
	f.Add("a", "bc", "ab", "c")
	f.Add("", "\x01a", "\x01", "a")
	f.Add("\r\n", "{}", "\r\n", "{}")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		same := bytes.Equal(count.Key{}.With(a).With(b), count.Key{}.With(c).With(d))
		if same != (a == c && b == d) {
			t.Errorf("%q %q and %q %q: same %v", a, b, c, d, same)
		}
		if bytes.Equal(count.Key{}.With(a), count.Key{}.With(c).With(d)) {
			t.Errorf("%q and %q %q are the same", a, c, d)
		}
	})
}

// Whatever is taken, added and given back in whatever order, Memory answers as
// arithmetic does.
func FuzzMemory(f *testing.F) {
	f.Add([]byte{1, 1, 0, 1, 3, 200, 1, 12, 2, 5, 1, 1})
	f.Add([]byte{1, 9, 1, 9, 3, 90, 1, 1, 0, 255, 1, 9})
	f.Fuzz(func(t *testing.T, ops []byte) {
		const burst, every = 10, 100 * time.Millisecond
		s, start := count.NewMemory(count.MemoryConfig{Keys: 8}), time.Now()
		now, until, used := start, start, int64(0)
		rate := count.Quota{Every: every, Burst: burst}
		window := count.Quota{Burst: burst, Ends: start.Add(24 * time.Hour)}
		for ; len(ops) > 1; ops = ops[2:] {
			n := int64(ops[1])
			cost := n % (burst + 1)
			if until.Before(now) {
				until = now
			}
			switch ops[0] % 4 {
			case 0:
				now = now.Add(time.Duration(n) * 7 * time.Millisecond)
			case 1:
				free := burst*every - until.Sub(now)
				r := take(t, s, key(1), rate, cost, now)
				if want := time.Duration(cost)*every <= free; r.OK != want {
					t.Fatalf("rate: %d of %v: %+v", cost, free, r)
				}
				if r.OK {
					until = until.Add(time.Duration(cost) * every)
				}
				if want := max(0, int64((burst*every-until.Sub(now))/every)); r.Remaining != want || r.Reset != until.Sub(now) {
					t.Fatalf("rate: %+v, want %d remaining and %v", r, want, until.Sub(now))
				}
				r = take(t, s, key(2), window, cost, now)
				if want := used+cost <= burst; r.OK != want {
					t.Fatalf("window: %d with %d used: %+v", cost, used, r)
				}
				if r.OK {
					used += cost
				}
				if r.Remaining != max(0, burst-used) {
					t.Fatalf("window: %+v with %d used", r, used)
				}
			default:
				add := n%30 - 12
				asks := []count.Ask{{Key: key(1), Quota: rate, Cost: add}, {Key: key(2), Quota: window, Cost: add}}
				if err := s.Add(t.Context(), asks, now); err != nil {
					t.Fatal(err)
				}
				until = until.Add(time.Duration(add) * every)
				if until.Before(now) {
					until = now
				}
				if most := now.Add(2 * burst * every); until.After(most) {
					until = most
				}
				used = min(max(used+add, 0), 2*burst)
			}
		}
	})
}
