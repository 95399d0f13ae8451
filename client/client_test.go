package client

import (
	"context"
	"errors"
	"testing"

	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

func secretOf(s string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return s, nil }
}

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*fake, *Options){
		"token":             func(*fake, *Options) {},
		"password":          func(f *fake, o *Options) { *o = f.userOptions() },
		"three connections": func(_ *fake, o *Options) { o.Connections = 3 },
		"holdfast":          func(f *fake, _ *Options) { f.holdfast = true },
		"slow line":         func(_ *fake, o *Options) { o.RateUp, o.RateDown = 4<<20, 4<<20 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wiretest.Run(t, func(t *testing.T) wiretest.Ports {
				f := newFake(t)
				o := f.options()
				change(f, &o)
				c := dial(t, o)
				return wiretest.Ports{Source: c, Target: c, Manager: c}
			})
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := wire.Repository{Host: "pbs.lan", Datastore: "tank"}
	for name, o := range map[string]Options{
		"a path":            {Repository: wire.Repository{Path: "/srv/backup"}},
		"no datastore":      {Repository: wire.Repository{Host: "pbs.lan"}},
		"user without @":    {Repository: wire.Repository{AuthID: "root", Host: "pbs.lan", Datastore: "tank"}},
		"short fingerprint": {Repository: good, Fingerprint: "ab:cd"},
		"negative rate":     {Repository: good, RateUp: -1},
		"many connections":  {Repository: good, Connections: connectionsMax + 1},
		"socks proxy":       {Repository: good, Proxy: "socks5://127.0.0.1:1080"},
		"proxy of nothing":  {Repository: good, Proxy: "http://"},
	} {
		if c, err := Dial(t.Context(), o); err == nil {
			c.Close()
			t.Errorf("%s: no error", name)
		}
	}
	c, err := newClient(Options{Repository: wire.Repository{Datastore: "tank"}})
	if err != nil || c.id != wire.RootUser || c.base != "https://localhost:8007/api2/json" {
		t.Errorf("defaults: %v %v", c, err)
	}
	c, err = newClient(Options{Repository: wire.Repository{Host: "fd00::1", Port: 1, Datastore: "tank"}})
	if err != nil || c.base != "https://[fd00::1]:1/api2/json" {
		t.Errorf("IPv6: %v %v", c, err)
	}
	c, err = newClient(Options{Repository: wire.Repository{Host: "fe80::1%eth0", Port: 1, Datastore: "tank"}})
	if err != nil || c.base != "https://[fe80::1%25eth0]:1/api2/json" {
		t.Errorf("IPv6 with a zone: %v %v", c, err)
	}
}

func TestNoPasswordIsAnError(t *testing.T) {
	f := newFake(t)
	o := f.userOptions()
	o.Secret = nil
	if _, err := tryDial(t, o); !errors.Is(err, wire.ErrUnauthenticated) {
		t.Errorf("no password: %v", err)
	}
	o.Secret = secretOf("wrong")
	if _, err := tryDial(t, o); !errors.Is(err, wire.ErrUnauthenticated) {
		t.Errorf("wrong password: %v", err)
	}
}

func snap(time int64) wire.Snapshot {
	return wire.Snapshot{Group: wire.Group{Type: "vm", ID: "100"}, Time: time}
}
