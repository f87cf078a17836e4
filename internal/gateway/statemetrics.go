package gateway

import "github.com/prometheus/client_golang/prometheus"

// stateCounts tells how what outlives a reload is doing, when it is scraped.
type stateCounts State

var (
	classRunning  = prometheus.NewDesc("merlon_class_running", "Requests of a class that are under way in this process.", []string{"class"}, nil)
	classWaiting  = prometheus.NewDesc("merlon_class_waiting", "Requests of a class that wait in this process.", []string{"class"}, nil)
	classBound    = prometheus.NewDesc("merlon_class_at_once", "How many requests of a class this process lets in at once.", []string{"class"}, nil)
	classRequests = prometheus.NewDesc("merlon_class_requests_total", "Requests of a class by what became of them: admitted, full, timed_out, abandoned.", []string{"class", "result"}, nil)
	replicaCount  = prometheus.NewDesc("merlon_replicas", "Processes that share the limits, as this one knows.", nil, nil)
	sharedCounts  = prometheus.NewDesc("merlon_limits_shared", "Whether limits are counted in Redis now, rather than in this process.", nil, nil)
	localCounts   = prometheus.NewDesc("merlon_limits_local_total", "Requests whose limits were counted in this process, since Redis did not count them or was late.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *stateCounts) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{classRunning, classWaiting, classBound, classRequests, replicaCount, sharedCounts, localCounts} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *stateCounts) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	for _, c := range s.Classes.Stats() {
		gauge(classRunning, float64(c.Running), c.Name)
		gauge(classWaiting, float64(c.Waiting), c.Name)
		gauge(classBound, float64(c.AtOnce), c.Name)
		for result, n := range map[string]uint64{"admitted": c.Admitted, "full": c.Full, "timed_out": c.TimedOut, "abandoned": c.Abandoned} {
			ch <- prometheus.MustNewConstMetric(classRequests, prometheus.CounterValue, float64(n), c.Name, result)
		}
	}
	gauge(replicaCount, float64((*State)(s).Replicas()))
	shared := 0.0
	if s.fallback != nil && s.fallback.Shared() {
		shared = 1
	}
	gauge(sharedCounts, shared)
	if s.fallback != nil {
		ch <- prometheus.MustNewConstMetric(localCounts, prometheus.CounterValue, float64(s.fallback.Here()))
	}
}
