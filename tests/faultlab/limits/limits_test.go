package limits

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/faultlab/lab"
	"holdfast/tests/harness"
)

var here *lab.Lab

func TestMain(m *testing.M) { os.Exit(lab.Run(m, &here)) }

// newWorld is a repository with some snapshots.
func newWorld(t *testing.T, seed uint64, steps int) *lab.World {
	t.Helper()
	dir, err := here.MkdirTemp()
	if err != nil {
		t.Fatal(err)
	}
	w, err := here.NewWorld(filepath.Join(dir, "store"), seed)
	for range steps {
		if err == nil {
			err = w.Step()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// limitCases is how many runs have a limit at scale 1, at least.
const limitCases = 80

// prlimit runs a command with a limit of its own.
func prlimit(limit string) []string { return []string{"prlimit", limit, "--core=0"} }

// memoryGroup is a control group, in which the kernel kills who needs too much.
type memoryGroup string

// newMemoryGroup makes one, in either version of control groups.
func newMemoryGroup(t *testing.T) memoryGroup {
	t.Helper()
	var errs []error
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		dir := filepath.Join(root, fmt.Sprintf("holdfast-lab-%d", os.Getpid()))
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			t.Cleanup(func() { _ = os.Remove(dir) })
			if err = memoryGroup(dir).limit(1 << 30); err == nil {
				return memoryGroup(dir)
			}
		}
		errs = append(errs, err)
	}
	t.Fatalf("this machine lets nobody limit memory: %v", errors.Join(errs...))
	return ""
}

// limit sets how much memory the group may use, in bytes.
func (g memoryGroup) limit(n int64) error {
	err := os.WriteFile(filepath.Join(string(g), "memory.limit_in_bytes"), strconv.AppendInt(nil, n, 10), 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		err = os.WriteFile(filepath.Join(string(g), "memory.max"), strconv.AppendInt(nil, n, 10), 0)
	}
	return err
}

// wrap runs a command in the group.
func (g memoryGroup) wrap() []string {
	return []string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, string(g)}
}

// enough is how many steps each kind of limit must have refused, at scale 1.
const enough = limitCases / 5 / 4

// lot draws a whole number from 0 to n-1, more often a small one: most of what a
// limit forbids, it forbids when it is tight.
func lot(random *rand.Rand, n float64) int {
	f := random.Float64()
	return int(n * f * f)
}

// TestLimits runs steps with few descriptors, few addresses, a small limit on the
// size of files, and so little memory that the kernel kills some of them. Each is
// done or refused. It goes on until each kind of limit has refused some.
func TestLimits(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 12))
	w := newWorld(t, seed, 6)
	group := newMemoryGroup(t)
	killed, cases := 0, 0
	var refused [4]int
	for ; cases < limitCases*here.Scale || slices.Min(refused[:]) < enough*here.Scale || killed == 0; cases++ {
		if cases == 10*limitCases*here.Scale {
			t.Fatalf("of %d steps, the limits refused %d and killed %d: too few to prove anything", cases, refused, killed)
		}
		var limit string
		var wrap []string
		kind := cases % 4
		switch kind {
		case 0:
			limit = fmt.Sprintf("--nofile=%d", 9+lot(random, 28)) // the runtime itself needs eight
		case 1:
			limit = fmt.Sprintf("--as=%d", (40+lot(random, 1500))<<20)
		case 2:
			limit = fmt.Sprintf("--fsize=%d", lot(random, 200_000))
		case 3:
			most := int64(2+lot(random, 30)) << 20
			if err := group.limit(most); err != nil {
				t.Fatal(err)
			}
			limit, wrap = fmt.Sprintf("memory=%d", most), group.wrap()
		}
		if wrap == nil {
			wrap = prlimit(limit)
		}
		op, err := w.Next()
		if err != nil {
			t.Fatal(err)
		}
		w.Wrap, w.Env = wrap, []string{"GOMAXPROCS=2"}
		res, ok, err := w.Do(op)
		w.Wrap, w.Env = nil, nil
		if err != nil && !withoutMemory(limit, res) {
			t.Fatalf("seed %d, %s, %s: %v", seed, op, limit, err)
		}
		if !ok {
			refused[kind]++
		}
		if res.Code == lab.ExitSignal {
			killed++
		}
		if err := w.Judge(); err != nil {
			t.Fatalf("seed %d, %s, %s: %v\nafter %s", seed, op, limit, err, res)
		}
	}
	if err := w.GoOn(); err != nil {
		t.Fatal(err)
	}
	t.Logf("of %d steps, the four limits refused %d, and %d were killed", cases, refused, killed)
	t.Attr("faultlab.limits", strconv.Itoa(cases))
}

// withoutMemory reports whether a crash is how the Go runtime says that there is
// no memory, or no thread.
func withoutMemory(limit string, r harness.Result) bool {
	return strings.HasPrefix(limit, "--as=") &&
		(strings.Contains(r.Err, "out of memory") || strings.Contains(r.Err, "cannot allocate memory") ||
			strings.Contains(r.Err, "failed to") || strings.Contains(r.Err, "errno=12") || strings.Contains(r.Err, "pthread_create"))
}

// TestSecondProcess finds every other process refused as long as one has the
// repository open.
func TestSecondProcess(t *testing.T) {
	t.Parallel()
	agent, err := here.BuildAgent()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, 1, 6)
	a, err := w.Agent(agent)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []*lab.Op{w.GC(), w.Forget(w.Any())} {
		res, err := w.Run(w.Args(op)...)
		if err != nil || res.Code != lab.ExitLocked || res.Took > 5*time.Second {
			t.Errorf("want it locked: %v %s", err, res)
		}
	}
	if b, err := w.Agent(agent); err == nil {
		t.Error("a second server opened the repository")
		b.Kill()
	}
	if err := errors.Join(a.Close(), w.GoOn()); err != nil {
		t.Error(err)
	}
}

// races is how often two servers have one repository, at scale 1.
const races = 8

// TestTakenOver loses the lock file, as it happens on a file system that is shared
// over a network, so that a second server opens what the first one has open. What
// either acknowledges is there in the end.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	agent, err := here.BuildAgent()
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range races * here.Scale {
		n, err := takeOver(newWorld(t, uint64(i), 4), agent, uint64(i))
		if err != nil {
			t.Fatalf("race %d: %v", i, err)
		}
		refused += n
	}
	t.Logf("%d steps of servers that had lost their repository were refused", refused)
	if refused < races*here.Scale {
		t.Error("too few to prove anything")
	}
	t.Attr("faultlab.races", strconv.Itoa(races*here.Scale))
}

func takeOver(w *lab.World, agent string, seed uint64) (refused int, err error) {
	random := rand.New(rand.NewPCG(seed, 13))
	first, err := w.Agent(agent)
	if err != nil {
		return 0, err
	}
	defer first.Kill()
	early, err := w.Backup("vm/1")
	if err != nil {
		return 0, err
	}
	w.Begin(early)
	if err := first.Begin(early); err != nil {
		return 0, err
	}
	time.Sleep(time.Duration(random.Int64N(int64(30 * time.Millisecond))))
	if err := os.Remove(filepath.Join(w.Path, ".chunks", "lock")); err != nil {
		return 0, err
	}
	second, err := w.Agent(agent)
	if err != nil {
		return 0, err
	}
	defer second.Kill()
	settle := func(a *lab.Agent, mayFail bool) error {
		op, answer, err := a.Next()
		switch {
		case err != nil:
			return err
		case answer.Error == "":
			w.Done(op)
		case !mayFail:
			return fmt.Errorf("%s failed: %s", op, answer.Error)
		default:
			refused++
			w.Failed(op)
		}
		return nil
	}
	if err := settle(first, true); err != nil {
		return refused, err
	}
	for i := range 6 {
		a, group := second, "ct/two"
		if i%2 == 0 {
			a, group = first, "vm/1"
		}
		op, err := w.Backup(group)
		if err != nil {
			return refused, err
		}
		w.Begin(op)
		if err := a.Begin(op); err != nil {
			return refused, err
		}
		if err := settle(a, a == first); err != nil {
			return refused, err
		}
	}
	if _, err := first.Kill(); err != nil {
		return refused, err
	}
	if _, err := second.Kill(); err != nil {
		return refused, err
	}
	if err := w.Judge(); err != nil {
		return refused, err
	}
	return refused, w.GoOn()
}

// stops is how many clients are stopped, at scale 1.
const stops = 6

// TestStoppedClient stops clients in the middle of a backup while snapshots are
// removed and garbage is collected, and lets them go on.
func TestStoppedClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 0)
	server, err := w.Serve()
	for range 8 {
		if err == nil {
			err = w.Step()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 14))
	for i := range stops * here.Scale {
		if err := stopClient(w, random); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	if err := w.GoOn(); err != nil {
		t.Error(err)
	}
	t.Attr("faultlab.stopped-clients", strconv.Itoa(stops*here.Scale))
}

// stopClient stops one client. Its group is left alone meanwhile but for what the
// others remove.
func stopClient(w *lab.World, random *rand.Rand) error {
	op, err := w.Backup("host/three")
	if err != nil {
		return err
	}
	w.Begin(op)
	p, err := harness.Start(w.Command(w.Args(op)...))
	if err != nil {
		return err
	}
	time.Sleep(time.Duration(random.Int64N(int64(80 * time.Millisecond))))
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for range 4 {
		other, err := w.Next()
		if err == nil {
			err = w.MustDo(other)
		}
		if err == nil {
			err = w.MustDo(w.GC())
		}
		if err != nil {
			return errors.Join(err, p.Signal(syscall.SIGKILL))
		}
	}
	if err := p.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	res, err := p.Wait()
	if err != nil {
		return err
	}
	if res.Code == lab.ExitOK {
		w.Done(op)
	} else {
		w.Failed(op)
	}
	return w.Judge()
}
