package limit

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
)

// The problem types of draft-ietf-httpapi-ratelimit-headers.
const (
	quotaExceeded   = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	reducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
)

// refusal is a decision in the making.
type refusal merlon.Decision

// with adds fields to the refusal's own.
func (d refusal) with(h http.Header) merlon.Decision {
	if len(h) > 0 && d.Header == nil {
		d.Header = http.Header{}
	}
	merlon.AddHeader(d.Header, h)
	return merlon.Decision(d)
}

// exceeded refuses since there is nothing left of at least one measure; the
// one that it takes longest to get something of is told.
func (g *Guard) exceeded(s *scratch, refusing int, c *caller) *merlon.Decision {
	m, res := s.of[refusing], s.results[refusing]
	reason := map[measured]merlon.Reason{rate: RateExceeded, quota: QuotaExceeded, volume: BytesExceeded}[m.kind]
	d := merlon.Refuse(http.StatusTooManyRequests, reason)
	d.Problem = quotaExceeded
	d.Header = m.refusal(res.Retry, g.hide)
	var told []*measure
	for i, other := range s.of {
		if s.results[i].OK || slices.Contains(told, other) {
			continue
		}
		told = append(told, other)
		f := other.finding(c)
		if s.results[i].Shared {
			f.Message += "; counted together with others, because there are more of them than the table has places"
		}
		d.Findings = append(d.Findings, f)
	}
	if len(told) == 1 && !res.Shared { // of several, raising one would not do
		d.Remedy = m.remedy()
	}
	return &d
}

// full refuses since as many requests as may be are under way. If the limit
// tells callers apart it is this one's own excess, otherwise the capacity.
func (g *Guard) full(m *measure, c *caller) *merlon.Decision {
	d := merlon.Refuse(http.StatusTooManyRequests, PlacesTaken)
	d.Problem = quotaExceeded
	if !slices.ContainsFunc(m.group.by, func(d dimension) bool { return d.kind != byRoute && d.kind != bySite }) {
		d.Status, d.Problem = http.StatusServiceUnavailable, reducedCapacity
	}
	d.Header = m.refusal(time.Second, g.hide)
	d.Findings = []merlon.Finding{m.finding(c)}
	return &d
}

// finding says which limit it is, whose count, and what it allows.
func (m *measure) finding(c *caller) merlon.Finding {
	parts := make([]string, len(m.group.by))
	for i, d := range m.group.by {
		parts[i] = d.seen(c)
	}
	f := merlon.Finding{Rule: m.name, Part: strings.Join(parts, ", "), Value: m.text}
	what := ""
	if m.distinct {
		what = " of what was not asked for before"
	}
	switch m.kind {
	case rate:
		f.Message = fmt.Sprintf("sends faster than %s after a burst of %d%s", m.text, m.quota.Burst, what)
	case quota:
		f.Message = fmt.Sprintf("has sent %d requests%s in this %s", m.quota.Burst, what, m.calendar.period)
	case volume:
		f.Message = fmt.Sprintf("has transferred what %s allows", m.text)
	case places:
		f.Message = fmt.Sprintf("%d requests are under way already", m.quota.Burst)
	}
	return f
}

// remedy is what would let twice as much pass. What stands in the list of
// limits adds up along site and route, so nothing that is put there lifts it.
func (m *measure) remedy() string {
	switch q := m.quota; {
	case !m.group.top:
	case m.kind == rate:
		if burst := min(2*q.Burst, maxCount, int64(count.MaxRefill/q.Every)); burst > q.Burst {
			return fmt.Sprintf("limit:\n  burst: %d", burst)
		}
	case m.kind == quota && q.Burst < maxQuota:
		return "limit:\n  quota: " + Quota{Count: min(2*q.Burst, maxQuota), Per: m.calendar.period}.String()
	case m.kind == volume:
		var v Bytes
		if v.UnmarshalText([]byte(m.text)) == nil && v.Size < maxBytes/2 {
			if v.Size *= 2; v.broken() == "" {
				return "limit:\n  bytes: " + v.String()
			}
		}
	}
	return ""
}
