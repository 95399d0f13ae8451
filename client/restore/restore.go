// Package restore is the way back out of an archive: to a file, a block device
// or a stream.
//
// Chunks are fetched, opened and proven on all cores and written in the order of
// their positions. It promises that every byte it writes was proven against the
// index, the index against the manifest and, with a key, the manifest against
// its signature; that a new file appears under its name only when it is
// complete; that what can be known to fail fails before the first byte; and that
// every error says what state the target is in.
//
//   - target.go: what can be written to, and its state after an error
//   - file.go, device.go, stream.go: the three kinds
//   - naming.go: how a new file gets its name on file systems of all kinds
//   - inuse.go, room.go: who else has a target open, and whether there is room
//   - image.go: an indexed archive onto a target
//   - ahead.go: chunks of a server, asked for before their turn
//
// Memory is bounded by two buffers for each of 2*Workers + 2 chunks and, if the
// source is a server, by the window that it wants to be filled.
package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore/image"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// ErrTarget is wrapped by errors about a target that cannot be written to as
// asked; nothing has been written then.
var ErrTarget = errors.New("target refused")

// Run restores one archive of a snapshot.
func Run(ctx context.Context, o Options) (Report, error) {
	start := time.Now()
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	r, err := o.Source.Open(ctx, o.Snapshot)
	if err != nil {
		return Report{}, fmt.Errorf("open snapshot %s: %w", o.Snapshot, err)
	}
	report, err := restoreFrom(ctx, r, &o)
	if err = errors.Join(err, r.Close()); err != nil {
		return Report{}, err
	}
	report.Duration = time.Since(start)
	return report, nil
}

func restoreFrom(ctx context.Context, r wire.Reader, o *Options) (Report, error) {
	m, err := image.OpenManifest(ctx, r, image.Trust{Key: o.Key, AnyOrigin: o.AnyOrigin})
	if err != nil {
		return Report{}, err
	}
	f, err := m.Lookup(o.Archive)
	if err != nil {
		return Report{}, fmt.Errorf("snapshot %s: %w", o.Snapshot, err)
	}
	if err := checkKey(m, f, o.Key); err != nil {
		return Report{}, err
	}
	kind, err := wire.CheckFileName(f.Name)
	if err != nil {
		return Report{}, err
	}
	report := Report{Archive: f.Name, Signed: o.Key != nil}
	if kind == wire.Blob {
		err := restoreBlob(ctx, r, f, o, &report)
		return report, err
	}
	err = restoreIndexed(ctx, r, f, o, &report)
	return report, err
}

// restoreIndexed writes an archive of chunks. From a server they are asked for
// ahead of their turn, unless most of them may turn out not to be needed.
func restoreIndexed(ctx context.Context, r wire.Reader, f manifest.File, o *Options, report *Report) error {
	var early *ahead
	far, ok := r.(distant)
	if ok && o.Differential {
		o.Workers = max(o.Workers, distantWorkers)
	}
	if ok && !o.Differential {
		early = newAhead(r, far, f.Class())
		r = early
	}
	img, err := image.Open(ctx, image.Options{Reader: r, File: f, Key: o.Key, Workers: o.Workers})
	if err != nil {
		return err
	}
	return errors.Join(restoreImage(ctx, origin{img, early}, o, report), img.Close())
}

// checkKey says which key is missing before anything is opened.
func checkKey(m *manifest.Manifest, f manifest.File, key *crypto.Key) error {
	if f.CryptMode != crypto.ModeEncrypt || key != nil {
		return nil
	}
	fp, ok, err := m.KeyFingerprint()
	if err != nil || !ok {
		return fmt.Errorf("%s is encrypted: %w", f.Name, crypto.ErrNoKey)
	}
	return fmt.Errorf("%s is encrypted with key %s: %w", f.Name, fp.Short(), crypto.ErrNoKey)
}

// restoreBlob writes a small file, which is held whole.
func restoreBlob(ctx context.Context, r wire.Reader, f manifest.File, o *Options, report *Report) error {
	plain, err := image.ReadBlob(ctx, r, f, o.Key)
	if err != nil {
		return err
	}
	report.Size = int64(len(plain))
	o.Progress.Total.Store(report.Size)
	begins := func() ([]byte, error) { return plain, nil }
	t, err := openTarget(o, wanted{size: report.Size, data: report.Size, begins: begins})
	if err != nil {
		return err
	}
	return t.conclude(func() error { return writeBlob(t, plain, o.Progress, report) })
}

func writeBlob(t *guarded, plain chunkstore.Plain, p *Progress, report *Report) error {
	if len(plain) == 0 {
		return nil
	}
	if err := t.writeAt(plain, 0); err != nil {
		return err
	}
	report.BytesWritten = report.Size
	p.Done.Store(report.Size)
	p.Written.Store(report.Size)
	return nil
}
