package budget

import (
	"context"
	"fmt"

	"holdfast/datastore/server/ledger"
)

// How many manifests are read and taken apart at once: of one datastore, of those for
// one user, and for administrators only. As many as of one datastore are taken apart of
// all together, each of which takes up to 30 MB of memory.
const (
	manifestsMax   = 4
	manifestsShare = 2
	manifestsKept  = 1
)

// Turns are those to read manifests of one datastore. They are charged to who asks. That
// is not one account for all datastores, or one whose disk hangs would keep people from
// the others; to take apart what was read needs no disk, and has one bound for all.
type Turns struct {
	Reading   *ledger.Resource // at once
	unfolding chan struct{}    // of the server
}

// NewTurns returns those of a datastore that is being opened.
func (a *Accounts) NewTurns() *Turns {
	return &Turns{unfolding: a.unfolding,
		Reading: ledger.New(ledger.Limit{Name: "manifests being read", Total: manifestsMax, Share: manifestsShare, Kept: manifestsKept})}
}

// Read waits until the payer may read a manifest.
func (t *Turns) Read(ctx context.Context) (done func(), err error) {
	hold, err := t.Reading.Take(ctx, payerOf(ctx), 1)
	if err != nil {
		return nil, err
	}
	return hold.Free, nil
}

// Unfold waits until a manifest that was read may be taken apart.
func (t *Turns) Unfold(ctx context.Context) (done func(), err error) {
	select {
	case t.unfolding <- struct{}{}:
		return func() { <-t.unfolding }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for memory for a manifest: %w", context.Cause(ctx))
	}
}

// payerKey is the key of a payer in a context.
type payerKey struct{}

// WithPayer says who pays for what is done within a context.
func WithPayer(ctx context.Context, p ledger.Payer) context.Context {
	return context.WithValue(ctx, payerKey{}, p)
}

// itself pays for the tasks of a server, of which there are few at a time, whoever has
// begun them. No user has such a name.
const itself = "server"

func payerOf(ctx context.Context) ledger.Payer {
	if p, ok := ctx.Value(payerKey{}).(ledger.Payer); ok {
		return p
	}
	return ledger.Payer{Account: itself}
}
