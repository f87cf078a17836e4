package oracle_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/oracle/traffic"
)

// The CRS's own regression tests, at every paranoia level.
func TestCRS(t *testing.T) {
	list := crsTests(t)
	for level := 1; level <= 4; level++ {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) {
			n := sample(len(list), 450)
			s := crs(t, level).compare(t, n, func(i int) named { return list[i*len(list)/n] })
			if s.flagged.Load()*3 < s.n.Load() {
				t.Error("Coraza flags so little that the comparison has no power")
			}
		})
	}
}

var payloads = sync.OnceValues(func() ([]string, error) {
	list, err := tests()
	if err != nil {
		return nil, err
	}
	var requests []*message.Request
	for _, c := range list {
		requests = append(requests, c.request)
	}
	return traffic.Payloads(requests), nil
})

func crsPayloads(t testing.TB) []string {
	t.Helper()
	list, err := payloads()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 5000 {
		t.Fatalf("only %d payloads", len(list))
	}
	return list
}

// Their payloads, moved to every place of a request.
func TestPlaces(t *testing.T) {
	list := crsPayloads(t)
	all := len(list) * len(traffic.Places)
	n := sample(all/3, 1200)
	step := all / n
	for step%len(traffic.Places) == 0 || step%5 == 0 {
		step-- // so that every place has its turn
	}
	s := crs(t, 1).compare(t, n, func(i int) named {
		at := i * max(step, 1)
		place, payload := traffic.Places[at%len(traffic.Places)], list[at/len(traffic.Places)]
		return named{fmt.Sprintf("%s %.200q", place.Name, payload), place.Request(payload), nil}
	})
	if s.flagged.Load()*5 < s.n.Load() {
		t.Error("Coraza flags so little that the comparison has no power")
	}
}

// Their payloads, changed as attackers change them.
func TestMutations(t *testing.T) {
	list := crsPayloads(t)
	for level, few := range map[int]int{1: 1200, 2: 150, 4: 300} {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) {
			s := crs(t, level).compare(t, sample(map[int]int{1: 100_000, 2: 5_000, 4: 10_000}[level], few), func(i int) named {
				r := traffic.NewMutator(uint64(i))
				place, payload := traffic.Places[r.IntN(len(traffic.Places))], r.Mutate(list[r.IntN(len(list))])
				return named{fmt.Sprintf("mutation %d: %s %.200q", i, place.Name, payload), place.Request(payload), nil}
			})
			if s.flagged.Load()*5 < s.n.Load() {
				t.Error("Coraza flags so little that the comparison has no power")
			}
		})
	}
}
