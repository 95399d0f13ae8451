package abuse

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// TestAStrangersRequestsKeepNoOwnerOut has a put-only token ask for sessions of a group
// that is somebody else's, over many connections, again and again. The owner, who asks
// for sessions of it meanwhile, is never told that another backup runs.
func TestAStrangersRequestsKeepNoOwnerOut(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	s := snap{"host", "alice", time.Now().Unix() - 1000}
	if err := w.backup(w.alice, s, archive{"a.didx", []chunk{plainChunk([]byte("hello"))}}); err != nil {
		t.Fatal(err)
	}
	w.writer(t, "eve")
	put := w.token(t, "eve", "put", "DatastorePutOnly", "/datastore/"+store)
	over := make(chan struct{})
	var refused atomic.Int64
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() { w.askFor(put, snap{s.kind, s.id, s.time + 100_000 + int64(i)}, over, &refused) })
	}
	defer all.Wait()
	defer close(over)
	for late := time.Now().Add(patience); refused.Load() < 20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("only %d requests of the stranger were answered", refused.Load())
		}
	}
	before := refused.Load()
	for i := range int64(5) {
		h, err := open("", w.address, upgradeRequest(w.alice, backupProtocol, snap{s.kind, s.id, s.time + 1 + i}))
		if err != nil {
			t.Fatalf("session %d of the owner: %v", i, err)
		}
		h.Close()
	}
	if refused.Load() == before {
		t.Error("the stranger has not asked meanwhile")
	}
	disk := filepath.Join(w.dir, "disk.raw")
	if err := os.WriteFile(disk, noise(1, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := w.holdfast(w.alice, "backup", "--accept-new", "--crypt-mode", "none", "--backup-type", s.kind, "--backup-id", s.id, "d.img:"+disk); err != nil {
		t.Errorf("the owner's backup: %v\n%s", err, out)
	}
}

// askFor asks for a session that is refused until over is closed.
func (w *world) askFor(as identity, s snap, over <-chan struct{}, refused *atomic.Int64) {
	var c *wire
	for {
		select {
		case <-over:
			if c != nil {
				c.Close()
			}
			return
		default:
		}
		if c == nil {
			var err error
			if c, err = dial("127.0.0.2", w.address); err != nil {
				c = nil
				time.Sleep(10 * time.Millisecond)
				continue
			}
		}
		a, err := c.say(upgradeRequest(as, backupProtocol, s))
		if err != nil {
			c.Close()
			c = nil
			continue
		}
		if strings.Contains(fmt.Sprint(a), "owner check failed") {
			refused.Add(1)
		}
	}
}
