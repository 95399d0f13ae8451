package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"holdfast/command/repo"
	"holdfast/command/term"
)

// Values that a path has no use for are checked all the same.
func TestFlagsAreCheckedForEveryRepository(t *testing.T) {
	print := strings.Repeat("ab:", 31) + "ab"
	for _, tc := range []struct {
		args []string
		env  string
		want int
	}{
		{args: []string{"--rate-up", "abc"}, want: term.ExitUsage},
		{args: []string{"--rate-down", "-1"}, want: term.ExitUsage},
		{args: []string{"--rate", "1e99"}, want: term.ExitUsage},
		{args: []string{"--rate", ""}, want: term.ExitUsage},
		{args: []string{"--rate", "20MiB", "--rate-up", "100MB"}, want: term.ExitOK},
		{args: []string{"--proxy", "socks5://x:1"}, want: term.ExitUsage},
		{args: []string{"--proxy", ""}, want: term.ExitOK},
		{args: []string{"--fingerprint", "xyz"}, want: term.ExitUsage},
		{args: []string{"--fingerprint", print}, want: term.ExitOK},
		{args: []string{"--ns", "a//b"}, want: term.ExitUsage},
		{args: []string{"--lock-wait", "soon"}, want: term.ExitUsage},
		{env: "HOLDFAST_FINGERPRINT=xyz", want: term.ExitUsage},
		{env: "HOLDFAST_FINGERPRINT=", want: term.ExitUsage},
		{env: "HOLDFAST_NAMESPACE=a//b", want: term.ExitUsage},
		{env: "HOLDFAST_FINGERPRINT=" + print, want: term.ExitOK},
	} {
		t.Run(strings.Join(tc.args, " ")+tc.env, func(t *testing.T) {
			b := newBench(t)
			b.do(t, term.ExitOK, "init", b.path("store"))
			if tc.env != "" {
				name, value, _ := strings.Cut(tc.env, "=")
				b.env[name] = value
			}
			b.do(t, tc.want, append([]string{"list", "-r", b.path("store")}, tc.args...)...)
		})
	}
}

func TestErrorsNameTheProxy(t *testing.T) {
	b := newBench(t, "ALL_PROXY=127.0.0.1:1", "HOLDFAST_PASSWORD=x")
	b.do(t, term.ExitUnreachable, "list", "-r", "root@pam!a@backup.example.org:tank")
	b.wantErr(t, "through the proxy 127.0.0.1:1")
}

// A server that takes connections and says nothing holds no command up, whichever
// way there is to it.
func TestSilentServers(t *testing.T) {
	b := newBench(t)
	data := b.path("data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	export := b.path("export.json")
	if err := os.WriteFile(export, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	tcp := mute(t, "tcp", "127.0.0.1:0")
	mute(t, "unix", filepath.Join(data, repo.DataSocketName))
	for name, args := range map[string][]string{
		"certificate":   {"cert", "show", "-r", tcp + ":tank"},
		"through proxy": {"cert", "show", "-r", "203.0.113.1:8007:tank", "--proxy", "http://" + tcp},
		"socket":        {"datastore", "list", "--data", data},
		"import":        {"access", "import", "--data", data, export},
		"export":        {"access", "export", "--data", data},
	} {
		t.Run(name, func(t *testing.T) { b.do(t, term.ExitUnreachable, append(args, "--timeout", "1s")...) })
	}
}

// mute listens, accepts and says nothing until the test ends.
func mute(t *testing.T, network, address string) string {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		var held []net.Conn
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			held = append(held, c)
		}
		for _, c := range held {
			c.Close()
		}
	})
	t.Cleanup(func() { ln.Close(); open.Wait() })
	return ln.Addr().String()
}
