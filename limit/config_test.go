package limit_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/limit"
)

func TestConfig(t *testing.T) {
	s := count.NewMemory(count.MemoryConfig{Keys: 8})
	bad := map[string]limit.Config{
		"burst":             {Burst: -1},
		"rate":              {Rate: limit.Rate{Count: -1, Per: time.Second}},
		"concurrent.client": {Concurrent: limit.Concurrent{Client: -1}},
		"concurrent.route":  {Concurrent: limit.Concurrent{Route: 1_000_001}},
		"body":              {Body: -1},
	}
	for setting, c := range bad {
		_, err := limit.New(c, s, nil)
		if se, ok := errors.AsType[*merlon.SettingError](err); !ok || se.Setting != setting {
			t.Errorf("%+v: %v, want a mistake in %s", c, err, setting)
		}
	}
	for _, c := range []limit.Config{
		{Rate: rate(t, "1/d"), Burst: 32}, {Rate: rate(t, "1/d"), Burst: 1_000_000}, {Burst: 1_000_001},
	} {
		if _, err := limit.New(c, s, nil); err == nil || !strings.HasPrefix(err.Error(), "burst ") {
			t.Errorf("%+v: %v, want a mistake in burst", c, err)
		}
	}
	if _, err := limit.New(limit.Config{}, nil, nil); err == nil {
		t.Error("no store: no error")
	}
	_, err := limit.New(limit.Config{Burst: -1, Body: -1, Concurrent: limit.Concurrent{Client: -1}}, s, nil)
	if n := strings.Count(err.Error(), "\n") + 1; n != 3 {
		t.Errorf("%d mistakes told, want all 3: %v", n, err)
	}
	if _, err := limit.New(limit.Config{Rate: rate(t, "1/d"), Burst: 31}, s, nil); err != nil {
		t.Error(err)
	}
}

func TestRateText(t *testing.T) {
	for _, good := range []string{"100/s", "600/min", "10/h", "1/d", "1000000/s", "60000000/min", "off"} {
		if got := rate(t, good).String(); got != good {
			t.Errorf("%q is written %q", good, got)
		}
	}
	for _, bad := range []string{
		"", "100", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "1e3/s", " 1/s", "1/ s", "1/m", "1/sec", "1/S", "1/s/s", "1000001/s",
		"60000001/min", "99999999999999999999/s", "OFF", "none", "100/10s",
	} {
		var r limit.Rate
		if err := r.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, r)
		}
	}
}

func FuzzRate(f *testing.F) {
	for _, s := range []string{"100/s", "1/d", "off", "2147483647/h", "x/s", ""} {
		f.Add(s)
	}
	s := count.NewMemory(count.MemoryConfig{Keys: 8})
	f.Fuzz(func(t *testing.T, text string) {
		var r limit.Rate
		if r.UnmarshalText([]byte(text)) != nil {
			return
		}
		var again limit.Rate
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Errorf("%q is written %q, which is read as %+v, %v", text, r, again, err)
		}
		if _, err := limit.New(limit.Config{Rate: r, Burst: 1}, s, nil); err != nil {
			t.Errorf("%q can be read but not used: %v", text, err)
		}
	})
}

func TestFurtherMistakes(t *testing.T) {
	s := count.NewMemory(count.MemoryConfig{Keys: 8})
	r, q, kib := rate(t, "10/s"), limit.Quota{Count: 10, Per: limit.Day}, limit.Bytes{Size: merlon.KiB, Window: limit.Day}
	for i, c := range []struct {
		config  limit.Config
		setting string
		rule    string
	}{
		{limit.Config{Zone: "Berlin"}, "zone", "time zone"},
		{limit.Config{Zone: "Local"}, "zone", "time zone"},
		{limit.Config{Zone: "../etc/passwd"}, "zone", "time zone"},
		{limit.Config{Cost: -1}, "cost", "from 1 to"},
		{limit.Config{Cost: 501}, "cost", "at most 500, which limit default"},
		{limit.Config{Cost: 1_000_001}, "cost", "from 1 to"},
		{limit.Config{Cost: 11, Rate: r}, "cost", "at most 10, which limit default"},
		{limit.Config{Cost: 11, Quota: q}, "cost", "at most 10"},
		{limit.Config{Cost: 11, Limits: []limit.Limit{{By: limit.By{"user"}, Rate: r}}}, "cost", "at most 10, which limit user"},
		{limit.Config{Quota: limit.Quota{Count: -1, Per: limit.Day}}, "quota", "number"},
		{limit.Config{Quota: limit.Quota{Count: 1e12 + 1, Per: limit.Day}}, "quota", "at most 1000000000000"},
		{limit.Config{Quota: limit.Quota{Count: 1}}, "quota", "number"},
		{limit.Config{Bytes: limit.Bytes{Size: 1023, Window: limit.Day}}, "bytes", "from 1KiB"},
		{limit.Config{Bytes: limit.Bytes{Size: 524289 * merlon.GiB, Window: limit.Day}}, "bytes", "from 1KiB"},
		{limit.Config{Bytes: limit.Bytes{Size: merlon.GiB, Per: time.Second}}, "bytes", "1000000KiB/s"},
		{limit.Config{Bytes: limit.Bytes{Size: merlon.GiB, Per: time.Hour, Window: limit.Day}}, "bytes", "size"},
		{further(limit.Limit{}), "limits[0]", "must have"},
		{further(limit.Limit{By: limit.By{"user"}, Cost: 2}), "limits[0]", "must have"},
		{further(limit.Limit{Rate: limit.Rate{Off: true}}), "limits[0]", "must bound"},
		{further(limit.Limit{Quota: limit.Quota{Off: true}, Concurrent: 2}), "limits[0]", "must bound"},
		{further(limit.Limit{Quota: q, Burst: 5}), "limits[0].burst", "needs rate"},
		{further(limit.Limit{Rate: r, Burst: -5}), "limits[0].burst", "from 1 to"},
		{further(limit.Limit{Rate: rate(t, "1/d"), Burst: 50}), "limits[0].burst", "31 days"},
		{further(limit.Limit{Bytes: kib, Cost: 5}), "limits[0].cost", "needs rate or quota"},
		{further(limit.Limit{Concurrent: 5, Cost: 5}), "limits[0].cost", "needs rate or quota"},
		{further(limit.Limit{Rate: r, Cost: 11}), "limits[0].cost", "at most 10"},
		{further(limit.Limit{Rate: r, Cost: -1}), "limits[0].cost", "from 1 to"},
		{further(limit.Limit{Bytes: kib, Distinct: true}), "limits[0].distinct", "needs rate or quota"},
		{further(limit.Limit{Rate: r, Bytes: kib, Distinct: true}), "limits[0].distinct", "must not stand with"},
		{further(limit.Limit{Rate: r, Concurrent: 2, Distinct: true}), "limits[0].distinct", "must not stand with"},
		{further(limit.Limit{Concurrent: -1}), "limits[0].concurrent", "from 1 to"},
		{further(limit.Limit{Concurrent: 1_000_001}), "limits[0].concurrent", "from 1 to"},
		{further(limit.Limit{Rate: r, Name: "Mine"}), "limits[0].name", "small letters"},
		{further(limit.Limit{Rate: r, Name: `a";x="`}), "limits[0].name", "small letters"},
		{further(limit.Limit{Rate: r, Name: strings.Repeat("x", 33)}), "limits[0].name", "small letters"},
		{further(limit.Limit{Rate: r, By: limit.By{"user"}}, limit.Limit{Quota: q, By: limit.By{"user"}}), "limits[1].name", "another limit"},
		{further(limit.Limit{Rate: r, Quota: q, By: limit.By{"user"}}, limit.Limit{Rate: r, Name: "user-quota"}), "limits[1].name", "another limit"},
		{limit.Config{Limits: []limit.Limit{{Rate: r, Name: "default"}}}, "limits[0].name", "another limit"},
		{limit.Config{By: limit.By{"user"}, Limits: []limit.Limit{{Rate: r, By: limit.By{"user"}}}}, "limits[0].name", "another limit"},
		{limit.Config{Concurrent: limit.Concurrent{Client: 5}, Limits: []limit.Limit{{Rate: r, Name: "default-concurrent"}}}, "concurrent.client", "another limit"},
	} {
		_, err := limit.New(c.config, s, nil)
		se, ok := errors.AsType[*merlon.SettingError](err)
		if !ok || se.Setting != c.setting || !strings.Contains(se.Rule, c.rule) {
			t.Errorf("row %d: %v, want a mistake in %s about %q", i, err, c.setting, c.rule)
		}
	}
	for i, good := range []limit.Config{
		{Cost: 500}, {Zone: "Europe/Berlin", Quota: q}, {Rate: limit.Rate{Off: true}, Burst: 7}, // inherited from where there is a rate
		{Rate: limit.Rate{Off: true}, Cost: 1_000_000}, {Quota: limit.Quota{Off: true}, Bytes: limit.Bytes{Off: true}},
		further(limit.Limit{Name: "0", Rate: r}, limit.Limit{Name: strings.Repeat("x", 32), Rate: r}),
		further(limit.Limit{Rate: r, Burst: 1, Quota: q, Bytes: kib, Concurrent: 1}), further(limit.Limit{Rate: r, Quota: q, Distinct: true}),
		{By: limit.By{"user"}, Burst: 7}, {By: limit.By{"user"}, Distinct: true},
	} {
		if _, err := limit.New(good, s, nil); err != nil {
			t.Errorf("row %d: %v", i, err)
		}
	}
}

func TestQuotaAndBytesText(t *testing.T) {
	for _, good := range []string{"1/hour", "10000/day", "70/week", "1000000000000/month", "off"} {
		var q limit.Quota
		if err := q.UnmarshalText([]byte(good)); err != nil || q.String() != good {
			t.Errorf("%q: %q, %v", good, q, err)
		}
	}
	for _, bad := range []string{"", "10", "/day", "0/day", "-1/day", "+1/day", "1.5/day", "1/d", "1/days", "1/Day", "1 /day", "1/day/day", "1000000000001/day", "99999999999999999999/day", "1/year"} {
		var q limit.Quota
		if err := q.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, q)
		}
	}
	for _, good := range []string{"1KiB/s", "1000000KiB/s", "100MiB/min", "10GiB/h", "1025/d", "1KiB/hour", "10GiB/day", "7GiB/week", "524288GiB/month", "off"} {
		var b limit.Bytes
		if err := b.UnmarshalText([]byte(good)); err != nil || b.String() != good {
			t.Errorf("%q: %q, %v", good, b, err)
		}
	}
	for _, bad := range []string{"", "10GiB", "/day", "0/day", "1023/day", "-1KiB/s", "1GiB/s", "524289GiB/month", "1TiB/day", "1GiB/year", "1GiB/D", "GiB/day", "1GiB/day/s"} {
		var b limit.Bytes
		if err := b.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, b)
		}
	}
}

// What can be read can be written, read again as the same, and used.
func FuzzQuota(f *testing.F) {
	for _, s := range []string{"1/hour", "10000/day", "off", "1000000000000/month", "x/s", ""} {
		f.Add(s)
	}
	s := count.NewMemory(count.MemoryConfig{Keys: 8})
	f.Fuzz(func(t *testing.T, text string) {
		var q, again limit.Quota
		if q.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(q.String())); err != nil || again != q {
			t.Errorf("%q is written %q, which is read as %+v, %v", text, q, again, err)
		}
		if _, err := limit.New(limit.Config{Quota: q}, s, nil); err != nil {
			t.Errorf("%q can be read but not used: %v", text, err)
		}
	})
}

func FuzzBytes(f *testing.F) {
	for _, s := range []string{"1KiB/s", "10GiB/day", "off", "524288GiB/month", "1025/d", "x/s", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var b, again limit.Bytes
		if b.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%q is written %q, which is read as %+v, %v", text, b, again, err)
		}
		g := newGate(t, limit.Config{Bytes: b})
		if d := g.transfer(t, 1, 1<<40); !d.Passed() {
			t.Errorf("%q can be read but not used: %+v", text, d)
		}
		if d := g.transfer(t, 0, 0); d.Passed() && !b.Off && b.Size < 1<<39 {
			t.Errorf("%q: a tebibyte is not counted", text)
		}
	})
}
