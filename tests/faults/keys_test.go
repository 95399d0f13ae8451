package faults

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestKeys asks for encrypted data with no key, a wrong one, or one that does not
// open. The answer is exit status 12 and nothing is written.
func TestKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRepo(t, dir)
	protected, wrong, damaged := filepath.Join(dir, "protected.json"), filepath.Join(dir, "wrong.json"), filepath.Join(dir, "damaged.json")
	pass := []string{"HOLDFAST_ENCRYPTION_PASSWORD=right one"}
	start(t, command{args: []string{"key", "create", "--kdf", "pbkdf2", protected}, env: pass}).wait(t).want(t, exitOK)
	holdfast(t, "key", "create", "--kdf", "none", wrong).want(t, exitOK)
	write(t, damaged, read(t, r.key)[:100])
	image := "disk0.img:" + write(t, filepath.Join(dir, "disk.raw"), mixed(30, 3<<20))
	s, signed := snap{"vm/1", 0}, snap{"vm/2", 0}
	start(t, command{args: r.backupArgs(s, "--keyfile", protected, image), env: pass}).wait(t).want(t, exitOK)
	start(t, command{args: r.backupArgs(signed, "--keyfile", protected, "--crypt-mode", "sign-only", image), env: pass}).wait(t).want(t, exitOK)

	for name, c := range map[string]struct {
		key, pass string
		mode      string
		code      int
		words     []string
	}{
		"right":                {key: protected, pass: "right one", code: exitOK},
		"wrong key":            {key: wrong, code: exitKey, words: []string{"key"}},
		"wrong passphrase":     {key: protected, pass: "wrong one", code: exitKey, words: []string{"passphrase"}},
		"empty passphrase":     {key: protected, pass: "", code: exitKey, words: []string{"passphrase"}},
		"no key":               {code: exitKey, words: []string{"encrypted", "--keyfile"}},
		"no key on purpose":    {mode: "none", code: exitKey, words: []string{"encrypted"}},
		"damaged key file":     {key: damaged, code: exitIntegrity, words: []string{"damaged.json"}},
		"key file not there":   {key: filepath.Join(dir, "none.json"), code: exitNotFound, words: []string{"none.json"}},
		"key file a directory": {key: dir, code: exitError, words: []string{dir}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var flags, env []string
			if c.key != "" {
				flags = append(flags, "--keyfile", c.key)
			}
			if c.mode != "" {
				flags = append(flags, "--crypt-mode", c.mode)
			}
			if c.pass != "" || strings.Contains(name, "empty") {
				env = append(env, "HOLDFAST_ENCRYPTION_PASSWORD="+c.pass)
			}
			target := filepath.Join(t.TempDir(), "target.raw")
			args := append([]string{"restore", "-r", r.path, s.String(), "disk0.img", target}, flags...)
			got := start(t, command{args: args, env: env}).wait(t).want(t, c.code, c.words...)
			if strings.Contains(got.Err, "right one") || c.pass != "" && strings.Contains(got.Err, c.pass) {
				t.Errorf("the passphrase is told: %s", got)
			}
			if c.code != exitOK {
				gone(t, target)
			}
			if c.key != "" && c.mode == "" {
				args := append([]string{"verify", "-r", r.path, "--no-progress"}, flags...)
				start(t, command{args: args, env: env}).wait(t).want(t, c.code, c.words...)
			}
		})
	}
	t.Run("signed only", func(t *testing.T) {
		t.Parallel()
		target := filepath.Join(t.TempDir(), "target.raw")
		holdfast(t, "restore", "-r", r.path, signed.String(), "disk0.img", target, "--keyfile", wrong).want(t, exitKey, "key")
		gone(t, target)
	})
	t.Run("backup without key", func(t *testing.T) {
		t.Parallel()
		for _, mode := range []string{"encrypt", "sign-only"} {
			holdfast(t, "backup", "-r", r.path, "--backup-id", mode, "--crypt-mode", mode, image).want(t, exitKey, "--keyfile")
		}
		start(t, command{args: r.backupArgs(snap{"vm/3", 0}, "--keyfile", protected, image)}).wait(t).want(t, exitKey, "passphrase")
	})
	t.Cleanup(func() { r.wantList(t, s, signed) })
}
