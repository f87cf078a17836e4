package limit_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/merlontest"
)

// A request that was received a while ago and is counted only now, because the
// process stood still or a guard in front was slow, is late. It is no sign of a
// clock that has gone back, and must not give anybody a fresh quota.
func TestMemoryLateRequestsWashNothing(t *testing.T) {
	q := limit.Quota{Every: 10 * time.Millisecond, Burst: 200}
	for _, late := range []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, time.Minute} {
		s, now := limit.NewMemory(limit.MemoryConfig{Keys: 8}), time.Now()
		if res := take(t, s, key(1), q, 200, now); !res.OK {
			t.Fatalf("%+v", res)
		}
		if res := take(t, s, key(1), q, 1, now.Add(-late)); res.OK {
			t.Errorf("%s late: passed with nothing left", late)
		}
		if res := take(t, s, key(2), q, 1, now.Add(-late)); !res.OK {
			t.Errorf("%s late: another client's first request was refused", late)
		}
		if res := take(t, s, key(1), q, 1, now); res.OK {
			t.Errorf("a request %s late washed the count clean: %+v", late, res)
		}
		if res := take(t, s, key(1), q, 200, now.Add(2*time.Second)); !res.OK {
			t.Errorf("%s late: the quota is not whole again when it should be: %+v", late, res)
		}
	}
}

// What a refusal proposes must be a configuration that New takes.
func TestRemedyOfRateCanBeUsed(t *testing.T) {
	for _, c := range []struct {
		rate  string
		burst int
		want  int // 0: no remedy
	}{
		{"1/h", 1, 2}, {"1/s", 1_000_000, 0}, {"1/s", 700_000, 1_000_000}, {"1/d", 31, 0}, {"1/d", 20, 31}, {"1/h", 744, 0},
	} {
		s := limit.NewMemory(limit.MemoryConfig{Keys: 8})
		config := limit.Config{Rate: rate(t, c.rate), Burst: c.burst}
		g := newGuard(t, config, s)
		r := merlontest.Request(t, "GET /")
		q := limit.Quota{Every: config.Rate.Per / time.Duration(config.Rate.Count), Burst: c.burst}
		k := limit.Key{Policy: "default", Site: r.Site, Route: r.Route, Client: r.Client}
		take(t, s, k, q, c.burst, r.Received)
		d := g.Check(r)
		if d.Reason != limit.RateExceeded {
			t.Fatalf("%+v: %+v", c, d)
		}
		want := ""
		if c.want > 0 {
			want = fmt.Sprintf("limit:\n  burst: %d", c.want)
		}
		if d.Remedy != want {
			t.Errorf("%s, burst %d: remedy %q, want %q", c.rate, c.burst, d.Remedy, want)
		}
		if _, text, ok := strings.Cut(d.Remedy, "burst: "); ok {
			config.Burst, _ = strconv.Atoi(text)
			if _, err := limit.New(config, s); err != nil {
				t.Errorf("%s, burst %d: the remedy cannot be used: %v", c.rate, c.burst, err)
			}
		}
	}
}
