// Package main is the command line of Holdfast: the table of its commands, which
// stand in the rooms of command, and the table from an error to an exit code. In
// their rooms every command has one file with the same parts: the entry with help
// and flags, the action, the JSON records. No decision about data is made in any of
// them.
//
// Voice: results go to standard output, messages to standard error, in lower
// case and without a full stop; every refusal names the next step. With
// --json both become one JSON object per line (docs/json.md).
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

	"holdfast/command/admin"
	"holdfast/command/backup"
	"holdfast/command/key"
	"holdfast/command/repo"
	"holdfast/command/restore"
	"holdfast/command/secret"
	"holdfast/command/serve"
	"holdfast/command/snapshot"
	"holdfast/command/store"
	"holdfast/command/task"
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
		Commands:                  a.commands(),
	}
	t.Setup() // first, since it sets names, too
	a.prepare(t.Name, t.Commands)
	return t
}

// commands are all commands, in the order of the help, each from its room, which
// gets what it needs.
func (a *app) commands() []*cli.Command {
	secrets := a.secrets()
	backups := backup.Room{UI: a.ui, Now: a.now, In: a.stdin, Err: a.stderr, Env: a.env, Secrets: secrets}
	restores := restore.Room{UI: a.ui, Now: a.now, Out: a.stdout, Secrets: secrets}
	snapshots := snapshot.Room{UI: a.ui, In: a.stdin, Secrets: secrets}
	stores := store.Room{UI: a.ui, Now: a.now, Secrets: secrets}
	keys := key.Room{UI: a.ui, Now: a.now, Secrets: secrets}
	tasks := task.Room{UI: a.ui, Secrets: secrets}
	servers := serve.Room{UI: a.ui, Err: a.stderr, Env: a.env, Signals: &a.signals, Secrets: secrets}
	admins := admin.Room{UI: a.ui, Out: a.stdout, Secrets: secrets}
	return []*cli.Command{
		stores.Init(),
		keys.Command(),
		backups.Command(),
		restores.Command(),
		snapshots.List(),
		snapshots.Command(),
		stores.Verify(),
		stores.Status(),
		stores.Reindex(),
		stores.Repair(),
		stores.Prune(),
		stores.GC(),
		snapshots.ChangeOwner(),
		admins.Login(),
		admins.Logout(),
		tasks.Command(),
		servers.Command(),
		admins.Datastore(),
		servers.Cert(),
		admins.User(),
		admins.Token(),
		admins.ACL(),
		admins.Namespace(),
		admins.Quota(),
		admins.Access(),
		a.versionCommand(),
		a.completionCommand(),
	}
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
	repos repo.Opener
}

// call carries out what a command was given.
func (a *app) call(given term.Given) *call {
	return &call{app: a, Given: given, repos: repo.New(a.secrets(), given)}
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
