package gateway

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/waf"
)

// Metrics are what Prometheus scrapes. Their labels come from the
// configuration and from the guards' reasons, never from a client, so their
// number is bounded. The methods do nothing on a nil Metrics.
type Metrics struct {
	Registry *prometheus.Registry

	requests, monitored, shadow *prometheus.CounterVec
	latency                     *prometheus.HistogramVec
	reloads                     *prometheus.CounterVec
	current                     *atomic.Pointer[Gateway]
	log                         *ledger.Log
}

// NewMetrics returns the metrics of a process; log may be nil.
func NewMetrics(log *ledger.Log, version string) *Metrics {
	m := &Metrics{Registry: prometheus.NewRegistry(), current: new(atomic.Pointer[Gateway]), log: log}
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "merlon_requests_total", Help: "Requests by what became of them; guard and reason are empty for those that passed.",
	}, []string{"site", "route", "guard", "reason", "status"})
	m.monitored = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "merlon_monitored_total", Help: "Refusals that were recorded but not obeyed.",
	}, []string{"site", "route", "guard", "reason"})
	m.shadow = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "merlon_shadow_total", Help: "Requests that a guard and its shadow judged, by how the shadow's verdict differs: same, stricter, laxer, failed.",
	}, []string{"site", "route", "guard", "verdict"})
	m.latency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "merlon_request_duration_seconds", Help: "Time from a request's header to the end of its answer.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"site", "route"})
	m.reloads = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "merlon_reloads_total", Help: "Reloads of the configuration, by whether they took effect.",
	}, []string{"result"})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "merlon_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.Registry.MustRegister(m.requests, m.monitored, m.shadow, m.latency, m.reloads, build, (*gauges)(m),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) request(r *merlon.Request, o merlon.Outcome, took time.Duration) {
	if m == nil {
		return
	}
	reason := ""
	verdicts := r.Verdicts()
	for i, v := range verdicts {
		if v.Decision.Shadow {
			m.shadow.WithLabelValues(r.Site, r.Route, v.Guard, compare(v, verdicts[i+1:])).Inc()
			continue
		}
		if v.Decision.Monitored && v.Decision.Effect != merlon.Allow {
			m.monitored.WithLabelValues(r.Site, r.Route, v.Guard, string(v.Decision.Reason)).Inc()
		}
		if reason == "" && !v.Decision.Passed() {
			reason = string(v.Decision.Reason)
		}
	}
	m.requests.WithLabelValues(r.Site, r.Route, o.Guard, reason, strconv.Itoa(o.Status)).Inc()
	m.latency.WithLabelValues(r.Site, r.Route).Observe(took.Seconds())
}

// compare says how a shadow's verdict differs from its guard's, which is the
// first that comes behind it.
func compare(shadow merlon.Verdict, behind []merlon.Verdict) string {
	passed := true
	for _, v := range behind {
		if v.Guard == shadow.Guard && !v.Decision.Shadow {
			passed = v.Decision.Effect == merlon.Allow || v.Decision.Reason == waf.VerdictsDiffer
			break
		}
	}
	switch would := shadow.Decision.Effect == merlon.Allow; {
	case shadow.Decision.Reason == merlon.GuardFailed:
		return "failed"
	case would && !passed:
		return "laxer"
	case !would && passed:
		return "stricter"
	}
	return "same"
}

func (m *Metrics) refusal(guard string, reason merlon.Reason, status int) {
	if m != nil {
		m.requests.WithLabelValues("", "", guard, string(reason), strconv.Itoa(status)).Inc()
	}
}

func (m *Metrics) reload(ok bool) {
	if m == nil {
		return
	}
	result := "failed"
	if ok {
		result = "ok"
	}
	m.reloads.WithLabelValues(result).Inc()
}

// gauges reads what others count, when it is scraped.
type gauges Metrics

var (
	notAfter = prometheus.NewDesc("merlon_certificate_not_after_seconds", "When a certificate in service runs out, in Unix time.", []string{"name", "source"}, nil)
	healthy  = prometheus.NewDesc("merlon_upstream_healthy", "Whether a backend is healthy.", []string{"backend"}, nil)
	inFlight = prometheus.NewDesc("merlon_upstream_requests_in_flight", "Requests that a backend works on.", []string{"backend"}, nil)
	written  = prometheus.NewDesc("merlon_ledger_events_total", "Events by what became of them.", []string{"result"}, nil)
	queued   = prometheus.NewDesc("merlon_ledger_queued_events", "Events that wait to be written.", nil, nil)
)

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{notAfter, healthy, inFlight, written, queued} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	if g.log != nil {
		s := g.log.Stats()
		for result, n := range map[string]uint64{"written": s.Written, "folded": s.Folded, "lost": s.Lost} {
			ch <- prometheus.MustNewConstMetric(written, prometheus.CounterValue, float64(n), result)
		}
		ch <- prometheus.MustNewConstMetric(queued, prometheus.GaugeValue, float64(s.Queued))
	}
	gw := g.current.Load()
	if gw == nil {
		return
	}
	certs := map[string]bool{}
	for _, c := range gw.certs.Certificates() {
		if key := c.Name + "\x00" + c.Source; !certs[key] && !c.Missing {
			certs[key] = true
			ch <- prometheus.MustNewConstMetric(notAfter, prometheus.GaugeValue, float64(c.NotAfter.Unix()), c.Name, c.Source)
		}
	}
	type sum struct {
		up bool
		n  int64
	}
	backends := map[string]sum{}
	for _, p := range gw.pools() {
		for _, b := range p.Stats().Backends { // one backend may stand in several pools
			s := backends[b.Address]
			backends[b.Address] = sum{s.up || b.Healthy, s.n + b.InFlight}
		}
	}
	for addr, s := range backends {
		up := 0.0
		if s.up {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(healthy, prometheus.GaugeValue, up, addr)
		ch <- prometheus.MustNewConstMetric(inFlight, prometheus.GaugeValue, float64(s.n), addr)
	}
}
