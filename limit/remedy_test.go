package limit_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/merlontest"
)

// spent is a store in which there is nothing left of anything.
type spent struct{ count.Store }

func (spent) Take(_ context.Context, asks []count.Ask, results []count.Result, _ time.Time) error {
	for i := range asks {
		results[i] = count.Result{Retry: time.Minute}
	}
	return nil
}

func TestRemedies(t *testing.T) {
	for _, c := range []struct {
		config limit.Config
		wire   string
		want   string
	}{
		{limit.Config{Rate: rate(t, "1/h"), Burst: 1}, "GET /", "limit:\n  burst: 2"},
		{limit.Config{Concurrent: limit.Concurrent{Client: 1}}, "GET /", "limit:\n  concurrent:\n    client: 2"},
		{limit.Config{Concurrent: limit.Concurrent{Route: 1}}, "GET /", "limit:\n  concurrent:\n    route: 2"},
		{limit.Config{Body: 3}, "POST /\n\nhello", "limit:\n  body: 5"},
	} {
		g := newGuard(t, c.config, count.NewMemory(count.MemoryConfig{Keys: 8}))
		g.Check(merlontest.Request(t, c.wire))
		d := g.Check(merlontest.Request(t, c.wire))
		if d.Passed() || d.Remedy != c.want || len(d.Findings) != 1 {
			t.Errorf("%+v: remedy %q, want %q (%+v)", c.config, d.Remedy, c.want, d)
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
		s := spent{}
		config := limit.Config{Rate: rate(t, c.rate), Burst: c.burst}
		g := newGuard(t, config, s)
		r := merlontest.Request(t, "GET /")
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
			if _, err := limit.New(config, s, nil); err != nil {
				t.Errorf("%s, burst %d: the remedy cannot be used: %v", c.rate, c.burst, err)
			}
		}
	}
}
