package term

import "testing"

func TestOneOf(t *testing.T) {
	for _, tc := range []struct {
		value string
		words []string
		want  string // "" for allowed
	}{
		{"b", []string{"a", "b"}, ""},
		{"", []string{"a", "b"}, `--f "": want a or b`},
		{"x\x1b", []string{"a", "b", "c"}, `--f "x\x1b": want a, b or c`},
	} {
		got := ""
		if err := OneOf("f", tc.value, tc.words...); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("OneOf(%q, %q): %s, want %s", tc.value, tc.words, got, tc.want)
		}
	}
}
