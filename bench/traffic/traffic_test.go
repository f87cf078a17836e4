package traffic

import (
	"bytes"
	"io"
	"testing"
)

func TestNoTwoRequestsAreAlike(t *testing.T) {
	for _, k := range Kinds() {
		seen := map[string]bool{}
		for number := range uint64(4) {
			s := k.Fresh(1, number)
			for range 2500 {
				wire := string(s.Next())
				if seen[wire] {
					t.Fatalf("%s: twice the same:\n%s", k.Name, wire)
				}
				seen[wire] = true
			}
		}
	}
}

func TestTheSameSeedMakesTheSame(t *testing.T) {
	for _, k := range Kinds() {
		a, b, same := k.Fresh(7, 2), k.Fresh(7, 2), k.Repeat(7)
		first := bytes.Clone(same.Next())
		for range 20 {
			if !bytes.Equal(a.Next(), b.Next()) {
				t.Errorf("%s: two streams of one seed differ", k.Name)
			}
			if !bytes.Equal(first, same.Next()) {
				t.Errorf("%s: a repeated request changed", k.Name)
			}
		}
	}
}

// TestRequests: each can be read to its end, nothing is left over, and the
// body is as long as the kind's name says.
func TestRequests(t *testing.T) {
	sizes := map[string][2]int{
		"GET": {0, 0}, "SQLi GET": {0, 0}, "JSON 1 kB": {900, 1150}, "form 500 B": {350, 650}, "multipart 1.3 kB": {1200, 1400},
	}
	for _, k := range Kinds() {
		s := k.Fresh(3, 0)
		want, ok := sizes[k.Name]
		if !ok {
			t.Errorf("%s: no size is known", k.Name)
		}
		for range 500 {
			wire := s.Next()
			r, err := Parse(wire)
			if err != nil {
				t.Fatalf("%s: %v\n%s", k.Name, err, wire)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatalf("%s: %v\n%s", k.Name, err, wire)
			}
			if len(body) < want[0] || len(body) > want[1] {
				t.Fatalf("%s: a body of %d bytes", k.Name, len(body))
			}
			if !bytes.HasSuffix(wire, append([]byte("\r\n\r\n"), body...)) {
				t.Errorf("%s: the body is not all that follows the header", k.Name)
			}
		}
	}
}
