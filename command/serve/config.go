package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/BurntSushi/toml"

	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/wire"
)

// defaultConfigFile is read if it is there and --config names no other one.
const defaultConfigFile = "/etc/holdfast/holdfast.toml"

// serveConfig is the configuration of a server, as the file has it
// (packaging/holdfast.toml). Flags go before it.
type serveConfig struct {
	Data        string       `toml:"data"`
	Listen      []string     `toml:"listen"`
	Certificate string       `toml:"certificate"`
	Key         string       `toml:"key"`
	Names       []string     `toml:"names"`
	LogLevel    slog.Level   `toml:"log_level"`
	OpenMetrics bool         `toml:"open_metrics"`
	StopTimeout duration     `toml:"stop_timeout"`
	Limits      limitsConfig `toml:"limits"`
}

// limitsConfig is the table "limits" of the file.
type limitsConfig struct {
	Connections   int      `toml:"connections"`
	PerAddress    int      `toml:"connections_per_address"`
	PerToken      int      `toml:"requests_per_token"`
	References    int      `toml:"references"`
	HeaderTimeout duration `toml:"header_timeout"`
	IdleTimeout   duration `toml:"idle_timeout"`
	BodyTimeout   duration `toml:"body_timeout"`
	BodyRate      string   `toml:"body_rate"`
	StallTimeout  duration `toml:"stall_timeout"`
	WriteTimeout  duration `toml:"write_timeout"`
	SessionIdle   duration `toml:"session_timeout"`
	Finished      duration `toml:"finished_timeout"`
}

// duration is written as "90s" or "10m".
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return errors.New(`want a duration as "90s" or "10m"`)
	}
	*d = duration(v)
	return nil
}

// defaultConfig is what counts where neither a flag nor the file says
// something else.
func defaultConfig() serveConfig {
	return serveConfig{
		Data:        repo.DefaultDataDir,
		Listen:      []string{net.JoinHostPort("", strconv.Itoa(wire.DefaultPort))},
		LogLevel:    slog.LevelInfo,
		StopTimeout: duration(30 * time.Second),
		Limits: limitsConfig{
			Connections: 1024, PerAddress: 256, PerToken: 256, References: 10_000_000,
			HeaderTimeout: duration(10 * time.Second), IdleTimeout: duration(2 * time.Minute),
			BodyTimeout: duration(30 * time.Second), BodyRate: "1KiB", StallTimeout: duration(5 * time.Minute), WriteTimeout: duration(5 * time.Minute),
			SessionIdle: duration(6 * time.Hour), Finished: duration(10 * time.Minute),
		},
	}
}

// serveConfig reads the configuration file, and puts the environment and the
// flags over it.
func (c *call) serveConfig() (serveConfig, error) {
	conf, err := c.configFile()
	if err != nil {
		return conf, err
	}
	if dir, from := c.Secrets.Setting(c.Given, "data", secret.EnvData); from != "" {
		conf.Data = dir
	}
	if conf.Data == "" {
		return conf, term.Usagef("data directory: empty")
	}
	if conf.Data, err = filepath.Abs(conf.Data); err != nil {
		return conf, fmt.Errorf("data directory: %w", err)
	}
	if c.Flags.IsSet("listen") {
		conf.Listen = c.Flags.StringSlice("listen")
	}
	return conf, conf.check()
}

// configFile reads the file that was named, or the default one if it is there.
func (c *call) configFile() (serveConfig, error) {
	conf := defaultConfig()
	path := c.Flags.String("config")
	if path == "" {
		path = defaultConfigFile
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !c.Flags.IsSet("config") {
		return conf, nil
	}
	if err != nil {
		return conf, fmt.Errorf("read configuration: %w", err)
	}
	if err := conf.decode(string(b)); err != nil {
		return conf, term.Usagef("configuration %s: %w", path, err)
	}
	return conf, nil
}

// decode puts what a configuration file says over what is there. Keys that are
// not known are errors.
func (s *serveConfig) decode(text string) error {
	meta, err := toml.Decode(text, s)
	if err != nil {
		return err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return fmt.Errorf("unknown key %q", unknown[0].String())
	}
	return nil
}

// check looks for what the parts of a configuration do not tell by themselves.
func (s *serveConfig) check() error {
	if (s.Certificate == "") != (s.Key == "") {
		return term.Usagef("certificate and key: give both, or none for a self-signed one")
	}
	if len(s.Listen) == 0 {
		return term.Usagef("there is no address to listen on")
	}
	for _, address := range s.Listen {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return term.Usagef("address %q to listen on: want HOST:PORT, [IPv6]:PORT or :PORT", address)
		}
	}
	_, err := s.limits()
	return err
}

// limits are those of the server; what is zero has its default there.
func (s *serveConfig) limits() (budget.Limits, error) {
	l := budget.Limits{
		Connections: s.Limits.Connections, PerAddress: s.Limits.PerAddress, PerToken: s.Limits.PerToken, References: s.Limits.References,
		HeaderTimeout: time.Duration(s.Limits.HeaderTimeout), IdleTimeout: time.Duration(s.Limits.IdleTimeout),
		BodyTimeout: time.Duration(s.Limits.BodyTimeout), StallTimeout: time.Duration(s.Limits.StallTimeout),
		WriteTimeout: time.Duration(s.Limits.WriteTimeout), SessionIdleTime: time.Duration(s.Limits.SessionIdle),
		FinishedTime: time.Duration(s.Limits.Finished),
	}
	if l.Connections < 0 || l.PerAddress < 0 || l.PerToken < 0 || l.References < 0 {
		return l, term.Usagef("configuration: limits of connections, requests and references must not be negative")
	}
	if s.Limits.BodyRate != "" {
		n, err := term.ParseSize(s.Limits.BodyRate)
		if err != nil {
			return l, term.Usagef("configuration: limits.body_rate %q: %w", s.Limits.BodyRate, err)
		}
		l.BodyRate = int(n)
	}
	return l, nil
}

// certificateFiles are the files of the certificate: those that are configured,
// or the server's own.
func (s *serveConfig) certificateFiles() (cert, key string) {
	if s.Certificate != "" {
		return s.Certificate, s.Key
	}
	return filepath.Join(s.Data, repo.DataCertName), filepath.Join(s.Data, repo.DataKeyName)
}
