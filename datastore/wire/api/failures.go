package api

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// Exit codes of commands that meet a failure of the table. All that there are have their
// words in command/term.
const (
	ExitError        = 1
	ExitNoRepository = 10
	ExitLocked       = 11
	ExitKey          = 12
	ExitUsage        = 64
	ExitIntegrity    = 65
	ExitNotFound     = 66
	ExitNoSpace      = 69
	ExitUnreachable  = 75
	ExitRefused      = 77
)

// Failure is one row of the table of what can fail at a server: the error that it is on
// both sides, how it is told, and what a command ends with that meets it.
type Failure struct {
	// Name stands for it in the header wire.FailureHeader.
	Name string
	// Is is what errors.Is finds.
	Is error
	// Like are errors of the server's system that it answers in the same way.
	Like []error
	// Status is that of the answer.
	Status int
	// Alone are the statuses that mean this, of a server that names no failures and of what
	// stands before a server.
	Alone []int
	// Says are words of a Proxmox Backup Server, in lower case, where the status says no
	// more than that something is wrong (sections 1.3, 1.5, 2.1, 2.6, 3.1, 4.3 and 4.4 of
	// the protocol specification). A "*" stands for a name.
	Says []string
	// Despite are words that mean this with a status that means something else.
	Despite map[int][]string
	// Exit is the exit code.
	Exit int
}

// failures are in the order of what is more telling: of an error that is several of
// them, the first counts.
var failures = []Failure{
	{Name: "no-store", Is: wire.ErrNoStore, Status: http.StatusBadRequest, Exit: ExitNoRepository},
	{Name: "no-datastore", Is: wire.ErrNoDatastore, Status: http.StatusBadRequest, Exit: ExitNoRepository,
		Says:    []string{"datastore '*' does not exist", "no such datastore '*'"},
		Despite: map[int][]string{http.StatusNotFound: {"datastore '*' does not exist", "no such datastore '*'"}}},

	{Name: "locked", Is: chunkstore.ErrLocked, Status: http.StatusBadRequest, Exit: ExitLocked, Says: []string{": locked by "}},
	{Name: "busy", Is: wire.ErrBusy, Status: http.StatusBadRequest, Exit: ExitLocked,
		Says: []string{"another backup is already running", "already locked by another operation", "unable to acquire lock", "is running already"}},
	{Name: "sweeping", Is: chunkstore.ErrSweeping, Status: http.StatusBadRequest, Exit: ExitLocked},

	{Name: "unauthenticated", Is: wire.ErrUnauthenticated, Status: http.StatusUnauthorized, Alone: []int{http.StatusUnauthorized}, Exit: ExitKey},

	{Name: "owner", Is: wire.ErrOwner, Status: http.StatusBadRequest, Exit: ExitRefused, Says: []string{"backup owner check failed"}},
	{Name: "permission", Is: wire.ErrPermission, Status: http.StatusForbidden, Alone: []int{http.StatusForbidden}, Exit: ExitRefused,
		Says:    []string{"no permissions on", "permission check failed"},
		Despite: map[int][]string{http.StatusUnauthorized: {"does not have permission to", "not allowed"}}},
	{Name: "stopped", Is: wire.ErrStopped, Status: http.StatusBadRequest, Exit: ExitRefused, Says: []string{"abort requested - aborting task"}},

	{Name: "quota", Is: wire.ErrQuota, Status: http.StatusInsufficientStorage, Exit: ExitNoSpace},
	{Name: "no-space", Is: chunkstore.ErrNoSpace, Like: []error{syscall.ENOSPC}, Status: http.StatusInsufficientStorage,
		Alone: []int{http.StatusInsufficientStorage}, Exit: ExitNoSpace, Says: []string{"no space left"}},

	{Name: "damaged", Is: chunkstore.ErrCorrupt, Status: http.StatusBadRequest, Exit: ExitIntegrity},
	{Name: "chunks-missing", Is: wire.ErrMissing, Status: http.StatusBadRequest, Exit: ExitIntegrity},
	{Name: "verification", Is: wire.ErrVerification, Status: http.StatusBadRequest, Exit: ExitIntegrity,
		Says: []string{"verification failed - please check the log"}},

	{Name: "share", Is: wire.ErrShare, Status: http.StatusTooManyRequests, Alone: []int{http.StatusTooManyRequests}, Exit: ExitUnreachable},
	{Name: "full", Is: wire.ErrFull, Like: []error{context.Canceled, context.DeadlineExceeded}, Status: http.StatusServiceUnavailable,
		Alone: []int{http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout}, Exit: ExitUnreachable},
	{Name: "slow", Is: wire.ErrSlow, Like: []error{os.ErrDeadlineExceeded}, Status: http.StatusRequestTimeout,
		Alone: []int{http.StatusRequestTimeout}, Exit: ExitUnreachable},

	{Name: "not-empty", Is: wire.ErrNotEmpty, Status: http.StatusBadRequest, Exit: ExitRefused},

	{Name: "parameter-unknown", Is: wire.ErrUnknownParameter, Status: http.StatusBadRequest, Exit: ExitUsage, Says: []string{"schema does not allow"}},
	{Name: "parameter", Is: wire.ErrParameter, Status: http.StatusBadRequest, Exit: ExitUsage, Says: []string{"parameter verification failed"}},
	{Name: "name", Is: wire.ErrName, Status: http.StatusBadRequest, Exit: ExitUsage},
	{Name: "invalid", Is: chunkstore.ErrInvalid, Status: http.StatusBadRequest, Exit: ExitUsage},

	{Name: "protected", Is: wire.ErrProtected, Status: http.StatusBadRequest, Exit: ExitRefused, Says: []string{"cannot remove protected snapshot"}},
	{Name: "exists", Is: wire.ErrExists, Status: http.StatusBadRequest, Exit: ExitRefused,
		Says: []string{"timestamp is older than last backup", "backup directory already exists"}},
	{Name: "nothing-found", Is: chunkstore.ErrNothingFound, Status: http.StatusBadRequest, Exit: ExitRefused},
	{Name: "file-system", Is: wire.ErrFileSystem, Status: http.StatusBadRequest, Exit: ExitRefused},
	{Name: "read-only", Is: chunkstore.ErrReadOnly, Status: http.StatusBadRequest, Exit: ExitRefused},

	{Name: "not-found", Is: chunkstore.ErrNotExist, Status: http.StatusBadRequest, Alone: []int{http.StatusNotFound}, Exit: ExitNotFound,
		Says: []string{"does not exist", "no such file or directory", "enoent", "no such chunk"}},
	{Name: "fenced", Is: chunkstore.ErrFenced, Status: http.StatusBadRequest, Exit: ExitError},
}

// FailureOther is the name of all failures that are not in the table.
const FailureOther = "other"

// Failures are the rows of the table, in the order of what is more telling. The caller
// owns the slice.
func Failures() []Failure { return slices.Clone(failures) }

// those are the rows that a condition holds for.
func those(holds func(Failure) bool) (rows []Failure) {
	for _, f := range failures {
		if holds(f) {
			rows = append(rows, f)
		}
	}
	return rows
}

// FailuresOf are the rows that an error of the server's side is.
func FailuresOf(err error) []Failure {
	return those(func(f Failure) bool {
		return errors.Is(err, f.Is) || slices.ContainsFunc(f.Like, func(like error) bool { return errors.Is(err, like) })
	})
}

// FailuresAnswered are the rows that a status means by itself.
func FailuresAnswered(status int) []Failure {
	return those(func(f Failure) bool { return slices.Contains(f.Alone, status) })
}

// FailuresNamed are the rows of names. Those of a newer server that are not in this table
// are left out.
func FailuresNamed(names []string) []Failure {
	return those(func(f Failure) bool { return slices.Contains(names, f.Name) })
}

// FailuresSaid are the rows that an answer means whose server names none: by its status,
// else by its words. A text that ends in an error of the table is that one.
func FailuresSaid(status int, text string) []Failure {
	text = strings.ToLower(strings.TrimRight(text, ". \n"))
	says := func(parts []string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return holds(text, part) })
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		if rows := those(func(f Failure) bool { return says(f.Despite[status]) }); rows != nil {
			return rows
		}
		return FailuresAnswered(status)
	}
	return those(func(f Failure) bool {
		return slices.Contains(f.Alone, status) || strings.HasSuffix(text, strings.ToLower(f.Is.Error())) || says(f.Says)
	})
}

// holds tells whether a text has a part, in which "*" stands for anything without a quote.
func holds(text, part string) bool {
	before, after, star := strings.Cut(part, "*")
	for {
		at := strings.Index(text, before)
		if at < 0 || !star {
			return at >= 0
		}
		text = text[at+len(before):]
		if end := strings.IndexByte(text, '\''); end >= 0 && strings.HasPrefix(text[end:], after) {
			return true
		}
	}
}
