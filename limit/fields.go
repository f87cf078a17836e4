package limit

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
)

// A group is one limit as it is written, with all that it measures.
type group struct {
	name     string
	by       []dimension
	field    string // of the body, if it is by one
	cost     int64
	top      bool // its settings stand in Config itself, so that a route may change them
	measures []*measure

	roles, except []string // whom it is for, and whom not; anybody if empty
}

// tier reports whether g is for some and not for others.
func (g *group) tier() bool { return len(g.roles)+len(g.except) > 0 }

// holds reports whether g is for who is asking.
func (g *group) holds(id *merlon.Identity) bool {
	has := func(role string) bool { return id != nil && slices.Contains(id.Roles, role) }
	return (len(g.roles) == 0 || slices.ContainsFunc(g.roles, has)) && !slices.ContainsFunc(g.except, has)
}

type measured uint8

const (
	rate measured = iota
	quota
	volume
	places
)

// String is how a policy's name ends if its limit measures something else, too.
func (m measured) String() string {
	return [...]string{"rate", "quota", "bytes", "concurrent"}[m]
}

// A measure is one thing that a limit measures, and its RateLimit fields
// (draft-ietf-httpapi-ratelimit-headers-10). The draft thinks in windows and
// GCRA has none, so a rate is told as its burst and the time that it takes to
// regain that:
//
//	RateLimit-Policy: "default";q=500;w=5
//
// After a request that passed, r is how much more would pass at once and t
// after how many seconds all is there again. A refusal has r=0, and t is when
// the next request passes, like Retry-After. There is no pk: it would show who
// is counted together.
type measure struct {
	group    *group
	kind     measured
	name     string
	text     string // as it is written
	quota    count.Quota
	calendar *calendar // nil if it slides
	distinct bool
	prefix   count.Key

	line   []string                      // the policies in force, this one among them
	passes []atomic.Pointer[http.Header] // by what remains; made when first needed
}

// cached is up to which burst ready-made fields are kept.
const cached = 4096

// tell prepares the fields of a rate, which depend on nothing but what remains.
func (m *measure) tell() {
	if m.kind == rate && m.quota.Burst <= cached {
		m.passes = make([]atomic.Pointer[http.Header], m.quota.Burst+1)
	}
}

func (g *group) policies() (list []string) {
	for _, m := range g.measures {
		list = append(list, m.policy())
	}
	return list
}

func (m *measure) policy() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q;q=%d", m.name, m.quota.Burst*m.unit())
	switch m.kind {
	case volume:
		b.WriteString(`;qu="content-bytes"`)
	case places:
		b.WriteString(`;qu="concurrent-requests"`)
	}
	// Every is rounded up by less than a nanosecond.
	w := seconds((m.quota.Every - 1) * time.Duration(m.quota.Burst))
	if m.calendar != nil {
		w = m.calendar.period.seconds()
	}
	if w > 0 {
		fmt.Fprintf(&b, ";w=%d", w)
	}
	return b.String()
}

// unit is how many of what the fields tell one of what is counted stands for.
func (m *measure) unit() int64 {
	if m.kind == volume {
		return 1 << 10
	}
	return 1
}

// A told is what is left of one measure.
type told struct {
	m         *measure // nil if nothing is told yet
	remaining int64
	reset     time.Duration
}

// tighter reports whether t has a smaller share left than other.
func (t told) tighter(other told) bool {
	switch {
	case t.m == nil:
		return false
	case other.m == nil:
		return true
	}
	return float64(t.remaining)*float64(other.m.quota.Burst) < float64(other.remaining)*float64(t.m.quota.Burst)
}

// header returns the fields after a request that passed. They are shared:
// nobody may change them.
func (t told) header() http.Header {
	m := t.m
	remaining := max(0, min(t.remaining, m.quota.Burst))
	if m.passes == nil {
		return m.made(remaining, seconds(t.reset))
	}
	if h := m.passes[remaining].Load(); h != nil {
		return *h
	}
	used := time.Duration(m.quota.Burst - remaining)
	h := m.made(remaining, seconds(used*m.quota.Every))
	m.passes[remaining].Store(&h)
	return h
}

// refusal returns the fields of a refusal after which it takes retry for a
// request to pass.
func (m *measure) refusal(retry time.Duration, hide bool) http.Header {
	wait := max(1, seconds(retry))
	h := http.Header{}
	if !hide {
		h = m.made(0, wait)
	}
	h["Retry-After"] = []string{strconv.FormatInt(wait, 10)}
	return h
}

func (m *measure) made(remaining, t int64) http.Header {
	return made(m.line, m.name, remaining*m.unit(), t)
}

func made(line []string, name string, r, t int64) http.Header {
	return http.Header{
		"Ratelimit-Policy": line,
		"Ratelimit":        {fmt.Sprintf("%q;r=%d;t=%d", name, r, t)},
	}
}

// seconds rounds up: whoever comes back after that time is not too early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// KeepFromCaches removes the RateLimit and RateLimit-Policy fields from the
// head of an answer that says for how long it may be kept: a cache would tell
// others what one client had left, long after it was so.
func KeepFromCaches(h http.Header) {
	if fresh(h) {
		delete(h, "Ratelimit")
		delete(h, "Ratelimit-Policy")
	}
}

// fresh reports whether a cache may answer with what was sent with h without
// asking again (RFC 9111, section 4.2.1). Where nothing says so, it may guess
// by Last-Modified.
func fresh(h http.Header) bool {
	if len(h["Cache-Control"]) == 0 {
		return len(h["Expires"]) > 0 || len(h["Last-Modified"]) > 0
	}
	for _, line := range h["Cache-Control"] {
		for part := range strings.SplitSeq(strings.ToLower(line), ",") {
			switch strings.TrimSpace(part) {
			case "no-store", "no-cache", "max-age=0":
				return false
			}
		}
	}
	return true
}
