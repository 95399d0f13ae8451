package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// version is that of the program; the revision comes from the build.
const version = "0.1.0-dev"

// formats are the versions of what is written to disk.
const formats = "blob 1, fixed index 1, dynamic index 1, store 1"

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version",
		Description: describe("Prints the version of the program, of Go, and of the formats it writes.", "holdfast version"),
		Action:      a.action(arity{0, 0}, runVersion),
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
}

func runVersion(_ context.Context, c *call) error {
	r := versionRecord{
		MessageType: "version", Version: version,
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
	c.ui.result(r, func(w io.Writer) {
		fmt.Fprintf(w, "holdfast %s", r.Version)
		if r.Revision != "" {
			fmt.Fprintf(w, " (revision %.12s", r.Revision)
			if r.Modified {
				fmt.Fprint(w, ", modified")
			}
			fmt.Fprint(w, ")")
		}
		fmt.Fprintf(w, "\n%s %s/%s\nformats: %s\n", r.Go, r.OS, r.Arch, r.Formats)
	})
	return nil
}
