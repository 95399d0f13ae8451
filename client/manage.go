package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Forget implements wire.Manager.
func (c *Client) Forget(ctx context.Context, s wire.Snapshot) error {
	return c.manage(ctx, s, managing{op: api.DeleteSnapshot, doing: "forget"})
}

// Notes implements wire.Manager.
func (c *Client) Notes(ctx context.Context, s wire.Snapshot) (string, error) {
	var text string
	err := c.manage(ctx, s, managing{op: api.GetNotes, doing: "read the notes of", into: &text})
	return text, err
}

// SetNotes implements wire.Manager.
func (c *Client) SetNotes(ctx context.Context, s wire.Snapshot, text string) error {
	return c.manage(ctx, s, managing{
		op: api.SetNotes, doing: "change the notes of", params: url.Values{"notes": {text}},
	})
}

// SetProtected implements wire.Manager.
func (c *Client) SetProtected(ctx context.Context, s wire.Snapshot, protected bool) error {
	return c.manage(ctx, s, managing{
		op: api.SetProtected, doing: "change the protection of",
		params: url.Values{"protected": {strconv.FormatBool(protected)}},
	})
}

// managing is a call about one snapshot.
type managing struct {
	op     api.Op
	doing  string // for the error
	params url.Values
	into   any
}

func (c *Client) manage(ctx context.Context, s wire.Snapshot, m managing) error {
	if err := checkSnapshot(s); err != nil {
		return err
	}
	params := snapshotParams(s)
	for name, values := range m.params {
		params[name] = values
	}
	err := c.doInStore(ctx, Call{Op: m.op, Params: params, Into: m.into})
	if err != nil {
		return fmt.Errorf("%s snapshot %s: %w", m.doing, s, c.missing(ctx, s, err))
	}
	return nil
}

// missing finds out whether the refusal of a call means that the snapshot is
// not there, which a server that does not name what has failed may not say.
func (c *Client) missing(ctx context.Context, s wire.Snapshot, err error) error {
	var status *StatusError
	if !errors.As(err, &status) || status.named() || status.Code != http.StatusBadRequest {
		return err
	}
	if errors.Is(err, chunkstore.ErrNotExist) || errors.Is(err, wire.ErrProtected) {
		return err
	}
	list, listErr := c.Snapshots(ctx, s.Group)
	if listErr != nil && !errors.Is(listErr, chunkstore.ErrNotExist) {
		return err
	}
	for _, info := range list {
		if info.Snapshot == s {
			return err
		}
	}
	return fmt.Errorf("%w (%w)", chunkstore.ErrNotExist, err)
}
