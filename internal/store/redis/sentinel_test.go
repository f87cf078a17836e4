package redis_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/test/redistest"
)

// failover starts a server, a replica of it and a Sentinel that watches them.
func failover(t *testing.T) (master *redistest.Server, at string) {
	t.Helper()
	one, two, port := redistest.FreePort(t), redistest.FreePort(t), redistest.FreePort(t)
	master = redistest.Start(t, "--port", one, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
	redistest.Dial(t, "redis://127.0.0.1:"+one)
	redistest.Start(t, "--port", two, "--bind", "127.0.0.1", "--replicaof", "127.0.0.1", one)
	c := redistest.Dial(t, "redis://127.0.0.1:"+two)
	redistest.Eventually(t, "the replica is there", func() bool {
		info, err := c.Do(t.Context(), c.B().Info().Section("replication").Build()).ToString()
		return err == nil && has(info, "master_link_status:up")
	})
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	redistest.Write(t, conf, fmt.Appendf(nil, "port %s\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 %s 1\n"+
		"sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n", port, one))
	redistest.StartSentinel(t, conf)
	redistest.Eventually(t, "the Sentinel knows both", func() bool {
		c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:" + port}, ForceSingleClient: true, DisableCache: true})
		if err != nil {
			return false
		}
		defer c.Close()
		replicas, err := c.Do(t.Context(), c.B().SentinelReplicas().Master("main").Build()).ToArray()
		return err == nil && len(replicas) == 1
	})
	return master, "redis://127.0.0.1:" + port + "?master_set=main"
}

// When the server dies, counts are local until its replica has taken over, and
// go on there.
func TestLimitsFailOverBySentinel(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	master, at := failover(t)
	all := three(t, at, time.Second)
	const burst = 60
	ends := time.Now().Add(time.Hour)
	asks := []count.Ask{hourly("a", burst, 1), {Key: count.Key("b"), Quota: count.Quota{Burst: burst, Ends: ends}, Cost: 1}}
	for i, n := range flood(t, all, asks) {
		if n != burst {
			t.Errorf("key %d: %d, want exactly %d", i, n, burst)
		}
	}
	time.Sleep(300 * time.Millisecond) // until the replica has it
	master.Kill()
	before := time.Now()
	for i, n := range flood(t, all, asks) {
		if n > burst/3 { // the flood is not quite even over the replicas
			t.Errorf("key %d: %d more, want at most %d", i, n, burst/3)
		}
	}
	for _, r := range all {
		redistest.Eventually(t, "it is noticed", func() bool { return len(r.events()) > 0 })
		recovers(t, r)
	}
	t.Logf("recovered after %v, told %v", time.Since(before).Round(time.Millisecond), all[0].events())
	for i, n := range flood(t, all, asks) {
		if n > burst/3 {
			t.Errorf("key %d: %d more after it, want at most %d", i, n, burst/3)
		}
	}
	fresh := flood(t, all, []count.Ask{hourly("fresh", burst, 1)})
	if fresh[0] != burst {
		t.Errorf("%d of a fresh key, want exactly %d", fresh[0], burst)
	}
}
