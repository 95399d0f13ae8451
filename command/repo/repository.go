package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"holdfast/client"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// Mode says what a command wants to do with a repository.
type Mode int

// A repository that is opened for reading is not changed, and may be read by others
// meanwhile.
const (
	Read Mode = iota
	Write
)

// Repository is an open repository, on this machine or on a server: commands
// work on its ports and cannot tell which. What only one kind can do is asked
// of Local or Remote; one of the two is nil.
type Repository struct {
	wire.Source
	wire.Target
	wire.Manager
	io.Closer
	Name   wire.Repository
	Local  *datastore.Store
	Remote *client.Client
}

// Name is that of the repository that the command works on.
func (o Opener) Name() (wire.Repository, error) {
	text, from := o.setting("repository", secret.EnvRepository, secret.EnvRepositoryPBS)
	if from == "" {
		return wire.Repository{}, term.Hintf(term.Usagef("no repository given"), "name it with -r REPO or $HOLDFAST_REPOSITORY")
	}
	r, err := wire.ParseRepository(text)
	if err != nil {
		err = fmt.Errorf("%s: %w", from, err)
		if isDirectory(text) {
			err = term.Hintf(err, "there is a directory of that name: did you mean \"./%s\"?", term.Printable(text))
		}
		return wire.Repository{}, err
	}
	return r, o.guessPath(r, text)
}

// guessPath refuses the bare name of a directory. It would be a datastore of
// the server on this machine, which is seldom what somebody means who stands
// beside a directory of that name.
func (o Opener) guessPath(r wire.Repository, text string) error {
	if r.IsPath() || r.Host != "" {
		return nil
	}
	if isDirectory(text) {
		return term.Hintf(term.Usagef("%q names a datastore of the server on this machine, but there is a directory of that name", term.Printable(text)),
			"did you mean \"./%s\"? the datastore is localhost:%s", text, text)
	}
	return nil
}

func isDirectory(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// Open opens the repository of the command. The caller closes it.
func (o Opener) Open(ctx context.Context, mode Mode) (*Repository, error) {
	r, err := o.Name()
	if err != nil {
		return nil, err
	}
	if r.IsPath() {
		s, err := o.OpenPath(ctx, r, mode)
		if err != nil {
			return nil, err
		}
		return &Repository{Source: s, Target: s, Manager: s, Closer: s, Name: r, Local: s}, nil
	}
	s, err := o.Dial(ctx, r)
	if err != nil {
		return nil, err
	}
	return &Repository{Source: s, Target: s, Manager: s, Closer: s, Name: r, Remote: s}, nil
}

// OpenLocal opens a repository for what can only be done beside its files.
func (o Opener) OpenLocal(ctx context.Context, mode Mode) (*datastore.Store, error) {
	r, err := o.Name()
	if err != nil {
		return nil, err
	}
	if !r.IsPath() {
		return nil, term.Hintf(term.Usagef("%s works on repositories that are a path; %s is on a server", o.given.Flags.Command.HelpName, r),
			"run it on the server, with -r and the path of the datastore")
	}
	return o.OpenPath(ctx, r, mode)
}

// OpenPath opens a repository that is a path. The caller closes it.
func (o Opener) OpenPath(ctx context.Context, r wire.Repository, mode Mode) (*datastore.Store, error) {
	s, err := datastore.Open(ctx, r.Path, datastore.Options{
		ReadOnly: mode == Read,
		LockWait: o.LockWait(),
		Notify:   func(text string) { o.UI.Warnf("%s", text) },
	})
	if errors.Is(err, datastore.ErrNoStore) {
		return nil, term.Hintf(err, "make it with: holdfast init %s", r)
	}
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", r, err)
	}
	return s, nil
}

// Closing closes what was written to; its error counts.
func Closing(s io.Closer, err *error) {
	if e := s.Close(); e != nil && *err == nil {
		*err = fmt.Errorf("close repository: %w", e)
	}
}
