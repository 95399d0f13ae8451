package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/urfave/cli/v2"

	"holdfast/client"
)

func (a *app) quotaCommand() *cli.Command {
	return &cli.Command{
		Name: "quota", Usage: "limit what may be stored on a server",
		Description: describe(`A quota belongs to a datastore or namespace (/datastore/NAME/NAMESPACE) or to a user or token. A
backup that would go beyond it is refused; what is there stays.`),
		Subcommands: []*cli.Command{
			{
				Name: "set", Usage: "set a quota", ArgsUsage: "SUBJECT",
				Description: describe("Sets the quota of a datastore, a namespace, a user or a token.",
					"holdfast quota set /datastore/tank/customers --bytes 500GiB",
					"holdfast quota set 'root@pam!web' --snapshots-per-day 24"),
				Flags: []cli.Flag{dataFlag(),
					&cli.StringFlag{Name: "bytes", Usage: "allow at most `SIZE`, as 500GiB; 0 is no limit"},
					&cli.UintFlag{Name: "snapshots-per-day", Usage: "allow at most `N` new snapshots a day; 0 is no limit"}},
				Action: a.action(arity{1, 1}, quotaSet),
			},
			{
				Name: "list", Usage: "list quotas",
				Description: describe("Lists the quotas of a server.", "holdfast quota list"),
				Flags:       []cli.Flag{dataFlag()},
				Action:      a.action(arity{0, 0}, quotaList),
			},
			{
				Name: "remove", Usage: "remove a quota", ArgsUsage: "SUBJECT",
				Description: describe("Removes a quota.", "holdfast quota remove /datastore/tank/customers"),
				Flags:       []cli.Flag{dataFlag()},
				Action:      a.action(arity{1, 1}, quotaRemove),
			},
		},
	}
}

// quotaRecord is a quota; 0 is no limit.
type quotaRecord struct {
	MessageType     string `json:"message_type"` // "quota"
	Subject         string `json:"subject"`
	BytesMax        uint64 `json:"bytes_max"`
	SnapshotsPerDay uint32 `json:"snapshots_per_day"`
}

func quotaSet(ctx context.Context, c *call) error {
	if !c.flags.IsSet("bytes") && !c.flags.IsSet("snapshots-per-day") {
		return usagef("give --bytes or --snapshots-per-day")
	}
	rec := quotaRecord{"quota", c.arg(0), 0, uint32(c.flags.Uint("snapshots-per-day"))}
	if c.flags.IsSet("bytes") {
		n, err := parseSize(c.flags.String("bytes"))
		if err != nil {
			return usagef("--bytes %q: %w", c.flags.String("bytes"), err)
		}
		rec.BytesMax = uint64(n)
	}
	err := c.asking(ctx, client.Call{
		Method: http.MethodPut, Path: "/access/quota",
		Params: fields("subject", rec.Subject, "bytes-max", strconv.FormatUint(rec.BytesMax, 10),
			"snapshots-per-day", strconv.FormatUint(uint64(rec.SnapshotsPerDay), 10)),
	}, nil)
	if err != nil {
		return fmt.Errorf("set quota of %s: %w", rec.Subject, err)
	}
	c.ui.done(rec, "set the quota of %s: %s, %s", rec.Subject, rec.bytes(), rec.perDay())
	return nil
}

func (r quotaRecord) bytes() string {
	if r.BytesMax == 0 {
		return "any size"
	}
	return formatBytes(int64(r.BytesMax))
}

func (r quotaRecord) perDay() string {
	if r.SnapshotsPerDay == 0 {
		return "any number of snapshots"
	}
	return plural(int64(r.SnapshotsPerDay), "snapshot") + " a day"
}

func quotaList(ctx context.Context, c *call) error {
	var list []struct {
		Subject   string `json:"subject"`
		Bytes     uint64 `json:"bytes-max"`
		Snapshots uint32 `json:"snapshots-per-day"`
	}
	if err := c.asking(ctx, client.Call{Method: http.MethodGet, Path: "/access/quota"}, &list); err != nil {
		return fmt.Errorf("list quotas: %w", err)
	}
	rows := [][]string{{"subject", "size", "snapshots"}}
	for _, q := range list {
		rec := quotaRecord{"quota", q.Subject, q.Bytes, q.Snapshots}
		rows = append(rows, []string{rec.Subject, rec.bytes(), rec.perDay()})
		if c.ui.json {
			c.ui.result(rec, nil)
		}
	}
	c.printTable(rows, "no quotas")
	return nil
}

func quotaRemove(ctx context.Context, c *call) error {
	err := c.asking(ctx, client.Call{Method: http.MethodDelete, Path: "/access/quota", Params: fields("subject", c.arg(0))}, nil)
	if err != nil {
		return fmt.Errorf("remove quota of %s: %w", c.arg(0), err)
	}
	c.ui.done(deletion{"quota_removed", c.arg(0)}, "removed the quota of %s", c.arg(0))
	return nil
}
