package faults

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// sourceSize is how large the sources are that something happens to, in bytes.
const sourceSize = 24 << 20

// TestSource lets sources change while they are read. No such backup succeeds.
func TestSource(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	dir := t.TempDir()
	r := newRepo(t, dir)
	base := snap{"host/base", 0}
	r.backup(t, base, "disk0.img:"+write(t, filepath.Join(dir, "disk.raw"), mixed(70, 1<<20))).want(t, exitOK)
	for name, c := range map[string]struct {
		change func(t *testing.T, path string)
		words  []string
	}{
		"shrinks": {func(t *testing.T, path string) { truncate(t, path, sourceSize/2) }, []string{"changed while it was read"}},
		"shrinks by one byte": {func(t *testing.T, path string) { truncate(t, path, sourceSize-1) },
			[]string{"changed while it was read"}},
		"is emptied": {func(t *testing.T, path string) { truncate(t, path, 0) }, []string{"changed while it was read"}},
		"grows":      {func(t *testing.T, path string) { truncate(t, path, sourceSize+512) }, []string{"changed while it was read"}},
		"vanishes": {func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, []string{"is gone"}},
		"is replaced": {func(t *testing.T, path string) {
			write(t, path+".new", noise(71, sourceSize))
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}, []string{"another file has taken its name"}},
	} {
		for _, chunking := range []string{"content", "fixed"} {
			t.Run(name+"/"+chunking, func(t *testing.T) {
				t.Parallel()
				r := newRepo(t, t.TempDir())
				path := write(t, filepath.Join(t.TempDir(), "source.raw"), noise(72, sourceSize))
				got := r.stopped(t, path, func() { c.change(t, path) }, "--chunking", chunking, "disk0.img:"+path)
				failed(t, got, append(c.words, path)...)
				r.wantList(t)
			})
		}
	}
	t.Run("read error", sourceReadError)
	t.Run("device read error", sourceDeviceError)
	t.Run("not there", sourceNotThere)
	r.wantList(t, base)
	r.verify(t).want(t, exitOK)
}

func truncate(t *testing.T, path string, n int64) {
	t.Helper()
	if err := os.Truncate(path, n); err != nil {
		t.Fatal(err)
	}
}

// failed fails the test unless a backup ended with an error of its own.
func failed(t *testing.T, r result, words ...string) {
	t.Helper()
	if r.Code == exitOK || r.Code == exitKilled {
		t.Fatalf("want a failure: %s", r)
	}
	r.says(t, words...)
}

// stopped starts a backup, stops it when it has read a part of path, calls
// meanwhile and lets it go on.
func (r repo) stopped(t *testing.T, path string, meanwhile func(), args ...string) result {
	t.Helper()
	return stoppedAt(t, r.backupArgs(snap{"vm/1", 0}, args...), stop{"pread64", 4, path}, func(int) { meanwhile() })
}

// pause holds up the thread that was stopped, in microseconds, when the others go
// on: time enough for them to look at a signal before the work is done.
const pause = "500000"

// stop is a system call at which a process is stopped: the one of that number
// in any thread, on a file if there is a path.
type stop struct {
	call string
	when int
	path string
}

// stoppedAt starts a command, stops it, calls meanwhile with its process number
// and lets it go on.
func stoppedAt(t *testing.T, args []string, at stop, meanwhile func(pid int)) result {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace.txt")
	wrap := strace(at.call, fmt.Sprintf("%s:signal=SIGSTOP:delay_exit=%s:when=%d", at.call, pause, at.when), at.paths()...)
	wrap[slices.Index(wrap, "/dev/null")] = log
	p := start(t, command{args: args, env: oneThread, wrap: wrap})
	harness.Eventually(t, "a stopped process", func() bool {
		b, err := os.ReadFile(log)
		return err == nil && bytes.Contains(b, []byte("--- stopped by SIGSTOP ---"))
	})
	pid := p.tracee()
	meanwhile(pid)
	// Every thread stops at its own call of that number, so it has to be told
	// again.
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
				syscall.Kill(pid, syscall.SIGCONT)
			}
		}
	}()
	defer close(done)
	return p.wait(t)
}

func (s stop) paths() []string {
	if s.path == "" {
		return nil
	}
	return []string{s.path}
}

// sourceReadError lets reads of a regular file fail.
func sourceReadError(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir())
	path := write(t, filepath.Join(t.TempDir(), "source.raw"), noise(73, sourceSize))
	for i, which := range []string{"1", "2", "5", "5+", "20"} {
		got := start(t, command{
			args: r.backupArgs(snap{"vm/1", int64(i)}, "disk0.img:"+path), env: oneThread,
			wrap: strace("pread64", "pread64:error=EIO:when="+which, path),
		}).wait(t)
		failed(t, got, path, "input/output error", " at ")
		r.wantList(t)
	}
}

// sourceDeviceError reads a device that has lost its second half.
func sourceDeviceError(t *testing.T) {
	t.Parallel()
	if !mayUseDevices(t) {
		return
	}
	r := newRepo(t, t.TempDir())
	file := write(t, filepath.Join(t.TempDir(), "device.raw"), noise(74, sourceSize))
	dev, _ := harness.Loop(t, file)
	truncate(t, file, sourceSize/2)
	failed(t, r.backup(t, snap{"vm/1", 0}, "disk0.img:"+dev), dev, "input/output error", " at ")
	r.wantList(t)
}

// sourceNotThere names sources that are none.
func sourceNotThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRepo(t, dir)
	good := write(t, filepath.Join(dir, "good.raw"), mixed(75, 1<<20))
	dangling, fifo := filepath.Join(dir, "dangling"), filepath.Join(dir, "fifo")
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		sources []string
		code    int
	}{
		"missing":               {[]string{"disk0.img:" + filepath.Join(dir, "none.raw")}, exitNotFound},
		"missing small file":    {[]string{"machine.conf:" + filepath.Join(dir, "none.conf")}, exitNotFound},
		"second missing":        {[]string{"disk0.img:" + good, "disk1.img:" + filepath.Join(dir, "none.raw")}, exitNotFound},
		"dangling link":         {[]string{"disk0.img:" + dangling}, exitNotFound},
		"no name":               {[]string{"disk0.img:"}, exitUsage},
		"no sources":            {nil, exitUsage},
		"twice the same name":   {[]string{"disk0.img:" + good, "disk0.img:" + good}, exitUsage},
		"directory":             {[]string{"disk0.img:" + dir}, exitRefused},
		"pipe":                  {[]string{"disk0.img:" + fifo}, exitRefused},
		"character device":      {[]string{"disk0.img:/dev/zero"}, exitRefused},
		"below a file":          {[]string{"disk0.img:" + good + "/disk"}, exitError},
		"small file too large":  {[]string{"machine.conf:/dev/zero"}, exitUsage},
		"small file is a place": {[]string{"machine.conf:" + dir}, exitRefused},
	} {
		t.Run(name, func(t *testing.T) {
			got := holdfast(t, r.backupArgs(snap{"vm/1", 0}, c.sources...)...)
			got.want(t, c.code)
			if c.code != exitUsage {
				_, path, _ := strings.Cut(c.sources[len(c.sources)-1], ":")
				got.says(t, path)
			}
		})
	}
	r.wantList(t)
}
