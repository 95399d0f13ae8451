package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/command/term"
)

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a completion script for a shell", ArgsUsage: "bash|zsh|fish",
		Description: term.Describe("Prints a script that completes commands and flags.",
			"holdfast completion bash > /etc/bash_completion.d/holdfast",
			"holdfast completion zsh > /usr/local/share/zsh/site-functions/_holdfast",
			"holdfast completion fish > ~/.config/fish/completions/holdfast.fish"),
		Action: a.action(term.Takes(1, 1), runCompletion),
	}
}

func runCompletion(_ context.Context, c *call) error {
	tree := c.tree()
	nodes := completionNodes(tree)
	var write func(io.Writer, []completionNode)
	switch shell := c.Arg(0); shell {
	case "bash":
		write = bashCompletion
	case "zsh":
		write = zshCompletion
	case "fish":
		write = fishCompletion
	default:
		return term.Usagef("shell %q: want bash, zsh or fish", shell)
	}
	var script strings.Builder
	write(&script, nodes)
	_, err := io.WriteString(c.stdout, script.String())
	return term.Written(err)
}

// completionNode is one command: its path of names ("" at the root), and what
// may follow.
type completionNode struct {
	path     string
	commands []*cli.Command
	flags    []cli.Flag
}

// completionNodes flattens the tree, the root first.
func completionNodes(tree *cli.App) []completionNode {
	nodes := []completionNode{{"", tree.Commands, tree.Flags}}
	var walk func(prefix string, commands []*cli.Command)
	walk = func(prefix string, commands []*cli.Command) {
		for _, c := range commands {
			path := strings.TrimPrefix(prefix+" "+c.Name, " ")
			nodes = append(nodes, completionNode{path, c.Subcommands, slices.Concat(c.Flags, tree.Flags)})
			walk(path, c.Subcommands)
		}
	}
	walk("", tree.Commands)
	return nodes
}

// words are all names that may follow, flags last.
func (n completionNode) words() string {
	var w []string
	for _, c := range n.commands {
		w = append(w, c.Name)
	}
	for _, f := range n.flags {
		w = append(w, "--"+f.Names()[0])
	}
	return strings.Join(append(w, "--help"), " ")
}

// valueFlags are the flags that take a value, as patterns of case.
func valueFlags(nodes []completionNode) string {
	seen := make(map[string]bool)
	var list []string
	for _, n := range nodes {
		for _, f := range n.flags {
			if term.IsBool(f) || seen[f.Names()[0]] {
				continue
			}
			seen[f.Names()[0]] = true
			for _, name := range f.Names() {
				list = append(list, dashed(name))
			}
		}
	}
	return strings.Join(list, "|")
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// bashCompletion walks over the words before the cursor to find the command,
// then offers what may follow; files where nothing else fits.
func bashCompletion(w io.Writer, nodes []completionNode) {
	fmt.Fprint(w, `# bash completion for holdfast
_holdfast() {
    local cur="${COMP_WORDS[COMP_CWORD]}" path="" word i skip=0
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        if ((skip)); then skip=0; continue; fi
        case "$word" in
`)
	fmt.Fprintf(w, "            %s) skip=1; continue ;;\n", valueFlags(nodes))
	fmt.Fprint(w, `            -*) continue ;;
        esac
        case "$path $word" in
`)
	for _, n := range nodes[1:] {
		parent, name := splitPath(n.path)
		fmt.Fprintf(w, "            %q) path=%q ;;\n", parent+" "+name, n.path)
	}
	fmt.Fprint(w, `        esac
    done
    if ((skip)); then
        COMPREPLY=($(compgen -f -- "$cur"))
        return
    fi
    case "$path" in
`)
	for _, n := range nodes {
		fmt.Fprintf(w, "        %q) COMPREPLY=($(compgen -W %q -- \"$cur\")) ;;\n", n.path, n.words())
	}
	fmt.Fprint(w, `    esac
}
complete -o default -F _holdfast holdfast
`)
}

// splitPath cuts the last name off a path.
func splitPath(path string) (parent, name string) {
	if i := strings.LastIndexByte(path, ' '); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// zshCompletion is the bash script under zsh's own emulation.
func zshCompletion(w io.Writer, nodes []completionNode) {
	fmt.Fprint(w, "#compdef holdfast\nautoload -U +X bashcompinit && bashcompinit\n")
	bashCompletion(w, nodes)
}

// fishCompletion states a condition for each word.
func fishCompletion(w io.Writer, nodes []completionNode) {
	fmt.Fprint(w, "# fish completion for holdfast\n")
	for _, n := range nodes {
		condition := fishCondition(n)
		for _, c := range n.commands {
			fmt.Fprintf(w, "complete -c holdfast -n '%s' -f -a %s -d '%s'\n", condition, c.Name, fishQuote(c.Usage))
		}
		for _, f := range n.flags {
			if n.path != "" && term.LookFlag(nodes[0].flags, f.Names()[0]) != nil {
				continue
			}
			fishFlag(w, condition, f)
		}
	}
}

// fishCondition holds where the words of the path stand on the line and none
// of those that lead further.
func fishCondition(n completionNode) string {
	if n.path == "" {
		return "__fish_use_subcommand"
	}
	var parts []string
	for _, name := range strings.Fields(n.path) {
		parts = append(parts, "__fish_seen_subcommand_from "+name)
	}
	if len(n.commands) > 0 {
		var names []string
		for _, c := range n.commands {
			names = append(names, c.Name)
		}
		parts = append(parts, "not __fish_seen_subcommand_from "+strings.Join(names, " "))
	}
	return strings.Join(parts, "; and ")
}

func fishFlag(w io.Writer, condition string, f cli.Flag) {
	if condition == "__fish_use_subcommand" {
		condition = "true" // global flags stand anywhere
	}
	_, usage := term.FlagWords(f)
	fmt.Fprintf(w, "complete -c holdfast -n '%s' -l %s", condition, f.Names()[0])
	if names := f.Names(); len(names) > 1 {
		fmt.Fprintf(w, " -s %s", names[1])
	}
	if !term.IsBool(f) {
		fmt.Fprint(w, " -r")
	}
	fmt.Fprintf(w, " -d '%s'\n", fishQuote(usage))
}

func fishQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s)
}
