package datastore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// ErrFileSystem is wrapped by the error about a file system that a store cannot
// be on.
var ErrFileSystem = wire.ErrFileSystem

// probeName has what the names in a store have: a colon, as the times of
// snapshots, and letters of both cases. It is as long as the longest names that
// are not the user's choice.
const probeName = "2026-11-22T02:00:00Z_Probe.of-the_file.system.img.didx.tmp-0123456789abcdef"

// probe tries in a directory what a store asks of a file system, and leaves
// nothing there. What is wrong with it is ErrFileSystem; that there is no room
// is not for it to tell.
func probe(dir string) error {
	var random [8]byte
	rand.Read(random[:])
	place := filepath.Join(dir, ".probe-"+hex.EncodeToString(random[:]))
	if err := os.Mkdir(place, 0o700); err != nil {
		return forgiveFull(err)
	}
	err := errors.Join(probeNames(place), probeRename(place), probeLocks(place))
	return errors.Join(forgiveFull(err), os.RemoveAll(place))
}

// probeNames looks whether names are kept as they are given. It is the part of
// the probe that is quick enough for every opening.
func (s *Store) probeNames() error {
	place := filepath.Join(s.path, tempDir, ".probe")
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	return errors.Join(probeNames(place), os.RemoveAll(place))
}

// forgiveFull drops an error that says that there is no room.
func forgiveFull(err error) error {
	if errors.Is(noSpace(err), chunkstore.ErrNoSpace) {
		return nil
	}
	return err
}

// unfit says what is wrong, and with which file system.
func unfit(dir string, err error, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if err == nil {
		return fmt.Errorf("%s: %s: %w", filepath.Dir(dir), text, ErrFileSystem)
	}
	return fmt.Errorf("%s: %s (%w): %w", filepath.Dir(dir), text, err, ErrFileSystem)
}

// probeNames makes a file and looks for it under its name and another one.
func probeNames(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, probeName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(noSpace(err), chunkstore.ErrNoSpace), errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
		return err
	case err != nil:
		return unfit(dir, err, `names with ":", as snapshots have, or of %d characters cannot be made there`, len(probeName))
	}
	if err := f.Close(); err != nil {
		return err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(names, func(n fs.DirEntry) bool { return n.Name() == probeName }) {
		return unfit(dir, nil, "it changes names, as to lower case, and snapshots would not be found again; mount it without that")
	}
	switch _, err = os.Lstat(filepath.Join(dir, strings.ToLower(probeName))); {
	case err == nil:
		return unfit(dir, nil, "it does not tell capital letters from small ones, and machines whose names differ in that would be taken for one; mount it so that it does")
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// probeRename moves a file over another one, and a directory with what is in
// it.
func probeRename(dir string) error {
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	if err := errors.Join(os.WriteFile(before, []byte("new"), 0o600), os.WriteFile(after, []byte("old"), 0o600)); err != nil {
		return err
	}
	if err := os.Rename(before, after); err != nil {
		return unfit(dir, err, "a file cannot be replaced by renaming another one")
	}
	if got, err := os.ReadFile(after); err != nil || string(got) != "new" {
		return unfit(dir, err, "a file that was renamed over another one is not there")
	}
	to := filepath.Join(dir, "moved")
	if err := os.MkdirAll(filepath.Join(dir, "dir", "snapshot"), 0o700); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, "dir", "snapshot"), to); err != nil {
		return unfit(dir, err, "a directory cannot be renamed")
	}
	return nil
}

// probeLocks locks a file twice.
func probeLocks(dir string) error {
	name := filepath.Join(dir, "lock")
	first, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := os.OpenFile(name, os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer second.Close()
	if err := unix.Flock(int(first.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return unfit(dir, err, "files cannot be locked there, and two programs could write at once")
	}
	if err := unix.Flock(int(second.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return unfit(dir, err, "a lock there keeps nobody out, and two programs could write at once")
	}
	return nil
}

// foldedTime reads the name of a snapshot on a file system that shows it in
// small letters and finds it under its own name all the same: what was copied
// there can be read.
func (s *Store) foldedTime(g wire.Group, name string) (int64, error) {
	t, err := wire.ParseTime(strings.ToUpper(name))
	if err != nil {
		return 0, err
	}
	there, err := s.there(wire.Snapshot{Group: g, Time: t})
	if err == nil && !there {
		err = fmt.Errorf("%q: %w", name, chunkstore.ErrNotExist)
	}
	return t, err
}
