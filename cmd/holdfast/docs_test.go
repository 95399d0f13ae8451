package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"holdfast/command/term"
)

// foreign are flags of other programs that the documentation names.
var foreign = map[string]bool{
	"--password": true, "--encryption-key": true, // of Proxmox VE
	"--benchmark": true, "--change-detection-mode": true, // of proxmox-backup-client
	"--from": true, // of chown
}

// vocabulary is what the table of commands knows.
type vocabulary struct {
	tree  *cli.App
	flags map[string]bool
}

func newVocabulary(t *testing.T) vocabulary {
	v := vocabulary{newBench(t).tree(), map[string]bool{"--help": true, "--version": true}}
	add := func(flags []cli.Flag) {
		for _, f := range flags {
			for _, name := range f.Names() {
				v.flags["--"+name] = true
			}
		}
	}
	add(v.tree.Flags)
	var walk func([]*cli.Command)
	walk = func(list []*cli.Command) {
		for _, c := range list {
			add(c.Flags)
			walk(c.Subcommands)
		}
	}
	walk(v.tree.Commands)
	return v
}

var (
	flagWord    = regexp.MustCompile(`(?:^|[^-\w])(--[a-z](?:[a-z0-9-]*[a-z0-9])?)(?:$|[^-\w%])`)
	commandText = regexp.MustCompile(`\bholdfast ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)`)
	codeSpan    = regexp.MustCompile("`([^`\n]+)`")
	// literal begins a line of a fenced block that is a command.
	literal = regexp.MustCompile(`^(?:[A-Z_]+=\S+ |sudo (?:-u \S+ )?|(?:/usr)?(?:/bin/))*(holdfast .*[^.,])$`)
)

// line checks a whole command line: the command is there and has the flags.
func (v vocabulary) line(text string) error {
	text, _, _ = strings.Cut(text, " #")
	for _, end := range []string{" | ", " && ", "; ", " > ", " < ", " …", " ..."} {
		text, _, _ = strings.Cut(text, end)
	}
	words := strings.Fields(text)
	for i := range words {
		words[i] = strings.Trim(words[i], `'"`)
	}
	_, err := term.Arrange(v.tree, words[1:])
	return err
}

// isOurs reports whether a piece of code is a flag, or a command with something
// behind it.
func (v vocabulary) isOurs(text string) bool {
	first, rest, _ := strings.Cut(text, " ")
	return strings.HasPrefix(first, "--") || rest != "" && slices.ContainsFunc(v.tree.Commands, func(c *cli.Command) bool { return c.HasName(first) })
}

// words checks the flags in a text, and what follows the name of a command that has
// others below it.
func (v vocabulary) words(t *testing.T, where, text string) {
	t.Helper()
	for _, m := range flagWord.FindAllStringSubmatch(text, -1) {
		if !v.flags[m[1]] && !foreign[m[1]] {
			t.Errorf("%s names the flag %s, which no command has: %q", where, m[1], text)
		}
	}
	for _, m := range commandText.FindAllStringSubmatch(text, -1) {
		words := strings.Fields(m[1])
		i := slices.IndexFunc(v.tree.Commands, func(c *cli.Command) bool { return c.HasName(words[0]) })
		if i < 0 || len(words) < 2 || len(v.tree.Commands[i].Subcommands) == 0 {
			continue
		}
		if !slices.ContainsFunc(v.tree.Commands[i].Subcommands, func(c *cli.Command) bool { return c.HasName(words[1]) }) {
			t.Errorf("%s names the command holdfast %s, which is not there: %q", where, strings.Join(words[:2], " "), text)
		}
	}
}

// Every command and flag that the documentation names is there.
func TestDocumentationNamesWhatIsThere(t *testing.T) {
	v := newVocabulary(t)
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatal(docs, err)
	}
	units, err := filepath.Glob("../../packaging/*/*")
	if err != nil || len(units) == 0 {
		t.Fatal(units, err)
	}
	lines := 0
	for _, path := range append(append(docs, "../../README.md"), units...) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if base := filepath.Base(path); strings.HasPrefix(base, "bench") || base == "formats.md" {
			continue // what other programs are called with, and texts in files
		}
		fenced := strings.HasPrefix(path, "../../packaging/")
		for i, line := range strings.Split(string(b), "\n") {
			where := filepath.Base(path) + ":" + strconv.Itoa(i+1)
			if strings.HasPrefix(line, "```") {
				fenced = !fenced
				continue
			}
			texts := []string{}
			for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
				texts = append(texts, m[1])
			}
			if fenced {
				texts = []string{strings.TrimPrefix(strings.TrimPrefix(line, "ExecStart="), "# ")}
			}
			for _, text := range texts {
				if m := literal.FindStringSubmatch(text); m != nil {
					lines++
					if err := v.line(m[1]); err != nil {
						t.Errorf("%s: %q: %v", where, text, err)
					}
					v.words(t, where, m[1])
				} else if !fenced && v.isOurs(text) {
					v.words(t, where, text)
				}
			}
		}
	}
	if lines < 30 {
		t.Errorf("only %d command lines were found", lines)
	}
}

// Every command and flag that the program itself names, in help, hints and
// messages, is there.
func TestMessagesNameWhatIsThere(t *testing.T) {
	v := newVocabulary(t)
	texts := 0
	for _, dir := range append(commandRooms(t), "../../client", "../../client/backup", "../../client/restore", "../../client/source", "../../datastore", "../../datastore/verify", "../../datastore/gc", "../../datastore/server") {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") || filepath.Base(path) == "completion.go" {
				continue
			}
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil && len(text) > 2 {
						texts++
						v.words(t, set.Position(lit.Pos()).String(), text)
					}
				}
				return true
			})
		}
	}
	if texts < 1000 {
		t.Errorf("only %d texts were found", texts)
	}
}

// The examples of the help texts are command lines that are there.
func TestExamplesAreCommandLines(t *testing.T) {
	v := newVocabulary(t)
	var walk func([]*cli.Command)
	walk = func(list []*cli.Command) {
		for _, c := range list {
			for _, line := range strings.Split(c.Description, "\n") {
				if m := literal.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
					if err := v.line(m[1]); err != nil {
						t.Errorf("%s: %q: %v", c.HelpName, line, err)
					}
				}
			}
			walk(c.Subcommands)
		}
	}
	walk(v.tree.Commands)
}
