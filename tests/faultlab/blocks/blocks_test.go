package blocks

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/tests/faultlab/lab"
)

var here *lab.Lab

func TestMain(m *testing.M) { os.Exit(lab.Run(m, &here)) }

const (
	// statesPerRecord is how many crash states are made from one record.
	statesPerRecord = 30
	// stepsPerRecord is how long the script is.
	stepsPerRecord = 12
	// atOnce is how many steps run at a time.
	atOnce = 2
)

// mark says that a step began or was acknowledged, and when.
type mark struct {
	at   int // events before it
	op   *lab.Op
	done bool
}

// tape is one run of the script.
type tape struct {
	fs     lab.FS
	image  string // before
	before *lab.World
	events []event
	marks  []mark
	first  int // events before the first step
}

// newTape makes a repository and records the script that an agent runs on it.
func newTape(fs lab.FS, agent string, seed uint64) (*tape, error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return nil, err
	}
	t := &tape{fs: fs, image: filepath.Join(dir, "disk.img")}
	if err := fs.Format(t.image); err != nil {
		return nil, err
	}
	d, err := fs.Mount(t.image, filepath.Join(dir, "mount"))
	if err != nil {
		return nil, err
	}
	t.before, err = here.NewWorld(filepath.Join(d.Dir, "store"), seed)
	for range 8 {
		if err == nil {
			err = t.before.Step()
		}
	}
	if err = errors.Join(err, d.Unmount()); err != nil {
		return nil, err
	}
	t.events, err = record(fs, t.image, func(d *lab.Disk, now func() int) error { return t.run(d, now, agent) })
	return t, err
}

// run runs the script and notes what began and what was acknowledged when.
func (t *tape) run(d *lab.Disk, now func() int, agent string) error {
	w := t.before.Clone(filepath.Join(d.Dir, "store"), 7)
	a, err := w.Agent(agent)
	if err != nil {
		return err
	}
	t.first = now()
	for n := stepsPerRecord; n > 0 || a.Running() > 0; {
		for n > 0 && a.Running() < atOnce {
			op, err := w.Next()
			if err != nil {
				return err
			}
			if op == nil {
				break
			}
			n--
			w.Begin(op)
			t.marks = append(t.marks, mark{now(), op, false})
			if err := a.Begin(op); err != nil {
				return err
			}
		}
		op, answer, err := a.Next()
		if err != nil {
			return err
		}
		if answer.Error != "" {
			return fmt.Errorf("%s failed: %s", op, answer.Error)
		}
		w.Done(op)
		t.marks = append(t.marks, mark{now(), op, true})
	}
	_, err = a.Kill()
	return err
}

// world is what is known of the repository at some moment.
func (t *tape) world(moment int, path string, seed uint64) *lab.World {
	w := t.before.Clone(path, seed)
	for _, m := range t.marks {
		switch {
		case m.at > moment:
		case m.done:
			w.Done(m.op)
		default:
			w.Begin(m.op)
		}
	}
	return w
}

// states makes crash states and judges them. The error is the first violation.
func (t *tape) states(n int, random *rand.Rand) (judged int, err error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	prefix := filepath.Join(dir, "prefix.img")
	if err := lab.CopySparse(t.image, prefix); err != nil {
		return 0, err
	}
	file, err := os.OpenFile(prefix, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	m := &maker{events: t.events, file: file}
	var moments []int
	for range n {
		moments = append(moments, t.first+random.IntN(len(t.events)-t.first+1))
	}
	slices.Sort(moments)
	for _, moment := range moments {
		image := filepath.Join(dir, "state.img")
		if err := m.state(moment, image, random); err != nil {
			return judged, err
		}
		if err := t.judge(moment, image, random.Uint64()); err != nil {
			return judged, fmt.Errorf("moment %d of %d: %w", moment, len(t.events), err)
		}
		judged++
	}
	return judged, nil
}

// judge mounts a state and looks at the repository in it.
func (t *tape) judge(moment int, image string, seed uint64) error {
	d, err := t.fs.Mount(image, filepath.Join(filepath.Dir(image), "mount"))
	if err != nil {
		return err
	}
	w := t.world(moment, filepath.Join(d.Dir, "store"), seed)
	err = w.Judge()
	if err == nil && seed%4 == 0 {
		if err = w.Own(); err == nil {
			err = w.GoOn()
		}
	}
	return errors.Join(err, d.Unmount())
}

// run judges n states.
func run(fs lab.FS, agent string, seed uint64, n int) (judged int, err error) {
	for judged < n {
		t, err := newTape(fs, agent, seed)
		if err != nil {
			return judged, err
		}
		did, err := t.states(min(statesPerRecord, n-judged), rand.New(rand.NewPCG(seed, 6)))
		judged += did
		if err = errors.Join(err, os.RemoveAll(filepath.Dir(t.image))); err != nil {
			return judged, fmt.Errorf("%s, seed %d: %w", fs.Name, seed, err)
		}
		seed++
	}
	return judged, nil
}

// TestCrashStates finds no violation of what the store promises.
func TestCrashStates(t *testing.T) {
	agent, err := here.BuildAgent()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		fs     lab.FS
		states int
	}{{lab.Ext4(), 180}, {lab.XFS(), 120}} {
		t.Run(tc.fs.Name, func(t *testing.T) {
			t.Parallel()
			n, err := run(tc.fs, agent, uint64(time.Now().UnixNano()), tc.states*here.Scale)
			if err != nil {
				t.Error(err)
			}
			t.Attr("faultlab.crash-states-"+tc.fs.Name, strconv.Itoa(n))
		})
	}
}

// The calls that make things durable.
const (
	durableFile = "chunkstore/durable/durable.go"
	writerFile  = "chunkstore/pack/writer.go"
	finishFile  = "datastore/finish.go"

	syncFile   = "if err := f.Sync(); err != nil {"
	syncDir    = "err = d.Sync()"
	syncPack   = "if err := w.disk.Do(\"sync\", w.path, w.f.Sync); err != nil {"
	syncChunks = "if err := ss.proveChunks(ctx, classes); err != nil {"
	onlyProve  = "if err := ss.prove(ctx, classes); err != nil {"
	commit     = "err = ss.commit()\n"
	noError    = "if err := error(nil); err != nil {"
)

// mutants are mistakes built into the program.
func mutants() map[string][]lab.Patch {
	return map[string][]lab.Patch{
		"no file fsync":      {lab.Replace(durableFile, syncFile, noError), lab.Replace(writerFile, syncPack, noError)},
		"no directory fsync": {lab.Replace(durableFile, syncDir, "err = nil")},
		// The snapshot gets its place before its chunks are durable.
		"index before chunk": {
			lab.Replace(finishFile, syncChunks, onlyProve),
			lab.Replace(finishFile, commit, "if err = ss.commit(); err == nil {\n\t\t\terr = ss.puts.Sync(ctx)\n\t\t}\n"),
		},
	}
}

// mutantStates is how many states a mistake may survive: more than chance needs.
const mutantStates = 2000

// TestMutants finds every mistake that is built in.
func TestMutants(t *testing.T) {
	for name, patches := range mutants() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent, err := here.BuildAgent(patches...)
			if err != nil {
				t.Fatal(err)
			}
			n, err := run(lab.Ext4(), agent, 1, mutantStates)
			if err == nil {
				t.Fatalf("not found in %d states", n)
			}
			first, _, _ := strings.Cut(err.Error(), "\n")
			t.Logf("found in state %d: %s", n+1, first)
			t.Attr("faultlab.block-mutants", "1")
		})
	}
}
