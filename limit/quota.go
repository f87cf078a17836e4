package limit

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon"
)

// A Period is a time of the calendar.
type Period uint8

// The periods; a week begins on Monday.
const (
	Hour Period = iota + 1
	Day
	Week
	Month
)

var periods = [...]string{Hour: "hour", Day: "day", Week: "week", Month: "month"}

// String returns "hour", "day", "week" or "month".
func (p Period) String() string {
	if int(p) < len(periods) {
		return periods[p]
	}
	return strconv.Itoa(int(p))
}

func period(text string) (Period, bool) {
	for p := Hour; p <= Month; p++ {
		if text == periods[p] {
			return p, true
		}
	}
	return 0, false
}

// seconds is how long the period is, or 0 where that differs.
func (p Period) seconds() int64 {
	switch p {
	case Hour:
		return 3600
	case Day:
		return 24 * 3600
	case Week:
		return 7 * 24 * 3600
	}
	return 0
}

// end is when the period that t falls into is over.
func (p Period) end(t time.Time) time.Time {
	y, m, d := t.Date()
	switch p {
	case Hour:
		// In absolute time: where clocks are put back, an hour comes twice.
		into := time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond())
		return t.Round(0).Add(time.Hour - into)
	case Day:
		d++
	case Week:
		d += 7 - (int(t.Weekday())+6)%7
	default:
		m, d = m+1, 1
	}
	end := time.Date(y, m, d, 0, 0, 0, 0, t.Location())
	if end.Hour() != 0 { // midnight was skipped there, and this is before the gap
		if next := end.Add(time.Hour); next.Day() != end.Day() {
			end = next
		}
	}
	return end
}

// A calendar knows when the current period ends, and remembers it.
type calendar struct {
	period Period
	zone   *time.Location
	latest atomic.Pointer[window]
}

// A window is the time in which a period has been found to end at the same time.
type window struct{ from, to time.Time }

func (c *calendar) ends(now time.Time) time.Time {
	if w := c.latest.Load(); w != nil && !now.Before(w.from) && now.Before(w.to) {
		return w.to
	}
	now = now.Round(0)
	end := c.period.end(now.In(c.zone)).UTC()
	c.latest.Store(&window{now, end})
	return end
}

// A Quota is a number of requests in a period, written "10000/day", or "off"
// for no bound. The zero Quota stands for the default.
type Quota struct {
	Count int64
	Per   Period
	Off   bool
}

const (
	maxQuota  = 1_000_000_000_000
	quotaForm = "must be a number and hour, day, week or month, such as 10000/day, or off; a rate of s, min, h or d is for rate"
	quotaMost = "must be at most 1000000000000"
)

// UnmarshalText reads a quota.
func (q *Quota) UnmarshalText(b []byte) error {
	text := string(b)
	if text == "off" {
		*q = Quota{Off: true}
		return nil
	}
	num, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(num, 10, 62)
	v := Quota{Count: int64(n)}
	var known bool
	if v.Per, known = period(unit); err != nil || !known {
		return fmt.Errorf("%s, not %q", quotaForm, text)
	}
	if rule := v.broken(); rule != "" {
		return fmt.Errorf("%s, not %q", rule, text)
	}
	*q = v
	return nil
}

// String writes the quota as it is read; the zero Quota is empty.
func (q Quota) String() string {
	switch {
	case q.Off:
		return "off"
	case q == Quota{}:
		return ""
	}
	return strconv.FormatInt(q.Count, 10) + "/" + q.Per.String()
}

// MarshalText writes the quota as [Quota.String] does.
func (q Quota) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// set reports whether there is a quota at all.
func (q Quota) set() bool { return !q.Off && q != Quota{} }

func (q Quota) broken() string {
	switch {
	case q.Off || q == Quota{}:
		return ""
	case q.Count <= 0 || q.Per < Hour || q.Per > Month:
		return quotaForm
	case q.Count > maxQuota:
		return quotaMost
	}
	return ""
}

// Bytes is a size in a time, written "100MiB/min" or "10GiB/day", or "off" for
// no bound: with s, min, h or d it becomes available bit by bit, while hour,
// day, week and month are those of the calendar. The zero Bytes stands for the
// default.
type Bytes struct {
	Size   merlon.Size
	Per    time.Duration // 0 with Window
	Window Period        // 0 with Per
	Off    bool
}

const (
	maxBytes  = 524288 * merlon.GiB // which structured fields can tell (RFC 9651, section 3.3.1)
	bytesForm = "must be a size and s, min, h, d, hour, day, week or month, such as 10GiB/day, or off"
	bytesMost = "must be from 1KiB to 524288GiB"
	bytesRate = "must be at most 1000000KiB/s"
)

// UnmarshalText reads a size in a time.
func (v *Bytes) UnmarshalText(b []byte) error {
	text := string(b)
	if text == "off" {
		*v = Bytes{Off: true}
		return nil
	}
	size, unit, _ := strings.Cut(text, "/")
	var n Bytes
	known := false
	if n.Window, known = period(unit); !known {
		for _, u := range units {
			if u.name == unit {
				n.Per, known = u.per, true
			}
		}
	}
	if err := n.Size.UnmarshalText([]byte(size)); err != nil || !known {
		return fmt.Errorf("%s, not %q", bytesForm, text)
	}
	if rule := n.broken(); rule != "" {
		return fmt.Errorf("%s, not %q", rule, text)
	}
	*v = n
	return nil
}

// String writes it as it is read; the zero Bytes is empty.
func (v Bytes) String() string {
	switch {
	case v.Off:
		return "off"
	case v == Bytes{}:
		return ""
	case v.Window != 0:
		return v.Size.String() + "/" + v.Window.String()
	}
	return v.Size.String() + "/" + unitName(v.Per)
}

// MarshalText writes it as [Bytes.String] does.
func (v Bytes) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

func (v Bytes) set() bool { return !v.Off && v != Bytes{} }

func (v Bytes) broken() string {
	switch {
	case v.Off || v == Bytes{}:
		return ""
	case v.Window > Month, (v.Per > 0) == (v.Window > 0), v.Per < 0:
		return bytesForm
	case v.Size < merlon.KiB || v.Size > maxBytes:
		return bytesMost
	case v.Per > 0 && v.Per/time.Duration(v.units()) < minEvery:
		return bytesRate
	}
	return ""
}

// units is how many KiB it is.
func (v Bytes) units() int64 { return int64(v.Size / merlon.KiB) }
