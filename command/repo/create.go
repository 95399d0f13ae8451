package repo

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// DatastoreSettings are what was said about a new datastore. What was not is left
// out: a real PBS does not know it.
func DatastoreSettings(given term.Given) (url.Values, error) {
	params := url.Values{}
	if !given.Flags.IsSet("trash-days") {
		return params, nil
	}
	wanted, err := CreateOptions(given)
	params.Set("trash-days", strconv.Itoa(wanted.TrashDays))
	return params, err
}

// Datastore is one that a server is to make.
type Datastore struct {
	Name    string
	Path    string // "" for a place of the server's choice
	Comment string
}

// CreateDatastore has a server make a datastore and waits until it is there.
func CreateDatastore(ctx context.Context, s *client.Client, d Datastore, settings url.Values) error {
	params := Fields("name", d.Name, "comment", d.Comment)
	if d.Path != "" {
		params.Set("path", filepath.Clean(d.Path))
	}
	maps.Copy(params, settings)
	var answer json.RawMessage
	err := s.Do(ctx, client.Call{Op: api.CreateDatastore, Params: params, Into: &answer})
	if err != nil {
		return err
	}
	return FinishTask(ctx, s, answer)
}

// FinishTask waits for the task that an answer names, if it names one.
func FinishTask(ctx context.Context, s *client.Client, answer json.RawMessage) error {
	var upid string
	if json.Unmarshal(answer, &upid) != nil || !strings.HasPrefix(upid, "UPID:") {
		return nil
	}
	return s.FollowTask(ctx, upid, func(string) {})
}

// TrashDaysFlag says how long removed snapshots stay.
func TrashDaysFlag() cli.Flag {
	return &cli.UintFlag{
		Name: "trash-days", Value: datastore.TrashDaysDefault,
		Usage: "keep removed snapshots for `N` days, in which they can be brought back; 0 removes them at once",
	}
}

// CreateOptions reads what is to be set about a new repository.
func CreateOptions(given term.Given) (wanted datastore.CreateOptions, err error) {
	days := given.Flags.Uint("trash-days")
	if days > wire.TrashDaysMax {
		return wanted, term.Usagef("--trash-days %d: want 0 to %d", days, wire.TrashDaysMax)
	}
	wanted.TrashDays = int(days)
	return wanted, nil
}
