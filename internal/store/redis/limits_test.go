package redis_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/count/counttest"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/test/redistest"
)

// dialLimits connects as soon as the server answers.
func dialLimits(tb testing.TB, at string) rueidis.Client {
	tb.Helper()
	redistest.Dial(tb, at).Close()
	c, err := redis.DialLimits(secrets.New(at))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func limits(tb testing.TB, at string) *redis.Limits {
	tb.Helper()
	l := redis.NewLimits(dialLimits(tb, at))
	tb.Cleanup(l.Close)
	return l
}

func countContract(t *testing.T, at string) {
	l := limits(t, at)
	counttest.Run(t, func(*testing.T) (count.Store, counttest.Clock) { return l, counttest.Real{} })
}

func TestLimits(t *testing.T) {
	_, at := redistest.OnSocket(t)
	countContract(t, at)
	// Nothing stays for ever, and nothing that clients spell is there.
	c := redistest.Dial(t, at)
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	for _, k := range keys {
		left, err := c.Do(t.Context(), c.B().Pttl().Key(k).Build()).AsInt64()
		if err != nil || left == -1 {
			t.Errorf("%q does not expire: %d %v", k, left, err)
		}
		if len(k) != len("merlon:l:{}r")+22 || strings.Trim(k, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_:{}") != "" {
			t.Errorf("%q is no key of ours", k)
		}
	}
}

func TestLimitsOverTLSWithFewRights(t *testing.T) {
	at := redistest.WithTLS(t, strings.Fields(redis.LimitRights)...)
	countContract(t, at)
	l := limits(t, at)
	for range 2 {
		if forgot, err := l.Probe(t.Context(), time.Now()); forgot || err != nil {
			t.Errorf("%v %v", forgot, err)
		}
	}
	r := redis.NewReplicas(dialLimits(t, at), "")
	other := redis.NewReplicas(dialLimits(t, at), "")
	redistest.Eventually(t, "two are counted", func() bool { return r.Count() == 2 })
	other.Close()
	r.Close()
}

func hourly(name string, burst, cost int64) count.Ask {
	return count.Ask{Key: count.Key(name), Quota: count.Quota{Every: time.Hour, Burst: burst}, Cost: cost}
}

func takes(tb testing.TB, s count.Store, a count.Ask) bool {
	tb.Helper()
	res := make([]count.Result, 1)
	if err := s.Take(tb.Context(), []count.Ask{a}, res, time.Now()); err != nil {
		tb.Fatal(err)
	}
	return res[0].OK
}

// Three replicas with 64 requests at once let exactly the quota through, over
// every key, while scripts are forgotten underneath.
func TestLimitsAreExactAcrossReplicas(t *testing.T) {
	_, at := redistest.OnSocket(t)
	replicas := []*redis.Limits{limits(t, at), limits(t, at), limits(t, at)}
	c := redistest.Dial(t, at)
	const keys, burst = 5, 200
	var took [keys]atomic.Int64
	ends := time.Now().Add(time.Hour)
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			res := make([]count.Result, 2)
			for i := range 60 {
				n := (g + i) % keys
				a := hourly("k"+strconv.Itoa(n), burst, 1)
				if n%2 == 1 {
					a.Quota = count.Quota{Burst: burst, Ends: ends}
				}
				asks := []count.Ask{a, hourly("all", 700, 0)}
				if err := replicas[g%3].Take(context.Background(), asks[:1+i%2], res, time.Now()); err != nil {
					t.Error(err)
				} else if res[0].OK {
					took[n].Add(1)
				}
				if g == 0 && i%10 == 0 {
					redistest.Do(t, c, "SCRIPT", "FLUSH")
				}
			}
		})
	}
	wg.Wait()
	for n := range took {
		if got := took[n].Load(); got != burst {
			t.Errorf("key %d: %d were let through, want exactly %d", n, got, burst)
		}
	}
}

// A rate goes by the server's clock: what a replica believes does not matter.
func TestClocksOfReplicasDoNotMatter(t *testing.T) {
	_, at := redistest.OnSocket(t)
	l := limits(t, at)
	res := make([]count.Result, 1)
	for i, off := range []time.Duration{0, time.Hour, -time.Hour, 24 * time.Hour} {
		asks := []count.Ask{hourly("a", 3, 1)}
		if err := l.Take(t.Context(), asks, res, time.Now().Add(off)); err != nil || res[0].OK != (i < 3) {
			t.Errorf("%v off, take %d: %+v %v", off, i, res[0], err)
		}
	}
	// A window's count is there until the slowest clock has passed its end.
	now := time.Now()
	w := []count.Ask{{Key: count.Key("w"), Quota: count.Quota{Burst: 2, Ends: now.Add(-30 * time.Minute)}, Cost: 1}}
	for i := range 3 {
		if err := l.Take(t.Context(), w, res, now.Add(-time.Hour)); err != nil || res[0].OK != (i < 2) {
			t.Errorf("an hour behind, take %d: %+v %v", i, res[0], err)
		}
	}
}

// The server's clock has gone back an hour: nobody waits for it to catch up.
func TestServersClockGoesBack(t *testing.T) {
	_, at := redistest.OnSocket(t)
	l, c := limits(t, at), redistest.Dial(t, at)
	q := count.Quota{Every: 10 * time.Millisecond, Burst: 5}
	a := count.Ask{Key: count.Key("a"), Quota: q, Cost: 1}
	takes(t, l, a)
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	redistest.Do(t, c, "SET", keys[0], strconv.FormatInt(time.Now().Add(time.Hour).UnixMicro(), 10), "PX", "3600000")
	if takes(t, l, a) {
		t.Error("an account far ahead is free")
	}
	redistest.Eventually(t, "it is settled", func() bool { return takes(t, l, a) })
}

func TestPlacesOfTheDeadComeBack(t *testing.T) {
	_, at := redistest.OnSocket(t)
	dead, alive, c := limits(t, at), limits(t, at), redistest.Dial(t, at)
	places := []count.Place{{Key: count.Key("a"), Most: 2}}
	for range 2 {
		if full, _, err := dead.Hold(t.Context(), places); full != -1 || err != nil {
			t.Fatal(full, err)
		}
	}
	if full, _, err := alive.Hold(t.Context(), places); full != 0 || err != nil {
		t.Fatal(full, err)
	}
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*h").Build()).AsStrSlice()
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	left, err := c.Do(t.Context(), c.B().Pttl().Key(keys[0]).Build()).AsInt64()
	if err != nil || left <= 0 || left > 60_000 {
		t.Errorf("the places of the dead come back in %d ms", left)
	}
	// As if the lease had passed.
	who, err := c.Do(t.Context(), c.B().Zrange().Key(keys[0]).Min("0").Max("-1").Build()).AsStrSlice()
	if err != nil || len(who) != 2 {
		t.Fatal(who, err)
	}
	redistest.Do(t, c, "ZADD", keys[0], "1", who[0])
	full, release, err := alive.Hold(t.Context(), places)
	if full != -1 || err != nil {
		t.Fatal(full, err)
	}
	release()
	if full, _, err := alive.Hold(t.Context(), []count.Place{{Key: count.Key("a"), Most: 1}}); full != 0 || err != nil {
		t.Errorf("%d %v", full, err)
	}
}

// What is held is held again after a flush, when it is renewed, and what was
// released is not.
func TestRenewal(t *testing.T) {
	_, at := redistest.OnSocket(t)
	l, c := limits(t, at), redistest.Dial(t, at)
	one := []count.Place{{Key: count.Key("a"), Most: 1}}
	other := []count.Place{{Key: count.Key("b"), Most: 1}}
	full, release, err := l.Hold(t.Context(), one)
	if full != -1 || err != nil {
		t.Fatal(full, err)
	}
	full, releaseOther, err := l.Hold(t.Context(), other)
	if full != -1 || err != nil {
		t.Fatal(full, err)
	}
	releaseOther()
	redistest.Do(t, c, "FLUSHALL")
	l.RenewOnce(t.Context())
	if full, _, err := l.Hold(t.Context(), one); full != 0 || err != nil {
		t.Errorf("what is held was lost: %d %v", full, err)
	}
	if full, _, err := l.Hold(t.Context(), other); full != -1 || err != nil {
		t.Errorf("what was released came back: %d %v", full, err)
	}
	release()
	if full, _, err := l.Hold(t.Context(), one); full != -1 || err != nil {
		t.Errorf("it cannot be released: %d %v", full, err)
	}
}

func TestClosedLimitsHoldNothing(t *testing.T) {
	_, at := redistest.OnSocket(t)
	l := redis.NewLimits(dialLimits(t, at))
	l.Close()
	if _, _, err := l.Hold(t.Context(), []count.Place{{Key: count.Key("a"), Most: 1}}); err == nil {
		t.Error("a place is held that nobody would renew")
	}
}

// What is not a number of ours is an error, not a grant.
func TestStoredNonsenseGrantsNothing(t *testing.T) {
	_, at := redistest.OnSocket(t)
	l, c := limits(t, at), redistest.Dial(t, at)
	a := hourly("a", 3, 1)
	takes(t, l, a)
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	res := make([]count.Result, 1)
	for _, words := range [][]string{{"SET", keys[0], "x"}, {"SET", keys[0], ""}} {
		redistest.Do(t, c, words...)
		if err := l.Take(t.Context(), []count.Ask{a}, res, time.Now()); err == nil {
			t.Errorf("%q: %+v", words, res[0])
		}
	}
	// One of two fails: the other is given back.
	two := []count.Ask{hourly("b", 3, 3), a}
	if err := l.Take(t.Context(), two, make([]count.Result, 2), time.Now()); err == nil {
		t.Error("no error")
	}
	if !takes(t, l, hourly("b", 3, 3)) {
		t.Error("what was taken beside a failure is lost")
	}
}
