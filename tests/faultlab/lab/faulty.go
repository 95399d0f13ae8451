package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// The environment of a program built by BuildFaultySync.
const (
	faultAtEnv   = "HOLDFAST_FAULT_SYNC"
	faultMarkEnv = "HOLDFAST_FAULT_MARK"
)

// faultySync is compiled into package syscall. The n-th fsync or fdatasync of the
// process does nothing and fails. As kernels do, the next one of that file does
// nothing either and says that all is well.
const faultySync = `package syscall

import (
	"sync"
	"unsafe"
)

var faultySync struct {
	sync.Mutex
	read bool
	at   int
	n    int
	dev  uint64
	ino  uint64
	gen  int // of the inode: its number may be used again
}

func syncFault(fd int) (done bool, err error) {
	f := &faultySync
	f.Lock()
	defer f.Unlock()
	if !f.read {
		f.read = true
		text, _ := Getenv("` + faultAtEnv + `")
		for _, c := range []byte(text) {
			f.at = 10*f.at + int(c-'0')
		}
	}
	var st Stat_t
	if f.at == 0 || Fstat(fd, &st) != nil {
		return false, nil
	}
	gen := 0
	Syscall(SYS_IOCTL, uintptr(fd), 0x80087601, uintptr(unsafe.Pointer(&gen))) // FS_IOC_GETVERSION
	if f.ino == st.Ino && f.dev == uint64(st.Dev) && f.gen == gen {
		f.ino, f.dev = 0, 0
		return true, nil
	}
	if f.n++; f.n != f.at {
		return false, nil
	}
	if st.Mode&S_IFMT == S_IFREG {
		f.ino, f.dev, f.gen = st.Ino, uint64(st.Dev), gen
	}
	if mark, ok := Getenv("` + faultMarkEnv + `"); ok {
		if m, err := Open(mark, O_CREAT|O_WRONLY, 0600); err == nil {
			Close(m)
		}
	}
	return true, EIO
}
`

// BuildFaultySync compiles a package with an fsync that fails on order.
func (l *Lab) BuildFaultySync(name, pkg string) (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "src", "syscall")
	calls := filepath.Join(dir, "zsyscall_linux_"+runtime.GOARCH+".go")
	hooked := func(name string) Patch {
		head := fmt.Sprintf("func %s(fd int) (err error) {\n", name)
		return Patch{calls, head, head + "\tif done, err := syncFault(fd); done {\n\t\treturn err\n\t}\n"}
	}
	return l.Build(name, pkg, SmallPacks(), hooked("Fsync"), hooked("Fdatasync"),
		Patch{filepath.Join(dir, "faultysync_linux.go"), "", faultySync})
}

// SyncFault is one fsync that fails.
type SyncFault struct {
	// Env is for the process.
	Env  []string
	mark string
}

// NewSyncFault makes the n-th fsync of a process fail, counted from 1.
func (l *Lab) NewSyncFault(n int) (SyncFault, error) {
	dir, err := l.MkdirTemp()
	mark := filepath.Join(dir, "failed")
	return SyncFault{[]string{fmt.Sprintf("%s=%d", faultAtEnv, n), faultMarkEnv + "=" + mark}, mark}, err
}

// Happened reports whether it has failed.
func (f SyncFault) Happened() (bool, error) {
	_, err := os.Stat(f.mark)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
