package meter

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"holdfast/datastore/access"
)

// Metrics is what /metrics shows.
type Metrics struct {
	from     From
	registry *prometheus.Registry
	inFlight prometheus.Gauge
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refusals *prometheus.CounterVec
	sessions *prometheus.GaugeVec
	bytes    *prometheus.CounterVec
}

// From says where figures come from that are looked up at the moment of asking.
type From struct {
	Connections func() int
	Stores      func() ([]access.Datastore, error)
}

// New registers all figures.
func New(from From) *Metrics {
	m := &Metrics{from: from, registry: prometheus.NewRegistry()}
	m.inFlight = prometheus.NewGauge(prometheus.GaugeOpts{Name: "holdfast_requests_in_flight", Help: "Requests being answered."})
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "holdfast_requests_total", Help: "Requests answered, by method and status."}, []string{"method", "code"})
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "holdfast_request_seconds", Help: "Time to answer.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9)}, []string{"method"})
	m.refusals = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "holdfast_refused_total", Help: "Connections, logins and requests refused, by reason."}, []string{"reason"})
	m.sessions = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "holdfast_sessions", Help: "Open backup and reader sessions."}, []string{"type"})
	m.bytes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "holdfast_session_bytes_total", Help: "Chunk and file bytes moved by sessions, as stored."}, []string{"direction"})
	m.registry.MustRegister(m.inFlight, m.requests, m.seconds, m.refusals, m.sessions, m.bytes,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), disks{m})
	return m
}

// Begin counts a request as being answered, until end.
func (m *Metrics) Begin() (end func()) {
	m.inFlight.Inc()
	return m.inFlight.Dec
}

// Page writes all figures in the format that monitoring reads.
func (m *Metrics) Page(w http.ResponseWriter, r *http.Request) {
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// Request counts an answered request.
func (m *Metrics) Request(verb string, code int, took time.Duration) {
	switch verb {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		verb = "other" // a label must not be of the caller's choosing
	}
	m.requests.WithLabelValues(verb, strconv.Itoa(code)).Inc()
	m.seconds.WithLabelValues(verb).Observe(took.Seconds())
}

// Refused counts a refusal of a connection, a login or a request.
func (m *Metrics) Refused(reason string) { m.refusals.WithLabelValues(reason).Inc() }

// Session counts an upgraded connection; done ends it.
func (m *Metrics) Session(kind string) (done func()) {
	g := m.sessions.WithLabelValues(kind)
	g.Inc()
	return sync.OnceFunc(g.Dec)
}

// Moved counts bytes of sessions; direction is "in" or "out".
func (m *Metrics) Moved(direction string, n int) {
	m.bytes.WithLabelValues(direction).Add(float64(n))
}

// disks tells at the moment of asking how full the datastores are.
type disks struct{ m *Metrics }

// Describe implements prometheus.Collector; what Collect sends depends on the
// datastores there are.
func (disks) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (d disks) Collect(ch chan<- prometheus.Metric) {
	conns := prometheus.NewDesc("holdfast_connections", "Open connections.", nil, nil)
	ch <- prometheus.MustNewConstMetric(conns, prometheus.GaugeValue, float64(d.m.from.Connections()))
	list, err := d.m.from.Stores()
	if err != nil {
		return
	}
	desc := prometheus.NewDesc("holdfast_datastore_bytes", "The file system of a datastore.", []string{"datastore", "kind"}, nil)
	up := prometheus.NewDesc("holdfast_datastore_up", "Whether the directory of a datastore is there.", []string{"datastore"}, nil)
	for _, st := range list {
		u, err := OfStore(st.Path)
		ch <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, map[bool]float64{true: 1}[err == nil], st.Name)
		if err != nil {
			continue
		}
		for kind, n := range map[string]uint64{"total": u.Total, "used": u.Used, "available": u.Avail} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), st.Name, kind)
		}
	}
}
