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
