package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"holdfast/client/source"
)

// target is what an archive is written to. Calls come from one goroutine, in
// the order of offsets, except for readAt.
type target interface {
	writeAt(p []byte, off int64) error
	// zero makes n bytes at off read as zeros.
	zero(off, n int64) error
	// readAt reads what an existing target has, n < len(p) at its end.
	readAt(p []byte, off int64) (n int, err error)
	// finish makes everything durable and gives the target its name.
	finish() error
	// abort lets go of the target and says what state it is in.
	abort() (state string)
}

// guarded is a target that is concluded exactly once, and whose errors tell its
// state.
type guarded struct {
	target
	name string
	// existing says that the target has old content to be compared with.
	existing bool
}

// conclude runs work and then finishes the target, or after an error gives it
// up and adds its state to the error.
func (t *guarded) conclude(work func() error) error {
	err := work()
	if err == nil {
		err = t.finish()
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w (%s)", err, t.abort())
}

// wanted is what a target is going to hold.
type wanted struct {
	size int64 // bytes
	data int64 // bytes of it that are not known to be zero
	// begins returns the first bytes of it, some hundreds or all there are.
	begins func() ([]byte, error)
	// warn tells the user, before the first byte, what may go wrong.
	warn func(string)
}

// openTarget opens what the options name for an archive. An error means that
// nothing has been changed.
func openTarget(o *Options, w wanted) (*guarded, error) {
	if w.warn = o.Warn; w.warn == nil {
		w.warn = func(string) {}
	}
	t, err := chooseTarget(o, w)
	if err != nil {
		return nil, fmt.Errorf("%w (nothing was written)", err)
	}
	return t, nil
}

func chooseTarget(o *Options, w wanted) (*guarded, error) {
	if o.Target == "-" {
		if o.Differential {
			return nil, fmt.Errorf("standard output cannot be restored to differentially: %w", ErrTarget)
		}
		return &guarded{target: &stream{out: o.Out}, name: "standard output"}, nil
	}
	st, err := os.Stat(o.Target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := checkNewName(o.Target); err != nil {
			return nil, err
		}
		warnOfName(o.Target, w)
		t, err := newFile(o.Target, w, nil)
		return &guarded{target: t, name: o.Target}, err
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP):
		return nil, fmt.Errorf("target %s: %w: %w", o.Target, cause(err), ErrTarget)
	case err != nil:
		return nil, fmt.Errorf("open target: %w", err)
	case st.Mode()&fs.ModeDevice != 0 && st.Mode()&fs.ModeCharDevice == 0:
		t, err := openDevice(o.Target, w.size)
		return &guarded{target: t, name: o.Target, existing: o.Differential}, err
	case st.IsDir():
		return nil, fmt.Errorf("%s is a directory; name a file in it: %w", o.Target, ErrTarget)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf(`%s is neither a file nor a block device; restore to "-" and redirect that: %w`, o.Target, ErrTarget)
	}
	return chooseExisting(o, w)
}

// chooseExisting opens a regular file that is there already.
func chooseExisting(o *Options, w wanted) (*guarded, error) {
	switch {
	case o.Differential:
		t, err := openExisting(o.Target, w)
		return &guarded{target: t, name: o.Target, existing: true}, err
	case o.Overwrite:
		real, err := settleLink(o.Target)
		if err != nil {
			return nil, err
		}
		if err := refuseInUse(real); err != nil {
			return nil, err
		}
		like, err := os.Stat(real)
		if err != nil {
			return nil, fmt.Errorf("open target: %w", err)
		}
		warnOfName(real, w)
		t, err := newFile(real, w, like)
		return &guarded{target: t, name: o.Target}, err
	}
	return nil, fmt.Errorf("%s exists already; give another name, --overwrite to replace it, or --differential to write only what differs: %w", o.Target, ErrTarget)
}

// checkNewName refuses a name that a file cannot get.
func checkNewName(path string) error {
	if strings.HasSuffix(path, "/") {
		return fmt.Errorf("%s would be a directory; name a file: %w", path, ErrTarget)
	}
	if err := danglingLink(path); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("the directory of target %s: %w", path, cause(err))
	}
	return nil
}

// checkFormat refuses to make raw bytes of a file in another format, as
// a restore in place does that was meant for a raw file.
func checkFormat(f *os.File, w wanted) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	head, tail := make([]byte, min(source.HeadSize, st.Size())), make([]byte, min(source.TailSize, st.Size()))
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read target: %w", err)
	}
	if _, err := f.ReadAt(tail, st.Size()-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read target: %w", err)
	}
	is, found := source.Recognise(head, tail)
	if !found {
		return nil
	}
	same, err := beginsAs(w, is)
	if err != nil || same {
		return err
	}
	return fmt.Errorf("%s is %s, and the archive is a raw disk, which would destroy that format; restore to a new file and convert it (qemu-img convert), or replace this one with --overwrite: %w",
		f.Name(), is.Name, ErrTarget)
}

// beginsAs tells whether the archive is a file in the format that is given, stored
// as it was.
func beginsAs(w wanted, is source.Recognised) (bool, error) {
	head, err := w.begins()
	if err != nil {
		return false, err
	}
	archive, found := source.Recognise(head[:min(len(head), source.HeadSize)], nil)
	return found && archive == is, nil
}

// warnOfName warns of a file whose name promises a format that it will not have.
func warnOfName(path string, w wanted) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".qcow2", ".vmdk", ".vhdx", ".vhd", ".vdi", ".qed":
	default:
		return
	}
	head, err := w.begins()
	if err != nil {
		return // reading it again will tell
	}
	if _, found := source.Recognise(head[:min(len(head), source.HeadSize)], nil); !found {
		w.warn(fmt.Sprintf("%s is going to be a raw disk, whatever its name says", path))
	}
}
