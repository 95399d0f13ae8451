package repo

import (
	"errors"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"holdfast/command/secret"
	"holdfast/command/term"
)

func TestProxyOfTheEnvironment(t *testing.T) {
	for name, tc := range map[string]struct {
		env  []string
		args []string
		want string
		bad  bool // a mistake of the command line
	}{
		"none":                 {},
		"all":                  {env: []string{"ALL_PROXY=proxy.lan:3128"}, want: "proxy.lan:3128"},
		"lower case":           {env: []string{"all_proxy=proxy.lan:3128"}, want: "proxy.lan:3128"},
		"not for this host":    {env: []string{"ALL_PROXY=proxy.lan:3128", "NO_PROXY=a.b, backup.example.org"}},
		"not for this domain":  {env: []string{"ALL_PROXY=proxy.lan:3128", "no_proxy=.example.org"}},
		"not for this port":    {env: []string{"ALL_PROXY=proxy.lan:3128", "NO_PROXY=backup.example.org:8007"}},
		"another port":         {env: []string{"ALL_PROXY=proxy.lan:3128", "NO_PROXY=backup.example.org:443"}, want: "proxy.lan:3128"},
		"not for any":          {env: []string{"ALL_PROXY=proxy.lan:3128", "NO_PROXY=*"}},
		"another host":         {env: []string{"ALL_PROXY=proxy.lan:3128", "NO_PROXY=up.example.org"}, want: "proxy.lan:3128"},
		"flag before variable": {env: []string{"ALL_PROXY=proxy.lan:3128"}, args: []string{"--proxy", ""}},
		"flag before no_proxy": {env: []string{"NO_PROXY=*"}, args: []string{"--proxy", "other:1"}, want: "other:1"},
		"socks":                {env: []string{"ALL_PROXY=socks5h://proxy.lan:1080"}, bad: true},
		"socks, not used":      {env: []string{"ALL_PROXY=socks5h://proxy.lan:1080", "NO_PROXY=*"}},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{}
			for _, l := range tc.env {
				name, value, _ := strings.Cut(l, "=")
				env[name] = value
			}
			var got string
			var err error
			tree := &cli.App{Name: "holdfast", Flags: ServerFlags(), Action: func(c *cli.Context) error {
				got, err = New(secret.Source{Env: env}, term.Given{Flags: c}).proxy("backup.example.org:8007")
				return nil
			}}
			if e := tree.Run(append([]string{"holdfast"}, tc.args...)); e != nil {
				t.Fatal(e)
			}
			var usage term.UsageError
			if errors.As(err, &usage) != tc.bad || err != nil && !tc.bad || err == nil && got != tc.want {
				t.Errorf("proxy %q, %v; want %q", got, err, tc.want)
			}
			if err != nil && !strings.Contains(err.Error(), "$ALL_PROXY") {
				t.Errorf("%v does not name the variable", err)
			}
		})
	}
}
