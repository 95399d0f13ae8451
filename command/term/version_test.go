package term

import "testing"

// A release calls itself by its tag, and nothing else calls itself a release.
func TestVersionIsThatOfTheTag(t *testing.T) {
	for main, want := range map[string]string{
		"v1.2.3":                             "1.2.3",
		"v1.2.3-rc.1":                        "1.2.3-rc.1",
		"v1.2.3+dirty":                       unreleased,
		"v0.0.0-20261130120000-0123456789ab": unreleased,
		"v1.2.4-0.20261130120000-0123456789ab+dirty": unreleased,
		"(devel)": unreleased,
		"":        unreleased,
	} {
		if got := versionOf(main); got != want {
			t.Errorf("%q gives %q, want %q", main, got, want)
		}
	}
}
