package limit_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/merlontest"
)

const benchKeys = 100_000

// The work itself: what is counted is in the processor's cache.
func BenchmarkMemoryFewClients(b *testing.B) { benchMemory(b, 100) }

// As many clients as do not fit into it.
func BenchmarkMemoryManyClients(b *testing.B) { benchMemory(b, benchKeys) }

func benchMemory(b *testing.B, clients int) {
	s := limit.NewMemory(limit.MemoryConfig{})
	q := limit.Quota{Every: time.Microsecond, Burst: 1_000_000}
	keys := make([]limit.Key, clients)
	for i := range keys {
		keys[i] = key(uint32(i))
	}
	ctx, now, i := b.Context(), time.Now(), 0
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(100)
		if _, err := s.Take(ctx, keys[i%clients], q, 1, now); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkThrottledFewClients(b *testing.B)  { benchThrottled(b, 100) }
func BenchmarkThrottledManyClients(b *testing.B) { benchThrottled(b, benchKeys) }

func benchThrottled(b *testing.B, clients int) {
	store, err := memstore.NewCtx(1 << 20)
	if err != nil {
		b.Fatal(err)
	}
	l, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerSec(1_000_000), MaxBurst: 999_999})
	if err != nil {
		b.Fatal(err)
	}
	keys := make([]string, clients)
	for i := range keys {
		keys[i] = "default|s|/r|" + key(uint32(i)).Client.String()
	}
	ctx, i := b.Context(), 0
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := l.RateLimitCtx(ctx, keys[i%clients], 1); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkMemoryOneClientParallel(b *testing.B) {
	s := limit.NewMemory(limit.MemoryConfig{})
	q := limit.Quota{Every: time.Microsecond, Burst: 1_000_000}
	ctx, k := b.Context(), key(1)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := time.Now()
		for pb.Next() {
			if _, err := s.Take(ctx, k, q, 1, now); err != nil {
				b.Error(err)
			}
		}
	})
}

// A whole request: Check and Done, with fields.
func BenchmarkCheck(b *testing.B) {
	g := newGuard(b, limit.Config{}, limit.NewMemory(limit.MemoryConfig{}))
	r := merlontest.Request(b, "GET /")
	var n atomic.Int64
	b.ReportAllocs()
	for b.Loop() {
		r.Received = r.Received.Add(10 * time.Millisecond)
		if g.Check(r).Passed() {
			n.Add(1)
		}
		g.Done(r, merlon.Outcome{})
	}
	if n.Load() == 0 {
		b.Error("nothing passed")
	}
}
