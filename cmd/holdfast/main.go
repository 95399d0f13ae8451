// Package main is the command line of Holdfast: the wiring of its rooms and
// the words spoken to the user. Every command has one file with the same
// parts: the table entry with help and flags, the action, the JSON records.
// No decision about data is made here.
//
// Voice: results go to standard output, messages to standard error, in lower
// case and without a full stop; every refusal names the next step. With
// --json both become one JSON object per line (docs/json.md).
//
// The package may import every room.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
)

func main() {
	a := &app{
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: os.Stderr,
		env:    environ(os.Environ()),
		now:    time.Now,
	}
	os.Exit(a.run(os.Args[1:]))
}

// app is one run of the program: everything it may touch of its surroundings.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	env    map[string]string
	now    func() time.Time

	ui      *term.Output
	signals term.Signals
}

// environ turns NAME=VALUE lines into a map.
func environ(lines []string) map[string]string {
	env := make(map[string]string, len(lines))
	for _, l := range lines {
		if name, value, ok := strings.Cut(l, "="); ok {
			env[name] = value
		}
	}
	return env
}

// run executes one command line, without the program's name, and returns the
// exit code.
func (a *app) run(args []string) int {
	poke := make(chan os.Signal, 1) // SIGUSR1 asks for the state
	signal.Notify(poke, syscall.SIGUSR1)
	defer signal.Stop(poke)
	a.ui = term.New(a.stdout, a.stderr, a.now, poke)

	ctx, stop := a.signals.Watch(context.Background())
	defer stop()
	defer a.boundMemory()()

	err := a.dispatch(ctx, args)
	a.ui.ClearLine()
	if err == nil {
		err = a.ui.WriteError()
	}
	err = a.signals.By(term.StateOfInterrupted(err))
	if err != nil && !a.ui.Unread(err) {
		a.ui.Fail(err, exitCode(err), hint(err))
	}
	return exitCode(err)
}

// dispatch arranges the arguments and hands them to the command.
func (a *app) dispatch(ctx context.Context, args []string) error {
	tree := a.tree()
	l, err := term.Arrange(tree, args)
	if err != nil {
		a.ui.JSON = term.WantsJSON(args)
		return err
	}
	if l.Help {
		return term.Written(term.PrintHelp(a.stdout, tree, l.Path))
	}
	return tree.RunContext(ctx, l.Argv)
}

// tree is the table of all commands.
func (a *app) tree() *cli.App {
	t := &cli.App{
		Name:            "holdfast",
		Usage:           "deduplicating, encrypted backup of virtual machines and disks",
		Flags:           globalFlags(),
		Before:          a.readGlobals,
		Action:          a.missingCommand(""),
		HideHelp:        true,
		HideHelpCommand: true,
		HideVersion:     true,
		Reader:          a.stdin,
		Writer:          a.stdout,
		ErrWriter:       a.stderr,
		// The exit is made in one place, run.
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              onUsageError,
		DisableSliceFlagSeparator: true,
		Commands: []*cli.Command{
			a.initCommand(),
			a.keyCommand(),
			a.backupCommand(),
			a.restoreCommand(),
			a.listCommand(),
			a.snapshotCommand(),
			a.verifyCommand(),
			a.statusCommand(),
			a.reindexCommand(),
			a.repairCommand(),
			a.pruneCommand(),
			a.gcCommand(),
			a.changeOwnerCommand(),
			a.loginCommand(),
			a.logoutCommand(),
			a.taskCommand(),
			a.serveCommand(),
			a.datastoreCommand(),
			a.certCommand(),
			a.userCommand(),
			a.tokenCommand(),
			a.aclCommand(),
			a.namespaceCommand(),
			a.quotaCommand(),
			a.accessCommand(),
			a.versionCommand(),
			a.completionCommand(),
		},
	}
	t.Setup() // first, since it sets names, too
	a.prepare(t.Name, t.Commands)
	return t
}

// prepare sets what all commands have in common.
func (a *app) prepare(parent string, commands []*cli.Command) {
	for _, c := range commands {
		c.HelpName = parent + " " + c.Name
		c.HideHelp, c.HideHelpCommand = true, true
		c.OnUsageError = onUsageError
		if len(c.Subcommands) > 0 {
			c.Action = a.missingCommand(c.HelpName)
			a.prepare(c.HelpName, c.Subcommands)
		}
	}
}

// missingCommand is the action of a name that needs another one behind it.
func (a *app) missingCommand(path string) cli.ActionFunc {
	return func(*cli.Context) error {
		t := a.tree()
		if !a.ui.JSON {
			if err := term.PrintHelp(a.stderr, t, strings.Fields(strings.TrimPrefix(path, t.Name))); err != nil {
				return err
			}
		}
		return term.Usagef("no command given")
	}
}

// onUsageError words the cli package's complaints about values as ours.
func onUsageError(_ *cli.Context, err error, _ bool) error {
	text := strings.Replace(err.Error(), "for flag -", "for --", 1)
	return term.Usagef("%s", strings.Replace(text, ": parse error", ": not of the kind that --help shows", 1))
}

// globalFlags are accepted before and after every command.
func globalFlags() []cli.Flag {
	return slices.Concat(repo.NameFlags(), []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "print one JSON object per line"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print results and errors only"},
		&cli.BoolFlag{Name: "no-progress", Usage: "show no progress"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "tell more"},
	}, repo.ServerFlags())
}

// readGlobals puts the global flags in force before any command runs.
func (a *app) readGlobals(c *cli.Context) error {
	a.ui.JSON = c.Bool("json")
	a.ui.Quiet = c.Bool("quiet")
	a.ui.Verbose = c.Bool("verbose")
	a.ui.Progress = !c.Bool("no-progress") && !a.ui.Quiet
	if a.ui.Quiet && a.ui.Verbose {
		return term.Usagef("--quiet and --verbose exclude each other")
	}
	if err := repo.New(a.secrets(), term.Given{Flags: c}).CheckFlags(); err != nil {
		return err
	}
	return a.secrets().CheckVariables()
}

// call is one command being carried out.
type call struct {
	*app
	term.Given
	secrets secret.Source
	repos   repo.Opener
}

// call carries out what a command was given.
func (a *app) call(given term.Given) *call {
	return &call{app: a, Given: given, secrets: a.secrets(), repos: repo.New(a.secrets(), given)}
}

// secrets are where passphrases, keys and settings of the environment come from.
func (a *app) secrets() secret.Source {
	return secret.Source{Streams: term.Streams{In: a.stdin, Out: a.stdout, Err: a.stderr}, Env: a.env, UI: a.ui}
}

// action makes a command's action from do after checking the number of its
// arguments.
func (a *app) action(n term.Arity, do func(context.Context, *call) error) cli.ActionFunc {
	return term.Action(n, func(ctx context.Context, given term.Given) error { return do(ctx, a.call(given)) })
}
