package task

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// entry is a task that has ended.
type entry struct {
	upid   wire.UPID
	end    int64 // Unix seconds
	status string
	log    int64 // bytes
}

// holding is what is kept for one user or token.
type holding struct {
	tasks int
	bytes int64
}

func compareEnds(a, b *entry) int {
	if c := cmp.Compare(a.end, b.end); c != 0 {
		return c
	}
	return compareUPIDs(a.upid, b.upid)
}

func compareUPIDs(a, b wire.UPID) int {
	if c := cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.TaskID, b.TaskID)); c != 0 {
		return c
	}
	return strings.Compare(a.String(), b.String())
}

// indexName is the file of the index.
const indexName = "index"

// indexSlack is how many lines an index may have beyond twice what it must
// before it is rewritten.
const indexSlack = 64

// indexFile is the index as it lies on the disk.
type indexFile struct {
	f      *os.File // nil if it could not be written yet
	size   int64
	lines  int
	stale  bool // something is missing in it: rewrite it when there is room
	closed bool
}

func (x *indexFile) close() error {
	x.closed = true
	if x.f == nil {
		return nil
	}
	err := x.f.Close()
	x.f = nil
	return err
}

// append notes what has just been changed in memory. An index that cannot be
// written is made good later.
func (r *Registry) append(rec record) {
	x := &r.index
	most := 2*(len(r.ended)+len(r.running)) + indexSlack
	if x.f == nil || x.stale || x.lines >= most {
		x.stale = r.rewrite() != nil
		if !x.stale {
			return
		}
	}
	if x.f == nil {
		return
	}
	line := rec.encode()
	if _, err := x.f.WriteAt([]byte(line), x.size); err != nil {
		x.stale = true
		_ = x.f.Truncate(x.size)
		return
	}
	x.size += int64(len(line))
	x.lines++
}

// rewrite replaces the index by one that says what is in memory.
func (r *Registry) rewrite() error {
	var b bytes.Buffer
	for _, e := range r.ended {
		b.WriteString(record{upid: e.upid, ended: true, end: e.end, status: e.status}.encode())
	}
	for u := range r.running {
		b.WriteString(record{upid: u}.encode())
	}
	name := filepath.Join(r.dir, indexName)
	if err := durable.WriteFile(name, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write the index: %w", err)
	}
	f, err := durable.OpenFile(name, os.O_RDWR, 0)
	if r.index.f != nil {
		r.index.f.Close() // it is the old file, which has no name any more
	}
	r.index = indexFile{f: f, size: int64(b.Len()), lines: len(r.ended) + len(r.running)}
	if err != nil {
		r.index.f = nil
		return fmt.Errorf("open the index: %w", err)
	}
	return nil
}

// add takes in a task that has ended.
func (r *Registry) add(e *entry) {
	r.ended = append(r.ended, e)
	r.known[e.upid] = e
	r.hold(e, 1)
}

// hold counts an entry for its owner, or no more.
func (r *Registry) hold(e *entry, sign int) {
	h := r.held[e.upid.Auth]
	h.tasks += sign
	h.bytes += int64(sign) * e.log
	if h == (holding{}) {
		delete(r.held, e.upid.Auth)
		return
	}
	r.held[e.upid.Auth] = h
}

// bytes are those of the logs of all tasks that have ended.
func (r *Registry) bytes() (n int64) {
	for _, h := range r.held {
		n += h.bytes
	}
	return n
}

// rotate forgets tasks that are too many, and their logs: the oldest of whoever has
// most, so that nobody pushes out what others have done. A log that cannot be removed
// now is found at the next Open.
func (r *Registry) rotate() {
	for len(r.ended) > r.limits.ended {
		r.forget(func(h holding) int64 { return int64(h.tasks) })
	}
	for r.limits.logs > 0 && len(r.ended) > 1 && r.bytes() > r.limits.logs {
		r.forget(func(h holding) int64 { return h.bytes })
	}
}

// forget forgets the oldest task of the user that has most, of its tokens the one
// that has most.
func (r *Registry) forget(amount func(holding) int64) {
	users := make(map[wire.AuthID]int64)
	for id, h := range r.held {
		users[id.User()] += amount(h)
	}
	var most wire.AuthID
	for id, h := range r.held {
		a, b := users[id.User()], users[most.User()]
		switch c := cmp.Or(cmp.Compare(a, b), cmp.Compare(amount(h), amount(r.held[most])), cmp.Compare(most, id)); {
		case most == "" || c > 0:
			most = id
		}
	}
	i := slices.IndexFunc(r.ended, func(e *entry) bool { return e.upid.Auth == most })
	if i < 0 {
		i = 0
	}
	e := r.ended[i]
	_ = r.root.Remove(logName(e.upid))
	delete(r.known, e.upid)
	r.hold(e, -1)
	r.ended = slices.Delete(r.ended, i, i+1)
}

// load reads the index, finds the tasks that it does not know or that have no
// end in it, and leaves an index that says it all.
func (r *Registry) load() error {
	c, err := r.loadIndex()
	if err != nil {
		return err
	}
	for _, e := range c.ended {
		if st, err := r.root.Stat(logName(e.upid)); err == nil {
			e.log = st.Size()
		}
		r.add(e)
	}
	lost, err := r.lost(c)
	if err != nil {
		return err
	}
	for _, u := range lost {
		r.add(r.recover(u))
	}
	slices.SortStableFunc(r.ended, compareEnds)
	r.rotate()
	if err := r.rewrite(); err != nil && !takesNothing(err) {
		return err
	}
	return nil
}

func (r *Registry) loadIndex() (*contents, error) {
	f, err := durable.OpenIn(r.root, indexName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, chunkstore.ErrCorrupt) {
		return readIndex(strings.NewReader(""), r.limits.ended)
	}
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	defer f.Close()
	return readIndex(f, r.limits.ended)
}

// lost lists the tasks that began and did not end as far as the index knows,
// in no order, and tidies up what a process that died has left.
func (r *Registry) lost(c *contents) ([]wire.UPID, error) {
	top, err := durable.ReadDirIn(r.root, ".")
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for u := range c.open {
		names[logName(u)] = true
	}
	for _, e := range c.ended {
		names[logName(e.upid)] = true
	}
	for _, e := range top {
		if durable.IsTemp(e.Name()) {
			_ = r.root.Remove(e.Name())
		}
		if !e.IsDir() || len(e.Name()) != 2 {
			continue
		}
		logs, err := durable.ReadDirIn(r.root, e.Name())
		if err != nil {
			return nil, err
		}
		for _, l := range logs {
			name := path.Join(e.Name(), l.Name())
			if strings.HasPrefix(l.Name(), logPrefix) && !names[name] {
				r.strayLog(name, c)
			}
		}
	}
	var lost []wire.UPID
	for u := range c.open {
		lost = append(lost, u)
	}
	return lost, nil
}

// strayLog adds the task of a log that the index does not know to those that
// have no end in it. A log whose name does not tell its UPID is removed: nobody
// could ask for it.
func (r *Registry) strayLog(name string, c *contents) {
	u, err := wire.ParseUPID(path.Base(name))
	if err != nil || logName(u) != name || len(c.open) >= 2*r.limits.ended {
		_ = r.root.Remove(name)
		return
	}
	c.open[u] = true
}

// recover makes out from its log how a task has ended.
func (r *Registry) recover(u wire.UPID) *entry {
	e := &entry{upid: u, end: u.Start, status: statusUnknown}
	f, err := durable.OpenIn(r.root, logName(u))
	if err != nil {
		return e
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return e
	}
	e.end, e.log = max(e.end, st.ModTime().Unix()), st.Size()
	tail := make([]byte, min(st.Size(), 2*messageMax))
	if _, err := f.ReadAt(tail, st.Size()-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return e
	}
	if end, status, ok := lastState(tail); ok {
		e.end, e.status = end, status
	}
	return e
}
