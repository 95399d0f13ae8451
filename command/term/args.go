package term

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Line is a command line in the order that the cli package understands: the
// global flags, the command, its flags, "--" and the arguments.
type Line struct {
	Path []string // names of the commands, from the root down
	Argv []string // as the cli package wants it
	Help bool     // --help or help stood somewhere
}

// Arrange sorts a command line. Users may write global flags anywhere, flags
// of a command anywhere behind its name, and "--" to end all flags. A "-"
// alone is an argument. Unknown commands and flags are usage errors.
func Arrange(tree *cli.App, args []string) (Line, error) {
	z := arranger{tree: tree}
	for len(args) > 0 {
		n, err := z.take(args)
		if err != nil {
			return Line{}, err
		}
		args = args[n:]
	}
	argv := append([]string{tree.Name}, z.global...)
	argv = append(argv, z.path...)
	argv = append(argv, z.local...)
	if len(z.words) > 0 {
		argv = append(append(argv, "--"), z.words...)
	}
	return Line{Path: z.path, Argv: argv, Help: z.help}, nil
}

type arranger struct {
	tree  *cli.App
	cmd   *cli.Command // nil at the root
	path  []string
	ended bool // "--" was seen
	help  bool

	global, local, words []string
}

// take deals with the first of args and returns how many it used.
func (z *arranger) take(args []string) (int, error) {
	a := args[0]
	switch {
	case z.ended || len(a) < 2 || a[0] != '-':
		return 1, z.word(a)
	case a == "--":
		z.ended = true
		return 1, nil
	case a == "--help" || a == "-h":
		z.help = true
		return 1, nil
	case a == "--version" && z.cmd == nil:
		return 1, z.word("version")
	case strings.HasPrefix(a, "--"):
		return z.long(args)
	}
	return z.short(args)
}

// word takes a command's name or an argument.
func (z *arranger) word(a string) error {
	commands := z.tree.Commands
	if z.cmd != nil {
		commands = z.cmd.Subcommands
	}
	if z.cmd != nil && len(commands) == 0 {
		z.words = append(z.words, a)
		return nil
	}
	for _, c := range commands {
		if c.HasName(a) {
			z.cmd = c
			z.path = append(z.path, c.Name)
			return nil
		}
	}
	if a == "help" {
		z.help = true
		return nil
	}
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	return didYouMean(Usagef("unknown command %q", strings.Join(append(z.path, a), " ")), a, names)
}

// long takes --name, --name=value or --name value.
func (z *arranger) long(args []string) (int, error) {
	name, value, inline := strings.Cut(args[0][2:], "=")
	f, dst := z.find(name)
	if f == nil || len(name) < 2 {
		return 0, z.unknown("--" + name)
	}
	if inline {
		*dst = append(*dst, "--"+name+"="+value)
		return 1, nil
	}
	if IsBool(f) {
		*dst = append(*dst, "--"+name)
		return 1, nil
	}
	if len(args) < 2 {
		return 0, Usagef("--%s needs a value", name)
	}
	*dst = append(*dst, "--"+name+"="+args[1])
	return 2, nil
}

// short takes a cluster of letters: -q, -qv, -r REPO, -rREPO or -r=REPO.
func (z *arranger) short(args []string) (int, error) {
	letters := args[0][1:]
	for i := range len(letters) {
		f, dst := z.find(letters[i : i+1])
		if f == nil {
			return 0, z.unknown("-" + letters)
		}
		if IsBool(f) {
			*dst = append(*dst, "--"+f.Names()[0])
			continue
		}
		if rest := letters[i+1:]; rest != "" {
			*dst = append(*dst, "--"+f.Names()[0]+"="+strings.TrimPrefix(rest, "="))
			return 1, nil
		}
		if len(args) < 2 {
			return 0, Usagef("-%s needs a value", letters[i:i+1])
		}
		*dst = append(*dst, "--"+f.Names()[0]+"="+args[1])
		return 2, nil
	}
	return 1, nil
}

// find looks a flag up in the command and among the global ones, and says
// which list it belongs to.
func (z *arranger) find(name string) (cli.Flag, *[]string) {
	if z.cmd != nil {
		if f := LookFlag(z.cmd.Flags, name); f != nil {
			return f, &z.local
		}
	}
	return LookFlag(z.tree.Flags, name), &z.global
}

// unknown is the error for a flag that neither the command nor the program
// has.
func (z *arranger) unknown(flag string) error {
	var names []string
	for _, f := range z.tree.Flags {
		names = append(names, "--"+f.Names()[0])
	}
	if z.cmd == nil {
		return didYouMean(Usagef("unknown flag %s (flags of a command stand behind its name)", flag), flag, names)
	}
	for _, f := range z.cmd.Flags {
		names = append(names, "--"+f.Names()[0])
	}
	err := Usagef("unknown flag %s for %s", flag, z.cmd.HelpName)
	return didYouMean(err, "--"+strings.TrimLeft(flag, "-"), names)
}

// LookFlag finds a flag by one of its names, nil if there is none.
func LookFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// IsBool reports whether a flag takes no value.
func IsBool(f cli.Flag) bool {
	_, ok := f.(*cli.BoolFlag)
	return ok
}

// WantsJSON looks for --json in a line that could not be arranged, so that
// the complaint has the form that was asked for.
func WantsJSON(args []string) bool {
	for _, a := range args {
		switch a {
		case "--":
			return false
		case "--json", "--json=true":
			return true
		}
	}
	return false
}

// didYouMean adds the nearest of names as a hint, if one is near.
func didYouMean(err error, got string, names []string) error {
	if best := Nearest(got, names); best != "" {
		return Hintf(err, "did you mean %q?", best)
	}
	const few = 12
	if len(names) <= few && len(names) > 0 && !strings.HasPrefix(names[0], "-") {
		return Hintf(err, "there is: %s", strings.Join(names, ", "))
	}
	return Hintf(err, "--help lists what there is")
}

// Nearest is the name that got was probably meant to be, "" if none is near.
func Nearest(got string, names []string) string {
	best, most := "", 1+len(got)/4
	for _, n := range names {
		if d := editDistance(got, n); d <= most {
			best, most = n, d-1
		}
	}
	return best
}

// editDistance counts the insertions, deletions and replacements between two
// words.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
