package front

import (
	"errors"
	"io"
	"net/http"
	"time"

	"holdfast/datastore/server/budget"
)

// BoundBody gives the body of a request a deadline that moves only while bytes
// flow.
func BoundBody(w http.ResponseWriter, r *http.Request, l budget.Limits) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	b := &flowingBody{ReadCloser: r.Body, pause: l.BodyTimeout, rate: l.BodyRate, start: time.Now(), control: http.NewResponseController(w)}
	// For a body that no method reads: net/http reads what is left of it.
	b.extend()
	r.Body = b
}

// flowingBody is a body that ends in an error when it comes too slowly.
type flowingBody struct {
	io.ReadCloser
	pause   time.Duration
	rate    int // bytes a second
	control *http.ResponseController
	start   time.Time
	got     int64
}

// extend moves the deadline. Not every transport has one: in process there is
// none.
func (b *flowingBody) extend() {
	earned := time.Duration(float64(b.got) / float64(b.rate) * float64(time.Second))
	deadline := b.start.Add(b.pause + earned)
	if pause := time.Now().Add(b.pause); pause.Before(deadline) {
		deadline = pause
	}
	_ = b.control.SetReadDeadline(deadline)
}

// Trust gives the body of a request that has been authenticated more time.
func Trust(r *http.Request, l budget.Limits) {
	if b, ok := r.Body.(*flowingBody); ok {
		b.pause = max(b.pause, l.StallTimeout)
		b.extend()
	}
}

// Read implements io.Reader.
func (b *flowingBody) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.ReadCloser.Read(p)
	b.got += int64(n)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
