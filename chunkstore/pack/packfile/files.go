package packfile

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The two extensions of a pack, and the one of a file that looked like a pack
// but held no record when its store was recovered; it is never read again.
const (
	OpenExt   = ".open"
	SealedExt = ".pack"
	BadExt    = ".bad"
)

// State is what a pack's extension says; it is stored in the catalogue.
type State uint32

// The states of a pack.
const (
	StateOpen   State = 1 // it grows
	StateSealed State = 2 // it never changes again
)

// Ext is the extension of a pack in that state, with its dot.
func (st State) Ext() string {
	if st == StateSealed {
		return SealedExt
	}
	return OpenExt
}

// File is a pack as the directory shows it.
type File struct {
	ID    ID
	State State
	Size  int64
}

// Name is the name of the file in the directory of packs.
func (p File) Name() string { return p.ID.String() + p.State.Ext() }

// ParseName reads the name of a pack file.
func ParseName(name string) (File, bool) {
	var p File
	base, ext := name[:max(0, len(name)-len(OpenExt))], filepath.Ext(name)
	switch ext {
	case OpenExt:
		p.State = StateOpen
	case SealedExt:
		p.State = StateSealed
	default:
		return p, false
	}
	if len(base) != 2*len(p.ID) || strings.ToLower(base) != base {
		return p, false
	}
	_, err := hex.Decode(p.ID[:], []byte(base))
	return p, err == nil
}

// List reads the directory of packs. Names that are not packs are passed
// over; of a pack that is there under both names the sealed one counts. The
// result is sorted by id.
func List(dir string) ([]File, error) {
	des, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	packs := make([]File, 0, len(des))
	for _, de := range des {
		p, ok := ParseName(de.Name())
		if !ok {
			continue
		}
		st, err := os.Lstat(filepath.Join(dir, de.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // renamed or removed since the directory was read
		}
		if err != nil {
			return nil, fmt.Errorf("list packs: %w", err)
		}
		if !st.Mode().IsRegular() {
			continue
		}
		p.Size = st.Size()
		packs = append(packs, p)
	}
	slices.SortFunc(packs, func(a, b File) int {
		return cmp.Or(slices.Compare(a.ID[:], b.ID[:]), cmp.Compare(b.State, a.State))
	})
	return slices.CompactFunc(packs, func(a, b File) bool { return a.ID == b.ID }), nil
}
