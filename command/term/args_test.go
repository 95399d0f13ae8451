package term

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// toyTree has one of everything that arrange tells apart.
func toyTree() *cli.App {
	return &cli.App{
		Name: "x",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "repository", Aliases: []string{"r"}},
			&cli.BoolFlag{Name: "json"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}},
			&cli.DurationFlag{Name: "lock-wait"},
		},
		Commands: []*cli.Command{
			{Name: "put", HelpName: "x put", Flags: []cli.Flag{
				&cli.StringFlag{Name: "id", Aliases: []string{"i"}},
				&cli.BoolFlag{Name: "force", Aliases: []string{"f"}},
			}},
			{Name: "key", HelpName: "x key", Subcommands: []*cli.Command{
				{Name: "show", Aliases: []string{"cat"}, HelpName: "x key show"},
			}},
			{Name: "version", HelpName: "x version"},
		},
	}
}

func TestArrange(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", "x"},
		{"put", "x put"},
		{"put a b", "x put -- a b"},
		{"put a --force b", "x put --force -- a b"},
		{"put a --id 7 b", "x put --id=7 -- a b"},
		{"put --id=7 a", "x put --id=7 -- a"},
		{"put a --id= b", "x put --id= -- a b"},
		{"put a --id -f", "x put --id=-f -- a"},
		{"-r store put a", "x --repository=store put -- a"},
		{"put a -r store", "x --repository=store put -- a"},
		{"put -rstore a", "x --repository=store put -- a"},
		{"put -r=store a", "x --repository=store put -- a"},
		{"put a --json -q", "x --json --quiet put -- a"},
		{"put -qf a", "x --quiet put --force -- a"},
		{"put -qfi 7 a", "x --quiet put --force --id=7 -- a"},
		{"put -fi7 a", "x put --force --id=7 -- a"},
		{"--lock-wait 5m put", "x --lock-wait=5m put"},
		{"put --json=false a", "x --json=false put -- a"},
		{"put - -f", "x put --force -- -"},
		{"put -- --json -f -", "x put -- --json -f -"},
		{"put a -- -- b", "x put -- a -- b"},
		{"-- put -f", "x put -- -f"},
		{"key show f", "x key show -- f"},
		{"key cat f", "x key show -- f"},
		{"key --json show f", "x --json key show -- f"},
		{"put put", "x put -- put"},
		{"put help", "x put -- help"},
		{"--version", "x version"},
	} {
		l, err := Arrange(toyTree(), strings.Fields(tc.in))
		if err != nil {
			t.Errorf("arrange(%q): %v", tc.in, err)
			continue
		}
		if got := strings.Join(l.Argv, " "); got != tc.want {
			t.Errorf("arrange(%q) = %q, want %q", tc.in, got, tc.want)
		}
		if l.Help {
			t.Errorf("arrange(%q) sees a wish for help", tc.in)
		}
	}
}

func TestArrangeHelp(t *testing.T) {
	for in, path := range map[string]string{
		"--help":             "",
		"-h":                 "",
		"help":               "",
		"help put":           "put",
		"put -h":             "put",
		"put a --help":       "put",
		"key help show":      "key show",
		"--json key --help":  "key",
		"help key show":      "key show",
		"key show a --help ": "key show",
	} {
		l, err := Arrange(toyTree(), strings.Fields(in))
		if err != nil || !l.Help || strings.Join(l.Path, " ") != path {
			t.Errorf("arrange(%q) = help %v of %q, %v; want help of %q", in, l.Help, l.Path, err, path)
		}
	}
	l, err := Arrange(toyTree(), []string{"put", "--", "--help"})
	if err != nil || l.Help {
		t.Errorf("--help behind -- is an argument, got help %v, %v", l.Help, err)
	}
}

func TestArrangeKeepsEmptyArguments(t *testing.T) {
	l, err := Arrange(toyTree(), []string{"put", "", "--id", "", "a b"})
	if want := []string{"x", "put", "--id=", "--", "", "a b"}; err != nil || !slices.Equal(l.Argv, want) {
		t.Errorf("arrange = %q, %v; want %q", l.Argv, err, want)
	}
}

func TestArrangeRefuses(t *testing.T) {
	for _, tc := range []struct{ in, text, hint string }{
		{"putt", `unknown command "putt"`, `did you mean "put"?`},
		{"frobnicate", `unknown command "frobnicate"`, "there is: put, key, version"},
		{"key shwo", `unknown command "key shwo"`, `did you mean "show"?`},
		{"put --forse", "unknown flag --forse for x put", `did you mean "--force"?`},
		{"put --repositry x", "unknown flag --repositry", `did you mean "--repository"?`},
		{"put -json", "unknown flag -json", `did you mean "--json"?`},
		{"put -z", "unknown flag -z", ""},
		{"put -qz", "unknown flag -qz", ""},
		{"put --r x", "unknown flag --r", ""},
		{"put --", "", ""},
		{"--force put", "flags of a command stand behind its name", ""},
		{"put --id", "--id needs a value", ""},
		{"put -i", "-i needs a value", ""},
		{"put -fi", "-i needs a value", ""},
		{"put ---json", "unknown flag", ""},
		{"put --=x", "unknown flag", ""},
	} {
		_, err := Arrange(toyTree(), strings.Fields(tc.in))
		if tc.text == "" {
			if err != nil {
				t.Errorf("arrange(%q): %v", tc.in, err)
			}
			continue
		}
		var usage UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("arrange(%q): %v, want a usage error with %q", tc.in, err, tc.text)
		}
		if !strings.Contains(NextStep(err), tc.hint) {
			t.Errorf("arrange(%q): hint %q, want %q", tc.in, NextStep(err), tc.hint)
		}
	}
}

func TestWantsJSON(t *testing.T) {
	for in, want := range map[string]bool{
		"": false, "list --json": true, "--json=true x": true, "list -- --json": false, "--json=false": false,
	} {
		if got := WantsJSON(strings.Fields(in)); got != want {
			t.Errorf("wantsJSON(%q) = %v", in, got)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"list", "lits", 2}, {"same", "same", 0},
	} {
		if got := editDistance(tc.a, tc.b); got != tc.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}

func FuzzArrange(f *testing.F) {
	for _, s := range []string{"put\n-f\na", "-r\nx\nkey\nshow", "--\nput\n--json", "put\n-qfi\n7\n-", "help\nkey"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		tree := toyTree()
		l, err := Arrange(tree, strings.Split(in, "\n"))
		if err != nil {
			var usage UsageError
			if !errors.As(err, &usage) {
				t.Fatalf("%q: %v is no usage error", in, err)
			}
			return
		}
		if l.Help {
			return
		}
		// What comes out is arranged already: it stays as it is.
		again, err := Arrange(tree, l.Argv[1:])
		if err != nil || !slices.Equal(again.Argv, l.Argv) {
			t.Fatalf("%q: arranged to %q, and that to %q, %v", in, l.Argv, again.Argv, err)
		}
	})
}
