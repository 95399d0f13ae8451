package client

import (
	"context"
	"errors"
	gonet "net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/datastore/wire"
)

// working is a session in memory with a server that answers pings, and takes its
// time for whatever it is asked.
func working(t *testing.T, takes time.Duration) *session {
	t.Helper()
	net := newWires()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(takes):
			w.Write([]byte(`{"data":null}`))
		case <-r.Context().Done():
		}
	})}
	go server.Serve(net)
	t.Cleanup(func() { server.Close() })
	refused := func(context.Context, string, string) (gonet.Conn, error) { return nil, errors.New("nobody listens") }
	c, err := newClient(Options{
		Repository: wire.Repository{AuthID: fakeToken, Host: "127.0.0.1", Datastore: "tank"}, Secret: secretOf(fakeSecret), Dial: refused,
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := net.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{Conn: newPulse(raw, c.silence()), ended: make(chan struct{})}
	s.in = s.Conn
	conn, err := newConn(t.Context(), s, settings{client: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.close()
		c.Close()
	})
	return &session{client: c, conn: conn, snap: snap(1), known: newAppendable(), sent: map[string]*uint64{}}
}

// A server that shows that it lives may take hours for finish, which looks at
// every chunk, but not for anything else: its disk hangs then.
func TestHowLongAServerMayWork(t *testing.T) {
	const hours = 5 * time.Hour
	for name, tc := range map[string]struct {
		takes, ends time.Duration
		do          func(context.Context, *session) error
		says        string
	}{
		"finish":                 {hours, hours, askFinish, ""},
		"finish for ever":        {10 * finishMost, finishMost, askFinish, "has worked on it for 12h0m0s"},
		"a blob":                 {workFactor*defaultSilence - time.Second, workFactor*defaultSilence - time.Second, sendBlob, ""},
		"a blob that takes ages": {hours, workFactor * defaultSilence, sendBlob, "is there but has done nothing for 30m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ss := working(t, tc.takes)
				began := time.Now()
				err := tc.do(t.Context(), ss)
				if took := time.Since(began); took < tc.ends || took > tc.ends+time.Minute {
					t.Errorf("it took %v, want %v", took, tc.ends)
				}
				if tc.says == "" && err != nil || tc.says != "" && (!errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), tc.says)) {
					t.Errorf("got %v, want %q", err, tc.says)
				}
			})
		})
	}
}

func askFinish(ctx context.Context, ss *session) error { return ss.askFinish(ctx) }

func sendBlob(ctx context.Context, ss *session) error {
	return ss.Blob(ctx, "a.conf.blob", make([]byte, 100))
}

// slowly is a body that brings n bytes after each pause.
type slowly struct {
	pause func(read int) time.Duration
	n     int
	reads int
}

func (s *slowly) Read(p []byte) (int, error) {
	time.Sleep(s.pause(s.reads))
	s.reads++
	return min(s.n, len(p)), nil
}

func (s *slowly) Close() error { return nil }

// A server that sends a byte now and then holds nobody up for long; a slow line does no
// harm, nor does a pause, or a process that was stopped.
func TestHowSlowlyAnAnswerMayCome(t *testing.T) {
	each := func(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }
	for name, tc := range map[string]struct {
		pause func(int) time.Duration
		n     int
		most  time.Duration // after which it has ended, 0 if it has not after a day
	}{
		"a byte a second":         {each(time.Second), 1, 31 * time.Minute},
		"a byte now and then":     {each(defaultSilence - time.Second), 1, 34 * time.Minute},
		"9 KB a second":           {each(time.Second), 9000, 0},
		"9 KB with pauses":        {func(n int) time.Duration { return time.Second + time.Duration(1-min(n%300, 1))*200*time.Second }, 9000, 0},
		"a process that stopped":  {func(n int) time.Duration { return time.Second + time.Duration(1-min(n, 1))*20*time.Hour }, 9000, 0},
		"ever less, with a start": {func(n int) time.Duration { return time.Duration(n) * time.Second / 100 }, 10, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := blank(Options{})
				b := &answerBody{ReadCloser: &slowly{pause: tc.pause, n: tc.n}, explain: func(err error) error { return err }, pace: c.pace(), done: func() {}}
				began, err := time.Now(), error(nil)
				for buf := make([]byte, 16<<10); err == nil && time.Since(began) < 24*time.Hour; {
					_, err = b.Read(buf)
				}
				if tc.most == 0 && err != nil || tc.most > 0 && (!errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrSilent) || time.Since(began) > tc.most) {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}
