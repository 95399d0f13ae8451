package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// step is one thing that is measured.
type step string

const (
	stepFull      step = "full backup"
	stepSecond    step = "second backup"
	stepUnchanged step = "unchanged backup"
	stepRestore   step = "restore"
	stepVerify    step = "verify"
)

// scenario is a way of a disk through the tools: image is backed up at first,
// and next, if any, is the same disk after a night.
type scenario struct {
	name, title string
	image, next string
	steps       []step
}

func scenarios() []scenario {
	return []scenario{
		{
			name: "night", title: "A Debian server with a database, before and after a night",
			image: "night1.img", next: "night2.img",
			steps: []step{stepFull, stepSecond, stepUnchanged, stepRestore, stepVerify},
		},
		{
			name: "neighbour", title: "Another Debian server, on XFS",
			image: "xfs.img",
			steps: []step{stepFull, stepUnchanged, stepRestore},
		},
		{
			name: "dense", title: "A full disk: 2 GiB of file data without holes",
			image: "dense.img",
			steps: []step{stepFull, stepUnchanged, stepRestore},
		},
	}
}

// results are the samples of one scenario, by step and tool.
type results struct {
	scenario
	imageSize, dataSize, nextData int64 // bytes; data is what is not a hole or zero
	samples                       map[step]map[string][]sample
}

// bench is a run of all scenarios.
type bench struct {
	settings
	tools []tool
	work  string // a folder beside the images, gone at the end
}

// compare measures everything and returns the document.
func compare(ctx context.Context, s settings) (string, error) {
	work, err := os.MkdirTemp(s.imageDir, "run-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	bin := filepath.Join(work, "holdfast")
	if err := buildHoldfast(ctx, bin); err != nil {
		return "", err
	}
	b := bench{settings: s, tools: tools(bin), work: work}
	var all []results
	for _, sc := range scenarios() {
		if s.only != "" && !slices.Contains(strings.Split(s.only, ","), sc.name) {
			continue
		}
		r, err := b.measureScenario(ctx, sc)
		if err != nil {
			return "", fmt.Errorf("scenario %s: %w", sc.name, err)
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return "", fmt.Errorf("there is no scenario %q", s.only)
	}
	m, err := describeMachine(ctx, b)
	if err = errors.Join(err, m.readLimits(ctx, b)); err != nil {
		return "", err
	}
	return benchDoc(m, all), nil
}

// buildHoldfast builds the program under test.
func buildHoldfast(ctx context.Context, bin string) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", bin, "./cmd/holdfast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build holdfast: %w\n%s", err, out)
	}
	return nil
}

// measureScenario runs all rounds. Within a round every step is done by one
// tool after the other, so that what disturbs the machine disturbs them all.
func (b bench) measureScenario(ctx context.Context, sc scenario) (results, error) {
	r := results{scenario: sc, samples: map[step]map[string][]sample{}}
	for _, st := range sc.steps {
		r.samples[st] = map[string][]sample{}
	}
	if err := b.imageSizes(ctx, &r); err != nil {
		return r, err
	}
	for round := range b.rounds {
		if err := b.freshFolders(ctx); err != nil {
			return r, err
		}
		for _, st := range sc.steps {
			for _, t := range b.tools {
				s, err := b.measureStep(ctx, t, sc, st)
				if err != nil {
					return r, err
				}
				r.samples[st][t.name] = append(r.samples[st][t.name], s)
				fmt.Printf("%s %d/%d  %-16s  %-8s  %6.2f s  cpu %6.2f s  %4d MiB  stored %5d MiB\n", sc.name, round+1, b.rounds,
					st, t.name, s.wall.Seconds(), s.cpu.Seconds(), s.rss/mib, s.stored/mib)
			}
		}
	}
	return r, nil
}

// imageSizes warms the cache with the images and counts what is in them.
func (b bench) imageSizes(ctx context.Context, r *results) error {
	count := func(name string) (size, data int64, err error) {
		f, err := os.Open(filepath.Join(b.imageDir, name))
		if err != nil {
			return 0, 0, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return 0, 0, err
		}
		runs, err := dataRuns(f, info.Size())
		return info.Size(), runBytes(runs), err
	}
	var err error
	if r.imageSize, r.dataSize, err = count(r.image); err != nil {
		return err
	}
	if err := warm(ctx, filepath.Join(b.imageDir, r.image)); err != nil {
		return err
	}
	if r.next == "" {
		return nil
	}
	if _, r.nextData, err = count(r.next); err != nil {
		return err
	}
	return warm(ctx, filepath.Join(b.imageDir, r.next))
}

// folder is where a tool keeps its things.
func (b bench) folder(t tool) string { return filepath.Join(b.work, t.name+".d") }

// freshFolders gives every tool an empty repository.
func (b bench) freshFolders(ctx context.Context) error {
	for _, t := range b.tools {
		dir := b.folder(t)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, args := range t.setup {
			if _, err := measure(ctx, command{dir, t.absolute(dir), args}); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureStep does one step with one tool.
func (b bench) measureStep(ctx context.Context, t tool, sc scenario, st step) (sample, error) {
	dir := b.folder(t)
	image := filepath.Join(b.imageDir, sc.image)
	if sc.next != "" && st != stepFull {
		image = filepath.Join(b.imageDir, sc.next)
	}
	var args []string
	switch st {
	case stepFull, stepSecond:
		args = t.backup
	case stepUnchanged:
		args = t.again
	case stepRestore:
		args = t.restore
	case stepVerify:
		args = t.verify
	}
	if err := present(dir, image); err != nil {
		return sample{}, err
	}
	s, err := measure(ctx, command{dir, t.absolute(dir), args})
	if err != nil {
		return s, err
	}
	if st == stepRestore {
		if err := b.checkRestored(ctx, t, image); err != nil {
			return s, err
		}
	}
	s.stored, err = treeSize(filepath.Join(dir, "repo"))
	return s, err
}

// checkRestored compares the restored image and removes it.
func (b bench) checkRestored(ctx context.Context, t tool, image string) error {
	out := filepath.Join(b.folder(t), t.restored)
	if err := compareFiles(ctx, image, out); err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	if filepath.Dir(t.restored) != "." {
		out = filepath.Dir(out)
	}
	return os.RemoveAll(out)
}
