package throttle

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
)

// A ticket is what one request holds, by one Check.
type ticket struct {
	next   *ticket // of the same request, by an earlier Check
	r      *merlon.Request
	class  *class // a place in it; nil if none
	share  share  // who has that place
	since  time.Time
	probe  probe
	client *bucket

	mu     sync.Mutex
	over   bool
	late   bool
	hasty  bool // its client waits for less than the guard does
	timer  *time.Timer
	cancel context.CancelCauseFunc

	ctx  bounded
	room [1]string // backs a header's value
}

// A register finds the tickets of requests that are under way. It holds one for
// each Check, so it is bounded by what the server has accepted.
type register struct {
	shards [64]struct {
		mu sync.Mutex
		of map[*merlon.Request]*ticket
		_  [48]byte
	}
}

func newRegister() *register {
	h := &register{}
	for i := range h.shards {
		h.shards[i].of = map[*merlon.Request]*ticket{}
	}
	return h
}

func (h *register) add(r *merlon.Request) *ticket {
	t := &ticket{r: r}
	s := &h.shards[spread(r.Client)]
	s.mu.Lock()
	t.next = s.of[r]
	s.of[r] = t
	s.mu.Unlock()
	return t
}

func (h *register) find(r *merlon.Request) *ticket {
	s := &h.shards[spread(r.Client)]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[r]
}

func (h *register) remove(r *merlon.Request) *ticket {
	s := &h.shards[spread(r.Client)]
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.of[r]
	switch {
	case t == nil:
	case t.next == nil:
		delete(s.of, r)
	default:
		s.of[r] = t.next
	}
	return t
}

// latest is until when the client of r waits, by what gRPC says; zero if that
// is not known.
func (g *Guard) latest(r *merlon.Request) time.Time {
	at, _ := r.Context().Deadline()
	if isGRPC(r.Request) {
		if d, ok := clientDeadline(r.Request); ok {
			if theirs := r.Received.Add(d); at.IsZero() || theirs.Before(at) {
				return theirs
			}
		}
	}
	return at
}

// bound ends r's context when its time is up. Whoever waits for the backend
// finds the refusal, a [merlon.LateRefusal], as the cause of the context's end.
func (g *Guard) bound(r *merlon.Request, t *ticket) {
	at := t.since.Add(g.timeout)
	if theirs := g.latest(r); !theirs.IsZero() && theirs.Before(at) {
		at, t.hasty = theirs, true
	}
	left := at.Sub(t.since)
	ctx, cancel := context.WithCancelCause(r.Context())
	t.mu.Lock()
	t.cancel = cancel
	t.timer = time.AfterFunc(left, func() { t.expire(left) })
	t.mu.Unlock()
	t.ctx = bounded{ctx, at}
	r.Request = r.Request.WithContext(&t.ctx)
	tell(r, left, &t.room)
}

// expire refuses the rest of what takes too long.
func (t *ticket) expire(after time.Duration) {
	d := merlon.Refuse(http.StatusGatewayTimeout, TimedOut)
	d.Findings = []merlon.Finding{{Rule: "timeout", Part: "backend", Value: after.String(), Message: "had not done by then"}}
	t.end(d)
}

// end refuses the rest of what is under way, unless it is over. If the guard is
// monitored, as the gate has recorded of Check, it is only recorded.
func (t *ticket) end(d merlon.Decision) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.late = t.late || d.Reason == TimedOut
	for _, v := range t.r.Verdicts() {
		d.Monitored = d.Monitored || v.Guard == name && v.Decision.Monitored
	}
	t.r.Record(name, d)
	if !d.Monitored {
		t.cancel(&merlon.LateRefusal{Verdict: merlon.Verdict{Guard: name, Decision: d}})
	}
}

// finish ends the request's context, and reports whether its time was up.
func (t *ticket) finish() (late bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
		t.cancel(nil)
	}
	return t.late
}
