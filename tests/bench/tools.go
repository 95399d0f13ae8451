package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	// diskName is the name under which every image is backed up.
	diskName = "disk.img"
	// passphrase of the repositories, which are thrown away.
	passphrase = "bench"
)

// tool is one program under test. Every command runs in a folder of the
// tool's own that holds disk.img, repo and whatever else it keeps.
type tool struct {
	name    string
	env     []string
	version []string
	setup   [][]string
	backup  []string
	again   []string // backup of an unchanged image that must be read again
	restore []string
	// restored is the file that restore makes.
	restored string
	verify   []string
}

// tools lists the programs; bin is the holdfast binary.
func tools(bin string) []tool {
	hold := []string{bin, "-q", "--no-progress", "-r", "./repo"}
	holdBackup := append(append([]string{}, hold...),
		"backup", "--keyfile", "key.json", "--backup-type", "vm", "--backup-id", "100", "disk0.img:"+diskName)
	resticBackup := []string{"restic", "-q", "backup", "--compression", "auto", "--force", diskName}
	borgBackup := []string{"borg", "create", "--compression", "zstd,1", "--files-cache=disabled", "repo::{now:%s.%f}", diskName}
	return []tool{
		{
			name:    "holdfast",
			version: []string{bin, "version"},
			setup: [][]string{
				{bin, "-q", "init", "./repo"},
				{bin, "-q", "key", "create", "key.json", "--kdf", "none"},
			},
			backup: holdBackup,
			again:  holdBackup,
			restore: append(append([]string{}, hold...),
				"restore", "--keyfile", "key.json", "vm/100/latest", "disk0.img", "out.img"),
			restored: "out.img",
			verify:   append(append([]string{}, hold...), "verify", "--keyfile", "key.json"),
		},
		{
			name:     "restic",
			env:      []string{"RESTIC_PASSWORD=" + passphrase, "RESTIC_REPOSITORY=repo", "RESTIC_CACHE_DIR=cache"},
			version:  []string{"restic", "version"},
			setup:    [][]string{{"restic", "-q", "init", "--repository-version", "2"}},
			backup:   resticBackup,
			again:    resticBackup,
			restore:  []string{"restic", "-q", "restore", "latest", "--target", "out"},
			restored: "out/" + diskName,
			verify:   []string{"restic", "-q", "check", "--read-data"},
		},
		{
			name:     "borg",
			env:      []string{"BORG_PASSPHRASE=" + passphrase, "BORG_BASE_DIR=base"},
			version:  []string{"borg", "--version"},
			setup:    [][]string{{"borg", "init", "--encryption", "repokey", "repo"}},
			backup:   borgBackup,
			again:    borgBackup,
			restore:  []string{"sh", "-c", "mkdir out && cd out && exec borg extract --sparse ../repo::$(borg list --last 1 --short ../repo)"},
			restored: "out/" + diskName,
			verify:   []string{"borg", "check", "--verify-data", "repo"},
		},
	}
}

// absolute makes the folders in the tool's environment absolute; some programs
// change into others.
func (t tool) absolute(dir string) []string {
	env := make([]string, len(t.env))
	for i, e := range t.env {
		name, value, _ := strings.Cut(e, "=")
		switch name {
		case "RESTIC_REPOSITORY", "RESTIC_CACHE_DIR", "BORG_BASE_DIR":
			value = filepath.Join(dir, value)
		}
		env[i] = name + "=" + value
	}
	return env
}

// versionLine is the first line that the program prints of its version.
func (t tool) versionLine(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, t.version[0], t.version[1:]...).Output()
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, nil
}

// present makes dir/disk.img another name of the image.
func present(dir, image string) error {
	name := filepath.Join(dir, diskName)
	if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Link(image, name)
}
