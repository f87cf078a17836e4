package live_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/test/redistest"
)

func seenContract(t *testing.T, at string) {
	var replicas []live.Seen
	for range 3 {
		replicas = append(replicas, live.NewSeen(live.Connected(redistest.Dial(t, at))))
	}
	soon := time.Now().Add(5 * time.Minute)
	for i := range 20 {
		id := fmt.Sprintf("oidc state %d\r\nDEL {x}:*", i)
		var first atomic.Int32
		var wg sync.WaitGroup
		for j := range 48 {
			wg.Go(func() {
				ok, err := replicas[j%3].First(t.Context(), id, soon)
				if err != nil {
					t.Error(err)
				}
				if ok {
					first.Add(1)
				}
			})
		}
		wg.Wait()
		if n := first.Load(); n != 1 {
			t.Errorf("%d were the first, want 1", n)
		}
	}
	// What should be forgotten by now is remembered for a while, since the
	// clock may be wrong.
	for i, want := range []bool{true, false} {
		if ok, err := replicas[i].First(t.Context(), "past", time.Now().Add(-time.Hour)); err != nil || ok != want {
			t.Errorf("%v %v, want %v", ok, err, want)
		}
	}
}

func TestSeen(t *testing.T) {
	_, at := redistest.OnSocket(t)
	seenContract(t, at)
	c := redistest.Dial(t, at)
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 21 {
		t.Fatalf("%d keys, want 21: %v", len(keys), err)
	}
	for _, key := range keys {
		left, err := c.Do(t.Context(), c.B().Pttl().Key(key).Build()).AsInt64()
		if err != nil || left <= 0 || left > 301_000 {
			t.Errorf("%s lives %d ms: %v", key, left, err)
		}
		if !strings.HasPrefix(key, "merlon:o:") || len(key) != len("merlon:o:")+64 {
			t.Errorf("a key that others have chosen: %q", key)
		}
	}
}

func TestSeenInMiniredis(t *testing.T) { seenContract(t, "redis://"+miniredis.RunT(t).Addr()) }

func TestSeenWithFewRights(t *testing.T) {
	seenContract(t, redistest.WithTLS(t, strings.Fields(live.SeenRights+" "+redis.LinkRights)...))
}

// Nobody is the first at a server that cannot say so.
func TestSeenFailsClosed(t *testing.T) {
	srv, at := redistest.OnSocket(t)
	s := live.NewSeen(live.Connected(redistest.Dial(t, at)))
	soon := time.Now().Add(time.Minute)
	if ok, err := s.First(t.Context(), "a", soon); !ok || err != nil {
		t.Fatal(ok, err)
	}
	srv.Signal(t, syscall.SIGSTOP)
	began := time.Now()
	if ok, err := s.First(t.Context(), "b", soon); ok || err == nil {
		t.Errorf("the server hangs: %v %v", ok, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a server that hangs holds a log-in for %v", took)
	}
	srv.Signal(t, syscall.SIGCONT)
	redistest.Eventually(t, "it goes on", func() bool {
		ok, err := s.First(t.Context(), "a", soon)
		return err == nil && !ok
	})
	srv.Kill()
	if ok, err := s.First(t.Context(), "c", soon); ok || err == nil {
		t.Errorf("the server is dead: %v %v", ok, err)
	}
}
