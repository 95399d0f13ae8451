package server

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/datastore"
	"holdfast/datastore/image"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/server/body"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
)

// clientLog is the only file that may be added to a finished snapshot.
const clientLog = "client.log.blob"

func hashed(what, s string) string {
	sum := sha256.Sum256([]byte(what + "\x00" + s))
	return hex.EncodeToString(sum[:])
}

// heavy waits for a place among those that hold much memory. Nobody who has one waits
// for a caller.
func (c *call) heavy() (done func(), err error) {
	hold, err := budget.TakeWithin(c.Context(), c.server.accounts.Heavy, c.payer, c.server.o.Limits.BodyTimeout)
	if err != nil {
		return nil, err
	}
	return hold.Free, nil
}

// stream writes an answer of unknown length. An error in the middle cuts the
// connection, so that the caller cannot take a part for the whole.
func (c *call) stream(send func(io.Writer) error) error {
	begun := &began{Writer: c.ResponseWriter, ask: c.ask}
	err := send(begun)
	if err == nil {
		return rest.ErrAnswered
	}
	if !begun.yes {
		h := c.ResponseWriter.Header()
		h.Del("Content-Type")
		h.Del("Content-Disposition")
		return err
	}
	c.log.Warn("transfer broken off", "error", err)
	panic(http.ErrAbortHandler)
}

// began notes whether anything was written, and asks now and then whether more of it
// may be.
type began struct {
	io.Writer
	ask  func() error // nil if there is nothing to ask
	yes  bool
	left int // bytes that may be written until then
}

// askEvery is how much of a transfer somebody gets, in bytes, before it is asked again
// whether he may have it.
const askEvery = 1 << 20

// Write implements io.Writer.
func (b *began) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 && b.ask != nil {
		if err := b.ask(); err != nil {
			return 0, err
		}
		b.left = askEvery
	}
	b.yes = true
	return b.Writer.Write(p)
}

// reading opens the snapshot that the call names, for its owner and for who may
// read everything.
func (c *call) reading() (*openStore, wire.Reader, error) {
	st, err := c.forGroup()
	if err != nil {
		return nil, nil, err
	}
	c.ask = func() error {
		return c.grantOn(c.Namespace()).ask(st, c.Group())
	}
	r, err := st.Open(c.Context(), c.Snapshot())
	return st, r, err
}

func (c *call) octets() { c.ResponseWriter.Header().Set("Content-Type", "application/octet-stream") }

func download(c *call) (any, error) {
	_, r, err := c.reading()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	name := c.Str("file-name")
	if kind, err := wire.CheckFileName(name); err != nil || kind != wire.Blob {
		return nil, c.downloadIndex(r, name)
	}
	return nil, c.deliver(func() ([]byte, error) {
		sealed, err := r.Blob(c.Context(), name)
		if err != nil {
			return nil, fmt.Errorf("file open failed: %w", err)
		}
		return sealed, nil
	})
}

// deliver sends what is made at a heavy place.
func (c *call) deliver(make func() ([]byte, error)) error {
	c.octets()
	out := c.server.host.keep.NewOutbox(c.payer, c.heavy)
	defer out.Close()
	return c.stream(func(w io.Writer) error { return out.Send(w, make) })
}

// downloadIndex sends an index file as it is stored.
func (c *call) downloadIndex(r wire.Reader, name string) error {
	open, err := c.server.accounts.Files.Try(c.payer, 1)
	if err != nil {
		return err
	}
	defer open.Free()
	x, err := r.Index(c.Context(), name)
	if err != nil {
		return fmt.Errorf("file open failed: %w", err)
	}
	defer x.Close()
	c.octets()
	return c.stream(func(w io.Writer) error {
		_, err := io.Copy(w, x.Raw())
		return err
	})
}

func downloadDecoded(c *call) (any, error) {
	_, r, err := c.reading()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	name := c.Str("file-name")
	if name == wire.ManifestName || name == clientLog {
		return nil, c.deliver(func() ([]byte, error) {
			sealed, err := r.Blob(c.Context(), name)
			if err != nil {
				return nil, err
			}
			return decoded(name, sealed)
		})
	}
	m, err := image.OpenManifest(c.Context(), r, image.Trust{})
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(m.Files, func(f manifest.File) bool { return f.Name == name })
	if i < 0 {
		return nil, rest.Refuse(chunkstore.ErrNotExist, "file '%s' is not in the manifest", name)
	}
	f := m.Files[i]
	if kind, err := wire.CheckFileName(name); err != nil || kind == wire.Blob {
		return nil, c.deliver(func() ([]byte, error) {
			sealed, err := image.CheckBlob(c.Context(), r, f)
			if err != nil {
				return nil, err
			}
			return decoded(name, sealed)
		})
	}
	open, err := c.server.accounts.Files.Try(c.payer, 1)
	if err != nil {
		return nil, err
	}
	defer open.Free()
	x, err := image.Open(c.Context(), image.Options{Reader: r, File: f, Workers: 1})
	if err != nil {
		return nil, err
	}
	defer x.Close()
	c.octets()
	out := c.server.host.keep.NewOutbox(c.payer, c.heavy)
	defer out.Close()
	return nil, c.stream(func(w io.Writer) error { return c.image(w, out, x) })
}

// decoded is the content of a blob. It is no larger than that of a chunk: whoever has
// larger ones must decode them at home, not in the memory here.
func decoded(name string, raw chunkstore.Blob) ([]byte, error) {
	codec, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		return nil, err
	}
	plain, err := codec.Decode(nil, raw, chunkstore.PlainSizeMax)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	return plain, nil
}

// image sends an archive, chunk by chunk.
func (c *call) image(w io.Writer, o *body.Outbox, x *image.Image) error {
	return eachEntry(x.Index(), func(e index.Entry) error {
		return o.Send(w, func() ([]byte, error) {
			plain, err := x.Chunk(c.Context(), e, nil)
			return plain, err
		})
	})
}

func eachEntry(x *index.Reader, do func(index.Entry) error) error {
	for e, err := range x.All(0) {
		if err != nil {
			return err
		}
		if err := do(e); err != nil {
			return err
		}
	}
	return nil
}

// mayLog lets pass who may add a log to a snapshot: the owner of its group.
func (c *call) mayLog() (*openStore, error) {
	if _, err := c.here(); err != nil {
		return nil, err
	}
	st, err := c.writable()
	if err != nil {
		return nil, err
	}
	return st, c.owned(st, c.Group())
}

// uploadLog adds the log of a client to a finished snapshot.
func uploadLog(c *call) (any, error) {
	st, err := c.mayLog()
	if err != nil {
		return nil, err
	}
	if c.ContentLength > chunkstore.BlobSizeMax {
		return nil, rest.ErrBodyTooLarge
	}
	body, err := c.server.host.keep.Gather(c.Context(), c.payer, c.Body, chunkstore.BlobSizeMax)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	// What was allowed when the body began may not be when it has come.
	if err := c.still(); err != nil {
		return nil, err
	}
	if _, err := c.mayLog(); err != nil {
		return nil, err
	}
	done, err := c.heavy()
	if err != nil {
		return nil, err
	}
	defer done()
	raw, err := body.Load()
	if err != nil {
		return nil, err
	}
	if _, err := blob.Check(chunkstore.Blob(raw)); err != nil {
		return nil, fmt.Errorf("log of %s: %w", c.Snapshot(), err)
	}
	quota, err := c.server.reserve(c, false)
	if err != nil {
		return nil, err
	}
	if err = quota.Charge(max(0, int64(len(raw))-datastore.FileBytes)); err == nil {
		err = c.guarded(st).AddLog(c.Context(), c.Snapshot(), chunkstore.Blob(raw))
	}
	quota.End(err == nil)
	if errors.Is(err, wire.ErrExists) {
		return nil, rest.Refuse(wire.ErrExists, "backup already contains a log.")
	}
	return nil, err
}
