package rot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/tests/faultlab/lab"
)

var here *lab.Lab

func TestMain(m *testing.M) { os.Exit(lab.Run(m, &here)) }

// damages is how many there are at scale 1.
const damages = 500

// perSpecimen is how many are done to copies of one repository.
const perSpecimen = 250

// block is what a disk loses or writes to another place, in bytes.
const block = 4096

// kind is a kind of file.
type kind struct {
	name  string
	match func(string) bool
	share int // of the damage, in percent
	// cache says that nothing depends on it.
	cache bool
	// plain says that it holds words for people, in which nobody can tell a
	// changed letter.
	plain bool
}

func has(suffix string) func(string) bool {
	return func(name string) bool { return strings.HasSuffix(name, suffix) }
}

func kinds() []kind {
	inTree := func(suffix string) func(string) bool {
		return func(name string) bool { return strings.HasSuffix(name, suffix) && !strings.HasPrefix(name, ".") }
	}
	return []kind{
		{name: "sealed pack", match: has(".pack"), share: 38},
		{name: "open pack", match: has(".open"), share: 10},
		{name: "index", match: inTree(".didx"), share: 16},
		{name: "manifest", match: inTree("index.json.blob"), share: 10},
		{name: "blob", match: inTree(".conf.blob"), share: 8},
		{name: "catalogue", match: has("catalogue.db"), share: 8, cache: true},
		{name: "catalogue sum", match: has("catalogue.sum"), share: 2, cache: true},
		{name: "epoch", match: has("epoch"), share: 2, cache: true},
		{name: "clock", match: has("clock"), share: 1, cache: true},
		{name: "arrival", match: inTree("/arrived"), share: 2},
		{name: "owner", match: inTree("/owner"), share: 1, plain: true},
		{name: "config", match: has("holdfast.json"), share: 2},
	}
}

// damage is one of them: the files that differ.
type damage struct {
	kind
	what    string
	changed map[string][]byte
}

// do makes one damage to a specimen.
func (s *specimen) do(random *rand.Rand) damage {
	for {
		k := kinds()[0]
		for dice, list := random.IntN(100), kinds(); ; list = list[1:] {
			if k = list[0]; dice < k.share || len(list) == 1 {
				break
			}
			dice -= k.share
		}
		name := s.pick(random, k.match)
		if name == "" {
			continue
		}
		d := damage{kind: k, changed: map[string][]byte{}}
		what, b := s.break1(random, name, k)
		d.what = fmt.Sprintf("%s: %s", name, what)
		if b != nil && bytes.Equal(b, s.files[name]) {
			continue
		}
		d.changed[name] = b
		if what == "exchanged" {
			other := s.pick(random, k.match)
			d.changed[name], d.changed[other] = s.files[other], s.files[name]
			if bytes.Equal(s.files[other], s.files[name]) {
				continue
			}
		}
		d.plain = d.plain || slices.IndexFunc(slices.Collect(maps.Keys(d.changed)), func(name string) bool {
			return d.changed[name] == nil || !bytes.Equal(significant(name, d.changed[name]), significant(name, s.files[name]))
		}) < 0
		return d
	}
}

// break1 breaks one file; nil means that it is missing.
func (s *specimen) break1(random *rand.Rand, name string, k kind) (what string, b []byte) {
	b = bytes.Clone(s.files[name])
	dice := random.IntN(100)
	if len(b) == 0 {
		dice = 99
	}
	switch {
	case dice < 70:
		at, bit := random.IntN(len(b)), random.IntN(8)
		b[at] ^= 1 << bit
		return fmt.Sprintf("bit %d at %d of %d", bit, at, len(b)), b
	case dice < 80:
		at := random.IntN((len(b)+block-1)/block) * block
		clear(b[at:min(at+block, len(b))])
		return fmt.Sprintf("block at %d of %d zeroed", at, len(b)), b
	case dice < 90:
		other := s.files[s.pick(random, k.match)]
		from, to := random.IntN((len(other)+block-1)/block)*block, random.IntN((len(b)+block-1)/block)*block
		copy(b[to:min(to+block, len(b))], other[from:min(from+block, len(other))])
		return fmt.Sprintf("block at %d of %d has other data", to, len(b)), b
	case dice < 95:
		b = b[:random.IntN(len(b))]
		return fmt.Sprintf("cut to %d of %d", len(b), len(s.files[name])), b
	case dice < 98:
		return "exchanged", b
	}
	return "missing", nil
}

// judge says what is wrong with how a damage was dealt with.
func (d *damage) judge(r result) error {
	if len(r.wrong) > 0 {
		return fmt.Errorf("WRONG BYTES: %v", r.wrong)
	}
	if r.open != nil {
		if d.cache || !errors.Is(r.open, chunkstore.ErrCorrupt) && !errors.Is(r.open, datastore.ErrNoStore) && !errors.Is(r.open, chunkstore.ErrInvalid) {
			return fmt.Errorf("it cannot be opened: %w", r.open)
		}
		return nil
	}
	if d.cache && (len(r.broken) > 0 || !r.report.OK()) {
		return fmt.Errorf("a cache has done damage: %v, %+v", r.broken, r.report)
	}
	for name, err := range r.broken {
		if !r.named(name) {
			return fmt.Errorf("%s did not come back (%w), and verifying did not name it: %+v", name, err, r.report)
		}
	}
	// The end of an open pack is cut off as after a crash. Whoever needs what was
	// there is named; if nobody does, it was garbage.
	cut := d.name == "open pack" && strings.Contains(d.what, ": cut to ")
	if r.report.OK() && !d.cache && !d.plain && !cut {
		return fmt.Errorf("verifying has found nothing: %+v", r.report)
	}
	return nil
}

// TestRot damages copies of repositories.
func TestRot(t *testing.T) {
	const workers = 2
	for i := range workers {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			n := damages * here.Scale / workers
			seed := uint64(time.Now().UnixNano())
			count := map[string]int{}
			for done := 0; done < n; seed++ {
				s, err := newSpecimen(seed)
				if err != nil {
					t.Fatal(err)
				}
				random := rand.New(rand.NewPCG(seed, 8))
				for range min(perSpecimen, n-done) {
					d := s.do(random)
					if err := s.try(t.Context(), d); err != nil {
						t.Errorf("seed %d: %s, %s: %v", seed, d.name, d.what, err)
					}
					count[d.name]++
					done++
				}
				if t.Failed() {
					break
				}
			}
			t.Logf("damaged were %v", count)
			t.Attr("faultlab.corruptions", strconv.Itoa(n))
		})
	}
}

// try does one damage and looks at what becomes of it.
func (s *specimen) try(ctx context.Context, d damage) error {
	dir, err := here.MkdirTemp()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, "store")
	if err := s.lay(dir, d.changed); err != nil {
		return err
	}
	r, err := s.inspect(ctx, dir)
	if err != nil {
		return err
	}
	return d.judge(r)
}
