package serve

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"holdfast/chunkstore/durable"
	"holdfast/command/repo"
	"holdfast/datastore/access"
	"holdfast/datastore/wire"
)

// adminToken is what the first start makes.
const adminToken wire.AuthID = wire.RootUser + "!admin"

// firstStartRecord is printed once in the life of a data directory.
type firstStartRecord struct {
	MessageType string `json:"message_type"` // "first_start"
	AuthID      string `json:"auth_id"`
	Secret      string `json:"secret"`
	Fingerprint string `json:"fingerprint"`
	Repository  string `json:"repository"`
}

// firstStart makes the first token if the server has never run before. A file
// remembers that it has: a token that was revoked must not come back.
func (r *running) firstStart() error {
	marker := filepath.Join(r.conf.Data, repo.DataStartedName)
	_, err := os.Stat(marker)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for an earlier start: %w", err)
	}
	secret, err := r.data.Access.CreateToken(access.Token{ID: adminToken, Enabled: true, Comment: "made by the first start"})
	switch {
	case errors.Is(err, wire.ErrExists):
		r.log.Warn("there is a token of this name already; its secret is not shown again", "auth_id", adminToken)
	case err != nil:
		return fmt.Errorf("make token %s: %w", adminToken, err)
	default:
		if err := r.data.Access.SetACL(access.ACL{Path: "/", Role: "Admin", ID: adminToken, Propagate: true}); err != nil {
			return fmt.Errorf("give rights to %s: %w", adminToken, err)
		}
		r.showFirstStart(secret)
	}
	if err := durable.WriteFile(marker, []byte("the first start is over\n"), 0o600); err != nil {
		return fmt.Errorf("note the first start: %w", err)
	}
	return nil
}

func (r *running) showFirstStart(secret string) {
	rec := firstStartRecord{"first_start", string(adminToken), secret, r.cert.Fingerprint(), r.reachedAs()}
	r.UI.Result(rec, func(w io.Writer) {
		fmt.Fprintf(w, `first start: made the token %s with all rights, and a certificate
with these a client reaches this server; the password, its secret, is shown this once:
  export HOLDFAST_REPOSITORY='%s'
  export HOLDFAST_PASSWORD=%s
  export HOLDFAST_FINGERPRINT=%s
%s`, rec.AuthID, rec.Repository, rec.Secret, rec.Fingerprint, r.nextStep(rec.Repository))
	})
}

// nextStep tells how to make the datastore that the name of the repository
// lacks.
func (r *running) nextStep(name string) string {
	if !strings.HasSuffix(name, ":"+datastorePlaceholder) {
		return ""
	}
	data := ""
	if r.conf.Data != repo.DefaultDataDir {
		data = " --data " + r.conf.Data
	}
	return fmt.Sprintf("%s stands for one that is made with: holdfast datastore create NAME%s\n", datastorePlaceholder, data)
}

// datastorePlaceholder stands for a datastore where there is none yet.
const datastorePlaceholder = "DATASTORE"

// reachedAs is a repository on this server, as others would name it.
func (r *running) reachedAs() string {
	repo := wire.Repository{AuthID: string(adminToken), Host: "localhost", Datastore: datastorePlaceholder}
	host, port, err := net.SplitHostPort(r.listeners[0].Addr().String())
	if ip := net.ParseIP(host); err == nil && ip != nil && !ip.IsUnspecified() {
		repo.Host = host
	} else if name, err := os.Hostname(); err == nil {
		repo.Host = name
	}
	if n, err := strconv.Atoi(port); err == nil && n != wire.DefaultPort {
		repo.Port = n
	}
	if list, err := r.data.Access.Datastores(); err == nil && len(list) == 1 {
		repo.Datastore = list[0].Name
	}
	return repo.String()
}
