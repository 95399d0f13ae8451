package abuse

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// relay passes TCP connections on to a server, and loses some.
type relay struct {
	to       string
	listener net.Listener
	// loseAfter is how many bytes the server may say on a connection before it
	// is lost; 0 is no limit.
	loseAfter atomic.Int64

	mu   sync.Mutex
	open map[*net.TCPConn]*net.TCPConn // to the client, to the server
}

func newRelay(t testing.TB, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := &relay{to: to, listener: l, open: map[*net.TCPConn]*net.TCPConn{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.pass(c.(*net.TCPConn))
		}
	}()
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

// pass copies both ways until either side ends.
func (r *relay) pass(c *net.TCPConn) {
	defer c.Close()
	s, err := tcp("", r.to)
	if err != nil {
		return
	}
	defer s.Close()
	r.mu.Lock()
	r.open[c] = s
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.open, c)
		r.mu.Unlock()
	}()
	go func() {
		if n := r.loseAfter.Load(); n > 0 {
			io.CopyN(c, s, n)
		} else {
			io.Copy(c, s)
		}
		c.Close()
		s.Close()
	}()
	io.Copy(s, c)
}

// cut loses a connection, by a reset or as if the line had ended.
func (r *relay) cut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, s := range r.open { // in random order
		if rand.IntN(2) == 0 {
			c.SetLinger(0)
			s.SetLinger(0)
		}
		c.Close()
		s.Close()
		return true
	}
	return false
}

// cutAll loses a connection every second.
func (r *relay) cutAll(stop <-chan struct{}, cuts *atomic.Int64) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if r.cut() {
				cuts.Add(1)
			}
		}
	}
}

// backed is a snapshot that was asked for, with what it must hold.
type backed struct {
	snap
	archives []archive
	// certain is set when finish was answered; without, the answer was lost.
	certain bool
}

// worker is a client with a backup group of its own.
type worker struct {
	w      *world
	number int
	as     identity
	random *rand.Rand

	mu      sync.Mutex
	kept    map[int64]*backed
	disk    []chunk // what the machine holds
	acked   int
	lost    int     // backups whose connection broke
	how     []error // it broke
	waited  int     // tries while the server had not seen that yet
	removed int
}

// keepMost is how many snapshots a worker leaves there.
const keepMost = 12

func newWorker(w *world, number int) *worker {
	k := &worker{w: w, number: number, kept: map[int64]*backed{}, random: rand.New(rand.NewPCG(uint64(number), 7))}
	k.as = []identity{w.alice, w.bob}[number%2]
	for range 8 {
		k.disk = append(k.disk, k.fresh())
	}
	return k
}

// fresh is a chunk that may or may not be there already: seeds are few, so that
// clients send the same chunks at the same time.
func (k *worker) fresh() chunk {
	seed := uint64(k.random.IntN(400))
	data := noise(seed, 2000+int(seed)*211)
	if seed%3 == 0 {
		return zstdChunk([]byte(strings.Repeat(fmt.Sprintf("%x", data[:50]), 1+int(seed))))
	}
	return plainChunk(data)
}

// content is what the next snapshot holds: some chunks have changed.
func (k *worker) content(round int) []archive {
	for range 3 {
		k.disk[k.random.IntN(len(k.disk))] = k.fresh()
	}
	list := []archive{{"root.pxar.didx", append([]chunk{}, k.disk...)}}
	if round%4 == 0 {
		seed := uint64(k.random.IntN(12))
		list = append(list, archive{"disk.img.fidx", []chunk{plainChunk(noise(1000+seed, fixedSize)), plainChunk(noise(2000+seed, 70000))}})
	}
	return list
}

// work makes backups through the relay until the end, and on a slow machine until one
// has come through.
func (k *worker) work(through string, end time.Time) error {
	const most = 500 // that not one comes through is an error
	for round := 0; time.Now().Before(end) || k.acked == 0 && round < most; round++ {
		b := &backed{snap: snap{"host", fmt.Sprintf("c%d", k.number), began + int64(round)}, archives: k.content(round)}
		asked, err := k.attempt(through, b)
		var refused refusal
		if errors.As(err, &refused) && !passing(refused) {
			return fmt.Errorf("client %d: %w", k.number, err)
		}
		k.note(b, asked, err)
		if err := k.forget(); err != nil {
			return err
		}
	}
	return nil
}

// passing tells refusals that a client meets after its line was lost: the server
// has not seen yet that the session before is over.
func passing(r refusal) bool {
	return r.status == 400 && strings.Contains(r.String(), "another backup is already running")
}

// attempt makes one backup; asked tells whether it came to asking for the end.
func (k *worker) attempt(through string, b *backed) (asked bool, err error) {
	s, err := open("", through, upgradeRequest(k.as, backupProtocol, b.snap))
	if err != nil {
		return false, err
	}
	defer s.Close()
	if err := s.fill(b.snap, b.archives...); err != nil {
		return false, err
	}
	_, err = s.ok(finishMessage())
	return true, err
}

func (k *worker) note(b *backed, asked bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b.certain = err == nil
	if asked {
		k.kept[b.time] = b
	}
	switch {
	case b.certain:
		k.acked++
	case errors.As(err, &refusal{}):
		k.waited++
	default:
		k.lost++
		k.how = append(k.how, err)
	}
}

// forget removes a snapshot when there are many, so that the collection has
// something to do.
func (k *worker) forget() error {
	if len(k.kept) <= keepMost {
		return nil
	}
	b := k.kept[slices.Min(slices.Collect(maps.Keys(k.kept)))]
	a, err := k.w.tryAsk("", k.as, "DELETE", "/admin/datastore/"+store+"/snapshots", b.params()...)
	if err != nil {
		return err
	}
	if b.certain && a.status != 200 {
		return fmt.Errorf("an acknowledged snapshot cannot be removed: %s", a)
	}
	delete(k.kept, b.time)
	k.removed++
	return nil
}

// listed is the snapshots of a group, those that are finished only.
func (w *world) listed(t testing.TB, as identity, s snap) map[int64]bool {
	t.Helper()
	var all []struct {
		Time int64  `json:"backup-time"`
		Size *int64 `json:"size"`
	}
	w.ask(t, as, "GET", "/admin/datastore/"+store+"/snapshots", "backup-type", s.kind, "backup-id", s.id).into(t, &all)
	found := map[int64]bool{}
	for _, l := range all {
		if l.Size != nil {
			found[l.Time] = true
		}
	}
	return found
}

// check compares the list with what was acknowledged and reads everything back.
func (k *worker) check(t testing.TB) (restored int) {
	listed := k.w.listed(t, k.as, snap{kind: "host", id: fmt.Sprintf("c%d", k.number)})
	for when, b := range k.kept {
		if !listed[when] {
			if b.certain {
				t.Errorf("client %d: the acknowledged snapshot %d is not listed", k.number, when)
			}
			continue
		}
		if err := k.w.restore(k.as, b.snap, b.archives...); err != nil {
			t.Errorf("client %d, snapshot %d: %v", k.number, when, err)
		}
		restored++
	}
	for when := range listed {
		if k.kept[when] == nil {
			t.Errorf("client %d: the snapshot %d is listed and was never finished, or was removed", k.number, when)
		}
	}
	return restored
}

// restore reads archives of a snapshot back and compares them.
func (w *world) restore(as identity, s snap, archives ...archive) error {
	r, err := open("", w.address, upgradeRequest(as, readerProtocol, s))
	if err != nil {
		return err
	}
	defer r.Close()
	seen := map[string]bool{}
	for _, a := range archives {
		if err := r.back(a, seen); err != nil {
			return err
		}
	}
	return nil
}

// task runs a task and waits for its end, which it returns.
func (w *world) task(as identity, method, path string, kv ...string) (string, error) {
	a, err := w.tryAsk("", as, method, path, kv...)
	if err != nil {
		return "", err
	}
	var upid struct{ Data string }
	if err := json.Unmarshal(a.body, &upid); a.status != 200 || err != nil {
		return "", fmt.Errorf("%s (%w)", a, err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		a, err := w.tryAsk("", as, "GET", "/nodes/localhost/tasks/"+escapePath(upid.Data)+"/status")
		if err != nil {
			return "", err
		}
		var got struct {
			Data struct{ Status, Exitstatus string }
		}
		if err := json.Unmarshal(a.body, &got); err != nil {
			return "", fmt.Errorf("%s: %w", a, err)
		}
		if got.Data.Status != "stopped" {
			continue
		}
		if got.Data.Exitstatus == "OK" {
			return "OK", nil
		}
		a, err = w.tryAsk("", as, "GET", "/nodes/localhost/tasks/"+escapePath(upid.Data)+"/log")
		return fmt.Sprintf("%s\n%s", got.Data.Exitstatus, a.body), err
	}
	return "", fmt.Errorf("%s does not end", upid.Data)
}

// collect runs collections until the end, and fails if one does.
func (w *world) collect(stop <-chan struct{}) (runs int, err error) {
	for {
		select {
		case <-stop:
			return runs, nil
		case <-time.After(100 * time.Millisecond):
		}
		end, err := w.task(w.admin, "POST", "/admin/datastore/"+store+"/gc")
		if strings.Contains(end, "no snapshot was found") {
			continue // it does nothing before the first backup has come to its end
		}
		if err != nil || end != "OK" {
			return runs, fmt.Errorf("a collection ended with %q (%v)", end, err)
		}
		runs++
	}
}

// Sixteen clients back up at once while connections are lost and garbage is
// collected beside them. Every acknowledged snapshot restores byte for byte and
// no other one is listed.
func TestLoad(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	w := start(t, setup{})
	through := newRelay(t, w.address)
	end := time.Now().Add(seconds(t))

	const clients = 16
	var workers []*worker
	var working sync.WaitGroup
	for i := range clients {
		k := newWorker(w, i)
		workers = append(workers, k)
		working.Go(func() {
			if err := k.work(through.address(), end); err != nil {
				t.Error(err)
			}
		})
	}
	stop := make(chan struct{})
	var beside sync.WaitGroup
	var cuts, collections atomic.Int64
	beside.Go(func() {
		n, err := w.collect(stop)
		if collections.Store(int64(n)); err != nil {
			t.Error(err)
		}
	})
	beside.Go(func() { through.cutAll(stop, &cuts) })
	working.Wait()
	close(stop)
	beside.Wait()
	t.Logf("the load has ended after %v", time.Since(end)+seconds(t))

	if end, err := w.task(w.admin, "POST", "/admin/datastore/"+store+"/gc"); err != nil || end != "OK" {
		t.Errorf("the last collection ended with %q (%v)", end, err)
	}
	var acked, lost, waited, removed, restored int
	var checking sync.WaitGroup
	var mu sync.Mutex
	for _, k := range workers {
		acked, lost, waited, removed = acked+k.acked, lost+k.lost, waited+k.waited, removed+k.removed
		checking.Go(func() {
			n := k.check(t)
			mu.Lock()
			restored += n
			mu.Unlock()
		})
	}
	checking.Wait()
	t.Logf("%d snapshots acknowledged, %d backups lost by %d cuts, %d tries too early, %d removed, %d restored, %d collections",
		acked, lost, cuts.Load(), waited, removed, restored, collections.Load())
	if acked < clients || cuts.Load() == 0 || lost == 0 || collections.Load() == 0 {
		t.Error("the load was none")
	}
	if int64(lost) > cuts.Load() {
		t.Error("more connections broke than were cut")
		for _, k := range workers {
			t.Logf("client %d: %v", k.number, k.how)
		}
		w.tellRefusals(t)
	}
	if end, err := w.task(w.admin, "POST", "/admin/datastore/"+store+"/verify"); err != nil || end != "OK" {
		t.Errorf("the verification ended with %q (%v)", end, err)
	}
}

// escapePath makes one component of a path of any text.
func escapePath(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
			continue
		}
		b.WriteString("%" + strings.ToUpper(strconv.FormatInt(int64(c)+256, 16)[1:]))
	}
	return b.String()
}
