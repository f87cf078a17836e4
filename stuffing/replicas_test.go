package stuffing_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/stuffing"
)

// shared returns n stores that count in one Redis.
func shared(t *testing.T, n int) (stores []attempts.Store) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("needs redis-server (Debian package redis-server)")
	}
	dir, err := os.MkdirTemp("", "redis") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(bin, "--save", "", "--appendonly", "no", "--dir", dir, "--port", "0", "--unixsocket", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
		_ = os.RemoveAll(dir)
	})
	deadline := time.Now().Add(15 * time.Second)
	for len(stores) < n {
		c, err := redis.Dial(secrets.New("unix://" + socket))
		switch {
		case err == nil:
			t.Cleanup(c.Close)
			stores = append(stores, live.NewTries(live.Connected(c)))
		case time.Now().After(deadline):
			t.Fatal(err)
		default:
			time.Sleep(20 * time.Millisecond)
		}
	}
	return stores
}

// TestReplicas: three Merlons with one Redis see no more guesses than one, and
// know each other's browsers. On a busy machine Redis may not answer in time,
// and each counts alone: then it is tried again.
func TestReplicas(t *testing.T) {
	stores := shared(t, 3)
	for round := range 8 {
		if replicas(t, stores, fmt.Sprintf("owner%d@example.com", round), fmt.Sprintf("ann%d@example.com", round)) {
			return
		}
		time.Sleep(1500 * time.Millisecond) // as long as the client leaves a silent server alone
	}
	t.Skip("needs a Redis that answers within 50 ms; this machine is too busy")
}

func replicas(t *testing.T, stores []attempts.Store, owner, ann string) bool {
	var worlds []*world
	for _, s := range stores {
		worlds = append(worlds, newWorld(t, config(), stuffing.Env{Store: s}))
	}
	begin := time.Now()
	browser := worlds[0].known(owner)
	var wg sync.WaitGroup
	for n, w := range worlds {
		w.looked.Store(0)
		for i := range 8 {
			wg.Go(func() {
				w.try(address(8*n+i), owner, fmt.Sprint("guess ", owner, n, i))
				w.try(fmt.Sprintf("203.0.113.%d", n), ann, fmt.Sprint("guess ", ann, n, i))
			})
		}
	}
	wg.Wait()
	looked := int64(0)
	for n, w := range worlds {
		looked += w.looked.Load()
		if r := w.try("198.51.100.7", owner, secret, browser); r.status != 200 {
			t.Errorf("the owner, at replica %d: %d %s", n, r.status, r.reason)
		}
	}
	for _, w := range worlds {
		if w.told(attempts.StoreFailed) > 0 {
			return false
		}
	}
	// addresses.free and one for the owner, account.free and one for ann, and
	// what is let in later on a slow machine.
	bound := int64(6 + 11 + 2*int(time.Since(begin)/time.Second))
	t.Logf("48 tries by three replicas: the backend looked at %d", looked)
	if looked > bound || looked < 6 {
		t.Errorf("looked at %d, want at most %d", looked, bound)
	}
	return true
}
