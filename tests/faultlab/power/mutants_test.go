package power

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/tests/faultlab/lab"
)

// mutant is a mistake built into the program.
type mutant struct {
	name    string
	fs      lab.FS
	patches []lab.Patch
}

// The calls that make things durable.
const (
	durableFile = "chunkstore/durable/durable.go"
	writerFile  = "chunkstore/pack/writer.go"
	finishFile  = "datastore/finish.go"

	syncFile = "if err := f.Sync(); err != nil {"
	syncDir  = "err = d.Sync()"
	syncPack = "if err := w.disk.Do(\"sync\", w.path, w.f.Sync); err != nil {"
	noError  = "if err := error(nil); err != nil {"
)

func mutants() []mutant {
	noFileSync := []lab.Patch{lab.Replace(durableFile, syncFile, noError), lab.Replace(writerFile, syncPack, noError)}
	noPackSync := []lab.Patch{lab.Replace(writerFile, syncPack, noError)}
	noDirSync := []lab.Patch{lab.Replace(durableFile, syncDir, "err = nil")}
	// Nobody waits for the chunks of a snapshot.
	noChunkSync := []lab.Patch{lab.Replace(finishFile, "if err := ss.puts.Sync(ctx); err != nil {", noError)}
	return []mutant{
		{"no file fsync", lab.Ext4(), noFileSync},
		{"no file fsync", lab.XFS(), noFileSync},
		{"no pack fsync", lab.Ext4(), noPackSync},
		{"no directory fsync", lab.Ext4(), noDirSync},
		{"no directory fsync", lab.XFS(), noDirSync},
		{"finish without chunks", lab.Ext4(), noChunkSync},
		{"finish without chunks", lab.XFS(), noChunkSync},
	}
}

// mutantCuts is how many cuts a mistake may survive: more than chance needs.
const mutantCuts = 1000

// TestMutants finds every mistake that is built in.
func TestMutants(t *testing.T) {
	for i, m := range mutants() {
		t.Run(m.name+"/"+m.fs.Name, func(t *testing.T) {
			t.Parallel()
			agent, err := here.BuildAgent(m.patches...)
			if err != nil {
				t.Fatal(err)
			}
			n, err := run(m.fs, programs{here.Program, agent}, uint64(1000*i), mutantCuts)
			if err == nil {
				t.Fatalf("not found in %d cuts", n.cuts)
			}
			first, _, _ := strings.Cut(err.Error(), "\n")
			t.Logf("found at cut %d: %s", n.cuts, first)
			t.Attr("faultlab.power-mutants", "1")
		})
	}
}

// TestCatalogueNeverSynced finds nothing wrong with a program that never makes
// the catalogue durable: it is a cache, and the packs know it all.
func TestCatalogueNeverSynced(t *testing.T) {
	t.Parallel()
	agent, err := here.BuildAgent(lab.Replace("chunkstore/pack/catalogue/catalogue.go", "NoSync:       bulk,", "NoSync:       true,"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := run(lab.Ext4(), programs{here.Program, agent}, uint64(time.Now().UnixNano()), 16*here.Scale)
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d cuts", n.cuts)
	t.Attr("faultlab.power-ext4", strconv.Itoa(n.cuts))
}
