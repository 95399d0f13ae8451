package pack

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
)

// epochSize is the length of the epoch file: all of them are equally long, so
// that one can be written over another on a full disk.
const epochSize = 128

// epoch is what the file of that name holds: who opened the store for writing
// last. A writer that finds another token there has lost the store, whatever
// its lock says.
type epoch struct {
	Number uint64 `json:"epoch"`
	Token  string `json:"token"` // random
	// Clean says that this writer has closed the store and left nothing that
	// is not in the catalogue.
	Clean bool `json:"clean"`
}

func epochPath(dir string) string { return filepath.Join(dir, "epoch") }

// readEpoch reads the file. One that is missing or damaged is an error.
func readEpoch(dir string) (epoch, error) {
	f, err := durable.Open(epochPath(dir))
	if err != nil {
		return epoch{}, fmt.Errorf("read epoch: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4*epochSize))
	if err != nil {
		return epoch{}, fmt.Errorf("read epoch: %w", err)
	}
	var e epoch
	if err := json.Unmarshal(b, &e); err != nil || e.Token == "" {
		return epoch{}, fmt.Errorf("read epoch %s: %w", f.Name(), chunkstore.ErrCorrupt)
	}
	return e, nil
}

// nextEpoch is the epoch of a writer that follows one of this number.
func nextEpoch(number uint64) (epoch, error) {
	var token [16]byte
	if _, err := rand.Read(token[:]); err != nil {
		return epoch{}, fmt.Errorf("make epoch: %w", err)
	}
	return epoch{Number: number + 1, Token: fmt.Sprintf("%x", token)}, nil
}

// write makes e the epoch of the store. When there is no room for a new file,
// the old one is written over: opening for writing must work on a full disk,
// or else nothing could be removed from it. A torn epoch file is harmless, it
// only makes the next start look at the packs.
func (e epoch) write(d durable.Door, dir string) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write epoch: %w", err)
	}
	b = append(b, bytes.Repeat([]byte(" "), max(0, epochSize-1-len(b)))...)
	b = append(b, '\n')
	path := epochPath(dir)
	err = d.Do("write", path, func() error { return durable.WriteFile(path, b, 0o640) })
	if errors.Is(err, chunkstore.ErrNoSpace) {
		full := err
		err = d.Do("overwrite", path, func() error { return overwrite(path, b) })
		if errors.Is(err, fs.ErrNotExist) {
			return full // a store is being made
		}
		return err
	}
	return err
}

func overwrite(path string, b []byte) error {
	f, err := durable.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// check returns ErrFenced if somebody else has opened the store for writing
// since e was written.
func (e epoch) check(dir string) error {
	now, err := readEpoch(dir)
	if err != nil {
		return fmt.Errorf("check that the store is still ours: %w", err)
	}
	if now.Token != e.Token {
		return fmt.Errorf("store %s: %w in epoch %d, ours was %d", dir, chunkstore.ErrFenced, now.Number, e.Number)
	}
	return nil
}
