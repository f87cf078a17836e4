package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/merlon-dev/merlon/test/corpus"
	"github.com/merlon-dev/merlon/waf/internal/oracle/traffic"
)

// Ordinary requests, every one another: few of them may need to be evaluated.
func TestOrdinary(t *testing.T) {
	for level, few := range map[int]int{1: 400, 2: 100, 4: 100} {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) {
			s := crs(t, level).compare(t, sample(6000, few), func(i int) named {
				return named{fmt.Sprint("ordinary ", i), traffic.Ordinary(rand.New(rand.NewPCG(uint64(i), 3))), nil}
			})
			if level == 1 && s.clean.Load()*10 < s.n.Load()*7 {
				t.Error("ordinary requests are not screened clean")
			}
		})
	}
}

// Collected requests.
func TestData(t *testing.T) {
	if raced {
		t.Skip("takes long; nothing in it is about races")
	}
	for _, name := range []string{"attacks.jsonl", "benign.jsonl", "near_miss.jsonl"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("..", "..", "..", "..", "shared", "data", name)
			list, err := corpus.Load(path)
			if err != nil {
				t.Skipf("%s is not here: %v", path, err)
			}
			n := sample(len(list), 400)
			var some []corpus.Request
			for i := range n {
				some = append(some, list[i*len(list)/n])
			}
			requests, err := read(some)
			if err != nil {
				t.Fatal(err)
			}
			crs(t, 1).compare(t, len(requests), func(i int) named { return requests[i] })
		})
	}
}
