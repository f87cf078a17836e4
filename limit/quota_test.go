package limit_test

import (
	"context"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/limit"
)

// ends asks a guard when a quota ends: what it tells of a refusal.
func ends(t *testing.T, per limit.Period, zone string, at time.Time) time.Time {
	t.Helper()
	c := further(limit.Limit{By: limit.By{"client"}, Quota: limit.Quota{Count: 1, Per: per}})
	c.Zone = zone
	s := &recorder{}
	g := gateOn(t, c, s)
	g.now = at
	if _, d := g.ask(t, "GET /"); !d.Passed() {
		t.Fatalf("%+v", d)
	}
	return s.asks[0].Quota.Ends
}

// A recorder grants everything, and keeps what it was asked for.
type recorder struct {
	count.Store
	mu   sync.Mutex
	asks []count.Ask
}

func (s *recorder) Take(_ context.Context, asks []count.Ask, results []count.Result, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, a := range asks {
		a.Key = append(count.Key(nil), a.Key...)
		s.asks = append(s.asks, a)
		results[i] = count.Result{OK: true, Remaining: a.Quota.Burst - a.Cost}
	}
	return nil
}

func TestCalendar(t *testing.T) {
	for _, c := range []struct {
		per            limit.Period
		zone, at, want string
	}{
		{limit.Hour, "", "2026-03-01T10:59:59Z", "2026-03-01T11:00:00Z"},
		{limit.Hour, "", "2026-03-01T11:00:00Z", "2026-03-01T12:00:00Z"},
		{limit.Hour, "Asia/Kolkata", "2026-03-01T11:00:00Z", "2026-03-01T11:30:00Z"},
		{limit.Hour, "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"}, // 02:30 comes twice
		{limit.Hour, "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"},
		{limit.Day, "", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		{limit.Day, "UTC", "2026-12-31T23:59:59.999999999Z", "2027-01-01T00:00:00Z"},
		{limit.Day, "Europe/Berlin", "2026-07-01T22:00:00Z", "2026-07-02T22:00:00Z"},
		{limit.Day, "Europe/Berlin", "2026-07-01T21:59:59Z", "2026-07-01T22:00:00Z"},
		{limit.Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-25T23:00:00Z"},  // of 25 hours
		{limit.Day, "Africa/Cairo", "2023-04-27T12:00:00Z", "2023-04-27T22:00:00Z"},   // to a midnight that was skipped
		{limit.Day, "America/Havana", "2026-03-08T03:59:59Z", "2026-03-08T05:00:00Z"}, // likewise, west of Greenwich
		{limit.Day, "America/Havana", "2026-03-08T04:59:59Z", "2026-03-08T05:00:00Z"},
		{limit.Day, "America/Havana", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z"},
		{limit.Week, "", "2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z"}, // a Sunday
		{limit.Week, "", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"},
		{limit.Month, "", "2026-01-31T12:00:00Z", "2026-02-01T00:00:00Z"},
		{limit.Month, "", "2028-02-29T12:00:00Z", "2028-03-01T00:00:00Z"},
		{limit.Month, "Europe/Berlin", "2026-12-31T22:59:59Z", "2026-12-31T23:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339Nano, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := ends(t, c.per, c.zone, at).Format(time.RFC3339Nano); got != c.want {
			t.Errorf("%s in %q at %s: ends %s, want %s", c.per, c.zone, c.at, got, c.want)
		}
	}
}

// Each period has a key of its own, also when time goes back.
func TestPeriodsAreCountedApart(t *testing.T) {
	s := &recorder{}
	g := gateOn(t, further(limit.Limit{By: limit.By{"client"}, Quota: limit.Quota{Count: 9, Per: limit.Day}, Bytes: limit.Bytes{Size: merlon.GiB, Window: limit.Day}}), s)
	monday := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for _, at := range []time.Time{monday, monday.Add(24 * time.Hour), monday.Add(time.Hour)} {
		g.now = at
		g.ask(t, "GET /")
	}
	for _, i := range []int{0, 1} { // the quota, the bytes
		a, b, c := s.asks[i], s.asks[i+2], s.asks[i+4]
		if string(a.Key) == string(b.Key) || string(a.Key) != string(c.Key) || !a.Quota.Ends.Equal(c.Quota.Ends) || !b.Quota.Ends.Equal(a.Quota.Ends.Add(24*time.Hour)) {
			t.Errorf("%q until %s, %q until %s, %q until %s", a.Key, a.Quota.Ends, b.Key, b.Quota.Ends, c.Key, c.Quota.Ends)
		}
	}
}

// At every time a period has an end ahead, not too far, which is the same from
// then on until it is reached.
func FuzzCalendar(f *testing.F) {
	f.Add(int64(1_772_000_000), int64(5000), uint8(1), uint8(0))
	f.Add(int64(1_682_600_000), int64(3600), uint8(2), uint8(3))
	zones := []string{"", "Europe/Berlin", "Asia/Kolkata", "Africa/Cairo", "Australia/Lord_Howe", "America/Sao_Paulo", "America/Havana", "Pacific/Apia", "Asia/Beirut"}
	most := map[limit.Period]time.Duration{limit.Hour: time.Hour, limit.Day: 25 * time.Hour, limit.Week: 7*24*time.Hour + time.Hour, limit.Month: 31*24*time.Hour + time.Hour}
	f.Fuzz(func(t *testing.T, unix, later int64, p, z uint8) {
		per, zone := limit.Period(p%4+1), zones[int(z)%len(zones)]
		at := time.Unix(int64(uint64(unix)%math.MaxUint32), 0)
		end := ends(t, per, zone, at)
		left := end.Sub(at)
		if left <= 0 || left > most[per] {
			t.Fatalf("%s in %q at %s ends %s", per, zone, at.UTC(), end)
		}
		between := at.Add(time.Duration(uint64(later) % uint64(left)))
		if again := ends(t, per, zone, between); !again.Equal(end) {
			t.Errorf("%s in %q at %s ends %s, but at %s it ends %s", per, zone, at.UTC(), end, between.UTC(), again)
		}
	})
}

// noon is one that a store which was opened now can count at.
func noon() time.Time { return time.Now().UTC().Truncate(24 * time.Hour).Add(36 * time.Hour) }

func TestQuota(t *testing.T) {
	g := newGate(t, further(limit.Limit{Name: "daily", By: limit.By{"user"}, Quota: limit.Quota{Count: 5, Per: limit.Day}}))
	g.now = noon()
	if n := g.passes(t, 20, "GET /", user("ann")); n != 5 {
		t.Fatalf("%d, want 5", n)
	}
	_, d := g.ask(t, "GET /", user("ann"))
	if d.Reason != limit.QuotaExceeded || d.Code() != 429 || d.Header.Get("Retry-After") != "43200" || d.Header.Get("RateLimit") != `"daily";r=0;t=43200` {
		t.Errorf("%+v", d)
	}
	if d.Remedy != "" {
		t.Errorf("a remedy that could not be put anywhere: %q", d.Remedy)
	}
	g.now = g.now.Add(12*time.Hour - 1)
	if n := g.passes(t, 20, "GET /", user("ann")); n != 0 {
		t.Errorf("%d a nanosecond before midnight", n)
	}
	g.now = g.now.Add(1)
	if n := g.passes(t, 20, "GET /", user("ann")); n != 5 {
		t.Errorf("%d after midnight, want 5", n)
	}
}

// transfer sends a request that transfers so many bytes.
func (g *gate) transfer(t *testing.T, in, out int64, set ...func(*merlon.Request)) merlon.Decision {
	r := g.from(t, "GET /", set...)
	d := g.Check(r)
	g.Done(r, merlon.Outcome{Status: 200, In: in, Out: out})
	return d
}

func TestBytes(t *testing.T) {
	for _, by := range []string{"client", "user"} { // in front and behind identity
		g := newGate(t, further(limit.Limit{By: limit.By{by}, Bytes: limit.Bytes{Size: 100 * merlon.KiB, Per: time.Hour}}))
		for i := range 4 {
			if d := g.transfer(t, 10<<10, 15<<10-1, user("ann")); !d.Passed() {
				t.Fatalf("by %s: transfer %d of 25 KiB: %+v", by, i, d)
			}
		}
		d := g.transfer(t, 0, 0, user("ann"))
		if d.Reason != limit.BytesExceeded || d.Code() != 429 || d.Header.Get("Retry-After") != "36" || !strings.HasSuffix(d.Header.Get("RateLimit"), ";r=0;t=36") {
			t.Errorf("by %s: after 100 KiB: %+v", by, d)
		}
		if d := g.transfer(t, 0, 0, user("bob"), client("192.0.2.9")); !d.Passed() {
			t.Errorf("by %s: somebody else: %+v", by, d)
		}
		g.now = g.now.Add(36 * time.Second)
		if d := g.transfer(t, 0, 500<<20, user("ann")); !d.Passed() {
			t.Errorf("by %s: 36 seconds later: %+v", by, d)
		}
		g.now = g.now.Add(59 * time.Minute)
		if d := g.transfer(t, 0, 0, user("ann")); d.Passed() {
			t.Errorf("by %s: a transfer of 500 MiB was not counted", by)
		}
		g.now = g.now.Add(time.Minute + 72*time.Second) // the debt is one burst at most
		if d := g.transfer(t, 0, 0, user("ann")); !d.Passed() {
			t.Errorf("by %s: the debt is not bounded: %+v", by, d)
		}
	}
	g := newGate(t, limit.Config{Bytes: limit.Bytes{Size: 10 * merlon.KiB, Window: limit.Day}})
	g.now = noon()
	if d := g.transfer(t, 20<<10, 0); !d.Passed() || d.Header.Get("RateLimit") != `"default-bytes";r=9216;t=43200` {
		t.Errorf("%+v", d)
	}
	if d := g.transfer(t, 0, 0); d.Reason != limit.BytesExceeded || d.Remedy != "limit:\n  bytes: 20KiB/day" || d.Header.Get("Retry-After") != "43200" {
		t.Errorf("%+v", d)
	}
}

// Others may come between the beginning and the end of a transfer.
func TestBytesGoToTheirOwnAccount(t *testing.T) {
	g := newGate(t, further(limit.Limit{By: limit.By{"client"}, Bytes: limit.Bytes{Size: 10 * merlon.KiB, Per: time.Hour}}))
	slow := g.from(t, "GET /", client("192.0.2.1"))
	g.Check(slow)
	for i := range 50 {
		g.transfer(t, 0, 0, client("198.51.100."+strconv.Itoa(i)))
	}
	g.Done(slow, merlon.Outcome{Out: 1 << 20})
	if d := g.transfer(t, 0, 0, client("192.0.2.1")); d.Passed() {
		t.Error("a transfer during which others came was not counted")
	}
	for i := range 50 {
		if d := g.transfer(t, 0, 0, client("198.51.100."+strconv.Itoa(i))); !d.Passed() {
			t.Errorf("client %d pays for it: %+v", i, d)
		}
	}
}

// Refused requests hold no bytes back, and what was never counted is not added.
func TestBytesOfRefused(t *testing.T) {
	c := further(limit.Limit{By: limit.By{"client"}, Bytes: limit.Bytes{Size: 10 * merlon.KiB, Per: time.Hour}})
	c.Body = 1
	g := newGate(t, c)
	for range 9 {
		r := g.from(t, "POST /\n\nhello")
		if d := g.Check(r); d.Reason != limit.BodyTooLarge {
			t.Fatalf("%+v", d)
		}
		g.Done(r, merlon.Outcome{Status: 413, In: 1 << 30})
	}
	if d := g.transfer(t, 0, 0); !d.Passed() {
		t.Errorf("%+v", d)
	}
}

func TestDistinct(t *testing.T) {
	g := newGate(t, further(limit.Limit{By: limit.By{"client"}, Rate: rate(t, "10/h"), Distinct: true}))
	if n := g.passes(t, 1000, "GET /orders/1"); n != 1000 {
		t.Fatalf("%d of 1000 for one address", n)
	}
	walk := func(from, n int, format string) (passed int) {
		for i := range n {
			passed += g.passes(t, 1, strings.Replace(format, "%d", string(rune('A'+(from+i)%26))+strings.Repeat("x", (from+i)/26), 1))
		}
		return passed
	}
	if n := walk(0, 5, "GET /orders/%d") + walk(0, 50, "GET /orders?id=%d"); n != 9 {
		t.Errorf("%d ids walked through, want the other 9 of 10", n)
	}
	if n := g.passes(t, 10, "GET /orders/A"); n != 0 {
		t.Errorf("%d when everything is used up", n)
	}
	if n := g.passes(t, 10, "GET /orders/A", client("192.0.2.9")); n != 10 {
		t.Errorf("%d of another client", n)
	}
	// A refusal marks nothing as seen: asking twice is no way around.
	g.now = g.now.Add(6 * time.Minute)
	passed := 0
	for range 3 {
		passed += walk(100, 30, "GET /orders/%d")
	}
	if passed != 1 {
		t.Errorf("%d after one is regained, want 1", passed)
	}
	g.now = g.now.Add(2 * time.Hour)
	if n := walk(0, 50, "GET /orders/%d"); n != 10 {
		t.Errorf("%d after the whole is regained, want 10", n)
	}
}

// The same in parallel: an address that is asked for at once by many counts
// once at most, and no address goes uncounted.
func TestDistinctUnderRace(t *testing.T) {
	g := newGate(t, further(limit.Limit{By: limit.By{"client"}, Quota: limit.Quota{Count: 20, Per: limit.Day}, Distinct: true}))
	g.now = noon()
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	for range 8 {
		for i := range 50 {
			r := g.from(t, "GET /orders/"+strings.Repeat("x", i))
			wg.Go(func() {
				if g.Gate.Check(r).Passed() {
					mu.Lock()
					seen[r.Path] = true
					mu.Unlock()
				}
				g.Gate.Done(r, merlon.Outcome{})
			})
		}
	}
	wg.Wait()
	if len(seen) > 20 || len(seen) < 10 {
		t.Errorf("%d addresses of 50 came through, want 20", len(seen))
	}
}

// A stubborn store says of one more path each time that it has been seen.
type stubborn struct {
	recorder
	calls int
}

func (s *stubborn) Take(ctx context.Context, asks []count.Ask, results []count.Result, now time.Time) error {
	s.calls++
	_ = s.recorder.Take(ctx, asks, results, now)
	for i, a := range asks {
		if a.Quota.Burst == 1 {
			results[i] = count.Result{Retry: time.Hour}
			break
		}
	}
	return nil
}

// A race that never ends is given up, and what may be new costs then.
func TestDistinctIsAskedAFewTimes(t *testing.T) {
	var list []limit.Limit
	for i := range 9 {
		list = append(list, limit.Limit{Name: "n" + strconv.Itoa(i), Rate: rate(t, "10/h"), Distinct: true})
	}
	s := &stubborn{}
	if _, d := gateOn(t, further(list...), s).ask(t, "GET /"); !d.Passed() || s.calls != 4 {
		t.Errorf("asked %d times, want 4: %+v", s.calls, d)
	}
	cost := int64(0)
	for _, a := range s.asks[len(s.asks)-9:] {
		cost += a.Cost
	}
	if cost != 6 {
		t.Errorf("at last %d of 9 cost, want the 6 of which it is not known that they were seen", cost)
	}
}

// A store that has no room to tell whether something was seen must not make it
// free.
func TestDistinctWithoutRoom(t *testing.T) {
	g := gateOn(t, further(limit.Limit{By: limit.By{"client"}, Rate: rate(t, "100/h"), Distinct: true}), count.NewMemory(count.MemoryConfig{Keys: 8}))
	passed := 0
	for i := range 1000 {
		passed += g.passes(t, 1, "GET /"+strings.Repeat("x", i))
	}
	if passed > 100 {
		t.Errorf("%d of a 100", passed)
	}
}
