package pack

import (
	"bytes"
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

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
)

// model is a store beside what it should hold. Chunks are known by a number.
type model struct {
	t    *testing.T
	r    *rand.Rand
	dir  string
	s    *Store
	ses  []chunkstore.Session
	log  []string
	next int

	put    map[int]bool           // accepted, not synced: may be there
	synced map[int]bool           // must be there, unless its pack was damaged
	home   map[int][2]packfile.ID // where a synced chunk, and its claim, was seen last
	hurt   map[packfile.ID]bool   // packs that were damaged
}

// chunk makes the chunk of a number. Of five one after the other the first is plain; of
// the same name and size are a copy of alice's, the same bytes of bob's, and others of
// carol's; the last is plain again and has nothing to do with them.
func (m *model) chunk(n int) chunkstore.Chunk {
	first := n - n%5
	size := 300 + first*37%1500
	plain := storetest.Chunk(uint64(first), size)
	named := func(c chunkstore.Chunk) chunkstore.Chunk {
		c.ID, c.PlainSize = plain.ID, plain.PlainSize
		return c
	}
	switch n % 5 {
	case 1:
		return named(storetest.Sealed(uint64(first+1), size, "alice"))
	case 2:
		return named(storetest.Sealed(uint64(first+1), size, "bob"))
	case 3:
		return named(storetest.Sealed(uint64(first+3), size, "carol"))
	case 4:
		return storetest.Chunk(uint64(n), 300+n*37%1500)
	}
	return plain
}

func (m *model) fatal(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\nafter %s", fmt.Sprintf(format, args...), strings.Join(m.log, ", "))
}

func (m *model) open(o Options) {
	m.t.Helper()
	o.PackSize = 6000
	s, err := Open(bg, m.dir, o)
	if err != nil {
		m.fatal("open: %v", err)
	}
	m.s = s
}

// session returns one of at most three sessions.
func (m *model) session() chunkstore.Session {
	m.t.Helper()
	if len(m.ses) < 3 && (len(m.ses) == 0 || m.r.IntN(3) == 0) {
		se, err := m.s.Begin(bg)
		if err != nil {
			m.fatal("begin: %v", err)
		}
		m.ses = append(m.ses, se)
	}
	return m.ses[m.r.IntN(len(m.ses))]
}

// steps are what can happen to a store; the number is how often.
var steps = []struct {
	name   string
	weight int
	run    func(*model)
}{
	{"put", 30, (*model).doPut},
	{"put again", 6, (*model).doPutAgain},
	{"sync", 8, (*model).doSync},
	{"end session", 4, (*model).doEndSession},
	{"read", 6, (*model).doRead},
	{"reopen", 4, (*model).doReopen},
	{"read-only", 1, (*model).doReadOnly},
	{"kill", 3, (*model).doKill},
	{"reindex", 1, (*model).doReindex},
	{"sweep", 4, (*model).doSweep},
	{"scrub", 3, (*model).doScrub},
	{"flip and scrub", 3, (*model).doFlip},
	{"lose catalogue", 1, (*model).doLoseCatalogue},
	{"damage catalogue", 2, (*model).doDamageCatalogue},
	{"cut open pack", 1, (*model).doCutOpen},
	{"lose pack", 1, (*model).doLosePack},
	{"lose pack while open", 1, (*model).doLosePackLive},
}

func (m *model) step() {
	m.t.Helper()
	sum := 0
	for _, st := range steps {
		sum += st.weight
	}
	n := m.r.IntN(sum)
	for _, st := range steps {
		if n -= st.weight; n < 0 {
			m.log = append(m.log, st.name)
			st.run(m)
			return
		}
	}
}

func (m *model) doPut() {
	n := m.next
	m.next++
	if added, err := m.session().Put(bg, m.chunk(n)); err != nil || !added {
		m.fatal("put %d: %v, %v", n, added, err)
	}
	m.put[n] = true
}

// doPutAgain puts a chunk that is there already: it is stored again exactly if
// Stat does not vouch for it.
func (m *model) doPutAgain() {
	if m.next == 0 {
		return
	}
	n := m.r.IntN(m.next)
	_, serr := m.s.Stat(bg, m.chunk(n).Key())
	added, err := m.session().Put(bg, m.chunk(n))
	if err != nil || added != errors.Is(serr, chunkstore.ErrNotExist) {
		m.fatal("put %d again: %v, %v; stat before: %v", n, added, err, serr)
	}
	m.put[n] = true
}

func (m *model) doSync() {
	if err := m.session().Sync(bg); err != nil {
		m.fatal("sync: %v", err)
	}
	m.settle()
}

// settle moves what was put to what is synced.
func (m *model) settle() {
	for n := range m.put {
		m.synced[n] = true
	}
	clear(m.put)
	for n := range m.synced {
		if l, ok, err := m.s.lookup(bg, m.chunk(n).Key()); err == nil && ok {
			m.home[n] = m.homeOf(l)
		}
	}
}

func (m *model) endSessions() {
	for _, se := range m.ses {
		if err := se.Close(); err != nil {
			m.fatal("close session: %v", err)
		}
	}
	m.ses = nil
}

func (m *model) doEndSession() {
	if len(m.ses) == 0 {
		return
	}
	if err := m.ses[0].Close(); err != nil {
		m.fatal("close session: %v", err)
	}
	m.ses = m.ses[1:]
}

func (m *model) doRead() {
	if m.next > 0 {
		m.verify(m.r.IntN(m.next))
	}
}

// verify compares one chunk with the model.
func (m *model) verify(n int) {
	m.t.Helper()
	c := m.chunk(n)
	got, err := m.s.Get(bg, c.Key())
	switch {
	case err == nil:
		if !bytes.Equal(got, c.Blob) {
			m.fatal("chunk %d: wrong bytes", n)
		}
		if err := m.s.Check(bg, c.Key()); err != nil {
			m.fatal("chunk %d can be read, but %v", n, err)
		}
	case m.synced[n] && !m.hurt[m.home[n][0]] && !m.hurt[m.home[n][1]]:
		m.fatal("chunk %d was synced: %v", n, err)
	case errors.Is(err, chunkstore.ErrCorrupt):
		named := false
		for id := range m.hurt {
			named = named || strings.Contains(err.Error(), "pack "+id.String())
		}
		if !named {
			m.fatal("chunk %d: the error names no damaged pack: %v", n, err)
		}
	case !errors.Is(err, chunkstore.ErrNotExist):
		m.fatal("chunk %d: %v", n, err)
	}
}

func (m *model) verifyAll() {
	m.t.Helper()
	for n := range m.next {
		m.verify(n)
	}
}

func (m *model) close() {
	m.endSessions()
	if err := m.s.Close(); err != nil {
		m.fatal("close: %v", err)
	}
}

func (m *model) doReopen() {
	m.close()
	m.open(Options{})
	m.settle()
}

func (m *model) doReadOnly() {
	m.close()
	m.open(Options{ReadOnly: true})
	m.verifyAll()
	m.close()
	m.open(Options{})
	m.settle()
}

// doKill goes on with a copy of the directory, as if the process had died.
func (m *model) doKill() {
	m.s.sealDone.Wait()
	dir := copyTree(m.t, m.dir)
	kill(m.t, m.s)
	m.ses = nil
	m.dir = dir
	m.open(Options{})
	if !m.s.Opened().Unclean {
		m.fatal("the store was killed and opened as clean")
	}
	// What was put may be there or not; it is no longer owed.
	clear(m.put)
	m.verifyAll()
}

// doSweep lets go of some chunks and sweeps. Those put by sessions that are
// open stay; a chunk that was let go of may be gone or not.
func (m *model) doSweep() {
	gone := make(map[chunkstore.Key]bool)
	for _, n := range slices.Sorted(maps.Keys(m.synced)) {
		if m.r.IntN(3) == 0 {
			gone[m.chunk(n).Key()] = true
			delete(m.synced, n)
		}
	}
	for n := range m.put {
		// Put again by a session that is open, whether let go of or not.
		delete(gone, m.chunk(n).Key())
	}
	sw, err := m.s.BeginSweep(bg)
	if err != nil {
		m.fatal("begin sweep: %v", err)
	}
	defer sw.Close()
	_, err = sw.Run(bg, func(k chunkstore.Key) bool { return !gone[k] }, SweepOptions{Waste: 0.1})
	if err != nil {
		m.fatal("sweep: %v", err)
	}
	for n := range m.synced {
		if l, ok, err := m.s.lookup(bg, m.chunk(n).Key()); err == nil && ok {
			m.home[n] = m.homeOf(l)
		}
	}
	m.verifyAll()
}

// doScrub reads everything: only packs that were damaged are called so.
func (m *model) doScrub() {
	r, err := m.s.Scrub(bg, ScrubOptions{Workers: 1 + m.r.IntN(3), Damaged: func(k chunkstore.Key, err error) {
		if l, ok, _ := m.s.lookup(bg, k); ok && !m.hurt[m.s.packs[l.Pack].ID] {
			m.fatal("scrub: %v", err)
		}
	}})
	if err != nil {
		m.fatal("scrub: %v", err)
	}
	for _, name := range r.Names {
		if p, ok := packfile.ParseName(name); !ok || !m.hurt[p.ID] {
			m.fatal("scrub calls %s damaged", name)
		}
	}
	m.verifyAll()
}

// doFlip flips a bit in the record of a synced chunk. A scrub finds it, and from
// then on the chunk is not vouched for until it is put again.
func (m *model) doFlip() {
	m.settleAll()
	for _, n := range shuffled(m.r, m.synced) {
		c := m.chunk(n)
		l, ok, err := m.s.lookup(bg, c.Key())
		if err != nil || !ok || m.s.healthy(l) != nil {
			continue
		}
		p := m.s.packNow(l.Pack)
		m.hurt[p.ID] = true
		path := packPath(m.dir, packfile.File{ID: p.ID, State: p.State})
		flipAt(m.t, rawFile(m.t, path), l.Off+m.r.Int64N(l.End()-l.Off), 1)
		m.doScrub()
		if now, ok := m.s.current(c.Key()); ok && !now.SamePlace(l) {
			break // to an older copy, which verify has read: the catalogue was built anew
		}
		if _, err := m.s.Stat(bg, c.Key()); !errors.Is(err, chunkstore.ErrNotExist) {
			m.fatal("chunk %d was damaged and a scrub has not found it: %v", n, err)
		}
		break
	}
}

// shuffled returns the numbers of a set in an order that only r decides.
func shuffled(r *rand.Rand, set map[int]bool) []int {
	list := slices.Sorted(maps.Keys(set))
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// settleAll has everything synced and sealed that is on its way.
func (m *model) settleAll() {
	m.doSync()
	m.s.sealDone.Wait()
}

func (m *model) doReindex() {
	if _, err := m.s.Reindex(bg, nil); err != nil {
		m.fatal("reindex: %v", err)
	}
	m.verifyAll()
}

func (m *model) doLoseCatalogue() {
	m.close()
	m.settlePut()
	if err := os.Remove(filepath.Join(m.dir, catalogue.FileName)); err != nil {
		m.fatal("%v", err)
	}
	m.open(Options{})
	m.verifyAll()
}

func (m *model) homeOf(l catalogue.Location) (home [2]packfile.ID) {
	home[0] = m.s.packs[l.Pack].ID
	if l.Claimed() {
		home[1] = m.s.packs[l.ClaimPack].ID
	}
	return home
}

// settlePut notes that a clean close has synced what was put.
func (m *model) settlePut() {
	for n := range m.put {
		m.synced[n] = true
		delete(m.home, n) // not known, so not excused
	}
	clear(m.put)
}

func (m *model) doDamageCatalogue() {
	m.close()
	m.settlePut()
	path := filepath.Join(m.dir, catalogue.FileName)
	if m.r.IntN(2) == 0 {
		// As after a kill: nothing tells at once that it is not as it was.
		_ = os.Remove(filepath.Join(m.dir, catalogue.SumName))
	}
	edit(m.t, path, func(b []byte) []byte {
		at := m.r.IntN(len(b))
		b[at] ^= 1 << m.r.IntN(8)
		return b
	})
	m.open(Options{})
	m.verifyAll()
}

func (m *model) doCutOpen() {
	m.close()
	m.open(Options{})
	m.settle()
	m.close()
	for _, p := range packsIn(m.t, m.dir) {
		if p.State == packfile.StateOpen {
			m.hurt[p.ID] = true
			if err := os.Truncate(packPath(m.dir, p), m.r.Int64N(p.Size)); err != nil {
				m.fatal("%v", err)
			}
			break
		}
	}
	m.open(Options{})
	m.verifyAll()
}

func (m *model) losePack() {
	if ps := packsIn(m.t, m.dir); len(ps) > 0 {
		p := ps[m.r.IntN(len(ps))]
		m.hurt[p.ID] = true
		if err := os.Remove(packPath(m.dir, p)); err != nil {
			m.fatal("%v", err)
		}
	}
}

func (m *model) doLosePack() {
	m.doReopen()
	m.close()
	m.losePack()
	m.open(Options{})
	m.verifyAll()
}

// doLosePackLive removes a pack that no session is filling.
func (m *model) doLosePackLive() {
	m.doReopen()
	m.losePack()
	// The pack may be one that the next session would go on with.
	m.close()
	m.open(Options{})
	m.verifyAll()
}

// heal puts every chunk once more: whatever was lost comes back.
func (m *model) heal() {
	m.t.Helper()
	m.endSessions()
	se, err := m.s.Begin(bg)
	if err != nil {
		m.fatal("begin: %v", err)
	}
	for n := range m.next {
		if _, err := se.Put(bg, m.chunk(n)); err != nil {
			m.fatal("heal: %v", err)
		}
	}
	if err := errors.Join(se.Sync(bg), se.Close()); err != nil {
		m.fatal("heal: %v", err)
	}
	clear(m.hurt)
	for n := range m.next {
		m.synced[n] = true
		storetest.Holds(m.t, m.s, m.chunk(n))
	}
}

// TestModel runs random lives of a store. What was synced is there byte for
// byte unless its pack was damaged, and then the error names a damaged pack;
// wrong bytes never. HOLDFAST_TEST_SEEDS says how many lives, 40 if it is not
// set.
func TestModel(t *testing.T) {
	seeds := uint64(40)
	if text := os.Getenv("HOLDFAST_TEST_SEEDS"); text != "" {
		var err error
		if seeds, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("HOLDFAST_TEST_SEEDS: %v", err)
		}
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			m := &model{
				t: t, r: rand.New(rand.NewPCG(seed, 7)), dir: create(t),
				put: make(map[int]bool), synced: make(map[int]bool), home: make(map[int][2]packfile.ID), hurt: make(map[packfile.ID]bool),
			}
			m.open(Options{})
			for range 120 {
				m.step()
			}
			m.doKill()
			m.heal()
			m.close()
		})
	}
}
