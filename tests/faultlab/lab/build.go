package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"holdfast/tests/resident"
)

// Patch replaces text in a file of the module. The text must be there exactly
// once: a patch that no longer fits is an error, not a test that proves nothing. No
// text at all makes a new file.
type Patch struct{ File, Old, New string }

// Replace is the patch that replaces the text before by after in a file.
func Replace(file, before, after string) Patch { return Patch{file, before, after} }

// Reside are the patches that let holdfast carry out many commands in one process.
func Reside() []Patch {
	return []Patch{Replace(resident.Main, resident.Old, resident.New), {resident.File, "", resident.Source()}}
}

// Build compiles a package of the module with patches, which change no file.
// name is that of the binary.
func (l *Lab) Build(name, pkg string, patches ...Patch) (string, error) {
	dir, err := l.MkdirTemp()
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, name)
	return out, Build(l.root, out, pkg, patches...)
}

// Build compiles a package of the module in root to the file out, with patches,
// which change no file. What it needs for that it writes beside out.
func Build(root, out, pkg string, patches ...Patch) error {
	overlay, err := writeOverlay(root, filepath.Dir(out), patches)
	if err != nil {
		return fmt.Errorf("build %s: %w", filepath.Base(out), err)
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-overlay", overlay, "-o", out, pkg)
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", filepath.Base(out), err, said)
	}
	return nil
}

// writeOverlay writes the patched files, and the list that go build takes.
func writeOverlay(root, dir string, patches []Patch) (string, error) {
	texts := map[string]string{}
	for _, p := range patches {
		path := p.File
		if !filepath.IsAbs(path) {
			path = filepath.Join(root, path)
		}
		if _, ok := texts[path]; p.Old == "" && !ok {
			texts[path] = p.New
			continue
		} else if !ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			texts[path] = string(b)
		}
		if n := strings.Count(texts[path], p.Old); n != 1 {
			return "", fmt.Errorf("%s has %d places with the text of a patch, want one: %q", p.File, n, p.Old)
		}
		texts[path] = strings.Replace(texts[path], p.Old, p.New, 1)
	}
	replace := map[string]string{}
	for path, text := range texts {
		patched := filepath.Join(dir, fmt.Sprintf("patched%d.go", len(replace)))
		if err := os.WriteFile(patched, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = patched
	}
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	return list, os.WriteFile(list, raw, 0o600)
}
