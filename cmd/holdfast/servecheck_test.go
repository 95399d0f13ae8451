package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/command/repo"
	"holdfast/command/term"
)

// What a start would stumble over is said by --check, which changes nothing.
func TestServeCheckFindsWhatAStartWould(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	garbage := func(names ...string) func(*bench) error {
		return func(b *bench) error {
			for _, n := range names {
				if err := os.WriteFile(b.path("data/"+n), []byte("x"), 0o600); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for name, tc := range map[string]struct {
		spoil func(*bench) error
		args  []string
		want  string // "" for good
	}{
		"as it is":                  {spoil: garbage()},
		"garbage certificate":       {spoil: garbage(repo.DataCertName, repo.DataKeyName), want: "load certificate"},
		"certificate without key":   {spoil: garbage(repo.DataCertName), want: "load certificate"},
		"key without certificate":   {spoil: garbage(repo.DataKeyName), want: "load certificate"},
		"configured certificate":    {spoil: garbage("holdfast.toml"), args: []string{"--config", "data/holdfast.toml"}, want: "configuration"},
		"garbage users":             {spoil: garbage(repo.DataAccessName), want: "open users and rights"},
		"address in use":            {spoil: garbage(), args: []string{"--listen", taken.Addr().String()}, want: "address already in use"},
		"no port":                   {spoil: garbage(), args: []string{"--listen", "127.0.0.1:99999"}, want: "invalid port"},
		"not an address of this":    {spoil: garbage(), args: []string{"--listen", "192.0.2.1:0"}, want: "cannot assign"},
		"data directory is a file":  {spoil: func(b *bench) error { return os.WriteFile(b.path("f"), nil, 0o600) }, args: []string{"--data", "f"}, want: "not a directory"},
		"data directory below file": {spoil: func(b *bench) error { return os.WriteFile(b.path("f"), nil, 0o600) }, args: []string{"--data", "f/data"}, want: "not a directory"},
		"data directory to be made": {spoil: garbage(), args: []string{"--data", "new/data"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if err := os.Mkdir(b.path("data"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tc.spoil(b); err != nil {
				t.Fatal(err)
			}
			before := listing(t, b.dir)
			t.Chdir(b.dir)
			args := append([]string{"serve", "--check", "--data", "data", "--listen", "127.0.0.1:0"}, tc.args...)
			code := b.run(args)
			if tc.want == "" && code != term.ExitOK || tc.want != "" && code == term.ExitOK || !strings.Contains(b.err.String(), tc.want) {
				t.Errorf("exit code %d, %s", code, b.err.String())
			}
			if after := listing(t, b.dir); after != before && name != "garbage users" {
				t.Errorf("the check has changed files:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// listing is every name below dir.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, "\n")
}
