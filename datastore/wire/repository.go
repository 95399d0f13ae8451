package wire

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Limits of repository names, in bytes.
const (
	// repositoryLenMax is the longest text form of a server's repository.
	repositoryLenMax = 256
	// repositoryPathLenMax is the longest path that names a repository.
	repositoryPathLenMax = 4095
)

// Repository says where snapshots are kept: a directory on this machine or a
// datastore of a server. Either Path is set or Datastore is.
type Repository struct {
	// Path is the directory of an embedded repository, as it was given.
	Path string
	// AuthID is the user or API token, "" if none was given.
	AuthID string
	// Host is a DNS name or an address, IPv6 without brackets; "" means this
	// machine.
	Host string
	// Port is 0 if none was given.
	Port int
	// Datastore is the name of the datastore on the server.
	Datastore string
}

// ParseRepository reads the text form of a repository. What begins with "/" or
// "." is a path, and so is what contains "/" or "\" unless it looks like a location of
// another program (elsewhere.go); the rest is
// [[auth-id@]host[:port]:]datastore, where the auth-id ends at the last "@"
// before the host and an IPv6 address stands in brackets. Errors wrap ErrName.
func ParseRepository(s string) (Repository, error) {
	switch {
	case s == "":
		return Repository{}, repositoryError(s, "empty")
	case strings.IndexFunc(s, isControl) >= 0:
		return Repository{}, repositoryError(s, "holds a control character")
	case strings.ContainsAny(s, `/\`) || s[0] == '.':
		if len(s) > repositoryPathLenMax {
			return Repository{}, repositoryError(s, fmt.Sprintf("path longer than %d bytes", repositoryPathLenMax))
		}
		if why := elsewhere(s); why != "" {
			return Repository{}, repositoryError(s, why)
		}
		return Repository{Path: s}, nil
	case len(s) > repositoryLenMax:
		return Repository{}, repositoryError(s, fmt.Sprintf("longer than %d bytes", repositoryLenMax))
	}
	return parseServer(s)
}

// IsPath reports whether the repository is a directory on this machine.
func (r Repository) IsPath() bool { return r.Path != "" }

// String returns the form that ParseRepository reads.
func (r Repository) String() string {
	if r.Path != "" {
		if r.Path[0] != '.' && (!strings.ContainsAny(r.Path, `/\`) || elsewhere(r.Path) != "") {
			return "./" + r.Path
		}
		return r.Path
	}
	if r.Host == "" {
		return r.Datastore
	}
	var b strings.Builder
	if r.AuthID != "" {
		b.WriteString(r.AuthID + "@")
	}
	if strings.Contains(r.Host, ":") {
		b.WriteString("[" + r.Host + "]")
	} else {
		b.WriteString(r.Host)
	}
	if r.Port != 0 {
		b.WriteString(":" + strconv.Itoa(r.Port))
	}
	return b.String() + ":" + r.Datastore
}

// parseServer reads [[auth-id@]host[:port]:]datastore.
func parseServer(s string) (Repository, error) {
	i := strings.LastIndexByte(s, ':')
	r := Repository{Datastore: s[i+1:]}
	if err := checkDatastore(s, r.Datastore); err != nil {
		return Repository{}, err
	}
	if i < 0 {
		return r, nil
	}
	host := s[:i]
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		r.AuthID, host = host[:at], host[at+1:]
		if err := checkAuthID(s, r.AuthID); err != nil {
			return Repository{}, err
		}
	}
	var port string
	var err error
	if r.Host, port, err = splitHost(s, host); err != nil {
		return Repository{}, err
	}
	if port != "" {
		n, err := strconv.ParseUint(port[1:], 10, 16)
		if err != nil || n == 0 {
			return Repository{}, repositoryError(s, fmt.Sprintf("port %q is not within 1..65535", port[1:]))
		}
		r.Port = int(n)
	}
	return r, nil
}

// splitHost cuts host[:port]; port keeps its colon. s is the whole text, for
// the error.
func splitHost(s, host string) (name, port string, err error) {
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "", "", repositoryError(s, `"[" without "]"`)
		}
		name, port = host[1:end], host[end+1:]
		a, err := netip.ParseAddr(name)
		if err != nil || !a.Is6() || strings.ContainsAny(name, "[]@") {
			return "", "", repositoryError(s, "no IPv6 address within the brackets")
		}
		if !isZone(a.Zone()) {
			return "", "", repositoryError(s, `what follows "%" must be the name of a network interface`)
		}
		if port != "" && port[0] != ':' {
			return "", "", repositoryError(s, `want ":" after "]"`)
		}
		return name, port, nil
	}
	if strings.Count(host, ":") > 1 {
		return "", "", repositoryError(s, "an IPv6 address must stand in brackets")
	}
	name, port = host, ""
	if i := strings.IndexByte(host, ':'); i >= 0 {
		name, port = host[:i], host[i:]
	}
	return name, port, checkHost(s, name)
}

// isZone reports whether z can be the zone of an IPv6 address: the name or
// number of an interface, or "" for none.
func isZone(z string) bool {
	const most = 15 // IFNAMSIZ less its final zero
	return len(z) <= most && strings.IndexFunc(z, func(r rune) bool {
		return r >= 0x80 || !isAlnum(byte(r)) && !strings.ContainsRune("._-", r)
	}) < 0
}

func checkHost(s, host string) error {
	const most = 253
	if host == "" || len(host) > most {
		return repositoryError(s, fmt.Sprintf("host name must have 1 to %d characters", most))
	}
	for _, c := range []byte(host) {
		if !isAlnum(c) && c != '.' && c != '-' && c != '_' {
			return repositoryError(s, fmt.Sprintf("host name %q: use letters, digits, \".\", \"-\" and \"_\"", host))
		}
	}
	if host[0] == '-' || host[0] == '.' {
		return repositoryError(s, fmt.Sprintf("host name %q begins with %q", host, host[:1]))
	}
	return nil
}

// checkDatastore checks the name of a datastore: a safe id of 3 to 32
// characters (section 4.2 of the formats specification).
func checkDatastore(s, name string) error {
	if len(name) < 3 || len(name) > 32 {
		return repositoryError(s, fmt.Sprintf("datastore name %q: want 3 to 32 characters", name))
	}
	if CheckSafeID("datastore", name) != nil {
		return repositoryError(s, fmt.Sprintf(`datastore name %q: use letters, digits, "_", and after the first character also "." and "-"`, name))
	}
	return nil
}

// checkAuthID checks name@realm, with !token behind it for an API token.
func checkAuthID(s, id string) error {
	if why := authIDFault(id); why != "" {
		return repositoryError(s, "user or token: "+why)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func repositoryError(s, why string) error { return nameError("repository", s, why) }
