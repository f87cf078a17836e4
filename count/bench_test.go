package count_test

import (
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"

	"github.com/merlon-dev/merlon/count"
)

const benchKeys = 100_000

// Keys such as those of a limit: policy, site, route and an address.
func benchKey(n int) count.Key {
	return count.Key{}.With("default").With("shop").With("/r").With(string(key(uint32(n))))
}

var (
	often  = count.Quota{Every: time.Microsecond, Burst: 1_000_000}
	window = count.Quota{Burst: 1 << 50, Ends: time.Now().Add(24 * time.Hour)}
)

// The work itself: what is counted is in the processor's cache.
func BenchmarkMemoryFewKeys(b *testing.B) { benchMemory(b, 100, often) }

// As many keys as do not fit into it.
func BenchmarkMemoryManyKeys(b *testing.B) { benchMemory(b, benchKeys, often) }

func BenchmarkMemoryFewWindows(b *testing.B)  { benchMemory(b, 100, window) }
func BenchmarkMemoryManyWindows(b *testing.B) { benchMemory(b, benchKeys, window) }

func benchMemory(b *testing.B, keys int, q count.Quota) {
	s := count.NewMemory(count.MemoryConfig{})
	asks, res := make([]count.Ask, keys), make([]count.Result, 1)
	for i := range asks {
		asks[i] = count.Ask{Key: benchKey(i), Quota: q, Cost: 1}
	}
	ctx, now, i := b.Context(), time.Now(), 0
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(100)
		if err := s.Take(ctx, asks[i%keys:i%keys+1], res, now); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkThrottledFewKeys(b *testing.B)  { benchThrottled(b, 100) }
func BenchmarkThrottledManyKeys(b *testing.B) { benchThrottled(b, benchKeys) }

func benchThrottled(b *testing.B, n int) {
	store, err := memstore.NewCtx(1 << 20)
	if err != nil {
		b.Fatal(err)
	}
	l, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerSec(1_000_000), MaxBurst: 999_999})
	if err != nil {
		b.Fatal(err)
	}
	keys := make([]string, n)
	for i := range keys {
		keys[i] = string(benchKey(i))
	}
	ctx, i := b.Context(), 0
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := l.RateLimitCtx(ctx, keys[i%n], 1); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkMemoryOneKeyParallel(b *testing.B)   { benchParallel(b, 1) }
func BenchmarkMemoryManyKeysParallel(b *testing.B) { benchParallel(b, benchKeys) }

func benchParallel(b *testing.B, keys uint32) {
	s := count.NewMemory(count.MemoryConfig{})
	var part atomic.Uint32
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		n, ctx, now := part.Add(1)*7919, b.Context(), time.Now()
		asks, res := []count.Ask{{Key: benchKey(0), Quota: often, Cost: 1}}, make([]count.Result, 1)
		last := asks[0].Key[len(asks[0].Key)-4:]
		for pb.Next() {
			n++
			binary.BigEndian.PutUint32(last, n%keys)
			if err := s.Take(ctx, asks, res, now); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkHold(b *testing.B) {
	s, places := count.NewMemory(count.MemoryConfig{}), []count.Place{{Key: benchKey(1), Most: 10}}
	b.ReportAllocs()
	for b.Loop() {
		_, release, err := s.Hold(b.Context(), places)
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}
