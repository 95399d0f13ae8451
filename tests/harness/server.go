package harness

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// serverPatience is how long a server may take to start or to end.
const serverPatience = Patience

// Announced is what a server says of itself when it starts.
type Announced struct {
	Address     string `json:"address"` // where it listens
	Fingerprint string `json:"fingerprint"`
	// AuthID and Secret are those of the administrator, of a first start only.
	AuthID string `json:"auth_id"`
	Secret string `json:"secret"`
}

// Server is a server that listens.
type Server struct {
	*Process
	Announced
}

// Serve starts a server and waits until it listens. The command is that of
// holdfast serve with --json, whose standard output is taken.
func Serve(c Command) (*Server, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.Stdout, c.Endless = w, true
	p, err := Start(c)
	w.Close()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	late := time.AfterFunc(serverPatience, p.cancel)
	defer late.Stop()
	said, err := listening(r)
	if err != nil {
		res, e := p.giveUp(err)
		return nil, errors.Join(fmt.Errorf("the server does not listen: %w: %s\n%s", err, res.How, p.Log.Tail()), e, r.Close())
	}
	go func() {
		_, _ = io.Copy(io.Discard, r)
		r.Close()
	}()
	return &Server{p, said}, nil
}

// giveUp waits for the end of a process that has not done what it was started for,
// and kills it unless it ends by itself, as it does where there is nothing to read
// of it any more.
func (p *Process) giveUp(why error) (Result, error) {
	if !errors.Is(why, io.EOF) {
		return p.Kill()
	}
	p.EndWithin(serverPatience)
	return p.Wait()
}

// listening reads what a server says until it listens.
func listening(r io.Reader) (Announced, error) {
	var all Announced
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return all, err
		}
		said := struct {
			Type string `json:"message_type"`
			Announced
		}{}
		if err := json.Unmarshal(line, &said); err != nil {
			return all, fmt.Errorf("it said %q: %w", line, err)
		}
		switch said.Type {
		case "first_start":
			all.AuthID, all.Secret = said.AuthID, said.Secret
		case "listening":
			all.Address, all.Fingerprint = said.Address, said.Fingerprint
			return all, nil
		}
	}
}

// Stop ends the server as a service manager does. That it ends with another code
// than 0, has crashed or does not end is an error. A server that has ended and was
// waited for is left alone.
func (s *Server) Stop() error {
	if s.ended.Load() {
		return nil
	}
	_ = s.Signal(syscall.SIGTERM) // if it is dead already, then not of this
	s.EndWithin(serverPatience)
	res, err := s.Wait()
	switch {
	case err != nil:
		return fmt.Errorf("the server: %w", err)
	case res.Code != 0:
		return fmt.Errorf("the server ended with %s\n%s", res.How, s.Log.Tail())
	case strings.Contains(res.Err, "panic"):
		return fmt.Errorf("a part of the server crashed:\n%s", s.Log.Tail())
	}
	return nil
}
