package datastore

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// Root who writes to the repository of somebody else is told what that means.
func TestOwnerOfFilesIsTold(t *testing.T) {
	path := t.TempDir() + "/store"
	if err := Create(path, CreateOptions{TrashDays: TrashDaysDefault}); err != nil {
		t.Fatal(err)
	}
	open := func(readOnly bool) string {
		t.Helper()
		var told []string
		s, err := Open(t.Context(), path, Options{ReadOnly: readOnly, Notify: func(text string) { told = append(told, text) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return strings.Join(told, "\n")
	}
	if got := open(false); got != "" {
		t.Errorf("in a store of its own: %q", got)
	}
	want := "belongs to user 65534, and what is made in it now to user 0"
	if got := ownerNotice("/srv/x", 65534, 0); !strings.Contains(got, want) {
		t.Error(got)
	}
	if os.Geteuid() != 0 {
		return // only root can give a directory away
	}
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if got := open(false); !strings.Contains(got, want) {
		t.Errorf("in a store of somebody else: %q", got)
	}
	if got := open(true); got != "" {
		t.Errorf("for reading: %q", got)
	}
	left, err := os.ReadDir(path + "/" + tempDir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A store that has lost its configuration is not taken for none.
func TestLostConfigurationIsNotNoStore(t *testing.T) {
	for name, spoil := range map[string]func(string) error{
		"lost":    os.Remove,
		"empty":   func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"garbage": func(p string) error { return os.WriteFile(p, []byte("{}"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir() + "/store"
			if err := Create(path, CreateOptions{TrashDays: TrashDaysDefault}); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path+"/"+chunksDir+"/packs/0123456789abcdef.pack", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := spoil(path + "/" + configName); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), path, Options{ReadOnly: true})
			if !errors.Is(err, ErrConfig) || errors.Is(err, ErrNoStore) {
				t.Errorf("%v, want the configuration to be called lost", err)
			}
			if again, err := RestoreConfig(path); err != nil || !again {
				t.Errorf("made anew: %v, %v", again, err)
			}
		})
	}
	if _, err := Open(t.Context(), t.TempDir(), Options{}); !errors.Is(err, ErrNoStore) {
		t.Errorf("an empty directory: %v", err)
	}
}
