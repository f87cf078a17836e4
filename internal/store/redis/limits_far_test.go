package redis_test

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/test/redistest"
)

// far puts a server as far away as d, there and back.
func far(t *testing.T, at string, d time.Duration) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	socket, _, _ := strings.Cut(strings.TrimPrefix(at, "unix://"), "?")
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("unix", socket)
			if err != nil {
				_ = near.Close()
				continue
			}
			go func() { _, _ = io.Copy(near, there); _ = near.Close() }()
			go late(there, near, d)
		}
	}()
	return "redis://" + ln.Addr().String()
}

// late copies what comes d later than it comes.
func late(to io.WriteCloser, from io.Reader, d time.Duration) {
	type part struct {
		at time.Time
		b  []byte
	}
	parts := make(chan part, 10_000)
	go func() {
		defer close(parts)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if err != nil {
				return
			}
			parts <- part{time.Now().Add(d), b[:n]}
		}
	}()
	defer to.Close()
	for p := range parts {
		time.Sleep(time.Until(p.at))
		if _, err := to.Write(p.b); err != nil {
			return
		}
	}
}

// Nobody waits for a batch of others that is on its way to a server far away:
// with one within 20 ms, which is all that a request waits, that would be too
// long.
func TestFarServer(t *testing.T) {
	const away = 100 * time.Millisecond
	_, at := redistest.OnSocket(t)
	l := limits(t, far(t, at, away))
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			begin := time.Now()
			ask := count.Ask{Key: count.Key("far"), Quota: count.Quota{Every: time.Second, Burst: 1000}, Cost: 1}
			if err := l.Take(t.Context(), []count.Ask{ask}, make([]count.Result, 1), begin); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(begin))
		})
		time.Sleep(7 * time.Millisecond)
	}
	wg.Wait()
	slices.Sort(took)
	if median := took[len(took)/2]; median > away*5/4 {
		t.Errorf("half of them waited for more than %s, of which the way takes %s", median, away)
	}
}

// More than goes into many batches is all sent, be the server near or far.
func TestManyAskAtOnce(t *testing.T) {
	_, at := redistest.OnSocket(t)
	for name, l := range map[string]*redis.Limits{"near": limits(t, at), "far": limits(t, far(t, at, 30*time.Millisecond))} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // or they would hang for ever
		defer cancel()
		ask := count.Ask{Key: count.Key(name), Quota: count.Quota{Every: time.Second, Burst: 1 << 20}, Cost: 1}
		var wg sync.WaitGroup
		var hung atomic.Int64
		for range 8 * redis.BatchSize {
			wg.Go(func() {
				for range 5 {
					// A machine that stands still may cost a batch its second.
					_ = l.Take(ctx, []count.Ask{ask}, make([]count.Result, 1), time.Now())
				}
				if ctx.Err() != nil {
					hung.Add(1)
				}
			})
		}
		wg.Wait()
		if n := hung.Load(); n > 0 {
			t.Errorf("%s: %d were not answered", name, n)
		}
	}
}
