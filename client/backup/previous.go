package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore/image"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// cutsKey is where a manifest's unprotected part says how each archive was cut.
// Nothing depends on its being true: a lie costs deduplication.
const cutsKey = "holdfast-cuts"

// previous is the snapshot a backup is compared with.
type previous struct {
	reader   wire.Reader
	manifest *manifest.Manifest
	cuts     map[string]string
}

// openPrevious returns the group's newest snapshot if its chunks can be used
// again, or nil and, if that is worth telling, the reason.
func openPrevious(ctx context.Context, sess wire.Session, o *Options) (*previous, string, error) {
	r, err := sess.Previous(ctx)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	p := &previous{reader: r}
	why, err := p.load(ctx, o)
	if err != nil || why != "" {
		return nil, why, errors.Join(err, r.Close())
	}
	return p, "", nil
}

// load reads the manifest; why says that the snapshot cannot be compared with.
func (p *previous) load(ctx context.Context, o *Options) (why string, err error) {
	name := p.reader.Snapshot()
	unusable := func(err error) (string, error) {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return fmt.Sprintf("the previous snapshot %s is not compared with: %v", name, err), nil
	}
	raw, err := p.reader.Blob(ctx, wire.ManifestName)
	if err != nil {
		return unusable(err)
	}
	if p.manifest, err = manifest.Open(raw); err != nil {
		return unusable(err)
	}
	image.Bound(p.reader, p.manifest)
	_, keyed, err := p.manifest.KeyFingerprint()
	if err != nil {
		return unusable(err)
	}
	if o.Mode != crypto.ModeNone && keyed {
		if err := p.manifest.Verify(o.Key); err != nil {
			return unusable(err)
		}
	}
	if raw, ok := p.manifest.Unprotected[cutsKey]; ok {
		if json.Unmarshal(raw, &p.cuts) != nil {
			p.cuts = nil
		}
	}
	return "", nil
}

// index opens the previous index of an archive, checked against the manifest,
// or returns nil if there is none that could be used.
func (p *previous) index(ctx context.Context, name string, mode crypto.Mode) (*index.Reader, error) {
	if p == nil {
		return nil, nil
	}
	f, err := p.manifest.Lookup(name)
	if err != nil || f.Name != name {
		return nil, nil
	}
	if (f.CryptMode == crypto.ModeEncrypt) != (mode == crypto.ModeEncrypt) {
		return nil, nil // chunks of the two kinds have different names
	}
	r, err := p.reader.Index(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("previous snapshot %s: %w", p.reader.Snapshot(), err)
	}
	sum, err := r.Summary()
	if err == nil && (sum.Csum != f.Csum || sum.Size != f.Size) {
		err = fmt.Errorf("%s is not what its manifest says: %w", name, chunkstore.ErrCorrupt)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("previous snapshot %s: %w", p.reader.Snapshot(), err), r.Close())
	}
	return r, nil
}

// cutLike reports whether an archive was cut the way name says.
func (p *previous) cutLike(archive, name string) bool {
	return p != nil && p.cuts[archive] == name
}

func (p *previous) close() error {
	if p == nil {
		return nil
	}
	return p.reader.Close()
}
