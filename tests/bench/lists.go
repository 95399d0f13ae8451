package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// listed is the repository whose lists are measured.
var listed = synthetic{chunks: 3000, references: 63_000, snapshots: 21_000, groups: 3000}

// The bars of lists.
const (
	barList       = 10 * time.Second
	barListFactor = 2.0 // of the time on a path
)

// listRow is one command, on a path and through a server.
type listRow struct {
	command string
	path    []sample
	server  []sample // of the client
	behind  []sample // what the server took meanwhile
}

// compareLists measures the lists and returns the document.
func compareLists(ctx context.Context, s settings) (string, error) {
	if err := os.MkdirAll(s.imageDir, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(s.imageDir, "run-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	b := &serverBench{settings: s, work: work, bin: filepath.Join(work, "holdfast")}
	if err := buildHoldfast(ctx, b.bin); err != nil {
		return "", err
	}
	if err := b.prepareLists(ctx); err != nil {
		return "", err
	}
	stop, err := b.startServer(ctx, work)
	if err != nil {
		return "", err
	}
	defer stop()
	_, err = measure(ctx, command{work, b.env, []string{b.bin, "-q", "datastore", "create", "many", filepath.Join(work, "repo"), "--reuse", "--data", "./data"}})
	if err != nil {
		return "", err
	}
	rows := []*listRow{{command: "snapshot list"}, {command: "list"}, {command: "status"}}
	for round := range s.rounds {
		for _, r := range rows {
			if err := b.measureList(ctx, round, r); err != nil {
				return "", err
			}
		}
	}
	m, err := describeMachine(ctx, bench{settings: s, tools: tools(b.bin)[:1]})
	if err != nil {
		return "", err
	}
	return listsDoc(m, rows), nil
}

// prepareLists makes the repository twice: a server keeps its own to itself.
func (b *serverBench) prepareLists(ctx context.Context) error {
	for _, name := range []string{"repo", "twin"} {
		if _, err := measure(ctx, command{b.work, nil, []string{b.bin, "-q", "init", name}}); err != nil {
			return err
		}
		if err := makeSynthetic(ctx, listed, filepath.Join(b.work, name)); err != nil {
			return err
		}
		// It dates the snapshots, which nobody has received.
		if _, err := measure(ctx, command{b.work, nil, []string{b.bin, "-q", "repair", "-r", "./" + name}}); err != nil {
			return err
		}
	}
	return nil
}

// measureList runs a command in both places, which take turns in coming first.
func (b *serverBench) measureList(ctx context.Context, round int, r *listRow) error {
	onPath := func() error {
		one, err := measure(ctx, command{b.work, nil, b.listArgs(r, "./twin")})
		r.path = append(r.path, one)
		return err
	}
	onServer := func() error {
		before, err := processSample(b.server.Process.Pid)
		if err != nil {
			return err
		}
		one, err := measure(ctx, command{b.work, b.env, b.listArgs(r, "root@pam!admin@"+serverPort+":many")})
		if err != nil {
			return err
		}
		after, err := processSample(b.server.Process.Pid)
		after.cpu -= before.cpu
		r.server, r.behind = append(r.server, one), append(r.behind, after)
		return err
	}
	first, second := onPath, onServer
	if round%2 == 1 {
		first, second = second, first
	}
	if err := errors.Join(first(), second()); err != nil {
		return err
	}
	fmt.Printf("%s: path %.2f s, server %.2f s\n", r.command, r.path[round].wall.Seconds(), r.server[round].wall.Seconds())
	return nil
}

func (b *serverBench) listArgs(r *listRow, repository string) []string {
	return append(append([]string{b.bin}, strings.Fields(r.command)...), "-r", repository)
}

// listsDoc writes the document.
func listsDoc(m machine, rows []*listRow) string {
	var d strings.Builder
	fmt.Fprintf(&d, "# Lists of many groups\n\nWritten by `go run ./tests/bench -lists` on %s; every number is from that run.\n\n", m.date.Format("2006-01-02"))
	fmt.Fprintf(&d, "Machine: %s, %d cores, %.0f GiB of memory, %s, repositories on %s.\n\n", m.cpu, m.cores, float64(m.memory)/gib, m.kernel, m.fileSystem)
	fmt.Fprintf(&d, listsConditions, listed.snapshots, listed.groups, m.rounds)
	d.WriteString("| command | path, s | server, s | server / path | CPU path, s | CPU client and server, s | memory client, MiB | memory server, MiB | |\n|---|---:|---:|---:|---:|---:|---:|---:|---|\n")
	for _, r := range rows {
		path, server, behind := median(r.path), median(r.server), median(r.behind)
		factor := server.wall.Seconds() / path.wall.Seconds()
		verdict := "met"
		if server.wall >= barList || factor > barListFactor {
			verdict = "**missed**"
		}
		fmt.Fprintf(&d, "| `%s` | %.2f | %.2f | %.2f | %.2f | %.2f | %d | %d | %s |\n", r.command, path.wall.Seconds(), server.wall.Seconds(), factor,
			path.cpu.Seconds(), server.cpu.Seconds()+behind.cpu.Seconds(), peak(r.server)/mib, peak(r.behind)/mib, verdict)
	}
	return d.String()
}

const listsConditions = `A repository with %d snapshots in %d groups, once as a path and once as the datastore of a server on loopback; medians of %d. Through a server it must
take less than 10 s and no more than twice as long as on a path. A list is one request for each namespace; its answer is streamed and
taken apart as it comes.

`
