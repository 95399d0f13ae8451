package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire/api"
)

// formats are the versions of what is written to disk.
const formats = "blob 1, fixed index 1, dynamic index 1, store 1"

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version",
		Description: term.Describe(`Prints the version of the program, of Go, and of the formats it writes; with -r and a repository
on a server that server's, too.`, "holdfast version", "holdfast version -r backup.lan:tank"),
		Action: a.action(term.Takes(0, 0), runVersion),
	}
}

type versionRecord struct {
	MessageType string `json:"message_type"` // "version"
	Version     string `json:"version"`
	Revision    string `json:"revision,omitempty"`
	Modified    bool   `json:"modified,omitempty"`
	Go          string `json:"go"`
	OS          string `json:"os"`
	Arch        string `json:"arch"`
	Formats     string `json:"formats"`
	// Server is there if the repository is on one.
	Server *serverVersion `json:"server,omitempty"`
}

// serverVersion is what a server says about itself: the version of the
// protocol, and its own if it is Holdfast.
type serverVersion struct {
	Version  string `json:"version"`
	Release  string `json:"release"`
	Holdfast string `json:"holdfast,omitempty"`
}

// askVersion asks the server of the repository. A repository that is not named
// on the command line is not looked at: the version must be told without a
// network.
func (c *call) askVersion(ctx context.Context) (*serverVersion, error) {
	if !c.Flags.IsSet("repository") {
		return nil, nil
	}
	r, err := c.repos.Name()
	if err != nil || r.IsPath() {
		return nil, err
	}
	s, err := c.repos.Dial(ctx, r)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	v := new(serverVersion)
	if err := s.Do(ctx, client.Call{Op: api.Version, Into: v}); err != nil {
		return nil, fmt.Errorf("version of %s: %w", repo.ServerOf(r), err)
	}
	return v, nil
}

func runVersion(ctx context.Context, c *call) error {
	r := versionRecord{
		MessageType: "version", Version: term.Version(),
		Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Formats: formats,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				r.Revision = s.Value
			case "vcs.modified":
				r.Modified = s.Value == "true"
			}
		}
	}
	var err error
	r.Server, err = c.askVersion(ctx)
	c.ui.Result(r, func(w io.Writer) {
		fmt.Fprintf(w, "holdfast %s", r.Version)
		if r.Revision != "" {
			fmt.Fprintf(w, " (revision %.12s", r.Revision)
			if r.Modified {
				fmt.Fprint(w, ", modified")
			}
			fmt.Fprint(w, ")")
		}
		fmt.Fprintf(w, "\n%s %s/%s\nformats: %s\n", r.Go, r.OS, r.Arch, r.Formats)
		if s := r.Server; s != nil {
			fmt.Fprintf(w, "server: protocol %s-%s", s.Version, s.Release)
			if s.Holdfast != "" {
				fmt.Fprintf(w, ", holdfast %s", s.Holdfast)
			}
			fmt.Fprintln(w)
		}
	})
	return err
}
