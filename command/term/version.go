package term

import (
	"runtime/debug"
	"strings"
)

// unreleased is the version of a program that was not built from a release.
const unreleased = "0.0.0-dev"

// Version is that of the program as the build has written it down: the tag of the release,
// without its v.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unreleased
	}
	return versionOf(info.Main.Version)
}

// versionOf makes a version of what the go command says: a tag, a word in brackets if it
// knows nothing, or, between releases, a version that it makes up of a time and the revision.
func versionOf(main string) string {
	tag, found := strings.CutPrefix(main, "v")
	if !found || strings.Contains(tag, "+dirty") || strings.Count(tag, "-") > 1 {
		return unreleased
	}
	return tag
}
