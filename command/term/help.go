package term

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
)

// Describe makes the long help of a command: a paragraph, and examples.
func Describe(text string, examples ...string) string {
	var b strings.Builder
	b.WriteString(text)
	if len(examples) > 0 {
		b.WriteString("\n\nExamples:\n")
	}
	for _, e := range examples {
		b.WriteString("  " + e + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

// PrintHelp writes the help of the command that path leads to.
func PrintHelp(w io.Writer, tree *cli.App, path []string) error {
	s := &stickyWriter{w: w}
	cmd := findCommand(tree, path)
	if cmd == nil {
		fmt.Fprintf(s, "%s - %s\n\nUsage:\n  %s COMMAND [flags] [arguments]\n", tree.Name, tree.Usage, tree.Name)
		helpCommands(s, tree.Commands)
	} else {
		fmt.Fprintf(s, "%s - %s\n\nUsage:\n  %s\n\n%s\n", cmd.HelpName, cmd.Usage, usageLine(cmd), cmd.Description)
		helpCommands(s, cmd.Subcommands)
		helpFlags(s, "Flags", cmd.Flags)
	}
	helpFlags(s, "Global flags, before or after the command", tree.Flags)
	fmt.Fprintf(s, "\nEXIT STATUS\n%s\n", ExitStatus)
	return s.err
}

// findCommand follows path down the tree, nil for the root.
func findCommand(tree *cli.App, path []string) *cli.Command {
	var cmd *cli.Command
	commands := tree.Commands
	for _, name := range path {
		for _, c := range commands {
			if c.HasName(name) {
				cmd = c
			}
		}
		if cmd == nil {
			return nil
		}
		commands = cmd.Subcommands
	}
	return cmd
}

func usageLine(cmd *cli.Command) string {
	parts := []string{cmd.HelpName}
	if len(cmd.Subcommands) > 0 {
		parts = append(parts, "COMMAND")
	}
	parts = append(parts, "[flags]")
	if cmd.ArgsUsage != "" {
		parts = append(parts, cmd.ArgsUsage)
	}
	return strings.Join(parts, " ")
}

func helpCommands(w io.Writer, commands []*cli.Command) {
	if len(commands) == 0 {
		return
	}
	fmt.Fprint(w, "\nCommands:\n")
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	for _, c := range commands {
		fmt.Fprintf(t, "  %s\t%s\n", c.Name, c.Usage)
	}
	t.Flush()
}

func helpFlags(w io.Writer, title string, flags []cli.Flag) {
	if len(flags) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	for _, f := range flags {
		value, usage := FlagWords(f)
		fmt.Fprintf(t, "  %s\t%s\n", flagNames(f)+value, usage)
	}
	if title == "Flags" {
		fmt.Fprintf(t, "  -h, --help\tshow this text\n")
	}
	t.Flush()
}

// flagNames is "-r, --repository", with room for a missing letter.
func flagNames(f cli.Flag) string {
	names := f.Names()
	if len(names) > 1 {
		return "-" + names[1] + ", --" + names[0]
	}
	return "    --" + names[0]
}

// FlagWords takes the `VALUE` in back quotes out of a flag's usage.
func FlagWords(f cli.Flag) (value, usage string) {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return "", ""
	}
	usage = d.GetUsage()
	if parts := strings.SplitN(usage, "`", 3); len(parts) == 3 {
		return " " + parts[1], parts[0] + parts[1] + parts[2]
	}
	return "", usage
}
