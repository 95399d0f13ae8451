// Command bench measures Holdfast against restic and borg on disk images of
// real Debian systems, and writes docs/bench.md from what it measured; with
// -chunking it compares ways of cutting images and writes docs/chunking.md.
//
// The images are made by images.sh in $HOLDFAST_BENCH_DIR (default
// /var/tmp/holdfast-bench) and kept there for later runs. Every number in the
// two documents comes from the run that wrote them; nothing is copied by hand.
//
// It imports the rooms whose speed limits it shows (crypto, chunkstore/chunker,
// chunkstore/blob) and runs everything else through the built binaries.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

//go:embed images.sh
var imagesScript []byte

// settings are the command line.
type settings struct {
	rounds    int
	only      string
	chunking  bool
	server    bool
	gc        bool
	lists     bool
	synthetic string
	limits    bool
	imageDir  string
	out       string
}

func main() {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 3, "how often each command is measured")
	flag.StringVar(&s.only, "only", "", "measure only these `SCENARIOS`, joined by commas: night, neighbour, dense")
	flag.BoolVar(&s.chunking, "chunking", false, "compare ways of cutting instead; writes docs/chunking.md")
	flag.BoolVar(&s.server, "server", false, "compare a server with a path instead; writes docs/bench-server.md")
	flag.BoolVar(&s.gc, "gc", false, "measure the garbage collection of synthetic stores instead; writes docs/bench-gc.md")
	flag.BoolVar(&s.lists, "lists", false, "measure the lists of a repository with many groups instead; writes docs/bench-lists.md")
	flag.StringVar(&s.synthetic, "synthetic", "", "fill the repository of `CHUNKS,REFERENCES,SNAPSHOTS,GROUPS,DIRECTORY` and nothing else")
	flag.BoolVar(&s.limits, "limits", false, "print the limits of this machine as JSON and nothing else")
	flag.StringVar(&s.out, "o", "", "write the document to `FILE` instead of docs/")
	flag.Parse()
	s.imageDir = os.Getenv("HOLDFAST_BENCH_DIR")
	if s.imageDir == "" {
		s.imageDir = "/var/tmp/holdfast-bench"
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	if s.limits {
		l, err := measureLimits(s.imageDir)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(l)
	}
	if s.synthetic != "" {
		what, dir, err := parseSynthetic(s.synthetic)
		if err != nil {
			return err
		}
		return what.make(ctx, dir)
	}
	if s.gc {
		doc, err := compareGC(ctx, s)
		if err != nil {
			return err
		}
		return writeDoc(s.out, "docs/bench-gc.md", doc)
	}
	if s.lists {
		doc, err := compareLists(ctx, s)
		if err != nil {
			return err
		}
		return writeDoc(s.out, "docs/bench-lists.md", doc)
	}
	if err := makeImages(ctx, s.imageDir); err != nil {
		return err
	}
	if s.chunking {
		rows, err := chunkingTable(s.imageDir, os.Stdout)
		if err != nil {
			return err
		}
		return writeDoc(s.out, "docs/chunking.md", chunkingDoc(rows))
	}
	if s.server {
		doc, err := compareServer(ctx, s)
		if err != nil {
			return err
		}
		return writeDoc(s.out, "docs/bench-server.md", doc)
	}
	doc, err := compare(ctx, s)
	if err != nil {
		return err
	}
	return writeDoc(s.out, "docs/bench.md", doc)
}

// makeImages runs images.sh, which does nothing when all images are there.
func makeImages(ctx context.Context, dir string) error {
	tools := filepath.Join(dir, "bin")
	if err := os.MkdirAll(tools, 0o755); err != nil {
		return err
	}
	mkimage := filepath.Join(tools, "mkimage")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", mkimage, "./tests/demo/mkimage")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build mkimage: %w\n%s", err, out)
	}
	script := filepath.Join(tools, "images.sh")
	if err := os.WriteFile(script, imagesScript, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "sh", script, dir, mkimage)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	return nil
}

func writeDoc(chosen, usual, text string) error {
	name := usual
	if chosen != "" {
		name = chosen
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Println("wrote", name)
	return nil
}
