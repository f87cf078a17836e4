package match_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// ordinary is values as a shop's visitors send them.
var ordinary = []string{
	"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
	"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
	"en-GB,en;q=0.9,de;q=0.8",
	"https://shop.example/catalogue/shoes?size=42&colour=dark+blue&page=3",
	"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
	"GA1.2.1234567890.1700000000",
	"marie.dupont@mail.example",
	"Please leave the parcel with our neighbours at number 17 if nobody opens; they know about it. Thank you!",
	"Größe 42, bitte als Geschenk verpacken und eine Karte dazu legen: Alles Gute zum Geburtstag, liebe Zoë.",
	"The battery lasts two days with normal use, and charging takes about an hour. It can be used while it charges. " +
		"I was not sure whether the case would fit, but it does, and the buttons are easy to find in the dark.",
	"items.0.options.gift_wrapping",
	"true", "42", "2026-11-27T13:18:43Z", "blue", "",
}

// perByte runs a body and reports what a byte of the values costs, in time of
// the process: that is steadier than the clock on a shared machine.
func perByte(b *testing.B, bytes int64, body func()) {
	b.Helper()
	b.ReportAllocs()
	from := used(b)
	for b.Loop() {
		body()
	}
	b.ReportMetric(float64(used(b)-from)/float64(b.N)/float64(bytes), "cpu-ns/B")
}

// used is the processor time that the process has used.
func used(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func sized(values []string) (n int64) {
	for _, v := range values {
		n += int64(len(v))
	}
	return n
}

func literals(tb testing.TB) (all []string) {
	tb.Helper()
	for _, expr := range crs() {
		r, err := match.Compile(expr)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, r.Required().Literals...)
	}
	return all
}

func BenchmarkPresence(b *testing.B) {
	var all match.ByteSet
	perByte(b, sized(ordinary), func() {
		for _, v := range ordinary {
			p := match.Presence(v)
			all.Or(&p)
		}
	})
}

func BenchmarkFold(b *testing.B) {
	perByte(b, sized(ordinary), func() {
		for _, v := range ordinary {
			match.Fold(v)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	a := match.NewAutomaton(literals(b))
	sc := a.NewScanner()
	perByte(b, sized(ordinary), func() {
		for _, v := range ordinary {
			a.Scan(sc, v)
		}
	})
}

func BenchmarkScanLong(b *testing.B) {
	a := match.NewAutomaton(literals(b))
	sc := a.NewScanner()
	text := strings.Repeat(strings.Join(ordinary, " "), 10)
	perByte(b, int64(len(text)), func() { a.Scan(sc, text) })
}

func BenchmarkNewAutomaton(b *testing.B) {
	all := literals(b)
	for b.Loop() {
		match.NewAutomaton(all)
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		for _, expr := range crs() {
			if _, err := match.Compile(expr); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkMatch asks every pattern about every value.
func BenchmarkMatch(b *testing.B) {
	var all []*match.Regexp
	for _, expr := range crs() {
		r, err := match.Compile(expr)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, r)
	}
	perByte(b, sized(ordinary)*int64(len(all)), func() {
		for _, r := range all {
			for _, v := range ordinary {
				r.Match(v)
			}
		}
	})
}
