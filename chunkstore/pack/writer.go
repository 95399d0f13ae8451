package pack

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// writer is a pack open for writing. It belongs to one session at a time, or
// to the store while it is idle or being sealed.
type writer struct {
	disk durable.Door
	no   uint32
	id   packfile.ID
	f    *os.File
	path string
	// header is the file header as it stands in the file.
	header []byte

	// The owner's: the records of the pack, and where the next one goes.
	entries []packfile.Entry
	end     int64

	mu     sync.Mutex // guards all below; held while syncing and sealing
	isNew  bool       // the directory has not been synced since the file was made
	closed bool
	lost   error // of an fsync; the next one would say that all is well
}

// createWriter makes a new pack with a random id. Its file is synced with its
// first records.
func createWriter(d durable.Door, dir string, epoch uint64) (*writer, error) {
	w := &writer{disk: d, isNew: true, end: packfile.HeaderSize}
	if _, err := rand.Read(w.id[:]); err != nil {
		return nil, fmt.Errorf("create pack: %w", err)
	}
	w.path = filepath.Join(dir, w.id.String()+packfile.OpenExt)
	w.header = packfile.EncodeHeader(w.id, epoch)
	err := d.Do("create", w.path, func() (err error) {
		w.f, err = durable.OpenFile(w.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
		return err
	})
	if err == nil {
		err = d.Do("write", w.path, func() error {
			_, err := w.f.WriteAt(w.header, 0)
			return err
		})
	}
	if err != nil {
		if w.f != nil {
			err = errors.Join(err, w.f.Close(), durable.IgnoreMissing(os.Remove(w.path)))
		}
		return nil, err
	}
	return w, nil
}

// reopenWriter goes on with a pack that an earlier session has left. Its
// records must reach exactly to length: anything else is an error, and the
// pack is better left alone.
func reopenWriter(d durable.Door, dir string, p catalogue.PackInfo) (*writer, error) {
	w := &writer{disk: d, id: p.ID, path: filepath.Join(dir, p.ID.String()+packfile.OpenExt), header: make([]byte, packfile.HeaderSize)}
	var err error
	if w.f, err = durable.OpenFile(w.path, os.O_RDWR, 0); err != nil {
		return nil, fmt.Errorf("continue pack: %w", err)
	}
	if err = w.load(p.Length); err != nil {
		return nil, errors.Join(fmt.Errorf("continue pack %s: %w", w.path, err), w.f.Close())
	}
	return w, nil
}

func (w *writer) load(length int64) error {
	size, err := durable.Size(w.f)
	if err != nil {
		return err
	}
	if size != length {
		return fmt.Errorf("%w: %d bytes, want %d", chunkstore.ErrCorrupt, size, length)
	}
	if _, err := w.f.ReadAt(w.header, 0); err != nil {
		return err
	}
	if id, _, err := packfile.DecodeHeader(w.header); err != nil || id != w.id {
		return fmt.Errorf("%w: file header: %w", chunkstore.ErrCorrupt, err)
	}
	b := make([]byte, packfile.RecordSize)
	for w.end = packfile.HeaderSize; w.end < length; {
		if _, err := w.f.ReadAt(b, w.end); err != nil {
			return err
		}
		r, err := packfile.DecodeRecord(b, w.id)
		if err != nil {
			return fmt.Errorf("%w: at %d: %w", chunkstore.ErrCorrupt, w.end, err)
		}
		w.entries = append(w.entries, packfile.Entry{Record: r, Off: w.end})
		w.end += r.Size()
	}
	if w.end != length {
		return fmt.Errorf("%w: last record ends at %d", chunkstore.ErrCorrupt, w.end)
	}
	return nil
}

// full reports whether the pack is to be sealed.
func (w *writer) full(packSize int64) bool {
	return w.end >= packSize || len(w.entries) >= packfile.RecordCountMax
}

// append writes a record. After ErrNoSpace the pack is as it was before; after
// any other error it must not be used again.
func (w *writer) append(r packfile.Record, blob []byte) (packfile.Entry, error) {
	e := packfile.Entry{Record: r, Off: w.end}
	head := packfile.EncodeRecord(r, w.id)
	err := w.disk.Do("write", w.path, func() error {
		if _, err := w.f.WriteAt(head, e.Off); err != nil {
			return err
		}
		if r.Claim {
			return nil
		}
		_, err := w.f.WriteAt(blob, e.Off+packfile.RecordSize)
		return err
	})
	if err != nil {
		// Should this fail too, the next record or the seal goes over what
		// the torn one has left, and recovery cuts it off.
		return packfile.Entry{}, w.cutBack(err)
	}
	w.end = e.End()
	w.entries = append(w.entries, e)
	return e, nil
}

// sync makes the first upTo bytes of the pack durable. A pack that has been
// cut short or removed under us is an error.
func (w *writer) sync(upTo int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil // sealed, and with that synced, in the meantime
	}
	if err := w.fsync(); err != nil {
		return err
	}
	if err := w.stillThere(upTo); err != nil {
		return err
	}
	if !w.isNew {
		return nil
	}
	dir := filepath.Dir(w.path)
	if err := w.disk.Do("syncdir", dir, func() error { return durable.SyncDir(dir) }); err != nil {
		return w.lose(err)
	}
	w.isNew = false
	return nil
}

// fsync is called with mu held. It is never tried again after an error: whoever comes
// next, a session that syncs what another has let go or a seal, gets the same one.
func (w *writer) fsync() error {
	if w.lost != nil {
		return w.lost
	}
	if err := w.disk.Do("sync", w.path, w.f.Sync); err != nil {
		return w.lose(err)
	}
	return nil
}

// lose remembers the error of an fsync. It is called with mu held.
func (w *writer) lose(err error) error {
	w.lost = fmt.Errorf("%w: %w", durable.ErrLost, err)
	return w.lost
}

func (w *writer) stillThere(upTo int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(w.f.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", w.path, err)
	}
	if st.Nlink == 0 || st.Size < upTo {
		return fmt.Errorf("pack %s: removed or cut short while it was being written: %w", filepath.Base(w.path), chunkstore.ErrCorrupt)
	}
	return nil
}

// seal ends the pack: table and trailer, fsync, the name of a sealed pack. It
// returns the size of the file. After ErrNoSpace the pack is as it was before.
func (w *writer) seal() (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.writeFooter(); err != nil {
		return 0, err
	}
	if err := w.disk.Do("chmod", w.path, func() error { return durable.Chmod(w.f, 0o444) }); err != nil {
		return 0, err
	}
	if err := w.fsync(); err != nil {
		return 0, err
	}
	size, err := durable.Size(w.f)
	if err != nil {
		return 0, err
	}
	sealed := filepath.Join(filepath.Dir(w.path), w.id.String()+packfile.SealedExt)
	if err := w.disk.Do("rename", w.path, func() error { return durable.Rename(w.path, sealed) }); err != nil {
		return 0, w.lose(err)
	}
	w.closed = true
	return size, w.f.Close()
}

func (w *writer) writeFooter() error {
	footer := packfile.EncodeFooter(w.header, w.entries, w.end)
	size, err := durable.Size(w.f)
	if err != nil {
		return err
	}
	if size != w.end {
		if err := w.disk.Do("truncate", w.path, func() error { return w.f.Truncate(w.end) }); err != nil {
			return err
		}
	}
	err = w.disk.Do("write", w.path, func() error {
		_, err := w.f.WriteAt(footer, w.end)
		return err
	})
	if err == nil {
		return nil
	}
	return w.cutBack(err)
}

// cutBack removes what a failed write has left behind the last record. cause,
// the error of that write, decides what happens next, not one met here.
func (w *writer) cutBack(cause error) error {
	if err := w.disk.Do("truncate", w.path, func() error { return w.f.Truncate(w.end) }); err != nil {
		return fmt.Errorf("%w (then %v)", cause, err)
	}
	return cause
}

// close gives the file back without sealing the pack.
func (w *writer) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return w.f.Close()
}
