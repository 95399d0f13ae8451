package backup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"holdfast/chunkstore"
	"holdfast/client/source"
	"holdfast/crypto"
	"holdfast/datastore/manifest"
)

// smallMax is the largest file that can be stored as a blob, in bytes.
const smallMax = chunkstore.PlainSizeMax

// input is where an archive's bytes come from.
type input struct {
	img    source.Image // an image file or device
	stream io.Reader    // or standard input
	size   int64        // of an image in bytes, -1 for standard input

	small   bool // or a small file, or an empty image, as a whole
	content []byte
}

// inputs are the opened archives, in the order of the options.
type inputs struct{ list []input }

// openInputs opens everything that is to be backed up, so that what is missing
// is known before anything is written.
func openInputs(o *Options) (*inputs, error) {
	ins := &inputs{}
	for _, a := range o.Archives {
		in, err := openInput(a, o)
		if err != nil {
			ins.close()
			return nil, fmt.Errorf("open %s: %w", a.Name, err)
		}
		ins.list = append(ins.list, in)
		o.Progress.Total.Add(max(in.size, int64(len(in.content))))
	}
	return ins, nil
}

func (ins *inputs) close() {
	for _, in := range ins.list {
		if in.img != nil {
			in.img.Close() // read only: nothing is lost
		}
	}
}

func openInput(a Archive, o *Options) (input, error) {
	switch {
	case a.Path == "-" && a.isImage():
		return openStream(o)
	case a.Path == "-":
		return readSmallStream(o)
	case !a.isImage():
		return openSmall(a.Path)
	}
	img, err := source.Open(a.Path, source.Options{AllowBacking: o.AllowBacking, Format: o.Format, ForceShare: o.ForceShare})
	if err != nil {
		return input{}, err
	}
	if img.Size() > 0 {
		return input{img: img, size: img.Size()}, nil
	}
	if !o.AllowEmpty {
		return input{}, errors.Join(emptyError("source "+a.Path), img.Close())
	}
	// An index cannot be empty (section 3.2 of the formats
	// specification), a blob can.
	return input{small: true}, errors.Join(img.Verify(), img.Close())
}

// emptyError is for a source of which nobody said that it may be empty.
func emptyError(what string) error {
	return fmt.Errorf("%s is empty: whatever was to write it has probably failed; --allow-empty backs it up nevertheless: %w", what, source.ErrEmpty)
}

// openStream looks at the beginning of standard input, because one that is empty
// is stored differently, or not at all, and one in a foreign format is refused.
func openStream(o *Options) (input, error) {
	if o.Stdin == nil {
		return input{}, fmt.Errorf("standard input: %w", os.ErrInvalid)
	}
	r := bufio.NewReaderSize(source.WatchStream(o.Stdin, o.Format), gridSize)
	head, err := r.Peek(source.HeadSize)
	if err != nil && err != io.EOF {
		return input{}, fmt.Errorf("read standard input: %w", err)
	}
	if len(head) == 0 {
		if !o.AllowEmpty {
			return input{}, emptyError("standard input")
		}
		return input{small: true}, nil
	}
	if err := source.CheckStream(head, o.Format); err != nil {
		return input{}, err
	}
	return input{stream: r, size: -1}, nil
}

// readSmallStream reads a small file from standard input.
func readSmallStream(o *Options) (input, error) {
	in, err := readSmall(o.Stdin, "standard input")
	if err == nil && len(in.content) == 0 && !o.AllowEmpty {
		return input{}, emptyError("standard input")
	}
	return in, err
}

// openSmall reads a small file. Of a pipe nobody could tell whether its other
// end failed, or came at all.
func openSmall(path string) (input, error) {
	st, err := os.Stat(path)
	if err != nil {
		return input{}, err
	}
	if st.IsDir() || st.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 {
		return input{}, fmt.Errorf(`%s is not a file; what a command writes is read from "-", standard input: %w`, path, source.ErrUnsupported)
	}
	f, err := os.Open(path)
	if err != nil {
		return input{}, err
	}
	defer f.Close()
	return readSmall(f, path)
}

func readSmall(in io.Reader, name string) (input, error) {
	b, err := io.ReadAll(io.LimitReader(in, smallMax+1))
	if err != nil {
		return input{}, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > smallMax {
		return input{}, fmt.Errorf("%s is larger than %d MiB: back it up as NAME.img: %w", name, smallMax>>20, chunkstore.ErrInvalid)
	}
	return input{small: true, content: b}, nil
}

// file stores a small file as a blob.
func (j *job) file(ctx context.Context, name string, content []byte) error {
	raw, err := j.codec.Encode(nil, content)
	if err != nil {
		return fmt.Errorf("seal %s: %w", name, err)
	}
	j.Progress.Read.Add(int64(len(content)))
	j.Progress.Done.Add(int64(len(content)))
	return j.blob(ctx, name, len(content), raw)
}

// blob stores a file of plain bytes that has been sealed and enters it into
// manifest, which has the size of the blob, and report, which has its own.
func (j *job) blob(ctx context.Context, name string, plain int, raw chunkstore.Blob) error {
	if err := j.sendBlob(ctx, name, raw); err != nil {
		return err
	}
	j.add(ArchiveReport{Name: name, Size: int64(plain), StoredBytes: int64(len(raw))})
	return nil
}

// sendBlob stores a file that has been sealed and enters it into the manifest.
func (j *job) sendBlob(ctx context.Context, name string, raw chunkstore.Blob) error {
	if err := j.session.Blob(ctx, name, raw); err != nil {
		return err
	}
	f := manifest.File{Name: name, CryptMode: j.Mode, Size: uint64(len(raw)), Csum: crypto.Sum(raw)}
	j.manifest.Files = append(j.manifest.Files, f)
	return nil
}

// wrappedKeyName is the file that holds the data key, encrypted for the master
// key (section 5.5 of the formats specification).
const wrappedKeyName = "rsa-encrypted.key.blob"

// wrappedKey stores the data key encrypted for the master key, if there is one.
func (j *job) wrappedKey(ctx context.Context) error {
	if j.Master == nil {
		return nil
	}
	wrapped, err := crypto.WrapKey(j.Master, j.Key, j.KeyCreated, j.Now())
	if err != nil {
		return fmt.Errorf("wrap the key for the master key: %w", err)
	}
	raw, err := j.codec.EncodeRaw(nil, wrapped)
	if err != nil {
		return err
	}
	return j.blob(ctx, wrappedKeyName, len(wrapped), raw)
}

// origin stores where the snapshot belongs, so that nobody without the key can put
// it in another place unnoticed.
func (j *job) origin(ctx context.Context) error {
	o := manifest.Origin{Namespace: string(j.Snapshot.Group.NS)}
	if j.prev != nil {
		var err error
		if o.PreviousDigest, err = j.prev.manifest.Digest(); err != nil {
			return err
		}
		o.Previous = j.prev.reader.Snapshot().Time
	}
	content, err := o.Encode()
	if err != nil {
		return fmt.Errorf("encode %s: %w", manifest.OriginName, err)
	}
	raw, err := j.codec.Encode(nil, content)
	if err != nil {
		return fmt.Errorf("seal %s: %w", manifest.OriginName, err)
	}
	return j.sendBlob(ctx, manifest.OriginName, raw)
}
