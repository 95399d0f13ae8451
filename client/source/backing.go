package source

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// openBacking opens the backing file that the header of q names, if o permits,
// and tells whether to read it as qcow2. The name was chosen by whoever made
// the image: it must not choose files of this machine.
func openBacking(q *qcow2File, o Options) (*file, bool, error) {
	path, flags, err := backingPath(q.path, q.h.backing, o)
	if err != nil {
		return nil, false, err
	}
	f, err := openFile(path, flags)
	if err != nil {
		return nil, false, fmt.Errorf("backing file %q of %s: %w", q.h.backing, q.path, err)
	}
	isQcow2 := false
	if err = f.prepare(o); err == nil {
		isQcow2, err = backingIsQcow2(f, q.h.backingFormat)
	}
	if err != nil {
		err = fmt.Errorf("backing file %q of %s: %w", q.h.backing, q.path, err)
		return nil, false, errors.Join(err, f.Close())
	}
	return f, isQcow2, nil
}

// backingIsQcow2 tells how to read a backing file whose format is called
// format. One without a format is asked itself.
func backingIsQcow2(f *file, format string) (bool, error) {
	switch format {
	case "raw":
		return false, nil
	case "qcow2", "":
	default:
		return false, fmt.Errorf("format %q: %w", format, ErrUnsupported)
	}
	r, found, err := f.recognise()
	switch {
	case err != nil:
		return false, err
	case found && r.way == asItIs:
		return true, nil
	case format != "":
		return false, fmt.Errorf("is not in the format %q that the image names: %w", format, ErrDamaged)
	case found:
		return false, fmt.Errorf("is %s: %w", r.Name, ErrUnsupported)
	}
	return false, nil
}

// backingPath tells what to open for the backing file called name of the image
// at path, and with which flags. A relative name is relative to the folder in
// which the image was found, as it is for qemu.
func backingPath(path, name string, o Options) (string, int, error) {
	if protocol, ok := protocolOf(name); ok {
		return "", 0, fmt.Errorf("%s: backing file %q: protocol %q: %w: %w", path, name, protocol, ErrBacking, ErrUnsupported)
	}
	if o.AllowBacking {
		if filepath.IsAbs(name) {
			return name, 0, nil
		}
		return filepath.Join(filepath.Dir(path), name), 0, nil
	}
	found, ok, err := beside(path, name)
	if err != nil {
		return "", 0, fmt.Errorf("%s: backing file %q: %w", path, name, err)
	}
	if !ok {
		return "", 0, fmt.Errorf("%s: backing file %q does not lie beside it, --allow-backing-files is needed to read it: %w", path, name, ErrBacking)
	}
	// What was found is no symbolic link; nor may it have become one since.
	return found, unix.O_NOFOLLOW, nil
}

// beside looks for a file called name in the folder of path. It is not ok if
// name is more than a name, or a symbolic link out of the folder.
func beside(path, name string) (found string, ok bool, err error) {
	if name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return "", false, nil
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return "", false, err
	}
	if folder, err = filepath.EvalSymlinks(folder); err != nil {
		return "", false, cause(err)
	}
	if found, err = filepath.EvalSymlinks(filepath.Join(folder, name)); err != nil {
		return "", false, cause(err)
	}
	return found, filepath.Dir(found) == folder, nil
}

// protocolOf returns what stands before the first colon if no slash comes
// earlier: qemu takes such a name for a place on the network or a
// specification, never for a file.
func protocolOf(name string) (string, bool) {
	protocol, _, ok := strings.Cut(name, ":")
	return protocol, ok && !strings.ContainsRune(protocol, '/')
}
