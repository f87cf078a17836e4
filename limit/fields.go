package limit

import (
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// policyName is what the fields call the route's limit. It says nothing of
// whom it counts.
const policyName = "default"

// fields makes the RateLimit fields of draft-ietf-httpapi-ratelimit-headers
// (September 2025). The draft thinks in windows and GCRA has none, so a quota
// is told as its burst and the time that it takes to regain that:
//
//	RateLimit-Policy: "default";q=200;w=2
//
// After a request that passed, r is how many more would pass at once and t
// after how many seconds the burst is whole again. A refusal has r=0, and t is
// when the next request passes, like Retry-After.
type fields struct {
	quota  Quota
	policy []string
	passes []atomic.Pointer[http.Header] // by what remains; made when first needed
}

// cached is up to which burst ready-made fields are kept.
const cached = 4096

func newFields(q Quota) *fields {
	f := &fields{quota: q}
	f.policy = []string{fmt.Sprintf("%q;q=%d;w=%d", policyName, q.Burst, seconds(q.refill()))}
	if q.Burst <= cached {
		f.passes = make([]atomic.Pointer[http.Header], q.Burst+1)
	}
	return f
}

// pass returns the fields after a request that passed. They are shared: nobody
// may change them.
func (f *fields) pass(remaining int) http.Header {
	remaining = max(0, min(remaining, f.quota.Burst))
	if f.passes == nil {
		return f.made(remaining)
	}
	if h := f.passes[remaining].Load(); h != nil {
		return *h
	}
	h := f.made(remaining)
	f.passes[remaining].Store(&h)
	return h
}

func (f *fields) made(remaining int) http.Header {
	used := time.Duration(f.quota.Burst - remaining)
	return f.both(remaining, seconds(used*f.quota.Every))
}

// refusal returns the fields of a refusal after which it takes retry for a
// request to pass.
func (f *fields) refusal(retry time.Duration, hide bool) http.Header {
	wait := max(1, seconds(retry))
	h := http.Header{}
	if !hide {
		h = f.both(0, wait)
	}
	h["Retry-After"] = []string{strconv.FormatInt(wait, 10)}
	return h
}

func (f *fields) both(r int, t int64) http.Header {
	return http.Header{
		"Ratelimit-Policy": f.policy,
		"Ratelimit":        {fmt.Sprintf("%q;r=%d;t=%d", policyName, r, t)},
	}
}

// seconds rounds up: whoever comes back after that time is not too early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
