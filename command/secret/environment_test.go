package secret

import (
	"slices"
	"strings"
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
	err := b.CheckVariables()
	if !isUsage(err) || err.Error() != "$HOLDFAST_KEYFLE is not a variable of Holdfast" || !strings.HasPrefix(term.NextStep(err), "did you mean $HOLDFAST_KEYFILE?") {
		t.Errorf("%v, hint %q", err, term.NextStep(err))
	}
	b = newBench(t, "HOLDFAST_ZEBRA=y")
	if err := b.CheckVariables(); err != nil || b.err.String() != "holdfast: warning: $HOLDFAST_ZEBRA is not a variable of Holdfast and is ignored\n" {
		t.Errorf("%v, %q", err, b.err.String())
	}
}
