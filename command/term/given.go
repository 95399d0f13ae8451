package term

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Streams are the standard streams of a run.
type Streams struct {
	In  io.Reader
	Out io.Writer // results and data
	Err io.Writer // messages
}

// Terminal opens the terminal that the program runs on, to ask the user something.
// Without one it is an error.
func (s Streams) Terminal() (*os.File, error) {
	if !IsTerminal(s.Err) && !IsTerminal(s.In) {
		return nil, errors.New("no terminal")
	}
	return os.OpenFile("/dev/tty", os.O_RDWR, 0)
}

// Given is what a command line gives to one command.
type Given struct {
	Flags *cli.Context // its own and the global ones
	Args  []string
}

// Arg returns an argument, "" if it was not given.
func (g Given) Arg(i int) string {
	if i < len(g.Args) {
		return g.Args[i]
	}
	return ""
}

// Arity says how many arguments a command takes.
type Arity struct{ min, max int }

// Takes is the arity of min to max arguments; max < 0 means any number.
func Takes(min, max int) Arity { return Arity{min, max} }

// Action makes a command's action from do after checking the number of its
// arguments.
func Action(n Arity, do func(context.Context, Given) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		args := c.Args().Slice()
		if len(args) < n.min || n.max >= 0 && len(args) > n.max {
			want := c.Command.ArgsUsage
			if want == "" {
				want = "no arguments"
			}
			return Hintf(Usagef("%s wants %s, got %d", c.Command.HelpName, want, len(args)),
				"%s --help shows examples", c.Command.HelpName)
		}
		if err := noEmpties(c, args); err != nil {
			return err
		}
		return do(c.Context, Given{Flags: c, Args: args})
	}
}

// noEmpties refuses arguments and flags that are empty, as they are when a script's
// variable is not set: taken for something left out, they would choose another
// repository, key or target than was meant. Texts may be empty.
func noEmpties(c *cli.Context, args []string) error {
	if i := slices.Index(args, ""); i >= 0 && !strings.Contains(c.Command.HelpName, "notes") {
		return Usagef("argument %d of %s is empty", i+1, c.Command.HelpName)
	}
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if _, ok := f.(*cli.StringFlag); !ok || slices.Contains(textFlags(), name) {
			continue
		}
		if c.IsSet(name) && c.String(name) == "" {
			return Usagef("--%s: empty", name)
		}
	}
	return nil
}

// textFlags are those whose text may be empty.
func textFlags() []string {
	return []string{"notes", "comment", "hint", "subject", "email", "firstname", "lastname"}
}

// OneOf refuses the value of a flag that is none of the words that the flag allows.
func OneOf(flag, value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	last := len(words) - 1
	return Usagef("--%s %q: want %s or %s", flag, value, strings.Join(words[:last], ", "), words[last])
}
