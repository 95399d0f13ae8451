package wire

import (
	"fmt"
	"strings"
)

// elsewhere says what is meant if a text that would be a path looks like the
// location of a repository of another program, or like a path that a shell
// was to complete; "" if it is a path. Taken for a path it would be a directory
// below the one the command happens to run in, and the backup would lie
// on the disk that it was to be kept away from. A path that does look
// like that begins with "./".
func elsewhere(s string) string {
	first, rest, _ := strings.Cut(s, "/")
	switch {
	case first == "" || first[0] == '.':
		return ""
	case first[0] == '~' || first[0] == '$':
		return fmt.Sprintf("no shell has put in what %q stands for; write the whole path, or ./%s if that is its name", first, s)
	case strings.Contains(first, `\`):
		return fmt.Sprintf(`a path has "/" and no "\": %s; a path with such a name is ./%s`, whatIsMeant(), s)
	case !strings.ContainsAny(first, ":@"):
		return ""
	case strings.HasPrefix(rest, "/") && strings.HasSuffix(first, ":"):
		return elsewhereURL(strings.TrimSuffix(first, ":"), rest[1:], s)
	}
	return fmt.Sprintf("this is neither a path nor a datastore: %s; a path with such a name is ./%s", whatIsMeant(), s)
}

// elsewhereURL is elsewhere for SCHEME://rest.
func elsewhereURL(scheme, rest, s string) string {
	switch scheme {
	case "file":
		return fmt.Sprintf("a path is named as it is: /%s", strings.TrimLeft(rest, "/"))
	case "http", "https", "pbs":
		if r, ok := serverInURL(rest); ok {
			return fmt.Sprintf("a datastore of a server is named without %s://, as %s", scheme, r)
		}
	}
	return fmt.Sprintf("Holdfast knows no %s://: %s; a path with such a name is ./%s", scheme, whatIsMeant(), s)
}

// serverInURL finds HOST[:PORT]/DATASTORE in what stands behind https://.
func serverInURL(rest string) (Repository, bool) {
	i := strings.LastIndexByte(strings.TrimRight(rest, "/"), '/')
	if i < 0 {
		return Repository{}, false
	}
	r, err := parseServer(strings.TrimRight(rest[:i], "/") + ":" + strings.TrimRight(rest[i+1:], "/"))
	return r, err == nil
}

func whatIsMeant() string {
	return "a directory of another machine is mounted first and named by its path, a datastore of a server is [[USER@REALM[!TOKEN]@]HOST[:PORT]:]DATASTORE"
}
