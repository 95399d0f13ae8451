package pack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/disk"
	"holdfast/chunkstore/pack/packfile"
)

const (
	// rebuildBatch is how many entries are sorted in memory at a time, and then written
	// by one transaction; it bounds the memory, to about 60 MB and the pages they touch.
	rebuildBatch = 250_000
	// namesMax is how many names of files a report lists.
	namesMax = 16
)

// Progress says how far the building of a catalogue has come.
type Progress struct {
	PacksDone, PacksTotal int
	Chunks                uint64
}

// ReindexReport says what the building of a catalogue has found.
type ReindexReport struct {
	Packs          int    // pack files read
	OpenPacks      int    // of them, those that are not sealed
	Chunks         uint64 // different chunks
	Duplicates     uint64 // further copies of them
	FootersDamaged int    // sealed packs that had to be read whole
	RecordsDamaged int    // records, or stretches of a file, that are not sound
	BytesSkipped   int64  // in them
	Unreadable     int    // packs with places that could not be read
	// Names are the first files that something was wrong with.
	Names []string
}

func (r *ReindexReport) name(name string) {
	if len(r.Names) < namesMax && !slices.Contains(r.Names, name) {
		r.Names = append(r.Names, name)
	}
}

// Reindex builds the catalogue anew from the packs and puts it in place of the
// old one. Reading and putting go on meanwhile; Sync waits. progress, if not
// nil, is called after each pack.
func (s *Store) Reindex(ctx context.Context, progress func(Progress)) (ReindexReport, error) {
	if err := s.lockCommit(ctx); err != nil {
		return ReindexReport{}, fmt.Errorf("reindex: %w", err)
	}
	defer s.unlockCommit()
	if err := s.writable(); err != nil {
		return ReindexReport{}, fmt.Errorf("reindex: %w", err)
	}
	report, err := s.rebuildLocked(ctx, progress)
	if err != nil {
		return report, fmt.Errorf("reindex: %w", err)
	}
	return report, nil
}

// heal builds the catalogue anew because cause was met in old.
func (s *Store) heal(ctx context.Context, old *catalogue, cause error) error {
	if s.writable() != nil {
		return cause
	}
	if err := s.lockCommit(ctx); err != nil {
		return err
	}
	defer s.unlockCommit()
	s.catMu.RLock()
	done := s.cat != old
	s.catMu.RUnlock()
	if done {
		return nil
	}
	_, err := s.rebuildLocked(ctx, nil)
	return err
}

// healMiss builds the catalogue anew because a chunk that should be there is
// not in it, at most once while the store is open. It reports whether looking
// again makes sense.
func (s *Store) healMiss(ctx context.Context) bool {
	if s.writable() != nil || s.hasHealed() || s.lockCommit(ctx) != nil {
		return false
	}
	defer s.unlockCommit()
	if s.hasHealed() {
		return true
	}
	s.setHealed()
	_, err := s.rebuildLocked(ctx, nil)
	return err == nil
}

func (s *Store) hasHealed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.healed
}

func (s *Store) setHealed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.healed = true
}

// rebuildLocked is Reindex for whoever holds commitLock. Records that are not
// in the catalogue yet stay pending: of a pack that is open only what has been
// committed is read.
func (s *Store) rebuildLocked(ctx context.Context, progress func(Progress)) (report ReindexReport, err error) {
	s.setHealed()
	if err := s.epoch.check(s.dir); err != nil {
		return ReindexReport{}, err
	}
	b := &builder{dir: packsDir(s.dir), epoch: s.epoch.Number, batch: s.options.rebuildBatch, progress: progress, number: s.takeNumber, runs: newRuns(s.disk, s.dir)}
	defer func() { err = errors.Join(err, b.runs.close()) }()
	if b.files, err = packfile.List(b.dir); err != nil {
		return b.report, err
	}
	b.known, b.running = s.knownPacks()
	b.damaged = s.isQuarantined
	if err := createCatalogue(s.disk, s.dir, func(c *catalogue) error { return b.all(ctx, c) }); err != nil {
		return b.report, fmt.Errorf("build catalogue: %w", err)
	}
	s.sumGone = true
	if !b.running {
		s.epoch.Number = max(s.epoch.Number, b.maxEpoch)
	}
	return b.report, s.swapCatalogue(b)
}

// numbered is a pack that the store has a number for.
type numbered struct {
	no   uint32
	info packInfo // as it should stand in the catalogue
}

// knownPacks returns the packs of the running store; there are none while it
// is being opened.
func (s *Store) knownPacks() (known map[packfile.ID]numbered, running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known = make(map[packfile.ID]numbered, len(s.packs))
	for no, p := range s.packs {
		if p.dropped {
			continue
		}
		info := *p
		info.totals = info.saved
		if info.state == packfile.StateOpen {
			info.length = info.savedTo
		}
		known[p.id] = numbered{no: no, info: info}
	}
	return known, s.cat != nil
}

func (s *Store) takeNumber() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextPack++
	return s.nextPack - 1
}

// swapCatalogue opens the catalogue that has just been built.
func (s *Store) swapCatalogue(b *builder) error {
	c, err := openBolt(filepath.Join(s.dir, catalogueName), false, false)
	if err != nil {
		return err
	}
	// The packs come first: whoever finds a chunk finds its pack.
	s.mu.Lock()
	for no, p := range b.built {
		if q := s.packs[no]; q != nil {
			q.saved, q.savedTo = p.saved, p.savedTo
			continue
		}
		s.packs[no] = &p
	}
	s.rebuilt() // before a sweep asks the new one
	s.mu.Unlock()
	s.catMu.Lock()
	old := s.cat
	s.cat = c
	s.catMu.Unlock()
	s.mu.Lock()
	s.rebuilt() // after the last look into the old one
	s.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.close()
}

// builder fills a new catalogue from packs.
type builder struct {
	dir      string // of the packs
	files    []packfile.File
	known    map[packfile.ID]numbered
	running  bool // sessions may be writing meanwhile
	number   func() uint32
	damaged  func(place, chunkstore.ID) bool
	progress func(Progress)

	epoch    uint64
	batch    int // how many are found at a time
	cat      *catalogue
	found    []held // not in runs and not in the catalogue yet
	runs     *runs
	failed   error // of what is being built, not of a pack
	built    map[uint32]packInfo
	claiming map[uint32]bool // packs with claims
	report   ReindexReport
	maxEpoch uint64 // the largest in a file header
}

// all reads every pack.
func (b *builder) all(ctx context.Context, c *catalogue) error {
	b.cat = c
	b.built, b.claiming = make(map[uint32]packInfo, len(b.files)), make(map[uint32]bool)
	todo := b.todo()
	for i, k := range todo {
		// It stays known when it is missing today: it may be back tomorrow.
		b.built[k.no] = k.info
		if err := b.pack(ctx, k); err != nil {
			return err
		}
		if b.progress != nil {
			b.progress(Progress{PacksDone: i + 1, PacksTotal: len(todo), Chunks: b.report.Chunks})
		}
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	if err := b.claims(ctx); err != nil || b.report.Unreadable == 0 {
		return err
	}
	return c.markPartial()
}

// claims goes through the packs with claims again, now that all chunks are in the
// catalogue. A claim of what is nowhere to be found is none.
func (b *builder) claims(ctx context.Context) error {
	for _, no := range slices.Sorted(maps.Keys(b.claiming)) {
		entries, err := b.claimsIn(ctx, no)
		if err != nil {
			return err
		}
		for _, e := range entries {
			list, err := b.cat.holders(e.Key)
			if err != nil {
				return err
			}
			c := copyOf{no, e}
			damaged := func(at spot) bool { return b.damaged(place{b.built[at.pack].id, at.off}, e.Key.ID) }
			if l, ok := findClaimed(list, c, damaged); ok {
				if err := b.learn(e.Key, l, b.flush); err != nil {
					return err
				}
			}
		}
	}
	return b.flush()
}

// claimsIn lists the claims in a pack that has been read. One that cannot be read any
// more has none.
func (b *builder) claimsIn(ctx context.Context, no uint32) (list []packfile.Entry, err error) {
	p := b.built[no]
	f, _, err := openPack(b.dir, p.id, p.state)
	if disk.IsDamage(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := packfile.ReadFooter(f, p.size, p.id)
	if p.state != packfile.StateSealed || err != nil {
		all = all[:0]
		sc := &packfile.Scanner{R: &packfile.PatchyReader{R: f}, ID: p.id, Size: p.size, Sound: func(e packfile.Entry) error { all = append(all, e); return nil }}
		if _, err := sc.Scan(ctx, packfile.HeaderSize); err != nil && !disk.IsDamage(err) {
			return nil, err
		}
	}
	for _, e := range all {
		if e.Claim {
			list = append(list, e)
		}
	}
	return list, nil
}

// todo lists all packs: those of the running store, whether the directory has
// shown them or not (one that is being renamed may have been missed), and
// those that only the directory knows.
func (b *builder) todo() []numbered {
	todo := make([]numbered, 0, len(b.known)+len(b.files))
	for _, k := range b.known {
		// One that nothing has been synced in may be gone after a power cut.
		if k.info.state != packfile.StateOpen || k.info.savedTo > 0 {
			todo = append(todo, k)
		}
	}
	slices.SortFunc(todo, func(x, y numbered) int { return cmp.Compare(x.no, y.no) })
	for _, f := range b.files {
		if _, ok := b.known[f.ID]; ok || b.running && f.State == packfile.StateOpen {
			continue // an open one may have been made by a session this moment
		}
		todo = append(todo, numbered{no: b.number(), info: packInfo{id: f.ID, state: f.State}})
	}
	return todo
}

// pack reads one pack. What is wrong with it goes into the report; errors are
// those that would be met with the next pack too.
func (b *builder) pack(ctx context.Context, k numbered) error {
	p := k.info
	f, name, err := openPack(b.dir, p.id, p.state)
	if err != nil {
		if errors.Is(err, unix.EIO) {
			b.report.Unreadable++
			b.report.name(p.name())
		}
		if disk.IsDamage(err) {
			return nil
		}
		return err
	}
	defer f.Close()
	size, err := disk.Size(f)
	if err != nil {
		return err
	}
	b.readEpoch(f)
	b.report.Packs++
	p.seen, p.size, p.totals = 0, size, totals{}
	if p.state == packfile.StateSealed {
		err = b.sealed(ctx, &p, k.no, f)
	} else {
		if b.running {
			p.size = min(size, p.length)
		}
		err = b.open(ctx, &p, k.no, f)
	}
	if err != nil && (b.failed != nil || !disk.IsDamage(err)) {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	if err != nil {
		b.report.Unreadable++
		b.report.name(name)
	}
	p.saved = p.totals
	b.built[k.no] = p
	return nil
}

func (b *builder) readEpoch(f *os.File) {
	head := make([]byte, packfile.HeaderSize)
	if _, err := f.ReadAt(head, 0); err != nil {
		return
	}
	if _, epoch, err := packfile.DecodeHeader(head); err == nil {
		b.maxEpoch = max(b.maxEpoch, epoch)
	}
}

// sealed reads the table of a sealed pack, or its records if that is damaged.
func (b *builder) sealed(ctx context.Context, p *packInfo, no uint32, f *os.File) error {
	p.length, p.savedTo = p.size, p.size
	entries, err := packfile.ReadFooter(f, p.size, p.id)
	if err != nil {
		b.report.FootersDamaged++
		b.report.name(p.name())
		_, err := b.records(ctx, p, no, f)
		return err
	}
	for _, e := range entries {
		if err := b.add(p, no, e); err != nil {
			return err
		}
	}
	return nil
}

// open reads the records of a pack that is not sealed. What is behind the last
// sound one is left for recovery to look at.
func (b *builder) open(ctx context.Context, p *packInfo, no uint32, f *os.File) error {
	b.report.OpenPacks++
	res, err := b.records(ctx, p, no, f)
	if p.length == 0 { // not known before
		p.length = res.End
	}
	p.savedTo = p.length
	return err
}

func (b *builder) records(ctx context.Context, p *packInfo, no uint32, f *os.File) (packfile.ScanResult, error) {
	r := &packfile.PatchyReader{R: f}
	sc := &packfile.Scanner{R: r, ID: p.id, Size: p.size, Sound: func(e packfile.Entry) error { return b.add(p, no, e) }}
	res, err := sc.Scan(ctx, packfile.HeaderSize)
	if r.Bad > 0 {
		b.report.Unreadable++
	}
	b.report.RecordsDamaged += res.Damaged
	b.report.BytesSkipped += res.Skipped
	if res.Damaged > 0 {
		b.report.name(p.name())
	}
	return res, err
}

func (b *builder) add(p *packInfo, no uint32, e packfile.Entry) error {
	p.add(e.Record)
	if e.Claim {
		b.claiming[no] = true
		return nil
	}
	l := locate(no, e)
	if b.damaged(place{p.id, e.Off}, e.Key.ID) {
		l.flags |= flagBad
	}
	return b.learn(e.Key, l, b.spill)
}

// learn notes where a chunk lies. full is called when that has become much.
func (b *builder) learn(k chunkstore.Key, l location, full func() error) error {
	b.report.Chunks++
	b.found = append(b.found, held{k, l})
	if len(b.found) < b.batch {
		return nil
	}
	return full()
}

// spill writes down what has been found, in order.
func (b *builder) spill() error {
	b.sort()
	b.failed = b.runs.add(b.found)
	b.found = b.found[:0]
	return b.failed
}

// sort brings what has been found in order, each chunk once.
func (b *builder) sort() {
	slices.SortFunc(b.found, held.compare)
	all := len(b.found)
	b.found = slices.CompactFunc(b.found, func(x, y held) bool { return x.key == y.key })
	b.again(all - len(b.found))
}

// again takes further copies of chunks out of the count.
func (b *builder) again(copies int) {
	b.report.Chunks -= uint64(copies)
	b.report.Duplicates += uint64(copies)
}

// fill brings all that was found into the catalogue, which is empty.
func (b *builder) fill(ctx context.Context) error {
	if len(b.runs.ends) == 0 {
		return b.commit(changes{ordered: true, packs: b.built})
	}
	if err := b.spill(); err != nil {
		return err
	}
	var last chunkstore.Key
	err := b.runs.merge(func(h held) error {
		if h.key == last {
			b.again(1)
			return nil
		}
		last = h.key
		if b.found = append(b.found, h); len(b.found) < b.batch {
			return nil
		}
		return errors.Join(b.commit(changes{ordered: true}), ctx.Err())
	})
	if err != nil {
		return err
	}
	return b.commit(changes{ordered: true, packs: b.built})
}

// flush brings claims that have been found into the catalogue, among what is there.
func (b *builder) flush() error { return b.commit(changes{merge: true}) }

// commit brings what has been found into the catalogue.
func (b *builder) commit(ch changes) error {
	b.sort()
	ch.epoch, ch.chunks = b.epoch, b.found
	copies, err := b.cat.commit(ch)
	if err != nil {
		return err
	}
	b.again(int(copies))
	b.found = b.found[:0]
	return nil
}
