package main

import (
	"slices"
	"testing"

	"holdfast/command/term"
)

func TestUnknownVariables(t *testing.T) {
	env := map[string]string{
		"HOLDFAST_REPOSITRY": "", "HOLDFAST_REPOSITORY": "", "HOLDFAST_ENCRYPTION_PASSWORD_FD": "",
		"HOLDFAST_TEST_X": "", "HOLDFAST_ZEBRA": "", "HOLD": "", "PBS_ANYTHING": "",
	}
	if got := unknownVariables(env); !slices.Equal(got, []string{"HOLDFAST_REPOSITRY", "HOLDFAST_ZEBRA"}) {
		t.Errorf("unknownVariables = %v", got)
	}
	b := newBench(t, "HOLDFAST_KEYFLE=x")
	b.do(t, term.ExitUsage, "version")
	b.wantErr(t, "error: $HOLDFAST_KEYFLE is not a variable of Holdfast")
	b.wantErr(t, "hint: did you mean $HOLDFAST_KEYFILE?")
	b = newBench(t, "HOLDFAST_ZEBRA=y")
	b.do(t, term.ExitOK, "version")
	b.wantErr(t, "warning: $HOLDFAST_ZEBRA is not a variable of Holdfast and is ignored\n")
}
