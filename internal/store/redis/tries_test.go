package redis_test

import (
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/attempts/attemptstest"
	"github.com/merlon-dev/merlon/internal/store/redis"
)

// triesAt empties the server and opens it n times.
func triesAt(at string) attemptstest.Open {
	return func(t *testing.T, n int) []attempts.Store {
		var stores []attempts.Store
		for range n {
			c := dial(t, at)
			if len(stores) == 0 {
				for _, node := range c.Nodes() {
					if err := node.Do(t.Context(), node.B().Flushall().Build()).Error(); err != nil {
						t.Fatal(err)
					}
				}
			}
			stores = append(stores, redis.NewTries(c).AtTestTime())
		}
		return stores
	}
}

func triesContract(t *testing.T, at string) {
	t.Run("one after another", func(t *testing.T) { attemptstest.TestStore(t, triesAt(at)) })
	t.Run("at once", func(t *testing.T) { attemptstest.TestReplicas(t, triesAt(at)) })
}

func TestTries(t *testing.T) {
	_, at := onSocket(t)
	triesContract(t, at)
}

func TestTriesInMiniredis(t *testing.T) {
	m := miniredis.RunT(t)
	triesContract(t, "redis://"+m.Addr())
}

func TestTriesInACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	triesContract(t, cluster(t))
}

func TestTriesOverTLSWithFewRights(t *testing.T) {
	triesContract(t, withTLS(t, append(strings.Fields(redis.TriesRights+" "+redis.LinkRights), "+flushall")...))
}
