// Package backup is the way in: it takes images and small files through
//
//	source → cut → name → ask → seal → prove → send → record → finish
//
// and returns only when the snapshot is complete and durable, or does not exist.
//
//   - cut.go, fixed.go: where chunks begin and end; cut.go also compares with the
//     previous snapshot's boundaries (replay.go), so that unchanged parts are
//     hashed and not cut.
//   - send.go: name, ask (settled.go), seal, prove, send; parallel, with bounded
//     memory.
//   - image.go: the regions of an image through both, recorded in order.
//   - blobs.go: small files, the wrapped key, the manifest.
//
// The content of an image decides its chunks, together with the key; whether
// there was a previous snapshot, holes in the file, or how many cores worked on
// it does not.
//
// Memory is bounded by what newSender says, by the window that the session asks
// for (64 MiB if the target is a server), and by 40 bytes for each known chunk.
package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"holdfast/chunkstore/blob"
	"holdfast/chunkstore/chunker"
	"holdfast/client/pipeline"
	"holdfast/crypto"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// job is one backup under way.
type job struct {
	Options
	codec    *blob.Codec
	session  wire.Session
	prev     *previous
	send     *sender
	pol      chunker.Polynomial
	params   chunker.Params
	manifest *manifest.Manifest
	cuts     map[string]string
	report   Report
}

// Run makes one snapshot. When it returns an error no snapshot of that name
// exists that was not there before.
func Run(ctx context.Context, o Options) (Report, error) {
	start := time.Now()
	if err := o.prepare(); err != nil {
		return Report{}, err
	}
	inputs, err := openInputs(&o)
	if err != nil {
		return Report{}, err
	}
	defer inputs.close()
	j, err := newJob(&o)
	if err != nil {
		return Report{}, err
	}
	if err := j.run(ctx, inputs); err != nil {
		return Report{}, err
	}
	j.report.Duration = time.Since(start)
	return j.report, nil
}

// prepare fills in defaults and refuses what cannot be done.
func (o *Options) prepare() error {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	if o.region == 0 {
		o.region = regionSize
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Mode != crypto.ModeNone && o.Key == nil {
		return fmt.Errorf("crypt mode %s: %w", o.Mode, crypto.ErrNoKey)
	}
	if o.Mode == crypto.ModeNone {
		o.Key, o.Master = nil, nil
	}
	if len(o.Archives) == 0 {
		return fmt.Errorf("nothing to back up: %w", wire.ErrName)
	}
	return checkArchives(o)
}

// checkArchives refuses names that meet in the snapshot, and a second reader of
// standard input.
func checkArchives(o *Options) error {
	seen, stdin := make(map[string]bool), false
	for _, a := range o.Archives {
		if seen[a.Name] {
			return fmt.Errorf("archive %s is given twice: %w", a.Name, wire.ErrName)
		}
		seen[a.Name] = true
		if a.Path != "-" {
			continue
		}
		if stdin {
			return fmt.Errorf("archive %s: standard input is read by another archive already: %w", a.Name, wire.ErrName)
		}
		if o.Fixed && a.isImage() {
			return fmt.Errorf("archive %s: fixed chunks need to know the size, and standard input has none; leave out --chunking fixed: %w", a.Name, wire.ErrName)
		}
		stdin = true
	}
	return nil
}

func newJob(o *Options) (*job, error) {
	j := &job{Options: *o, params: chunker.Default(), pol: chunker.Public, cuts: make(map[string]string)}
	encrypt := o.Mode == crypto.ModeEncrypt
	var err error
	if j.codec, err = blob.NewCodec(blob.Options{Key: o.Key, Encrypt: encrypt, Workers: o.Workers}); err != nil {
		return nil, err
	}
	if encrypt {
		stream, err := o.Key.Stream("holdfast chunker polynomial v1")
		if err != nil {
			return nil, err
		}
		if j.pol, err = chunker.Derive(stream); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// run writes the snapshot: archives in the order given, the wrapped key, the
// manifest, finish.
func (j *job) run(ctx context.Context, inputs *inputs) (err error) {
	if err = j.begin(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.session.Close()) }()
	var why string
	if j.prev, why, err = openPrevious(ctx, j.session, &j.Options); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.prev.close()) }()
	if why != "" {
		j.report.Warnings = append(j.report.Warnings, why)
	}
	if j.prev != nil {
		j.report.Previous = j.prev.reader.Snapshot().String()
	}
	if err := j.openSender(ctx); err != nil {
		return err
	}
	for i, a := range j.Archives {
		if err := j.archive(ctx, a, inputs.list[i]); err != nil {
			return fmt.Errorf("back up %s: %w", a.Name, err)
		}
	}
	if err := j.wrappedKey(ctx); err != nil {
		return err
	}
	return j.finish(ctx)
}

// beginTries is how often a snapshot that is made now asks for its place. More
// than two are for clocks of two machines that differ by a second; a group from
// further in the future is not waited for.
const beginTries = 3

// begin opens the session.
func (j *job) begin(ctx context.Context) (err error) {
	j.session, err = j.Target.Begin(ctx, j.Snapshot)
	for try := 1; j.TimeIsNow && try < beginTries && errors.Is(err, wire.ErrExists); try++ {
		if err := waitSecond(ctx, j.Now()); err != nil {
			return err
		}
		j.Snapshot.Time = j.Now().Unix()
		j.session, err = j.Target.Begin(ctx, j.Snapshot)
	}
	if err != nil {
		return err
	}
	s := j.Snapshot
	j.manifest = &manifest.Manifest{Type: s.Group.Type, ID: s.Group.ID, Time: s.Time}
	j.report.Snapshot = s
	return nil
}

// waitSecond waits for the next full second of the clock that shows now.
func waitSecond(ctx context.Context, now time.Time) error {
	t := time.NewTimer(now.Truncate(time.Second).Add(time.Second).Sub(now))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// openSender makes the way to the target ready, as the session has it. Without
// what an interrupted backup had sent there is only more to send.
func (j *job) openSender(ctx context.Context) error {
	j.send = newSender(j.codec, j.Workers, j.cutters(), j.plainMax())
	j.send.progress = j.Progress
	j.send.asker, _ = j.session.(wire.Asker)
	if w, ok := j.session.(windowed); ok {
		j.send.window = pipeline.NewWindow(w.Window())
	}
	r, ok := j.session.(wire.Resumer)
	if !ok {
		return nil
	}
	list, err := r.Resume(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		j.report.Warnings = append(j.report.Warnings, fmt.Sprintf("what an interrupted backup had sent is sent again: %v", err))
		return nil
	}
	j.send.known.addSizes(list)
	return nil
}

// plainMax is the size of the largest data chunk, in bytes.
func (j *job) plainMax() int {
	if j.Fixed {
		return fixedSize
	}
	return j.params.Max
}

// cutters is how many goroutines read and cut: one more than there are
// workers, so that the end of one region does not hold up the next.
func (j *job) cutters() int { return j.Workers + 1 }

func (j *job) archive(ctx context.Context, a Archive, in input) error {
	if in.small {
		return j.file(ctx, a.Name+".blob", in.content)
	}
	return j.image(ctx, a, in)
}

// image backs up one image, from its previous state if there is one.
func (j *job) image(ctx context.Context, a Archive, in input) (err error) {
	to := &archive{name: a.Name + ".didx", summer: index.NewSummer(index.Dynamic)}
	if j.Fixed {
		to = &archive{name: a.Name + ".fidx", summer: index.NewSummer(index.Fixed)}
	}
	prev, err := j.prev.index(ctx, to.name, j.Mode)
	if err != nil {
		j.report.Warnings = append(j.report.Warnings, err.Error())
		prev = nil
	}
	r := &imageRun{in: in, to: to, send: j.send, fixed: j.Fixed, pol: j.pol, params: j.params, region: j.region, cutters: j.cutters()}
	if prev != nil {
		defer prev.Close()
		if err := j.send.known.addIndex(prev); err != nil {
			return err
		}
		if j.prev.cutLike(to.name, cutName(j.params, j.region)) {
			r.prev = prev
		}
	}
	if to.writer, err = j.session.Create(ctx, to.name, in.size); err != nil {
		return err
	}
	if err := r.run(ctx); err != nil {
		return err
	}
	if in.img != nil {
		if err := in.img.Verify(); err != nil {
			return err
		}
	}
	return j.record(ctx, to)
}

// record closes an archive's index and enters it into manifest and report.
func (j *job) record(ctx context.Context, to *archive) error {
	sum := to.summer.Summary()
	if err := to.writer.Close(ctx, sum); err != nil {
		return err
	}
	if !j.Fixed {
		j.cuts[to.name] = cutName(j.params, j.region)
	}
	j.manifest.Files = append(j.manifest.Files, manifest.File{Name: to.name, CryptMode: j.Mode, Size: sum.Size, Csum: sum.Csum})
	j.add(ArchiveReport{
		Name: to.name, Size: int64(sum.Size), Chunks: to.chunks.Load(), NewChunks: to.newChunks.Load(),
		NewBytes: to.newBytes.Load(), StoredBytes: to.storedBytes.Load(),
	})
	return nil
}

// add enters one archive into the report.
func (j *job) add(a ArchiveReport) {
	j.report.Archives = append(j.report.Archives, a)
	j.report.BytesTotal += a.Size
	j.report.BytesNew += a.NewBytes
	j.report.BytesStored += a.StoredBytes
	j.report.BytesRead = j.Progress.Read.Load()
}

// finish writes the manifest and makes the snapshot exist.
func (j *job) finish(ctx context.Context) error {
	j.manifest.Unprotected = map[string]json.RawMessage{}
	if len(j.cuts) > 0 {
		raw, err := json.Marshal(j.cuts)
		if err != nil {
			return fmt.Errorf("encode manifest: %w", err)
		}
		j.manifest.Unprotected[cutsKey] = raw
	}
	if j.Mode != crypto.ModeNone {
		if err := j.origin(ctx); err != nil {
			return err
		}
		if err := j.manifest.Sign(j.Key); err != nil {
			return fmt.Errorf("sign manifest: %w", err)
		}
	}
	raw, err := j.manifest.Blob()
	if err != nil {
		return err
	}
	if err := j.session.Blob(ctx, wire.ManifestName, raw); err != nil {
		return err
	}
	return j.session.Finish(ctx)
}
