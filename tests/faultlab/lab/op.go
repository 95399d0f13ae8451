package lab

import "fmt"

// What a script does.
const (
	Backup    = "backup"
	Forget    = "forget"
	ForgetNow = "forget now"
	Undelete  = "undelete"
	GC        = "gc"
	Notes     = "notes"
)

// Request is one step of a script, as the agent is told.
type Request struct {
	Seq     int
	Kind    string
	Name    string   // of the snapshot
	Sources []string // NAME:FILE, of a backup
	Text    string   // of notes
}

// Answer is what the agent says when a request has been done. Its first one, with
// number 0, says that the repository is open.
type Answer struct {
	Seq   int
	Error string // "" if it went well
}

// Op is a step with what it means to the model: the snapshot that it makes or is
// about.
type Op struct {
	Request
	group string
	n     int64
	snap  Snap
}

// String names it in messages.
func (o *Op) String() string { return fmt.Sprintf("%s %s", o.Kind, o.Name) }

// Args is the command line that does the step.
func (r Repo) Args(o *Op) []string {
	switch o.Kind {
	case Backup:
		return r.BackupArgs(o.group, o.n, o.Sources...)
	case Forget:
		return []string{"snapshot", "forget", "-r", r.Name, o.Name}
	case ForgetNow:
		return []string{"snapshot", "forget", "--now", "-r", r.Name, o.Name}
	case Undelete:
		return []string{"snapshot", "restore-deleted", "-r", r.Name, o.Name}
	case Notes:
		return []string{"snapshot", "notes", "update", "-r", r.Name, o.Name, o.Text}
	}
	return []string{"gc", "-r", r.Name, "--allow-empty", "--no-progress"}
}
