package term

import (
	"syscall"

	"holdfast/datastore/wire/api"
)

// Exit codes. They are part of the interface: scripts rely on them. Those of what can fail
// at a server stand beside it in the table of failures.
const (
	ExitOK           = 0
	ExitError        = api.ExitError
	ExitPanic        = 2 // made by the Go runtime
	ExitNoRepository = api.ExitNoRepository
	ExitLocked       = api.ExitLocked
	ExitKey          = api.ExitKey
	ExitUsage        = api.ExitUsage
	ExitIntegrity    = api.ExitIntegrity
	ExitNotFound     = api.ExitNotFound
	ExitNoSpace      = api.ExitNoSpace
	ExitOutput       = 74
	ExitUnreachable  = api.ExitUnreachable
	ExitUnknown      = 76
	ExitRefused      = api.ExitRefused
	ExitSignal       = 128 // and the number of the signal
	ExitInterrupted  = ExitSignal + int(syscall.SIGINT)
	ExitPipe         = ExitSignal + int(syscall.SIGPIPE)
)

// ExitStatus is the list at the end of every help text.
const ExitStatus = `    0  done
    1  an error that is none of the others
    2  the program crashed
   10  the repository does not exist
   11  the repository or the group is in use by another process
   12  no key, or a wrong key, passphrase, password or token
   64  wrong flags or arguments
   65  damaged, tampered with or not signed
   66  no such source, file, group, snapshot or archive
   69  no space left, or a quota is used up
   74  done, but the result could not be written to standard output
   75  the server cannot be reached or is too busy, it said nothing for too long, or the connection broke
   76  the server did not say whether the snapshot was made
   77  refused: protected, existing already, in use, empty, in a foreign format, nothing that can be backed up, not permitted, a server nobody vouches for, or stopped there
  129  ended by SIGHUP: the terminal has gone
  130  interrupted by SIGINT
  131  ended by SIGQUIT
  141  whoever read standard output has closed it
  143  ended by SIGTERM
  152  ended by SIGXCPU: the time limit of the process`
