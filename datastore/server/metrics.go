package server

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"holdfast/datastore"
	"holdfast/datastore/access"
)

// metrics is what /metrics shows.
type metrics struct {
	server   *Server
	registry *prometheus.Registry
	inFlight prometheus.Gauge
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refusals *prometheus.CounterVec
	sessions *prometheus.GaugeVec
	bytes    *prometheus.CounterVec
}

func newMetrics(s *Server) *metrics {
	m := &metrics{server: s, registry: prometheus.NewRegistry()}
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

// request counts an answered request.
func (m *metrics) request(verb string, code int, took time.Duration) {
	switch verb {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		verb = "other" // a label must not be of the caller's choosing
	}
	m.requests.WithLabelValues(verb, strconv.Itoa(code)).Inc()
	m.seconds.WithLabelValues(verb).Observe(took.Seconds())
}

func (m *metrics) refused(reason string) { m.refusals.WithLabelValues(reason).Inc() }

// session counts an upgraded connection; done ends it.
func (m *metrics) session(kind string) (done func()) {
	g := m.sessions.WithLabelValues(kind)
	g.Inc()
	return sync.OnceFunc(g.Dec)
}

// moved counts bytes of sessions; direction is "in" or "out".
func (m *metrics) moved(direction string, n int) {
	m.bytes.WithLabelValues(direction).Add(float64(n))
}

// disks tells at the moment of asking how full the datastores are.
type disks struct{ m *metrics }

// Describe implements prometheus.Collector; what Collect sends depends on the
// datastores there are.
func (disks) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (d disks) Collect(ch chan<- prometheus.Metric) {
	conns := prometheus.NewDesc("holdfast_connections", "Open connections.", nil, nil)
	ch <- prometheus.MustNewConstMetric(conns, prometheus.GaugeValue, float64(d.m.server.front.Connections()))
	list, err := d.m.server.o.Access.Datastores()
	if err != nil {
		return
	}
	desc := prometheus.NewDesc("holdfast_datastore_bytes", "The file system of a datastore.", []string{"datastore", "kind"}, nil)
	up := prometheus.NewDesc("holdfast_datastore_up", "Whether the directory of a datastore is there.", []string{"datastore"}, nil)
	for _, st := range list {
		u, err := storeUsage(st.Path)
		ch <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, map[bool]float64{true: 1}[err == nil], st.Name)
		if err != nil {
			continue
		}
		for kind, n := range map[string]uint64{"total": u.Total, "used": u.Used, "available": u.Avail} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), st.Name, kind)
		}
	}
}

// usage is how full a file system is, in bytes.
type usage struct {
	Total uint64 `json:"total"`
	Used  uint64 `json:"used"`
	Avail uint64 `json:"avail"`
}

// storeUsage is how full the file system of a datastore is. One whose disk is
// away is an error: what its directory lies on then is another one.
func storeUsage(path string) (usage, error) {
	if err := datastore.Probe(path); err != nil {
		return usage{}, err
	}
	return diskUsage(path)
}

func diskUsage(path string) (usage, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return usage{}, err
	}
	unit := uint64(fs.Bsize)
	return usage{Total: fs.Blocks * unit, Used: (fs.Blocks - fs.Bfree) * unit, Avail: fs.Bavail * unit}, nil
}

// metricsPage answers GET /metrics.
func (s *Server) metricsPage(w http.ResponseWriter, r *http.Request) answer {
	if r.Method != http.MethodGet {
		return answer{err: notFound("Path '/metrics' not found.")}
	}
	if !s.o.OpenMetrics || !from(r).IsLoopback() {
		c := &call{ResponseWriter: w, Request: r, server: s, log: s.o.Log}
		if _, err := s.identify(c, nil); err != nil {
			return answer{err: err}
		}
		if err := c.require("/system", access.SysAudit); err != nil {
			return answer{err: err}
		}
	}
	promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return answer{err: errAnswered}
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	code     int
	hijacked bool
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Hijack implements http.Hijacker.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked = true
	}
	return c, rw, err
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) status() int {
	switch {
	case w.hijacked:
		return http.StatusSwitchingProtocols
	case w.code == 0:
		return http.StatusOK
	}
	return w.code
}
