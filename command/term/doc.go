// Package term is what Holdfast says and how: results, messages, progress, help,
// units, and the kinds of errors with the codes that a run ends with. Results go
// to standard output, messages to standard error, in lower case and without a
// full stop; every refusal names the next step. With --json both become one JSON
// object per line (docs/json.md). Nothing from outside reaches a terminal but
// through here, and then it can make the terminal do nothing.
//
// It knows no backup, no store and no server.
package term
