package serve

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"holdfast/command/term"
)

// The packaged configuration is the defaults, line by line, and lacks nothing.
func TestPackagedConfig(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "packaging", "holdfast.toml"))
	if err != nil {
		t.Fatal(err)
	}
	as := defaultConfig()
	if err := as.decode(string(b)); err != nil || !reflect.DeepEqual(as, defaultConfig()) {
		t.Errorf("as it is: %v, %+v", err, as)
	}
	setting := regexp.MustCompile(`(?m)^#([a-z_]+ = )`)
	uncommented := setting.ReplaceAllString(string(b), "$1")
	full := serveConfig{}
	if err := full.decode(uncommented); err != nil {
		t.Fatalf("without comments: %v", err)
	}
	if full.Names = append([]string(nil), full.Names...); !reflect.DeepEqual(full, defaultConfig()) {
		t.Errorf("without comments:\n%+v\nwant\n%+v", full, defaultConfig())
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[serveConfig](), reflect.TypeFor[limitsConfig]()} {
		for i := range typ.NumField() {
			key := typ.Field(i).Tag.Get("toml")
			if key != "limits" && strings.Count(string(b), "\n#"+key+" = ") != 1 {
				t.Errorf("the key %s does not stand there once", key)
			}
		}
	}
	if _, err := full.limits(); err != nil {
		t.Error(err)
	}
}

func TestConfigFile(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"lisen = []", `unknown key "lisen"`},
		{"[limits]\nbody = 1", `unknown key "limits.body"`},
		{"stop_timeout = '-1s'", "want a duration"},
		{"stop_timeout = 'soon'", "want a duration"},
		{"log_level = 'loud'", "loud"},
		{"data = 7", "data"},
		{"data = ", "expected value"},
	} {
		conf := defaultConfig()
		if err := conf.decode(tc.text); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want %q", tc.text, err, tc.want)
		}
	}
	for _, text := range []string{
		"listen = []", "listen = ['8007']", "certificate = 'x'", "[limits]\nconnections = -1", "[limits]\nrequests_per_token = -1", "[limits]\nreferences = -1", "[limits]\nbody_rate = 'fast'",
	} {
		conf := defaultConfig()
		if err := conf.decode(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		var usage term.UsageError
		if err := conf.check(); !errors.As(err, &usage) {
			t.Errorf("%q: %v", text, err)
		}
	}
	conf := defaultConfig()
	if err := conf.decode("listen = ['[::1]:1', ':2']\nstop_timeout = '5s'\n[limits]\nconnections = 7\nbody_rate = '2KiB'"); err != nil {
		t.Fatal(err)
	}
	l, err := conf.limits()
	if err != nil || l.Connections != 7 || l.PerAddress != 256 || l.PerToken != 256 || l.BodyRate != 2048 || len(conf.Listen) != 2 || time.Duration(conf.StopTimeout) != 5*time.Second {
		t.Errorf("%+v, %+v, %v", conf, l, err)
	}
}

// TestEveryLimitReachesTheServer sets each limit of the file to what no default is.
func TestEveryLimitReachesTheServer(t *testing.T) {
	typ := reflect.TypeFor[limitsConfig]()
	for i := range typ.NumField() {
		key, text := typ.Field(i).Tag.Get("toml"), "77"
		switch typ.Field(i).Type {
		case reflect.TypeFor[duration]():
			text = "'77s'"
		case reflect.TypeFor[string]():
			text = "'77B'"
		}
		conf, before := defaultConfig(), defaultConfig()
		if err := conf.decode("[limits]\n" + key + " = " + text); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		got, err := conf.limits()
		old, e := before.limits()
		if err != nil || e != nil || got == old {
			t.Errorf("%s = %s changes nothing: %+v, %v, %v", key, text, got, err, e)
		}
	}
}
