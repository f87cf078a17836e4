package limit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/internal/field"
)

// A scratch is where the questions to the store are written.
type scratch struct {
	keys    count.Key // of all of them, one behind the other
	asks    []count.Ask
	results []count.Result
	of      []*measure // of each ask, and then there are those for seen
	seen    []int      // which asks count only what is new: each has one more ask, behind the others
	places  []count.Place
	held    []*measure // of each place
}

// add counts one more measure for c.
func (s *scratch) add(m *measure, c *caller, value string, at time.Time) {
	start := len(s.keys)
	k := append(s.keys, m.prefix...).With(c.r.Site)
	q := m.quota
	if m.calendar != nil {
		q.Ends = m.calendar.ends(at)
		k = binary.BigEndian.AppendUint64(k, uint64(q.Ends.Unix()))
	}
	for _, d := range m.group.by {
		k = d.part(k, c, value)
	}
	s.keys = k
	k = k[start:len(k):len(k)]
	switch m.kind {
	case places:
		s.places, s.held = append(s.places, count.Place{Key: k, Most: q.Burst}), append(s.held, m)
		return
	case volume: // what it will really be is known at the end
		s.asks = append(s.asks, count.Ask{Key: k, Quota: q, Cost: 1})
	default:
		s.asks = append(s.asks, count.Ask{Key: k, Quota: q, Cost: m.group.cost})
		if m.distinct {
			s.seen = append(s.seen, len(s.asks)-1)
		}
	}
	s.of = append(s.of, m)
}

// addSeen asks whether what is counted only once is new. These come last, so
// that the store sees first whether there is anything left at all.
func (s *scratch) addSeen(r *merlon.Request) {
	if len(s.seen) == 0 {
		return
	}
	sum := sha256.Sum256([]byte(r.Path + "\x00" + r.URL.RawQuery))
	for _, i := range s.seen {
		main := &s.asks[i]
		start := len(s.keys)
		s.keys = append(append(s.keys, main.Key...), sum[:16]...)
		q := count.Quota{Every: main.Quota.Every * time.Duration(main.Quota.Burst), Burst: 1, Ends: main.Quota.Ends}
		s.asks = append(s.asks, count.Ask{Key: s.keys[start:len(s.keys):len(s.keys)], Quota: q, Cost: 1})
	}
}

// take takes what is asked for. What has been seen is asked for again at no
// cost. It answers with the number of the ask that refuses for longest, or -1.
func (s *scratch) take(ctx context.Context, store count.Store, at time.Time) (refusing int, err error) {
	for try := 0; ; try++ {
		s.results = slices.Grow(s.results[:0], len(s.asks))[:len(s.asks)]
		if err := store.Take(ctx, s.asks, s.results, at); err != nil {
			return 0, err
		}
		refusing = -1
		for i := range s.of {
			if res := &s.results[i]; !res.OK && (refusing < 0 || res.Retry > s.results[refusing].Retry) {
				refusing = i
			}
		}
		if refusing >= 0 || s.allNew() {
			return refusing, nil
		}
		s.dropSeen(try >= 2)
	}
}

func (s *scratch) allNew() bool {
	for i := range s.seen {
		if !s.results[len(s.of)+i].OK {
			return false
		}
	}
	return true
}

// dropSeen makes free what has been seen. Where the store says no for want of
// room, it is not known to have been, and costs. Others may be asking for the
// same in this moment, so that it has to be asked again; but not forever: at
// last everything that is left costs.
func (s *scratch) dropSeen(last bool) {
	n := len(s.of)
	kept := 0
	for i, main := range s.seen {
		res := &s.results[n+i]
		switch {
		case !res.OK && !res.Shared:
			s.asks[main].Cost = 0
		case res.OK && !last:
			s.seen[kept], s.asks[n+kept] = main, s.asks[n+i]
			kept++
		}
	}
	s.seen, s.asks = s.seen[:kept], s.asks[:n+kept]
}

// tightest returns what has the smallest share left.
func (s *scratch) tightest() (t told) {
	for i, m := range s.of {
		next := told{m, s.results[i].Remaining, s.results[i].Reset}
		if next.tighter(t) {
			t = next
		}
	}
	return t
}

func (s *scratch) reset() {
	s.keys, s.asks, s.of, s.seen, s.places, s.held = s.keys[:0], s.asks[:0], s.of[:0], s.seen[:0], s.places[:0], s.held[:0]
}

// An admission is what a request that a face has let in is counted as.
type admission struct {
	told  told
	after *after // nil if nothing is to be done at the end
}

// drop gives back the places of a request that is refused all the same. What
// it was counted as stays: refusals are not free.
func (a admission) drop() {
	if a.after != nil && a.after.release != nil {
		a.after.release()
	}
}

// An after is what is to be done when a request has ended.
type after struct {
	release func()      // places that replicas share; may be nil
	bytes   []count.Ask // what they cost is known then
	began   time.Time
	at      time.Time // when it was counted
	next    *after    // of another Check of the same request
}

// admit counts a request, or refuses it.
func (g *Guard) admit(f *face, c *caller) (in admission, refused *merlon.Decision) {
	if len(f.groups) == 0 {
		return in, nil
	}
	s := g.pool.Get().(*scratch)
	defer g.pool.Put(s)
	s.reset()
	at := now(c.r)
	var unclear error
	for _, gr := range f.groups {
		if gr.tier() && !gr.holds(c.r.Identity) {
			continue
		}
		if gr.field != "" && !c.unread {
			unclear = errors.Join(unclear, s.addValues(gr, c, at))
			continue
		}
		for _, m := range gr.measures {
			s.add(m, c, "", at)
		}
	}
	s.addSeen(c.r)
	if len(s.asks) > 0 {
		refusing, err := s.take(c.r.Context(), g.store, at)
		if err != nil {
			return in, unable(err)
		}
		if refusing >= 0 {
			return in, g.exceeded(s, refusing, c)
		}
		in.told = s.tightest()
	}
	if unclear != nil {
		return in, fieldUnclear(unclear)
	}
	return g.hold(s, c, in, at)
}

// hold takes the places that replicas share, and keeps what is to be done at
// the end.
func (g *Guard) hold(s *scratch, c *caller, in admission, at time.Time) (admission, *merlon.Decision) {
	var release func()
	if len(s.places) > 0 {
		full, free, err := g.store.Hold(c.r.Context(), s.places)
		if err != nil {
			return in, unable(err)
		}
		if full >= 0 {
			return in, g.full(s.held[full], c)
		}
		release = free
	}
	var bytes []count.Ask
	for i, m := range s.of {
		if m.kind == volume {
			a := s.asks[i]
			a.Key = slices.Clone(a.Key)
			bytes = append(bytes, a)
		}
	}
	if release != nil || bytes != nil {
		in.after = &after{release: release, bytes: bytes, began: time.Now(), at: at}
	}
	return in, nil
}

// addValues counts every value of a field, those before an error, too.
func (s *scratch) addValues(gr *group, c *caller, at time.Time) error {
	values, err := field.Values(c.r, gr.field)
	for i := range values {
		values[i] = folded(values[i])
	}
	if len(values) == 0 {
		values = []string{""}
	}
	slices.Sort(values)
	for _, v := range slices.Compact(values) {
		for _, m := range gr.measures {
			s.add(m, c, v, at)
		}
	}
	return err
}

// settle does what is to be done when r has ended.
func (g *Guard) settle(r *merlon.Request, a *after, o merlon.Outcome) {
	if a == nil {
		return
	}
	if a.release != nil {
		a.release()
	}
	more := (o.In+o.Out+1<<10-1)>>10 - 1 // the first KiB was taken at the start
	if len(a.bytes) == 0 || more <= 0 {
		return
	}
	for i := range a.bytes {
		a.bytes[i].Cost = more
	}
	ctx := context.WithoutCancel(r.Context()) // who hangs up has transferred it all the same
	if err := g.store.Add(ctx, a.bytes, a.at.Add(time.Since(a.began))); err != nil {
		d := merlon.Pass(Within)
		d.Err = fmt.Errorf("limit: bytes are not counted: %w", err)
		r.Record(g.Name(), d)
	}
}

func unable(err error) *merlon.Decision {
	d := merlon.Unable(fmt.Errorf("limit: %w", err))
	return &d
}

// fieldUnclear refuses what may have any number of values that a backend would
// find.
func fieldUnclear(err error) *merlon.Decision {
	d := merlon.BodyFailed(err)
	if errors.Is(err, field.ErrTooMany) || errors.Is(err, field.ErrUnreadable) {
		d = merlon.Refuse(http.StatusBadRequest, FieldUnclear)
		d.Findings = []merlon.Finding{{Rule: "by", Part: "body", Message: err.Error()}}
	}
	return &d
}
