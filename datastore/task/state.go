package task

import (
	"strconv"
	"strings"
	"time"
)

// Exit strings (section 5.3 of the protocol specification). Every other one is
// the text of an error.
const (
	statusOK       = "OK"
	statusUnknown  = "unknown"
	warningsPrefix = "WARNINGS: "
)

// The last line of a log.
const (
	taskOK       = "TASK OK"
	taskWarnings = "TASK WARNINGS: "
	taskError    = "TASK ERROR: "
)

// Classes of exit strings, as a Filter names them.
const (
	classOK      = "ok"
	classWarning = "warning"
	classError   = "error"
	classUnknown = "unknown"
)

// class tells the kind of an exit string.
func class(status string) string {
	if _, ok := warnings(status); ok {
		return classWarning
	}
	switch status {
	case statusOK:
		return classOK
	case statusUnknown:
		return classUnknown
	}
	return classError
}

// warnings reads the exit string of a task that ended with warnings.
func warnings(status string) (n uint64, ok bool) {
	digits, ok := strings.CutPrefix(status, warningsPrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	return n, err == nil && n > 0 && strconv.FormatUint(n, 10) == digits
}

// errorStatus makes an exit string of an error's text. One that would read as
// the state of a success gets a word before it.
func errorStatus(text string) string {
	text = strings.TrimSpace(clean(text, statusMax))
	switch {
	case text == "":
		return "error without a text"
	case text == statusOK, text == statusUnknown, strings.HasPrefix(text, "WARNINGS"):
		return strings.TrimSpace(clean("error: "+text, statusMax))
	}
	return text
}

// validStatus reports whether s is an exit string that a task can have had.
func validStatus(s string) bool {
	return s != "" && s == strings.TrimSpace(clean(s, statusMax))
}

// stateLine is the line that tells an exit string.
func stateLine(status string) string {
	switch class(status) {
	case classOK:
		return taskOK
	case classWarning:
		return "TASK " + status
	}
	return taskError + status
}

// parseState reads the last line of a log, stamp included.
func parseState(line string) (end int64, status string, ok bool) {
	stamp, text, ok := strings.Cut(line, ": ")
	if !ok {
		return 0, "", false
	}
	at, err := time.Parse(stampLayout, stamp)
	if err != nil {
		return 0, "", false
	}
	switch {
	case text == taskOK:
		return at.Unix(), statusOK, true
	case strings.HasPrefix(text, taskWarnings):
		status = strings.TrimPrefix(text, "TASK ")
		return at.Unix(), status, class(status) == classWarning
	case strings.HasPrefix(text, taskError):
		status = strings.TrimPrefix(text, taskError)
		return at.Unix(), status, validStatus(status) && errorStatus(status) == status
	}
	return 0, "", false
}

// lastState reads the state from the end of a log. A log that stops within a
// line has none.
func lastState(tail []byte) (end int64, status string, ok bool) {
	text, whole := strings.CutSuffix(string(tail), "\n")
	if !whole {
		return 0, "", false
	}
	return parseState(text[strings.LastIndexByte(text, '\n')+1:])
}
