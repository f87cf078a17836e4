package engine

import (
	"fmt"
	"math/rand"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// Rules that count parameters by name (921170 and 921180) see each of many.
func TestManyNames(t *testing.T) {
	e := native(t, sources(3))
	m := form(rand.New(rand.NewSource(1)))
	m.Body.Args = nil
	for i := range 5000 {
		m.Body.Args = append(m.Body.Args, message.Pair{Name: fmt.Sprint("n", i), Value: "x"})
	}
	ask := func() bool {
		x, v, err := e.Request(m)
		if err != nil {
			t.Fatal(err)
		}
		x.Close()
		for _, id := range v.Fired {
			if id == 921180 {
				return true
			}
		}
		return false
	}
	if ask() {
		t.Error("921180 fires, though no name is repeated")
	}
	m.Body.Args = append(m.Body.Args, message.Pair{Name: "n4999", Value: "x"})
	if !ask() {
		t.Error("921180 does not fire, though a name is repeated")
	}
}
