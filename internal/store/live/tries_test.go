package live_test

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/attempts/attemptstest"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/test/redistest"
)

// triesAt empties the server and opens it n times.
func triesAt(at string) attemptstest.Open {
	return func(t *testing.T, n int) []attempts.Store {
		var stores []attempts.Store
		for range n {
			c := redistest.Dial(t, at)
			if len(stores) == 0 {
				for _, node := range c.Nodes() {
					if err := node.Do(t.Context(), node.B().Flushall().Build()).Error(); err != nil {
						t.Fatal(err)
					}
				}
			}
			stores = append(stores, live.NewTries(live.Connected(c)).AtTestTime())
		}
		return stores
	}
}

func triesContract(t *testing.T, at string) {
	t.Run("one after another", func(t *testing.T) { attemptstest.TestStore(t, triesAt(at)) })
	t.Run("at once", func(t *testing.T) { attemptstest.TestReplicas(t, triesAt(at)) })
}

func TestTries(t *testing.T) {
	_, at := redistest.OnSocket(t)
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
	triesContract(t, redistest.Cluster(t))
}

func TestTriesOverTLSWithFewRights(t *testing.T) {
	triesContract(t, redistest.WithTLS(t, append(strings.Fields(live.TriesRights+" "+redis.LinkRights), "+flushall")...))
}

var hour = attempts.Schedule{Free: 3, First: time.Hour, Longest: time.Hour, Forget: time.Hour}

func bucket(n byte, s attempts.Schedule) attempts.Bucket {
	return attempts.Bucket{Key: attempts.Key{n, 1}, Schedule: s}
}

func reserve(t testing.TB, s attempts.Store, now time.Time, buckets ...attempts.Bucket) attempts.Result {
	t.Helper()
	r, err := s.Reserve(t.Context(), buckets, now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Whatever the replicas' clocks say, it is the server's that counts (trap 62).
func TestTriesDoNotBelieveTheReplicasClocks(t *testing.T) {
	_, at := redistest.OnSocket(t)
	clocks := []time.Duration{0, 24 * time.Hour, -24 * time.Hour, 5 * time.Second}
	var replicas []attempts.Store
	for range clocks {
		replicas = append(replicas, live.NewTries(live.Connected(redistest.Dial(t, at))).Patient())
	}
	for i, skew := range clocks {
		if r := reserve(t, replicas[i], time.Now().Add(skew), bucket(1, hour)); r.Wait != 0 {
			t.Errorf("%v: %+v", skew, r)
		}
	}
	for i, skew := range clocks {
		if r := reserve(t, replicas[i], time.Now().Add(skew), bucket(1, hour)); r.Wait > time.Hour || r.Wait < 50*time.Minute {
			t.Errorf("a clock that is off by %v makes wait %v", skew, r.Wait)
		}
	}
	// Time goes by for one whose clock stands still.
	now := time.Now()
	short := attempts.Schedule{Free: 1, First: time.Second, Longest: time.Second, Forget: time.Second}
	for range 2 {
		reserve(t, replicas[0], now, bucket(2, short))
	}
	redistest.Eventually(t, "the wait ends", func() bool { return reserve(t, replicas[0], now, bucket(2, short)).Wait == 0 })
}

// Who is refused because of one bucket leaves no wait in another, however many
// are refused at once.
func TestRefusedTriesLeaveNothing(t *testing.T) {
	_, at := redistest.OnSocket(t)
	narrow, wide := bucket(1, hour), bucket(2, attempts.Schedule{Free: 10, First: time.Hour, Longest: time.Hour, Forget: time.Hour})
	member := wide
	member.Key, member.Member = attempts.Key{3}, attempts.Key{4}
	for range 10 {
		stores := triesAt(at)(t, 3)
		now := time.Now()
		var in atomic.Int32
		var wg sync.WaitGroup
		for i := range 192 {
			wg.Go(func() {
				r, err := stores[i%3].Reserve(t.Context(), []attempts.Bucket{wide, member, narrow}, now)
				if err != nil {
					t.Error(err)
				} else if r.Wait == 0 {
					in.Add(1)
				}
			})
		}
		wg.Wait()
		if in.Load() > 4 {
			t.Fatalf("%d were let through, want at most 4", in.Load())
		}
		if r := reserve(t, stores[0], now, wide); r.Wait != 0 || r.Counts[0] != uint32(in.Load())+1 {
			t.Fatalf("%d were let through, but the next is told %+v", in.Load(), r)
		}
		member.Member = attempts.Key{5}
		// The first member is counted once if one was let through. If none was, it
		// may be, since others went on because it had been counted.
		least := min(uint32(in.Load()), 1) + 1
		if r := reserve(t, stores[0], now, member); r.Wait != 0 || r.Counts[0] < least || r.Counts[0] > 2 {
			t.Fatalf("%d were let through, but the next member is told %+v", in.Load(), r)
		}
		member.Member = attempts.Key{4}
	}
}

// What one after another do is the same as in memory.
func FuzzTriesAsInMemory(f *testing.F) {
	m := miniredis.RunT(f)
	c := redistest.Dial(f, "redis://"+m.Addr())
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"))
	f.Add([]byte{3, 3, 3, 3, 3, 3, 67, 3, 67, 131, 3, 3, 195, 3, 7, 7, 7, 255, 7})
	schedules := []attempts.Schedule{
		{Free: 1, First: time.Second, Longest: 30 * time.Second, Forget: time.Minute},
		{Free: 3, First: 2 * time.Second, Longest: time.Hour, Forget: time.Hour},
	}
	f.Fuzz(func(t *testing.T, steps []byte) {
		m.FlushAll()
		here, there := attempts.NewMemory(1<<12), live.NewTries(live.Connected(c)).AtTestTime()
		now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
		then := now
		for i, step := range steps[:min(len(steps), 200)] {
			buckets := make([]attempts.Bucket, 0, 2)
			for j := range 1 + step&1 {
				b := bucket(step>>1&7+8*j, schedules[step>>2&1]) // a bucket's rules do not change
				if step>>3&1 == 1 {
					b.Most = 6
				}
				if step>>5&1 == 1 { // counted apart from what has no members
					b.Key[2], b.Member = 1, attempts.Key{255, step >> 4 & 1, b.Key[0]}
				}
				buckets = append(buckets, b)
			}
			switch step >> 6 {
			case 0, 1:
				want, err := here.Reserve(t.Context(), buckets, now)
				got, err2 := there.Reserve(t.Context(), buckets, now)
				if err := errors.Join(err, err2); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("step %d: %+v in memory, %+v here", i, want, got)
				}
				then = now
			case 2:
				r := attempts.Refund{Key: buckets[0].Key, Member: buckets[0].Member, Count: 1, At: then, Success: step>>1&1 == 1}
				err := here.Refund(t.Context(), []attempts.Refund{r}, now)
				if err := errors.Join(err, there.Refund(t.Context(), []attempts.Refund{r}, now)); err != nil {
					t.Fatal(err)
				}
			case 3: // never a time at which both round another way
				now = now.Add(time.Duration(step&0x3f) * 7 * time.Second)
			}
		}
	})
}

// However many there are, a bucket remembers a thousand; the others count each
// time.
func TestMembersAreBounded(t *testing.T) {
	_, at := redistest.OnSocket(t)
	s := triesAt(at)(t, 1)[0]
	b := bucket(1, attempts.Schedule{Free: 100_000, First: time.Second, Longest: time.Hour, Forget: time.Hour})
	now := time.Now()
	for i := range live.MaxMembers + 50 {
		b.Member = attempts.Key{1, byte(i), byte(i >> 8)}
		if r := reserve(t, s, now, b); r.Counts[0] != uint32(i+1) {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	if r := reserve(t, s, now, b); r.Counts[0] != live.MaxMembers+51 {
		t.Errorf("one that is not remembered: %+v", r)
	}
	b.Member = attempts.Key{1}
	if r := reserve(t, s, now, b); r.Counts[0] != 0 {
		t.Errorf("one that is: %+v", r)
	}
	c := redistest.Dial(t, at)
	n, err := c.Do(t.Context(), c.B().Zcard().Key("merlon:t:{01010000000000000000000000000000}:m").Build()).AsInt64()
	if err != nil || n != live.MaxMembers {
		t.Errorf("%d are remembered: %v", n, err)
	}
}

// Nothing stays for ever, and an account's failures longer than others.
func TestTriesExpire(t *testing.T) {
	_, at := redistest.OnSocket(t)
	s, c := triesAt(at)(t, 1)[0], redistest.Dial(t, at)
	now := time.Now()
	account, member := bucket(2, hour), bucket(3, hour)
	account.Most, member.Member = 100, attempts.Key{9}
	for range 3 {
		reserve(t, s, now, bucket(1, hour), account, member)
		now = now.Add(time.Second)
	}
	if err := s.Refund(t.Context(), []attempts.Refund{{Key: account.Key, Count: 1}}, now); err != nil {
		t.Fatal(err)
	}
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 4 {
		t.Fatal(keys, err)
	}
	for _, k := range keys {
		left, err := c.Do(t.Context(), c.B().Pttl().Key(k).Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]time.Duration{"01": 3 * time.Hour, "02": 21 * 24 * time.Hour, "03": time.Hour, ":m": 12 * time.Hour}
		d, w := time.Duration(left)*time.Millisecond, want[k[len("merlon:t:{"):][:2]]
		if strings.HasSuffix(k, ":m") {
			w = want[":m"]
		}
		if d < w-time.Minute || d > w+time.Minute {
			t.Errorf("%s lives %v, want %v", k, d, w)
		}
	}
	// What is given back entirely takes no room.
	for _, key := range []attempts.Key{account.Key, {1, 1}, {3, 1}} {
		if err := s.Refund(t.Context(), []attempts.Refund{{Key: key, Member: member.Member, Count: 3, At: now.Add(-time.Second)}}, now); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice(); err != nil || len(keys) != 0 {
		t.Error(keys, err)
	}
}

// In which order ever tries are taken back, who was counted between them waits
// for what is left and for nothing else.
func TestTriesTakenBackInAnyOrder(t *testing.T) {
	_, at := redistest.OnSocket(t)
	once := attempts.Schedule{Free: 1, First: time.Hour, Longest: 24 * time.Hour, Forget: 10_000 * time.Hour}
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	var s *live.Tries
	half := func(t *testing.T, b attempts.Bucket, now time.Time) func() {
		t.Helper()
		giveBack, err := s.HalfWay(t.Context(), b, now)
		if err != nil {
			t.Fatal(err)
		}
		return giveBack
	}
	for _, c := range []struct {
		name string
		do   func(*testing.T, attempts.Bucket)
		wait time.Duration
		want uint32
	}{
		{"the first", func(t *testing.T, b attempts.Bucket) {
			first := half(t, b, now)
			reserve(t, s, now, b)
			first()
		}, 0, 2},
		{"the last", func(t *testing.T, b attempts.Bucket) {
			reserve(t, s, now, b)
			half(t, b, now)()
		}, 0, 2},
		{"both, the first before", func(t *testing.T, b attempts.Bucket) {
			first, last := half(t, b, now), half(t, b, now)
			first()
			last()
		}, 0, 1},
		{"the last, whose wait was over for those before", func(t *testing.T, b attempts.Bucket) {
			reserve(t, s, now.Add(-2*time.Hour), b)
			reserve(t, s, now.Add(-2*time.Hour), b)
			half(t, b, now)()
		}, 0, 3},
		{"one before a wait that others deserve", func(t *testing.T, b attempts.Bucket) {
			first := half(t, b, now.Add(-time.Hour))
			reserve(t, s, now.Add(-time.Hour), b)
			reserve(t, s, now, b)
			first()
		}, time.Hour, 2},
		{"one that was forgotten meanwhile", func(t *testing.T, b attempts.Bucket) {
			first := half(t, b, now)
			if err := s.Refund(t.Context(), []attempts.Refund{{Key: b.Key, All: true}}, now); err != nil {
				t.Fatal(err)
			}
			reserve(t, s, now.Add(time.Millisecond), b)
			first()
		}, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s = triesAt(at)(t, 1)[0].(*live.Tries)
			b := bucket(1, once)
			c.do(t, b)
			if r := reserve(t, s, now.Add(time.Millisecond), b); r.Wait.Round(time.Minute) != c.wait || r.Counts[0] != c.want {
				t.Errorf("%+v, want %v and %d", r, c.wait, c.want)
			}
		})
	}
}
