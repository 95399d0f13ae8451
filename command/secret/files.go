package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"holdfast/chunkstore/durable"
	"holdfast/command/term"
	"holdfast/crypto"
)

// FileSizeMax caps what is read as a key file or PEM file, in bytes.
const FileSizeMax = 64 << 10

// ReadSmall reads a file of at most keyFileSizeMax bytes.
func ReadSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, FileSizeMax+1))
	if err != nil {
		return nil, err
	}
	if len(b) > FileSizeMax {
		return nil, fmt.Errorf("%s is larger than %d bytes: %w", path, FileSizeMax, crypto.ErrFormat)
	}
	return b, nil
}

// WriteNew writes a file that must not exist yet, durably. On error nothing
// is left of it.
func WriteNew(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return existsAlready(path)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

// Absent makes sure that nothing is at path before work is done for it.
func Absent(path string) error {
	_, err := os.Lstat(path)
	if err == nil {
		return existsAlready(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func existsAlready(path string) error {
	return term.Hintf(fmt.Errorf("%s is not overwritten: %w", path, fs.ErrExist), "choose another name, or move the old file away")
}
