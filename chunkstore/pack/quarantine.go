package pack

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// The quarantine is the list of records that were found damaged. The catalogue
// has a mark on each of them too, but it is built anew from the tables of the
// packs, which do not know what has become of the records since; so the list is
// kept in a file beside it. It is a hint: a list that is lost only means that
// the next scrub has to find the damage again. Integers are little-endian.
//
//	 0  magic    8   first bytes of SHA-256("Holdfast quarantine v1")
//	 8  version  u32 1
//	12  count    u32
//	16  entries  48 bytes each: pack id 8, offset u64, chunk id 32
//	    CRC      u32 CRC-32C over all bytes before it
const (
	quarantineName    = "quarantine"
	quarantineMagic   = "\x0e\x64\x04\x87\x00\x78\x7a\xa6"
	quarantineVersion = 1
	quarantineHeader  = 16
	quarantineEntry   = 48
	quarantineCRC     = 4
	// quarantineMax bounds the list; what is found beyond it is marked in the
	// catalogue only.
	quarantineMax = 1 << 18
)

// place is where a record lies, by names that outlive the catalogue.
type place struct {
	pack packfile.ID
	off  int64
}

// quarantine is the list in memory, guarded by Store.mu.
type quarantine struct {
	bad     map[place]chunkstore.ID
	changed bool // differs from the file
}

// load reads the list of a store. One that is missing or damaged is empty.
func (q *quarantine) load(dir string) {
	q.bad = make(map[place]chunkstore.ID)
	f, err := durable.Open(filepath.Join(dir, quarantineName))
	if err != nil {
		return
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, quarantineHeader+quarantineMax*quarantineEntry+quarantineCRC+1))
	if err != nil {
		return
	}
	if list, err := decodeQuarantine(b); err == nil {
		q.bad = list
	}
}

func (q *quarantine) set(at place, id chunkstore.ID, bad bool) {
	_, was := q.bad[at]
	switch {
	case bad && !was && len(q.bad) < quarantineMax:
		q.bad[at] = id
	case !bad && was:
		delete(q.bad, at)
	default:
		return
	}
	q.changed = true
}

func (q *quarantine) has(at place) bool {
	_, bad := q.bad[at]
	return bad
}

// dropPack forgets the records of a pack that is gone.
func (q *quarantine) dropPack(id packfile.ID) {
	before := len(q.bad)
	maps.DeleteFunc(q.bad, func(at place, _ chunkstore.ID) bool { return at.pack == id })
	q.changed = q.changed || len(q.bad) != before
}

func encodeQuarantine(bad map[place]chunkstore.ID) []byte {
	places := slices.SortedFunc(maps.Keys(bad), func(a, b place) int {
		return cmp.Or(bytes.Compare(a.pack[:], b.pack[:]), cmp.Compare(a.off, b.off))
	})
	b := make([]byte, 0, quarantineHeader+len(places)*quarantineEntry+quarantineCRC)
	b = append(b, quarantineMagic...)
	b = binary.LittleEndian.AppendUint32(b, quarantineVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(places)))
	for _, at := range places {
		id := bad[at]
		b = append(b, at.pack[:]...)
		b = binary.LittleEndian.AppendUint64(b, uint64(at.off))
		b = append(b, id[:]...)
	}
	return binary.LittleEndian.AppendUint32(b, packfile.CRC(b))
}

// errQuarantine is returned for a list that cannot be trusted.
var errQuarantine = errors.New("quarantine: damaged")

func decodeQuarantine(b []byte) (map[place]chunkstore.ID, error) {
	if len(b) < quarantineHeader+quarantineCRC || string(b[:8]) != quarantineMagic {
		return nil, errQuarantine
	}
	body, count := b[:len(b)-quarantineCRC], int(binary.LittleEndian.Uint32(b[12:]))
	if count > quarantineMax || len(body) != quarantineHeader+count*quarantineEntry ||
		binary.LittleEndian.Uint32(b[8:]) != quarantineVersion || binary.LittleEndian.Uint32(b[len(body):]) != packfile.CRC(body) {
		return nil, errQuarantine
	}
	bad := make(map[place]chunkstore.ID, count)
	for e := range slices.Chunk(body[quarantineHeader:], quarantineEntry) {
		off := binary.LittleEndian.Uint64(e[8:])
		if off > packfile.OffsetMax {
			return nil, errQuarantine
		}
		bad[place{packfile.ID(e[:8]), int64(off)}] = chunkstore.ID(e[16:])
	}
	return bad, nil
}

// isQuarantined reports whether the record of a chunk was found damaged.
func (s *Store) isQuarantined(at place, id chunkstore.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	bad, ok := s.quarantine.bad[at]
	return ok && bad == id
}

// setQuarantine notes what was found out about a record. s.mu is held.
func (s *Store) setQuarantine(at catalogue.Spot, id chunkstore.ID, bad bool) {
	p := s.packs[at.Pack]
	s.quarantine.set(place{p.ID, at.Off}, id, bad)
	if bad && p.Checked != 0 {
		p.Checked = 0
		s.stamped[at.Pack] = true
	}
}

// saveQuarantine writes the list if it has changed. A full disk is no error:
// the marks are in the catalogue, and the next commit tries again. commitLock
// is held.
func (s *Store) saveQuarantine() error {
	s.mu.Lock()
	if !s.quarantine.changed {
		s.mu.Unlock()
		return nil
	}
	s.quarantine.changed = false
	b := encodeQuarantine(s.quarantine.bad)
	s.mu.Unlock()
	path := filepath.Join(s.dir, quarantineName)
	err := s.disk.Do("write", path, func() error { return durable.WriteFile(path, b, 0o640) })
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quarantine.changed = true
	if errors.Is(err, chunkstore.ErrNoSpace) {
		return nil
	}
	return err
}
