package main

import (
	"os/exec"
	"strings"
	"testing"

	"holdfast/command/term"
)

func TestCompletionScripts(t *testing.T) {
	b := newBench(t)
	for shell, words := range map[string][]string{
		"bash": {"complete -o default -F _holdfast holdfast", "change-passphrase", "--differential", "--keyfile"},
		"zsh":  {"#compdef holdfast", "bashcompinit", "change-passphrase"},
		"fish": {"complete -c holdfast", "-a change-passphrase", "-l differential", "-l repository -s r -r"},
	} {
		b.do(t, term.ExitOK, "completion", shell)
		for _, w := range words {
			b.wantOut(t, w)
		}
	}
	b.do(t, term.ExitUsage, "completion", "tcsh")
}

// The bash script is run by bash itself, which every Linux has.
func TestBashCompletion(t *testing.T) {
	b := newBench(t)
	b.do(t, term.ExitOK, "completion", "bash")
	script := b.write(t, "completion.bash", b.out.String())
	for _, tc := range []struct{ line, want string }{
		{"ver", "verify version"},
		{"snap", "snapshot"},
		{"key cre", "create create-master-key"},
		{"-r store key sh", "show show-master-pubkey"},
		{"snapshot -q notes ", "show update --repository --ns --lock-wait --json --quiet --no-progress --verbose --fingerprint --accept-new --rate --rate-up --rate-down --timeout --proxy --help"},
		{"restore a b --diff", "--differential"},
		{"backup --backup-type list --notes", "--notes"},
		{"completion ", "--repository --ns --lock-wait --json --quiet --no-progress --verbose --fingerprint --accept-new --rate --rate-up --rate-down --timeout --proxy --help"},
	} {
		words := strings.Split("holdfast "+tc.line, " ")
		command := `. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _holdfast; echo "${COMPREPLY[*]}"`
		out, err := exec.Command("bash", append([]string{"-c", command, "bash", script}, words...)...).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != tc.want {
			t.Errorf("holdfast %s: %q, %v; want %q", tc.line, got, err, tc.want)
		}
	}
}
