package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/server/front"
)

// configRecord is a configuration that a server can start with.
type configRecord struct {
	MessageType string   `json:"message_type"` // "config"
	Data        string   `json:"data"`
	Listen      []string `json:"listen"`
	Certificate string   `json:"certificate,omitempty"` // absent if it is self-signed
}

// checkServe goes through what a start needs, in its order, and changes nothing;
// what is wrong with the file and the flags has been told before. Beside a running
// server it tells whether the next start would succeed.
func (c *call) checkServe(ctx context.Context, conf serveConfig) error {
	used, err := checkServed(ctx, conf.Data)
	if err != nil {
		return err
	}
	if err := conf.checkCertificate(); err != nil {
		return err
	}
	for _, address := range conf.Listen {
		if err := checkListen(address, used); err != nil {
			return err
		}
	}
	c.UI.Done(configRecord{"config", conf.Data, conf.Listen, conf.Certificate},
		"the configuration is good: data in %s, listening on %s", conf.Data, strings.Join(conf.Listen, " "))
	return nil
}

// checkServed opens the data directory as a start does, if there is one: users,
// rights and tasks must be readable. used says that a server or another command
// works on it at the moment, who has opened it already.
func checkServed(ctx context.Context, dir string) (used bool, err error) {
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, checkMakeable(dir)
	}
	if err == nil && !st.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return false, fmt.Errorf("look at data directory %s: %w", dir, err)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return false, fmt.Errorf("write to data directory %s: %w", dir, err)
	}
	// A directory without it has never been started in: opening would begin that.
	if _, err := os.Stat(filepath.Join(dir, repo.DataAccessName)); errors.Is(err, fs.ErrNotExist) {
		return false, repo.CheckAccessFile(dir, false)
	}
	d, err := repo.OpenDataDir(ctx, dir, 0, false)
	if errors.Is(err, chunkstore.ErrLocked) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, d.Close(ctx)
}

// checkMakeable tells whether a directory that is missing could be made.
func checkMakeable(dir string) error {
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		st, err := os.Stat(parent)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !st.IsDir() {
			err = syscall.ENOTDIR
		}
		if err == nil {
			err = unix.Access(parent, unix.W_OK|unix.X_OK)
		}
		if err != nil {
			return fmt.Errorf("make data directory %s: in %s: %w", dir, parent, err)
		}
		return nil
	}
}

// checkCertificate loads the certificate; that of the server itself may be
// missing as a whole, since the first start makes it.
func (s *serveConfig) checkCertificate() error {
	certFile, keyFile := s.certificateFiles()
	if s.Certificate == "" {
		_, certErr := os.Lstat(certFile)
		_, keyErr := os.Lstat(keyFile)
		if errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist) {
			return nil
		}
	}
	_, err := front.LoadCertificate(certFile, keyFile)
	return s.certificateError(err)
}

// certificateError names the files, and what to do about the server's own ones.
func (s *serveConfig) certificateError(err error) error {
	if err == nil {
		return nil
	}
	certFile, keyFile := s.certificateFiles()
	err = fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	if s.Certificate != "" {
		return term.Hintf(err, "both must be there in PEM form, and belong together")
	}
	return term.Hintf(err, "put both back from a copy; if both are moved away, the next start makes new ones, whose fingerprint every client must be told")
}

// checkListen tells whether an address can be listened on. One in use is as it
// should be while the server runs.
func checkListen(address string, used bool) error {
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return l.Close()
	case used && errors.Is(err, syscall.EADDRINUSE):
		return nil
	}
	return listenError(err)
}

func listenError(err error) error {
	return term.Hintf(fmt.Errorf("listen: %w", err), "choose another address with --listen HOST:PORT")
}
