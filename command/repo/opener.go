package repo

import (
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/command/secret"
	"holdfast/command/term"
)

// Opener opens what a command line names. It is a value: a copy that is changed
// changes no other one.
type Opener struct{ Network }

// Network is what is set about conversations with servers, and about waiting.
type Network struct {
	secret.Source
	given term.Given
	anew  bool // log in with the password, whatever ticket there is
}

// New makes the opener of a command.
func New(s secret.Source, given term.Given) Opener {
	return Opener{Network{Source: s, given: given}}
}

// Anew is an opener that logs in with the password, whatever ticket there is, as a
// server wants it for what it gives to those only who have logged in lately.
func (o Opener) Anew() Opener {
	o.anew = true
	return o
}

// NameFlags are the global flags that name a repository and what is in it.
func NameFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "repository", Aliases: []string{"r"}, Usage: "the `REPO` to work on: a path, as ./store or /srv/store, or [[user@realm[!token]@]host[:port]:]datastore (or $HOLDFAST_REPOSITORY, $PBS_REPOSITORY)"},
		&cli.StringFlag{Name: "ns", Usage: "the `NAMESPACE` to work in (or $HOLDFAST_NAMESPACE, $PBS_NAMESPACE; default the root)"},
		&cli.DurationFlag{Name: "lock-wait", Usage: "wait `DURATION` (as 90s or 10m) for another process to leave the repository, or another backup of the group to end; default 0"},
	}
}

// CheckFlags checks the values of the global flags, and of the variables that stand
// for them, for commands that do not use them, too.
func (o Opener) CheckFlags() error {
	if d := o.LockWait(); d < 0 {
		return term.Usagef("--lock-wait %s: must not be negative", d)
	}
	if _, err := o.Namespace(); err != nil {
		return err
	}
	if _, err := o.timeout(); err != nil {
		return err
	}
	return o.checkRemote()
}

// LockWait is how long to wait for others to leave.
func (n Network) LockWait() time.Duration { return n.given.Flags.Duration("lock-wait") }

// setting is the value of a flag, or of the first variable that is defined.
func (n Network) setting(flag string, variables ...string) (value, from string) {
	return n.Setting(n.given, flag, variables...)
}
