package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Patch replaces text in a file of the module. The text must be there exactly
// once: a patch that no longer fits is an error, not a test that proves nothing. No
// text at all makes a new file.
type Patch struct{ File, Old, New string }

// Replace is the patch that replaces the text before by after in a file.
func Replace(file, before, after string) Patch { return Patch{file, before, after} }

// Build compiles a package of the module with patches, which change no file.
// name is that of the binary.
func (l *Lab) Build(name, pkg string, patches ...Patch) (string, error) {
	dir, err := l.MkdirTemp()
	if err != nil {
		return "", err
	}
	overlay, err := l.overlay(dir, patches)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	out := filepath.Join(dir, name)
	build := exec.Command("go", "build", "-buildvcs=false", "-overlay", overlay, "-o", out, pkg)
	build.Dir = l.root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, said)
	}
	return out, nil
}

// overlay writes the patched files, and the list that go build takes.
func (l *Lab) overlay(dir string, patches []Patch) (string, error) {
	texts := map[string]string{}
	for _, p := range patches {
		path := p.File
		if !filepath.IsAbs(path) {
			path = filepath.Join(l.root, path)
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
