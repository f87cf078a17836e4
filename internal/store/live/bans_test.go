package live_test

import (
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/ban/bantest"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/test/redistest"
)

// bansAt returns a function that empties the server and opens it twice.
func bansAt(at string) bantest.Open {
	return func(t *testing.T) (one, other ban.Store) {
		c, d := redistest.Dial(t, at), redistest.Dial(t, at)
		for _, node := range c.Nodes() {
			if err := node.Do(t.Context(), node.B().Flushall().Build()).Error(); err != nil && !has(err.Error(), "NOPERM") {
				t.Fatal(err)
			}
		}
		return live.NewBans(live.Connected(c)), live.NewBans(live.Connected(d))
	}
}

func TestBans(t *testing.T) {
	_, at := redistest.OnSocket(t)
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
	bantest.TestStore(t, bansAt(redistest.Cluster(t)))
}

func TestBansWithFewRights(t *testing.T) {
	bantest.TestStore(t, bansAt(redistest.WithTLS(t, append(strings.Fields(live.BanRights), "+flushall")...)))
}
