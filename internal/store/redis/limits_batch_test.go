package redis_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/test/redistest"
)

// What is asked of one key stands together, in the order in which it was asked
// for, and nothing is lost, whatever the keys are.
func TestEntriesInOrder(t *testing.T) {
	now := time.Now()
	for range 300 {
		n, keys := rand.IntN(redis.BatchSize+1), 1+rand.IntN(2*redis.BatchSize)
		asks, want := make([]count.Ask, n), make(map[string][]int)
		for i := range asks {
			name := strconv.Itoa(rand.IntN(keys))
			asks[i] = hourly(name, 10, 1)
			if rand.IntN(2) == 0 { // a window of the same name is another key
				asks[i].Quota = count.Quota{Burst: 10, Ends: now.Add(time.Hour)}
				name += " window"
			}
			want[name] = append(want[name], i)
		}
		got := redis.InOrder(asks, now)
		expected := slices.SortedFunc(maps.Values(want), func(a, b []int) int { return a[0] - b[0] })
		if !slices.EqualFunc(got, expected, slices.Equal) {
			t.Fatalf("%d asks of %d keys: %v, not %v", n, keys, got, expected)
		}
	}
}

// Asks of one key that come together are answered as those that come one after
// the other are.
func TestOneKeyOftenAtOnce(t *testing.T) {
	_, at := redistest.OnSocket(t)
	l, m := limits(t, at), count.NewMemory(count.MemoryConfig{})
	now := time.Now()
	rate := func(name string, cost int64) count.Ask { return hourly(name, 10, cost) }
	window := func(name string, cost int64) count.Ask {
		return count.Ask{Key: count.Key(name), Quota: count.Quota{Burst: 10, Ends: now.Add(time.Hour)}, Cost: cost}
	}
	for round, asks := range [][]count.Ask{
		{rate("a", 3), rate("b", 1), rate("a", 2), window("a", 4), rate("a", 3), rate("b", 0), window("a", 4)},
		{window("a", 1), rate("a", 1), window("a", 1), rate("a", 1)},
		{rate("b", 4), rate("a", 0), rate("b", 5), window("a", 0)}, // all that there is
		{rate("c", 10), rate("b", 1), rate("c", 0)},                // one too many: c is given back
		{rate("c", 5), rate("c", 5), window("a", 1)},               // likewise
		{rate("c", 5), rate("c", 5)},
	} {
		got, want := make([]count.Result, len(asks)), make([]count.Result, len(asks))
		if err := l.Take(t.Context(), asks, got, now); err != nil {
			t.Fatal(err)
		}
		if err := m.Take(t.Context(), asks, want, now); err != nil {
			t.Fatal(err)
		}
		all := true
		for i := range asks {
			all = all && want[i].OK
		}
		for i := range asks {
			// What else is told beside a refusal, others may see only for a moment.
			if got[i].OK != want[i].OK || all && got[i].Remaining != want[i].Remaining {
				t.Errorf("round %d, ask %d: %+v, not %+v", round, i, got[i], want[i])
			}
		}
	}
	back := []count.Ask{rate("c", -4), rate("d", 2), rate("c", -2), rate("c", 1), rate("d", -1)}
	if err := l.Add(t.Context(), back, now); err != nil {
		t.Fatal(err)
	}
	res := make([]count.Result, 2)
	if err := l.Take(t.Context(), []count.Ask{rate("c", 0), rate("d", 0)}, res, now); err != nil || res[0].Remaining != 5 || res[1].Remaining != 9 {
		t.Errorf("%v: %+v", err, res)
	}
}
