package live_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/ban/bantest"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/count/counttest"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/test/redistest"
)

// One user that has the rights, and no others, can do everything.
func TestEverythingWithFewRights(t *testing.T) {
	at := redistest.WithTLS(t, append(strings.Fields(live.Rights+" "+redis.Rights), "+flushall")...)
	t.Run("sessions", func(t *testing.T) { contract(t, at) })
	t.Run("tries", func(t *testing.T) { triesContract(t, at) })
	t.Run("seen", func(t *testing.T) { seenContract(t, at) })
	t.Run("kept", func(t *testing.T) { keptContract(t, at) })
	t.Run("limits", func(t *testing.T) {
		c, err := redis.DialLimits(secrets.New(at))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l := redis.NewLimits(c)
		defer l.Close()
		counttest.Run(t, func(*testing.T) (count.Store, counttest.Clock) { return l, counttest.Real{} })
	})
	t.Run("bans", func(t *testing.T) { bantest.TestStore(t, bansAt(at)) })
	c := redistest.Dial(t, at)
	for _, words := range []string{
		"GET else", "SET else 1", "PUBLISH else 1", "KEYS *", "SCAN 0", "CONFIG GET *", "FLUSHDB", "ACL LIST",
		"SCRIPT FLUSH", "REPLICAOF NO ONE", "MODULE LIST", "MIGRATE h 1 k 0 1", "RESTORE merlon:t:x 0 x",
		"CLUSTER RESET", "SHUTDOWN", "FUNCTION LIST", "DUMP merlon:t:x", "GETDEL merlon:t:x", "EVAL return(redis.call('GET','else')) 0",
	} {
		f := strings.Fields(words)
		err := c.Do(t.Context(), c.B().Arbitrary(f...).Build()).Error()
		if err == nil || !has(err.Error(), "NOPERM") && !has(err.Error(), "ACL failure") && !has(err.Error(), "No permissions") && !has(err.Error(), "can't access") {
			t.Errorf("%s: %v", words, err)
		}
	}
}

// No right is granted that nothing uses.
func TestRightsAreUsed(t *testing.T) {
	for _, c := range []struct {
		name, rights string
		use          func(*testing.T, string)
	}{
		{"tries", live.TriesRights, func(t *testing.T, at string) {
			triesContract(t, at)
			reserve(t, live.NewTries(live.Connected(redistest.Dial(t, at))).Patient(), time.Now(), bucket(1, hour)) // by the server's clock
		}},
		{"seen", live.SeenRights, seenContract},
		{"kept", live.KeptRights, keptContract},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, at := redistest.OnSocket(t)
			c.use(t, at)
			used := usedCommands(t, redistest.Dial(t, at))
			for _, r := range strings.Fields(c.rights) {
				if command, ok := strings.CutPrefix(r, "+"); ok && !used[command] {
					t.Errorf("%s is granted, but never used", command)
				}
			}
		})
	}
}

var statLine = regexp.MustCompile(`(?m)^cmdstat_([a-z|]+):`)

// usedCommands are those that a server was told, by scripts as well.
func usedCommands(t *testing.T, c rueidis.Client) map[string]bool {
	t.Helper()
	info, err := c.Do(t.Context(), c.B().Info().Section("commandstats").Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, m := range statLine.FindAllStringSubmatch(info, -1) {
		used[m[1]] = true
	}
	if len(used) < 3 {
		t.Fatalf("the server tells nothing: %q", info)
	}
	return used
}
