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
	return &session{client: c, conn: conn, snap: snap(1)}
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
