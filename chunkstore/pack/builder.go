package pack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

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
	cat      *catalogue.File
	found    []catalogue.Held // not in runs and not in the catalogue yet
	runs     *catalogue.Runs
	failed   error // of what is being built, not of a pack
	built    map[uint32]catalogue.PackInfo
	claiming map[uint32]bool // packs with claims
	report   ReindexReport
	maxEpoch uint64 // the largest in a file header
}

// all reads every pack.
func (b *builder) all(ctx context.Context, c *catalogue.File) error {
	b.cat = c
	b.built, b.claiming = make(map[uint32]catalogue.PackInfo, len(b.files)), make(map[uint32]bool)
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
	return c.MarkPartial()
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
			list, err := b.cat.Holders(e.Key)
			if err != nil {
				return err
			}
			c := copyOf{no, e}
			damaged := func(at catalogue.Spot) bool { return b.damaged(place{b.built[at.Pack].ID, at.Off}, e.Key.ID) }
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
	f, _, err := openPack(b.dir, p.ID, p.State)
	if durable.IsDamage(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := packfile.ReadFooter(f, p.Size, p.ID)
	if p.State != packfile.StateSealed || err != nil {
		all = all[:0]
		sc := &packfile.Scanner{R: &packfile.PatchyReader{R: f}, ID: p.ID, Size: p.Size, Sound: func(e packfile.Entry) error { all = append(all, e); return nil }}
		if _, err := sc.Scan(ctx, packfile.HeaderSize); err != nil && !durable.IsDamage(err) {
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
		if k.info.State != packfile.StateOpen || k.info.SavedTo > 0 {
			todo = append(todo, k)
		}
	}
	slices.SortFunc(todo, func(x, y numbered) int { return cmp.Compare(x.no, y.no) })
	for _, f := range b.files {
		if _, ok := b.known[f.ID]; ok || b.running && f.State == packfile.StateOpen {
			continue // an open one may have been made by a session this moment
		}
		todo = append(todo, numbered{no: b.number(), info: catalogue.PackInfo{ID: f.ID, State: f.State}})
	}
	return todo
}

// pack reads one pack. What is wrong with it goes into the report; errors are
// those that would be met with the next pack too.
func (b *builder) pack(ctx context.Context, k numbered) error {
	p := k.info
	f, name, err := openPack(b.dir, p.ID, p.State)
	if err != nil {
		if errors.Is(err, unix.EIO) {
			b.report.Unreadable++
			b.report.name(p.Name())
		}
		if durable.IsDamage(err) {
			return nil
		}
		return err
	}
	defer f.Close()
	size, err := durable.Size(f)
	if err != nil {
		return err
	}
	b.readEpoch(f)
	b.report.Packs++
	p.Seen, p.Size, p.Totals = 0, size, catalogue.Totals{}
	if p.State == packfile.StateSealed {
		err = b.sealed(ctx, &p, k.no, f)
	} else {
		if b.running {
			p.Size = min(size, p.Length)
		}
		err = b.open(ctx, &p, k.no, f)
	}
	if err != nil && (b.failed != nil || !durable.IsDamage(err)) {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	if err != nil {
		b.report.Unreadable++
		b.report.name(name)
	}
	p.Saved = p.Totals
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
func (b *builder) sealed(ctx context.Context, p *catalogue.PackInfo, no uint32, f *os.File) error {
	p.Length, p.SavedTo = p.Size, p.Size
	entries, err := packfile.ReadFooter(f, p.Size, p.ID)
	if err != nil {
		b.report.FootersDamaged++
		b.report.name(p.Name())
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
func (b *builder) open(ctx context.Context, p *catalogue.PackInfo, no uint32, f *os.File) error {
	b.report.OpenPacks++
	res, err := b.records(ctx, p, no, f)
	if p.Length == 0 { // not known before
		p.Length = res.End
	}
	p.SavedTo = p.Length
	return err
}

func (b *builder) records(ctx context.Context, p *catalogue.PackInfo, no uint32, f *os.File) (packfile.ScanResult, error) {
	r := &packfile.PatchyReader{R: f}
	sc := &packfile.Scanner{R: r, ID: p.ID, Size: p.Size, Sound: func(e packfile.Entry) error { return b.add(p, no, e) }}
	res, err := sc.Scan(ctx, packfile.HeaderSize)
	if r.Bad > 0 {
		b.report.Unreadable++
	}
	b.report.RecordsDamaged += res.Damaged
	b.report.BytesSkipped += res.Skipped
	if res.Damaged > 0 {
		b.report.name(p.Name())
	}
	return res, err
}

func (b *builder) add(p *catalogue.PackInfo, no uint32, e packfile.Entry) error {
	p.Add(e.Record)
	if e.Claim {
		b.claiming[no] = true
		return nil
	}
	l := catalogue.Locate(no, e)
	if b.damaged(place{p.ID, e.Off}, e.Key.ID) {
		l.Flags |= catalogue.FlagBad
	}
	return b.learn(e.Key, l, b.spill)
}

// learn notes where a chunk lies. full is called when that has become much.
func (b *builder) learn(k chunkstore.Key, l catalogue.Location, full func() error) error {
	b.report.Chunks++
	b.found = append(b.found, catalogue.Held{Key: k, Location: l})
	if len(b.found) < b.batch {
		return nil
	}
	return full()
}

// spill writes down what has been found, in order.
func (b *builder) spill() error {
	b.sort()
	b.failed = b.runs.Add(b.found)
	b.found = b.found[:0]
	return b.failed
}

// sort brings what has been found in order, each chunk once.
func (b *builder) sort() {
	slices.SortFunc(b.found, catalogue.Held.Compare)
	all := len(b.found)
	b.found = slices.CompactFunc(b.found, func(x, y catalogue.Held) bool { return x.Key == y.Key })
	b.again(all - len(b.found))
}

// again takes further copies of chunks out of the count.
func (b *builder) again(copies int) {
	b.report.Chunks -= uint64(copies)
	b.report.Duplicates += uint64(copies)
}

// fill brings all that was found into the catalogue, which is empty.
func (b *builder) fill(ctx context.Context) error {
	if b.runs.Empty() {
		return b.commit(catalogue.Changes{Ordered: true, Packs: b.built})
	}
	if err := b.spill(); err != nil {
		return err
	}
	var last chunkstore.Key
	err := b.runs.Merge(func(h catalogue.Held) error {
		if h.Key == last {
			b.again(1)
			return nil
		}
		last = h.Key
		if b.found = append(b.found, h); len(b.found) < b.batch {
			return nil
		}
		return errors.Join(b.commit(catalogue.Changes{Ordered: true}), ctx.Err())
	})
	if err != nil {
		return err
	}
	return b.commit(catalogue.Changes{Ordered: true, Packs: b.built})
}

// flush brings claims that have been found into the catalogue, among what is there.
func (b *builder) flush() error { return b.commit(catalogue.Changes{Merge: true}) }

// commit brings what has been found into the catalogue.
func (b *builder) commit(ch catalogue.Changes) error {
	b.sort()
	ch.Epoch, ch.Chunks = b.epoch, b.found
	copies, err := b.cat.Commit(ch)
	if err != nil {
		return err
	}
	b.again(int(copies))
	b.found = b.found[:0]
	return nil
}
