package lab

import (
	"cmp"

	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"holdfast/tests/harness"
)

// datastoreName is what a server calls the repository of a world, adminToken who
// asks it.
const (
	datastoreName = "tank"
	adminToken    = "root@pam!admin"
)

// Server is a backup server in front of the repository of a World.
type Server struct {
	world  *World
	direct Repo // how the repository is reached without it
	data   string
	secret string
	server *harness.Server // that runs now
}

// Serve starts a server that offers the repository of w. All commands of w go over
// the network from then on.
func (w *World) Serve() (*Server, error) {
	data, err := w.lab.MkdirTemp()
	if err != nil {
		return nil, err
	}
	s := &Server{world: w, direct: w.Repo, data: filepath.Join(data, "data")}
	if err := s.Start(); err != nil {
		return nil, err
	}
	return s, s.direct.Must("datastore", "create", datastoreName, w.Path, "--reuse", "--data", s.data)
}

// Start starts the server again after a Kill or Stop.
func (s *Server) Start() (err error) {
	s.server, err = harness.Serve(s.direct.Command("serve", "--data", s.data, "--listen", "127.0.0.1:0", "--json"))
	if err != nil {
		return err
	}
	s.secret = cmp.Or(s.server.Secret, s.secret)
	s.world.Name = adminToken + "@" + s.server.Address + ":" + datastoreName
	s.world.Env = append(s.direct.Env, "HOLDFAST_PASSWORD="+s.secret, "HOLDFAST_FINGERPRINT="+s.server.Fingerprint)
	return nil
}

// Kill kills the server.
func (s *Server) Kill() (harness.Result, error) { return s.server.Kill() }

// Stop lets the server end, which it has to do in good order.
func (s *Server) Stop() error {
	s.world.Repo = s.direct
	return s.server.Stop()
}

// quiet are the figures of a server that has nothing to do but to tell them; open
// finds that of sessions.
var (
	quiet = []string{"\nholdfast_connections 1\n", "\nholdfast_requests_in_flight 1\n"}
	open  = regexp.MustCompile(`(?m)^holdfast_sessions\{.*\} [1-9]`)
)

// isQuiet reports whether a page of figures is that of a quiet server.
func isQuiet(page []byte) bool {
	return !open.Match(page) && !slices.ContainsFunc(quiet, func(line string) bool { return !bytes.Contains(page, []byte(line)) })
}

// Quiet waits until the server has carried out or given up all that it was asked: a
// client that was killed may have asked for something that it has not even read yet.
func (s *Server) Quiet() error {
	client := &http.Client{Timeout: harness.Patience, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it has just said where it listens
	}}
	ask, err := http.NewRequest(http.MethodGet, "https://"+s.server.Address+"/metrics", nil)
	if err != nil {
		return err
	}
	ask.Header.Set("Authorization", "PBSAPIToken="+adminToken+":"+s.secret)
	for end := time.Now().Add(harness.Patience); ; time.Sleep(5 * time.Millisecond) {
		res, err := client.Do(ask)
		if err != nil {
			return err
		}
		page, err := io.ReadAll(res.Body)
		res.Body.Close()
		switch {
		case err != nil:
			return err
		case res.StatusCode != http.StatusOK:
			return fmt.Errorf("%s: %s: %s", ask.URL, res.Status, harness.Clip(string(page)))
		case isQuiet(page):
			return nil
		case time.Now().After(end):
			return fmt.Errorf("the server is not quiet after %v: %s", harness.Patience, page)
		}
	}
}
