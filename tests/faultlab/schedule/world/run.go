package world

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/chunkstore/pack"
	"holdfast/datastore"
	"holdfast/datastore/wire"
	"holdfast/tests/faultlab/schedule/sim"
)

// Sizes of a schedule.
const (
	chunkCount = 10
	baseCount  = 48
	stepsMin   = 30
	livesMax   = 2
)

var (
	groups = []wire.Group{{Type: "vm", ID: "1"}, {Type: "vm", ID: "b"}, {NS: "n", Type: "ct", ID: "2"}}

	errSweeping = pack.ErrSweeping
)

// Violation says which invariant was found broken.
type Violation string

// Error implements error.
func (v Violation) Error() string { return string(v) }

// Lab makes schedules. It is not safe for concurrent use.
type Lab struct {
	// Only are the names of the tasks that schedules are made of; empty means
	// all of them.
	Only []string

	codec  *blob.Codec
	chunks []content
	bases  []base
}

// base is a store to begin with.
type base struct {
	image *sim.Image
	m     *model
}

// run is one schedule, or the making of a base.
type run struct {
	*Lab
	rnd   *rand.Rand
	m     *model
	doubt bool // the last life has ended with a crash
}

// NewLab makes the chunks and the stores that schedules begin with.
func NewLab() (*Lab, error) {
	codec, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		return nil, err
	}
	lab := &Lab{codec: codec}
	if err := lab.fillContents(); err != nil {
		return nil, fmt.Errorf("make the contents: %w", err)
	}
	for i := range baseCount {
		b, err := lab.newBase(uint64(i))
		if err != nil {
			return nil, fmt.Errorf("make store %d: %w", i, err)
		}
		lab.bases = append(lab.bases, b)
	}
	return lab, nil
}

// number finds a chunk by its name.
func (lab *Lab) number(id chunkstore.ID) int {
	return slices.IndexFunc(lab.chunks, func(c content) bool { return c.ID == id })
}

// newBase makes a store with some snapshots and some garbage.
func (lab *Lab) newBase(seed uint64) (base, error) {
	w := sim.The()
	w.Reset(&sim.Image{Mode: 0o755, Entries: map[string]*sim.Image{}}, seed, nil)
	r := &run{Lab: lab, rnd: rand.New(rand.NewPCG(seed, 1)), m: newModel()}
	r.m.trashDays = []int{safeDays, 0, 1, 0}[seed%4]
	_, err := w.Run(sim.Plan{Seed: seed}, func() {
		if err := datastore.Create(sim.Dir, datastore.CreateOptions{TrashDays: r.m.trashDays}); err != nil {
			wrong("create: %v", err)
		}
	})
	lives := 1 + r.rnd.IntN(2)
	if seed%8 == 7 {
		lives = 0 // a new store has its own faults
	}
	for range lives {
		if err == nil {
			_, err = w.Run(sim.Plan{Seed: seed}, func() { r.live(r.fill) })
		}
	}
	if err == nil {
		w.Disk.Kill()
	}
	return base{w.Disk.Image(), r.m}, err
}

// fill is the life of a store that is a base: one thing after the other.
func (r *run) fill(l *life) {
	for range 2 + r.rnd.IntN(4) {
		l.backup()
	}
	for range r.rnd.IntN(4) {
		l.forget()
	}
	if r.rnd.IntN(2) == 0 {
		l.emptyTrash(true)
	}
}

// live opens the store, lets use go on, and closes it.
func (r *run) live(use func(*life)) {
	r.m.clock++
	r.m.up++
	began := time.Now()
	l := &life{run: r, ctx: context.Background(), m: r.m, rnd: r.rnd}
	l.now = func() time.Time { return time.Unix(r.m.clock, 0).Add(time.Since(began)) }
	l.uptime = func() (string, time.Duration) {
		return fmt.Sprintf("%x", r.m.boot), time.Duration(r.m.up)*time.Second + time.Since(began)
	}
	if r.doubt && r.rnd.IntN(4) == 0 {
		l.peek() // before anybody who writes
	}
	var err error
	l.store, err = datastore.Open(l.ctx, sim.Dir, datastore.Options{Now: l.now, Uptime: l.uptime, Turns: freely{}})
	if err != nil {
		wrong("I6: open: %v", err)
	}
	use(l)
	allow("close the store", l.store.Close())
}

// chance keeps the random numbers of schedules apart from those of the stores
// they begin with: the names of packs must not come again.
const chance = 1 << 40

// Result is what has come of a schedule.
type Result struct {
	Steps   int
	Crashes int
	Lives   int
	Digest  uint64
	Err     error // a Violation, or what else was wrong
}

// Run runs the schedule of a seed. trail, if not nil, gets the trace.
func (lab *Lab) Run(seed uint64, trail io.Writer) (res Result) {
	w := sim.The()
	b := lab.bases[seed%uint64(len(lab.bases))]
	r := &run{Lab: lab, rnd: rand.New(rand.NewPCG(seed, 2)), m: b.m.clone()}
	w.Reset(b.image, seed+chance, trail)
	lives := 1 + r.rnd.IntN(livesMax)
	for res.Lives < lives || w.Steps() < stepsMin {
		res.Lives++
		p := r.plan()
		crashed, err := w.Run(p, func() { r.live(r.tasks) })
		if err != nil {
			return r.end(res, err)
		}
		if r.doubt = crashed; crashed {
			res.Crashes++
			r.crash()
		}
		r.m.clock += r.jump()
	}
	_, err := w.Run(sim.Plan{Seed: seed}, func() { r.live(r.inspect) })
	return r.end(res, err)
}

func (r *run) end(res Result, err error) Result {
	w := sim.The()
	if err == nil && w.Disk.Escaped != "" {
		err = Violation("I9: " + w.Disk.Escaped + " is not in the store")
	}
	res.Err, res.Steps, res.Digest = err, w.Steps(), w.Digest()
	return res
}

// plan chooses how the tasks of a life take turns.
func (r *run) plan() sim.Plan {
	p := sim.Plan{Seed: r.rnd.Uint64()}
	switch r.rnd.IntN(5) {
	case 0, 1:
		p.Changes, p.Within = 1+r.rnd.IntN(5), 600
		if r.rnd.IntN(3) == 0 {
			p.StallAt = 1 + r.rnd.IntN(20)
		}
	case 2:
		p.Rare = 2
	case 3:
		p.Rare = 8
	default:
		p.Rare = 40
	}
	if r.rnd.IntN(3) > 0 {
		p.CrashAt = 1 + r.rnd.IntN(700)
	}
	switch r.rnd.IntN(16) {
	case 0, 1: // soon after a collection has removed something
		p.CrashOp, p.CrashName, p.CrashAt = "remove", ".pack", 1+r.rnd.IntN(60)
		if r.rnd.IntN(2) == 0 { // beside a removal that is not durable
			p.Changes, p.Within, p.Rare = 1+r.rnd.IntN(3), 600, 0
			p.StallName, p.StallAt = "forgotten-", 1+r.rnd.IntN(2)
		}
	case 2, 3: // soon after a snapshot has got a name, with all others at work
		p.Changes, p.Within, p.Rare = 1+r.rnd.IntN(3), 600, 0
		p.StallName, p.StallAt = "Z", 1+r.rnd.IntN(3)
		p.CrashOp, p.CrashName, p.CrashAt = "rename", "Z", 1+r.rnd.IntN(150)
	}
	return p
}

// crash leaves what a crash leaves.
func (r *run) crash() {
	w := sim.The()
	if r.rnd.IntN(3) == 0 {
		w.Note("all processes are killed")
		w.Disk.Kill()
	} else {
		w.Note("the power goes")
		w.Disk.PowerCut(r.rnd)
		r.m.boot, r.m.up = r.m.boot+1, 0
	}
	for _, p := range r.m.all {
		p.busy, p.finishing = false, false
	}
	r.m.emptying = 0
	clear(r.m.begun)
	clear(r.m.ended)
	clear(r.m.given)
	switch r.rnd.IntN(16) {
	case 0:
		w.Note("the catalogue is lost")
		w.Disk.Lose(sim.Dir + "/.chunks/catalogue.db")
	case 1:
		w.Note("the catalogue is damaged")
		w.Disk.Damage(sim.Dir+"/.chunks/catalogue.db", r.damage)
	case 2:
		w.Disk.Lose(sim.Dir + "/.chunks/epoch")
	}
}

// damage changes a byte, or cuts.
func (r *run) damage(b []byte) []byte {
	if len(b) == 0 {
		return b
	}
	at := r.rnd.IntN(len(b))
	if r.rnd.IntN(2) == 0 {
		return b[:at]
	}
	b[at] ^= byte(1 << r.rnd.IntN(8))
	return b
}

// jump is what happens to the wall clock while nobody looks.
func (r *run) jump() int64 {
	const year = 365 * 24 * 3600
	switch r.rnd.IntN(4) {
	case 0:
		return 10 * year
	case 1:
		return -10 * year
	}
	passes := int64(r.rnd.IntN(3600))
	r.m.up += passes
	return passes
}

// tasks starts what goes on in a life, and waits for its end.
func (r *run) tasks(l *life) {
	if r.doubt {
		l.sync()
	}
	var wait sim.Latch
	list := kinds
	if r.rnd.IntN(3) == 0 {
		list = sweepers
	}
	if len(r.Only) > 0 {
		list = r.chosen()
	}
	for i := range 2 + r.rnd.IntN(4) {
		name, task := l.task(list)
		own := *l
		own.rnd = rand.New(rand.NewPCG(r.rnd.Uint64(), uint64(i)))
		wait.Add(1)
		sim.GoNamed(fmt.Sprintf("%s-%d", name, i), func() {
			defer wait.Add(-1)
			task(&own)
		})
	}
	wait.Wait()
}

// kind is something that goes on in a life, as often as its weight says.
type kind struct {
	name   string
	weight int
	do     func(*life)
}

// sweepers are what a collection can go wrong with.
var sweepers = []kind{
	{"backup", 6, (*life).backup},
	{"collect", 5, (*life).collect},
	{"reindex", 2, (*life).reindex},
	{"destroy", 1, (*life).forgetNow},
}

// kinds are all of them.
var kinds = []kind{
	{"backup", 24, (*life).backup},
	{"collect", 12, (*life).collect},
	{"forget", 8, (*life).forget},
	{"mixed", 3, (*life).mixed},
	{"read", 3, (*life).read},
	{"watch", 6, (*life).watch},
	{"check", 3, (*life).check},
	{"restore", 3, (*life).restoreDeleted},
	{"protect", 2, (*life).protect},
	{"give", 2, (*life).give},
	{"destroy", 2, (*life).forgetNow},
	{"empty", 2, func(l *life) { l.emptyTrash(true) }},
	{"expire", 1, func(l *life) { l.emptyTrash(false) }},
	{"group", 1, (*life).forgetGroup},
	{"verify", 1, (*life).verify},
	{"reindex", 1, (*life).reindex},
	{"liar", 1, func(l *life) { l.write(true) }},
}

// chosen are the tasks that Only names.
func (r *run) chosen() (list []kind) {
	for _, k := range kinds {
		if slices.Contains(r.Only, k.name) {
			list = append(list, k)
		}
	}
	return list
}

// task chooses one.
func (l *life) task(list []kind) (string, func(*life)) {
	sum := 0
	for _, k := range list {
		sum += k.weight
	}
	n := l.rnd.IntN(sum)
	for _, k := range list {
		if n -= k.weight; n < 0 {
			return k.name, k.do
		}
	}
	panic("unreachable")
}

// mixed is what an administrator does one after the other.
func (l *life) mixed() {
	l.backup()
	l.forget()
	l.collect()
}
