package redis_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/test/redistest"
)

// clusterOfSix starts three masters and a replica of each.
func clusterOfSix(t *testing.T) (servers []*redistest.Server, at string) {
	t.Helper()
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Skip("needs redis-cli (Debian package redis-tools)")
	}
	args := []string{"--cluster", "create"}
	for range 6 {
		port := redistest.FreePort(t)
		servers = append(servers, redistest.Start(t, "--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes",
			"--cluster-node-timeout", "2000", "--cluster-port", redistest.FreePort(t), "--repl-diskless-sync-delay", "0"))
		args = append(args, "127.0.0.1:"+port)
	}
	nodes := args[2:]
	var clients []rueidis.Client
	for _, node := range nodes {
		redistest.Eventually(t, node+" answers", func() bool {
			c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{node}, ForceSingleClient: true, DisableCache: true})
			if err == nil {
				t.Cleanup(c.Close)
				clients = append(clients, c)
			}
			return err == nil
		})
	}
	// The cluster's ports are free ones, which redis-cli learns from the nodes.
	if out, err := exec.Command(cli, append(args, "--cluster-replicas", "1", "--cluster-yes")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	at = "redis://" + nodes[0] + "?addr=" + nodes[1] + "&addr=" + nodes[2]
	redistest.Eventually(t, "all nodes are ready", func() bool {
		ready := 0
		for _, c := range clients {
			state, err := c.Do(t.Context(), c.B().ClusterInfo().Build()).ToString()
			info, err2 := c.Do(t.Context(), c.B().Info().Section("replication").Build()).ToString()
			if err == nil && err2 == nil && has(state, "cluster_state:ok") && (has(info, "state=online") || has(info, "master_link_status:up")) {
				ready++
			}
		}
		return ready == len(nodes)
	})
	return servers, at
}

// The contract holds in a cluster; when one of its masters dies, counts are
// local until its replica has taken over.
func TestLimitsInAClusterOfSix(t *testing.T) {
	if testing.Short() {
		t.Skip("starts six servers")
	}
	began := time.Now()
	servers, at := clusterOfSix(t)
	t.Logf("the cluster is up after %v", time.Since(began).Round(time.Millisecond))
	countContract(t, at)
	all := three(t, at, time.Second)
	const burst = 60
	ends := time.Now().Add(time.Hour)
	var asks []count.Ask
	for _, name := range strings.Split("abcdefghij", "") {
		asks = append(asks, hourly(name, burst, 1))
		asks = append(asks, count.Ask{Key: count.Key(name), Quota: count.Quota{Burst: burst, Ends: ends}, Cost: 1})
	}
	for i, n := range flood(t, all, asks) {
		if n != burst {
			t.Errorf("key %d: %d, want exactly %d", i, n, burst)
		}
	}
	for _, r := range all {
		if e := r.events(); len(e) != 0 {
			t.Errorf("told %v", e)
		}
	}
	servers[0].Kill()
	for i, n := range flood(t, all, asks) {
		if n > 2*burst {
			t.Errorf("key %d: %d more, want at most %d", i, n, 2*burst)
		}
	}
	for _, r := range all {
		redistest.Eventually(t, "it is noticed", func() bool { return len(r.events()) > 0 })
		recovers(t, r)
	}
	t.Logf("told %v", all[0].events())
	for i, n := range flood(t, all, append(asks, hourly("fresh", burst, 1))) {
		if n > 2*burst { // more than one only if a machine that stands still loses it again
			t.Errorf("key %d: %d more, want at most %d", i, n, 2*burst)
		}
	}
}

// recovers waits for an election and for a store that is asked seldom by now.
func recovers(t *testing.T, r *replica) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !r.Shared(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not recover within a minute")
		}
	}
}
