package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/build"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Import paths.
const (
	module  = "holdfast"
	simPath = module + "/tests/faultlab/schedule/sim"
	world   = module + "/tests/faultlab/schedule/world"
	bolt    = "go.etcd.io/bbolt"
	boltSim = simPath + "/bbolt"
)

// stand says what stands for an import on the simulated machine.
type stand map[string]string

// storeStands are those of the store's packages, boltStands those of bbolt.
var (
	storeStands = stand{
		"os":                         simPath + "/simos",
		"sync":                       simPath + "/simsync",
		"crypto/rand":                simPath + "/simrand",
		"golang.org/x/sys/unix":      simPath + "/simunix",
		"golang.org/x/sync/errgroup": simPath + "/simgroup",
		bolt:                         boltSim,
	}
	boltStands = stand{
		"os":                        simPath + "/simos",
		"sync":                      simPath + "/simsync",
		"syscall":                   simPath + "/simunix",
		"golang.org/x/sys/unix":     simPath + "/simunix",
		bolt + "/errors":            boltSim + "/errors",
		bolt + "/internal/common":   boltSim + "/internal/common",
		bolt + "/internal/freelist": boltSim + "/internal/freelist",
	}
)

// storeRooms are the packages of the store that run on the machine, boltRooms
// those of bbolt.
var (
	storeRooms = []string{"chunkstore/durable", "chunkstore/pack", "chunkstore/pack/catalogue", "chunkstore/pack/packfile", "datastore", "datastore/gc",
		"datastore/index", "datastore/verify", "datastore/image"}
	boltRooms = []string{"", "errors", "internal/common", "internal/freelist"}
)

// Build makes the program that runs schedules, at the path out. root is the
// directory of the module, work one for files in between. With mutants, the
// program can break each rule in the table.
func Build(root, work, out string, mutants bool) error {
	o := &overlay{root: root, work: work, files: make(map[string]string)}
	changes := tunings
	if mutants {
		changes = append(changes[:len(changes):len(changes)], mutantChanges()...)
	}
	o.changes = changes
	for _, room := range storeRooms {
		if err := o.room(filepath.Join(root, room), filepath.Join(root, room), storeStands); err != nil {
			return fmt.Errorf("prepare %s: %w", room, err)
		}
	}
	dir, err := output(root, "go", "list", "-m", "-f", "{{.Dir}}", bolt)
	if err != nil {
		return err
	}
	for _, room := range boltRooms {
		to := filepath.Join(root, strings.TrimPrefix(boltSim, module+"/"), room)
		stands := boltStands
		if room == "internal/common" {
			stands = stand{bolt + "/errors": boltSim + "/errors"} // its os is for debugging
		}
		if err := o.room(filepath.Join(dir, room), to, stands); err != nil {
			return fmt.Errorf("prepare bbolt/%s: %w", room, err)
		}
	}
	if err := o.unused(); err != nil {
		return err
	}
	list, err := o.write()
	if err != nil {
		return err
	}
	_, err = output(root, "go", "test", "-c", "-vet=off", "-tags", "faultlab", "-overlay", list, "-o", out, world)
	return err
}

// output runs a program and returns what it has printed.
func output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var errs strings.Builder
	cmd.Stderr = &errs
	b, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, args[0], err, errs.String())
	}
	return strings.TrimSpace(string(b)), nil
}

// change replaces a text in one file of the module by another.
type change struct{ file, before, after string }

// overlay is what the go command is to see instead of files.
type overlay struct {
	root, work string
	changes    []change
	used       int
	files      map[string]string // path -> where its content is
}

// room puts the files of the package in from into the overlay, as those in to.
func (o *overlay) room(from, to string, stands stand) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	pkg := &source{stands: stands, text: make(map[string]string)}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if ok, err := build.Default.MatchFile(from, name); err != nil || !ok {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if pkg.text[name], err = o.edit(filepath.Join(from, name), string(b)); err != nil {
			return err
		}
	}
	texts, err := pkg.rewrite()
	if err != nil {
		return err
	}
	for name, text := range texts {
		path := filepath.Join(o.work, fmt.Sprintf("%03d_%s", len(o.files), name))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		o.files[filepath.Join(to, name)] = path
	}
	return nil
}

// edit makes the changes of one file. A text that is not there exactly once is
// an error: the store has changed, and so must the table.
func (o *overlay) edit(path, text string) (string, error) {
	for _, c := range o.changes {
		if filepath.Join(o.root, c.file) != path {
			continue
		}
		if n := strings.Count(text, c.before); n != 1 {
			return "", fmt.Errorf("%s: this text is there %d times, not once:\n%s", c.file, n, c.before)
		}
		text = strings.Replace(text, c.before, c.after, 1)
		o.used++
	}
	return text, nil
}

// unused finds changes of files that are not there.
func (o *overlay) unused() error {
	if o.used == len(o.changes) {
		return nil
	}
	for _, c := range o.changes {
		if o.files[filepath.Join(o.root, c.file)] == "" {
			return fmt.Errorf("%s is in a table of changes and is not built for the schedules", c.file)
		}
	}
	return errors.New("a change was not made")
}

// write writes the list of replacements, and returns its name.
func (o *overlay) write() (string, error) {
	b, err := json.Marshal(struct{ Replace map[string]string }{o.files})
	if err != nil {
		return "", err
	}
	name := filepath.Join(o.work, "overlay.json")
	return name, os.WriteFile(name, b, 0o600)
}
