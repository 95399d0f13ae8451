package server

import (
	"bufio"
	"net"
	"net/http"

	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire/api"
)

// metricsPage answers GET /metrics.
func (s *Server) metricsPage(w http.ResponseWriter, r *http.Request) answer {
	if r.Method != http.MethodGet {
		return answer{err: rest.NotFound("Path '/metrics' not found.")}
	}
	if !s.o.OpenMetrics || !from(r).IsLoopback() {
		c := &call{ResponseWriter: w, Request: r, server: s, log: s.o.Log}
		if _, err := s.identify(c, nil); err != nil {
			return answer{err: err}
		}
		if err := c.require("/system", api.SysAudit); err != nil {
			return answer{err: err}
		}
	}
	s.metrics.Page(w, r)
	return answer{err: rest.ErrAnswered}
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
