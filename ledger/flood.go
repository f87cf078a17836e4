package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/merlon-dev/merlon"
)

// What a flood may cost. One who floods must neither fill the disk nor push
// out, by way of retention, what went before; counts stay exact all the same.
const (
	floodWindow  = 10 * time.Second
	floodStretch = time.Minute // the window while the day's share is spent
	floodKeys    = 4096        // clients counted each for itself in one window
	floodNamed   = 100         // of which so many get a line of their own
	floodSpent   = 10          // or so many while the day's share is spent
	floodGuards  = 256
)

// A flood lets through the first events of each guard, reason and client in a
// window and counts the rest, within a daily share of bytes for all together.
type flood struct {
	burst  int
	share  float64 // bytes a day
	left   float64
	filled time.Time
	start  time.Time // of the window
	keys   map[floodKey]*tally
	spent  bool // the share ran out and nobody has said so yet, or it was said
	told   bool
}

type floodKey struct {
	kind   Kind
	guard  string
	reason merlon.Reason
	client string
}

type tally struct {
	detailed    int
	more        uint64
	clients     uint64
	first, last time.Time
	name, site  string
}

func newFlood(burst int, share merlon.Size, now time.Time) *flood {
	return &flood{burst: burst, share: float64(share), left: float64(share), filled: now, start: now, keys: map[floodKey]*tally{}}
}

// floodable reports whether clients can cause events of this kind at will.
func floodable(k Kind) bool {
	switch k {
	case Refusal, ResponseRefusal, Challenge, Monitored, Shadow:
		return true
	}
	return false
}

// admit reports whether e is to be written in detail; if not, it is counted.
func (f *flood) admit(e *Event, now time.Time) bool {
	if !floodable(e.Kind) {
		return true
	}
	t := f.tally(floodKey{e.Kind, e.Guard, e.Reason, cutTo(e.Client, 64)})
	if e.Count > 1 {
		return true
	}
	f.fill(now)
	size := float64(e.size())
	if t.detailed < f.burst && size <= f.left {
		t.detailed++
		f.left -= size
		return true
	}
	if size > f.left {
		f.spent = true
	}
	if t.more == 0 {
		t.first, t.name, t.site = now, e.Name, e.Site
	}
	if t.site != e.Site {
		t.site = ""
	}
	t.more++
	t.last = now
	return false
}

// fold counts one event more of those that are only counted already.
func (f *flood) fold(k floodKey, site string, now time.Time) bool {
	t := f.keys[k]
	if t == nil || t.more == 0 || t.detailed < f.burst {
		return false
	}
	if t.site != site {
		t.site = ""
	}
	t.more++
	t.last = now
	return true
}

// tally finds the count for k, or a coarser one where there are too many.
func (f *flood) tally(k floodKey) *tally {
	for _, room := range []int{floodKeys, floodKeys + floodGuards, floodKeys + floodGuards + 8} {
		if t := f.keys[k]; t != nil {
			return t
		}
		if len(f.keys) < room {
			t := &tally{clients: 1}
			f.keys[k] = t
			return t
		}
		if k.client != "" {
			k.client = ""
		} else {
			k.guard, k.reason = "", ""
		}
	}
	t := f.keys[k]
	if t == nil { // more than 8 kinds: there are not
		t = &tally{}
		f.keys[k] = t
	}
	return t
}

func (f *flood) fill(now time.Time) {
	if d := now.Sub(f.filled); d > 0 {
		f.left = min(f.share, f.left+f.share*d.Seconds()/(24*time.Hour).Seconds())
	}
	f.filled = now
}

// sweep ends the window, if it is over or must be, and returns the counts as
// events: a line for each of the greatest, one per guard and reason for the
// rest.
func (f *flood) sweep(now time.Time, must bool) []Event {
	window := floodWindow
	if f.spent {
		window = floodStretch
	}
	// A clock that was set back ends the window, too.
	if age := now.Sub(f.start); !must && age >= 0 && age < window {
		return nil
	}
	f.start = now
	if len(f.keys) == 0 && !f.spent {
		return nil
	}
	named := floodNamed
	if f.spent {
		named = floodSpent
	}
	counted := slices.DeleteFunc(slices.Collect(maps.Keys(f.keys)), func(k floodKey) bool { return f.keys[k].more == 0 })
	slices.SortFunc(counted, func(a, b floodKey) int { return cmp.Compare(f.keys[b].more, f.keys[a].more) })
	var events []Event
	rest := map[floodKey]*tally{}
	for i, k := range counted {
		if i < named {
			events = append(events, f.keys[k].event(k))
			continue
		}
		k2 := k
		k2.client = ""
		if rest[k2] == nil {
			rest[k2] = &tally{name: f.keys[k].name, first: f.keys[k].first}
		}
		rest[k2].add(f.keys[k])
	}
	for k, t := range rest {
		events = append(events, t.event(k))
	}
	clear(f.keys)
	f.fill(now)
	for i := range events {
		f.left = max(0, f.left-float64(events[i].size()))
	}
	if f.spent && !f.told {
		f.told = true
		events = append(events, Event{Time: now, Kind: Alarm, Name: "log_flood", Message: fmt.Sprintf(
			"so many refusals that they are only counted from here on: the day's share of %s for details is spent (ledger.details)",
			merlon.Size(f.share))})
	}
	if f.spent && f.left > f.share/100 {
		f.spent, f.told = false, false
	}
	return events
}

func (t *tally) add(o *tally) {
	t.more += o.more
	t.clients += o.clients
	if o.first.Before(t.first) {
		t.first = o.first
	}
	if o.last.After(t.last) {
		t.last = o.last
	}
}

func (t *tally) event(k floodKey) Event {
	e := Event{Time: t.last, Kind: k.kind, Name: t.name, Guard: k.guard, Reason: k.reason, Client: k.client,
		Site: t.site, Count: t.more}
	e.Message = "and " + thousands(t.more) + " more like it since " + t.first.UTC().Format("15:04:05")
	if t.clients > 1 {
		e.Message += " from " + thousands(t.clients) + " clients"
	}
	return e
}

// thousands writes n as 12,345.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
