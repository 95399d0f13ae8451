package term

import (
	"errors"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "17": 17, "20MiB": 20 << 20, "100MB": 100e6, "1.5 GiB": 3 << 29, "1k": 1000, "1 KiB": 1024, "2t": 2e12,
		"9223372036854775807": 9223372036854775807, " 5 b ": 5,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.2.3M", "12 parsecs", "1e3", "9223372036854775808", "99999999P", "0x10", "inf", "NaN"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		}
	}
	for _, text := range []string{"9223372036854775808", "8EiB", "16 eb", "99999999P", "99999999999999TiB", strings.Repeat("9", 400)} {
		if _, err := ParseSize(text); !errors.Is(err, errSizeLarge) {
			t.Errorf("parseSize(%q): %v, want it to be too large", text, err)
		}
	}
}
