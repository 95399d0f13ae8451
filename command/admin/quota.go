package admin

import (
	"context"
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire/api"
)

// Quota is holdfast quota with its subcommands.
func (r Room) Quota() *cli.Command {
	return &cli.Command{
		Name: "quota", Usage: "limit what may be stored on a server",
		Description: term.Describe(`A quota belongs to a datastore or namespace (/datastore/NAME/NAMESPACE) or to a user or token. A
backup that would go beyond it is refused; what is there stays.`),
		Subcommands: []*cli.Command{
			{
				Name: "set", Usage: "set a quota", ArgsUsage: "SUBJECT",
				Description: term.Describe(`Sets the quota of a datastore, a namespace, a user or a token. What is not named stays as it is.`,
					"holdfast quota set /datastore/tank/customers --bytes 500GiB",
					"holdfast quota set 'root@pam!web' --snapshots-per-day 24"),
				Flags: []cli.Flag{repo.DataFlag(),
					&cli.StringFlag{Name: "bytes", Usage: "allow at most `SIZE`, as 500GiB; 0 is no limit"},
					&cli.UintFlag{Name: "snapshots-per-day", Usage: "allow at most `N` new snapshots a day; 0 is no limit"}},
				Action: r.action(term.Takes(1, 1), quotaSet),
			},
			{
				Name: "list", Usage: "list quotas",
				Description: term.Describe("Lists the quotas of a server.", "holdfast quota list"),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(0, 0), quotaList),
			},
			{
				Name: "remove", Usage: "remove a quota", ArgsUsage: "SUBJECT",
				Description: term.Describe("Removes a quota.", "holdfast quota remove /datastore/tank/customers"),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(1, 1), quotaRemove),
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

// recordOf is the record of a quota.
func recordOf(q api.QuotaItem) quotaRecord {
	return quotaRecord{"quota", q.Subject, q.BytesMax, q.SnapshotsPerDay}
}

// snapshotsPerDayMax is the largest bound that a server takes.
const snapshotsPerDayMax = 1 << 31

func quotaSet(ctx context.Context, c *call) error {
	if !c.Flags.IsSet("bytes") && !c.Flags.IsSet("snapshots-per-day") {
		return term.Usagef("give --bytes or --snapshots-per-day")
	}
	params := repo.Fields("subject", c.Arg(0))
	if c.Flags.IsSet("bytes") {
		n, err := term.ParseSize(c.Flags.String("bytes"))
		if err != nil {
			return term.Usagef("--bytes %q: %w", c.Flags.String("bytes"), err)
		}
		params.Set(api.QuotaBytes, strconv.FormatInt(n, 10))
	}
	if c.Flags.IsSet("snapshots-per-day") {
		n := c.Flags.Uint("snapshots-per-day")
		if n > snapshotsPerDayMax {
			return term.Usagef("--snapshots-per-day %d: want 0 to %d", n, snapshotsPerDayMax)
		}
		params.Set(api.QuotaSnapshots, strconv.FormatUint(uint64(n), 10))
	}
	var set api.QuotaItem
	if err := c.repos.Asking(ctx, client.Call{Op: api.SetQuota, Params: params}, &set); err != nil {
		return fmt.Errorf("set quota of %s: %w", c.Arg(0), err)
	}
	rec := recordOf(set)
	c.UI.Done(rec, "set the quota of %s: %s, %s", rec.Subject, rec.bytes(), rec.perDay())
	return nil
}

func (r quotaRecord) bytes() string {
	if r.BytesMax == 0 {
		return "any size"
	}
	return term.Bytes(int64(r.BytesMax))
}

func (r quotaRecord) perDay() string {
	if r.SnapshotsPerDay == 0 {
		return "any number of snapshots"
	}
	return term.Plural(int64(r.SnapshotsPerDay), "snapshot") + " a day"
}

func quotaList(ctx context.Context, c *call) error {
	var list []api.QuotaItem
	if err := c.repos.Asking(ctx, client.Call{Op: api.ListQuotas}, &list); err != nil {
		return fmt.Errorf("list quotas: %w", err)
	}
	rows := [][]string{{"subject", "size", "snapshots"}}
	for _, q := range list {
		rec := recordOf(q)
		rows = append(rows, []string{rec.Subject, rec.bytes(), rec.perDay()})
		if c.UI.JSON {
			c.UI.Result(rec, nil)
		}
	}
	c.UI.Listing(rows, "no quotas")
	return nil
}

func quotaRemove(ctx context.Context, c *call) error {
	err := c.repos.Asking(ctx, client.Call{Op: api.RemoveQuota, Params: repo.Fields("subject", c.Arg(0))}, nil)
	if err != nil {
		return fmt.Errorf("remove quota of %s: %w", c.Arg(0), err)
	}
	c.UI.Done(deletion{"quota_removed", c.Arg(0)}, "removed the quota of %s", c.Arg(0))
	return nil
}
