package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/server"
	"holdfast/datastore/server/front"
)

// Command is holdfast serve.
func (r Room) Command() *cli.Command {
	return &cli.Command{
		Name: "serve", Usage: "run a backup server",
		Description: term.Describe(`Serves datastores over the protocol of Proxmox Backup Server, for Holdfast, Proxmox VE and
proxmox-backup-client. The first start makes a self-signed certificate and the token
root@pam!admin with all rights, and prints its secret once. Datastores, users and rights are
made with the commands of those names, beside the running server.
SIGHUP reads the certificate again. SIGTERM, SIGINT and SIGQUIT end the server: it takes no more
connections, gives running sessions a bounded time (stop_timeout of the configuration, 30s),
and stops other tasks. The second one ends it at once; nothing that was finished is lost.`,
			"holdfast serve",
			"holdfast serve --data ./server --listen 127.0.0.1:8007",
			"holdfast serve --check"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "data", Usage: "keep users, rights, tasks and the certificate in `DIR` (or $HOLDFAST_DATA; default " + repo.DefaultDataDir + ")"},
			&cli.StringSliceFlag{Name: "listen", Usage: "listen on `ADDRESS`, as [::1]:8007 or :8007; may be repeated (default :8007)"},
			&cli.StringFlag{Name: "config", Usage: "read the configuration from `FILE` (default " + defaultConfigFile + " if there)"},
			&cli.BoolFlag{Name: "check", Usage: "check all that a start needs: configuration, certificate, data directory and addresses; start and change nothing"},
		},
		Action: r.action(term.Takes(0, 0), runServe),
	}
}

// listeningRecord is printed for every address when the server answers there.
type listeningRecord struct {
	MessageType string `json:"message_type"` // "listening"
	Address     string `json:"address"`
	Fingerprint string `json:"fingerprint"`
}

// running is a server with all that it needs.
type running struct {
	*call
	conf   serveConfig
	data   *repo.DataDir
	cert   *front.Certificate
	server *server.Server
	log    *slog.Logger

	listeners []*door
	local     net.Listener
	failed    chan error
	announced bool
}

func runServe(ctx context.Context, c *call) error {
	c.Signals.HangupReloads()
	conf, err := c.serveConfig()
	if err != nil {
		return err
	}
	if c.Flags.Bool("check") {
		return c.checkServe(ctx, conf)
	}
	if err := repo.MakeDataDir(conf.Data); err != nil {
		return err
	}
	data, err := repo.OpenDataDir(ctx, conf.Data, c.repos.LockWait(), false)
	if err != nil {
		return err
	}
	r := &running{call: c, conf: conf, data: data, log: c.logger(conf.LogLevel), failed: make(chan error, 1)}
	err = r.start()
	if err == nil {
		err = r.work(ctx)
	}
	return errors.Join(err, r.stop())
}

// logger writes the log of a server to standard error.
func (r Room) logger(level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	switch {
	case r.UI.Verbose:
		o.Level = slog.LevelDebug
	case r.UI.Quiet:
		o.Level = slog.LevelWarn
	}
	if !r.UI.JSON {
		return slog.New(slog.NewTextHandler(r.Err, o))
	}
	// Every line that the program writes as JSON tells what it is.
	return slog.New(slog.NewJSONHandler(term.Escape(r.Err), o)).With("message_type", "log")
}

// start brings everything up to the point where requests are answered.
func (r *running) start() error {
	certFile, keyFile := r.conf.certificateFiles()
	var err error
	if r.conf.Certificate == "" {
		r.cert, err = front.EnsureCertificate(certFile, keyFile, r.names())
	} else {
		r.cert, err = front.LoadCertificate(certFile, keyFile)
	}
	if err != nil {
		return r.conf.certificateError(err)
	}
	r.Secrets.WarnReadable("key of the certificate", keyFile, "whoever has it can pretend to be this server")
	limits, err := r.conf.limits()
	if err != nil {
		return err
	}
	r.server, err = server.New(server.Options{
		DataDir: r.conf.Data, Access: r.data.Access, Tasks: r.data.Tasks, Log: r.log, Limits: limits,
		Version: term.Version(), Fingerprint: r.cert.Fingerprint(), OpenMetrics: r.conf.OpenMetrics,
	})
	if err != nil {
		return err
	}
	return r.listen()
}

// names are what the self-signed certificate is made out to.
func (r *running) names() []string {
	names := append([]string{}, r.conf.Names...)
	if host, err := os.Hostname(); err == nil && len(names) == 0 {
		names = append(names, host)
	}
	return append(names, "localhost", "127.0.0.1", "::1")
}

// listen opens the addresses and the socket for management.
func (r *running) listen() error {
	for _, address := range r.conf.Listen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return listenError(err)
		}
		r.listeners = append(r.listeners, &door{Listener: l})
	}
	path := filepath.Join(r.conf.Data, repo.DataSocketName)
	// Nobody else has the data directory, so this is left over.
	err := os.Remove(path)
	if errors.Is(err, syscall.EROFS) {
		r.log.Warn("the data directory can only be read: restores go on, but there is no local socket, and tasks are remembered until the server ends",
			"data", r.conf.Data)
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old socket: %w", err)
	}
	// The mode is set before anybody can connect: the mask of the process
	// counts when the name appears.
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	r.local = l
	return nil
}

// work serves until ctx ends or a listener fails.
func (r *running) work(ctx context.Context) error {
	// The listeners live until stop, so that requests can come to their end.
	background := context.WithoutCancel(ctx)
	serve := func(what string, do func() error) {
		go func() {
			if err := do(); err != nil {
				select {
				case r.failed <- fmt.Errorf("serve %s: %w", what, err):
				default:
				}
			}
		}()
	}
	for _, l := range r.listeners {
		serve(l.Addr().String(), func() error { return r.server.Serve(background, l, r.cert.Config()) })
	}
	if r.local != nil {
		serve(repo.DataSocketName, func() error { return r.server.ServeLocal(background, r.local) })
	}
	if err := r.announce(); err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			r.reload()
		case err := <-r.failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// announce tells the user and the service manager that the server is up.
func (r *running) announce() error {
	if err := r.firstStart(); err != nil {
		return err
	}
	for _, l := range r.listeners {
		rec := listeningRecord{"listening", l.Addr().String(), r.cert.Fingerprint()}
		r.UI.Summary(rec, func(w io.Writer) {
			fmt.Fprintf(w, "listening on %s, fingerprint %s\n", rec.Address, rec.Fingerprint)
		})
	}
	r.announced = true
	return r.notify(notifyReady)
}

// reload reads the certificate again; if that fails the old one stays.
func (r *running) reload() {
	r.tell(notifyReloading())
	if err := r.cert.Reload(); err != nil {
		r.log.Error("reload", "error", err)
	} else {
		r.log.Info("reloaded", "fingerprint", r.cert.Fingerprint())
	}
	r.tell(notifyReady)
}

// tell notifies the service manager while the server works; that nobody
// listens there is no reason to stop.
func (r *running) tell(state string) {
	if err := r.notify(state); err != nil {
		r.log.Warn("notify", "error", err)
	}
}

// stop ends everything in a bounded time.
func (r *running) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.conf.StopTimeout))
	defer cancel()
	if r.announced {
		r.tell(notifyStopping)
		r.log.Info("stopping", "sessions", r.sessions(), "they_have", time.Duration(r.conf.StopTimeout))
		r.drain(ctx)
	}
	if r.server != nil {
		if err := r.server.Shutdown(ctx); err != nil {
			r.log.Warn("sessions were cut off", "error", err)
			if err := r.server.Close(); err != nil {
				r.log.Error("close", "error", err)
			}
		}
	}
	for _, l := range r.listeners {
		l.Close() // those that were served are closed already
	}
	if r.local != nil {
		r.local.Close()
	}
	err := r.data.Close(ctx)
	if r.announced {
		r.log.Info("stopped")
	}
	return err
}
