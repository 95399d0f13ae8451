package script

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A repository has one writing process at a time. Whoever comes while a server has
// it, by its path or through a server of their own, is told so with 11, and
// gets it when the server has gone. Reading by the path goes on.
func TestInUseByAServer(t *testing.T) {
	h, first := newServed(t)
	store := filepath.Join(h.dir, "data", "datastores", "tank")
	save := []string{"backup", "--crypt-mode", "none", "--backup-id", "web", "hosts.conf:/etc/hosts"}
	if code, out := h.do(save...); code != 0 {
		t.Fatalf("through the server: exit code %d\n%s", code, out)
	}
	path := house{bin: h.bin, dir: h.dir, env: []string{"HOLDFAST_REPOSITORY=" + store}}
	other, second := newServed(t)
	if code, out := other.do("datastore", "create", "same", "--reuse", store, "--data", filepath.Join(other.dir, "data")); code != 0 {
		t.Fatalf("a second server: exit code %d\n%s", code, out)
	}
	other.env[0] = "HOLDFAST_REPOSITORY=" + second.AuthID + "@" + second.Address + ":same"
	for name, h := range map[string]house{"path": path, "second server": other} {
		for _, args := range [][]string{save, {"gc"}, {"prune", "host/web", "--keep-last", "1"}} {
			if code, out := h.do(args...); code != 11 || !strings.Contains(out, "--lock-wait") {
				t.Errorf("%s: %s: exit code %d\n%s", name, args[0], code, out)
			}
		}
	}
	if code, out := path.do("list"); code != 0 || !strings.Contains(out, "host/web") {
		t.Errorf("the path can be read: list: exit code %d\n%s", code, out)
	}
	if err := first.Stop(); err != nil {
		t.Error(err)
	}
	if code, out := other.do(append(save, "--lock-wait", "1m")...); code != 0 {
		t.Errorf("when the first has gone: exit code %d\n%s", code, out)
	}
}

// What a disk that is full leaves of a new repository is in nobody's way.
func TestInitOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts a file system: run it as root")
	}
	h := house{bin: filepath.Join(binary(t), "holdfast"), dir: t.TempDir()}
	disk := filepath.Join(h.dir, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "none", disk).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	defer exec.Command("umount", disk).Run()
	filler := filepath.Join(disk, "filler")
	for left := range int64(4) {
		t.Run(fmt.Sprintf("%d KiB left", 4*left), func(t *testing.T) {
			f, err := os.Create(filler)
			if err != nil {
				t.Fatal(err)
			}
			block := make([]byte, 4096)
			for err == nil {
				_, err = f.Write(block)
			}
			st, err := f.Stat()
			if err == nil {
				err = f.Truncate(st.Size() - left*4096)
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			h.env = []string{fmt.Sprintf("HOLDFAST_REPOSITORY=./disk/store%d", left)}
			if code, out := h.do("init"); code != 69 && (code != 0 || left == 0) || strings.Contains(out, "restoring still work") {
				t.Errorf("init: exit code %d\n%s", code, out)
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			if code, out := h.do("init"); code != 0 && (code != 77 || left == 0) {
				t.Errorf("init once there is room: exit code %d\n%s", code, out)
			}
			if code, out := h.do("list"); code != 0 {
				t.Errorf("list: exit code %d\n%s", code, out)
			}
		})
	}
}
