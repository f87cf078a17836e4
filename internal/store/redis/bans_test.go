package redis_test

import (
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/ban/bantest"
	"github.com/merlon-dev/merlon/internal/store/redis"
)

// bansAt returns a function that empties the server and opens it twice.
func bansAt(at string) bantest.Open {
	return func(t *testing.T) (one, other ban.Store) {
		c, d := dial(t, at), dial(t, at)
		for _, node := range c.Nodes() {
			if err := node.Do(t.Context(), node.B().Flushall().Build()).Error(); err != nil && !has(err.Error(), "NOPERM") {
				t.Fatal(err)
			}
		}
		return redis.NewBans(c), redis.NewBans(d)
	}
}

func TestBans(t *testing.T) {
	_, at := onSocket(t)
	bantest.TestStore(t, bansAt(at))
}

func TestBansInMiniredis(t *testing.T) {
	m := miniredis.RunT(t)
	bantest.TestStore(t, bansAt("redis://"+m.Addr()))
}

func TestBansInACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	bantest.TestStore(t, bansAt(cluster(t)))
}

func TestBansWithFewRights(t *testing.T) {
	bantest.TestStore(t, bansAt(withTLS(t, append(strings.Fields(redis.BanRights), "+flushall")...)))
}
