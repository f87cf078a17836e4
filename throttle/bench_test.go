package throttle_test

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/throttle"
)

// What a request pays for a place that is free, with the timeout that every
// class has.
func BenchmarkClass(b *testing.B) { bench(b, throttle.Config{Class: "work"}) }

// And with everything.
func BenchmarkAll(b *testing.B) {
	bench(b, throttle.Config{
		Class: "work", Timeout: time.Minute, Shed: throttle.ShedConfig{Latency: time.Second},
		Bandwidth: throttle.Bandwidth{Client: 1 << 30, Route: 1 << 40},
	})
}

// A route that bounds nothing.
func BenchmarkNothing(b *testing.B) { bench(b, throttle.Config{}) }

// What the standard library takes for a timeout alone, to compare.
func BenchmarkWithTimeout(b *testing.B) {
	b.ReportAllocs()
	hr := merlon.NewRequest(httptest.NewRequest("GET", "/", nil)).Request
	for b.Loop() {
		ctx, cancel := context.WithTimeout(hr.Context(), time.Minute)
		_ = hr.WithContext(ctx)
		cancel()
	}
}

func bench(b *testing.B, c throttle.Config) {
	g := guard(b, c, classes(b, map[string]throttle.ClassConfig{"work": {AtOnce: 100}}), throttle.NewPool(nil))
	b.ReportAllocs()
	r := merlon.NewRequest(httptest.NewRequest("GET", "/", nil))
	hr := r.Request
	for b.Loop() {
		r.Request = hr
		if d := g.Check(r); !d.Passed() {
			b.Fatalf("%+v", d)
		}
		g.Done(r, ended)
	}
}
