package main

import (
	"slices"
	"strings"

	"holdfast/command/term"
	"holdfast/datastore/wire"
)

// Variables that stand for flags. Passphrases are in secrets.go.
const (
	envPrefix = "HOLDFAST_"

	envRepository    = "HOLDFAST_REPOSITORY"
	envRepositoryPBS = "PBS_REPOSITORY"
	envNamespace     = "HOLDFAST_NAMESPACE"
	envNamespacePBS  = "PBS_NAMESPACE"
	envKeyfile       = "HOLDFAST_KEYFILE"
	envData          = "HOLDFAST_DATA"

	envFingerprint    = "HOLDFAST_FINGERPRINT"
	envFingerprintPBS = "PBS_FINGERPRINT"

	envTimeout = "HOLDFAST_TIMEOUT"
)

// knownVariables are all that begin with HOLDFAST_.
func knownVariables() []string {
	names := []string{envRepository, envNamespace, envKeyfile, envData, envFingerprint, envTimeout}
	for _, s := range allSecrets() {
		for _, form := range secretForms() {
			names = append(names, s.sources[0].variable+form)
		}
	}
	return names
}

// allSecrets are those that can come from the environment.
func allSecrets() []secret {
	return []secret{
		encryptionPassphrase(), newEncryptionPassphrase(), masterPassphrase(), loginSecret(wire.RootUser), newUserPassword(wire.RootUser),
	}
}

// secretVariables are the variables that hold a secret themselves.
func secretVariables() []string {
	var names []string
	for _, s := range allSecrets() {
		for _, src := range s.sources {
			names = append(names, src.variable)
		}
	}
	return names
}

// checkVariables refuses a name that is probably one of ours misspelt, which
// would otherwise silently choose another key or repository, and warns of others
// that look like ours.
func (a *app) checkVariables() error {
	for _, name := range unknownVariables(a.env) {
		best := guess(name, knownVariables())
		if best != "" {
			return term.Hintf(term.Usagef("$%s is not a variable of Holdfast", name), "did you mean $%s? if not, call it something that does not begin with %s", best, envPrefix)
		}
		a.ui.Warnf("$%s is not a variable of Holdfast and is ignored", name)
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
