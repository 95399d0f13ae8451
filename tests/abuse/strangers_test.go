package abuse

import (
	"fmt"
	"io"
	"testing"
	"time"
)

// crowdOf opens so many connections of strangers from ten addresses, each of which
// says something once and then does what keep says until the crowd ends.
func (w *world) crowdOf(t testing.TB, n int, act func(*crowd, *wire)) *crowd {
	t.Helper()
	c := newCrowd(w)
	t.Cleanup(c.end)
	const addresses = 10
	for i := range n {
		c.add(fmt.Sprintf("127.0.0.%d", 2+i%addresses), after(act))
	}
	eventually(t, "a full crowd", func() bool { return c.begun.Load()+c.refused.Load() >= int64(n) })
	return c
}

// prefaced says what begins HTTP/2 before anything was authorised.
func prefaced(_ *crowd, s *wire) {
	io.WriteString(s, "PRI / HTTP/1.1\r\n")
	io.Copy(io.Discard, s)
}

// pinging asks again and again what needs no credentials, within the idle limit.
func pinging(c *crowd, s *wire) {
	for {
		if _, err := s.say([]byte(head(identity{}, "GET", "/ping") + "\r\n")); err != nil {
			return
		}
		select {
		case <-c.stop:
			return
		case <-time.After(time.Second):
		}
	}
}

// Strangers who fill the house make room for whoever comes, whatever they say,
// and those who say nothing useful are closed in the end.
func TestStrangersHoldNoPlace(t *testing.T) {
	for _, tc := range []struct {
		name string
		act  func(*crowd, *wire)
		ends bool // all of them lose their connections
	}{{"the preface of HTTP2", prefaced, true}, {"pings", pinging, true}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{limits: quick})
			member := w.dial(t)
			ask := []byte(head(w.alice, "GET", "/version") + "\r\n")
			if _, err := member.say(ask); err != nil {
				t.Fatal(err)
			}
			c := w.crowdOf(t, 1100, tc.act)
			w.undisturbed(t, atLeast(1))
			if c.left() < 500 {
				t.Errorf("only %d strangers were there", c.left())
			}
			if tc.ends {
				eventually(t, "the end of the strangers", func() bool { return c.left() == 0 })
			}
			if err := w.honest(1); err != nil {
				t.Error(err)
			}
			w.bounded(t)
		})
	}
}
