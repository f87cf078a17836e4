package limit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Rate is a number of requests in a time, written "100/s", "600/min", "10/h"
// or "1/d", or "off" for no bound. The zero Rate stands for the default.
type Rate struct {
	Count int
	Per   time.Duration
	Off   bool
}

var units = []struct {
	name string
	per  time.Duration
}{{"s", time.Second}, {"min", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}}

const (
	rateForm = "must be a number and a time such as 100/s, 600/min, 10/h or 1/d, or off"
	minEvery = time.Microsecond
)

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(b []byte) error {
	text := string(b)
	if text == "off" {
		*r = Rate{Off: true}
		return nil
	}
	num, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(num, 10, 31)
	for _, u := range units {
		if err == nil && n > 0 && u.name == unit {
			v := Rate{Count: int(n), Per: u.per}
			if rule := v.broken(); rule != "" {
				return fmt.Errorf("%s, not %q", rule, text)
			}
			*r = v
			return nil
		}
	}
	return fmt.Errorf("%s, not %q", rateForm, text)
}

// String writes the rate as it is read; the zero Rate is empty.
func (r Rate) String() string {
	if r.Off {
		return "off"
	}
	if r == (Rate{}) {
		return ""
	}
	return strconv.Itoa(r.Count) + "/" + unitName(r.Per)
}

func unitName(per time.Duration) string {
	for _, u := range units {
		if u.per == per {
			return u.name
		}
	}
	return per.String()
}

// MarshalText writes the rate as [Rate.String] does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// broken returns the rule that r breaks, or nothing.
func (r Rate) broken() string {
	switch {
	case r.Off:
		return ""
	case r.Count <= 0 || r.Per <= 0:
		return rateForm
	case r.Per/time.Duration(r.Count) < minEvery:
		return "must be at most 1000000/s"
	}
	return ""
}

// every is the time between two requests, rounded up: nobody ever gets more
// than the rate says, and at 1000000/s at most a thousandth less.
func (r Rate) every() time.Duration { return every(r.Per, int64(r.Count)) }

func every(per time.Duration, n int64) time.Duration {
	return (per + time.Duration(n) - 1) / time.Duration(n)
}
