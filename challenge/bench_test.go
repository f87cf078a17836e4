package challenge_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/merlontest"
)

// What each request costs: while nothing is asked for, with a pass, and
// without one, in a flood.
func BenchmarkCheck(b *testing.B) {
	cookie := "\nCookie: session=0123456789abcdef; theme=dark; " + challenge.Cookie + "=" + challenge.Pass(key(b), site, netip.MustParseAddr("192.0.2.1"), 18, time.Now())
	for _, c := range []struct {
		name, wire string
		when       challenge.When
		want       merlon.Reason
	}{
		{"calm", "GET /shop?item=1" + page + cookie, challenge.OnLoad, challenge.NotAsked},
		{"passed", "GET /shop?item=1" + page + cookie, challenge.Always, challenge.HasPassed},
		{"challenged", "GET /shop?item=1" + page + "\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36", challenge.Always, challenge.WorkRequired},
		{"forged", "GET /shop?item=1" + page + cookie[:len(cookie)-1] + "_", challenge.Always, challenge.WorkRequired},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := guard(b, challenge.Config{When: c.when, Over: challenge.Over{Rate: challenge.Rate{Count: 2000, Per: time.Second}}})
			r := merlontest.Request(b, c.wire)
			r.Site = site
			if d := g.Check(r); d.Reason != c.want {
				b.Fatal(d.Reason)
			}
			b.ReportAllocs()
			for b.Loop() {
				g.Check(r)
			}
		})
	}
}

func BenchmarkPage(b *testing.B) {
	p, err := challenge.NewPages(challenge.PagesEnv{Key: key(b), Count: memory(b)})
	if err != nil {
		b.Fatal(err)
	}
	r := merlontest.Request(b, "GET "+challenge.Prefix+"?bits=18&wait=10&to=%2Fshop%3Fitem%3D1"+page+"\nAccept-Language: en-GB,en;q=0.8,de;q=0.5")
	r.Site = site
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r.Request)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}
