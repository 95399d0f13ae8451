package pack

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
	openExt   = ".open"
	sealedExt = ".pack"
	badExt    = ".bad"
)

// packState is what a pack's extension says; it is stored in the catalogue.
type packState uint32

const (
	stateOpen   packState = 1
	stateSealed packState = 2
)

func (st packState) ext() string {
	if st == stateSealed {
		return sealedExt
	}
	return openExt
}

// packFile is a pack as the directory shows it.
type packFile struct {
	id    packID
	state packState
	size  int64
}

func (p packFile) name() string { return p.id.String() + p.state.ext() }

// parsePackName reads the name of a pack file.
func parsePackName(name string) (packFile, bool) {
	var p packFile
	base, ext := name[:max(0, len(name)-len(openExt))], filepath.Ext(name)
	switch ext {
	case openExt:
		p.state = stateOpen
	case sealedExt:
		p.state = stateSealed
	default:
		return p, false
	}
	if len(base) != 2*len(p.id) || strings.ToLower(base) != base {
		return p, false
	}
	_, err := hex.Decode(p.id[:], []byte(base))
	return p, err == nil
}

// listPacks reads the directory of packs. Names that are not packs are passed
// over; of a pack that is there under both names the sealed one counts. The
// result is sorted by id.
func listPacks(dir string) ([]packFile, error) {
	des, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	packs := make([]packFile, 0, len(des))
	for _, de := range des {
		p, ok := parsePackName(de.Name())
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
		p.size = st.Size()
		packs = append(packs, p)
	}
	slices.SortFunc(packs, func(a, b packFile) int {
		return cmp.Or(slices.Compare(a.id[:], b.id[:]), cmp.Compare(b.state, a.state))
	})
	return slices.CompactFunc(packs, func(a, b packFile) bool { return a.id == b.id }), nil
}
