package catalogue

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
)

const (
	// SumName is the file with the checksum of a catalogue that nobody writes to.
	SumName = "catalogue.sum"
	sumMax  = 1 << 10 // of the file of that name, in bytes
	// sumSizeMax is the largest catalogue that gets a checksum when it is
	// closed: reading it takes a fraction of a second.
	sumSizeMax = 256 << 20
	// walkSizeMax is the largest catalogue without a checksum that is walked
	// when it is opened, which takes a few seconds at most. Above it damage is
	// found when a value is read.
	walkSizeMax = 512 << 20
	// sumBuffer is how much of a catalogue is read at a time, in bytes. Most
	// catalogues are small, and memory that is touched for the first time costs a
	// short command more than the reading.
	sumBuffer = 64 << 10
)

// catalogueSum is the content of catalogue.sum. It stands beside the catalogue
// only while nobody writes to it.
type catalogueSum struct {
	Size int64  `json:"size"`   // bytes
	CRC  uint32 `json:"crc32c"` // of the whole file
}

// fileSum reads a file to its end.
func fileSum(path string) (catalogueSum, error) {
	f, err := durable.Open(path)
	if err != nil {
		return catalogueSum{}, err
	}
	defer f.Close()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, sumBuffer))
	return catalogueSum{Size: n, CRC: h.Sum32()}, err
}

// WriteSum makes the checksum of a catalogue that has just been closed.
func WriteSum(d durable.Door, dir string) error {
	path := filepath.Join(dir, FileName)
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("checksum of the catalogue: %w", err)
	}
	if st.Size() > sumSizeMax {
		return nil
	}
	s, err := fileSum(path)
	if err != nil {
		return fmt.Errorf("checksum of the catalogue: %w", err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("checksum of the catalogue: %w", err)
	}
	to := filepath.Join(dir, SumName)
	return d.Do("write", to, func() error { return durable.WriteFile(to, append(b, '\n'), 0o640) })
}

// RemoveSum must come before the first write to a catalogue.
func RemoveSum(d durable.Door, dir string) error {
	path := filepath.Join(dir, SumName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return d.Do("remove", path, func() error { return durable.Remove(path) })
}

// checkCatalogue decides whether the catalogue in dir may be opened: by its
// checksum if it has one, else by walking it. Doubt is ErrDoubt.
func checkCatalogue(dir string) error {
	path := filepath.Join(dir, FileName)
	f, err := durable.Open(path)
	if errors.Is(err, chunkstore.ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrDoubt, err)
	}
	if err != nil {
		return fmt.Errorf("open catalogue: %w", err)
	}
	defer f.Close()
	size, err := durable.Size(f)
	if err != nil {
		return fmt.Errorf("open catalogue: %w", err)
	}
	b, err := durable.ReadFile(filepath.Join(dir, SumName), sumMax)
	if err == nil {
		return compareSum(path, b, size)
	}
	if size > walkSizeMax {
		return nil
	}
	return checkBolt(f, size)
}

func compareSum(path string, text []byte, size int64) error {
	var want catalogueSum
	if err := json.Unmarshal(text, &want); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDoubt, SumName, err)
	}
	if want.Size != size {
		return fmt.Errorf("%w: %d bytes, %s says %d", ErrDoubt, size, SumName, want.Size)
	}
	got, err := fileSum(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDoubt, err)
	}
	if got != want {
		return fmt.Errorf("%w: its bytes are not those that %s was made for", ErrDoubt, SumName)
	}
	return nil
}

// Open checks the catalogue of a store and opens it. A missing one is
// fs.ErrNotExist, a doubtful one ErrDoubt.
func Open(dir string, readOnly bool) (*File, error) {
	if err := checkCatalogue(dir); err != nil {
		return nil, err
	}
	return OpenFile(filepath.Join(dir, FileName), readOnly, false)
}

// Create makes the catalogue of a store through a temporary file:
// bbolt's own creation could leave half of its first pages behind.
func Create(d durable.Door, dir string, fill func(*File) error) error {
	tmp := filepath.Join(dir, "."+FileName+".tmp-new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make catalogue: %w", err)
	}
	if err := fillCatalogue(tmp, fill); err != nil {
		return errors.Join(err, durable.IgnoreMissing(os.Remove(tmp)))
	}
	// A checksum of the old file must not meet the new one.
	if err := RemoveSum(d, dir); err != nil {
		return errors.Join(err, durable.IgnoreMissing(os.Remove(tmp)))
	}
	path := filepath.Join(dir, FileName)
	return d.Do("rename", path, func() error { return durable.Rename(tmp, path) })
}

func fillCatalogue(tmp string, fill func(*File) error) error {
	c, err := OpenFile(tmp, false, true)
	if err != nil {
		return fmt.Errorf("make catalogue: %w", err)
	}
	if err = c.format(); err == nil && fill != nil {
		err = fill(c)
	}
	if err == nil {
		err = c.guard(c.db.Sync)
	}
	err = errors.Join(err, c.Close())
	switch {
	case err == nil:
		return nil
	case durable.IsFull(err):
		return fmt.Errorf("make catalogue: %w: %w", chunkstore.ErrNoSpace, err)
	}
	return fmt.Errorf("make catalogue: %w", err)
}
