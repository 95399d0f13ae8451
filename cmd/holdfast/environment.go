package main

import (
	"fmt"
	"slices"
	"strings"
)

// Variables that stand for flags. Passphrases are in secrets.go.
const (
	envRepository    = "HOLDFAST_REPOSITORY"
	envRepositoryPBS = "PBS_REPOSITORY"
	envNamespace     = "HOLDFAST_NAMESPACE"
	envNamespacePBS  = "PBS_NAMESPACE"
	envKeyfile       = "HOLDFAST_KEYFILE"
)

// knownVariables are all that begin with HOLDFAST_.
func knownVariables() []string {
	names := []string{envRepository, envNamespace, envKeyfile}
	for _, s := range []secret{encryptionPassphrase(), newEncryptionPassphrase(), masterPassphrase()} {
		for _, form := range secretForms() {
			names = append(names, s.sources[0].variable+form)
		}
	}
	return names
}

// unknownVariables finds what looks like ours and is not: a misspelt name
// would otherwise silently choose another key or repository. Those for tests
// are left alone.
func unknownVariables(env map[string]string) []string {
	known := knownVariables()
	var unknown []string
	for name := range env {
		if strings.HasPrefix(name, "HOLDFAST_") && !strings.HasPrefix(name, "HOLDFAST_TEST_") && !slices.Contains(known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// guess is a half-sentence about what name was probably meant to be.
func guess(name string, names []string) string {
	if best := nearest(name, names); best != "" {
		return fmt.Sprintf("; did you mean $%s?", best)
	}
	return ""
}
