package datastore

import (
	"errors"
	"slices"
	"testing"

	"holdfast/chunkstore/pack"
)

// What is told of the opening counts what it names, and nothing else.
func TestNotifyCounts(t *testing.T) {
	for name, tc := range map[string]struct {
		r    pack.OpenReport
		want []string
	}{
		"nothing": {},
		"one missing, another hurt": {
			pack.OpenReport{PacksMissing: 1, Missing: []string{"a.pack"}, Names: []string{"a.pack", "b.pack"}},
			[]string{"1 pack is missing: a.pack; holdfast verify tells which snapshots need it. When they have been backed up anew, or forgotten, holdfast gc ends this"},
		},
		"more missing than named": {
			pack.OpenReport{PacksMissing: 3, Missing: []string{"a.pack", "b.pack"}},
			[]string{"3 packs are missing: a.pack, b.pack, …; holdfast verify tells which snapshots need them. When they have been backed up anew, or forgotten, holdfast gc ends this"},
		},
		"rebuilt": {
			pack.OpenReport{Rebuilt: errors.New("why"), Reindex: pack.ReindexReport{Packs: 1, Chunks: 1, RecordsDamaged: 1, Names: []string{"a.pack"}}, BytesCut: 1},
			[]string{"the catalogue was rebuilt from 1 pack with 1 chunk: why", "1 damaged place was found in a.pack; run: holdfast verify",
				"the last writer was interrupted: 1 byte of an unfinished chunk dropped"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			(&Store{opts: Options{Notify: func(text string) { got = append(got, text) }}}).notify(tc.r)
			if !slices.Equal(got, tc.want) {
				t.Errorf("told %q, want %q", got, tc.want)
			}
		})
	}
}
