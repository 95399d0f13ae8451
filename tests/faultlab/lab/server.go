package lab

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"
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
	addr   string // where it listens
	p      *Process
	out    *os.File
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
func (s *Server) Start() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	c := s.direct.Command("serve", "--data", s.data, "--listen", "127.0.0.1:0", "--json")
	c.Stdout, c.Endless = w, true
	s.p, err = s.world.lab.Start(c)
	w.Close()
	if err != nil {
		return errors.Join(err, r.Close())
	}
	s.out = r
	late := time.AfterFunc(patience, s.p.cancel)
	defer late.Stop()
	if err := s.listen(bufio.NewReader(r)); err != nil {
		res, e := s.Kill()
		return fmt.Errorf("start server: %w %w %s", err, e, res)
	}
	go io.Copy(io.Discard, r)
	return nil
}

// listen waits until the server has said where it listens.
func (s *Server) listen(lines *bufio.Reader) error {
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var said struct {
			Type        string `json:"message_type"`
			Address     string `json:"address"`
			Fingerprint string `json:"fingerprint"`
			Secret      string `json:"secret"`
		}
		if err := json.Unmarshal(line, &said); err != nil {
			return fmt.Errorf("the server said %q: %w", line, err)
		}
		if said.Type == "first_start" {
			s.secret = said.Secret
		}
		if said.Type == "listening" {
			s.addr = said.Address
			s.world.Name = adminToken + "@" + said.Address + ":" + datastoreName
			s.world.Env = append(s.direct.Env, "HOLDFAST_PASSWORD="+s.secret, "HOLDFAST_FINGERPRINT="+said.Fingerprint)
			return nil
		}
	}
}

// Kill kills the server.
func (s *Server) Kill() (Result, error) {
	s.p.endSoon()
	_ = s.p.Signal(syscall.SIGKILL) // it may be dead already
	res, err := s.p.Wait()
	s.out.Close()
	return res, err
}

// Stop lets the server end, which it has to do in good order.
func (s *Server) Stop() error {
	if err := s.p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	s.p.endSoon()
	res, err := s.p.Wait()
	s.out.Close()
	s.world.Repo = s.direct
	if err == nil && res.Code != ExitOK {
		err = fmt.Errorf("should have ended well: %s", res)
	}
	return err
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
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it has just said where it listens
	}}
	ask, err := http.NewRequest(http.MethodGet, "https://"+s.addr+"/metrics", nil)
	if err != nil {
		return err
	}
	ask.Header.Set("Authorization", "PBSAPIToken="+adminToken+":"+s.secret)
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
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
			return fmt.Errorf("%s: %s: %s", ask.URL, res.Status, clip(string(page)))
		case isQuiet(page):
			return nil
		case time.Now().After(end):
			return fmt.Errorf("the server is not quiet after %v: %s", patience, page)
		}
	}
}
