package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"holdfast/command/term"
)

// everyCommand calls do with the words of each command.
func everyCommand(list []*cli.Command, before []string, do func(words []string, c *cli.Command)) {
	for _, c := range list {
		words := append(append([]string(nil), before...), c.Name)
		do(words, c)
		everyCommand(c.Subcommands, words, do)
	}
}

// Every command explains itself, refuses nonsense with 64, and complains in JSON
// when JSON is asked for.
func TestEveryCommandExplainsItself(t *testing.T) {
	everyCommand(newBench(t).tree().Commands, nil, func(words []string, c *cli.Command) {
		t.Run(strings.Join(words, " "), func(t *testing.T) {
			b := newBench(t)
			b.do(t, term.ExitOK, append(words, "--help")...)
			b.wantOut(t, "EXIT STATUS")
			b.wantOut(t, c.Usage)
			for _, f := range c.Flags {
				b.wantOut(t, "--"+f.Names()[0])
			}
			b.do(t, term.ExitUsage, append(words, "--no-such-flag")...)
			b.wantErr(t, "hint: ")
			b.do(t, term.ExitUsage, append(words, "--json", "x1", "x2", "x3", "x4", "", "--no-such-flag=\x1b[2J")...)
			var r term.ExitRecord
			if err := json.Unmarshal(b.err.Bytes(), &r); err != nil || r.Code != term.ExitUsage || r.MessageType != "exit_error" || r.Message == "" {
				t.Errorf("%q: %v", b.err.String(), err)
			}
			if b.out.Len() > 0 {
				t.Errorf("standard output has %q", b.out.String())
			}
		})
	})
}
