package gateway

import (
	"io"
	"log/slog"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/access"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/record"
	"github.com/merlon-dev/merlon/stuffing"
	"github.com/merlon-dev/merlon/throttle"
	"github.com/merlon-dev/merlon/upstream"
)

// NewReplay builds a gateway from f to judge requests of another time, as
// [New] does otherwise. Rates and numbers of concurrent requests, which depend
// on that time, never refuse.
func NewReplay(f *config.File) (*Gateway, error) {
	return New(f, Env{Log: slog.New(slog.DiscardHandler), replay: true})
}

// timeless takes out of c what depends on when requests come.
func timeless(c limit.Config) limit.Config {
	const most = 1_000_000 // that limit takes; no replay runs so many at once
	c.Rate, c.Burst = limit.Rate{Off: true}, 0
	c.Quota, c.Bytes, c.Limits = limit.Quota{}, limit.Bytes{}, nil
	c.Concurrent = limit.Concurrent{Client: most}
	return c
}

// Judge asks the guards about hr as ServeHTTP does, and reads its body as an
// upstream would, since some guards judge bodies as they stream. No upstream
// is asked and no event is left. The decision is the one that would be obeyed;
// the request says by which guard, site and route.
func (g *Gateway) Judge(hr *http.Request) (*merlon.Request, merlon.Decision) {
	r := merlon.NewRequest(hr)
	r.Client = g.edge.ClientAddr(hr)
	rt := g.match(r)
	d := rt.gate.Check(r)
	if d.Passed() && r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			d = merlon.BodyFailed(err)
		}
	}
	o := merlon.Outcome{Status: http.StatusOK, Guard: r.RefusedBy()}
	if !d.Passed() {
		o.Status = d.Code()
	}
	rt.gate.Done(r, o)
	return r, d
}

// OfTheMoment reports whether a refusal says nothing about the request itself,
// so that it cannot be compared with how the request is judged another time.
func OfTheMoment(reason merlon.Reason) bool {
	return slices.Contains([]merlon.Reason{
		limit.RateExceeded, limit.QuotaExceeded, limit.BytesExceeded, limit.PlacesTaken, limit.ClientBusy, limit.RouteBusy, limit.FieldUnclear,
		ban.Banned, ban.Listed, challenge.WorkRequired, challenge.FloodWorkRequired,
		stuffing.LoginChallenged, stuffing.LoginRefused, stuffing.LoginUnreadable, stuffing.LoginBatch, stuffing.CanaryTried,
		throttle.ClassFull, throttle.QueueTimeout, throttle.GaveUp, throttle.Shed, throttle.TimedOut,
		LedgerFull, merlon.GuardFailed, merlon.BodyUnreadable, merlon.MemoryFull,
		access.LoginRequired, access.StrongerProofRequired, access.FreshProofRequired, access.NotForThisUser, access.ScopeMissing,
		identity.ProofFailed, identity.ProofsDisagree, identity.SecondFactorMissing, ResumeGone,
	}, reason)
}

// tapeEnd hands the request to the recorder, with what its guards decided. What
// the upstream did, and how its answer was judged, is not replayed.
func (e *exchange) tapeEnd() {
	if e.tape == nil {
		return
	}
	o := record.Outcome{Status: e.outcome.Status}
	for _, v := range e.r.Verdicts() {
		if v.Decision.Passed() || v.Guard == upstream.Name {
			continue
		}
		if e.answer {
			break
		}
		o.Guard, o.Reason = v.Guard, v.Decision.Reason
		for _, f := range v.Decision.Findings {
			o.Findings = append(o.Findings, record.Finding{Rule: f.Rule, Part: f.Part})
		}
		break
	}
	e.tape.End(e.r.ID, o)
}

// tapeCounts tells how recording goes, when it is scraped.
type tapeCounts record.Recorder

var recorded = prometheus.NewDesc("merlon_recorded_requests_total",
	"Requests that were to be recorded, by what became of them.", []string{"result"}, nil)

// Describe implements prometheus.Collector.
func (c *tapeCounts) Describe(ch chan<- *prometheus.Desc) { ch <- recorded }

// Collect implements prometheus.Collector.
func (c *tapeCounts) Collect(ch chan<- prometheus.Metric) {
	s := (*record.Recorder)(c).Stats()
	ch <- prometheus.MustNewConstMetric(recorded, prometheus.CounterValue, float64(s.Written), "written")
	ch <- prometheus.MustNewConstMetric(recorded, prometheus.CounterValue, float64(s.Lost), "lost")
}
