package redis_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/test/redistest"
)

func TestReplicasAreCounted(t *testing.T) {
	srv, at := redistest.OnSocket(t)
	file := filepath.Join(t.TempDir(), "replicas")
	c := dialLimits(t, at)
	one, two, three := redis.NewReplicas(c, file), redis.NewReplicas(c, ""), redis.NewReplicas(c, "")
	defer one.Close()
	defer two.Close()
	count := func(n int) func() bool { return func() bool { return one.Count() == n } }
	redistest.Eventually(t, "three are counted", count(3))
	three.Close()
	redistest.Eventually(t, "one that shuts down is not", count(2))
	if b, err := os.ReadFile(file); err != nil || string(b) != "2\n" {
		t.Errorf("%q %v", b, err)
	}
	// Flushed: nobody is taken for gone who has only not been seen again yet.
	redistest.Do(t, redistest.Dial(t, at), "FLUSHALL")
	for range 20 {
		time.Sleep(50 * time.Millisecond)
		if n := one.Count(); n != 2 {
			t.Fatalf("%d are counted", n)
		}
	}
	srv.Kill()
	if n := one.Count(); n != 2 {
		t.Errorf("%d are counted while the server is down", n)
	}
	// One that starts meanwhile divides too.
	late := redis.NewReplicas(c, file)
	if n := late.Count(); n != 2 {
		t.Errorf("one that starts late counts %d", n)
	}
	srv.Run(t)
	redistest.Eventually(t, "all of them again", func() bool { return late.Count() == 3 })
	late.Close()
}

func TestFileOfReplicas(t *testing.T) {
	_, at := redistest.OnSocket(t)
	c := dialLimits(t, at)
	for text, want := range map[string]int{"": 1, "x": 1, "-3": 1, "0": 1, "7\n": 7, "99999999999999999999": 1, "5000": 1000} {
		file := filepath.Join(t.TempDir(), "replicas")
		redistest.Write(t, file, []byte(text))
		r := redis.NewReplicas(c, file)
		if n := r.Count(); n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
		r.Close()
	}
}
