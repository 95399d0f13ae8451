package dead

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "holdfast/" // before the path of every package
	top    = "../../.."  // the folder of go.mod
)

// uncalled are functions that the program does not call, and why they stay.
var uncalled = map[string]string{
	"crypto.KeyFile.String":      redacts,
	"crypto.KeyFile.GoString":    redacts,
	"crypto.KeyFile.Format":      redacts,
	"crypto.KeyFile.LogValue":    redacts,
	"crypto.KeyFile.MarshalJSON": redacts,
}

const redacts = "keeps the secret of whoever prints a key file one day"

// unreachable is what deadcode -json prints of a package.
type unreachable struct {
	Path  string
	Funcs []struct {
		Name     string
		Position struct {
			File string
			Line int
		}
	}
}

// checkDead finds what deadcode lists and the table has not, and what the table has
// for nothing.
func checkDead(output []byte, except map[string]string) (bad []string, err error) {
	var packages []unreachable
	if err := json.Unmarshal(output, &packages); err != nil {
		return nil, err
	}
	gone := maps.Clone(except)
	for _, p := range packages {
		for _, f := range p.Funcs {
			name := strings.TrimPrefix(p.Path, module) + "." + f.Name
			if _, known := except[name]; !known {
				bad = append(bad, fmt.Sprintf("%s:%d: nothing in the program calls %s", f.Position.File, f.Position.Line, name))
			}
			delete(gone, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(gone)) {
		bad = append(bad, fmt.Sprintf("the table of what nothing calls has %s, which is gone or called", name))
	}
	return bad, nil
}

// TestDead fails for a function of the program that no path from main leads to. What
// only tests need belongs to the tests.
func TestDead(t *testing.T) {
	look(t)
	cmd := exec.CommandContext(t.Context(), "go", "tool", "deadcode", "-json", "./cmd/holdfast")
	cmd.Dir = top
	var problems bytes.Buffer
	cmd.Stderr = &problems
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &problems)
	}
	bad, err := checkDead(output, uncalled)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bad {
		t.Error(b)
	}
}

// look has a look at every source file, so that the go command, which sees what a test
// looks at, does not repeat the result of other sources.
func look(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		_, err = os.Stat(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheckDead(t *testing.T) {
	const output = `[{"Name": "b", "Path": "holdfast/a/b", "Funcs": [
		{"Name": "Known", "Position": {"File": "a/b/b.go", "Line": 7, "Col": 6}, "Generated": false},
		{"Name": "T.Dead", "Position": {"File": "a/b/c.go", "Line": 9, "Col": 6}, "Generated": false}]}]`
	bad, err := checkDead([]byte(output), map[string]string{"a/b.Known": "", "a/b.Called": ""})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"a/b/c.go:9: nothing in the program calls a/b.T.Dead",
		"the table of what nothing calls has a/b.Called, which is gone or called",
	}
	if !slices.Equal(bad, want) {
		t.Errorf("got %q, want %q", bad, want)
	}
	if _, err := checkDead([]byte("no JSON"), nil); err == nil {
		t.Error("an output that cannot be read is taken for one without offenders")
	}
}
