package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// openTarget opens what the options name for an archive of size bytes. An error
// means that nothing has been changed.
func openTarget(o *Options, size int64) (*guarded, error) {
	t, err := chooseTarget(o, size)
	if err != nil {
		return nil, fmt.Errorf("%w (nothing was written)", err)
	}
	return t, nil
}

func chooseTarget(o *Options, size int64) (*guarded, error) {
	if o.Target == "-" {
		if o.Differential {
			return nil, fmt.Errorf("standard output cannot be restored to differentially: %w", ErrTarget)
		}
		return &guarded{target: &stream{out: o.Out}, name: "standard output"}, nil
	}
	st, err := os.Stat(o.Target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t, err := newFile(o.Target, size, false)
		return &guarded{target: t, name: o.Target}, err
	case err != nil:
		return nil, fmt.Errorf("open target: %w", err)
	case st.Mode()&fs.ModeDevice != 0 && st.Mode()&fs.ModeCharDevice == 0:
		t, err := openDevice(o.Target, size)
		return &guarded{target: t, name: o.Target, existing: o.Differential}, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a file nor a block device: %w", o.Target, ErrTarget)
	case o.Differential:
		t, err := openExisting(o.Target, size)
		return &guarded{target: t, name: o.Target, existing: true}, err
	case o.Overwrite:
		t, err := newFile(o.Target, size, true)
		return &guarded{target: t, name: o.Target}, err
	}
	return nil, fmt.Errorf("%s exists already; give another name, --overwrite to replace it, or --differential to write only what differs: %w", o.Target, ErrTarget)
}
