package snapshot

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire"
)

func (r Room) notesCommand() *cli.Command {
	return &cli.Command{
		Name: "notes", Usage: "show or change the notes of a snapshot",
		Description: term.Describe(`Notes are a text kept with a snapshot. They are not encrypted and not signed.`),
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "print the notes", ArgsUsage: "SNAPSHOT",
				Description: term.Describe("Prints the notes of a snapshot.", "holdfast snapshot notes show -r /srv/store vm/100/latest"),
				Action:      r.action(term.Takes(1, 1), notesShow),
			},
			{
				Name: "update", Usage: "replace the notes", ArgsUsage: "SNAPSHOT TEXT",
				Description: term.Describe(`Replaces the notes of a snapshot. The TEXT "-" is read from standard input, an empty one
removes the notes.`, `holdfast snapshot notes update -r /srv/store vm/100/2026-11-22T02:00:00Z "before the upgrade"`),
				Action: r.action(term.Takes(2, 2), notesUpdate),
			},
		},
	}
}

type notesRecord struct {
	changeRecord
	Notes string `json:"notes"`
}

func notesShow(ctx context.Context, c *call) error {
	return c.repos.Reading(ctx, c.Arg(0), func(s *repo.Repository, snap wire.Snapshot) error {
		text, err := s.Notes(ctx, snap)
		if err != nil {
			return fmt.Errorf("notes%s: %w", repo.Within(snap.Group.NS), err)
		}
		r := notesRecord{changeRecord{"notes", string(snap.Group.NS), snap.String()}, text}
		c.UI.Result(r, func(w io.Writer) {
			if text != "" {
				fmt.Fprintln(w, term.Printable(strings.TrimSuffix(text, "\n")))
			}
		})
		return nil
	})
}

// notesSizeMax caps the notes that are read from standard input, in bytes.
const notesSizeMax = 64 << 10

func notesUpdate(ctx context.Context, c *call) error {
	text := c.Arg(1)
	if text == "-" {
		b, err := io.ReadAll(io.LimitReader(c.In, notesSizeMax+1))
		if err != nil {
			return fmt.Errorf("read notes: %w", err)
		}
		text = string(b)
	}
	if len(text) > notesSizeMax {
		return term.Usagef("the notes are longer than %s", term.Bytes(notesSizeMax))
	}
	return c.repos.Changing(ctx, c.Arg(0), func(s *repo.Repository, snap wire.Snapshot) error {
		if err := s.SetNotes(ctx, snap, text); err != nil {
			return fmt.Errorf("notes%s: %w", repo.Within(snap.Group.NS), err)
		}
		r := notesRecord{changeRecord{"notes", string(snap.Group.NS), snap.String()}, text}
		c.UI.Done(r, "changed the notes of %s%s", snap, repo.Within(snap.Group.NS))
		return nil
	})
}

func (r Room) protectedCommand() *cli.Command {
	return &cli.Command{
		Name: "protected", Usage: "show or change whether a snapshot is protected",
		Description: term.Describe(`A protected snapshot cannot be removed.`),
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "print true or false", ArgsUsage: "SNAPSHOT",
				Description: term.Describe("Prints whether a snapshot is protected.", "holdfast snapshot protected show -r /srv/store vm/100/latest"),
				Action:      r.action(term.Takes(1, 1), protectedShow),
			},
			{
				Name: "update", Usage: "protect or release a snapshot", ArgsUsage: "SNAPSHOT true|false",
				Description: term.Describe("Sets or clears the protection of a snapshot.", "holdfast snapshot protected update -r /srv/store vm/100/2026-11-22T02:00:00Z true"),
				Action:      r.action(term.Takes(2, 2), protectedUpdate),
			},
		},
	}
}

// protectCommand is a short form of protected update.
func (r Room) protectCommand(name string, protected bool) *cli.Command {
	words := map[bool]string{true: "keep a snapshot from being removed", false: "allow a snapshot to be removed"}
	return &cli.Command{
		Name: name, Usage: words[protected], ArgsUsage: "SNAPSHOT",
		Description: term.Describe(fmt.Sprintf("The same as holdfast snapshot protected update SNAPSHOT %v.", protected),
			fmt.Sprintf("holdfast snapshot %s -r /srv/store vm/100/2026-11-22T02:00:00Z", name)),
		Action: r.action(term.Takes(1, 1), func(ctx context.Context, c *call) error {
			return c.setProtected(ctx, protected)
		}),
	}
}

type protectedRecord struct {
	changeRecord
	Protected bool `json:"protected"`
}

func protectedShow(ctx context.Context, c *call) error {
	return c.repos.Reading(ctx, c.Arg(0), func(s *repo.Repository, snap wire.Snapshot) error {
		info, err := find(ctx, s, snap)
		if err != nil {
			return err
		}
		r := protectedRecord{changeRecord{"protected", string(snap.Group.NS), snap.String()}, info.Protected}
		c.UI.Result(r, func(w io.Writer) { fmt.Fprintln(w, info.Protected) })
		return nil
	})
}

func protectedUpdate(ctx context.Context, c *call) error {
	switch c.Arg(1) {
	case "true":
		return c.setProtected(ctx, true)
	case "false":
		return c.setProtected(ctx, false)
	}
	return term.Usagef("protection %q: want true or false", c.Arg(1))
}

func (c *call) setProtected(ctx context.Context, protected bool) error {
	return c.repos.Changing(ctx, c.Arg(0), func(s *repo.Repository, snap wire.Snapshot) error {
		if err := s.SetProtected(ctx, snap, protected); err != nil {
			return fmt.Errorf("protection%s: %w", repo.Within(snap.Group.NS), err)
		}
		done := map[bool]string{true: "protected", false: "released"}[protected]
		r := protectedRecord{changeRecord{"protected", string(snap.Group.NS), snap.String()}, protected}
		c.UI.Done(r, "%s %s%s", done, snap, repo.Within(snap.Group.NS))
		return nil
	})
}
