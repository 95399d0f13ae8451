package secret

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/command/term"
	"holdfast/datastore/wire"
)

// Variables that stand for flags. Passphrases are in secret.go.
const (
	envPrefix = "HOLDFAST_"

	EnvRepository    = "HOLDFAST_REPOSITORY"
	EnvRepositoryPBS = "PBS_REPOSITORY"
	EnvNamespace     = "HOLDFAST_NAMESPACE"
	EnvNamespacePBS  = "PBS_NAMESPACE"
	envKeyfile       = "HOLDFAST_KEYFILE"
	EnvData          = "HOLDFAST_DATA"

	EnvFingerprint    = "HOLDFAST_FINGERPRINT"
	EnvFingerprintPBS = "PBS_FINGERPRINT"

	EnvTimeout = "HOLDFAST_TIMEOUT"
)

// knownVariables are all that begin with HOLDFAST_.
func knownVariables() []string {
	names := []string{EnvRepository, EnvNamespace, envKeyfile, EnvData, EnvFingerprint, EnvTimeout}
	for _, k := range allKinds() {
		for _, form := range forms() {
			names = append(names, k.sources[0].variable+form)
		}
	}
	return names
}

// allKinds are those that can come from the environment.
func allKinds() []Kind {
	return []Kind{
		EncryptionPassphrase(), NewEncryptionPassphrase(), MasterPassphrase(), Login(wire.RootUser), NewUserPassword(wire.RootUser),
	}
}

// Variables are the variables that hold a secret themselves.
func Variables() []string {
	var names []string
	for _, k := range allKinds() {
		for _, src := range k.sources {
			names = append(names, src.variable)
		}
	}
	return names
}

// CheckVariables refuses a name that is probably one of ours misspelt, which
// would otherwise silently choose another key or repository, and warns of others
// that look like ours.
func (s Source) CheckVariables() error {
	for _, name := range unknownVariables(s.Env) {
		best := guess(name, knownVariables())
		if best != "" {
			return term.Hintf(term.Usagef("$%s is not a variable of Holdfast", name), "did you mean $%s? if not, call it something that does not begin with %s", best, envPrefix)
		}
		s.UI.Warnf("$%s is not a variable of Holdfast and is ignored", name)
	}
	return nil
}

// unknownVariables finds what looks like ours and is not. Those for tests are
// left alone.
func unknownVariables(env map[string]string) []string {
	known := knownVariables()
	var unknown []string
	for name := range env {
		if strings.HasPrefix(name, envPrefix) && !strings.HasPrefix(name, "HOLDFAST_TEST_") && !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// guess is what a name was probably meant to be, "" if nothing is near.
func guess(name string, names []string) string {
	// What all have in common says nothing about which was meant.
	var own []string
	for _, n := range names {
		own = append(own, strings.TrimPrefix(n, envPrefix))
	}
	if best := term.Nearest(strings.TrimPrefix(name, envPrefix), own); best != "" {
		return envPrefix + best
	}
	return ""
}

// Setting is the value of a flag, or of the first variable that is defined.
// from says which it was, "" if none.
func (s Source) Setting(given term.Given, flag string, variables ...string) (value, from string) {
	if given.Flags.IsSet(flag) {
		return given.Flags.String(flag), "--" + flag
	}
	for _, v := range variables {
		if value, ok := s.Env[v]; ok {
			return value, "$" + v
		}
	}
	return "", ""
}

// Credential reads the first of some systemd credentials; from is "" if none
// is there.
func (s Source) Credential(names ...string) (text, from string, err error) {
	dir, ok := s.Env["CREDENTIALS_DIRECTORY"]
	if !ok {
		return "", "", nil
	}
	for _, name := range names {
		p, err := FromFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return string(p), "credential " + name, err
	}
	return "", "", nil
}
