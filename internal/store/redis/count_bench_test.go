package redis_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/test/redistest"
)

// BenchmarkLimits is what 64 clients' counting costs this process, beside the
// time: CPU µs for each Take.
func BenchmarkLimits(b *testing.B) {
	_, at := redistest.OnSocket(b)
	l := limits(b, at)
	for _, c := range []struct {
		name string
		asks int
		keys int
	}{{"one ask", 1, 1000}, {"one hot key", 1, 1}, {"three asks", 3, 1000}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var next atomic.Int64
			var wg sync.WaitGroup
			before := spent()
			for range 64 {
				wg.Go(func() {
					asks, res := make([]count.Ask, c.asks), make([]count.Result, c.asks)
					for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
						for j := range asks {
							k := count.Key(asks[j].Key[:0]).With(strconv.Itoa(j)).With(strconv.Itoa(i % c.keys))
							asks[j] = count.Ask{Key: k, Quota: count.Quota{Every: time.Millisecond, Burst: 1000}, Cost: 1}
						}
						if err := l.Take(context.Background(), asks, res, time.Now()); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64((spent()-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
		})
	}
}

// spent is the processor time of this process.
func spent() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
