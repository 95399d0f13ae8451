package faults

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"holdfast/tests/harness"
)

// TestStays compares commands of a process that stays with those of processes of
// their own: they print the same and end with the same status.
func TestStays(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	dir := t.TempDir()
	r := newRepo(t, dir)
	s := snap{"vm/1", 0}
	r.backup(t, s, "disk0.img:"+write(t, filepath.Join(dir, "disk.raw"), noise(160, 3000))).want(t, exitOK)
	for _, line := range []string{
		"version", "snapshot list --json -r STORE", "list -r STORE", "verify --no-progress --keyfile KEY -r STORE", "gc --no-progress -r STORE",
		"restore --no-progress --keyfile KEY -r STORE SNAP disk0.img -", "restore --no-progress --keyfile KEY -r STORE SNAP disk1.img -",
		"restore --no-progress -r STORE SNAP disk0.img -", "snapshot list -r STORE/nowhere", "snapshot list --json -r STORE/nowhere",
		"no command", "verify --no-flag", "key show KEY", "", "--help", "snapshot forget --help",
	} {
		t.Run(line, func(t *testing.T) {
			args := strings.Fields(strings.NewReplacer("STORE", r.path, "KEY", r.key, "SNAP", s.String()).Replace(line))
			alone := start(t, command{args: args}).wait(t)
			for range 2 {
				stays := holdfast(t, args...)
				if stays.Code != alone.Code || timeless(stays.Out) != timeless(alone.Out) || timeless(stays.Err) != timeless(alone.Err) {
					t.Errorf("a process that stays: %q\na process of its own: %q", stays, alone)
				}
			}
		})
	}
}

// timeless is what a command has printed without how long it took.
func timeless(text string) string {
	text = regexp.MustCompile(`[0-9.]+ [KMG]i?B/s`).ReplaceAllString(text, "RATE")
	return regexp.MustCompile(`[0-9.]+ ?m?s\b`).ReplaceAllString(text, "TIME")
}
