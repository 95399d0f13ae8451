package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"holdfast/chunkstore/pack"
	"holdfast/client"
	"holdfast/datastore/gc"
	"holdfast/datastore/wire"
)

func TestGCText(t *testing.T) {
	swept := pack.SweepReport{
		Chunks: 10, StoredBytes: 10 << 20, UsedChunks: 4, UsedBytes: 4 << 20, PacksTotal: 2, PacksDone: 2, PacksRemoved: 1, PacksRewritten: 1,
		ChunksRemoved: 5, BytesRemoved: 6 << 20, BytesMoved: 1 << 20,
	}
	full, waste, left := swept, swept, swept
	full.ChunksRemoved, full.BytesRemoved = 6, 7<<20
	waste.GarbageBytes = 2 << 20
	left.GarbageBytes, left.Left = 1<<19, []string{"pack 7: damaged"}
	for _, tc := range []struct {
		report pack.SweepReport
		dry    bool
		here   bool
		want   string
	}{
		{full, false, true, "removed 6 chunks and freed 6.00 MiB: 1 pack removed, 1 rewritten\n" +
			"in use by 3 archives of 2 snapshots (1 in the trash): 4 chunks, 4.00 MiB\n"},
		{full, false, false, "removed 6 chunks and freed 6.00 MiB\nin use by 3 archives or running sessions: 4 chunks, 4.00 MiB\n"},
		{swept, false, true, "kept without use: 1 chunk, about 1.00 MiB, in packs that are still being filled\n"},
		{swept, true, true, "would remove up to 5 chunks and free 5.00 MiB: "},
		{waste, false, true, "about 1.00 MiB, in packs with little waste\n"},
		{left, false, true, "512 KiB in packs with little waste, the rest in packs still being filled\nleft as it is: pack 7: damaged\n"},
	} {
		rec := gcRecord{DryRun: tc.dry, gcCounts: countsOf(gc.Report{Indexes: 3, SweepReport: tc.report})}
		if tc.here {
			rec.gcPacks = &gcPacks{
				Snapshots: 2, Deleted: 1, PacksRemoved: tc.report.PacksRemoved, PacksRewritten: tc.report.PacksRewritten,
				WasteBytes: tc.report.GarbageBytes, Left: tc.report.Left,
			}
		}
		var b strings.Builder
		if gcText(&b, rec); !strings.Contains(b.String(), tc.want) {
			t.Errorf("%q lacks %q", b.String(), tc.want)
		}
	}
}

// What a server says of a collection means what it means here.
func TestGCErrorsOfAServer(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want error // nil for none that is known
	}{
		{gcRunning(&client.StatusError{Code: 400, Text: "garbage collection of datastore 'tank' is running already"}), wire.ErrBusy},
		{fmt.Errorf("x: %w", &client.TaskError{Status: "collect garbage: " + gc.ErrNothingFound.Error()}), gc.ErrNothingFound},
		{&client.TaskError{Status: "collect garbage: " + pack.ErrSweeping.Error()}, pack.ErrSweeping},
		{&client.TaskError{Status: "disk on fire"}, nil},
		{gcRunning(wire.ErrPermission), wire.ErrPermission},
	} {
		for _, is := range []error{wire.ErrBusy, gc.ErrNothingFound, pack.ErrSweeping, wire.ErrPermission} {
			if errors.Is(tc.err, is) != (is == tc.want) {
				t.Errorf("%v: is it %v? want %v", tc.err, is, tc.want)
			}
		}
	}
}
