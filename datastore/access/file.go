package access

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
)

// The file is a bbolt file with a bucket for each kind of entry. Keys are
// names, values the JSON of the entries as Export writes them. Bucket meta
// holds the version of the layout and the secret behind tickets.
const (
	bucketMeta   = "meta"
	bucketUsers  = "users"
	bucketTokens = "tokens"
	bucketACLs   = "acls"
	bucketStores = "datastores"
	bucketQuotas = "quotas"

	keyVersion  = "version"
	keySecret   = "ticket-secret"
	fileVersion = "1"

	fileMode = 0o600
	// allocSize is by how much the file grows; bbolt's own 16 MiB would be
	// most of it.
	allocSize = 64 << 10
)

var buckets = []string{bucketMeta, bucketUsers, bucketTokens, bucketACLs, bucketStores, bucketQuotas}

// row names one value in the file.
type row struct{ bucket, key string }

func (r row) compare(q row) int {
	return cmp.Or(cmp.Compare(r.bucket, q.bucket), cmp.Compare(r.key, q.key))
}

// file is the open bbolt file. Its methods are not safe for concurrent use.
type file struct {
	db     *bbolt.DB
	handle *os.File
	broken error // why nothing more is written, nil while all is well
	frozen error // why it could only be opened for reading, nil if it was not
}

// openFile opens the file and makes it with the rows given if it is not there.
func openFile(path string, wait time.Duration, fresh map[row]string) (*file, error) {
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		if err := createFile(path, fresh); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	f, err := openBolt(path, wait, false)
	if errors.Is(err, syscall.EROFS) {
		// Who may do what can be read there.
		frozen := err
		if f, err = openBolt(path, wait, true); err == nil {
			f.frozen = frozen
		}
	}
	if err != nil {
		return nil, err
	}
	// Whatever was restored from somewhere may have come with a mode that
	// lets others read the hashes.
	if err := f.handle.Chmod(fileMode); err != nil && f.frozen == nil {
		_ = f.close()
		return nil, err
	}
	return f, nil
}

// createFile makes a complete file under a temporary name and gives it its
// name with a link, which unlike a rename never replaces a file that another
// process has made and opened in the meantime.
func createFile(path string, rows map[row]string) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".access.tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "new")
	f, err := openBolt(temp, 0, false)
	if err != nil {
		return err
	}
	err = f.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyVersion), []byte(fileVersion))
	})
	if err = errors.Join(cmp.Or(err, f.save(nil, rows)), f.close()); err != nil {
		return err
	}
	if err := os.Link(temp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// openBolt opens or makes a bbolt file.
func openBolt(path string, wait time.Duration, readOnly bool) (*file, error) {
	f := &file{}
	o := &bbolt.Options{
		Timeout:      max(wait, 1), // bbolt waits for ever if it is 0
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
		ReadOnly:     readOnly,
		OpenFile: func(name string, flag int, mode fs.FileMode) (h *os.File, err error) {
			f.handle, err = durable.OpenFile(name, flag, mode)
			return f.handle, err
		},
	}
	err := f.guard(func() (err error) {
		f.db, err = bbolt.Open(path, fileMode, o)
		return err
	})
	switch {
	case err == nil:
		f.db.AllocSize = allocSize
		return f, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%w by another process", chunkstore.ErrLocked)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%w: %w", chunkstore.ErrCorrupt, err)
	}
	return nil, err
}

// guard runs fn, which touches the mapped file. A page that cannot be read or
// makes no sense becomes chunkstore.ErrCorrupt; after that bbolt's locks are in
// an unknown state, and the file is given up.
func (f *file) guard(fn func() error) (err error) {
	if f.broken != nil {
		return f.broken
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", chunkstore.ErrCorrupt, r)
			f.broken = err
			_ = f.handle.Close() // drops the lock; bbolt cannot do it any more
		}
	}()
	return fn()
}

// close releases the file.
func (f *file) close() error {
	if f.db == nil || errors.Is(f.broken, chunkstore.ErrCorrupt) {
		return nil
	}
	db := f.db
	f.db, f.broken = nil, fmt.Errorf("access file: %w", fs.ErrClosed)
	if err := db.Close(); err != nil {
		return fmt.Errorf("close access file: %w", err)
	}
	return nil
}

// save writes the difference between two sets of rows in one transaction.
// After a failed write nobody knows what the medium holds, so nothing more is
// written until the file is opened anew; a full disk is told before that.
func (f *file) save(old, next map[row]string) error {
	if f.broken != nil {
		return f.broken
	}
	if f.frozen != nil {
		return fmt.Errorf("write access file: %w: %w", chunkstore.ErrReadOnly, f.frozen)
	}
	err := f.guard(func() error {
		return f.db.Update(func(tx *bbolt.Tx) error { return saveRows(tx, old, next) })
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("write access file: %w: %w", chunkstore.ErrNoSpace, err)
	case f.broken == nil:
		f.broken = fmt.Errorf("access file: %w until it is opened anew, after an error: %w", chunkstore.ErrReadOnly, err)
	}
	return fmt.Errorf("write access file: %w", err)
}

func saveRows(tx *bbolt.Tx, old, next map[row]string) error {
	for r := range old {
		if _, ok := next[r]; ok {
			continue
		}
		if err := tx.Bucket([]byte(r.bucket)).Delete([]byte(r.key)); err != nil {
			return err
		}
	}
	for r, v := range next {
		if old[r] == v {
			continue
		}
		if err := tx.Bucket([]byte(r.bucket)).Put([]byte(r.key), []byte(v)); err != nil {
			return err
		}
	}
	return nil
}

// load reads the whole file. chunkstore.ErrCorrupt is returned for anything
// that this package has not written, chunkstore.ErrInvalid for a newer layout.
func (f *file) load() (*config, error) {
	var d document
	var version string
	err := f.guard(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			for _, name := range buckets {
				if tx.Bucket([]byte(name)) == nil {
					return fmt.Errorf("bucket %s is missing", name)
				}
			}
			version = string(tx.Bucket([]byte(bucketMeta)).Get([]byte(keyVersion)))
			if version != fileVersion {
				return nil
			}
			return d.load(tx)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", chunkstore.ErrCorrupt, err)
	}
	if version != fileVersion {
		return nil, fmt.Errorf("layout %.20q, this program knows %s: %w", version, fileVersion, chunkstore.ErrInvalid)
	}
	c, err := d.config()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", chunkstore.ErrCorrupt, err)
	}
	return c, nil
}

// load reads the rows of a transaction.
func (d *document) load(tx *bbolt.Tx) error {
	if err := decodeStrict(tx.Bucket([]byte(bucketMeta)).Get([]byte(keySecret)), &d.Secret); err != nil {
		return errors.New("the secret of tickets makes no sense")
	}
	return errors.Join(
		loadRows(tx, bucketUsers, &d.Users, userRecord.name),
		loadRows(tx, bucketTokens, &d.Tokens, tokenRecord.name),
		loadRows(tx, bucketACLs, &d.ACLs, ACL.rowKey),
		loadRows(tx, bucketStores, &d.Datastores, func(s Datastore) string { return s.Name }),
		loadRows(tx, bucketQuotas, &d.Quotas, func(q Quota) string { return q.Subject }),
	)
}

// loadRows reads one bucket and compares each key with the entry under it.
func loadRows[T any](tx *bbolt.Tx, bucket string, l *entries[T], key func(T) string) error {
	return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
		var e T
		if err := decodeStrict(v, &e); err != nil || key(e) != string(k) {
			return fmt.Errorf("entry %.100q of %s makes no sense", k, bucket)
		}
		*l = append(*l, e)
		return nil
	})
}

// decodeStrict reads one JSON value and nothing else.
func decodeStrict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if strings.TrimSpace(string(b[dec.InputOffset():])) != "" {
		return errors.New("something follows the value")
	}
	return nil
}
