package oracle_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/oracle/traffic"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// Whatever stands wherever in a request, the engines say the same.
func FuzzVerdict(f *testing.F) {
	list := crsPayloads(f)
	for i := range sample(60, 60) {
		f.Add(uint8(i), list[i*len(list)/60], uint64(0))
		f.Add(uint8(i+7), list[(i*37+5)%len(list)], uint64(i))
	}
	p := crs(f, 1)
	f.Fuzz(func(t *testing.T, place uint8, payload string, seed uint64) {
		if len(payload) > 4000 {
			return
		}
		if seed != 0 {
			payload = traffic.NewMutator(seed).Mutate(payload)
		}
		to := traffic.Places[int(place)%len(traffic.Places)]
		if diff := p.one(&tally{}, named{to.Name, to.Request(payload), nil}); diff != "" {
			t.Error(diff)
		}
	})
}

// Whatever set of rules is put together, the engines say the same.
func FuzzRules(f *testing.F) {
	for i := range uint64(20) {
		f.Add(i, i+100)
	}
	f.Fuzz(func(t *testing.T, rules, messages uint64) {
		text := randomRules(rand.New(rand.NewPCG(rules, messages)))
		diff, err := compareRules(text, messages, &tally{})
		var e *seclang.Error
		switch {
		case err != nil && !errors.As(err, &e):
			t.Fatal(err)
		case diff != "":
			text, diff = shrink(text, diff, messages)
			t.Errorf("%s%s", text, diff)
		}
	})
}
