package repo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore/durable"
	"holdfast/client"
	"holdfast/command/secret"
)

// ticketsMax is how many tickets are kept; beyond it all old ones go.
const ticketsMax = 64

// ticketPath is the file that keeps tickets until the user logs out of the
// machine, "" if there is no place for it.
func (n Network) ticketPath() string {
	if dir := n.Env["XDG_RUNTIME_DIR"]; filepath.IsAbs(dir) {
		return filepath.Join(dir, secret.ConfigDir, "tickets.json")
	}
	return ""
}

// ticketFile keeps tickets between two runs of the program. Whatever is wrong
// with the file only means that a password is asked for again.
type ticketFile struct {
	path string
	warn func(format string, args ...any)
}

// Load returns the ticket that was kept for key.
func (f ticketFile) Load(key string) (client.Ticket, bool) {
	t, ok := f.read()[key]
	return t, ok
}

// Store keeps a ticket.
func (f ticketFile) Store(key string, t client.Ticket) {
	f.change(func(all map[string]client.Ticket) {
		if len(all) >= ticketsMax {
			clear(all)
		}
		all[key] = t
	})
}

// Forget drops the ticket of key.
func (f ticketFile) Forget(key string) {
	f.change(func(all map[string]client.Ticket) { delete(all, key) })
}

// read returns all tickets. A file that others may read or have written is
// not trusted.
func (f ticketFile) read() map[string]client.Ticket {
	all := make(map[string]client.Ticket)
	st, err := os.Lstat(f.path)
	if err != nil || !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 {
		return all
	}
	b, err := secret.ReadSmall(f.path)
	if err != nil || json.Unmarshal(b, &all) != nil {
		return make(map[string]client.Ticket)
	}
	return all
}

// change reads, changes and writes the file while no other program does.
func (f ticketFile) change(do func(map[string]client.Ticket)) {
	if err := f.locked(do); err != nil {
		f.warn("the ticket is not kept: %v", err)
	}
}

func (f ticketFile) locked(do func(map[string]client.Ticket)) error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(f.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
	}
	all := f.read()
	do(all)
	if len(all) == 0 {
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return durable.WriteFile(f.path, b, 0o600)
}
