package datastore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/crypto"
	"holdfast/datastore/wire"
)

// A resume list names the chunks that a session has received, so that the next
// one of the same group and owner need not get them again if this one ends
// unfinished. It is a help and no more: what it says is looked up before it is
// believed, and losing it costs only time. It is good until the next collection
// (DropUnfinished): until then everything is there that it names, and afterwards
// what is there of it would tell what others have.
//
//	magic 16 | group 16 | owner 16 | records of wire.ChunkSize
//
// In the size of an encrypted chunk the highest bit is set.
//
// group and owner are first bytes of SHA-256 sums, the latter one half of the
// user's and one half of the owner's, and make its name. It lies in the session's directory while the session runs and in .resume
// between sessions.
const (
	resumeMagic  = "holdfast resume3"
	resumeKeyLen = 32
	resumeHead   = len(resumeMagic) + resumeKeyLen
	// resumeMax is how much of a list is kept and read, in bytes.
	resumeMax = 64 << 20
	// resumeEncrypted is the bit in a size that tells the class.
	resumeEncrypted = 1 << 31
)

// resumeKey is what a list is filed under.
type resumeKey [resumeKeyLen]byte

func newResumeKey(g wire.Group, owner wire.AuthID) (k resumeKey) {
	// No part can hold a line feed.
	group := crypto.Sum([]byte(string(g.NS) + "\n" + g.Type + "\n" + g.ID))
	user, whole := crypto.Sum([]byte(owner.User())), crypto.Sum([]byte(owner))
	copy(k[:resumeKeyLen/2], group[:])
	copy(k[resumeKeyLen/2:resumeKeyLen*3/4], user[:])
	copy(k[resumeKeyLen*3/4:], whole[:])
	return k
}

// group is what the names of all lists of a group begin with.
func (k resumeKey) group() string { return hex.EncodeToString(k[:resumeKeyLen/2]) + "-" }

func (k resumeKey) path() string {
	return path.Join(resumeDir, k.group()+hex.EncodeToString(k[resumeKeyLen/2:]))
}

// decodeResume reads a list as it may lie there after a crash: it ends before
// the first record that makes no sense. Sizes are within the limits of the
// format, nothing else is known of the records. ok is false if it is no list.
func decodeResume(raw []byte) (key resumeKey, list []chunkstore.Ref, ok bool) {
	if len(raw) < resumeHead || string(raw[:len(resumeMagic)]) != resumeMagic {
		return key, nil, false
	}
	copy(key[:], raw[len(resumeMagic):])
	return key, decodeResumedAll(raw[resumeHead:]), true
}

// decodeResumedAll reads records, up to the first that makes no sense.
func decodeResumedAll(raw []byte) []chunkstore.Ref {
	list := make([]chunkstore.Ref, 0, len(raw)/wire.ChunkSizeLen)
	for ; len(raw) >= wire.ChunkSizeLen; raw = raw[wire.ChunkSizeLen:] {
		ref, ok := decodeResumed(raw[:wire.ChunkSizeLen])
		if !ok {
			break
		}
		list = append(list, ref)
	}
	return list
}

// decodeResumed reads one record.
func decodeResumed(raw []byte) (ref chunkstore.Ref, ok bool) {
	const sizeOff = wire.ChunkSizeLen - 4
	b := bytes.Clone(raw)
	size := binary.LittleEndian.Uint32(b[sizeOff:])
	if size&resumeEncrypted != 0 {
		ref.Class = chunkstore.ClassEncrypted
	}
	binary.LittleEndian.PutUint32(b[sizeOff:], size&^resumeEncrypted)
	one, err := wire.ParseChunkSizes(b)
	if err != nil {
		return ref, false
	}
	ref.ID, ref.Size = one[0].ID, one[0].Size
	return ref, true
}

// appendResumed appends one record to b.
func appendResumed(b []byte, ref chunkstore.Ref) []byte {
	size := ref.Size
	if ref.Class == chunkstore.ClassEncrypted {
		size |= resumeEncrypted
	}
	return wire.ChunkSize{ID: ref.ID, Size: size}.Append(b)
}

// resumeList is the list of a running session. A nil one records nothing.
type resumeList struct {
	key  resumeKey
	path string // in the session's directory, relative to the store

	mu   sync.Mutex
	file *os.File
	old  int64 // length of what an earlier session left
	size int64
	full bool // or broken: nothing more is recorded
	// closed tells that the session has ended, and the list with it or filed.
	closed bool
	// counted tells that the session counts on all of what was there when it began.
	counted bool
}

// openResume begins a list in a session's directory, with what an unfinished
// session has left.
func (s *Store) openResume(dir string, key resumeKey) (*resumeList, error) {
	s.lists.turn.RLock()
	defer s.lists.turn.RUnlock()
	l := &resumeList{key: key, path: path.Join(dir, resumeName)}
	err := s.root.Rename(key.path(), l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !s.noDir(resumeDir) {
		return nil, err
	}
	l.file, err = durable.OpenFileIn(s.root, l.path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, chunkstore.ErrCorrupt) {
		// No list can be read there; the backup sends everything.
		if err = s.root.RemoveAll(l.path); err == nil {
			l.file, err = durable.OpenFileIn(s.root, l.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := l.load(); err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	s.lists.add(l)
	return l, nil
}

// forget drops what was there when the session began, unless the session counts on it.
func (l *resumeList) forget(s *Store) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.counted || l.old == int64(resumeHead) {
		return nil
	}
	fresh := l.path + "-new"
	f, err := durable.OpenFileIn(s.root, fresh, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = io.Copy(f, io.MultiReader(io.NewSectionReader(l.file, 0, int64(resumeHead)), io.NewSectionReader(l.file, l.old, l.size-l.old)))
	}
	if err == nil {
		err = s.root.Rename(fresh, l.path)
	}
	if err != nil {
		// There is no room for it, perhaps: then all of it is lost.
		l.full, l.old, l.size = true, int64(resumeHead), int64(resumeHead)
		if f != nil {
			_ = f.Close()
		}
		return l.file.Truncate(0)
	}
	_ = l.file.Close()
	l.file, l.size, l.old = f, l.size-l.old+int64(resumeHead), int64(resumeHead)
	return nil
}

// load cuts the list to what can be used, or begins it.
func (l *resumeList) load() error {
	head := append([]byte(resumeMagic), l.key[:]...)
	st, err := l.file.Stat()
	if err != nil {
		return err
	}
	size := min(st.Size(), resumeMax)
	have := make([]byte, len(head))
	if _, err := l.file.ReadAt(have, 0); err != nil || !bytes.Equal(have, head) {
		size = 0
	}
	if size == 0 {
		_, err = l.file.WriteAt(head, 0)
		size = int64(resumeHead)
	}
	size -= (size - int64(resumeHead)) % wire.ChunkSizeLen
	l.old, l.size = size, size
	return errors.Join(err, l.file.Truncate(size))
}

// add records a chunk, unless it is one of metadata: who is told what need not be sent
// is not told for which archives. Not being able to is no reason to fail a backup.
func (l *resumeList) add(c chunkstore.Ref) {
	if l == nil || c.Class.Meta() {
		return
	}
	var buf [wire.ChunkSizeLen]byte
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full = l.full || l.size+wire.ChunkSizeLen > resumeMax; l.full {
		return
	}
	if _, err := l.file.WriteAt(appendResumed(buf[:0], c), l.size); err != nil {
		l.full = true
		return
	}
	l.size += wire.ChunkSizeLen
}

// earlier reads a part of what was there when the session began, from a record on. It
// is empty at the end.
func (l *resumeList) earlier(from int64) ([]chunkstore.Ref, error) {
	if l == nil {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := int64(resumeHead) + from*wire.ChunkSizeLen
	if at >= l.old {
		return nil, nil
	}
	raw := make([]byte, min(l.old-at, resumedAtOnce*wire.ChunkSizeLen))
	if _, err := l.file.ReadAt(raw, at); err != nil {
		return nil, fmt.Errorf("read what an interrupted backup has sent: %w", err)
	}
	return decodeResumedAll(raw), nil
}

// count notes that the session counts on all that was there when it began.
func (l *resumeList) count() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counted = true
}

// close ends the list. If it is to be kept, it is filed for the next session, unless its
// user has left too many. The caller has the lists' turn then.
func (l *resumeList) close(s *Store, keep bool) error {
	if l == nil {
		return nil
	}
	s.lists.remove(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full, l.closed = true, true
	err := l.file.Close()
	if keep && l.size > int64(resumeHead) && s.mayKeep(l.key) {
		err = errors.Join(err, s.fileResume(l.path, l.key))
	}
	return err
}

func (s *Store) fileResume(from string, key resumeKey) error {
	if err := s.root.MkdirAll(resumeDir, 0o700); err != nil {
		return noSpace(err)
	}
	return noSpace(s.root.Rename(from, key.path()))
}

// salvageResume files the list of a session whose process was killed. What is
// no list, or cannot be read, goes the way of the rest of the session.
func (s *Store) salvageResume(dir string) {
	name := path.Join(dir, resumeName)
	if st, err := s.root.Lstat(name); err != nil || !st.Mode().IsRegular() {
		return
	}
	f, err := durable.OpenIn(s.root, name)
	if err != nil {
		return
	}
	defer f.Close()
	head := make([]byte, resumeHead+wire.ChunkSizeLen)
	if _, err := io.ReadFull(f, head); err != nil {
		return
	}
	if key, list, ok := decodeResume(head); ok && len(list) == 1 {
		// The backup starts from nothing if this fails.
		_ = s.fileResume(name, key)
	}
}

// dropResume removes the lists of a group that is no more.
func (s *Store) dropResume(g wire.Group) error {
	names, err := s.readTreeDir(resumeDir)
	if err != nil {
		return fmt.Errorf("list %s: %w", resumeDir, err)
	}
	prefix := newResumeKey(g, "").group()
	for _, n := range names {
		if !strings.HasPrefix(n.Name(), prefix) {
			continue
		}
		if err := s.root.Remove(path.Join(resumeDir, n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a list of %s: %w", resumeDir, err)
		}
	}
	return nil
}

// Resume implements wire.Resumer. Each chunk is listed once.
func (ss *Session) Resume(ctx context.Context) ([]wire.ChunkSize, error) {
	var list []wire.ChunkSize
	err := ss.EachResumed(ctx, func(refs []chunkstore.Ref) error {
		for _, r := range refs {
			list = append(list, wire.ChunkSize{ID: r.ID, Size: r.Size})
		}
		return nil
	})
	slices.SortFunc(list, func(a, b wire.ChunkSize) int {
		return cmp.Or(bytes.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Size, b.Size))
	})
	return slices.Compact(list), err
}

// resumedAtOnce is how many chunks of an interrupted session are looked up at once: more
// are not in memory.
const resumedAtOnce = 2048

// EachResumed visits the chunks of an interrupted session that are still there, with
// their classes, some at a time. The session counts on all of them. One that was sent more
// than once may come more than once. visit must not keep the slice, nor wait for a
// client: a collection waits for its end.
func (ss *Session) EachResumed(ctx context.Context, visit func([]chunkstore.Ref) error) error {
	if err := ss.running(); err != nil {
		return err
	}
	ss.store.lists.turn.RLock()
	defer ss.store.lists.turn.RUnlock()
	err := ss.resume.each(func(list []chunkstore.Ref) error {
		slices.SortFunc(list, func(a, b chunkstore.Ref) int {
			return cmp.Or(bytes.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Class, b.Class))
		})
		list = slices.Compact(list)
		missing, err := ss.HasAll(ctx, list)
		if err != nil {
			return err
		}
		stored := list[:0]
		for i, r := range list {
			if len(missing) > 0 && missing[0] == i {
				missing = missing[1:]
				continue
			}
			stored = append(stored, r)
		}
		return visit(stored)
	})
	if err == nil { // what was not looked up a collection takes, and the list with it
		ss.resume.count()
	}
	return err
}

// EachListed visits what an interrupted session has listed, whether it is still there or
// not, some at a time and in the order of its coming. After EachResumed it stays listed
// as long as the session runs. visit must not keep the slice.
func (ss *Session) EachListed(visit func([]chunkstore.Ref) error) error {
	if err := ss.running(); err != nil {
		return err
	}
	return ss.resume.each(visit)
}

// each visits what was there when the session began, some at a time.
func (l *resumeList) each(visit func([]chunkstore.Ref) error) error {
	for from := int64(0); ; {
		list, err := l.earlier(from)
		if err != nil || len(list) == 0 {
			return err
		}
		from += int64(len(list))
		if err := visit(list); err != nil {
			return err
		}
	}
}
