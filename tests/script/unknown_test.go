package script

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// relay hands connections on to a server until enough says, before something of
// the server is handed on, that it is time to cut everything and listen no more.
type relay struct {
	net.Listener
	to     string
	enough func() bool
	once   sync.Once
	cut    chan struct{} // closed then
}

func newRelay(t *testing.T, to string, enough func() bool) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: ln, to: to, enough: enough, cut: make(chan struct{})}
	t.Cleanup(r.end)
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			go r.serve(near)
		}
	}()
	return r
}

func (r *relay) end() {
	r.once.Do(func() {
		r.Close()
		close(r.cut)
	})
}

func (r *relay) serve(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		<-r.cut
		near.Close()
		far.Close()
	}()
	go io.Copy(far, near)
	buf := make([]byte, 16<<10)
	for {
		n, err := far.Read(buf)
		if err != nil {
			return
		}
		if r.enough() {
			r.end()
			return
		}
		if _, err := near.Write(buf[:n]); err != nil {
			return
		}
	}
}

// When the answer to finish is lost and the server cannot be asked any more,
// nobody knows whether there is a snapshot, and the client says just that.
func TestUnknownWhetherItWasMade(t *testing.T) {
	t.Parallel()
	h, s := newServed(t)
	r := newRelay(t, s.Address, func() bool {
		made, _ := filepath.Glob(filepath.Join(h.dir, "data/datastores/tank/host/web/*/index.json.blob"))
		return len(made) > 0
	})
	direct := h.env[0]
	h.env[0] = "HOLDFAST_REPOSITORY=" + s.AuthID + "@" + r.Addr().String() + ":tank"
	b := startBackup(t, h, "--json")
	b.input.Close()
	<-r.cut
	if err := b.Process.Signal(syscall.SIGTERM); err != nil { // or it would ask for ten minutes
		t.Fatal(err)
	}
	code, messages := b.end(t)
	if code != 76 || !strings.Contains(messages, `"outcome":"unknown"`) || !strings.Contains(messages, `"code":76`) {
		t.Errorf("exit code %d, %s", code, messages)
	}
	h.env[0] = direct
	if code, out := h.do("list"); code != 0 || !strings.Contains(out, "host/web") {
		t.Errorf("it was made: list: exit code %d\n%s", code, out)
	}
}
