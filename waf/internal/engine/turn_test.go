package engine

import (
	"math/rand"
	"sync"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// What a transaction numbers begins anew long before a number comes again, so
// that no value is taken for one that it has looked at.
func TestNumbersComeOnce(t *testing.T) {
	e := native(t, sources(1))
	for n := range uint32(60) {
		e.pool = sync.Pool{New: func() any {
			old := newTransaction(e)
			old.turn, old.mark, old.request = -n, -n, -n
			old.forget()
			return old
		}}
		m := form(rand.New(rand.NewSource(1)))
		m.Body.Args = []message.Pair{{Name: "q", Value: "x%3Cscript%3Ealert%281%29%3C%2Fscript%3E"}}
		x, v, err := e.Request(m)
		if err != nil {
			t.Fatal(err)
		}
		x.Close()
		if !v.Deny {
			t.Fatalf("%d values before the numbers end: passed", n)
		}
	}
}
