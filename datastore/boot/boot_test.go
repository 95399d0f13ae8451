package boot

import (
	"strings"
	"testing"
)

func TestUptime(t *testing.T) {
	id, first := Uptime()
	again, then := Uptime()
	if !Valid(id) || id != again || first <= 0 || then < first {
		t.Errorf("%q at %v, %q at %v", id, first, again, then)
	}
}

func TestValid(t *testing.T) {
	for id, want := range map[string]bool{
		"": false, "0-a": true, "A": false, "0 1": false, "0\n": false,
		strings.Repeat("f", idMax): true, strings.Repeat("f", idMax+1): false,
	} {
		if Valid(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
}
