package abuse

import (
	"fmt"
	"io"
	"testing"
	"time"

	"holdfast/tests/harness"
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
	harness.Eventually(t, "a full crowd", func() bool { return c.begun.Load()+c.refused.Load() >= int64(n) })
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
// and are closed in the end, all of them; who has logged in before stays. How many
// of them stand there at one moment is a matter of how fast the machine is: what
// counts is that all came, and that honest callers are served until the last has
// gone.
func TestStrangersHoldNoPlace(t *testing.T) {
	harness.Long(t)
	for _, tc := range []struct {
		name string
		act  func(*crowd, *wire)
	}{{"the preface of HTTP2", prefaced}, {"pings", pinging}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, setup{})
			own := snap{"host", "member", began}
			member := w.session(t, w.bob, backupProtocol, own)
			const strangers = 1100
			c := w.crowdOf(t, strangers, tc.act)
			late := time.Now().Add(3 * patience)
			w.undisturbed(t, func(int) bool { return c.left() == 0 || time.Now().After(late) })
			if n := c.left(); n > 0 {
				t.Errorf("%d strangers are still there", n)
			}
			if n := c.begun.Load(); n < strangers*9/10 {
				t.Errorf("only %d strangers came", n)
			}
			if err := member.fill(own, archive{"root.pxar.didx", []chunk{plainChunk(noise(7, 5000))}}); err != nil {
				t.Errorf("a session that was there before: %v", err)
			}
			member.do(t, finishMessage()).want(t, 200)
		})
	}
}
